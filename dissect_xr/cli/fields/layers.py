"""Which layers a recipe asks for: names, patterns and taps, alone or with their layout.

Knows: the fields of an entry of `layers`.
Does not know: what a name may say (`tapping.name`), which layouts there are (`layouts.layout`), or models.
"""

from typing import Any, Literal

from pydantic import field_validator

from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.request import LayerChoice
from dissect_xr.cli.fields.probe import Part

Pair = tuple[int, int] | int


class LayoutPart(Part):
    """What the axes of a tensor are; see `dissect_xr.activations.layouts.layout.Layout`."""

    kind: Literal["nchw", "nhwc", "tokens", "heads", "windows", "mask_units", "token", "cell"]
    grid: Pair | None = None
    prefix: int = 0
    suffix: int = 0
    axes: list[str] = []
    window: Pair = (0, 0)
    shift: Pair = (0, 0)
    padded: Literal["after", "before"] = "after"
    levels: int = 0
    index: int = 0


class LayerPart(Part):
    """Layers with the layout of their tensors."""

    layer: str
    """a name, a pattern or a tap"""
    layout: LayoutPart
    """a kind alone, or with its parameters"""

    @field_validator("layout", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @property
    def choice(self) -> LayerChoice:
        """As a recording takes it."""
        return LayerChoice(self.layer, Layout.of(self.layout.model_dump()))


def choices(layers: Literal["all"] | list[str | LayerPart]) -> tuple[str | LayerChoice, ...]:
    """The layers as a recording takes them."""
    return ("all",) if layers == "all" else tuple(one if isinstance(one, str) else one.choice for one in layers)
