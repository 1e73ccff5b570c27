"""The straight line on which the centres of a map's cells lie along one axis, from where the cells were seen to look.

Knows: which cells see a border and do not count, how sure a line is, which exact fractions it may stand for.
Does not know: how it was seen where cells look (`measuring`).

A line is found in four steps. Here for 4 cells 2 pixels apart along 8 pixels, each of which sees its two pixels:

1. Cells of which more than `AT_BORDER` of what they see lies within half a cell of a border are left out: what they
   would see beyond it is missing, which pulls them inwards. Here cells 0 and 3.
2. A line through the centroids of the others, by least squares. Here through 3 and 5.
3. Its *error* is two standard errors: the larger one of those of the centroids around the line, and of the lines of
   the draws, each by itself, around their mean. Here 0.
4. Jump and start become the first of these that lie within the error, and as much more as `SLACK` pixels over the whole
   map: a jump of whole or half pixels, of the map's length divided by its cells, or of quarters, eighths, sixteenths; a
   start with which the map lies in the middle of the image, of 1/2, or of whole, half, quarter or eighth pixels. Here 2
   and 1. Where no jump is near enough, it may be longer or shorter by `PULLED`, too.

>>> seen = np.kron(np.eye(4), np.ones(2))
>>> found = line_of(np.arange(4), seen[None])
>>> str(found.jump), str(found.start), found.residual, found.error
('2', '1', 0.0, 0.0)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dissect_xr.activations.receptive_field.geometry import NoGeometryError

AT_BORDER = 0.005
"""Share of what a cell sees that may lie within half a cell of a border."""

SLACK = 0.25
"""Pixels by which a line may miss the centroids, over the length of a map, beyond their error."""

PULLED = 0.005
"""Part of its length by which a jump may be too short: what sees a little of everything is pulled to the middle."""

SURE = 0.25
"""Pixels of error at which nothing more needs to be measured."""


class UnsureError(NoGeometryError):
    """Too little was seen; with more draws, there may be a line. `times`: how much too large the error is."""

    def __init__(self, message: str, times: float) -> None:
        super().__init__(message)
        self.times = times


@dataclass(frozen=True)
class Line:
    """Where the cells of a map lie along one axis."""

    jump: Fraction
    start: Fraction
    field: int
    """pixels that a cell sees at most, of those that see no border"""
    residual: float
    """pixels between the line and the centroid of a cell, at most"""
    error: float
    """pixels of two standard errors, at the ends of the map"""


def line_of(cells: NDArray[np.int64], seen: NDArray[np.float64], *, count: int | None = None) -> Line:
    """The line of a map's cells.

    Parameters
    ----------
    cells
        (cell,) the number of each along the axis; several may have the same one.
    seen
        (draw, cell, pixel) how much each cell sees of each pixel, in any unit, with a sum above 0.
    count
        Cells of the map along the axis; the highest number and one if absent.

    Raises
    ------
    NoGeometryError
        If the cells do not lie on a line of positive jump, or too few of them see no border; `UnsureError` where more
        draws may help.
    """
    count, length = int(cells.max()) + 1 if count is None else count, seen.shape[2]
    shares = seen / seen.sum(2, keepdims=True)
    inside = _sees_no_border(shares.mean(0), length / count)
    if len(set(cells[inside].tolist())) < 2:
        raise NoGeometryError(f"fewer than two of its {count} cells see no border of the image")
    at = cells[inside].astype(float)
    drawn = shares[:, inside] @ (np.arange(length) + 0.5)
    slope, level, middle = _fitted(at, drawn.mean(0))
    at_slope, at_level = _errors(at, drawn)
    error = at_level + at_slope * max(middle, count - 1 - middle)
    if slope < -2 * at_slope:
        raise NoGeometryError(f"its cells see the image mirrored: they lie {slope:.3g} pixels apart")
    if slope <= 2 * at_slope:
        raise UnsureError(
            f"its cells cannot be told apart: they lie {slope:.3g} pixels apart, give or take {at_slope:.2g}",
            2 * at_slope / max(slope, at_slope / 2),
        )
    if error > (allowed := max(2 * SURE, slope / 8)):
        raise UnsureError(f"the centroids of its cells are uncertain by {error:.2g} pixels", error / allowed)
    jump = _jump(slope, at_slope + SLACK / (count - 1), Fraction(length, count))
    start = _start(level - float(jump) * middle, at_level + SLACK / 2, jump, count, length)
    residual = float(np.abs(drawn.mean(0) - float(start) - float(jump) * at).max())
    if residual > max(2 * SURE, slope):
        raise NoGeometryError(f"its cells do not lie on a line: a centroid is {residual:.2g} pixels away from it")
    return Line(jump, start, _field(seen[:, inside]), residual, float(error))


def _sees_no_border(shares: NDArray[np.float64], cell: float) -> NDArray[np.bool_]:
    edge = max(1, round(cell / 2))
    inside: NDArray[np.bool_] = np.maximum(shares[:, :edge].sum(1), shares[:, -edge:].sum(1)) <= AT_BORDER
    return inside


def _field(seen: NDArray[np.float64]) -> int:
    anything: NDArray[np.bool_] = np.any(seen > 0, axis=0)
    extents = anything.shape[1] - anything[:, ::-1].argmax(1) - anything.argmax(1)
    return int(extents.max())


def _fitted(at: NDArray[np.float64], centroids: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope of a line, its height in the middle of the cells, and that middle."""
    middle = float(at.mean())
    away = at - middle
    return float(away @ centroids / (away @ away)), float(centroids.mean()), middle


def _errors(at: NDArray[np.float64], drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Two standard errors of the slope and of the height of a line."""
    draws, cells = drawn.shape
    slope, level, middle = _fitted(at, drawn.mean(0))
    away = at - middle
    left = drawn.mean(0) - level - slope * away
    if cells > 4:  # neighbours may lie on both sides of the line, where a map was enlarged
        left = (left[:-1] + left[1:])[::2] / 2
    scatter = np.sqrt((left @ left) / max(1, len(left) - 2))
    slopes, levels = zip(*(_fitted(at, one)[:2] for one in drawn), strict=True)
    of_draws = [float(np.std(values)) / max(1, draws - 1) ** 0.5 for values in (slopes, levels)]
    return (
        2 * max(of_draws[0], float(scatter / np.sqrt(away @ away))),
        2 * max(of_draws[1], float(scatter / np.sqrt(len(left)))),
    )


def _multiples(value: float, *parts: int) -> Iterator[Fraction]:
    """The nearest multiples of 1 / part."""
    for part in parts:
        yield Fraction(round(value * part), part)


def _jump(slope: float, error: float, ratio: Fraction) -> Fraction:
    for allowed in (error, error + PULLED * slope):
        for jump in (*_multiples(slope, 1, 2), ratio, *_multiples(slope, 4, 8, 16)):
            if jump > 0 and abs(float(jump) - slope) <= allowed:
                return jump
    raise NoGeometryError(f"its cells lie {slope:.4g} pixels apart, which no plain fraction is near to")


def _start(seen: float, error: float, jump: Fraction, count: int, length: int) -> Fraction:
    even = (length - (count - 1) * jump) / 2
    for start in (even, Fraction(1, 2), *_multiples(seen, 2, 4)):
        if abs(float(start) - seen) <= error:
            return start
    return next(_multiples(seen, 8))
