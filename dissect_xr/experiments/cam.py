"""Where is the class? Class activation maps of a layer, boxes drawn from them, and whether they lie on the object.

Knows: that a map is the sum of a layer's maps times the weights of a class, which images have objects.
Does not know: how weights were found (`classes`), how boxes are drawn (`localisation.boxes`), or figures.

The map of an image is that of its own class, whatever the network says: so the object is looked for with the class
known, and the top-1 figure of the papers follows, since an image of a wrong class is never localised there.

References
----------
Zhou et al. 2016, Learning deep features for discriminative localization.
Zhang et al. 2016, Top-down neural attention by excitation backprop: the pointing game.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import View
from dissect_xr.experiments.explanation import weights_and_view
from dissect_xr.experiments.localisation.class_concepts import Concepts, concepts_of_classes
from dissect_xr.experiments.localisation.maps import (
    PATH,
    SIDES,
    MapTask,
    images_of_task,
    map_arrays,
    map_block,
    memory_of_task,
)
from dissect_xr.experiments.localisation.scores import located
from dissect_xr.experiments.results import Result, compute_pass, open_result
from dissect_xr.experiments.unit_concepts import RunStores, dissection_fingerprint_of
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.schema import Variable

KIND = "cam"

RULE = "paper-2016"
"""How boxes are drawn (docs/experiments/cam.md)."""

SHARE = 0.2
"""Of a map's maximum, above which its cells are high: the paper's."""

VARIABLES = {
    one.name: one
    for one in (
        Variable("image", ("image",), "string", "1", "names of the images, in the probe's order"),
        Variable("image_index", ("image",), "int64", "1", "place of the image in the probe"),
        Variable("class", ("class",), "string", "1", "the classes"),
        Variable("concept", ("class",), "int64", "1", "number of the class's concept, 0 where it has none"),
        Variable("concept_name", ("class",), "string", "1", "name of the class's concept"),
        Variable("side", ("side",), "string", "1", "sides of a box, which is half-open"),
        Variable("label", ("image",), "int64", "1", "index of the image's class, whose map it is"),
        Variable("prediction", ("image",), "int64", "1", "index of the class that it is given"),
        Variable("score", ("image",), "float64", "1", "the score of its class"),
        Variable("box", ("image", "side"), "int64", "label pixels", "box of the map, -1 where it is nowhere above 0"),
        Variable("object_box", ("image", "side"), "int64", "label pixels", "box of the object, -1 where there is none"),
        Variable("object_pixels", ("image",), "int64", "label pixels", "pixels of the concept of the image's class"),
        Variable("pointed", ("image",), "bool", "1", "the map's maximum lies inside the object's pixels"),
    )
}
"""What the result holds, beside ``map``, which stays where its pass wrote it."""


@dataclass(frozen=True)
class Cam:
    """What is asked."""

    concepts: Concepts = None
    """class -> its concept, or a CSV file; classes that are not named have the concept of their own name"""
    share: float = SHARE
    """of a map's maximum, above which its cells are high"""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise DissectError(f"cam: expected a share of the map's maximum in [0, 1), got {self.share}.")


def cam(
    url: store.Url,
    run: RunStores,
    classes: store.Url,
    question: Cam | None = None,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """Class activation maps of images and how their boxes lie, computed and written to `url`; what is finished is kept.

    The images are those that the weights were measured on. Memory of a task: a chunk of maps, its labels, and about
    8 MiB of class activation maps.

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
        As `open_cam` gives it.

    Raises
    ------
    DissectError
        If the weights are of other activations, a class has no concept, no image shows an object of its class, or the
        store holds a result from others.
    """
    url, question, pool = store.as_url(url), question or Cam(), pool or Threads()
    weights, view = weights_and_view(classes, run, None)
    if view.layer.cells == 1:
        raise DissectError(
            f"cam of {view.layer.path}: its maps have one cell each, which says nothing of where. Do the experiment "
            "of classes on the last layer before the pooling."
        )
    weights = _measured(weights, run)
    concepts = _concepts(weights, run, question)
    done = store.marker(store.as_url(classes), "done")
    assert done is not None  # it has been opened
    inputs = {
        "snapshot": weights.attrs["snapshot"],
        "layer": weights.attrs["layer"],
        "rule": RULE,
        "share": question.share,
        "concepts": {name: number for name, (number, _) in zip(_names(weights), concepts, strict=True) if number},
        "classes_sha256": done["fingerprint"],
        "dissection_sha256": dissection_fingerprint_of(run, weights.attrs["snapshot"], weights.attrs["layer"]),
        "probe_sha256": view.labels.fingerprint,
    }
    result = Result(url, KIND, inputs)
    if not result.is_finished():
        memory_of_task(view, weights.sizes["class"]).check(pool.memory, f"cam of {view.layer.path}")
        result.begin()
        work = _Work(result, view, store.as_url(classes), weights, [number for number, _ in concepts])
        work.maps(question.share, pool, show)
        result.finish(work.found(concepts), VARIABLES, passes=[PATH], attrs={"measured_on": _split(weights)})
    return open_cam(url)


def open_cam(url: store.Url) -> xr.Dataset:
    """A finished result: maps, boxes, and how well the objects of each class are localised; lazy.

    Derived are ``box_iou`` and ``localised`` (image): an IoU of at least 0.5 with the object's box. Of the images of a
    class that show an object of it, ``object_images`` (class) many, ``localisation_accuracy`` is the share that is also
    predicted rightly, ``known_localisation`` the share that is localised whatever the prediction, and ``pointing`` the
    share whose map has its maximum inside the object.
    """
    ds = open_result(url, KIND)
    ds = ds.assign(map=store.open_lazy(store.as_url(url), PATH)["map"].variable)
    return ds.assign(located(ds).data_vars)


@dataclass(frozen=True)
class _Work:
    """A result under way."""

    result: Result
    view: View
    classes: str
    weights: xr.Dataset
    concepts: list[int]

    def maps(self, share: float, pool: Pool, show: bool) -> None:
        """Compute the pass."""
        ds, shape = self.weights, self.view.labels.shape[2:]
        names, index, label = (ds[name].values.tolist() for name in ("image", "image_index", "label"))
        step = images_of_task(shape)

        def task(first: int, fingerprint: str) -> MapTask:
            here = slice(first, first + step)
            return MapTask(
                self.result.url, self.view, self.classes, first, tuple(names[here]), tuple(index[here]),
                tuple(label[here]), tuple(self.concepts[one] for one in label[here]), share, fingerprint,
            )  # fmt: skip

        def make(fingerprint: str) -> list[MapTask]:
            return [task(first, fingerprint) for first in range(0, len(names), step)]

        arrays = map_arrays(len(names), shape)
        compute_pass(self.result, PATH, {}, make, map_block, arrays=arrays, pool=pool, show=show)

    def found(self, concepts: list[tuple[int, str]]) -> xr.Dataset:
        """What the result holds."""
        ds = self.weights
        names = ("score", "object_pixels", "pointed", "box", "object_box")
        values: dict[str, Any] = {name: store.read(self.result.url, f"{PATH}/{name}")[:] for name in names}
        if not values["object_pixels"].any():
            raise DissectError(
                f"cam: none of the {ds.sizes['image']} images has a pixel of the concept of its class in "
                f"{self.view.labels.url}. Name concepts that are drawn in the images in `concepts`."
            )
        columns = {name: ds[name].values for name in ("image_index", "label", "prediction")}
        return boxes_of_images(values | columns, ds["image"].values, _names(ds), concepts)


def boxes_of_images(
    values: Mapping[str, Any], images: Any, classes: Sequence[str], concepts: Sequence[tuple[int, str]]
) -> xr.Dataset:
    """What a result holds: values of each image, and the classes with the number and name of their concepts."""
    return xr.Dataset(
        {name: (("image", "side") if value.ndim == 2 else "image", value) for name, value in values.items()},
        {
            "image": np.asarray(images),
            "class": np.asarray(classes),
            "concept": ("class", np.array([number for number, _ in concepts], np.int64)),
            "concept_name": ("class", np.array([name for _, name in concepts], dtype=np.str_)),
            "side": np.array(SIDES),
        },
    )


def _measured(weights: xr.Dataset, run: RunStores) -> xr.Dataset:
    """The images that the weights were measured on, in the probe's order, with their ``image_index``; in memory."""
    weights = weights[["label", "prediction", "class"]].load()
    ds = weights.isel(image=np.flatnonzero(weights["image_split"].values == _split(weights)))
    places = {name: n for n, name in enumerate(store.read(run.probe, "image")[:].tolist())}
    index = np.array([places[name] for name in ds["image"].values.tolist()], np.int64)
    return ds.assign(image_index=("image", index)).isel(image=np.argsort(index))


def _split(weights: xr.Dataset) -> str:
    return str(weights.attrs["measured_on"])


def _names(weights: xr.Dataset) -> list[str]:
    return [str(name) for name in weights["class"].values]


def _concepts(weights: xr.Dataset, run: RunStores, question: Cam) -> list[tuple[int, str]]:
    names = _names(weights)
    needed = [names[n] for n in np.unique(weights["label"].values).tolist()]
    return concepts_of_classes(run.probe, names, question.concepts, needed=needed)
