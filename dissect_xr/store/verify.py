"""Verification of stores: which objects differ from what the markers list, and which markers list them.

Knows: the sizes and checksums of objects, and the content of markers.
Does not know: Zarr, or how a block is computed.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dissect_xr.errors import DissectError
from dissect_xr.parallel.progress import Bar, track
from dissect_xr.store import objects
from dissect_xr.store.markers import marker, markers, url_of
from dissect_xr.store.verified import METADATA

STORES = ("probe.zarr", "activations.zarr", "dissection.zarr")
"""The stores of a run directory."""

EXPERIMENTS = "experiments"
"""Folder of a run directory that holds a store for each experiment."""

PREDICTED = "predicted"
"""Folder of a run directory that holds a store for the label maps of each segmenter."""


@dataclass(frozen=True)
class Damage:
    """One object that is damaged or missing."""

    where: str
    """path or URL"""
    what: str
    """what is wrong with it"""
    markers: tuple[str, ...]
    """keys of the markers that list it, whose blocks must be computed again"""
    key: str | None = None
    """key of the object in its store; None if the damaged object is a marker"""

    def __str__(self) -> str:
        again = f" ({', '.join(self.markers)})" if self.markers else ""
        return f"{self.where}: {self.what}{again}"


@dataclass
class Expected:
    """All objects that the markers of a store list."""

    url: str
    objects: dict[str, tuple[int, int]] = field(default_factory=dict)
    """object key -> (bytes, crc32c)"""
    by: dict[str, list[str]] = field(default_factory=dict)
    """object key -> keys of the markers that list it"""
    damages: list[Damage] = field(default_factory=list)
    """damage of the markers themselves"""


def expected(url: str, intact: Iterable[str] = (), existing: Set[str] | None = None) -> Expected:
    """All objects that the markers of the store at `url` list, but for those of groups that are known to be intact.

    `existing` are the keys of all markers, where the caller has listed them already.
    """
    found, existing = Expected(url), markers(url) if existing is None else existing
    passed = tuple(f"{prefix}/" for prefix in intact)
    keys = sorted(key for key in existing if not key.startswith(passed))
    with ThreadPoolExecutor(8) as executor:
        contents = dict(zip(keys, executor.map(lambda key: _content(url, key), keys), strict=True))
    for key, content in contents.items():
        if isinstance(content, str):
            found.damages.append(Damage(url_of(url, key), content, (key,)))
            continue
        for missing in sorted(set(content["depends_on"]) - existing):
            found.damages.append(
                Damage(url_of(url, missing), f"missing, though the marker '{key}' depends on it", (key,))
            )
        for name, (size, crc) in content["objects"].items():
            if found.objects.setdefault(name, (size, crc)) != (size, crc):
                found.damages.append(
                    Damage(url_of(url, key), f"lists {name} with another size or checksum than another marker", (key,))
                )
            found.by.setdefault(name, []).append(key)
    return found


def _content(url: str, key: str) -> dict[str, dict[str, tuple[int, int]]] | str:
    """The content of a marker, or what is wrong with it."""
    try:
        return marker(url, key) or "was removed during verification"
    except (DissectError, OSError) as error:
        if objects.is_transport(error):
            raise
        return "damaged marker"


def inspect(
    listed: Expected,
    *,
    sizes: Mapping[str, int] | None = None,
    only: Iterable[str] | None = None,
    bar: Bar | None = None,
) -> Iterator[Damage]:
    """The damaged and missing ones among the listed objects.

    Parameters
    ----------
    sizes
        Key -> bytes of all objects of the store: only metadata is read then, and the sizes of all others are compared.
        None reads all objects and compares their checksums.
    only
        Keys of the objects to check; None checks all, and yields the damage of the markers as well.
    bar
        Advanced by one for every object.
    """
    if only is None:
        yield from listed.damages
    keys = list(listed.objects if only is None else only)
    with ThreadPoolExecutor(8) as executor:
        for damage in executor.map(lambda key: _damage(listed, key, sizes), keys):
            if bar is not None:
                bar.advance(0)
            if damage is not None:
                yield damage


def _damage(listed: Expected, key: str, sizes: Mapping[str, int] | None) -> Damage | None:
    """The damage of one object, None if it is intact. With `sizes`, a chunk is not read: only its size is compared."""
    size, crc = listed.objects[key]
    wrong = None
    if sizes is not None and not key.endswith(METADATA):
        found = sizes.get(key)
        if found != size:
            wrong = "missing" if found is None else f"has {found:,} bytes, {size:,} were written"
    else:
        try:
            data = objects.read(listed.url, key)
        except OSError as error:
            if objects.is_transport(error):
                raise
            data, wrong = b"", f"cannot be read: {error.strerror}"
        if data is None:
            wrong = "missing"
        elif wrong is None and len(data) != size:
            wrong = f"has {len(data):,} bytes, {size:,} were written"
        elif wrong is None and objects.checksum(data) != crc:
            wrong = "damaged: its checksum differs from that of what was written"
    return Damage(objects.join(listed.url, key), wrong, tuple(listed.by[key]), key) if wrong else None


def marked_stores(path: str, folder: str) -> list[str]:
    """The URLs of the stores that were begun in a folder of the run directory at `path`."""
    url = objects.join(path, folder)
    return [objects.join(url, name) for name in objects.children(url, "markers/")]


def stores_at(path: str) -> list[str]:
    """The URLs of the stores of the run directory at `path`, or `path` itself if it is a store.

    Raises
    ------
    DissectError
        If it is neither.
    """
    inside = [objects.join(path, name) for name in STORES]
    inside += [*marked_stores(path, PREDICTED), *marked_stores(path, EXPERIMENTS)]
    found = [url for url in inside if markers(url) or objects.read(url, METADATA) is not None]
    if not found and (markers(path) or objects.read(path, METADATA) is not None):
        found = [path]
    if not found:
        raise DissectError(f"{path}: expected a store, or a run directory with {', '.join(STORES)}, found neither.")
    return found


def verify(path: str, *, show: bool = True) -> tuple[list[Damage], int]:
    """All damage of a store or of a run directory, and the number of objects; reads every object that a marker lists.

    `show` draws a progress bar.
    """
    damages, count = [], 0
    for url in stores_at(path):
        listed = expected(url)
        if not listed.damages and _is_unfinished(listed):
            damages.append(Damage(url, "no marker lists anything in it, so nothing in it is finished", ()))
        count += len(listed.objects)
        damages += read_all(listed, show=show)
    return damages, count


def _is_unfinished(listed: Expected) -> bool:
    """Whether no marker lists anything, but for that of the root, though there is more than the root.

    With `keep: none`, only the root is left of a store of activations.
    """
    if any(key != "created" for keys in listed.by.values() for key in keys):
        return False
    root = {key.partition("/")[0] for key in listed.objects} | {METADATA}
    return any(key.partition("/")[0] not in root for key in objects.sizes(listed.url))


def read_all(listed: Expected, *, show: bool = True) -> Iterator[Damage]:
    """The damaged and missing objects; reads every byte, with a progress bar if `show`."""
    name, count = listed.url.rstrip("/").rsplit("/", 1)[-1], len(listed.objects)
    with track(f"verify {name}", count, show=show and count > 0) as bar:
        yield from inspect(listed, bar=bar)
