"""Which two cells of an activation map each label pixel lies between, and with what weights, in exact fractions.

Knows: both anchorings (docs/method.md, section 1.3), for one axis of a map at a time.
Does not know: activations; `kernels` evaluates the upsampled map S = W_y A W_x^T from these tables.

A worked example: 8 label pixels over an axis of 2 cells, anchored `half_pixel`. The cells stand at 1/4 and 3/4 of the
axis. Pixel p samples the position (p + 0.5) / 8, which is 5/16 for p = 2. In units of cells this is
(5/16 - 1/4) / (1/2) = 1/8: one eighth of the way from cell 0 to cell 1. S = 7/8 A[0] + 1/8 A[1] there, and only the
weight of the second cell is held, as the numerator 1 over the denominator 8. Pixels 0, 1 and 6, 7 lie outside the
outermost anchors, where the value of the edge is held: their two cells are the same.

>>> columns = half_pixel(2, 8)
>>> columns.first.tolist(), columns.second.tolist()
([0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1, 1, 1])
>>> columns.numerator.tolist(), columns.denominator
([0, 0, 1, 3, 5, 7, 0, 0], 8)
>>> columns.spans.tolist()  # pixels 2 to 5 lie between the two cells; S is linear on each span
[[0, 2], [2, 6], [6, 8]]
>>> columns.span_weights[1].tolist()  # of pixel 2; from pixel to pixel; the reciprocal of that
[0.125, 0.25, 4.0]
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

EXACT_BITS = 58
"""Bits that the product of both axes' denominators may have, so that the kernel can split a weight into two pieces."""


@dataclass(frozen=True)
class Axis:
    """How the label pixels along one axis sample the cells of a map along this axis."""

    first: NDArray[np.int64]
    """(pixel,) the last cell at or before the sampled position"""
    second: NDArray[np.int64]
    """(pixel,) the next cell; the same as `first` where its weight would be 0"""
    numerator: NDArray[np.int64]
    """(pixel,) weight of `second`, times `denominator`"""
    denominator: int
    """common to all pixels of the axis"""
    cells: int
    """cells of the map"""

    @property
    def weight(self) -> NDArray[np.float64]:
        """(pixel,) weight of `second`, rounded to float64."""
        return self.numerator / np.float64(self.denominator)

    @property
    def spans_of_cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last (cell,) of the half-open range of `spans` that a cell has a part in.

        A cell that no pixel samples has an empty range, at the index where its spans would stand.
        """
        starts = self.spans[:, 0]
        cells = np.arange(int(self.cells))
        begin = np.searchsorted(self.second[starts], cells, side="left")
        end = np.searchsorted(self.first[starts], cells, side="right")
        return begin.astype(np.int64), np.maximum(begin, end).astype(np.int64)

    @property
    def spans(self) -> NDArray[np.int64]:
        """(span, 2) half-open ranges of label pixels that lie between the same two cells: S is linear on each."""
        same = (self.first[1:] == self.first[:-1]) & (self.second[1:] == self.second[:-1])
        edges = np.concatenate([[0], np.flatnonzero(~same) + 1, [self.first.size]])
        return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.int64)

    @property
    def span_weights(self) -> NDArray[np.float64]:
        """(span, 3) weight of the first pixel, its growth from pixel to pixel, 1 / growth; 0 in spans of one pixel."""
        weight, (starts, stops) = self.weight, self.spans.T
        step = np.where(stops - starts > 1, weight[np.minimum(starts + 1, weight.size - 1)] - weight[starts], 0.0)
        return np.stack([weight[starts], step, np.divide(1.0, step, out=np.zeros_like(step), where=step > 0)], axis=1)


def axis(cells: int, labels: int, start: Fraction, jump: Fraction) -> Axis:
    """The table of `labels` label pixels over `cells` cells, of which cell i is anchored at ``start + i * jump``.

    Positions run from 0 to 1 along the axis of the input: label pixel p samples ``(p + 0.5) / labels``.

    >>> half_pixel(2, 4).weight
    array([0.  , 0.25, 0.75, 0.  ])
    """
    position = [(Fraction(2 * p + 1, 2 * labels) - start) / jump for p in range(labels)]
    clamped = [min(max(p, Fraction(0)), Fraction(cells - 1)) for p in position]
    first = [floor(p) for p in clamped]
    weights = [p - f for p, f in zip(clamped, first, strict=True)]
    denominator = lcm(*(w.denominator for w in weights))
    return Axis(
        np.array(first, np.int64),
        np.array([f + (w > 0) for f, w in zip(first, weights, strict=True)], np.int64),
        np.array([int(w * denominator) for w in weights], np.int64),
        denominator,
        cells,
    )


def half_pixel(cells: int, labels: int) -> Axis:
    """Cell i of `cells` is anchored at ``(i + 0.5) / cells`` of the input (torch ``align_corners=False``)."""
    return axis(cells, labels, Fraction(1, 2 * cells), Fraction(1, cells))


def receptive_field(cells: int, labels: int, start: Fraction, jump: Fraction, size: int) -> Axis:
    """Cell i is anchored at pixel ``start + i * jump`` of an input of `size` pixels (the 2017 paper's anchoring)."""
    return axis(cells, labels, start / size, jump / size)


def check_exact(rows: Axis, cols: Axis, layer: str) -> None:
    """Raise where the denominators of the weights are too large for the exact decisions of the kernel.

    Raises
    ------
    DissectError
        Where the product of the denominators has more than 58 bits, such as 29 each. Those of label grids and maps of
        tens of thousands of pixels are smaller.
    """
    bits = (rows.denominator * cols.denominator).bit_length()
    if bits > EXACT_BITS:
        raise DissectError(
            f"{layer}: expected interpolation weights of at most {EXACT_BITS} bits, which can be computed exactly, "
            f"got {bits} bits. "
            "Use a label_size that shares factors with the model's input size, or anchoring: half_pixel."
        )
