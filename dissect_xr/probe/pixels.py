"""Decodes image files, all of them here, and samples pixels onto a grid.

Knows: Pillow, which formats are read, the ways a file can be damaged, nearest-neighbour sampling at half-pixel
centres.
Does not know: what the pixels mean, or how an image is turned (`orientation`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from dissect_xr.probe.faults import Fault

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""The formats that are read, as Pillow calls them. Others, such as EPS, would start programs."""

EXACT = ("BMP", "DIB", "PNG", "TIFF")
"""The formats of label maps: what is read from them is what was saved. Programs renumber the colours of a GIF."""

Part = tuple[tuple[int, int, int], tuple[int, int, int]]
"""(first, length, whole) of rows and of columns: `length` pixels from pixel `first` of an image of `whole` pixels."""

WHOLE: Part = ((0, 1, 1), (0, 1, 1))
"""All of an image."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_WIDTH, _LENGTH, _PHOTOMETRIC = 256, 257, 262
_WHITE_IS_0 = 0
_JPEG_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")


def read_rgb(path: Path, *, orientation: int = 1, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The pixels of an image file as 8-bit RGB, turned by an EXIF orientation; 1 leaves them as they are stored.

    Grey becomes three equal channels, 16-bit grey keeps its high byte, an alpha channel is dropped. Of several
    pictures in a file the first is read. All that shows or counts pixels of an image reads them here.

    Raises
    ------
    Fault
        If the file is missing, damaged, too large or no image, or its 32-bit pixels have no fixed range.
    """
    return turned(stored_rgb(path, max_pixels=max_pixels)[0], orientation)


def stored_rgb(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, int]:
    """The pixels of an image file as 8-bit RGB, as they are stored, and the file's EXIF orientation.

    Raises
    ------
    Fault
        As for `read_rgb`.
    """
    with _opened(path, max_pixels) as image:
        orientation, is_turned = _load(image)
        rgb = _rgb(image, path)
        return turned(rgb, {6: 8, 8: 6}.get(orientation, orientation)) if is_turned else rgb, orientation


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as a viewer displays it whose file has this EXIF orientation, from 1 to 8.

    >>> stored = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    >>> np.asarray(turned(stored, 6)).tolist()  # its first row is displayed on the right
    [[4, 1], [5, 2], [6, 3]]
    """
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def image_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of an image file as it is stored; its pixels are not decoded.

    Raises
    ------
    Fault
        If the file is missing, or no image.
    """
    with _opened(path, MAX_PIXELS) as image:
        if isinstance(image, TiffImageFile):  # whose height and width are those of what is displayed
            return int(image.tag_v2[_LENGTH]), int(image.tag_v2[_WIDTH])
        return image.height, image.width


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The decoded image at `path`.

    Raises
    ------
    Fault
        If the file is missing, too large, truncated or not an image.
    """
    with _opened(path, MAX_PIXELS) as image:
        image.load()
        yield image


@contextmanager
def open_labels(path: Path) -> Iterator[Image.Image]:
    """The decoded label map at `path`, whose pixels are exactly the numbers that were saved.

    Raises
    ------
    Fault
        As for `open_image`, or if the format changes numbers, or the map has an EXIF orientation.
    """
    try:
        with _opened(path, MAX_PIXELS) as image:
            _check_exact(image, path)
            orientation, _ = _load(image)
            if orientation != 1:
                raise Fault(
                    f"{path}: has the EXIF orientation {orientation}: label maps are read as they are stored, and "
                    "viewers display this one otherwise. Save it as it is displayed, without EXIF data.",
                    "it has an EXIF orientation",
                )
            yield image
    except Fault as error:
        raise Fault(str(error), f"label map: {error.reason}", shared=True) from error


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image file at `path`, not yet decoded; what goes wrong inside the `with` block is a fault of the file."""
    try:
        # Given a path, Pillow maps files without compression into memory, TIFFs by the size that is displayed:
        # rows and columns of one on its side would be mixed up.
        with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            if image.width * image.height > max_pixels:
                raise Fault(
                    f"{path}: {image.width} x {image.height} pixels, more than the {max_pixels:,} allowed. "
                    "Downscale it first.",
                    "it has too many pixels",
                )
            yield image
    except (Fault, MemoryError):
        raise
    except FileNotFoundError as error:
        raise Fault(f"{path}: expected an image, found no file.", "the file is missing") from error
    except IsADirectoryError as error:
        raise Fault(f"{path}: expected an image, found a folder.", "it is a folder") from error
    except UnidentifiedImageError as error:
        raise Fault(
            f"{path}: not an image that can be read. Convert it to PNG or JPEG.", "it is no image that can be read"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Fault(
            f"{path} is larger than Pillow decodes: {error}. Downscale it first.", "it has too many pixels"
        ) from error
    except Exception as error:
        # Damaged files make Pillow's decoders raise almost any exception: OSError, SyntaxError, struct.error, ...
        raise Fault(
            f"{path}: damaged or truncated image, it cannot be decoded: {error}. Replace the file.",
            "it is damaged or truncated",
        ) from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _load(image: Image.Image) -> tuple[int, bool]:
    """Decode the pixels; the file's EXIF orientation, and whether Pillow has turned the pixels by it already."""
    if image.format != "TIFF":  # of a PNG, reading metadata decodes the pixels first, and hides what goes wrong
        image.load()
        return _exif_orientation(image), False
    orientation = _exif_orientation(image)
    image.load()
    return orientation, orientation != _exif_orientation(image)


def _exif_orientation(image: Image.Image) -> int:
    """From 1 to 8; 1 where the file says nothing, or nothing that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata raise almost anything, and viewers ignore them
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I;16"):
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_0:
            image = Image.fromarray(~np.asarray(image).astype(np.uint16))  # which Pillow does with 1 and 8 bits alone
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "I" and image.format == "PPM":  # PGM, whose numbers have 16 bits at most
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Fault(
            f"{path} has 32-bit pixels without a fixed range. Save it with 8 bits per channel.",
            "it has 32-bit pixels",
            shared=True,
        )
    if image.mode == "LAB":
        raise Fault(f"{path} has pixels in CIELAB. Save it as RGB.", "it has pixels in CIELAB", shared=True)
    if "transparency" in image.info:
        # Pillow warns when a palette with transparency is converted to RGB in one step.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _check_exact(image: Image.Image, path: Path) -> None:
    """Raise unless the numbers in a label map come out as they were saved."""
    packed = _JPEG_IN_TIFF if image.format == "TIFF" else ()
    if image.format not in EXACT or image.info.get("compression") in packed:
        kind = image.format if image.format not in EXACT else f"{image.format} with {image.info['compression']}"
        raise Fault(
            f"{path}: is a file of the kind {kind}, which may change the numbers of a label map. Save it as PNG.",
            "its format may change numbers",
        )
    tile = image.tile[0] if isinstance(image, ImageFile) and image.tile else None
    arguments = tile.args if tile else ""
    raw = str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)
    if raw.startswith(("1;I", "L;I")):
        raise Fault(
            f"{path}: is a TIFF that says that white is 0 (photometric interpretation, tag 262, is 0 or missing), so "
            "its numbers are those that are stored or, as Pillow and others read them, the largest less those. "
            "Save it as PNG, or with photometric interpretation 1 (black is 0).",
            "it is a TIFF in which white is 0",
        )
    if raw.startswith(("L;2", "L;4", "LA;16", "RGB;16", "RGBA;16", "RGBX;16")):
        raise Fault(
            f"{path}: its pixels are of the kind {raw}, which Pillow makes 8 bits per channel by changing the numbers. "
            "Save it with 8 bits, or as grey with 16.",
            "its numbers are changed while it is decoded",
        )


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
