"""Positions of the names beside points, so that they cover no other name or point and little of the lines.

Knows: where the text and the lines of an Axes are drawn.
Does not know: what is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

OFFSETS = [(x, y) for y in (-7, 7, -17, 17, -27, 27) for x in (0, 18, -18)]
"""Offsets from the named point to the right and upwards, in points, best first: below it, as in the papers."""

RADIUS = 3.5
"""Radius of a point's marker, in points."""


def spread(names: Sequence[Annotation], fixed: Sequence[Text] = ()) -> None:
    """Move each name to the position around its point where it covers least; names and points count most.

    The figure is laid out to measure its text. Names must be annotations placed in offset points.
    """
    if not names:
        return
    ax, figure = names[0].axes, names[0].get_figure(root=True)
    assert isinstance(ax, Axes)
    assert figure is not None
    figure.draw_without_rendering()
    radius = RADIUS * figure.dpi / 72
    points = [ax.transData.transform(name.xy) for name in names]
    taken = [text.get_window_extent() for text in fixed]
    taken += [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    lines = _samples(ax)
    for name in names:
        costs = [_cost(_placed(name, offset), taken, lines, ax.bbox) for offset in OFFSETS]
        taken.append(_placed(name, OFFSETS[int(np.argmin(costs))]))


def _placed(name: Annotation, offset: tuple[int, int]) -> Bbox:
    """Move the name to this offset; the box that it fills there."""
    name.set_position(offset)
    name.set_verticalalignment("top" if offset[1] < 0 else "bottom")
    return name.get_window_extent()


def _cost(box: Bbox, taken: Sequence[Bbox], lines: NDArray[np.float64], frame: Bbox) -> float:
    covered = sum(_area(box, other) for other in taken)
    outside = box.width * box.height - _area(box, frame)
    inside = ((lines > box.min) & (lines < box.max)).all(axis=1).sum()
    return float(10 * covered + 10 * outside + inside)


def _area(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else shared.width * shared.height


def _samples(ax: Axes) -> NDArray[np.float64]:
    """Points along all lines of the Axes, about two pixels apart, (point, 2) in pixels."""
    found = [np.empty((0, 2))]
    for line in ax.get_lines():
        for start, stop in pairwise(line.get_transform().transform(line.get_xydata())):
            if np.isfinite([start, stop]).all():
                steps = max(2, int(np.hypot(*(stop - start)) / 2))
                found.append(np.linspace(start, stop, steps))
    return np.concatenate(found)


def step_ticks(ax: Axes, steps: NDArray[np.int64]) -> None:
    """Put ticks at the first and last of these steps, and at those between whose numbers have room."""
    texts = [f"{step:,}" for step in steps.tolist()]
    positions = ax.xaxis.get_transform().transform(steps.astype(np.float64))
    width = ax.get_figure(root=True).get_size_inches()[0] * ax.get_position().width  # type: ignore[union-attr]
    share = 0.085 / width * np.ptp(positions)  # of a digit of 10 points, in the scale's units
    kept = [0, len(steps) - 1] if len(steps) > 1 else [0]
    for n in range(1, len(steps) - 1):
        room = [abs(positions[n] - positions[k]) > share * ((len(texts[n]) + len(texts[k])) / 2 + 1) for k in kept]
        kept += [n] * all(room)
    ax.xaxis.set_major_locator(FixedLocator([float(steps[n]) for n in sorted(kept)]))
    ax.xaxis.set_major_formatter(FixedFormatter([texts[n] for n in sorted(kept)]))
    ax.xaxis.set_minor_locator(NullLocator())  # a tick at 1 or 100 would look like a snapshot
