"""Label maps for images of any proportions that give the labels of a probe's grid back when they are sampled.

Knows: nearest-neighbour sampling at half-pixel centres, and crops.
Does not know: files, or what labels mean.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.orientation import fits
from dissect_xr.probe.pixels import WHOLE, Part, nearest


def map_size(image: tuple[int, int], grid: tuple[int, int], part: Part = WHOLE) -> tuple[int, int]:
    """The size of a label map with the proportions of its image, whose part has no less pixels than the grid each way.

    >>> map_size((224, 224), (112, 112)), map_size((300, 400), (112, 112)), map_size((4, 3), (8, 8))
    ((112, 112), (112, 150), (8, 8))
    """
    if part == WHOLE and fits(image, grid):
        return grid
    needed = [side * whole / length for side, (_, length, whole) in zip(grid, part, strict=True)]
    scale = max(least / side for least, side in zip(needed, image, strict=True))
    return ceil(image[0] * scale), ceil(image[1] * scale)


def spread(labels: NDArray[np.uint16], size: tuple[int, int], part: Part = WHOLE) -> NDArray[np.uint16]:
    """A label map of this size, of which `part` is sampled as `labels`; 0 outside of the part.

    Every pixel has the label of the grid's cell that its centre lies in. A cell's sample may lie on the border of two
    pixels, and then be the next one's: it gets the label of its cell.

    >>> spread(np.array([[1, 2]], np.uint16), (2, 4)).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    rows, cols = (
        ((2 * np.arange(side) + 1) * whole - 2 * side * first) * cells // (2 * side * length)
        for side, cells, (first, length, whole) in zip(size, labels.shape, part, strict=True)
    )
    height, width = labels.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & (cols >= 0) & (cols < width)
    found = np.where(inside, labels[rows.clip(0, height - 1)[:, None], cols.clip(0, width - 1)], 0).astype(np.uint16)
    pixels = np.arange(size[0] * size[1]).reshape(size)
    found.ravel()[nearest(pixels, (height, width), part)] = labels
    return found


def rg(numbers: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Numbers as colours: R + 256 * G.

    >>> rg(np.array([[258]], np.uint16)).tolist()
    [[[2, 1, 0]]]
    """
    return np.stack([numbers % 256, numbers // 256, np.zeros_like(numbers)], axis=-1).astype(np.uint8)
