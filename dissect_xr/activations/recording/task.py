"""What a task of an extraction is given: the images, the model, the layers.

Knows: the fields.
Does not know: how a task is carried out.
"""

import hashlib
from dataclasses import dataclass

from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.activations.store import LayerShape
from dissect_xr.probe.folder import Folder
from dissect_xr.tail.arrays import tails_path


@dataclass(frozen=True)
class ExtractTask:
    """One image block of one snapshot."""

    url: str
    snapshot: str
    spec: ModelSpec
    preprocess: Preprocess
    layers: tuple[LayerShape, ...]
    folder: Folder
    """folder of the images, and how they are turned"""
    images: tuple[str, ...]
    """the block's images, relative to the folder"""
    start: int
    """index of the block's first image"""
    batch: int
    """images of one forward pass"""
    device: str | None
    """None: cuda if there is a GPU, else cpu"""
    threads: int | None
    """torch threads; None leaves torch's own choice"""
    autocast: str | None
    """dtype of torch.autocast; None: no autocast"""
    fingerprint: str
    weights: str
    """sha256 of the weights that the fingerprint includes"""
    seeded: bool = False
    """whether the model may draw random numbers, and depend on the batch"""
    again: str | None = None
    """which of the snapshot's layers these are, where their bounds were too high and are now lower"""

    @property
    def key(self) -> str:
        """Key of the block's marker."""
        kind = "tails" if any(layer.has_tail for layer in self.layers) else "blocks"
        part = kind if self.again is None else f"again/{self.again}"
        return f"{self.snapshot}/{part}/{self.start}-{self.start + len(self.images)}"

    @property
    def tails(self) -> str:
        """The group of the tails that it writes."""
        return tails_path(self.snapshot, self.again)

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"activations of {self.snapshot}, images {self.images[0]} to {self.images[-1]} ({len(self.images)})"

    @property
    def seed(self) -> int:
        """Seed of the block, where the model may draw random numbers."""
        return int.from_bytes(hashlib.sha256(f"{self.fingerprint} {self.start}".encode()).digest()[:8], "little") // 2
