"""Variables that read through a given array, so that an error in reading says what is damaged.

Knows: xarray's interface for lazily indexed arrays.
Does not know: Zarr, or how a chunk is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing


class Array(Protocol):
    """What a variable reads through."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    def outer(self, key: tuple[Any, ...]) -> Any:
        """Values of an outer product of slices, numbers and lists of places."""


class _Reading(BackendArray):
    def __init__(self, array: Array) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, lambda outer: np.asarray(self.array.outer(outer))
        )


def lazily(
    array: Array, dims: Sequence[str], attrs: Mapping[str, Any], name: str, chunks: Mapping[str, int]
) -> xr.Variable:
    """A variable that reads through `array`, as a Dask array cut like what is stored.

    Parameters
    ----------
    name
        Of the Dask array: the place that is read. What is opened again gets another name, since another store may lie
        there by then, of which a cluster must not give what it kept of the first.
    chunks
        Dim -> length of a block, where it is another than the stored chunk's.
    """
    lengths = {dim: chunks.get(dim, n) for dim, n in zip(dims, array.chunks, strict=True)}
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(_Reading(array)), attrs)
    return variable.chunk(lengths, name=f"{name}-{uuid4().hex}")
