"""Small pictures of an image with a mask: pixels inside keep their brightness, others are dimmed, a line divides them.

Knows: pixels (row, col, channel) uint8, and masks on a coarser grid.
Does not know: units, stores, or where a mask comes from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.crop import Crop
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.pixels import read_rgb

DIMMED = 0.45
"""Brightness outside the mask."""

OUTLINE = (255, 230, 0)
"""Yellow: visible on dark and on bright pixels, to color-blind readers too."""

BESIDE = 128
"""The grey that fills the square beside an image that is not square."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a whole image."""


def read_picture(folder: Folder, name: str, size: int, *, crop: Crop | None = None) -> NDArray[np.uint8]:
    """An image of a probe, or the part of it that the probe shows, at most `size` pixels long, (row, col, 3).

    Raises
    ------
    DissectError
        If it is missing, damaged or outside `folder`.
    """
    image = read_rgb(folder.path(name), orientation=folder.orientation(name))
    image = crop.cut(image, name) if crop else image
    scale = min(1.0, size / max(image.size))
    return np.asarray(image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))))


def draw(
    pixels: NDArray[np.uint8], active: NDArray[np.bool_], size: int, *, box: tuple[float, float, float, float] = WHOLE
) -> NDArray[np.uint8]:
    """A square picture (size, size, 3) of an image and the mask `active`, whose grid covers the whole image.

    `box` is the part to show: top, left, bottom and right as shares of the image, in [0, 1].

    Examples
    --------
    >>> white, left = np.full((4, 4, 3), 255, np.uint8), np.array([[True, False]])
    >>> draw(white, left, 4)[0, :, 2].tolist()  # blue: bright inside, 0 on the outline, dimmed to 45 % outside
    [255, 0, 114, 114]
    """
    top, left, bottom, right = box
    tall, wide = (bottom - top) * pixels.shape[0], (right - left) * pixels.shape[1]
    rows = _centres(max(1, round(size * tall / max(tall, wide))), top, bottom)
    cols = _centres(max(1, round(size * wide / max(tall, wide))), left, right)
    image = pixels[_at(rows, cols, pixels.shape)]
    shown = active[_at(rows, cols, active.shape)]
    masked = np.where(shown[..., None], image, (image * DIMMED).astype(np.uint8))
    masked[_edge(shown)] = OUTLINE
    canvas = np.full((size, size, 3), BESIDE, np.uint8)
    y, x = (size - rows.size) // 2, (size - cols.size) // 2
    canvas[y : y + rows.size, x : x + cols.size] = masked
    return canvas


def around(values: NDArray[np.float64], shape: tuple[int, ...], side: float) -> tuple[float, float, float, float]:
    """Box of a square around the highest of `values` (row, col), inside an image of `shape` (height, width).

    `side` is the side of the square as a share of the image's shorter side, in (0, 1].

    >>> around(np.array([[0.0, 0.0, 0.0, 1.0]]), (100, 200), 0.5)
    (0.25, 0.75, 0.75, 1.0)
    """
    row, col = np.unravel_index(int(np.argmax(values)), values.shape)
    spans = []
    for at, cells, length in zip((row, col), values.shape, shape, strict=False):
        part = side * min(shape[:2]) / length
        start = min(max(0.0, (float(at) + 0.5) / cells - part / 2), 1 - part)
        spans.append((start, start + part))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _centres(pixels: int, first: float, last: float) -> NDArray[np.float64]:
    """Centres of `pixels` pixels that divide [first, last) evenly."""
    return np.asarray(first + (np.arange(pixels) + 0.5) / pixels * (last - first))


def _at(rows: NDArray[np.float64], cols: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """Indices of the pixels at these positions, which are in [0, 1)."""
    return np.ix_((rows * shape[0]).astype(np.intp), (cols * shape[1]).astype(np.intp))


def _edge(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels inside the mask with a neighbour outside it; beyond the border of the picture is no outside."""
    around = np.pad(shown, 1, mode="edge")
    whole = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(shown & ~whole)
