"""The model of a recipe: its factory or a library's name, its preprocessing, its snapshots, where its weights lie.

Knows: the fields and their defaults, and which of them a library fills in.
Does not know: how a model is built or run.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from dissect_xr.activations.models.names import library_model
from dissect_xr.activations.placement.asked import Mode, Placement
from dissect_xr.activations.request import OWN_PROPORTIONS, ModelSpec, Preprocess
from dissect_xr.cli.fields.preprocess import PreprocessPart
from dissect_xr.cli.fields.probe import Part as _Part
from dissect_xr.cli.fields.probe import Size
from dissect_xr.cli.fields.probe import pair as _pair
from dissect_xr.errors import DissectError


class SnapshotPart(_Part):
    """One snapshot: a weights file, or a seed for random weights."""

    name: str
    step: int = 0
    weights: str | None = None
    """safetensors, the index of its shards, or a file that torch.save wrote, whatever its suffix; of a library's model
    also `pretrained`, or a name of torchvision's weights"""
    key: str | None = None
    """where the state dict lies in the file, such as `ema.module`; None finds the one that fits the model"""
    seed: int | None = None
    kwargs: dict[str, Any] = {}
    """arguments of the factory for this snapshot, beside or instead of those of the model: networks that differ"""
    metrics: dict[str, float | None] = {}
    """null means that it is not known"""


class MetricsPart(_Part):
    """A file of records from which the snapshots' metrics are taken: a JSON list, JSON Lines or CSV."""

    file: str
    step: str = "step"
    """the column that holds the step"""
    columns: dict[str, str] = {"accuracy": "accuracy", "loss": "loss"}
    """metric -> the column that holds it"""


class ModelPart(_Part):
    """The model and its snapshots."""

    factory: str
    """`file.py:make`, `package.module:make`, or a model of torchvision, timm or transformers by its name"""
    kwargs: dict[str, Any] = {}
    input_size: Size | None = Field(default=None, validate_default=True)
    """(rows, columns) of the input, or one number for both; None takes what the library has for its model"""
    preprocess: PreprocessPart = PreprocessPart()
    snapshots: list[SnapshotPart] = Field(min_length=1)
    metrics: MetricsPart | None = None

    @field_validator("input_size", mode="before")
    @classmethod
    def _square(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping):
            raise ValueError(OWN_PROPORTIONS)
        if value is None and library_model(str(info.data.get("factory"))) is None:
            raise PydanticCustomError("missing", "Field required")
        return _pair(value)

    def preprocessing(self) -> Preprocess:
        """How images become the model's input: what the recipe says, and for the rest what the library has.

        Raises
        ------
        DissectError
            If the library has none, or another one for each of the snapshots' weights.
        """
        given = {name: getattr(self.preprocess, name) for name in self.preprocess.model_fields_set}
        given |= {} if self.input_size is None else {"size": self.input_size}
        library = library_model(self.factory)
        if library is None:
            return Preprocess(**given)
        from dissect_xr.activations.models.preprocessing import library_preprocess

        named = [spec.named for spec in self.specs().values()]
        found = [library_preprocess(library, self.kwargs, name, given) for name in dict.fromkeys(named)]
        if any(one != found[0] for one in found):
            raise DissectError(
                f"model {self.factory}: the weights {', '.join(map(str, dict.fromkeys(named)))} of its snapshots come "
                "with different preprocessing. Say in model.input_size and model.preprocess which one is meant: "
                "input_size, resize, mean, std and interpolation."
            )
        return found[0]

    def specs(self, placement: Placement | None = None) -> dict[str, ModelSpec]:
        """Name of each snapshot -> the description of its model."""
        return {
            part.name: ModelSpec.of(
                self.factory, self.kwargs | part.kwargs, part.weights, part.seed, part.key, placement
            )
            for part in self.snapshots
        }


class PlacementPart(_Part):
    """Where the weights lie while the model runs."""

    mode: Mode = "single"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """that weights and images are cast to; null leaves them as they are"""
    gpus_per_worker: int = Field(default=1, ge=1)
    max_memory: dict[int | str, int | str] = {}
    """bytes of weights, or a text such as 20GiB, for each GPU (by number) and for cpu"""
    offload_dir: str | None = None
    """folder for weights that lie in no safetensors file; null keeps those in host memory"""
    no_split: list[str] = []
    """classes whose modules stay whole"""

    def placement(self) -> Placement | None:
        """What is asked, None where nothing is."""
        given = self.model_dump()
        return Placement.of(given.pop("mode"), **given) if self != PlacementPart() else None
