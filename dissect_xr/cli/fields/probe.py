"""Fields that the kinds of probes in recipes have in common.

Knows: pydantic, and what every probe may be asked for.
Does not know: which kinds there are.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from dissect_xr.probe.orientation import Orientation

Size = tuple[int, int]


class Part(BaseModel):
    """A group of fields; others than these are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def pair(value: Any) -> Any:
    """One number stands for both of a pair."""
    return (value, value) if isinstance(value, int) else value


class Subset(Part):
    """The images of the probe that are used."""

    split: str | list[str] | None = None
    limit: int | None = None


class Probe(Part):
    """What every probe may be asked for."""

    label_size: Size | None = None
    """(rows, columns) of the label grid, or one number for both; None takes the size of the first label map"""
    images: Subset = Subset()
    categories: list[str] | None = None
    colors: bool = False
    """whether colour concepts are computed from the pixels"""

    _square = field_validator("label_size", mode="before")(pair)


class FolderProbe(Probe):
    """Images and label maps in folders of one's own."""

    orientation: Orientation | None = None
    """which form of an image with an EXIF orientation its label maps follow; None: the one that they fit"""
    follow_links: bool = False
    """whether symbolic links may lead out of the folders"""
