"""What a segmenter is: a model, what it sees, and what the classes of its output mean.

Knows: the fields, and the fingerprint of all that decides a predicted label.
Does not know: the model's output (`outputs`), images, stores. Torch is not imported.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dissect_xr import store
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, request_sha256
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LARGEST, Concept
from dissect_xr.probe.orientation import Orientation
from dissect_xr.probe.readers.concepts import given_concepts

LONGEST = 1024
"""Longer side of a predicted label map at most, in pixels; images that are larger are labelled on a smaller grid."""


@dataclass(frozen=True)
class Segmenter:
    """A network that gives each pixel of an image a class."""

    spec: ModelSpec
    preprocess: Preprocess
    """of the whole image: it must not be cut"""
    classes: tuple[Concept, ...]
    """what the classes of its output mean; the number of a concept is that of the class and 1"""
    nothing: tuple[int, ...] = ()
    """classes that mean no label; negative numbers always do"""
    confidence: float = 0.0
    """a pixel whose class has a lower probability is unlabelled"""
    orientation: Orientation = "displayed"
    """which form of an image with an EXIF orientation it sees"""
    batch: int = 8
    """images of one forward pass; another number makes other labels, since kernels round in another order"""
    device: str | None = None
    threads: int | None = field(default=None, compare=False)
    autocast: str | None = None

    def __post_init__(self) -> None:
        if self.preprocess.crop is not None:
            raise DissectError("segmenter: it must see whole images. Leave out `resize`, which cuts them.")
        if not 0 <= self.confidence < 1:
            raise DissectError(f"segmenter: confidence must be at least 0 and below 1, got {self.confidence}.")
        if self.batch < 1:
            raise DissectError(f"segmenter: batch must be at least 1, got {self.batch}.")
        if not self.classes:
            raise DissectError("segmenter: expected at least one class with a name, got none.")
        if both := sorted({concept.number - 1 for concept in self.classes}.intersection(self.nothing)):
            raise DissectError(f"segmenter: class {both[0]} has a name, and is said to mean nothing. Leave out one.")
        if (largest := max(concept.number for concept in self.classes)) > LARGEST:
            raise DissectError(f"segmenter: class {largest - 1} is too large, at most {LARGEST - 1:,} can be stored.")

    @property
    def recording(self) -> Recording:
        """How its model is run, in the words of an extraction; it has no layers."""
        return Recording(
            self.preprocess, layers=(), batch=self.batch, device=self.device, threads=self.threads,
            autocast=self.autocast, allow_nondeterministic=True,
        )  # fmt: skip

    @property
    def parameters(self) -> dict[str, Any]:
        """What a person should be able to read in a probe of its labels."""
        return {
            "factory": self.spec.factory.rpartition("/")[2],
            "kwargs": self.spec.kwargs,
            "preprocess": self.preprocess.parameters,
            "nothing": list(self.nothing),
            "confidence": self.confidence,
            "orientation": self.orientation,
            "batch": self.batch,
            "autocast": self.autocast,
            "sha256": self.sha256,
        }

    @property
    def sha256(self) -> str:
        """Fingerprint of all that decides a label, but the images: model, weights, code, classes."""
        return store.fingerprint(
            {
                "request": request_sha256(self.spec, self.recording, ""),
                "classes": [concept.content for concept in self.classes],
                "nothing": sorted(self.nothing),
                "confidence": self.confidence,
                "orientation": self.orientation,
                "longest": LONGEST,
            }
        )

    def seed(self, start: int) -> int:
        """Seed of the block that begins with this image, for models that draw random numbers."""
        return int.from_bytes(hashlib.sha256(f"{self.sha256} {start}".encode()).digest()[:8], "little") // 2


def numbered(classes: Mapping[int, Any]) -> tuple[Concept, ...]:
    """Concepts of classes, as a table of concepts has them: their numbers are those of the classes and 1.

    >>> [(one.number, one.name) for one in numbered({0: "sky", 7: "cat"})]
    [(1, 'sky'), (8, 'cat')]
    """
    return given_concepts({number + 1: value for number, value in classes.items()})
