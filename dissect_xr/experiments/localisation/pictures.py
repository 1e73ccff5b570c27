"""Pictures of class activation maps: each image with its map laid over it, the map's box and the object's.

Knows: maps and boxes on the label grid, the image files of the probe.
Does not know: how pictures are arranged.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.exemplars.pictures import OUTLINE, draw, read_picture
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.root import image_folder

FOUND = OUTLINE
"""Colour of the map's box: yellow."""

OBJECT = (60, 190, 255)
"""Colour of the object's box: a blue that is told from yellow and red by color-blind readers too."""

HEAT = 0.65
"""How much of a pixel the map covers where it is highest."""


def located_pictures(ds: xr.Dataset, probe: store.Url, *, size: int) -> Iterator[NDArray[np.uint8]]:
    """A picture (size, size, 3) of each image: the image, its map in red where it is high, both boxes; computes.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.cam.open_cam`.
    probe
        The probe of its run.
    size
        Side of a picture in pixels.

    Raises
    ------
    DissectError
        If an image file is missing or damaged.
    """
    url = store.as_url(probe)
    root, crop = image_folder(url), stored_crop(store.read_attrs(url)["parameters"])
    for n, name in enumerate(ds["image"].values.tolist()):
        pixels = read_picture(root, name, size, crop=crop)
        one = ds[["map", "box", "object_box"]].isel(image=n).load()
        hot = heated(pixels, np.asarray(one["map"].values))
        for side, color in (("object_box", OBJECT), ("box", FOUND)):
            frame(hot, one[side].values.tolist(), one["map"].shape, color)
        yield draw(hot, np.ones((1, 1), np.bool_), size)


def heated(pixels: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The image (row, col, 3), from yellow to red where a map is above 0, the more the nearer to its maximum.

    >>> heated(np.full((1, 2, 3), 100, np.uint8), np.array([[0.0, 2.0]])).tolist()  # 35 % of 100, and 65 % of red
    [[[100, 100, 100], [200, 35, 35]]]
    """
    peak = float(values.max())
    at = [np.arange(length) * cells // length for length, cells in zip(pixels.shape, values.shape, strict=False)]
    share = np.clip(values[np.ix_(*at)] / peak, 0, 1)[..., None] if peak > 0 else np.zeros((1, 1, 1))
    red = np.concatenate([np.full_like(share, 255), 255 * (1 - share), np.zeros_like(share)], axis=2)
    return np.asarray((1 - HEAT * share) * pixels + HEAT * share * red, np.uint8)


def frame(
    pixels: NDArray[np.uint8], box: Sequence[int], grid: Sequence[int], color: tuple[int, int, int], width: int = 2
) -> None:
    """Draw the outline of a box on a grid of (rows, columns) into `pixels`; nothing where there is no box."""
    if min(box) < 0:
        return
    top, left, bottom, right = (round(corner * pixels.shape[n % 2] / grid[n % 2]) for n, corner in enumerate(box))
    inner = slice(top + width, max(top + width, bottom - width)), slice(left + width, max(left + width, right - width))
    kept = pixels[inner].copy()
    pixels[top:bottom, left:right] = color
    pixels[inner] = kept
