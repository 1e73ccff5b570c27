"""Pixels of an image file, and the input tensor of a model computed from them.

Knows: how the pixels of a file become 8-bit RGB of a given size, and the arithmetic before the first layer.
Does not know: how a file is decoded (`pixels`), which images there are, or which model takes the tensor.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dissect_xr.activations.references import resolve
from dissect_xr.activations.request import Interpolation, Preprocess
from dissect_xr.errors import DissectError
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.pixels import MAX_PIXELS, read_rgb


def read_image(
    path: str | Path,
    size: tuple[int, int],
    *,
    crop: Crop | None = None,
    orientation: int = 1,
    interpolation: Interpolation = "bilinear",
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Pixels of an image file as RGB, uint8 (H, W, 3); safe to call from threads.

    They are decoded by `dissect_xr.probe.pixels.read_rgb`, as those of colour concepts and exemplars are. An image of
    another size is resized by one of Pillow's filters, which average over a support when they make an image smaller.

    Parameters
    ----------
    path
        Image file in a format that Pillow reads.
    size
        (H, W) of the result.
    crop
        The part of the image to return, of this size; None resizes the whole image.
    orientation
        The EXIF orientation that the stored pixels are turned by, as the probe says (`Folder.orientation`).
    interpolation
        The filter.
    max_pixels
        An image that declares more pixels is refused before it is decoded.

    Raises
    ------
    DissectError
        If the file is missing, damaged, truncated or too large, or its 32-bit pixels have no fixed range.
    """
    rgb = read_rgb(Path(path), orientation=orientation, max_pixels=max_pixels)
    return _resized(rgb, size, crop, interpolation, f"image {path}")


def pixels_of(picture: Image.Image, preprocess: Preprocess, of: str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of a decoded RGB picture as a preprocessing gives them to the model; `of` names it."""
    return _resized(picture, preprocess.size, preprocess.crop, preprocess.interpolation, of)


def _resized(
    rgb: Image.Image, size: tuple[int, int], crop: Crop | None, interpolation: Interpolation, of: str
) -> NDArray[np.uint8]:
    resample = Image.Resampling[interpolation.upper()]
    if crop is not None:
        rgb = crop.cut(rgb, of, resample=resample)
    if rgb.size != (size[1], size[0]):
        rgb = rgb.resize((size[1], size[0]), resample)
    return np.array(rgb, dtype=np.uint8)


def to_input(preprocess: Preprocess, batch: NDArray[np.uint8], *, device: str | torch.device = "cpu") -> Tensor:
    """Input tensor of a batch, float (n, channel, H, W) on the device.

    The arithmetic runs on the device, so that bytes rather than floats are copied to it; a `callable` runs on the CPU.

    Parameters
    ----------
    preprocess
        The arithmetic, or the function that replaces it.
    batch
        uint8 (n, H, W, 3) RGB, already of ``preprocess.size``.
    device
        The torch device of the result.

    Examples
    --------
    >>> half = Preprocess((1, 1), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> to_input(half, np.full((1, 1, 1, 3), 255, np.uint8)).flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (*preprocess.size, 3):
        raise DissectError(
            f"expected uint8 images (n, {preprocess.size[0]}, {preprocess.size[1]}, 3), got {batch.dtype} {batch.shape}"
        )
    if preprocess.callable is not None:
        return _called(preprocess, preprocess.callable, batch).to(device)
    pixels = torch.tensor(batch, device=device).permute(0, 3, 1, 2).to(torch.float32)
    if preprocess.channels == "BGR":
        pixels = pixels.flip(1)
    mean, std = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return ((pixels / preprocess.scale - mean) / std).contiguous()


def _called(preprocess: Preprocess, reference: str, batch: NDArray[np.uint8]) -> Tensor:
    function = resolve(reference)
    try:
        result = function(batch)
    except Exception as error:
        raise DissectError(f"preprocess {reference} failed: {type(error).__name__}: {error}") from error
    got = f"{result.dtype} {tuple(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
    fits = (
        isinstance(result, Tensor)
        and result.is_floating_point()
        and result.ndim == 4
        and len(result) == len(batch)
        and tuple(result.shape[2:]) == preprocess.size
    )
    if not fits:
        height, width = preprocess.size
        raise DissectError(
            f"preprocess {reference} must return a float tensor ({len(batch)}, channel, {height}, {width}), got {got}"
        )
    return result  # type: ignore[no-any-return]  # checked above
