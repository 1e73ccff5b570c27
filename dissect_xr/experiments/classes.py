"""What a class uses: linear weights of a layer's units for each class, beside what the units detect.

Knows: that features are means of maps (`linear.features`), and that weights are fitted or the network's own.
Does not know: how images are classified (`linear.counts`), why a single one is as it is (`explanation`), or figures.

References
----------
Zhou et al. 2017, Interpreting deep visual representations: class-specific units, figure 8.
Bau et al. 2017, section 3.6: C = 0.001.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.class_scores import class_scores
from dissect_xr.experiments.linear.counts import KIND, ClassWork, occurring, position_of
from dissect_xr.experiments.linear.features import Scaling, features_of, scales
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.results import open_result
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.parallel.resources import Projection

CLASSES_OF_TASK = 8
"""Classes that one task fits."""


@dataclass(frozen=True)
class Machines:
    """Linear support vector machines, one class against the rest."""

    layer: str
    snapshot: str
    fitted_on: str = "train"
    measured_on: str = "val"
    c: float = 0.001
    """the paper's; what it means depends on the scale of the features"""
    scaling: Scaling = "none"
    fraction: float | None = None
    """of the dissection whose IoU is joined; None for its first"""

    def __post_init__(self) -> None:
        if not self.c > 0:
            raise DissectError(f"classes of {self.layer}: expected a C above 0, got {self.c}.")
        if self.fitted_on == self.measured_on:
            raise DissectError(
                f"classes of {self.layer}: weights would be fitted and measured on the same images ({self.fitted_on}). "
                "Name two splits."
            )


@dataclass(frozen=True)
class Head:
    """The network's own head: a linear module that takes the means of a layer's maps."""

    head: str
    """name of the module"""
    layer: str
    snapshot: str
    measured_on: str = "val"
    fraction: float | None = None
    """of the dissection whose IoU is joined; None for its first"""


def fitted_classes(
    url: store.Url,
    run: RunStores,
    labelled: Labelled,
    question: Machines,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """Weights of a layer's units for each class, fitted on one split and measured on another; computes and writes.

    What is finished at `url` is kept. Classes are those that occur in the split that weights are fitted on. Memory of a
    task: the features of its images three times in float64.

    Parameters
    ----------
    url
        The experiment's store.
    run
        A run that has kept its activations.
    labelled
        Images of the run's probe with classes, in two splits.

    Returns
    -------
    xr.Dataset
        As `open_classes` gives it.

    Raises
    ------
    DissectError
        If the inputs do not fit each other, or the store holds a result from others.
    """
    labelled = occurring(labelled, question.fitted_on)
    splits = [labelled.of(question.fitted_on), labelled.of(question.measured_on)]
    features = features_of(run, question.snapshot, question.layer, labelled)
    inputs = {"weights": "fitted", "c": question.c, "scaling": question.scaling, "fitted_on": question.fitted_on}
    pool = pool or Threads()
    work = ClassWork(store.as_url(url), run, features, splits, question, inputs, pool, show)
    if not work.result.is_finished():
        from dissect_xr.experiments.linear.weights import FitTask, fit_block  # with it comes torch

        position, label = position_of(splits[0]), splits[0].label
        needed = Projection(
            (("features", 8 * position.size * features.units), ("the fit", 24 * position.size * features.units))
        )
        needed.check(pool.memory, f"classes of {features.layer.path}")
        scale = scales(features, position, question.scaling)
        tables = [
            store.coordinate("position", "sample", position),
            store.coordinate("label", "sample", label),
            store.coordinate("scale", "unit", scale),
        ]

        def make(fingerprint: str) -> list[FitTask]:
            count = len(labelled.classes)
            return [
                FitTask(
                    work.result.url, "weights", features, (n, min(n + CLASSES_OF_TASK, count)), question.c, fingerprint
                )
                for n in range(0, count, CLASSES_OF_TASK)
            ]

        work.weights(make, fit_block, tables, chunk=CLASSES_OF_TASK)
        work.finish(scale)
    return open_classes(work.result.url)


def head_classes(
    url: store.Url,
    run: RunStores,
    labelled: Labelled,
    network: Network,
    question: Head,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """Weights of a layer's units in the network's own head, measured on one split; computes and writes.

    What is finished at `url` is kept. The head must be linear in the means of the layer's maps: its scores of the first
    images are compared with the network's.

    Parameters
    ----------
    labelled
        Images of the run's probe with classes, in the order of the network's scores.
    network
        The snapshot's model.

    Returns
    -------
    xr.Dataset
        As `open_classes` gives it.

    Raises
    ------
    DissectError
        If the inputs do not fit each other, or the store holds a result from others.
    """
    if not labelled.outputs:
        raise DissectError(
            f"classes of {question.layer}: which class is which score of the network is not known. Give `outputs`: the "
            "names of the classes in the order of the network's scores."
        )
    splits = [labelled.of(question.measured_on)]
    features = features_of(run, question.snapshot, question.layer, labelled)
    inputs = {"weights": question.head, "network": network.inputs}
    work = ClassWork(store.as_url(url), run, features, splits, question, inputs, pool or Threads(), show)
    if not work.result.is_finished():
        from dissect_xr.experiments.linear.weights import HeadTask, read_head  # with it comes torch

        first = splits[0].images[: network.recording.batch]
        count = len(labelled.classes)

        def make(fingerprint: str) -> list[HeadTask]:
            common = network, question.head, question.layer, labelled.root.of(first)
            return [HeadTask(work.result.url, "weights", *common, first, count, fingerprint)]

        work.weights(make, read_head, [], chunk=count, gpu=True)
        work.finish(np.ones(features.units))
    return open_classes(work.result.url)


def open_classes(url: store.Url) -> xr.Dataset:
    """A finished result: weights, what the units detect, and how well classes are told apart; lazy.

    Derived are ``accuracy``, ``balanced_accuracy``, ``precision`` and ``recall`` (split, class). The accuracy averaged
    over classes of the papers is ``recall.mean("class")``.
    """
    ds = open_result(url, KIND)
    images = ds["class_images"].sum("class")
    return ds.assign(class_scores(ds["true_positives"], ds["predicted"], ds["class_images"], images=images).data_vars)


def class_specific(ds: xr.Dataset, *, most: int = 3) -> xr.Dataset:
    """The units of the largest weights of each class, (class, rank), with weight, concept and IoU; computes.

    Equal weights are in the order of the units.

    Parameters
    ----------
    ds
        From `open_classes`.
    """
    weight = ds["weight"].transpose("class", "unit").values
    order = np.argsort(-weight, axis=1, kind="stable")[:, :most]
    dims = "class", "rank"
    found = {
        name: (dims, ds[name].values[order]) for name in ("unit", "concept", "concept_name", "concept_category", "iou")
    }
    found["weight"] = dims, np.take_along_axis(weight, order, axis=1)
    return xr.Dataset(found, {"class": ds["class"], "rank": np.arange(order.shape[1])})
