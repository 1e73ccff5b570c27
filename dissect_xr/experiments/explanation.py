"""Why this prediction: the units that speak most for the class of an image, and where in the image they are active.

Knows: what a unit contributes to a score, which images are worth explaining, that masks are those that were counted.
Does not know: how weights were found (`classes`), or how pictures are drawn.

An example: the score of "kitchen" is 0.4 for the oven unit (weight 2, mean 0.2), 0.1 for the sink unit, -0.1 for the
grass unit, and an intercept of 0.05: 0.45 in all. The oven unit comes first; it is drawn where its map lies above its
threshold, with its concept.

References
----------
Zhou et al. 2017, Interpreting deep visual representations, figure 9.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores, View, mask, open_view
from dissect_xr.experiments.classes import open_classes
from dissect_xr.experiments.linear.features import Features
from dissect_xr.experiments.results import Result, compute_pass, open_result
from dissect_xr.experiments.unit_concepts import RunStores, dissection_fingerprint_of, fraction_of, unit_concepts
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.schema import Variable

KIND = "explanation"

_EACH = ("image", "rank")

VARIABLES = {
    one.name: one
    for one in (
        Variable("image", ("image",), "string", "1", "names of the explained images"),
        Variable("image_index", ("image",), "int64", "1", "place of the image in the probe"),
        Variable("label", ("image",), "string", "1", "the image's class"),
        Variable("prediction", ("image",), "string", "1", "the class that it is given"),
        Variable("margin", ("image",), "float64", "1", "the score of that class less the next one"),
        Variable("score", ("image",), "float64", "1", "the score of that class"),
        Variable("intercept", ("image",), "float64", "1", "what of the score is due to no unit"),
        Variable("others", ("image",), "float64", "1", "what of the score is due to units that are not listed"),
        Variable("rank", ("rank",), "int64", "1", "place of a unit, from 0"),
        Variable("unit", _EACH, "string", "1", "the units that contribute most to the score"),
        Variable("contribution", _EACH, "float64", "1", "weight times scaled mean activation in the image"),
        Variable("concept", _EACH, "int64", "1", "number of the unit's label, 0 where it has none"),
        Variable("concept_name", _EACH, "string", "1", "name of the unit's label"),
        Variable("concept_category", _EACH, "string", "1", "category of the unit's label"),
        Variable("iou", _EACH, "float64", "1", "IoU of the unit with its label, NaN where it has none"),
        Variable("mask", (*_EACH, "row", "col"), "bool", "1", "label pixels above the unit's threshold"),
    )
}
"""What the result holds."""


@dataclass(frozen=True)
class Explanation:
    """What is asked."""

    right: int = 4
    """images that are predicted rightly, of those measured on"""
    wrong: int = 4
    """images that are predicted wrongly"""
    images: tuple[str, ...] | None = None
    """names of the images to explain instead"""
    units: int = 5
    """units of each image"""
    fraction: float | None = None
    """of the dissection whose thresholds and IoU are shown; None for its first"""

    def __post_init__(self) -> None:
        if self.units < 1 or min(self.right, self.wrong) < 0 or (self.images is None and self.right + self.wrong < 1):
            raise DissectError(
                f"explanation: expected at least one image and one unit, got right={self.right}, wrong={self.wrong}, "
                f"units={self.units}."
            )


def explanation(
    url: store.Url,
    run: RunStores,
    classes: store.Url,
    question: Explanation | None = None,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """Why images are predicted as they are, computed and written to `url`; what is finished there is kept.

    Images are chosen among those that the weights were measured on: in turn one of each class, those of the largest
    margin first, some that are predicted rightly and some that are not.

    Parameters
    ----------
    url
        The experiment's store.
    run
        A run that has kept its activations.
    classes
        The finished experiment of classes (`classes`) whose weights are used.

    Returns
    -------
    xr.Dataset
        ``unit``, ``contribution``, ``concept_name``, ``iou`` (image, rank), the units' ``mask`` (image, rank, row, col)
        on the label grid, and the image's ``label``, ``prediction`` and ``score``: the sum of the contributions listed,
        of ``others``, and of the ``intercept``.

    Raises
    ------
    DissectError
        If the weights are of other activations, or the store holds a result from others.
    """
    url, question, pool = store.as_url(url), question or Explanation(), pool or Threads()
    weights, view = weights_and_view(classes, run, question.fraction)
    snapshot, layer = weights.attrs["snapshot"], weights.attrs["layer"]
    asked = {
        "right": question.right,
        "wrong": question.wrong,
        "images": None if question.images is None else list(question.images),
        "units": question.units,
        "fraction": question.fraction,
    }
    done = store.marker(store.as_url(classes), "done")
    assert done is not None  # it has been opened
    inputs = asked | {"classes_sha256": done["fingerprint"], "dissection_sha256": weights.attrs["dissection_sha256"]}
    result = Result(url, KIND, inputs | {"snapshot": snapshot, "layer": layer})
    if not result.is_finished():
        result.begin()
        ds = _explained(weights.load(), view, question, run)
        masks = _masks(result, view, ds, pool, show)
        concepts, fraction = unit_concepts(run, snapshot, layer, view.layer.shape[1], fraction=question.fraction)
        chosen = ds["channel"].values
        for name in ("unit", "concept", "concept_name", "concept_category", "iou"):
            ds[name] = _EACH, concepts[name].values[chosen]
        ds["mask"] = (*_EACH, "row", "col"), masks
        result.finish(ds.drop_vars("channel"), VARIABLES, passes=["masks"], attrs={"joined_fraction": fraction})
    return open_explanation(url)


def open_explanation(url: store.Url) -> xr.Dataset:
    """A finished explanation, as it is stored; lazy."""
    return open_result(url, KIND)


def chosen_images(weights: xr.Dataset, question: Explanation) -> NDArray[np.int64]:
    """Indices along ``image`` of the images to explain: those named, or some right and some wrong ones."""
    names = weights["image"].values.tolist()
    if question.images is not None:
        if unknown := [name for name in question.images if name not in names]:
            raise DissectError(
                f"explanation: image '{unknown[0]}' was not classified. Name labelled images, as {names[0]}."
            )
        return np.array([names.index(name) for name in question.images], np.int64)
    label, right = weights["label"].values, (weights["label"] == weights["prediction"]).values
    measured = weights["image_split"].values == weights["split"].values[-1]
    found = [
        _in_turn(np.flatnonzero(measured & (right == wanted)), label, weights["margin"].values)[:count]
        for wanted, count in ((True, question.right), (False, question.wrong))
    ]
    return np.concatenate(found).astype(np.int64)


def _in_turn(images: NDArray[np.intp], label: NDArray[np.int64], margin: NDArray[np.float64]) -> NDArray[np.intp]:
    """The images, one of each class in turn, those of the largest margin first.

    >>> _in_turn(np.array([0, 1, 2]), np.array([7, 7, 8]), np.array([0.5, 0.9, 0.1])).tolist()
    [1, 2, 0]
    """
    images = images[np.argsort(-margin[images], kind="stable")]
    seen, turn = Counter[int](), np.empty(images.size, np.int64)
    for n, one in enumerate(label[images].tolist()):
        turn[n] = seen[one]
        seen[one] += 1
    return images[np.argsort(turn, kind="stable")]


def weights_and_view(classes: store.Url, run: RunStores, fraction: float | None) -> tuple[xr.Dataset, View]:
    """A finished experiment of classes, and its layer with the thresholds of a fraction.

    Raises
    ------
    DissectError
        If the layer is not dissected, or the weights are of other activations than the run's.
    """
    weights = open_classes(classes)
    snapshot, layer = weights.attrs["snapshot"], weights.attrs["layer"]
    view = view_of(run, snapshot, layer, fraction)
    if view.layer.fingerprint != weights.attrs["activations_sha256"]:
        raise DissectError(
            f"{store.as_url(classes)}: its weights are of other activations of {snapshot}/{layer} than "
            f"{run.activations} holds. Do the experiment of classes again, under another name."
        )
    return weights, view


def view_of(run: RunStores, snapshot: str, layer: str, fraction: float | None) -> View:
    """The layer with its thresholds; raises where it is not dissected."""
    if dissection_fingerprint_of(run, snapshot, layer) is None:
        raise DissectError(
            f"{run.dissection}: has not dissected {snapshot}/{layer}, whose thresholds say where a unit is active. Add "
            "the layer to the recipe."
        )
    ds = open_dissection(run.dissection).sel(snapshot=snapshot)
    return open_view(ds.sel(fraction=fraction_of(ds, fraction)), Stores(run.activations, run.probe), layer)


def _explained(weights: xr.Dataset, view: View, question: Explanation, run: RunStores) -> xr.Dataset:
    """The images with their scores, and the units that contribute most, (image, rank)."""
    images = weights.isel(image=chosen_images(weights, question))
    if not images.sizes["image"]:
        raise DissectError(
            "explanation: none of the images that were measured on is predicted rightly, or none wrongly, as was asked "
            "for. Name images."
        )
    places = {name: n for n, name in enumerate(store.read(run.probe, "image")[:].tolist())}
    index = np.array([places[name] for name in images["image"].values.tolist()], np.int64)
    prediction = images["prediction"].values
    features = Features(view.layer).of(index) / weights["scale"].values
    every = features * weights["weight"].transpose("class", "unit").values[prediction]
    channel = np.argsort(-every, axis=1, kind="stable")[:, : question.units]
    contribution = np.take_along_axis(every, channel, axis=1)
    intercept, names = weights["intercept"].values[prediction], weights["class"].values
    return xr.Dataset(
        {
            "image_index": ("image", index),
            "label": ("image", names[images["label"].values]),
            "prediction": ("image", names[prediction]),
            "margin": ("image", images["margin"].values),
            "score": ("image", every.sum(axis=1) + intercept),
            "intercept": ("image", intercept),
            "others": ("image", every.sum(axis=1) - contribution.sum(axis=1)),
            "contribution": (_EACH, contribution),
            "channel": (_EACH, channel.astype(np.int64)),
        },
        {"image": images["image"].values, "rank": np.arange(channel.shape[1], dtype=np.int64)},
    )


@dataclass(frozen=True)
class MaskTask:
    """One image, in which some units are drawn."""

    url: str
    path: str
    view: View
    image: str
    index: int
    """in the probe"""
    place: int
    """among the explained images"""
    channels: tuple[int, ...]
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{self.path}/blocks/{self.place}-{self.place + 1}"

    @property
    def images(self) -> tuple[str, ...]:
        """The one image."""
        return (self.image,)

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"masks of {self.view.layer.path}, image {self.image}"


def mask_image(task: MaskTask) -> None:
    """Write the masks of some units in one image, decided as counts are, and the task's marker."""
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    view = task.view
    found = []
    for channel in task.channels:
        values = Maps(view.layer, (channel, channel + 1)).values((task.index, task.index + 1))[0, 0]
        found.append(mask(values, view.thresholds[f"{view.layer.name}/{channel}"], view.rows, view.cols))
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _):
        writer.write(f"{task.path}/mask", (task.place, 0, 0, 0), np.stack(found)[None])


def _masks(result: Result, view: View, ds: xr.Dataset, pool: Pool, show: bool) -> NDArray[np.bool_]:
    """Masks (image, rank, row, col) of the listed units."""
    shape = *ds["channel"].shape, *view.labels.shape[2:]
    array = store.ArraySpec("mask", (*_EACH, "row", "col"), shape, "bool", (1, *shape[1:]))
    rows: list[tuple[Any, ...]] = list(zip(ds["image"].values.tolist(), ds["image_index"].values.tolist(), strict=True))

    def make(fingerprint: str) -> list[MaskTask]:
        return [
            MaskTask(result.url, "masks", view, name, index, n, tuple(ds["channel"].values[n].tolist()), fingerprint)
            for n, (name, index) in enumerate(rows)
        ]

    compute_pass(result, "masks", {}, make, mask_image, arrays=[array], pool=pool, show=show)
    return np.asarray(store.read(result.url, "masks/mask")[:], np.bool_)
