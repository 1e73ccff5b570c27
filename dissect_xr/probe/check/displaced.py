"""Whether label maps look moved, mirrored or turned, by their scores on the edges of their images.

Knows: how much better a score must become before that is said.
Does not know: how a score is made (`edges`), or how it is said (`findings`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from dissect_xr.probe.check.edges import REACH, Scores

IMAGES = 8
"""Compared images from which on label maps are judged together."""

TOGETHER = 0.015
"""Mean gain of the score of all label maps, once they are moved or turned, from which on they look displaced. On 120
street scenes a move by one label pixel gives 0.028, mirroring 0.16; maps in their place lose by any move or turn."""


ALONE = 0.08
"""Gain of the score of one label map from which on it looks displaced, if it has much border; with n border pixels it
is at least 4 / sqrt(n), since the score of little border is much by chance."""


@dataclass(frozen=True)
class Displacement:
    """What improves the score of a label map, or that of all on the mean, most."""

    what: str
    """such as `transposed`; "" where nothing does"""
    as_is: float
    gain: float

    @property
    def scores(self) -> str:
        """Both scores, for messages."""
        return f"{self.as_is + self.gain:.3f} instead of {self.as_is:.3f}, where 0.5 is chance"


def of_all(scores: Sequence[Scores]) -> Displacement | None:
    """What improves the label maps of all images on the mean, if by so much that they look displaced."""
    if len(scores) < IMAGES:
        return None
    gains = {name: np.array([one.turned[name] - one.as_is for one in scores]) for name in scores[0].turned}
    moved = np.stack([one.moved - one.as_is for one in scores])
    for row, col in np.ndindex(moved.shape[1:]):
        if (row, col) != (REACH, REACH):
            gains[_move(row - REACH, col - REACH)] = moved[:, row, col]
    means = {name: float(np.nanmean(values)) for name, values in gains.items()}
    best = max(means, key=lambda name: means[name])
    error = float(np.nanstd(gains[best], ddof=1)) / sqrt(len(scores))
    if means[best] < TOGETHER or means[best] < 4 * error:
        return None
    return Displacement(best, float(np.mean([one.as_is for one in scores])), means[best])


def of_one(one: Scores) -> Displacement:
    """What improves the label map of an image most."""
    name = max(one.turned, key=lambda key: one.turned[key])
    score = one.turned[name]
    row, col = np.unravel_index(int(np.nanargmax(one.moved)), one.moved.shape)
    if one.moved[row, col] > score:
        name, score = _move(int(row) - REACH, int(col) - REACH), float(one.moved[row, col])
    return Displacement(name, one.as_is, score - one.as_is) if score > one.as_is else Displacement("", one.as_is, 0.0)


def looks_displaced(found: Displacement, border: int) -> bool:
    """Whether the label map of an image with this many border pixels looks displaced.

    >>> found = Displacement("transposed", 0.5, 0.1)
    >>> looks_displaced(found, 2000), looks_displaced(found, 100)
    (True, False)
    """
    return found.gain > max(ALONE, 4 / sqrt(border))


def _move(down: int, right: int) -> str:
    """How a move is called, in label pixels.

    >>> _move(-2, 1), _move(0, 3)
    ('moved up by 2 and right by 1 label pixels', 'moved right by 3 label pixels')
    """
    parts = [f"{'down' if down > 0 else 'up'} by {abs(down)}"] if down else []
    parts += [f"{'right' if right > 0 else 'left'} by {abs(right)}"] if right else []
    return f"moved {' and '.join(parts)} label pixels"
