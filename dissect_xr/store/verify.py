"""Whether a store is what its markers list, and what has to be done again where it is not.

Knows: objects, their sizes and checksums, which marker lists which.
Does not know: Zarr, or how a block is made: a stage does again what has no marker.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dissect_xr.errors import DissectError
from dissect_xr.parallel.progress import Bar, track
from dissect_xr.store import objects
from dissect_xr.store.markers import marker, markers, url_of
from dissect_xr.store.verified import METADATA

STORES = ("probe.zarr", "activations.zarr", "dissection.zarr")
"""What a run directory holds."""


@dataclass(frozen=True)
class Damage:
    """One object that is not what was written."""

    where: str
    """path or URL"""
    what: str
    markers: tuple[str, ...]
    """keys of the markers that no longer hold"""
    key: str | None = None
    """of the object in its store; None for a marker"""

    def __str__(self) -> str:
        again = f" ({', '.join(self.markers)})" if self.markers else ""
        return f"{self.where}: {self.what}{again}"


@dataclass
class Expected:
    """What the markers of a store list."""

    url: str
    objects: dict[str, tuple[int, int]] = field(default_factory=dict)
    """object key -> (bytes, crc32c)"""
    by: dict[str, list[str]] = field(default_factory=dict)
    """object key -> keys of the markers that list it"""
    damages: list[Damage] = field(default_factory=list)
    """of the markers themselves"""


def expected(url: str) -> Expected:
    """What the markers of the store at `url` list; reads all of them."""
    found, there = Expected(url), markers(url)
    with ThreadPoolExecutor(8) as executor:
        contents = dict(zip(sorted(there), executor.map(lambda key: _content(url, key), sorted(there)), strict=True))
    for key, content in contents.items():
        if isinstance(content, str):
            found.damages.append(Damage(url_of(url, key), content, (key,)))
            continue
        for missing in sorted(set(content["depends_on"]) - there):
            found.damages.append(Damage(url_of(url, missing), f"missing, though '{key}' depends on it", (key,)))
        for name, (size, crc) in content["objects"].items():
            if found.objects.setdefault(name, (size, crc)) != (size, crc):
                found.damages.append(Damage(url_of(url, key), f"contradicts another marker on {name}", (key,)))
            found.by.setdefault(name, []).append(key)
    return found


def _content(url: str, key: str) -> dict[str, dict[str, tuple[int, int]]] | str:
    """The marker, or what is wrong with it."""
    try:
        return marker(url, key) or "was removed meanwhile"
    except (DissectError, OSError) as error:
        if objects.is_transport(error):
            raise
        return "damaged marker"


def inspect(
    known: Expected, *, full: bool, only: Iterable[str] | None = None, bar: Bar | None = None
) -> Iterator[Damage]:
    """What is damaged: sizes of all objects and the contents of metadata, or with `full` all contents.

    Parameters
    ----------
    only
        Object keys to look at; None means all.
    bar
        Advanced by every object.
    """
    if only is None:
        yield from known.damages
    keys = list(known.objects if only is None else only)
    sizes = objects.sizes(known.url) if only is None and not full else None
    with ThreadPoolExecutor(8) as executor:
        for damage in executor.map(lambda key: _look(known, key, sizes), keys):
            if bar is not None:
                bar.advance(0)
            if damage is not None:
                yield damage


def _look(known: Expected, key: str, sizes: Mapping[str, int] | None) -> Damage | None:
    """What is wrong with one object; where `sizes` are given, only those of chunks are compared."""
    size, crc = known.objects[key]
    wrong = None
    if sizes is not None and not key.endswith(METADATA):
        found = sizes.get(key)
        if found != size:
            wrong = "missing" if found is None else f"{found:,} bytes, {size:,} were written"
    else:
        try:
            data = objects.read(known.url, key)
        except OSError as error:
            if objects.is_transport(error):
                raise
            data, wrong = b"", f"cannot be read: {error.strerror}"
        if data is None:
            wrong = "missing"
        elif wrong is None and len(data) != size:
            wrong = f"{len(data):,} bytes, {size:,} were written"
        elif wrong is None and objects.checksum(data) != crc:
            wrong = "damaged: the checksum is not that of what was written"
    return Damage(objects.join(known.url, key), wrong, tuple(known.by[key]), key) if wrong else None


def stores_at(path: str) -> list[str]:
    """The stores of a run directory, or `path` itself where it is one.

    Raises
    ------
    DissectError
        Where there is neither.
    """
    inside = [objects.join(path, name) for name in STORES]
    found = [url for url in inside if markers(url) or objects.read(url, METADATA) is not None]
    if not found and (markers(path) or objects.read(path, METADATA) is not None):
        found = [path]
    if not found:
        raise DissectError(f"{path}: expected a store or a run directory with {', '.join(STORES)}, found neither.")
    return found


def verify(path: str, *, show: bool = True) -> tuple[list[Damage], int]:
    """All damage of a store or of a run directory, and the number of objects; reads every byte that a marker lists.

    `show` draws a progress bar.
    """
    damages, count = [], 0
    for url in stores_at(path):
        known = expected(url)
        # What `keep_activations: none` leaves of a store is its root alone.
        if not known.by and not known.damages and set(objects.sizes(url)) != {METADATA}:
            damages.append(Damage(url, "nothing in it is marked as finished", ()))
        count += len(known.objects)
        damages += read_all(known, show)
    return damages, count


def read_all(known: Expected, show: bool) -> Iterator[Damage]:
    """What is damaged, after reading every byte, with a progress bar."""
    name, count = known.url.rstrip("/").rsplit("/", 1)[-1], len(known.objects)
    with track(f"verify {name}", count, show=show and count > 0) as bar:
        yield from inspect(known, full=True, bar=bar)
