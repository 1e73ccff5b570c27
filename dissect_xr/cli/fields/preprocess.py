"""How recipes say what a model sees of an image.

Knows: the fields.
Does not know: how pixels are computed.
"""

from typing import Literal

from pydantic import Field

from dissect_xr.cli.fields.probe import Part


class PreprocessPart(Part):
    """How pixels become the model's input: ``(pixel / scale - mean) / std`` per channel, or a callable."""

    resize: int | None = Field(default=None, ge=1)
    """the shorter side is resized to this, then the centre is cropped; None: the whole image is resized to the input"""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 255.0
    channels: Literal["RGB", "BGR"] = "RGB"
    callable: str | None = None
