"""Writes Zarr stores: all groups and arrays are created once, then tasks write whole shards.

Knows: Zarr format 3, shards and alignment, how metadata and blocks are written.
Does not know: what an array means (`schema`), where tasks run (`parallel`), which blocks there are, or how a finished
block is recorded (`markers`).
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.api.asynchronous import create_group
from zarr.codecs import ZstdCodec
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from dissect_xr.errors import DissectError
from dissect_xr.store import objects
from dissect_xr.store.markers import Written, drop_below, mark, marker
from dissect_xr.store.reader import read_attrs
from dissect_xr.store.verified import METADATA, RecordingStore, VerifiedStore, forget

CHUNK_KEYS = {"name": "default", "separator": "."}
"""Chunks lie in the array's own folder: with a folder for each dim, 300,000 objects were 900,000 folders to list."""


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
        """The smallest part that one task must write as a whole: a shard, or a chunk if there are no shards."""
        return self.shards or self.chunks

    @property
    def nbytes(self) -> int:
        """Uncompressed size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Writer:
    """Writes blocks into existing arrays of one store, and records the objects it wrote, for the marker.

    Each task has its own writer. `write` refuses a block that covers a shard only in part, since another task could
    write the rest of that shard.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = RecordingStore(VerifiedStore(objects.open_store(url), url), url)
        self._arrays: dict[str, Any] = {}

    @property
    def written(self) -> Written:
        """The objects written so far."""
        return dict(self._store.written)

    def add(self, written: Written) -> None:
        """Add objects that were written without this writer, so that the marker lists them as well."""
        self._store.written.update(written)

    def write(self, path: str, start: Sequence[int], data: NDArray[Any]) -> None:
        """Write `data` into the array at `path`; its first element goes to the index `start`.

        Raises
        ------
        DissectError
            If the block covers a shard only in part, other than at the end of the array.
        """
        array = self._array(path)
        _check_aligned(path, start, data.shape, array.shape, array.shards or array.chunks)
        array[tuple(slice(s, s + n) for s, n in zip(start, data.shape, strict=True))] = data

    def write_beginning(self, path: str, start: Sequence[int], data: NDArray[Any]) -> None:
        """Write the first values of a shard, whose other values stay the fill value; the caller alone writes it.

        For rows whose length is known only when they are made: chunks of the shard behind the data take no bytes.

        Raises
        ------
        DissectError
            If the data does not begin with a shard, or is longer.
        """
        array = self._array(path)
        block = array.shards or array.chunks
        if any(first % step or count > step for first, count, step in zip(start, data.shape, block, strict=True)):
            raise DissectError(f"{path}: block of {data.shape} at {tuple(start)} does not lie at the start of a shard.")
        array[tuple(slice(s, s + n) for s, n in zip(start, data.shape, strict=True))] = data

    def _array(self, path: str) -> Any:
        if path not in self._arrays:
            array = zarr.open_array(self._store, path=path, mode="r+").with_config({"write_empty_chunks": True})
            self._arrays[path] = array
        return self._arrays[path]


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


def create(
    url: str,
    path: str,
    arrays: Iterable[ArraySpec],
    attrs: Mapping[str, Any],
    coordinates: Iterable[tuple[ArraySpec, NDArray[Any]]] = (),
) -> Written:
    """Write the metadata of a group, its arrays and its coordinates, and return the objects written.

    If there was a group at `path`, it is deleted first.

    Raises
    ------
    DissectError
        If an attribute is NaN or infinite, or `url` is a folder with other files than a store; they are not deleted.
    """
    _check_json(attrs, path or url)
    if path or objects.read(url, METADATA) is not None:
        objects.delete_below(url, path)
    elif objects.holds_anything(url):
        raise DissectError(f"{url}: expected a store or an empty folder, found other files. Choose another path.")
    forget(url)
    return lay_out(url, path, arrays, attrs, coordinates)


def lay_out(
    url: str,
    path: str,
    arrays: Iterable[ArraySpec],
    attrs: Mapping[str, Any],
    coordinates: Iterable[tuple[ArraySpec, NDArray[Any]]] = (),
) -> Written:
    """As `create`, but blocks that exist are kept; groups above `path` are created if they are missing.

    The group's own metadata is written first, so that an unfinished store can be distinguished from foreign files.
    """
    _check_json(attrs, path or url)
    prefix, contents = f"{path}/" if path else "", sync(_contents(path, arrays, attrs, coordinates))
    wanted = {key: data for key, data in contents.items() if key.startswith(prefix)}
    written = {key: (len(data), objects.checksum(data)) for key, data in wanted.items()}
    parts = path.split("/") if path else []
    for depth in range(len(parts)):
        key = "/".join([*parts[:depth], METADATA])
        parent = objects.read(url, key)
        if parent is None:
            parent = _empty_group()
            objects.write(url, key, parent)
        written[key] = (len(parent), objects.checksum(parent))
    for key in sorted(wanted, key=lambda key: (key.count("/"), key)):
        if objects.read(url, key) != wanted[key]:
            objects.write(url, key, wanted[key])
    return written


def _check_json(attrs: Any, where: str) -> None:
    """Raise if an attribute is NaN or infinite: Zarr would write a word that other readers of JSON refuse."""
    if isinstance(attrs, Mapping):
        for name, value in attrs.items():
            _check_json(value, f"{where}.{name}")
    elif isinstance(attrs, (list, tuple)):
        for n, value in enumerate(attrs):
            _check_json(value, f"{where}[{n}]")
    elif isinstance(attrs, float) and not math.isfinite(attrs):
        raise DissectError(f"attribute {where}: expected a finite number, got {attrs}, which JSON has no number for.")


async def _contents(
    path: str,
    arrays: Iterable[ArraySpec],
    attrs: Mapping[str, Any],
    coordinates: Iterable[tuple[ArraySpec, NDArray[Any]]],
) -> dict[str, bytes]:
    """The objects of a store that holds just this group.

    They are made in one coroutine: zarr's functions that wait hand each call to a thread of zarr's and back, which
    took as long as the calls themselves.
    """
    memory = MemoryStore()
    group: Any = await create_group(store=memory, path=path, zarr_format=3, attributes=dict(attrs))
    for spec in arrays:
        await _create_array(group, spec)
    for spec, values in coordinates:
        await (await _create_array(group, spec)).setitem(slice(None), values)
    return {key: buffer.to_bytes() for key, buffer in memory._store_dict.items()}


async def _create_array(group: Any, spec: ArraySpec) -> Any:
    text = spec.dtype == "str"
    return await group.create_array(
        spec.name,
        shape=spec.shape,
        dtype=str if text else spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        dimension_names=spec.dims,
        chunk_key_encoding=CHUNK_KEYS,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value="" if text else 0,
        attributes=dict(spec.attrs),
        config={"write_empty_chunks": True},
    )


def _empty_group() -> bytes:
    """The metadata of a group without attributes."""
    memory = MemoryStore()
    zarr.create_group(memory, zarr_format=3)
    return bytes(memory._store_dict[METADATA].to_bytes())


def write_group(url: str, path: str, attrs: Mapping[str, Any]) -> Written:
    """Replace the attributes of a group, and return the object written; its arrays and groups stay as they are."""
    return {key: pair for key, pair in lay_out(url, path, (), attrs).items() if key == objects.key(path, METADATA)}


def update_attrs(url: str, attrs: Mapping[str, Any], *, key: str = "done") -> None:
    """Add attributes to the root group of a finished store, and write its marker again with the new checksum."""
    content = marker(url, key)
    if content is None:
        raise DissectError(
            f"{url}: expected the marker '{key}', found none: the store is not finished. Run its recipe again."
        )
    written = content["objects"] | write_group(url, "", read_attrs(url) | dict(attrs))
    mark(
        url,
        key,
        fingerprint=content["fingerprint"],
        written=written,
        note=content["note"],
        depends_on=content["depends_on"],
    )


def coordinate(name: str, dim: str, values: Sequence[Any] | NDArray[Any]) -> tuple[ArraySpec, NDArray[Any]]:
    """Spec and values of a one-dimensional array with a single chunk; strings are stored with variable length."""
    data = np.asarray(values)
    if data.dtype.kind in "UOT":
        data = np.asarray([str(v) for v in values], dtype=object)
    dtype = "str" if data.dtype.kind == "O" else data.dtype.str.lstrip("<|=")
    return ArraySpec(name, (dim,), data.shape, dtype, (max(1, data.size),)), data


def remove(url: str, path: str) -> None:
    """Delete the markers of the group at `path`, then the group."""
    drop_below(url, path)
    objects.delete_below(url, path)
    forget(url)


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of `parameters`."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def marked(
    url: str, key: str, *, fingerprint: str, depends_on: Iterable[str] = ()
) -> Iterator[tuple[Writer, dict[str, Any]]]:
    """A writer, and a dict for the marker's note. The marker is written after the `with` block, unless it raised."""
    writer, note = Writer(url), dict[str, Any]()
    yield writer, note
    mark(url, key, fingerprint=fingerprint, written=writer.written, note=note, depends_on=depends_on)
