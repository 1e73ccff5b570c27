"""The causal role of units: what a network no longer recognises when units of a layer are ablated.

Knows: the inputs that must fit each other, the variables of the result, what is derived from them.
Does not know: what is ablated when (`ablation_counts`), how a network is replayed (`replay`), or figures.

References
----------
Bau, Zhu, Strobelt, Lapedriza, Zhou, Torralba: Understanding the role of individual units in a deep neural network, PNAS
2020, figures 3 and 4.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.class_scores import SCORES, class_scores, losses
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.results import Result, open_result
from dissect_xr.experiments.unit_concepts import (
    UNIT_VARIABLES,
    RunStores,
    dissection_fingerprint_of,
    unit_concepts,
)
from dissect_xr.experiments.unit_orders import SIZES, ranked
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.schema import Variable

KIND = "ablation"

_COUNTS = ("split", "class"), ("split", "unit", "class"), ("order", "ablated", "size", "class")

VARIABLES = UNIT_VARIABLES | {
    one.name: one
    for one in (
        Variable("class", ("class",), "string", "1", "the network's outputs, in their order"),
        Variable("split", ("split",), "string", "1", "the split that units are ranked on, and the one measured on"),
        Variable("order", ("order",), "string", "1", "how units are ordered"),
        Variable("ablated", ("ablated",), "string", "1", "the first units of an order, or all but them"),
        Variable("size", ("size",), "int64", "1", "how many units are the first"),
        Variable("place", ("place",), "int64", "1", "place in an order, from 0"),
        Variable("class_images", _COUNTS[0], "int64", "images", "images of each class"),
        Variable("true_positives", _COUNTS[0], "int64", "images", "images of the class that are predicted as it"),
        Variable("predicted", _COUNTS[0], "int64", "images", "images that are predicted as the class"),
        Variable("true_positives_without", _COUNTS[1], "int64", "images", "the same with the unit ablated"),
        Variable("predicted_without", _COUNTS[1], "int64", "images", "the same with the unit ablated"),
        Variable("true_positives_curve", _COUNTS[2], "int64", "images", "with several units ablated; -1: not measured"),
        Variable("predicted_curve", _COUNTS[2], "int64", "images", "with several units ablated; -1: not measured"),
        Variable("unit_order", ("order", "class", "place"), "int64", "channel", "the most important units; -1: none"),
        Variable("level", ("unit",), "float32", "1", "what an ablated map is set to"),
    )
}
"""What the result holds."""


@dataclass(frozen=True)
class Ablation:
    """What is asked."""

    layer: str
    snapshot: str
    ranked_on: str = "train"
    """split whose losses order the units"""
    measured_on: str = "val"
    """split that the curves are measured on"""
    level: Literal["zero", "mean"] = "zero"
    """what an ablated map is set to: 0, or the unit's mean activation on the ranking split"""
    sizes: tuple[int, ...] = SIZES
    """numbers of units of the curves by single losses; those above the layer's units are left out"""
    curves: tuple[str, ...] | None = None
    """classes that have curves; None for all that both splits have images of"""
    greedy: int = 0
    """number of units to choose greedily, for each class with a curve; costs a replay per unit, class and step"""
    fraction: float | None = None
    """of the dissection whose IoU is joined; None for its first"""

    def __post_init__(self) -> None:
        if self.ranked_on == self.measured_on:
            raise DissectError(
                f"ablation of {self.layer}: units would be ranked and measured on the same images ({self.ranked_on}), "
                "and the most important ones would look more so than they are. Name two splits."
            )
        if wrong := [size for size in (*self.sizes, *([self.greedy] if self.greedy else [])) if size < 1]:
            raise DissectError(f"ablation of {self.layer}: expected numbers of units of at least 1, got {wrong[0]}.")
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))


def ablation(
    url: store.Url,
    run: RunStores,
    labelled: Labelled,
    network: Network,
    question: Ablation,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """The causal role of a layer's units, computed and written to `url`; what is finished there is kept.

    Parameters
    ----------
    url
        The experiment's store.
    run
        The run whose dissection says what the units detect; where it has not dissected the layer, IoU is NaN.
    labelled
        Images with classes, in the order of the network's scores, in at least two splits.
    network
        The snapshot's model. Results are of one `batch` and one number of torch threads; apart from these they are the
        same for every pool.
    question
        Layer, splits, and what is ablated.

    Returns
    -------
    xr.Dataset
        As `open_ablation` gives it.

    Raises
    ------
    DissectError
        If the inputs do not fit each other, or the store holds a result from others.
    """
    url = store.as_url(url)
    _check_labels(labelled, question)
    splits = labelled.of(question.ranked_on), labelled.of(question.measured_on)
    dissected = dissection_fingerprint_of(run, question.snapshot, question.layer)
    result = Result(url, KIND, _inputs(labelled, network, question, dissected))
    if not result.is_finished():
        _compute(result, run, splits, network, question, pool or Threads(), show)
    return open_ablation(url)


def _compute(
    result: Result,
    run: RunStores,
    splits: tuple[Labelled, Labelled],
    network: Network,
    question: Ablation,
    pool: Pool,
    show: bool,
) -> None:
    """Compute and write the result."""
    # Not above: with them comes torch, which opening a finished result does not need.
    from dissect_xr.experiments.ablation_counts import ablation_counts
    from dissect_xr.experiments.replay.passes import Passes, looked_at

    looked = looked_at(network, question.layer, splits[0], pool=pool)
    _check_weights(run, question.snapshot, looked.weights)
    concepts, fraction = unit_concepts(run, question.snapshot, question.layer, looked.units, fraction=question.fraction)
    result.begin()
    ds, names = ablation_counts(Passes(result, network, question.layer, looked, pool, show), question, splits)
    attrs = {
        "weights_sha256": looked.weights,
        "replayed": "what follows the layer" if looked.whole is None else "the whole network",
        "replayed_reason": looked.whole,
        "joined_fraction": fraction,
    }
    result.finish(ds.merge(concepts), VARIABLES, passes=names, attrs=attrs)


def open_ablation(url: store.Url) -> xr.Dataset:
    """A finished ablation: the stored counts, lazy, and what follows from them.

    Derived are ``accuracy``, ``balanced_accuracy``, ``precision`` and ``recall`` (split, class); the same with each
    unit ablated, ``..._without`` (split, unit, class); ``importance`` (split, unit, class), the drop of balanced
    accuracy without the unit; and ``curve`` (order, ablated, size, class), the balanced accuracy on the second split
    with several units ablated. NaN where a class has no images, or nothing was measured.
    """
    ds = open_result(url, KIND)
    images = ds["class_images"].sum("class")
    before = class_scores(ds["true_positives"], ds["predicted"], ds["class_images"], images=images)
    counts = ds["true_positives_without"], ds["predicted_without"]
    without = class_scores(*counts, ds["class_images"], images=images).transpose("split", "unit", "class")
    measured = ds["class_images"].isel(split=1, drop=True)
    counts = ds["true_positives_curve"], ds["predicted_curve"]
    curve = class_scores(*counts, measured, images=measured.sum("class"))["balanced_accuracy"]
    importance = before["balanced_accuracy"] - without["balanced_accuracy"]
    return ds.assign(
        {name: before[name] for name in SCORES}
        | {f"{name}_without": without[name] for name in SCORES}
        | {"importance": importance.transpose("split", "unit", "class"), "curve": curve}
    )


def important_classes(ds: xr.Dataset, *, most: int = 4) -> xr.DataArray:
    """The number of classes for which a unit is among the `most` most important, (unit) int64; computes.

    By the order of single losses, of which units without a loss are left out. Together with ``iou(unit)`` it answers
    whether units with a concept matter to more classes.

    Parameters
    ----------
    ds
        From `open_ablation`.
    """
    first = ds.isel(split=0)
    names = ("true_positives", "predicted")
    before, after = ([first[f"{name}{end}"].values for name in names] for end in ("", "_without"))
    lost = losses(
        (before[0], before[1]), (after[0], after[1]), first["class_images"].values, int(first["class_images"].sum())
    )
    order = ranked(lost)[:, :most]
    counted = np.take_along_axis(lost.T, order, axis=1) > 0
    found = np.bincount(order[counted], minlength=ds.sizes["unit"])
    attrs = {"long_name": f"classes for which the unit is among the {most} most important"}
    return xr.DataArray(found.astype(np.int64), {"unit": ds["unit"]}, "unit", name="important_classes", attrs=attrs)


def _check_labels(labelled: Labelled, question: Ablation) -> None:
    if not labelled.outputs:
        raise DissectError(
            f"ablation of {question.layer}: which class is which score of the network is not known. Give `outputs`: "
            "the names of the classes in the order of the network's scores."
        )
    for name in question.curves or ():
        if name not in labelled.classes:
            raise DissectError(f"curves: '{name}' is no class; there are {', '.join(labelled.classes[:8])}, ...")
        counts = [labelled.of(split).counts for split in (question.ranked_on, question.measured_on)]
        if not all(count[labelled.classes.index(name)] for count in counts):
            raise DissectError(
                f"curves: class '{name}' needs images in both splits, {question.ranked_on} and {question.measured_on}. "
                "Leave it out, or label some."
            )


def _check_weights(run: RunStores, snapshot: str, weights: str) -> None:
    """Raise if the run's activations of this snapshot were made by other weights."""
    if not store.exists(run.activations, snapshot):
        return
    recorded = store.read_attrs(run.activations, snapshot).get("inputs", {}).get("weights_sha256", weights)
    if recorded != weights:
        raise DissectError(
            f"{run.activations}: snapshot {snapshot} was recorded with the weights {recorded[:12]}, the network has "
            f"{weights[:12]}. Name the snapshot of these weights."
        )


def _inputs(labelled: Labelled, network: Network, question: Ablation, dissected: str | None) -> dict[str, Any]:
    return {
        "snapshot": question.snapshot,
        "layer": question.layer,
        "network": network.inputs,
        "ranked_on": question.ranked_on,
        "measured_on": question.measured_on,
        "labels": labelled.parameters,
        "level": question.level,
        "sizes": list(question.sizes),
        "curves": None if question.curves is None else list(question.curves),
        "greedy": question.greedy,
        "fraction": question.fraction,
        "dissection_sha256": dissected,
    }
