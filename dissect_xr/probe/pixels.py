"""Opens image files and samples them onto a grid.

Knows: Pillow, what can be wrong with a file, nearest-neighbour sampling at half-pixel centres.
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
"""(first, length, whole) of rows and of columns: `length` pixels from `first` of an image of `whole` pixels."""

WHOLE: Part = ((0, 1, 1), (0, 1, 1))
"""All of an image."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The decoded image at `path`.

    Raises
    ------
    DissectError
        Where it is missing, too large, truncated or no image.
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
        raise DissectError(f"{path}: not an image that Pillow reads.") from error
    except DissectError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DissectError(f"{path}: more than {MAX_PIXELS:,} pixels: {error}. Downscale it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DissectError(f"{path}: damaged or truncated image: {error}.") from error


def inside(root: str, relative: str, where: str) -> Path:
    """`root / relative`, which must lie inside `root`, links followed."""
    base = Path(root).resolve()
    try:
        path = (base / relative).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a loop of links
        raise DissectError(f"{where}: {relative!r} is no path: {error}.") from error
    if not path.is_relative_to(base):
        raise DissectError(f"{where}: '{relative}' lies outside {base}. Paths must stay inside the probe's folder.")
    return path


def nearest(pixels: NDArray[Any], size: tuple[int, int], part: Part = WHOLE) -> NDArray[Any]:
    """A part of pixels (row, col, ...) sampled to `size` at half-pixel centres, nearest neighbour, never interpolated.

    >>> nearest(np.arange(4).reshape(1, 4), (1, 2))
    array([[1, 3]])
    >>> nearest(np.arange(8).reshape(1, 8), (1, 2), ((0, 1, 1), (1, 2, 4)))  # the middle half
    array([[3, 5]])
    """
    if pixels.shape[:2] == size and part == WHOLE:
        return pixels
    rows, cols = (
        ((2 * np.arange(wanted) + 1) * length + 2 * wanted * first) * there // (2 * wanted * whole)
        for wanted, there, (first, length, whole) in zip(size, pixels.shape[:2], part, strict=True)
    )
    sampled: NDArray[Any] = pixels[rows[:, None], cols]
    return sampled
