"""How recipes say what a model sees of an image.

Knows: the fields.
Does not know: how pixels are computed.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from dissect_xr.activations.request import OWN_PROPORTIONS, Interpolation
from dissect_xr.cli.fields.probe import Part, Size
from dissect_xr.probe.crop import Centre


class PreprocessPart(Part):
    """How pixels become the model's input: ``(pixel / scale - mean) / std`` per channel, or a callable."""

    resize: int | Size | None = None
    """the shorter side is resized to this, or the whole image to these rows and columns, then the centre is cropped;
    None: the whole image is resized to the input"""
    interpolation: Interpolation = "bilinear"
    """Pillow's filter by which images are resized"""
    centre: Centre = "nearest"
    """where the crop lies if what surrounds it cannot be halved: floor as in transformers, nearest as in torchvision"""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 255.0
    channels: Literal["RGB", "BGR"] = "RGB"
    callable: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_size(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("size"), Mapping):
            raise ValueError(OWN_PROPORTIONS)
        return value
