"""The experiments of a recipe: their fields and defaults.

Knows: the fields of each kind of experiment, as the recipe's list `experiments` holds them.
Does not know: how an experiment is done (`experiments`), or what else a recipe says.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dissect_xr.experiments.cam import SHARE
from dissect_xr.experiments.unit_orders import SIZES

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=80)]
"""A name that every file system takes."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelsPart(_Part):
    """Which class each image has: from a table, or from the whole-image labels of a category of the probe."""

    table: str | None = None
    """a CSV file with the columns image, class and, where the probe's splits are not meant, split"""
    folder: str | None = None
    """where the table's images lie, if they are not the probe's"""
    category: str | None = None
    outputs: list[str] | str | int | None = None
    """the classes in the order of the network's scores: names, a text file of names, or their number"""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.table is None) == (self.category is None):
            raise ValueError("expected either `table` or `category`")
        if self.folder is not None and self.table is None:
            raise ValueError("`folder` says where the images of a `table` lie: give the table as well")
        return self


class _Experiment(_Part):
    kind: str
    name: Name | None = None
    """of its store; None: the kind"""

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.kind


class _OfLayer(_Experiment):
    layer: str
    snapshot: str | None = None
    """None: the last of the recipe"""
    labels: LabelsPart
    measured_on: str = "val"
    fraction: float | None = None
    """of the dissection that is joined; None: its first"""


class AblationPart(_OfLayer):
    """The causal role of a layer's units."""

    kind: Literal["ablation"]
    ranked_on: str = "train"
    level: Literal["zero", "mean"] = "zero"
    sizes: list[Annotated[int, Field(ge=1)]] = list(SIZES)
    curves: Literal["all", "none"] | list[str] = "all"
    """the classes that have curves"""
    greedy: int = Field(default=0, ge=0)


class ClassesPart(_OfLayer):
    """What a class uses."""

    kind: Literal["classes"]
    head: str | None = None
    """the linear module whose weights are taken; None: they are fitted"""
    fitted_on: str = "train"
    c: float = Field(default=0.001, gt=0)
    scaling: Literal["none", "std"] = "none"


class ExplanationPart(_Experiment):
    """Why this prediction."""

    kind: Literal["explanation"]
    classes: str = "classes"
    """name of the experiment of classes whose weights are used"""
    right: int = Field(default=4, ge=0)
    wrong: int = Field(default=4, ge=0)
    images: list[str] | None = None
    units: int = Field(default=5, ge=1)
    fraction: float | None = None


class CamPart(_Experiment):
    """Where is the class?"""

    kind: Literal["cam"]
    classes: str = "classes"
    """name of the experiment of classes whose weights are used"""
    concepts: dict[str, str | int] | str | None = None
    """class -> name or number of its concept, or a CSV file with the columns class and concept"""
    share: float = Field(default=SHARE, ge=0, lt=1)


class GradCamPart(_Experiment):
    """Where is the class, in any network?"""

    kind: Literal["grad_cam"]
    layer: str
    snapshot: str | None = None
    """None: the last of the recipe"""
    labels: LabelsPart
    measured_on: str = "val"
    concepts: dict[str, str | int] | str | None = None
    """class -> name or number of its concept, or a CSV file with the columns class and concept"""
    share: float = Field(default=SHARE, ge=0, lt=1)


Experiment = Annotated[
    AblationPart | ClassesPart | ExplanationPart | CamPart | GradCamPart, Field(discriminator="kind")
]
