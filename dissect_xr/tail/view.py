"""The tail of a layer as a lazy variable: its maps with the bound in all cells that are not stored.

Knows: xarray and Dask arrays.
Does not know: the layer's other variables (`activations.store`).
"""

from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from dissect_xr.tail.stored import StoredTail, TailPlace

MEANING = "the unit's output at each cell of its tail, and its bound at all others"


class _Maps(BackendArray):
    """Maps (image, unit, y, x) made from tails when they are indexed."""

    def __init__(self, place: TailPlace, shape: tuple[int, ...], dtype: str) -> None:
        self._tail = StoredTail(place)
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._maps)

    def _maps(self, key: tuple[Any, ...]) -> NDArray[np.floating]:
        """The maps of one image or a slice of images, and of one unit or a slice of units."""
        images, units = (
            range(length)[one] if isinstance(one, slice) else range(int(one), int(one) + 1)
            for one, length in zip(key[:2], self.shape[:2], strict=True)
        )
        span = (min(units, default=0), max(units, default=-1) + 1)
        first, last = min(images, default=0), max(images, default=-1) + 1
        if not len(images) or not len(units):
            found = np.empty((len(images), len(units), *self.shape[2:]), self.dtype)
        else:
            maps, _ = self._tail((first, last)).maps(self._tail.bound, span)
            maps = maps.reshape(last - first, -1, *self.shape[2:])
            found = maps[np.array(images) - first][:, np.array(units) - span[0]]
        inner = tuple(0 if not isinstance(one, slice) else slice(None) for one in key[:2])
        return np.asarray(found[inner + tuple(key[2:])])


def tail_variable(place: TailPlace, shape: tuple[int, ...], dtype: str, images: int) -> xr.Variable:
    """The lazy variable of a layer's tail; a Dask chunk is of so many images and all units."""
    lazy = indexing.LazilyIndexedArray(_Maps(place, shape, dtype))
    variable = xr.Variable(("image", "unit", "y", "x"), lazy, {"units": "1", "long_name": MEANING})
    return variable.chunk({"image": images}, name=f"{place.url}/{place.path}-{uuid4().hex}")
