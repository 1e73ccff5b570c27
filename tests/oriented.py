"""Images with an EXIF orientation, and what is displayed of them, by the definition of the tag.

Knows: the eight orientations, as NumPy moves pixels.
Does not know: Pillow's transpositions, which the package uses.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DISPLAYED: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""EXIF orientation -> what is displayed of stored pixels: 6 has the first stored row on the right, its start on top."""


def stored_for(orientation: int, displayed: NDArray[Any]) -> NDArray[Any]:
    """The pixels to be stored so that these are displayed."""
    return np.ascontiguousarray(DISPLAYED[{6: 8, 8: 6}.get(orientation, orientation)](displayed))


def exif(orientation: int) -> Image.Exif:
    """The metadata of a file that say how it is to be turned."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data
