"""Zarr stores: create once, write whole blocks.

Knows: Zarr format 3, shards and alignment, how metadata and blocks are written.
Does not know: what an array means (`schema`), who writes it (`parallel`), which block comes next, or what makes a block
exist (`markers`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from dissect_xr.errors import DissectError
from dissect_xr.store import objects
from dissect_xr.store.markers import Written, drop_below, mark, marker
from dissect_xr.store.reader import read_attrs
from dissect_xr.store.verified import METADATA, RecordingStore, VerifiedStore, forget


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


class Writer:
    """Writes blocks into existing arrays of one store and remembers what it wrote, for the marker.

    One writer belongs to one task. `write` refuses a block that another task could share a shard with.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = RecordingStore(VerifiedStore(objects.open_store(url), url), url)
        self._arrays: dict[str, Any] = {}

    @property
    def written(self) -> Written:
        """What was written so far."""
        return dict(self._store.written)

    def add(self, written: Written) -> None:
        """Have the marker list objects that were written otherwise, too."""
        self._store.written.update(written)

    def write(self, path: str, start: Sequence[int], data: NDArray[Any]) -> None:
        """Write `data` into the array at `path`, its first element at index `start`.

        Raises
        ------
        DissectError
            If the block does not cover whole shards (or reach the end of the array).
        """
        array = self._arrays.get(path)
        if array is None:
            array = zarr.open_array(self._store, path=path, mode="r+").with_config({"write_empty_chunks": True})
            self._arrays[path] = array
        _check_aligned(path, start, data.shape, array.shape, array.shards or array.chunks)
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


def create(
    url: str,
    path: str,
    arrays: Iterable[ArraySpec],
    attrs: Mapping[str, Any],
    coordinates: Iterable[tuple[ArraySpec, NDArray[Any]]] = (),
) -> Written:
    """Write the metadata of a group, of its arrays and its coordinates, deleting what stood there; the objects written.

    Raises
    ------
    DissectError
        Where a folder holds files that are no store: they are not deleted.
    """
    if path or objects.read(url, METADATA) is not None:
        objects.delete_below(url, path)
    elif objects.holds_anything(url):
        raise DissectError(f"{url}: is not empty and holds no store. Choose another path.")
    forget(url)
    return lay_out(url, path, arrays, attrs, coordinates)


def lay_out(
    url: str,
    path: str,
    arrays: Iterable[ArraySpec],
    attrs: Mapping[str, Any],
    coordinates: Iterable[tuple[ArraySpec, NDArray[Any]]] = (),
) -> Written:
    """As `create`, keeping the blocks that are there; groups above `path` are made where they are missing.

    The group's own metadata is written first, so that what is not finished can be told from what is not ours.
    """
    memory = MemoryStore()
    group: Any = zarr.create_group(memory, path=path, zarr_format=3, attributes=dict(attrs))
    coordinates = list(coordinates)
    for spec in [*arrays, *(spec for spec, _ in coordinates)]:
        _create_array(group, spec)
    for spec, values in coordinates:
        group[spec.name].with_config({"write_empty_chunks": True})[:] = values
    own = f"{path}/" if path else ""
    made = {key: buffer.to_bytes() for key, buffer in memory._store_dict.items() if key.startswith(own)}
    written = {key: (len(data), objects.checksum(data)) for key, data in made.items()}
    parts = path.split("/") if path else []
    for depth in range(len(parts)):
        key = "/".join([*parts[:depth], METADATA])
        above = objects.read(url, key)
        if above is None:
            above = _bare_group()
            objects.write(url, key, above)
        written[key] = (len(above), objects.checksum(above))
    for key in sorted(made, key=lambda key: (key.count("/"), key)):
        if objects.read(url, key) != made[key]:
            objects.write(url, key, made[key])
    return written


def _create_array(group: Any, spec: ArraySpec) -> None:
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
        config={"write_empty_chunks": True},
    )


def _bare_group() -> bytes:
    memory = MemoryStore()
    zarr.create_group(memory, zarr_format=3)
    return bytes(memory._store_dict[METADATA].to_bytes())


def write_group(url: str, path: str, attrs: Mapping[str, Any]) -> Written:
    """Write a group's own metadata again, with these attributes; what it holds stays."""
    return {key: pair for key, pair in lay_out(url, path, (), attrs).items() if key == objects.key(path, METADATA)}


def update_attrs(url: str, attrs: Mapping[str, Any], *, key: str = "done") -> None:
    """Add attributes to the root group of a finished store, and have its marker list them."""
    content = marker(url, key)
    if content is None:
        raise DissectError(f"{url}: expected the marker '{key}', found none.")
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
    """A one-dimensional array in a single chunk, with its values; strings are stored with variable length."""
    data = np.asarray(values)
    if data.dtype.kind in "UOT":
        data = np.asarray([str(v) for v in values], dtype=object)
    dtype = "str" if data.dtype.kind == "O" else data.dtype.str.lstrip("<|=")
    return ArraySpec(name, (dim,), data.shape, dtype, (max(1, data.size),)), data


def remove(url: str, path: str) -> None:
    """Delete the group at `path` and its markers, the markers first."""
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
    """A writer and a note; leaving without an error writes the marker, leaving with one writes nothing."""
    writer, note = Writer(url), dict[str, Any]()
    yield writer, note
    mark(url, key, fingerprint=fingerprint, written=writer.written, note=note, depends_on=depends_on)
