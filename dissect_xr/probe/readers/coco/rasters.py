"""Masks of polygons and of run-length codes, pixel for pixel as the COCO API makes them.

Knows: `segmentation` as the COCO API reads it: polygons, and runs as a list or as compressed text.
Does not know: images, categories, or files.

A mask is written column by column: the runs of a code go down the first column, then down the second. They begin with
a run of zeros, which may be empty. A reader that goes row by row gets a mask that is transposed and sheared.

**Compressed runs** are text in which every character holds 6 bits, from "0" (0) to "o" (63): 5 bits of a number, the
lowest first, and whether another character follows. The last character's 5th bit is the sign. From the fourth run on,
the number is the difference from the run before the last. So "0d2" is the runs 0 and 84: "d" is 52, of which 32 says
that another character follows and 20 is left, and "2" is 2; 20 + 2 * 32 = 84.

**Polygons** are drawn on a grid five times as fine, whose boundary points are then sampled: a pixel is inside if the
boundary has an odd number of points above its centre, in its column. Several polygons of one annotation are united, so
a polygon inside another one is no hole. A polygon of fewer than three points encloses no pixel; but where four numbers
come first, the COCO API takes them for a box.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.faults import Fault

Size = tuple[int, int]
"""(rows, columns)"""

Box = tuple[int, int, int, int]
"""(first row, first column, last row + 1, last column + 1) of pixels"""

FINER = 5
"""How many times finer the grid is on which polygons are drawn."""

_FIRST, _LAST = ord("0"), ord("o")


def mask(segmentation: Any, size: Size) -> NDArray[np.bool_]:
    """The pixels of a segmentation, (row, col).

    >>> mask({"counts": [3, 2, 1], "size": [2, 3]}, (2, 3)).astype(int)
    array([[0, 0, 1],
           [0, 1, 0]])
    >>> mask([[1, 0, 3, 0, 3, 1, 1, 1]], (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])

    Raises
    ------
    Fault
        If the segmentation is malformed, or is one of an image of another size.
    """
    if isinstance(segmentation, dict):
        return _painted(_ends(segmentation, size), size)
    found = np.zeros(size, np.bool_, order="F")
    for polygon in _polygons(segmentation, size):
        found |= _painted(np.sort(_crossings(polygon, size)), size)
    return found


def box(segmentation: Any, size: Size) -> Box:
    """A box that no pixel of the segmentation lies outside of; it is found without painting the mask.

    Raises
    ------
    Fault
        As for `mask`.
    """
    rows, cols = size
    if isinstance(segmentation, dict):
        ends = _ends(segmentation, size)
        first, last = ends[0::2][: ends.size // 2], ends[1::2] - 1
        first, last = first[first <= last], last[first <= last]
        if not first.size:
            return 0, 0, 0, 0
        if (first // rows != last // rows).any():
            return 0, int(first[0] // rows), rows, int(last[-1] // rows) + 1
        return int((first % rows).min()), int(first[0] // rows), int((last % rows).max()) + 1, int(last[-1] // rows) + 1
    polygons = _polygons(segmentation, size)
    if not polygons:
        return 0, 0, 0, 0
    points = np.concatenate(polygons)
    low = np.maximum(np.floor(points.min(axis=0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0)) + 1, [cols, rows]).astype(int)
    return int(low[1]), int(low[0]), int(high[1]), int(high[0])


def runs(text: str) -> NDArray[np.int64]:
    """The runs of a compressed code.

    >>> runs("0d2").tolist(), runs("1234NM").tolist()
    ([0, 84], [1, 2, 3, 6, 1, 3])

    Raises
    ------
    Fault
        If a character is none of a code, or the last number is cut off.
    """
    codes = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)
    if ((codes < _FIRST) | (codes > _LAST)).any():
        wrong = next(one for one in text if not _FIRST <= ord(one) <= _LAST)
        raise Fault(f"its runs hold {wrong!r}, which is no character of compressed runs.", "its runs are malformed")
    codes -= _FIRST
    ends = np.flatnonzero(codes & 32 == 0)
    if codes.size and (not ends.size or ends[-1] != codes.size - 1):
        raise Fault("its compressed runs are cut off.", "its runs are malformed")
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.size and place.max() > 9:  # 50 bits; a run of more pixels than that is none
        raise Fault("a number of its compressed runs is too long.", "its runs are malformed")
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts) if starts.size else np.zeros(0, np.int64)
    numbers -= np.where(codes[ends] & 16, np.int64(32) << 5 * place[ends], 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _ends(code: dict[str, Any], size: Size) -> NDArray[np.int64]:
    """Where each run of a code ends, counted column by column."""
    counts, given = code.get("counts"), code.get("size")
    if given != list(size):
        raise Fault(
            f"its runs are of an image of {given} [rows, columns], the image is given as {list(size)}.",
            "its runs are of an image of another size",
            shared=True,
        )
    if isinstance(counts, str):
        found = runs(counts)
    elif isinstance(counts, list) and all(isinstance(one, int) and 0 <= one < 2**31 for one in counts):
        found = np.array(counts, np.int64)
    else:
        raise Fault("its runs are neither text nor a list of whole numbers.", "its runs are malformed")
    if found.size and found.min() < 0:
        raise Fault("its runs hold a number below 0.", "its runs are malformed")
    ends = np.cumsum(found)
    if (int(ends[-1]) if ends.size else 0) != size[0] * size[1]:
        raise Fault(
            f"its runs are {int(found.sum())} pixels long, the image has {size[0]} x {size[1]}.",
            "its runs are not as long as the image has pixels",
        )
    return ends


def _painted(changes: NDArray[np.int64], size: Size) -> NDArray[np.bool_]:
    """The mask whose pixels, column by column, change at these places, ascending; the first ones are zeros."""
    rows, cols = size
    lengths = np.diff(changes, prepend=0, append=rows * cols)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(cols, rows).T


def _polygons(segmentation: Any, size: Size) -> list[NDArray[np.float64]]:
    """The polygons that enclose something, each (point, 2) as x and y."""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        raise Fault(
            "its segmentation is neither a list of polygons, [[x, y, x, y, ...], ...], nor {counts, size}.",
            "its segmentation is malformed",
        )
    if segmentation and len(segmentation[0]) == 4:
        raise Fault(
            "its first polygon has four numbers, which the COCO API takes for a box, x, y, width and height, and other "
            "programs for a line from one point to another, which encloses nothing. Replace it by a polygon.",
            "a polygon may be a box",
        )
    found = []
    for polygon in segmentation:
        if len(polygon) % 2 or not all(type(one) in (int, float) for one in polygon):
            raise Fault(
                f"a polygon of {len(polygon)} values: expected x and y of each point, as numbers.",
                "its segmentation is malformed",
            )
        if len(polygon) >= 6:
            found.append(_within_reach(np.array(polygon, np.float64).reshape(-1, 2), size))
    return found


def _within_reach(points: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """The points; raises if one lies so far outside the image that it must be one of another image."""
    reach = max(size)
    if not ((points >= -reach) & (points <= 2 * reach)).all():
        x, y = points[~((points >= -reach) & (points <= 2 * reach)).all(axis=1)][0]
        raise Fault(
            f"a polygon has a point at x = {x:g}, y = {y:g}, far outside the image of {size[0]} x {size[1]}.",
            "a polygon has a point far outside the image",
            shared=True,
        )
    return points


def _crossings(points: NDArray[np.float64], size: Size) -> NDArray[np.int64]:
    """Where the boundary of a polygon crosses columns of pixels, counted column by column.

    Written after `rleFrPoly` of the COCO API, in float64 and with the same order of operations.
    """
    rows, cols = size
    corners = np.trunc(FINER * points + 0.5).astype(np.int64)  # towards zero, as a cast in C
    u, v = _boundary(corners, np.roll(corners, -1, axis=0))
    moved = np.flatnonzero(u[1:] != u[:-1]) + 1
    before, here = moved - 1, moved
    x = (np.where(u[here] < u[before], u[here], u[here] - 1) + 0.5) / FINER - 0.5
    y = np.ceil(np.clip((np.minimum(v[here], v[before]) + 0.5) / FINER - 0.5, 0, rows))
    kept = (np.floor(x) == x) & (x >= 0) & (x <= cols - 1)
    places: NDArray[np.int64] = x[kept].astype(np.int64) * rows + y[kept].astype(np.int64)
    return places


def _boundary(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x and y of the points of all edges, one for each step along an edge's longer axis, both ends included."""
    steep = np.abs(end - start)[:, 0] < np.abs(end - start)[:, 1]
    # Along the longer axis and across it; edges are drawn in ascending order, so that both directions give one line.
    start, end = (np.where(steep[:, None], one[:, ::-1], one) for one in (start, end))
    turned = start[:, 0] > end[:, 0]
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    length = high[:, 0] - low[:, 0]
    slope = (high[:, 1] - low[:, 1]) / np.maximum(length, 1)
    edge = np.repeat(np.arange(length.size), length + 1)
    step = np.arange(edge.size) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(turned[edge], length[edge] - step, step)
    along = low[edge, 0] + step
    across = np.trunc(low[edge, 1] + slope[edge] * step + 0.5).astype(np.int64)
    return np.where(steep[edge], across, along), np.where(steep[edge], along, across)


def stacked(masks: Iterable[tuple[int, NDArray[np.bool_]]], size: Size) -> list[NDArray[np.uint16]]:
    """Label maps that hold all masks, each (number, pixels): as many as masks lie on one pixel, and at least one.

    >>> one, two = np.array([[True, True]]), np.array([[False, True]])
    >>> [plane.tolist() for plane in stacked([(7, one), (9, two)], (1, 2))]
    [[[7, 7]], [[0, 9]]]
    """
    planes = [np.zeros(size, np.uint16, order="F")]
    for number, pixels in masks:
        left = pixels.copy()
        for plane in planes:
            free = left & (plane == 0)
            plane[free] = number
            left &= ~free
        if left.any():
            planes.append(np.where(left, number, 0).astype(np.uint16))
    return planes
