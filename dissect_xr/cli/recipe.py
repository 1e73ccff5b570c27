"""Recipes: YAML files that describe a run, read and validated.

Knows: the fields, their defaults, overrides, and how `${...}` in texts is replaced.
Does not know: how stages run (`run`).

In any text, `${here}` stands for the folder of the recipe, `${out}` for the output directory, `${data}` for the field
`data`, and `~/` at its start for the user's home directory. Relative paths are relative to the working directory, as
in other commands.
"""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from dissect_xr.cli.fields.coco import CocoFamily
from dissect_xr.cli.fields.derived import DerivedPart
from dissect_xr.cli.fields.experiments import Experiment
from dissect_xr.cli.fields.layers import LayerPart
from dissect_xr.cli.fields.model import ModelPart, PlacementPart
from dissect_xr.cli.fields.probe import FolderProbe as _FolderProbe
from dissect_xr.cli.fields.probe import Part as _Part
from dissect_xr.cli.fields.probe import Probe as _Probe
from dissect_xr.cli.fields.scenes import Scenes
from dissect_xr.cli.fields.segmented import SegmentedPart
from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.masks import MaskFormat
from dissect_xr.probe.readers.strict_yaml import Document, parse_yaml, read_yaml
from dissect_xr.schema import FRACTION

GIB = 2**30


def _listed(value: Any) -> Any:
    """A single value stands for a list of it."""
    return [value] if isinstance(value, (str, int, float)) else value


def _layers(value: Any) -> Any:
    return value if value == "all" else [value] if isinstance(value, dict) else _listed(value)


def _placement(value: Any) -> Any:
    """A mode alone stands for a placement of this mode."""
    return {"mode": value} if isinstance(value, str) else value


class BrodenProbe(_FolderProbe):
    """A folder in the Broden layout."""

    kind: Literal["broden"]
    folder: str
    index: str = "index.csv"
    void: list[int] = []
    """numbers in label maps of ignored pixels, which exported probes may have"""


class MasksProbe(_FolderProbe):
    """Images, integer masks of the same names, and a table of concepts."""

    kind: Literal["masks"]
    image_folder: str
    mask_folder: str
    concepts: str
    ignore: list[int] = []
    """numbers in masks that mean no label"""
    image_name: str = MaskFormat.image_name
    """how images are called, such as {stem}_leftImg8bit.png"""
    mask_name: str = MaskFormat.mask_name
    """how masks are called, such as {stem}_gtFine_labelIds.png"""
    offset: int = MaskFormat.offset
    """is added to the numbers in masks and in the table of concepts: 1 where both count from 0"""
    unlabelled: int | list[int] = []
    """numbers in masks that mean unlabelled"""
    void: list[int] = []
    """numbers in masks of ignored pixels, which are in no mask of a unit, no concept and no area"""


class DigitsProbe(_Probe):
    """The built-in probe of handwritten digits."""

    kind: Literal["digits"]
    folder: str | None = None
    """folder that the images are written to; None: `digits` in the output directory"""
    count: int = Field(default=1200, ge=1)
    size: int = Field(default=96, ge=64)
    seed: int = 0


FilesProbe = BrodenProbe | MasksProbe | CocoFamily | Scenes
LabelledProbe = FilesProbe | DigitsProbe


class SegmentedProbe(SegmentedPart):
    """Images with predicted labels."""

    of: Annotated[LabelledProbe, Field(discriminator="kind")] | None = None
    """a probe with people's labels: its images are labelled, and the two kinds of labels compared"""

    @model_validator(mode="after")
    def _images(self) -> "SegmentedProbe":
        if (self.of is None) == (self.image_folder is None):
            raise ValueError("give either image_folder, or with `of` a probe whose images are labelled")
        return self


SingleProbe = LabelledProbe | SegmentedProbe


class MergedProbe(_Probe):
    """Several probes as one."""

    kind: Literal["merged"]
    probes: dict[str, Annotated[SingleProbe, Field(discriminator="kind")]] = Field(min_length=1)
    synonyms: str | dict[str, dict[str, list[str]]] = {}
    """category -> name -> other names for it; or a file that holds this"""
    min_images: int = Field(default=0, ge=0)
    """concepts that fewer images have are left out"""


Probe = Annotated[SingleProbe | MergedProbe, Field(discriminator="kind")]


class ActivationsPart(_Part):
    """How activations are recorded."""

    dtype: Literal["float16", "float32"] = "float16"
    batch: int = Field(default=32, ge=1)
    memory: int = Field(default=512 * 2**20, ge=2**20)
    """bytes of one image block's maps of all layers"""
    budget: int = 500 * GIB
    """largest allowed size of a snapshot's activations, in raw bytes"""
    device: str | None = None
    threads: int | None = Field(default=None, ge=1, le=1024)
    autocast: Literal["bfloat16", "float16"] | None = None
    """dtype of torch.autocast in the forward pass; null: no autocast"""
    allow_nondeterministic: bool = False
    """whether the model may draw random numbers or depend on the batch: every image block is then seeded"""
    keep: Literal["dense", "tail", "both", "none"] = "dense"
    """dense: all cells are stored; tail: those that can decide a threshold or a mask; both: all cells, and the tail
    beside them, from which thresholds and counts are found faster; none: as tail, and deleted once a snapshot is
    dissected"""
    margin: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    """times the largest fraction: the share of a sample's activations above the bound of a tail"""
    sample: int = Field(default=1024, ge=1)
    """images that the bounds of tails are taken from at most; a quarter of all, but at least 64, where that is fewer"""
    placement: Annotated[PlacementPart, BeforeValidator(_placement)] = PlacementPart()
    """where the weights lie while the model runs; a mode alone stands for it"""


class DissectPart(_Part):
    """The parameters of the dissection."""

    fractions: Annotated[list[float], BeforeValidator(_listed)] = [FRACTION]
    anchoring: Literal["receptive_field", "half_pixel"] = "receptive_field"
    domain: Literal["annotated", "touched", "all"] = "annotated"


class Recipe(_Part):
    """Everything a run needs."""

    data: str | None = None
    """a folder that other texts may name as ${data}"""
    probe: Probe
    model: ModelPart
    layers: Annotated[Literal["all"] | list[str | LayerPart], BeforeValidator(_layers)] = "all"
    activations: ActivationsPart = ActivationsPart()
    skip_bad_images: bool = False
    """whether images that cannot be read are removed and recorded, rather than ending the run"""
    derived: list[DerivedPart] = []
    """layers that are dissected in other bases, too"""
    dissect: DissectPart = DissectPart()
    experiments: list[Experiment] = []
    """what is asked of the results, after the counts"""


def load_recipe(path: str | Path, *, out: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path`, with ``KEY=VALUE`` overrides (dots between keys, values as YAML).

    Raises
    ------
    DissectError
        With the name of the field, what was expected and what was found.
    """
    document = _document(path)
    raw = _overridden(document, overrides)
    words = {"here": str(Path(path).resolve().parent), "out": out}
    if isinstance(raw.get("data"), str):
        words["data"] = _filled(raw["data"], words, "data")
    try:
        return Recipe.model_validate({key: _expanded(value, words, key) for key, value in raw.items()})
    except ValidationError as error:
        raise DissectError(_problems(error, document)) from error


def read_raw(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of the recipe as they are in the file, with overrides applied."""
    return _overridden(_document(path), overrides)


def _document(path: str | Path) -> Document:
    document = read_yaml(path, "a recipe (YAML)")
    if not isinstance(document.value, dict) or not all(isinstance(key, str) for key in document.value):
        raise DissectError(f"{path}: expected fields with names, got {type(document.value).__name__}.")
    return document


def _overridden(document: Document, overrides: Sequence[str]) -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(document.value)
    for override in overrides:
        _override(raw, override)
    return raw


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise DissectError(f"--set {override}: expected KEY=VALUE, such as dissect.fractions=[0.01].")
    value = parse_yaml(text, f"--set {override}", "a value").value
    *parents, last = key.split(".")
    node: Any = raw
    for step in [*parents]:
        node = _child(node, step, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise DissectError(f"--set {override}: '{'.'.join(parents)}' is no group of fields.")


def _child(node: Any, step: str, override: str) -> Any:
    """The value at the key or index `step` of a node; a missing key becomes an empty group of fields."""
    if isinstance(node, list):
        return node[_index(node, step, override)]
    if isinstance(node, dict):
        return node.setdefault(step, {})
    raise DissectError(f"--set {override}: '{step}' is below a value, not below a group of fields.")


def _index(node: list[Any], step: str, override: str) -> int:
    if not step.isdigit() or int(step) >= len(node):
        raise DissectError(f"--set {override}: expected an index from 0 to {len(node) - 1}, got '{step}'.")
    return int(step)


def _expanded(value: Any, words: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        return _filled(value, words, where)
    if isinstance(value, dict):
        return {key: _expanded(part, words, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, words, f"{where}.{n}") for n, part in enumerate(value)]
    return value


def _filled(text: str, words: Mapping[str, str], where: str) -> str:
    text = str(Path(text).expanduser()) if text.startswith("~/") else text

    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "data" and name not in words:
            raise DissectError(f"{where}: expects '{text}', and 'data' is not given. Give it: --set data=FOLDER.")
        if name not in words:
            raise DissectError(f"{where}: ${{{name}}} is none of {', '.join(sorted(words))}.")
        return words[name]

    filled = re.sub(r"\$\{(\w*)\}", word, text)
    return os.path.expanduser(filled) if filled == "~" or filled.startswith("~/") else filled


def _problems(error: ValidationError, document: Document) -> str:
    problems = []
    for item in error.errors()[:5]:
        field = ".".join(str(part) for part in item["loc"]) or "recipe"
        got = "" if item["type"] in ("missing", "extra_forbidden") else f", got {str(item['input'])[:60]!r}"
        problems.append(f"{document.where(*item['loc'])}: {field}: {item['msg']}{got}")
    return "; ".join(problems)
