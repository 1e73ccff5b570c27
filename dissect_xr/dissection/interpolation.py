"""Where each label pixel samples an activation map: two anchors and an exact rational weight per row or column.

Knows: METHOD sections on upsampling, both anchorings, in exact arithmetic.
Does not know: activation values; `kernels` evaluates S = W_y A W_x^T from these tables.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

Anchoring = Literal["receptive_field", "half_pixel"]

EXACT_BITS = 58
"""Products of both axes' denominators below 2**58 keep every term of the exact decision in two float64 pieces."""


@dataclass(frozen=True)
class Axis:
    """How the label pixels of one axis sample the cells of one axis of a map."""

    first: NDArray[np.int64]
    """(label,) the cell at or before the sample"""
    second: NDArray[np.int64]
    """(label,) the cell at or after it; equals `first` where the weight is 0"""
    numerator: NDArray[np.int64]
    """(label,) weight of `second` times `denominator`"""
    denominator: int
    """common to all pixels of the axis"""
    cells: int
    """cells of the map"""

    @property
    def weight(self) -> NDArray[np.float64]:
        """(label,) weight of `second`, rounded to float64."""
        return self.numerator / np.float64(self.denominator)

    @property
    def spans_of_cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(cell,) each: the half-open range of `groups` that a cell takes part in, or could, for cells not sampled."""
        starts = self.spans[:, 0]
        cells = np.arange(int(self.cells))
        begin = np.searchsorted(self.second[starts], cells, side="left")
        end = np.searchsorted(self.first[starts], cells, side="right")
        return begin.astype(np.int64), np.maximum(begin, end).astype(np.int64)

    @property
    def spans(self) -> NDArray[np.int64]:
        """(group, 2) half-open ranges of label pixels that lie between the same two cells: S is linear on each."""
        same = (self.first[1:] == self.first[:-1]) & (self.second[1:] == self.second[:-1])
        edges = np.concatenate([[0], np.flatnonzero(~same) + 1, [self.first.size]])
        return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.int64)

    @property
    def span_weights(self) -> NDArray[np.float64]:
        """(group, 3) of each of `groups`: weight of its first pixel, step from pixel to pixel, 1 / step; 0 for one."""
        weight, (starts, stops) = self.weight, self.spans.T
        step = np.where(stops - starts > 1, weight[np.minimum(starts + 1, weight.size - 1)] - weight[starts], 0.0)
        return np.stack([weight[starts], step, np.divide(1.0, step, out=np.zeros_like(step), where=step > 0)], axis=1)


def axis(cells: int, labels: int, start: Fraction, jump: Fraction) -> Axis:
    """The sampling table of one axis, cell i being anchored at input position ``start + i * jump``.

    Positions are in units of the whole input axis, [0, 1): label pixel p samples ``(p + 0.5) / labels``.

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
    """Raise where the weights are too fine for exact decisions in the kernel.

    Raises
    ------
    DissectError
        Above denominators of 2**29 an axis; label grids and maps of tens of thousands of pixels stay below.
    """
    bits = (rows.denominator * cols.denominator).bit_length()
    if bits > EXACT_BITS:
        raise DissectError(
            f"{layer}: interpolation weights need {bits} bits, exact decisions have {EXACT_BITS}. "
            "Use a label_size that shares factors with the model's input size, or anchoring: half_pixel."
        )
