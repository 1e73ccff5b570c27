"""Opens image files, and samples pixels onto a grid.

Knows: Pillow, the ways a file can be damaged, nearest-neighbour sampling at half-pixel centres.
Does not know: what the pixels mean.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dissect_xr.errors import DissectError

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded."""

Part = tuple[tuple[int, int, int], tuple[int, int, int]]
"""(first, length, whole) of rows and of columns: `length` pixels from pixel `first` of an image of `whole` pixels."""

WHOLE: Part = ((0, 1, 1), (0, 1, 1))
"""All of an image."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The decoded image at `path`.

    Raises
    ------
    DissectError
        If the file is missing, too large, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DissectError(
                    f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}. Downscale it first."
                )
            image.load()
            yield image
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected an image, found no file.") from error
    except UnidentifiedImageError as error:
        raise DissectError(f"{path}: not an image that Pillow can read. Convert it to PNG or JPEG.") from error
    except DissectError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DissectError(f"{path}: more than {MAX_PIXELS:,} pixels: {error}. Downscale it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DissectError(f"{path}: damaged or truncated image: {error}. Replace the file.") from error


def inside(root: str, relative: str, where: str) -> Path:
    """The path `root / relative` with links resolved; raises if it lies outside `root`."""
    base = Path(root).resolve()
    try:
        path = (base / relative).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a loop of links
        raise DissectError(f"{where}: {relative!r} is no path: {error}. Correct it.") from error
    if not path.is_relative_to(base):
        raise DissectError(f"{where}: '{relative}' lies outside {base}. Paths must stay inside the probe's folder.")
    return path


def nearest(pixels: NDArray[Any], size: tuple[int, int], part: Part = WHOLE) -> NDArray[Any]:
    """A part of the pixels (row, col, ...), sampled to `size` by nearest neighbour at half-pixel centres.

    >>> nearest(np.arange(4).reshape(1, 4), (1, 2))
    array([[1, 3]])
    >>> nearest(np.arange(8).reshape(1, 8), (1, 2), ((0, 1, 1), (1, 2, 4)))  # the middle half
    array([[3, 5]])
    """
    if pixels.shape[:2] == size and part == WHOLE:
        return pixels
    rows, cols = (
        ((2 * np.arange(wanted) + 1) * length + 2 * wanted * first) * given // (2 * wanted * whole)
        for wanted, given, (first, length, whole) in zip(size, pixels.shape[:2], part, strict=True)
    )
    sampled: NDArray[Any] = pixels[rows[:, None], cols]
    return sampled
