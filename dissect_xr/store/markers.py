"""Markers: small objects beside a store that record which parts of it are finished.

Knows: which objects a marker lists, which other markers it depends on, how it is written, read and removed.
Does not know: Zarr, or what a block is.

A marker is written after all objects that it lists. An object that no marker lists counts as unfinished, even if it is
there. Nothing relies on renaming, so object stores and file systems are treated alike.

An example: images 64 to 127 of the snapshot `first`, extracted into `run/activations.zarr`. When all objects of the
block are written, the worker writes the marker `first/blocks/64-128` to the object
`run/markers/activations.zarr/first/blocks/64-128.json`::

    {"depends_on": [],
     "fingerprint": "9f2c...",                                    sha256 of what the block was made from
     "note": {"batch": 32},
     "objects": {"first/conv1/activation/c.1.0.0.0": [804312, 1917132407],    bytes and crc32c
                 "first/peak/c.1.0": [5120, 304860571]}}
    bd82a251                                                      crc32c of the marker itself, in hex

When all blocks are finished, the marker `first/done` is written. It lists no objects but depends on `first/created`,
`first/blocks/0-64` and `first/blocks/64-128`. Suppose that a disk then damages the 5,120 bytes of `peak`, or the marker
`first/blocks/64-128` itself. `drop` removes that marker and all that depend on it, `first/done`, while `first/created`
and `first/blocks/0-64` stay. The next run finds one block without a marker, computes images 64 to 127 again, and writes
`first/done` again.
"""

import json
import os
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any

from dissect_xr.errors import DamagedError, DissectError
from dissect_xr.store import objects

Written = dict[str, tuple[int, int]]
"""Object key -> (bytes, crc32c)."""


def mark(
    url: str,
    key: str,
    *,
    fingerprint: str,
    written: Mapping[str, tuple[int, int]],
    note: Mapping[str, Any] | None = None,
    depends_on: Iterable[str] = (),
) -> None:
    """Write the marker `key`, after all objects that it lists (`written`) and all markers that it depends on."""
    content = {
        "fingerprint": fingerprint,
        "objects": {name: list(pair) for name, pair in sorted(written.items())},
        "note": dict(note or {}),
        "depends_on": sorted(depends_on),
    }
    body = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    objects.write(*_location(url, key), body + b"\n" + f"{objects.checksum(body):08x}".encode())


def marker(url: str, key: str, *, fingerprint: str | None = None) -> dict[str, Any] | None:
    """The marker `key`, or None where there is none.

    Raises
    ------
    DissectError
        If the marker is damaged (`DamagedError`), or its fingerprint differs from `fingerprint`.
    """
    parent, name = _location(url, key)
    raw = objects.read(parent, name)
    if raw is None:
        return None
    body, _, checksum = raw.rpartition(b"\n")
    if checksum.decode("ascii", "replace") != f"{objects.checksum(body):08x}":
        raise DamagedError(
            f"{url_of(url, key)}: is a damaged marker. Give the `run` command again: it computes the block again.",
            url,
            f"{key}.json",
        )
    content: dict[str, Any] = json.loads(body)
    if fingerprint is not None and content["fingerprint"] != fingerprint:
        raise DissectError(
            f"{url}: '{key}' was made from other inputs or parameters (fingerprint {content['fingerprint'][:12]}) "
            f"than this run's ({fingerprint[:12]}). Use another output directory, or delete this one."
        )
    return content


def markers(url: str, prefix: str = "") -> set[str]:
    """Keys of all markers of a store, or of those whose key starts with `prefix` and a slash."""
    parent, base = _location(url, "")
    start = f"{base}{prefix}" if prefix.endswith("/") or not prefix else f"{base}{prefix}/"
    return {key[len(base) : -len(".json")] for key in objects.sizes(parent, start) if key.endswith(".json")}


def marked_groups(url: str) -> list[str]:
    """Names of the groups at the top of a store that have markers, sorted."""
    return objects.children(*_location(url, ""))


def unmark(url: str, key: str) -> None:
    """Remove one marker that no other depends on, if it is there."""
    objects.delete(*_location(url, key))


def drop(url: str, keys: Iterable[str]) -> set[str]:
    """Remove the markers `keys` and all markers that depend on them; the keys of those that existed."""
    content, dropped = {}, set(keys)
    for key in markers(url):
        try:
            content[key] = set((marker(url, key) or {"depends_on": ()})["depends_on"])
        except DissectError:
            content[key] = set()
    while more := {key for key, depends_on in content.items() if depends_on & dropped} - dropped:
        dropped |= more
    # Markers that depend on others are removed before those, so that no marker left by a kill depends on a removed one.
    graph = {key: content.get(key, set()) & dropped for key in dropped}
    for key in reversed(list(TopologicalSorter(graph).static_order())):
        objects.delete(*_location(url, key))
    return dropped & set(content)


def drop_below(url: str, prefix: str) -> None:
    """Remove all markers whose key starts with `prefix` and a slash."""
    parent, base = _location(url, "")
    objects.delete_all(parent, objects.sizes(parent, f"{base}{prefix}/"))


def drop_if_gone(url: str) -> set[str]:
    """Remove the markers of a store of which no object is left, as where someone deleted its folder; their keys.

    Markers that list no object stay, with what was found out before there was a store. So do those of a store of which
    a part is left: the next run finds what is lost, and makes that again. A link or an empty folder is left, too: what
    it leads to may be a disk that is not mounted.
    """
    if objects.is_local(url) and os.path.lexists(url):
        return set()
    if objects.read(url, "zarr.json") is not None or not (keys := markers(url)) or objects.sizes(url):
        return set()
    return drop(url, {key for key in keys if _lists_objects(url, key)})


def _lists_objects(url: str, key: str) -> bool:
    try:
        return bool((marker(url, key) or {"objects": ()})["objects"])
    except DissectError:  # a damaged one says nothing
        return True


def url_of(url: str, key: str) -> str:
    """The URL of the marker `key`, for messages."""
    return objects.join(*_location(url, key))


def _location(url: str, key: str) -> tuple[str, str]:
    """The URL of the folder that holds the store, and the key of the marker's object in it."""
    parent, name = objects.split(url)
    return parent, f"markers/{name}/{key}.json" if key else f"markers/{name}/"
