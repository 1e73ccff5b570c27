"""Variables of a Dataset that read through a given array, so that an error in reading says what is damaged.

Knows: xarray's interface for lazily indexed arrays.
Does not know: Zarr, or how a chunk is read.
"""

from collections.abc import Mapping
from typing import Any, Protocol

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


def lazily(data: xr.Dataset, arrays: Mapping[str, Array], chunks: Mapping[str, int]) -> xr.Dataset:
    """`data` with its variables of these names reading through `arrays`, as Dask arrays cut like what is stored.

    Parameters
    ----------
    chunks
        Dim -> length of a Dask chunk, where it is another than the stored one.
    """
    variables = {}
    for name, array in arrays.items():
        stored = data[name].variable
        if stored.encoding.get("_FillValue") is not None or stored.dtype != array.dtype:
            raise TypeError(f"{name}: stored as {array.dtype} but decoded as {stored.dtype}")
        variable = xr.Variable(stored.dims, indexing.LazilyIndexedArray(_Reading(array)), stored.attrs)
        lengths = {dim: chunks.get(str(dim), n) for dim, n in zip(stored.dims, array.chunks, strict=True)}
        variables[name] = variable.chunk(lengths)
    return data.assign(variables)
