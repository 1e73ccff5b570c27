"""Seals: one digest for all that was written below a finished group, which a listing proves without reading markers.

Knows: the digest of keys and sizes, and of the checksums of metadata; which markers are sealed.
Does not know: what is wrong where a seal does not hold: `verify` then reads the markers below it.

An example. A snapshot of 132 layers on 63,305 images has 248 image blocks, whose markers list 37,000 objects. When it
is finished, the marker `<snapshot>/done` is written with a seal: the sha256 over a line for each object in the order of
keys, such as "20/conv1/activation/c.0.0.0.0 4194304 -". A run that starts lists the objects, makes the same lines from
the sizes it finds, and where the digests agree it reads one marker instead of 249. The metadata of arrays and groups is
small, and a flipped bit in it changes no size: its lines end with a checksum, and it is read.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dissect_xr.errors import DissectError
from dissect_xr.store import objects
from dissect_xr.store.markers import Written, mark, marker, markers
from dissect_xr.store.verified import METADATA

SEAL = "seal"
"""Name of the digest in the note of a marker."""

REQUESTS = 30
"""Objects that are read at once from an object store."""


def seal(url: str, prefix: str) -> str:
    """The seal of the group `prefix`: hex sha256 over what the markers below it list."""
    listed: Written = {}
    for key in markers(url, prefix):
        if key != f"{prefix}/done":
            content = marker(url, key) or {"objects": {}}
            listed |= {name: pair for name, pair in content["objects"].items() if name.startswith(f"{prefix}/")}
    return _digest((key, size, crc if key.endswith(METADATA) else None) for key, (size, crc) in sorted(listed.items()))


def reseal(url: str, prefix: str, depends_on: Iterable[str] = ()) -> None:
    """Seal a finished group again, after more was written below it, and let its marker depend on more markers."""
    done = marker(url, f"{prefix}/done")
    if done is not None:
        mark(
            url,
            f"{prefix}/done",
            fingerprint=done["fingerprint"],
            written={name: (size, crc) for name, (size, crc) in done["objects"].items()},
            note=done["note"] | {SEAL: seal(url, prefix)},
            depends_on={*done["depends_on"], *depends_on},
        )


def sealed(url: str, sizes: Mapping[str, int], keys: Iterable[str]) -> set[str]:
    """The groups at the top of a store whose seal holds.

    Parameters
    ----------
    sizes
        Key -> bytes of all objects of the store, as `objects.sizes` lists them.
    keys
        Keys of all its markers.
    """
    existing = set(keys)
    below: dict[str, list[str]] = {}
    for key in sizes:
        below.setdefault(key.partition("/")[0], []).append(key)
    return {
        prefix
        for prefix in sorted({key.partition("/")[0] for key in existing if key.endswith("/done")})
        if f"{prefix}/done" in existing and _holds(url, prefix, below.get(prefix, []), sizes, existing)
    }


def _holds(url: str, prefix: str, keys: list[str], sizes: Mapping[str, int], existing: set[str]) -> bool:
    try:
        content = marker(url, f"{prefix}/done")
        if content is None or SEAL not in content["note"] or not existing.issuperset(content["depends_on"]):
            return False
        checksums = _checksums(url, [key for key in keys if key.endswith(METADATA)])
    except (DissectError, OSError) as error:
        if objects.is_transport(error):
            raise
        return False
    return bool(content["note"][SEAL] == _digest((key, sizes[key], checksums.get(key)) for key in sorted(keys)))


def _checksums(url: str, keys: Sequence[str]) -> dict[str, int | None]:
    """Key -> crc32c of the objects `keys`, None where there is none.

    A local file is read in about 15 microseconds, to which a thread would add twice as much; a request to an object
    store takes a thousand times as long, and thirty are under way at once.
    """
    if objects.is_local(url):
        return {key: _checksum(url, key) for key in keys}
    with ThreadPoolExecutor(REQUESTS) as executor:
        return dict(zip(keys, executor.map(lambda key: _checksum(url, key), keys), strict=True))


def _checksum(url: str, key: str) -> int | None:
    data = objects.read(url, key)
    return None if data is None else objects.checksum(data)


def _digest(lines: Iterable[tuple[str, int, int | None]]) -> str:
    text = "".join(f"{key} {size} {'-' if crc is None else crc}\n" for key, size, crc in lines)
    return hashlib.sha256(text.encode()).hexdigest()
