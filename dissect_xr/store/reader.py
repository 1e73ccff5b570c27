"""Reads groups and arrays of stores; damaged or missing objects raise `DamagedError` and are never read as data.

Knows: how a group, an array and a Dataset are opened through `VerifiedStore`.
Does not know: how they were written, or what they mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.errors import GroupNotFoundError

from dissect_xr.errors import DamagedError, DissectError
from dissect_xr.store import objects
from dissect_xr.store.verified import MEND, METADATA, VerifiedStore


def exists(url: str, path: str = "") -> bool:
    """Whether there is a Zarr group at `path`."""
    return objects.read(url, objects.key(path, METADATA)) is not None and _group(url, path) is not None


def _group(url: str, path: str) -> Any:
    """The group at `path`, None if there is none."""
    missing = GroupNotFoundError, FileNotFoundError
    try:
        with _reading(url, objects.key(path, METADATA), *missing):
            return zarr.open_group(_verified(url), path=path, mode="r", zarr_format=3)
    except missing:
        return None


def _verified(url: str) -> VerifiedStore:
    return VerifiedStore(objects.open_store(url), url)


@contextmanager
def _reading(url: str, key: str, *unchanged: type[Exception]) -> Iterator[None]:
    """Turn errors in the `with` block into a `DamagedError` of the object, group or array `key`.

    Errors that are not about the stored bytes are raised as they are: those of the package, lack of memory, transport
    errors, and the types `unchanged`.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (DissectError, MemoryError, *unchanged)) or objects.is_transport(error):
            raise
        message = f"{objects.join(url, key)}: cannot be read ({type(error).__name__}: {error}). {MEND}"
        raise DamagedError(message, url, key) from error


def read_attrs(url: str, path: str = "") -> dict[str, Any]:
    """The attributes of a group."""
    group = _group(url, path)
    if group is None:
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.")
    return dict(group.attrs.asdict())


class StoredArray:
    """An array of a store. Slicing it reads the slice, and only that, into memory."""

    def __init__(self, url: str, path: str, opened: Any) -> None:
        self.url, self.path, self._array = url, path, opened
        self.shape: Any = opened.shape
        self.dtype: np.dtype[Any] = opened.dtype
        self.chunks: tuple[int, ...] = opened.chunks
        self.shards: tuple[int, ...] | None = opened.shards
        self.dims: tuple[str, ...] = opened.metadata.dimension_names
        self.attrs: dict[str, Any] = dict(opened.attrs.asdict())

    def __getitem__(self, key: Any) -> Any:
        with _reading(self.url, self.path, IndexError):
            return self._array[key]

    def outer(self, key: tuple[Any, ...]) -> Any:
        """Values at the outer product of one slice, number or list of numbers per dim."""
        with _reading(self.url, self.path, IndexError):
            return self._array.oindex[key]


def read(url: str, path: str) -> StoredArray:
    """The array at `path`. Slicing it reads the slice, and only that, into memory.

    Raises
    ------
    DamagedError
        On opening or slicing, if a stored object is damaged or missing.
    """
    with _reading(url, objects.key(path, METADATA), FileNotFoundError):
        array = zarr.open_array(_verified(url), path=path, mode="r", zarr_format=3)
    return StoredArray(url, path, array)


def groups(url: str, path: str = "") -> list[str]:
    """Names of the groups directly below `path`, sorted."""
    return sorted(name for name, _ in zarr.open_group(_verified(url), path=path, mode="r").groups())


def open_lazy(url: str, path: str = "", *, chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """The group at `path` as a Dataset whose coordinates are in memory and whose variables are lazy.

    Parameters
    ----------
    chunks
        Dim -> length of a Dask chunk, for the dims in which it differs from the stored chunk.
    """
    group = _group(url, path)
    if group is None:
        raise DissectError(f"{url}: expected a Zarr group at '{path or '/'}', found none.")
    with _reading(url, objects.key(path, METADATA)):
        opened = dict(group.arrays())
    arrays = {name: StoredArray(url, objects.key(path, name), array) for name, array in sorted(opened.items())}
    attrs = dict(group.attrs.asdict())
    named = set(attrs.pop("coordinates", "").split())
    coords, variables = {}, {}
    for name, array in arrays.items():
        if name not in named and array.dims != (name,):
            variables[name] = _dask_variable(
                array, array.dims, array.attrs, objects.join(url, array.path), chunks or {}
            )
        else:
            coords[name] = xr.Variable(array.dims, _plain(array), array.attrs)
    return xr.Dataset(variables, coords, attrs)


class _LazyArray(BackendArray):
    """A `StoredArray` in the form in which xarray indexes it lazily."""

    def __init__(self, array: StoredArray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, lambda outer: np.asarray(self.array.outer(outer))
        )


def _dask_variable(
    array: StoredArray, dims: Sequence[str], attrs: Mapping[str, Any], name: str, chunks: Mapping[str, int]
) -> xr.Variable:
    """A variable whose Dask chunks are the stored chunks and are read through `array`, so errors name what is damaged.

    Parameters
    ----------
    name
        Start of the Dask array's name: the URL that is read. A unique suffix is added each time a store is opened:
        another store may have been written to the same URL since, and a cluster must not return cached results of the
        old one.
    chunks
        Dim -> length of a Dask chunk, for the dims in which it differs from the stored chunk.
    """
    lengths = {dim: chunks.get(dim, n) for dim, n in zip(dims, array.chunks, strict=True)}
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(_LazyArray(array)), attrs)
    return variable.chunk(lengths, name=f"{name}-{uuid4().hex}")


def _plain(array: StoredArray) -> NDArray[Any]:
    """All values; text as NumPy strings of fixed length, which compare fastest."""
    values = array[...]
    return np.asarray(values) if array.dtype.kind in "iufbM" else np.asarray(values.tolist(), dtype=str)
