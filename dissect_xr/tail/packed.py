"""Tails in memory: maps are packed into one, and unpacked into maps.

Knows: which cells belong to a tail, and that a map is unpacked with its bound in all other cells.
Does not know: files, layers, how a bound is chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.floats import bits, codes
from dissect_xr.tail import kernels

FIRST = 16
"""The buffers first hold a sixteenth of the cells; they are doubled while that is too small."""


@dataclass(frozen=True)
class Packed:
    """The tails of the maps of some images and all units of a layer."""

    shape: tuple[int, int]
    """(y, x)"""
    span_count: NDArray[Any]
    """(image, unit) spans of each map"""
    spans: NDArray[Any]
    """(2, span) gap before each span in its map, and its length, in cells"""
    values: NDArray[np.floating]
    """(value,) as stored, the maps one after the other"""
    ends: NDArray[np.int64]
    """(image, 2) spans and values up to and with each image"""

    @property
    def nbytes(self) -> int:
        """Bytes, not compressed."""
        return int(self.span_count.nbytes + self.spans.nbytes + self.values.nbytes)

    def images(self, first: int, stop: int) -> "Packed":
        """The tails of a half-open range of these images."""
        (s, v), ends = self.ends[first - 1] if first else (0, 0), self.ends[first:stop]
        t, w = ends[-1] if len(ends) else (s, v)
        return Packed(
            self.shape, self.span_count[first:stop], self.spans[:, s:t], self.values[v:w], ends - np.array([s, v])
        )

    def maps(
        self, bound: NDArray[np.float32], units: tuple[int, int], wanted: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """Maps of a range of units, with the bound in the cells that are not stored.

        Parameters
        ----------
        bound : (unit of the layer,)
        wanted : (image, unit of the range), None for all

        Returns
        -------
        maps : (map, y, x), those that are wanted, in order
        where : (image, unit of the range) the number of each map, -1 where it is not wanted
        """
        first, stop = units
        number = len(self.span_count) * (stop - first)
        where = np.arange(number).reshape(-1, stop - first)
        if wanted is not None:
            where = np.where(wanted, np.cumsum(wanted).reshape(wanted.shape) - 1, -1)
            number = int(wanted.sum())
        found = np.empty((number, self.shape[0] * self.shape[1]), self.values.dtype)
        fill = bits(bound[first:stop].astype(self.values.dtype), "i")
        kernels.unpack_maps(
            self.span_count, self.spans, bits(self.values, "i"), where, first, fill,
            found.view(f"i{found.dtype.itemsize}"),
        )  # fmt: skip
        return found.reshape(number, *self.shape), where


def span_dtype(cells: int) -> str:
    """The dtype of gaps, lengths and numbers of spans in maps of so many cells."""
    return "uint16" if cells < 1 << 16 else "uint32"


def pack(
    maps: NDArray[np.floating], bound: NDArray[np.float32], dtype: str | None = None
) -> tuple[Packed, NDArray[np.int64]]:
    """The tails of maps, and how many values of each unit are equal to its bound.

    Parameters
    ----------
    maps : (image, unit, y, x) float16 or float32, finite
    bound : (unit,) values that the maps' dtype holds
    dtype
        Of the spans; None for the smallest that serves.

    Examples
    --------
    >>> maps = np.zeros((1, 1, 3, 5), np.float16)
    >>> maps[0, 0, 0, 0] = 2
    >>> found, equal = pack(maps, np.zeros(1, np.float32))
    >>> found.spans.T.tolist(), found.values.tolist(), equal.tolist()
    ([[0, 2], [3, 2]], [2.0, 0.0, 0.0, 0.0], [14])
    """
    images, units, height, width = maps.shape
    cells = height * width
    dtype = span_dtype(cells) if dtype is None else dtype
    raw = bits(maps.reshape(images, units, cells), "i")
    levels = codes(bound.astype(maps.dtype)).astype(np.int64)
    most = images * units * cells
    span_count, ends = np.zeros((images, units), dtype), np.zeros((images, 2), np.int64)
    equal = np.zeros(units, np.int64)
    room = min(most, max(most // FIRST, cells))
    spans, values = np.empty((2, room // 2 + cells // 2 + 1), dtype), np.empty(room + cells, raw.dtype)
    state = (0, 0, 0)
    while True:
        state = kernels.pack_maps(raw, width, levels, state, spans, values, span_count, equal, ends)
        number, s, v = state
        if number == images * units:
            break
        spans = np.concatenate([spans, np.empty_like(spans)], axis=1)
        values = np.concatenate([values, np.empty_like(values)])
    return Packed((height, width), span_count, spans[:, :s].copy(), values[:v].view(maps.dtype).copy(), ends), equal


def joined(parts: Sequence[Packed]) -> Packed:
    """The tails of successive images together."""
    if len(parts) == 1:
        return parts[0]
    totals = np.cumsum([[0, 0], *(part.ends[-1] for part in parts[:-1])], axis=0)
    return Packed(
        parts[0].shape,
        np.concatenate([part.span_count for part in parts]),
        np.concatenate([part.spans for part in parts], axis=1),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.ends + total for part, total in zip(parts, totals, strict=True)]),
    )
