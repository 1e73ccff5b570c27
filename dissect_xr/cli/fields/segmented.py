"""Probes in recipes whose labels a segmentation network draws.

Knows: the fields of a segmenter, and which images it is given.
Does not know: models, or kinds of probes (`recipe` says which may give the images).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from dissect_xr.activations.models.names import library_model
from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.cli.fields.preprocess import PreprocessPart
from dissect_xr.cli.fields.probe import Part, Probe, Size, pair
from dissect_xr.errors import DissectError
from dissect_xr.probe.orientation import Orientation
from dissect_xr.probe.readers.concepts import read_concepts
from dissect_xr.segmenters.segmenter import Segmenter, numbered


class SegmenterPart(Part):
    """The network, what it sees, and what its classes mean."""

    factory: str
    """`file.py:make`, `package.module:make`, or a model of torchvision, timm or transformers by its name"""
    kwargs: dict[str, Any] = {}
    weights: str | None = None
    """a file; of a library's model also `pretrained`, or a name of torchvision's weights"""
    key: str | None = None
    seed: int | None = None
    input_size: Size | None = None
    """(rows, columns) of the input, or one number for both; None takes what the library has for its model"""
    preprocess: PreprocessPart = PreprocessPart()
    classes: str | dict[int, Any]
    """class -> name, or a mapping with name and category; or a file that holds this, as for masks"""
    nothing: list[int] = []
    """classes that mean no label"""
    confidence: float = Field(default=0.0, ge=0, lt=1)
    """a pixel whose class has a lower probability is unlabelled"""
    orientation: Orientation = "displayed"
    batch: int = Field(default=8, ge=1)
    device: str | None = None
    threads: int | None = Field(default=None, ge=1, le=1024)
    autocast: Literal["bfloat16", "float16"] | None = None

    _square = field_validator("input_size", mode="before")(pair)

    @property
    def segmenter(self) -> Segmenter:
        """The segmenter; reads the table of classes."""
        if isinstance(self.classes, str):
            classes = read_concepts(Path(self.classes), offset=1)[0]
        else:
            classes = numbered(self.classes)
        spec = ModelSpec.of(self.factory, self.kwargs, self.weights, self.seed, self.key)
        return Segmenter(
            spec=spec,
            preprocess=self._preprocess(spec),
            classes=classes,
            nothing=tuple(self.nothing),
            confidence=self.confidence,
            orientation=self.orientation,
            batch=self.batch,
            device=self.device,
            threads=self.threads,
            autocast=self.autocast,
        )

    def _preprocess(self, spec: ModelSpec) -> Preprocess:
        """What the recipe says, and for the rest what the library has; whole images in any case."""
        given = {name: getattr(self.preprocess, name) for name in self.preprocess.model_fields_set}
        given |= {} if self.input_size is None else {"size": self.input_size}
        library = library_model(self.factory)
        if library is not None:
            from dissect_xr.activations.models.preprocessing import library_preprocess

            return library_preprocess(library, self.kwargs, spec.named, {"resize": None} | given)
        if self.input_size is None:
            raise DissectError("segmenter.input_size: is missing: the rows and columns of the network's input.")
        return Preprocess(**given)


class SegmentedPart(Probe):
    """Images, and the segmenter that labels them."""

    kind: Literal["segmented"]
    image_folder: str | None = None
    """images without labels; or `of`"""
    segmenter: SegmenterPart
    synonyms: str | dict[str, dict[str, list[str]]] = {}
    """category -> name -> other names for it, where people's labels call a class otherwise"""
