"""The strokes of handwritten digits: enlarged ink, and which part of the digit each pixel belongs to.

Knows: grey digits of 8x8 pixels, and how to find enclosed holes, stroke ends, junctions and stroke directions in them.
Does not know: which digit it is, colours, or where the digit will be drawn.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PART_NAMES = (
    "horizontal-stroke",
    "falling-stroke",
    "vertical-stroke",
    "rising-stroke",
    "stroke-end",
    "junction",
    "loop",
)
"""Parts in the order of their labels, which start at 1."""

END, JUNCTION, LOOP = (PART_NAMES.index(name) + 1 for name in ("stroke-end", "junction", "loop"))

SIDE = 40
"""Pixels along a side of an enlarged digit: 8 and a margin of 1 on each side, times 4."""

_SCALE = 4
_INK_LEVEL = 0.4
# A pen stroke is about 2 bitmap pixels wide, 8 after enlarging: 5 pixels from its middle line reach beyond its edge.
_MARK_RADIUS = 5
_MIN_COHERENCE = 0.25


def enlarged_ink(bitmap: NDArray[np.float64]) -> NDArray[np.float32]:
    """Digits of 8x8 pixels, levels 0 to 16, enlarged to `(digit, SIDE, SIDE) float32` in 0..1; ink is above 0.5."""
    padded = np.pad(bitmap, ((0, 0), (1, 1), (1, 1))).astype(np.float32) / 16
    large = [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for one in padded]
    # A steep ramp around the ink level replaces the blur of the enlargement by an edge of about one pixel.
    return np.clip((np.stack(large) - _INK_LEVEL) * 6 + 0.5, 0, 1).astype(np.float32)


def stroke_parts(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The part at each pixel of `(digit, row, col)` ink, as a 1-based index into `PART_NAMES`; 0 where there is none.

    Loops are the holes that the ink encloses. Ink near a point of the skeleton from which one line leaves is a stroke
    end, from which three leave a junction; all other ink has the direction of its stroke, where it has a clear one.

    Examples
    --------
    >>> frame = np.zeros((1, 24, 24), dtype=np.float32)
    >>> frame[0, 4:20, 4:20] = 1
    >>> frame[0, 8:16, 8:16] = 0
    >>> parts = stroke_parts(frame)
    >>> [PART_NAMES[parts[0, row, col] - 1] for row, col in ((12, 12), (5, 12), (12, 5))]
    ['loop', 'horizontal-stroke', 'vertical-stroke']
    """
    solid = ink > 0.5
    parts = np.where(solid, _directions(ink), 0).astype(np.uint8)
    thin = _skeleton(solid)
    lines = _lines_from(_neighbours(thin))
    parts[solid & _grown(thin & (lines == 1), _MARK_RADIUS)] = END
    parts[solid & _grown(thin & (lines >= 3), _MARK_RADIUS)] = JUNCTION
    parts[_holes(solid)] = LOOP
    return parts


def _holes(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Background that is not connected with the border along rows and columns."""
    empty = ~solid
    outside = np.zeros_like(empty)
    outside[:, [0, -1]] = empty[:, [0, -1]]
    outside[:, :, [0, -1]] = empty[:, :, [0, -1]]
    reached = -1
    while reached != (reached := int(outside.sum())):
        outside[:, 1:] |= outside[:, :-1]
        outside[:, :-1] |= outside[:, 1:]
        outside[:, :, 1:] |= outside[:, :, :-1]
        outside[:, :, :-1] |= outside[:, :, 1:]
        outside &= empty
    return empty & ~outside


def _skeleton(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The ink thinned to lines one pixel wide with the same connections.

    References
    ----------
    Zhang and Suen, "A fast parallel algorithm for thinning digital patterns", CACM 27(3), 1984.
    """
    thin, before = solid.copy(), -1
    while before != (before := int(thin.sum())):
        for step in (0, 1):
            ring = _neighbours(thin)
            up, right, down, left = ring[0], ring[2], ring[4], ring[6]
            open_side = ~(right & down & (up | left)) if step == 0 else ~(up & left & (right | down))
            count = ring.sum(axis=0, dtype=np.uint8)
            thin &= ~((count >= 2) & (count <= 6) & (_lines_from(ring) == 1) & open_side)
    return thin


def _neighbours(field: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The eight neighbours of each pixel, clockwise from above, `(8, digit, row, col)`; False beyond the border."""
    padded = np.pad(field, ((0, 0), (1, 1), (1, 1)))
    height, width = field.shape[1:]
    around = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    return np.stack([padded[:, row : row + height, col : col + width] for row, col in around])


def _lines_from(ring: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many separate runs of ink lie around each pixel."""
    starts = ring & ~np.roll(ring, 1, axis=0)
    return np.asarray(starts.sum(axis=0, dtype=np.uint8))


def _grown(field: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """The field and all pixels within `steps` of it, as an octagon."""
    for step in range(steps):
        # Growing by four and by eight neighbours in turn keeps the shape nearly round.
        field = field | _neighbours(field)[:: 2 - step % 2].any(axis=0)
    return field


def _directions(ink: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The label of the stroke's direction (1 to 4, turns of 45 degrees) from the structure tensor; 0 where unclear."""
    down, right = (np.asarray(slope, dtype=np.float32) for slope in np.gradient(ink, axis=(1, 2)))
    across, along, mixed = _blurred(right**2), _blurred(down**2), _blurred(right * down)
    # The tensor gives the direction of the steepest change; the stroke runs at a right angle to it.
    steepest = 0.5 * np.arctan2(2 * mixed, across - along)
    eighths = np.round((steepest + np.pi / 2) / (np.pi / 4)).astype(np.int64)
    coherence = np.hypot(across - along, 2 * mixed) / np.maximum(across + along, 1e-6)
    return np.where(coherence > _MIN_COHERENCE, eighths % 4 + 1, 0).astype(np.uint8)


def _blurred(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """The field under a binomial window of 9 pixels along rows and columns, mirrored at the border."""
    window = np.array([1, 8, 28, 56, 70, 56, 28, 8, 1], dtype=np.float32) / 256
    for axis in (1, 2):
        width = [(0, 0), (0, 0), (0, 0)]
        width[axis] = (4, 4)
        padded, length = np.pad(field, width, mode="reflect"), field.shape[axis]
        field = sum(
            (w * padded.take(range(k, k + length), axis=axis) for k, w in enumerate(window)), np.zeros_like(field)
        )
    return field
