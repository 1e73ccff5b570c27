"""Every stored variable and attribute, declared once: name, dims, dtype, unit, meaning.

Knows: which variables and attributes the groups of the three stores hold, and the error for a Dataset that lacks one.
Does not know: shapes, chunks, or how anything is computed.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import xarray as xr

from dissect_xr.errors import DissectError

SCHEMA_VERSION = 4
"""Rises by one when this package can no longer read the stores that older versions wrote."""

FRACTION = 0.005
"""Share of a unit's activations above its threshold (Bau et al. 2017, section 2.2)."""

CUTOFF = 0.04
"""IoU above which a unit is a detector (Bau et al. 2017, section 2.3)."""


@dataclass(frozen=True)
class Variable:
    """One stored variable."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    meaning: str

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes that are stored with the array."""
        return {"units": self.units, "long_name": self.meaning}


def _table(*rows: Variable) -> dict[str, Variable]:
    return {row.name: row for row in rows}


PROBE = _table(
    Variable(
        "annotation", ("image", "plane", "row", "col"), "uint16", "concept number", "label of each pixel, 0 = none"
    ),
    Variable("whole_image", ("image", "slot"), "uint16", "concept number", "labels of the whole image, 0 = none"),
    Variable("annotated", ("image", "domain"), "bool", "1", "image is annotated for the domain"),
    Variable("concept_images", ("concept",), "int64", "images", "images that carry the concept"),
    Variable("concept_area", ("concept",), "int64", "label pixels", "pixels that carry the concept"),
    Variable("domain_area", ("domain",), "int64", "label pixels", "pixels of images annotated for it"),
)

RUNS = _table(
    Variable("run_count", ("image", "plane", "row"), "uint16", "runs", "runs of equal labels in each row of labels"),
    Variable("run", ("image_block", "part", "n_run"), "uint16", "1", "column behind a run, and its concept number"),
)
"""The label maps once more, as runs: what counting reads."""

IGNORED = Variable(
    "ignored", ("image", "row", "col"), "bool", "1", "pixel is in no mask, no concept and no area; absent if none is"
)
"""A variable of probes whose format has pixels that are neither labelled nor unlabelled."""

ACTIVATIONS = _table(
    Variable("activation", ("image", "unit", "y", "x"), "float16", "1", "the unit's output at each cell"),
    Variable("peak", ("image", "unit"), "float16", "1", "largest activation of the unit in the image, as stored"),
    Variable("mean", ("image", "unit"), "float32", "1", "mean activation of the unit in the image, as stored"),
)

TAIL = _table(
    Variable("bound", ("unit",), "float32", "1", "cells above it belong to the unit's tail, with their neighbours"),
    Variable("at_bound", ("image_block", "unit"), "int64", "activations", "values of the block equal to the bound"),
    Variable("largest", ("image_block", "unit"), "float16", "1", "largest activation of the block"),
    Variable("span_count", ("image", "unit"), "uint16", "1", "spans of cells that the tail of the map has"),
    Variable("tail_range", ("image", "layer", "end"), "int64", "1", "first and last (excluded) in `span`, in `tail`"),
    Variable("span", ("image_block", "part", "n_span"), "uint16", "cells", "gap before a span in its map, and length"),
    Variable("tail", ("image_block", "n_value"), "float16", "1", "the cells of the spans, one after the other"),
)

DERIVED = _table(
    Variable(
        "matrix", ("unit", "source_unit"), "float32", "1", "what each unit of the source counts in each derived one"
    ),
    Variable("bias", ("unit",), "float32", "1", "is added to each sum"),
    Variable("variance", ("unit",), "float64", "1", "of a principal axis; absent in other bases"),
)

DISSECTION = _table(
    Variable("threshold", ("fraction", "unit"), "float32", "1", "activation level T_k"),
    Variable("exceedance", ("fraction", "unit"), "int64", "activations", "raw activations strictly above T_k"),
    Variable(
        "intersection", ("fraction", "unit", "concept"), "int64", "label pixels", "active pixels that carry the concept"
    ),
    Variable("unit_area", ("fraction", "unit", "domain"), "int64", "label pixels", "active pixels in the domain"),
    Variable("dead", ("fraction", "unit"), "bool", "1", "no label pixel is active"),
    Variable("concept_area", ("concept",), "int64", "label pixels", "pixels that carry the concept"),
    Variable("domain_area", ("domain",), "int64", "label pixels", "pixels of images annotated for it"),
)

PER_UNIT = tuple(variable.name for variable in DISSECTION.values() if "unit" in variable.dims)
"""Variables of a dissection that have the dim `unit`."""

DRAWN_BY = ("label_source", "label_intersection", "label_union")
"""Coordinates of concepts in probes some of whose labels a segmenter drew."""

COORDINATES = (
    "snapshot", "step", "fraction", "unit", "layer", "channel", "concept", "concept_name", "concept_category",
    "concept_domain", "parent", *DRAWN_BY, "label_iou", "category", "domain",
)  # fmt: skip
"""Coordinates of a Dataset of results, in the order in which it shows them; metrics of snapshots follow."""

RESULT = frozenset({*DISSECTION, *COORDINATES, "iou", "complete", "layer_name"})
"""Every name that a Dataset of results uses, which a snapshot's metric must not have."""

LABEL_SIDE = 65_535
"""Largest side of a label map in pixels: the counting loop stores a column number in 16 bits."""


def _all_units(dims: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("all_units" if dim == "unit" else dim for dim in dims)


def _names(dim: str, meaning: str) -> Variable:
    return Variable(dim, (dim,), "string", "1", meaning)


_CONCEPTS = (
    Variable("concept", ("concept",), "int64", "1", "concept numbers, ascending"),
    Variable("concept_name", ("concept",), "string", "1", "name of the concept"),
    Variable("concept_category", ("concept",), "string", "1", "its primary category, in which it competes"),
    Variable("concept_domain", ("concept",), "string", "1", "its domain, over whose images its union is summed"),
    Variable("parent", ("concept",), "int64", "1", "number of the concept that it is a part of, 0 = none"),
    Variable(
        "label_source",
        ("concept",),
        "string",
        "1",
        "human, predicted or mixed: who drew its labels; absent if all human",
    ),
    Variable(
        "label_intersection", ("concept",), "int64", "label pixels", "predicted and drawn by people; absent as above"
    ),
    Variable(
        "label_union",
        ("concept",),
        "int64",
        "label pixels",
        "predicted or drawn by people, in images that people annotated for it; 0 = not known; absent as above",
    ),
    _names("category", "categories that have concepts"),
    _names(
        "domain",
        "domains: categories, those among some sets of a merged probe, or single concepts that images are verified for",
    ),
)


@dataclass(frozen=True)
class Group:
    """One kind of Zarr group in a store."""

    path: str
    """in the store; names in angle brackets stand for those of the run"""
    variables: tuple[Variable, ...]
    """coordinates first"""
    attributes: Mapping[str, str]
    """name -> meaning"""


_VERSION = {"schema_version": "version of this layout; another one is refused"}

STORES: Mapping[str, tuple[Group, ...]] = {
    "probe.zarr": (
        Group(
            "/",
            (
                _names("image", "path of the image below `root`"),
                Variable("split", ("image",), "string", "1", "split of the image, such as train"),
                Variable("plane_category", ("plane",), "string", "1", "category whose labels the plane holds"),
                *_CONCEPTS,
                *PROBE.values(),
                *RUNS.values(),
                IGNORED,
            ),
            _VERSION
            | {
                "parameters": "how the label set was read: layout, tables, subset, crop, images left out",
                "label_size": "rows and columns of the label grid",
                "most_runs": "runs of the image that has most",
                "has_ignored": "whether the variable `ignored` is there",
                "root": "folder of the images, relative to the store's where they lie in it; of a merged probe one for "
                "each set, by name",
                "turned": "image -> EXIF orientation that its pixels are turned by; others are read as stored",
                "images_sha256": "of the images' names and pixels, of `turned`, and of the crop if there is one",
                "names_sha256": "of the images' names, in order",
            },
        ),
    ),
    "activations.zarr": (
        Group(
            "/",
            (_names("image", "names of the images, as in the probe"),),
            _VERSION | {"names_sha256": "of the images' names, in order"},
        ),
        Group(
            "/<snapshot>",
            tuple(
                Variable(name, ("image", "all_units"), ACTIVATIONS[name].dtype, "1", ACTIVATIONS[name].meaning)
                for name in ("peak", "mean")
            ),
            _VERSION
            | {
                "step": "training step",
                "metrics": "accuracy, loss, ... at this step",
                "inputs": "all that makes the activations: model, weights, code, preprocessing, layers, geometry",
                "batch": "images of a forward pass",
                "weights_said": "how the weights were found in their file: key, what was taken off names, passed over",
                "request_sha256": "of what was asked for, as far as it is known without the model",
                "tail": "how bounds were chosen: largest fraction, margin, images sampled, the layers kept dense, and "
                "whether all cells of the others are kept, too; absent where all layers are dense",
            },
        ),
        Group(
            "/<snapshot>/tails",
            tuple(replace(one, dims=_all_units(one.dims)) for one in TAIL.values()),
            {},
        ),
        Group(
            "/<snapshot>/tails/again/<part>",
            tuple(replace(one, dims=_all_units(one.dims)) for one in TAIL.values()),
            {},
        ),
        Group(
            "/<snapshot>/<layer>",
            (_names("unit", "ids `<layer>/<channel>`"), ACTIVATIONS["activation"]),
            _VERSION
            | {
                "layout": "the dims of `activation`",
                "columns": "first and last (excluded) of its units in the snapshot's `peak` and `mean`; null where "
                "the layer was written by itself and has arrays of these names, with the dim `unit`",
                "images_sha256": "the probe's, for activations that were extracted from it",
                "input_size": "height and width of the model's input",
                "geometry": "for y and x: jump, start and receptive field, as fractions in text; or null",
                "geometry_reason": "why there is no geometry, or null",
                "geometry_measured": "where the geometry was measured, not traced: the tap (`at`), and the pixels "
                "between it and the centroid of a cell's gradient, at most (`residual`)",
                "tensor_layout": "what the axes of the model's own tensor were; absent where it was maps already",
                "impulse_test": "what a changed patch of an image said of that layout; absent where none was needed",
                "tail": "of a layer whose tail is stored: its number among the snapshot's layers, the largest "
                "fraction, images of a block, shape, dtype and chunk of its maps, whether it has `activation`, too",
            },
        ),
        Group(
            "/<snapshot>/<layer>@<basis>",
            (_names("unit", "ids `<layer>@<basis>/<row>`"), *DERIVED.values()),
            _VERSION
            | {
                "source": "the recorded layer that it is derived from",
                "source_sha256": "fingerprint of that layer's activations",
                "basis": "kind and parameters of the basis",
                "relu": "whether negative values become 0",
                "dtype": "what derived values are rounded to",
                "matrix_sha256": "of the matrix and the bias",
            },
        ),
    ),
    "dissection.zarr": (
        Group(
            "/",
            (
                Variable("fraction", ("fraction",), "float64", "1", "shares of activations above the threshold"),
                *_CONCEPTS,
                *(variable for variable in DISSECTION.values() if variable.name not in PER_UNIT),
            ),
            _VERSION
            | {
                "probe_sha256": "of the probe: labels, images and parameters",
                "fractions": "as the coordinate",
                "anchoring": "`receptive_field` or `half_pixel`, as asked for",
                "domain": "`annotated`, `touched` or `all`",
            },
        ),
        Group("/<snapshot>", (), _VERSION | {"step": "training step", "metrics": "accuracy, loss, ... at this step"}),
        Group(
            "/<snapshot>/<layer>",
            (_names("unit", "ids `<layer>/<channel>`"), *(DISSECTION[name] for name in PER_UNIT)),
            _VERSION
            | {
                "position": "of the layer in the model",
                "activations_sha256": "fingerprint of the activations",
                "anchoring_used": "the anchoring of this layer",
                "anchoring_reason": "why it is not the one asked for, or null",
                "derived": "of a derived layer: `layer`, `basis`, `matrix_sha256` and `dtype`; absent in others",
            },
        ),
    ),
}
"""Store -> its groups. A group's attribute `coordinates` lists variables that are coordinates but no dim's own."""


def layer_path(snapshot: str, layer: str) -> str:
    """The path of a layer's group. What a path cannot hold is written as ``%`` and two hexadecimal digits.

    Examples
    --------
    >>> layer_path("last", "layer4.1.conv2"), layer_path("last", "inception_4e/output")
    ('last/layer4.1.conv2', 'last/inception_4e%2Foutput')
    """
    escaped = re.sub(r"^\.|^_(?=_)|[%/\\\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", layer)
    return f"{snapshot}/{escaped}"


def layer_of(path: str) -> str:
    """The layer whose group, or any path below it, this is: the second part of the path.

    Examples
    --------
    >>> layer_of("last/inception_4e%2Foutput/activation")
    'inception_4e/output'
    """
    return unquote(path.split("/")[1])


def check_version(attrs: Mapping[str, Any], where: str) -> None:
    """Raise unless these attributes belong to a store that was written with this schema version.

    Raises
    ------
    DissectError
        With the version found and the version expected.
    """
    found = attrs.get("schema_version")
    if found != SCHEMA_VERSION:
        raise DissectError(
            f"{where}: schema_version was {found}, is {SCHEMA_VERSION}: another version of this package wrote this "
            "store. Compute it again with this version, or read it with the version that wrote it."
        )


def check(data: xr.Dataset, table: dict[str, Variable], names: Iterable[str], where: str) -> None:
    """Raise unless `data` holds the variables `names` of `table` with their dims.

    Raises
    ------
    DissectError
        Naming the store, the variable, what was expected and what came.
    """
    for name in names:
        if name not in data:
            raise DissectError(
                f"{where}: expected a variable '{name}' {table[name].dims}, found {sorted(map(str, data))}."
            )
        if data[name].dims != table[name].dims:
            raise DissectError(f"{where}: expected '{name}' with dims {table[name].dims}, found {data[name].dims}.")


def to_json(numbers: Mapping[str, float]) -> dict[str, float | str]:
    """Named numbers as strict JSON holds them: NaN and infinities are spelled as Zarr spells such fill values.

    Examples
    --------
    >>> to_json({"loss": float("nan"), "accuracy": 0.5, "scale": float("-inf")})
    {'loss': 'NaN', 'accuracy': 0.5, 'scale': '-Infinity'}
    """
    return {name: float(value) if math.isfinite(value) else _spelled(value) for name, value in numbers.items()}


def from_json(stored: Mapping[str, float | str]) -> dict[str, float]:
    """The numbers that `to_json` was given.

    >>> from_json({"loss": "NaN", "accuracy": 0.5, "scale": "-Infinity"})
    {'loss': nan, 'accuracy': 0.5, 'scale': -inf}
    """
    return {name: float(value) for name, value in stored.items()}


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
