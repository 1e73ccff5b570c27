"""Whether label maps lie where their images have edges: scores of a label map as it is, moved, mirrored and turned.

Knows: brightness of an image and labels, both on the label grid.
Does not know: files, stores, or what is said of the scores (`findings`).

The border of a label map should lie on edges of its image. The score of a map is the mean, over the pixels on either
side of its borders, of the rank of the image's gradient there: 0.5 where borders lie anywhere, near 1 where they lie on
the strongest edges. A map that was moved, mirrored or turned by mistake scores higher once that is undone::

    image       labels     moved by one    gradient ranks     score as it is  0.3
    . . # #     . # # #    . . # #         . 9 9 .            moved by (0, 1)  0.9
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACH = 4
"""Label maps are moved by up to this many label pixels in each direction."""

_Turn = Callable[[NDArray[np.bool_]], NDArray[np.bool_]]

TURNS: dict[str, _Turn] = {
    "mirrored left to right": lambda a: a[..., :, ::-1],
    "mirrored top to bottom": lambda a: a[..., ::-1, :],
    "turned by 180 degrees": lambda a: a[..., ::-1, ::-1],
}
"""What keeps the proportions of a label map."""

SQUARE_TURNS: dict[str, _Turn] = {
    "transposed": lambda a: a.swapaxes(-1, -2),
    "transposed and turned by 180 degrees": lambda a: a.swapaxes(-1, -2)[..., ::-1, ::-1],
    "turned to the left": lambda a: a.swapaxes(-1, -2)[..., ::-1, :],
    "turned to the right": lambda a: a.swapaxes(-1, -2)[..., :, ::-1],
}
"""What a square label map allows besides."""

LEAST = 64
"""Border pixels that a label map needs for a score."""


@dataclass(frozen=True)
class Scores:
    """Scores of the label map of one image."""

    as_is: float
    moved: NDArray[np.float32]
    """(2 REACH + 1, 2 REACH + 1) by rows and columns, from -REACH; as it is in the middle"""
    turned: dict[str, float]


def edge_scores(brightness: NDArray[np.floating], planes: NDArray[np.uint16]) -> Scores | None:
    """The scores of label maps (plane, row, col) on an image (row, col); None where there is too little border.

    >>> image, labels = np.zeros((40, 40)), np.zeros((1, 40, 40), np.uint16)
    >>> image[10:30, 10:20], labels[0, 10:30, 12:22] = 1, 5  # two columns too far to the right
    >>> scores = edge_scores(image, labels)
    >>> np.argwhere(scores.moved == scores.moved.max()).tolist()  # no row, two columns to the left
    [[4, 2]]
    """
    ranks, border = gradient_ranks(brightness), borders(planes)
    if int(border.sum()) < LEAST:
        return None
    moved = np.full((2 * REACH + 1, 2 * REACH + 1), np.nan, np.float32)
    for row, col, score in _moves(ranks, border):
        moved[row + REACH, col + REACH] = score
    turns = TURNS | (SQUARE_TURNS if border.shape[0] == border.shape[1] else {})
    return Scores(
        float(moved[REACH, REACH]), moved, {name: float(ranks[turn(border)].mean()) for name, turn in turns.items()}
    )


def gradient_ranks(brightness: NDArray[np.floating]) -> NDArray[np.float32]:
    """The rank of each pixel's gradient among those of the image, from 0 to 1; equal ones share their mean rank."""
    padded = np.pad(brightness.astype(np.float64), 1, mode="edge")
    down, right = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    strength = np.hypot(down, right).round(6).ravel()
    _, place, counts = np.unique(strength, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts - 1) / 2) / max(1, strength.size - 1)
    return np.asarray(ranks[place].reshape(brightness.shape), np.float32)


def borders(planes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """The pixels (row, col) that have a neighbour of another label, in any plane."""
    found = np.zeros(planes.shape[-2:], np.bool_)
    down = (planes[:, 1:] != planes[:, :-1]).any(axis=0)
    right = (planes[:, :, 1:] != planes[:, :, :-1]).any(axis=0)
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= right
    found[:, :-1] |= right
    return found


def _moves(ranks: NDArray[np.float32], border: NDArray[np.bool_]) -> Iterator[tuple[int, int, float]]:
    """(rows, columns, score) of the border moved by that much; what leaves the grid does not count."""
    height, width = border.shape
    rows, cols = np.nonzero(border)
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            inside = (rows + down >= 0) & (rows + down < height) & (cols + right >= 0) & (cols + right < width)
            if inside.any():
                yield down, right, float(ranks[rows[inside] + down, cols[inside] + right].mean())
