"""The maps of a layer, recorded or derived, as tasks read them: some units, image range by image range, with peaks.

Knows: that a recorded layer's maps are stored, and that a derived one's are computed from all units of its source.
Does not know: which basis it is, thresholds, labels, or who reads.

How a derived map is made (docs/method.md, section 1.9). The values of the source are exact in float32, and so is the
matrix as it is stored. For each cell the products are added in the order of the source's units in float32
(`product`), the bias is added, negative sums become 0 where the layer has a ReLU, and the result is rounded to the
layer's dtype. Every number of it depends on its own image, cell and row of the matrix alone.

An example: two units with the activations 3 and 1, and 2 and 0, in the two cells of one image, and a matrix that adds
them, and takes the second from the first.

>>> source = np.array([[[[3, 1]], [[2, 0]]]], np.float16)
>>> matrix, bias = np.array([[1, 1], [1, -1]], np.float32), np.array([0, -2], np.float32)
>>> derived(source, matrix, bias, relu=False, dtype="float16").tolist()
[[[[5.0, 1.0]], [[-1.0, -1.0]]]]
>>> derived(source, matrix, bias, relu=True, dtype="float16").tolist()
[[[[5.0, 1.0]], [[0.0, 0.0]]]]
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection.derived.product import multiply
from dissect_xr.dissection.layers import TILE, Layer, Peaks
from dissect_xr.errors import DissectError
from dissect_xr.tail.stored import StoredTail

PEAK_UNITS = 4
"""Chunks of units whose maps are in memory at a time where only their peaks are wanted."""

Read = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Maps (image, unit, y, x) and the largest value of each, (image, unit)."""

Reached = tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.floating]]
"""Maps (map, y, x); the number (image, unit) of each unit's map among them, -1 where it is not; and the largest value
of each map, (image, unit)."""


def all_reached(values: NDArray[np.floating], peaks: NDArray[np.floating]) -> Reached:
    """Maps (image, unit, y, x) and their peaks as `Reached` has them, with all of them among those given."""
    return values.reshape(-1, *values.shape[2:]), np.arange(peaks.size).reshape(peaks.shape), peaks


class Maps:
    """Called with a half-open range of images, it gives the maps of some units and their peaks.

    Memory: of a derived layer the maps of all units of its source in these images, the units' rows of the matrix, and
    `Layer.row_bytes` for each.

    Parameters
    ----------
    ahead
        Where the ranges follow each other: what of peaks and tails is read together and kept.
    """

    def __init__(self, layer: Layer, units: tuple[int, int] | None = None, ahead: store.Ahead | None = None) -> None:
        self.layer, self._ahead = layer, ahead
        self.units = (0, layer.shape[1]) if units is None else units
        rows = slice(*self.units)
        if layer.tail is not None:
            self._tail = StoredTail(layer.tail, ahead)
        elif layer.derivation is None:
            self._stored = store.read(layer.url, f"{layer.path}/activation")
        else:
            self._stored = store.read(layer.url, f"{layer.derivation.source.path}/activation")
            self._matrix = np.ascontiguousarray(store.read(layer.url, f"{layer.path}/matrix")[rows])
            self._bias = store.read(layer.url, f"{layer.path}/bias")[rows]

    def __call__(self, images: tuple[int, int]) -> Read:
        """Maps of a half-open range of images, and their peaks."""
        values = self.values(images)
        if self.layer.derivation is None:
            return values, self._peaks(*images)
        return values, values.max(axis=(2, 3))

    def above(self, levels: NDArray[np.float32]) -> Callable[[tuple[int, int]], Reached]:
        """A function like this object, that gives only the maps whose peak lies above a level.

        Parameters
        ----------
        levels : (unit,)
        """

        def reached(images: tuple[int, int]) -> Reached:
            if self.layer.tail is None:
                return all_reached(*self(images))
            peaks = self._peaks(*images)
            found, where = self._tail(images).maps(self._tail.bound, self.units, peaks > levels)
            return found, where, peaks

        return reached

    @cached_property
    def _peaks(self) -> store.Rows:
        return Peaks(self.layer).in_order(self.units, self._ahead)

    def values(self, images: tuple[int, int]) -> NDArray[np.floating]:
        """Maps of a half-open range of images; of a tail, with the bound in the cells that are not stored.

        Raises
        ------
        DissectError
            Where a derived value is too large for the layer's dtype.
        """
        layer = self.layer
        if layer.tail is not None:
            found, _ = self._tail(images).maps(self._tail.bound, self.units)
            return found.reshape(-1, self.units[1] - self.units[0], *layer.shape[2:])
        if layer.derivation is None:
            return np.asarray(self._stored[slice(*images), slice(*self.units)])
        source = self._stored[slice(*images)]
        found = derived(source, self._matrix, self._bias, relu=layer.derivation.relu, dtype=layer.dtype)
        if not np.isfinite(found).all():
            self._refuse(found, images[0])
        return found

    def _refuse(self, found: NDArray[np.floating], first: int) -> None:
        """Raise for the first value that is not finite."""
        image, unit, y, x = np.argwhere(~np.isfinite(found))[0].tolist()
        name = store.read(self.layer.url, "image")[first + image]
        mend = (
            "Ask for float32 (dtype: float32)."
            if self.layer.dtype == "float16"
            else "Scale the rows of the matrix down, or mend the activations."
        )
        raise DissectError(
            f"{self.layer.path}: unit {self.units[0] + unit} is {found[image, unit, y, x]} as {self.layer.dtype} in "
            f"image '{name}', row {y}, column {x} of its map, expected a finite number. {mend}"
        )


def derived(
    source: NDArray[np.floating],
    matrix: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    relu: bool,
    dtype: str,
) -> NDArray[np.floating]:
    """The derived maps of some images, (image, row, y, x) of `dtype`; too large values become infinite.

    Parameters
    ----------
    source : (image, unit, y, x) float16 or float32, contiguous
    matrix : (row, unit)
    bias : (row,)
    """
    images, units, height, width = source.shape
    cells = height * width
    flat = source.reshape(images, units, cells)
    found = np.empty((images, len(matrix), cells), dtype)
    step = max(1, TILE // cells)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(0, images, step):
            for x in range(0, cells, TILE):
                part = flat[i : i + step, :, x : x + TILE]
                tile = np.empty((units, part.shape[0], part.shape[2]), np.float32)
                tile[...] = part.transpose(1, 0, 2)
                sums = _rectified(tile.reshape(units, -1), matrix, bias, relu)
                found[i : i + step, :, x : x + TILE] = sums.reshape(len(matrix), *tile.shape[1:]).transpose(1, 0, 2)
    return found.reshape(images, len(matrix), height, width)


def _rectified(
    tile: NDArray[np.float32], matrix: NDArray[np.float32], bias: NDArray[np.float32], relu: bool
) -> NDArray[np.float32]:
    """Sums (row, cell) with their bias, before they are rounded."""
    sums = np.empty((len(matrix), tile.shape[1]), np.float32)
    multiply(matrix, tile, sums)
    sums += bias[:, None]
    return np.maximum(sums, 0, out=sums) if relu else sums


class DerivedPeaks:
    """`peak[images, units]` of a derived layer, of which none are stored: its maps are computed for them.

    Memory: besides the result, one chunk of images of the source, the rows of these units, and the maps of
    `PEAK_UNITS` chunks of them.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.chunk = layer.chunk[0]
        """images that are read together"""

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.floating]:
        images, units = range(self._layer.shape[0])[key[0]], range(self._layer.shape[1])[key[1]]
        found = np.empty((len(images), len(units)), self._layer.dtype)
        step = PEAK_UNITS * self._layer.chunk[1]
        for first in range(0, len(units), step):
            block = units[first : first + step]
            maps = Maps(self._layer, (block.start, block.stop))
            for start in range(0, len(images), self.chunk):
                part = images[start : start + self.chunk]
                found[start : start + len(part), first : first + len(block)] = maps((part.start, part.stop))[1]
        return found


def peaks_of(layer: Layer) -> Any:
    """The peaks of a layer, recorded or derived: an object with `chunk` that is indexed as ``[images, units]``."""
    return Peaks(layer) if layer.derivation is None else DerivedPeaks(layer)
