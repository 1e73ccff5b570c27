"""The part of an image that a model sees: its centre, after a resize.

Knows: sizes and corners as torchvision's `Resize` and `CenterCrop` choose them, and those of transformers. Images and
label maps are cropped alike.
Does not know: files, labels, models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.pixels import MAX_PIXELS, Part

Centre = Literal["nearest", "floor"]
"""Where a crop lies if the pixels around it cannot be halved: half of them, rounded to the nearest whole number (and to
the even one) as torchvision does, or rounded down as transformers does."""


@dataclass(frozen=True)
class Crop:
    """A crop of the central `size` pixels of an image, after it was resized."""

    resize: int | tuple[int, int]
    """length of the shorter side, where proportions are kept; or (height, width) of the whole image"""
    size: tuple[int, int]
    """(height, width)"""
    centre: Centre = "nearest"

    def __post_init__(self) -> None:
        resized = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        least = (max(self.size),) * 2 if isinstance(self.resize, int) else self.size
        if min(self.size) < 1 or any(whole < part for whole, part in zip(resized, least, strict=True)):
            raise DissectError(
                f"preprocess.resize {self.resize}: expected the shorter side before the crop, at least the input's "
                f"longer side, {max(self.size)}."
                if isinstance(self.resize, int)
                else f"preprocess.resize {self.resize}: expected (height, width) before the crop, at least "
                f"the input's, {self.size}."
            )

    def __repr__(self) -> str:
        said = "" if self.centre == "nearest" else f", centre={self.centre!r}"
        return f"Crop(resize={self.resize}, size={self.size}{said})"

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields as they are stored with a probe."""
        resize = self.resize if isinstance(self.resize, int) else list(self.resize)
        found = {"resize": resize, "size": list(self.size)}
        return found if self.centre == "nearest" else found | {"centre": self.centre}

    def part(self, height: int, width: int, of: str | Path = "image") -> Part:
        """The part of an image of this size that the crop shows; `of` is the image's name in messages.

        >>> Crop(256, (224, 224)).part(480, 640)
        ((16, 224, 256), (58, 224, 341))

        Raises
        ------
        Fault
            If the image is so long that it would have too many pixels after resizing.
        """
        resized = self._resized(height, width)
        if resized[0] * resized[1] > MAX_PIXELS:
            raise Fault(
                f"{of}: {resized[1]} x {resized[0]} pixels after resizing, more than {MAX_PIXELS:,}. Cut the file.",
                "it is too long to be resized",
            )
        halved = round if self.centre == "nearest" else int
        rows, cols = (
            (halved((whole - length) / 2), length, whole) for whole, length in zip(resized, self.size, strict=True)
        )
        return rows, cols

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the whole image before it is cropped."""
        if not isinstance(self.resize, int):
            return self.resize
        longer = int(self.resize * max(height, width) / min(height, width))
        return (self.resize, longer) if height <= width else (longer, self.resize)

    def cut(
        self,
        image: Image.Image,
        of: str | Path = "image",
        *,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
    ) -> Image.Image:
        """The cropped image, resized by one of Pillow's filters; `of` is the image's name in messages.

        Raises
        ------
        Fault
            As for `part`.
        """
        (top, height, rows), (left, width, cols) = self.part(image.height, image.width, of)
        resized = image.resize((cols, rows), resample)
        return resized.crop((left, top, left + width, top + height))


def stored_crop(parameters: Mapping[str, Any]) -> Crop | None:
    """The crop among the parameters of a probe, None if the probe is of whole images."""
    found = parameters.get("crop")
    if not found:
        return None
    resize = found["resize"] if isinstance(found["resize"], int) else (found["resize"][0], found["resize"][1])
    return Crop(resize, (found["size"][0], found["size"][1]), found.get("centre", "nearest"))
