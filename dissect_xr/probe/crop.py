"""The part of an image that a model sees: its centre, after a resize that keeps its proportions.

Knows: sizes and corners as torchvision's `Resize` and `CenterCrop` choose them. Images and label maps are cropped
alike.
Does not know: files, labels, models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.pixels import MAX_PIXELS, Part


@dataclass(frozen=True)
class Crop:
    """A crop of the central `size` pixels of an image, after its shorter side was resized to `resize`."""

    resize: int
    size: tuple[int, int]
    """(height, width)"""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.resize < max(self.size):
            raise DissectError(
                f"preprocess.resize {self.resize}: expected the shorter side before the crop, at least the input's "
                f"longer side, {max(self.size)}."
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields as they are stored with a probe."""
        return {"resize": self.resize, "size": list(self.size)}

    def part(self, height: int, width: int, of: str | Path = "image") -> Part:
        """The part of an image of this size that the crop shows; `of` is the image's name in messages.

        >>> Crop(256, (224, 224)).part(480, 640)
        ((16, 224, 256), (58, 224, 341))

        Raises
        ------
        Fault
            If the image is so long that it would have too many pixels after resizing.
        """
        longer = int(self.resize * max(height, width) / min(height, width))
        resized = (self.resize, longer) if height <= width else (longer, self.resize)
        if self.resize * longer > MAX_PIXELS:
            raise Fault(
                f"{of}: {resized[1]} x {resized[0]} pixels after resizing, more than {MAX_PIXELS:,}. Cut the file.",
                "it is too long to be resized",
            )
        rows, cols = (
            (round((whole - length) / 2), length, whole) for whole, length in zip(resized, self.size, strict=True)
        )
        return rows, cols

    def cut(self, image: Image.Image, of: str | Path = "image") -> Image.Image:
        """The cropped image, resized by Pillow's bilinear filter; `of` is the image's name in messages.

        Raises
        ------
        Fault
            As for `part`.
        """
        (top, height, rows), (left, width, cols) = self.part(image.height, image.width, of)
        resized = image.resize((cols, rows), Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + width, top + height))


def stored_crop(parameters: Mapping[str, Any]) -> Crop | None:
    """The crop among the parameters of a probe, None if the probe is of whole images."""
    found = parameters.get("crop")
    return Crop(found["resize"], (found["size"][0], found["size"][1])) if found else None
