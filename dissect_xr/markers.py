"""Markers: the one mechanism for "done".

Knows: the small objects beside a store that say what is finished, what they vouch for and what they rest on.
Does not know: Zarr, or what a block is.

A marker is an object at `<parent>/markers/<store name>/<key>.json`, written last, that holds the size and crc32c of
every object it vouches for and the fingerprint of what made them, and ends with its own crc32c. What has no marker does
not exist. Nothing relies on rename, so object stores and file systems are treated alike.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dissect_xr import places
from dissect_xr.errors import DamagedError, DissectError

Objects = dict[str, tuple[int, int]]
"""Object key -> (bytes, crc32c)."""


def mark(
    url: str,
    key: str,
    *,
    made_by: str,
    objects: Mapping[str, tuple[int, int]],
    note: Mapping[str, Any] | None = None,
    rests_on: Iterable[str] = (),
) -> None:
    """Write the marker `key`: everything it names is finished, and so are the markers that it rests on."""
    content = {
        "fingerprint": made_by,
        "objects": {name: list(pair) for name, pair in sorted(objects.items())},
        "note": dict(note or {}),
        "rests_on": sorted(rests_on),
    }
    body = json.dumps(content, sort_keys=True).encode()
    places.write(*_beside(url, key), body + b"\n" + f"{places.checksum(body):08x}".encode())


def marker(url: str, key: str, *, made_by: str | None = None) -> dict[str, Any] | None:
    """The marker `key`, or None where there is none.

    Raises
    ------
    DissectError
        If it is damaged (`DamagedError`), or was written under another fingerprint than `made_by`.
    """
    place, name = _beside(url, key)
    raw = places.read(place, name)
    if raw is None:
        return None
    body, _, checksum = raw.rpartition(b"\n")
    if checksum.decode("ascii", "replace") != f"{places.checksum(body):08x}":
        raise DamagedError(
            f"{places.join(place, name)}: is a damaged marker. Give the `run` command again: it does its block again.",
            url,
            f"{key}.json",
        )
    content: dict[str, Any] = json.loads(body)
    if made_by is not None and content["fingerprint"] != made_by:
        raise DissectError(
            f"{url}: '{key}' was made from other inputs or parameters (fingerprint {content['fingerprint'][:12]}) "
            f"than this run's ({made_by[:12]}). Use another output directory, or delete this one."
        )
    return content


def markers(url: str, prefix: str = "") -> set[str]:
    """Keys of all markers of a store that are `prefix` or lie below it."""
    place, base = _beside(url, "")
    below = f"{base}{prefix}" if prefix.endswith("/") or not prefix else f"{base}{prefix}/"
    return {key[len(base) : -len(".json")] for key in places.sizes(place, below) if key.endswith(".json")}


def drop(url: str, keys: Iterable[str]) -> set[str]:
    """Remove markers and all that rest on them; the keys of those that were there."""
    content, dropped = {}, set(keys)
    for key in markers(url):
        try:
            content[key] = set((marker(url, key) or {"rests_on": ()})["rests_on"])
        except DissectError:
            content[key] = set()
    while more := {key for key, rests_on in content.items() if rests_on & dropped} - dropped:
        dropped |= more
    # What rests on another goes first: a marker that is left never rests on one that is gone.
    for key in sorted(dropped, key=lambda key: -len(content.get(key, ()))):
        places.delete(*_beside(url, key))
    return dropped & set(content)


def drop_below(url: str, prefix: str) -> None:
    """Remove all markers below `prefix`."""
    place, base = _beside(url, "")
    for key in places.sizes(place, f"{base}{prefix}/"):
        places.delete(place, key)


def place_of(url: str, key: str) -> str:
    """Where the marker `key` lies, for messages."""
    return places.join(*_beside(url, key))


def _beside(url: str, key: str) -> tuple[str, str]:
    """The place one level up, and the marker's key there."""
    parent, name = places.split(url)
    return parent, f"markers/{name}/{key}.json" if key else f"markers/{name}/"
