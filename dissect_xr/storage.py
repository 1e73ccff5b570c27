"""Zarr stores: create once, write whole blocks, mark what is done, open lazily.

Knows: Zarr format 3, shards and alignment, the markers beside a store and what they vouch for.
Does not know: what an array means (`schema`), who writes it (`cluster`), or which block comes next.

A marker is a small object at `<parent>/markers/<store name>/<key>.json`, written last, that holds the size and crc32c
of every object it vouches for and the fingerprint of what made them. What has no marker does not exist. Nothing relies
on rename, so object stores and file systems are treated alike; the URL decides (`s3://...` goes through fsspec).
"""

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from dissect_xr.errors import DissectError

Objects = dict[str, tuple[int, int]]
"""Object key -> (bytes, crc32c)."""


@dataclass(frozen=True)
class ArraySpec:
    """One array to be created."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def block(self) -> tuple[int, ...]:
        """What one writer must own whole: the shard, or the chunk where there are no shards."""
        return self.shards or self.chunks

    @property
    def nbytes(self) -> int:
        """Uncompressed size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class _RecordingStore(WrapperStore[Any]):
    """A store that notes size and checksum of everything written through it."""

    def __init__(self, store: Any, objects: Objects | None = None) -> None:
        super().__init__(store)
        self.objects: Objects = {} if objects is None else objects

    def _with_store(self, store: Any) -> "_RecordingStore":
        return type(self)(store, self.objects)

    def _note(self, key: str, value: Buffer) -> None:
        data = value.to_bytes()
        self.objects[key] = (len(data), google_crc32c.value(data))

    async def set(self, key: str, value: Buffer) -> None:
        self._note(key, value)
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """zarr 3.4 writes through this where the wrapped store can; 3.1 never calls it."""
        self._note(key, value)
        super().set_sync(key, value)  # type: ignore[misc]


class Writer:
    """Writes blocks into existing arrays of one store and remembers what it wrote, for the marker.

    One writer belongs to one task. `write` refuses a block that another task could share a shard with.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _RecordingStore(_store(url))
        self._arrays: dict[str, Any] = {}

    @property
    def objects(self) -> Objects:
        """What was written so far."""
        return dict(self._store.objects)

    def write(self, path: str, start: Sequence[int], data: NDArray[Any]) -> None:
        """Write `data` into the array at `path`, its first element at index `start`.

        Raises
        ------
        DissectError
            If the block does not cover whole shards (or reach the end of the array).
        """
        array = self._arrays.get(path)
        if array is None:
            array = zarr.open_array(self._store, path=path, mode="r+", config={"write_empty_chunks": True})
            self._arrays[path] = array
        block = array.shards or array.chunks
        _check_aligned(path, start, data.shape, array.shape, block)
        array[tuple(slice(s, s + n) for s, n in zip(start, data.shape, strict=True))] = data


def _check_aligned(
    path: str, start: Sequence[int], size: Sequence[int], shape: Sequence[int], block: Sequence[int]
) -> None:
    for axis, (first, count, length, step) in enumerate(zip(start, size, shape, block, strict=True)):
        stop = first + count
        if first % step or (stop % step and stop != length) or stop > length:
            raise DissectError(
                f"{path}: block [{first}, {stop}) on axis {axis} of length {length} is not made of whole shards "
                f"of {step}: two workers could overwrite each other. Use blocks of {step}."
            )


def create(url: str, path: str, arrays: Iterable[ArraySpec], attrs: Mapping[str, Any]) -> Objects:
    """Write the metadata of a group and of its arrays, deleting what stood there; return the objects written."""
    store = _RecordingStore(_store(url))
    root = zarr.open_group(store, mode="a", zarr_format=3)
    group = root.create_group(path, overwrite=True, attributes=dict(attrs)) if path else root
    if not path:
        group.attrs.put(dict(attrs))
    for spec in arrays:
        text = spec.dtype == "str"
        group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=str if text else spec.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            dimension_names=spec.dims,
            compressors=ZstdCodec(level=1, checksum=True),
            fill_value="" if text else 0,
            attributes=dict(spec.attrs),
            overwrite=not path,
        )
    return dict(store.objects)


def coordinate(name: str, dim: str, values: Sequence[Any] | NDArray[Any]) -> tuple[ArraySpec, NDArray[Any]]:
    """A one-dimensional array in a single chunk, with its values; strings are stored with variable length."""
    data = np.asarray(values)
    if data.dtype.kind in "UOT":
        data = np.asarray([str(v) for v in values], dtype=object)
    dtype = "str" if data.dtype.kind == "O" else data.dtype.str.lstrip("<|=")
    return ArraySpec(name, (dim,), data.shape, dtype, (max(1, data.size),)), data


def exists(url: str, path: str = "") -> bool:
    """Whether a Zarr group stands at `path`."""
    try:
        zarr.open_group(_store(url), path=path, mode="r", zarr_format=3)
    except (GroupNotFoundError, FileNotFoundError):
        return False
    return True


def read_attrs(url: str, path: str = "") -> dict[str, Any]:
    """The attributes of a group."""
    try:
        return dict(zarr.open_group(_store(url), path=path, mode="r", zarr_format=3).attrs.asdict())
    except (GroupNotFoundError, FileNotFoundError) as error:
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.") from error


def update_attrs(url: str, attrs: Mapping[str, Any], path: str = "") -> None:
    """Add attributes to a group."""
    zarr.open_group(_store(url), path=path, mode="r+").attrs.update(dict(attrs))


def read(url: str, path: str) -> Any:
    """The array at `path`, for slicing: the slice is what is read."""
    return zarr.open_array(_store(url), path=path, mode="r")


def groups(url: str, path: str = "") -> list[str]:
    """Names of the groups directly below `path`, sorted."""
    return sorted(name for name, _ in zarr.open_group(_store(url), path=path, mode="r").groups())


def open_lazy(url: str, path: str = "", *, chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """The group at `path` as a Dataset whose coordinates are in memory and whose variables are lazy."""
    if not exists(url, path):
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.")
    data: xr.Dataset = xr.open_zarr(_store(url), group=path or None, consolidated=False, chunks=dict(chunks or {}))
    loaded = {}
    for name, coord in data.coords.items():
        text = coord.dtype.kind not in "iufbM"
        values = np.asarray(coord.values.tolist(), dtype=str) if text else coord.values
        loaded[name] = (coord.dims, values, coord.attrs)
    return data.assign_coords(loaded)


def remove(url: str, path: str) -> None:
    """Delete the group at `path` and its markers, the markers first."""
    store, prefix = _beside(url)
    for key in list(_list(store, f"{prefix}/{path}/")):
        sync(store.delete(key))
    sync(_store(url).delete_dir(path))


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of `parameters`."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def mark(
    url: str, key: str, *, made_by: str, objects: Mapping[str, tuple[int, int]], note: Mapping[str, Any] | None = None
) -> None:
    """Write the marker `key`: everything it names is finished."""
    body = json.dumps(
        {"fingerprint": made_by, "objects": {k: list(v) for k, v in sorted(objects.items())}, "note": dict(note or {})},
        sort_keys=True,
    ).encode()
    store, prefix = _beside(url)
    content = body + b"\n" + f"{google_crc32c.value(body):08x}".encode()
    sync(store.set(f"{prefix}/{key}.json", default_buffer_prototype().buffer.from_bytes(content)))


def marker(url: str, key: str, *, made_by: str | None = None) -> dict[str, Any] | None:
    """The marker `key`, or None where there is none.

    Raises
    ------
    DissectError
        If it is damaged, or was written under another fingerprint than `made_by`.
    """
    store, prefix = _beside(url)
    buffer = sync(store.get(f"{prefix}/{key}.json", default_buffer_prototype()))
    if buffer is None:
        return None
    body, _, checksum = buffer.to_bytes().rpartition(b"\n")
    if checksum.decode("ascii", "replace") != f"{google_crc32c.value(body):08x}":
        raise DissectError(f"{prefix}/{key}.json beside {url} is damaged: delete it, and its block is done again.")
    content: dict[str, Any] = json.loads(body)
    if made_by is not None and content["fingerprint"] != made_by:
        raise DissectError(
            f"{url}: '{key}' was made from other inputs or parameters (fingerprint {content['fingerprint'][:12]}) "
            f"than this run's ({made_by[:12]}). Use another output directory, or delete this one."
        )
    return content


def markers(url: str, prefix: str = "") -> set[str]:
    """Keys of all markers of a store that start with `prefix`."""
    store, base = _beside(url)
    found = _list(store, f"{base}/{prefix}" if prefix.endswith("/") or not prefix else f"{base}/{prefix}/")
    keys = (key[len(base) + 1 : -len(".json")] for key in found if key.endswith(".json"))
    return {key for key in keys if key.startswith(prefix)}


@contextmanager
def marked(url: str, key: str, *, made_by: str) -> Iterator[tuple[Writer, dict[str, Any]]]:
    """A writer and a note; leaving without an error writes the marker, leaving with one writes nothing."""
    writer, note = Writer(url), dict[str, Any]()
    yield writer, note
    mark(url, key, made_by=made_by, objects=writer.objects, note=note)


def join(url: str, *parts: str) -> str:
    """`url` with `parts` appended, for paths and URLs alike."""
    return posixpath.join(url, *parts) if "://" in url else str(Path(url, *parts))


def _store(url: str) -> Any:
    if "://" in url:
        return FsspecStore.from_url(url)
    return LocalStore(Path(url))


def _beside(url: str) -> tuple[Any, str]:
    """The store one level up, and the prefix there under which this store's markers lie."""
    parent, name = posixpath.split(url.rstrip("/")) if "://" in url else (str(Path(url).parent), Path(url).name)
    return _store(parent), f"markers/{name}"


def _list(store: Any, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sorted(sync(collect()))
