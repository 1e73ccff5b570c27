"""Markers: the one mechanism for "done".

Knows: the small objects beside a store that say what is finished: which objects they list, which markers they need.
Does not know: Zarr, or what a block is.

A marker is an object at `<parent>/markers/<store name>/<key>.json`, written last, that holds the size and crc32c of
every object it lists and the fingerprint of what made them, and ends with its own crc32c. What has no marker does
not exist. Nothing relies on rename, so object stores and file systems are treated alike.
"""

import json
from collections.abc import Iterable, Mapping
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
    """Write the marker `key`: all objects it lists are finished, and so are the markers it depends on."""
    content = {
        "fingerprint": fingerprint,
        "objects": {name: list(pair) for name, pair in sorted(written.items())},
        "note": dict(note or {}),
        "depends_on": sorted(depends_on),
    }
    body = json.dumps(content, sort_keys=True).encode()
    objects.write(*_beside(url, key), body + b"\n" + f"{objects.checksum(body):08x}".encode())


def marker(url: str, key: str, *, fingerprint: str | None = None) -> dict[str, Any] | None:
    """The marker `key`, or None where there is none.

    Raises
    ------
    DissectError
        If it is damaged (`DamagedError`), or was written under another fingerprint than `fingerprint`.
    """
    parent, name = _beside(url, key)
    raw = objects.read(parent, name)
    if raw is None:
        return None
    body, _, checksum = raw.rpartition(b"\n")
    if checksum.decode("ascii", "replace") != f"{objects.checksum(body):08x}":
        raise DamagedError(
            f"{url_of(url, key)}: is a damaged marker. Give the `run` command again: its block is done again.",
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
    """Keys of all markers of a store that are `prefix` or lie below it."""
    parent, base = _beside(url, "")
    below = f"{base}{prefix}" if prefix.endswith("/") or not prefix else f"{base}{prefix}/"
    return {key[len(base) : -len(".json")] for key in objects.sizes(parent, below) if key.endswith(".json")}


def drop(url: str, keys: Iterable[str]) -> set[str]:
    """Remove markers and all that depend on them; the keys of those that were there."""
    content, dropped = {}, set(keys)
    for key in markers(url):
        try:
            content[key] = set((marker(url, key) or {"depends_on": ()})["depends_on"])
        except DissectError:
            content[key] = set()
    while more := {key for key, depends_on in content.items() if depends_on & dropped} - dropped:
        dropped |= more
    # What depends on another goes first: a marker that is left never depends on one that is gone.
    for key in sorted(dropped, key=lambda key: -len(content.get(key, ()))):
        objects.delete(*_beside(url, key))
    return dropped & set(content)


def drop_below(url: str, prefix: str) -> None:
    """Remove all markers below `prefix`."""
    parent, base = _beside(url, "")
    objects.delete_all(parent, objects.sizes(parent, f"{base}{prefix}/"))


def url_of(url: str, key: str) -> str:
    """Where the marker `key` lies, for messages."""
    return objects.join(*_beside(url, key))


def _beside(url: str, key: str) -> tuple[str, str]:
    """The URL one level up, and the marker\'s key there."""
    parent, name = objects.split(url)
    return parent, f"markers/{name}/{key}.json" if key else f"markers/{name}/"
