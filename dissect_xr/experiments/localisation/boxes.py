"""Boxes on the label grid: around the largest part of a map that is high, and around an object.

Knows: maps and masks (row, col).
Does not know: where either comes from, or which image it is.

A box is (top, left, bottom, right), half-open: rows top to bottom - 1, columns left to right - 1.

References
----------
Zhou et al. 2016, Learning deep features for discriminative localization, section 3: above 20 % of the map's maximum,
the largest connected component.
"""

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]

NO_BOX: Box = (-1, -1, -1, -1)
"""Where there is none."""


def high_box(values: NDArray[np.floating], share: float) -> Box:
    """Box of the largest connected part of a map that lies above `share` of its maximum; none if that is not above 0.

    Cells are connected along rows and columns, not by their corners. Of equally large parts the first is taken, in the
    order of rows.

    >>> values = np.array([[5, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]])  # above 20 % of 5: the 5 alone, and both 2
    >>> high_box(values, 0.2)
    (0, 3, 2, 4)
    """
    from scipy import ndimage  # here, since commands that draw no box would wait for it

    exact = np.asarray(values, np.float64)
    peak = float(exact.max())
    if not peak > 0:
        return NO_BOX
    parts, _ = ndimage.label(exact > share * peak)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return enclosing(parts == largest)


def enclosing(mask: NDArray[np.bool_]) -> Box:
    """The smallest box that holds every pixel of a mask; none where it is empty.

    >>> enclosing(np.array([[False, False], [True, True]])), enclosing(np.zeros((2, 2), bool))
    ((1, 0, 2, 2), (-1, -1, -1, -1))
    """
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return NO_BOX
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def peak_inside(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> bool:
    """Whether the maximum of a map, the first of equal ones in the order of rows, lies inside a mask.

    >>> peak_inside(np.array([[0, 3], [3, 1]]), np.array([[False, False], [True, True]]))
    False
    """
    return bool(mask.ravel()[int(np.argmax(values))])
