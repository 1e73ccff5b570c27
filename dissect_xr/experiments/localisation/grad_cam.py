"""Where is the class, in any network: maps from gradients, boxes drawn from them, and whether they lie on the object.

Knows: which images have maps, and that the result is read as that of class activation maps (`cam`).
Does not know: gradients (`gradients`) or figures.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments.cam import KIND, RULE, SHARE, VARIABLES, boxes_of_images, open_cam
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.explanation import view_of
from dissect_xr.experiments.localisation.class_concepts import Concepts, concepts_of_classes
from dissect_xr.experiments.localisation.maps import PATH, map_arrays
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.results import Result, compute_pass
from dissect_xr.experiments.unit_concepts import RunStores, dissection_fingerprint_of
from dissect_xr.parallel.pool import Pool, Threads


@dataclass(frozen=True)
class GradCam:
    """What is asked."""

    layer: str
    snapshot: str
    measured_on: str = "val"
    concepts: Concepts = None
    """class -> its concept, or a CSV file; classes that are not named have the concept of their own name"""
    share: float = SHARE
    """of a map's maximum, above which its cells are high"""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise DissectError(f"grad_cam: expected a share of the map's maximum in [0, 1), got {self.share}.")


def grad_cam(
    url: store.Url,
    run: RunStores,
    labelled: Labelled,
    network: Network,
    question: GradCam,
    *,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """Maps of images from the gradients of their classes' scores, and how their boxes lie; computes and writes.

    What is finished at `url` is kept. The result is read as that of `cam`: maps, boxes, shares, failures. Memory of a
    task: a batch of images through the network with its gradients, and their maps on the label grid.

    Parameters
    ----------
    url
        The experiment's store.
    run
        A run that has dissected the layer: its anchoring says where a map's cells lie.
    labelled
        Images of the run's probe with classes, in the order of the network's scores.
    network
        The snapshot's model.

    Returns
    -------
    xr.Dataset
        As :func:`dissect_xr.open_cam` gives it.

    Raises
    ------
    DissectError
        If captum is not installed, a class has no concept, no image shows an object of its class, or the store holds a
        result from others.
    """
    url, pool = store.as_url(url), pool or Threads()
    if not labelled.outputs or labelled.position is None:
        raise DissectError(
            f"grad_cam of {question.layer}: expected images of the probe with classes in the order of the network's "
            "scores. Give `outputs`: the names of the classes in this order."
        )
    view = view_of(run, question.snapshot, question.layer, None)
    chosen = _ordered(labelled.of(question.measured_on))
    needed = [labelled.classes[n] for n in np.unique(chosen.label).tolist()]
    concepts = concepts_of_classes(run.probe, labelled.classes, question.concepts, needed=needed)
    inputs = {
        "method": "grad-cam",
        "snapshot": question.snapshot,
        "layer": question.layer,
        "rule": RULE,
        "share": question.share,
        "concepts": {name: number for name, (number, _) in zip(labelled.classes, concepts, strict=True) if number},
        "labels": chosen.parameters,
        "network": network.inputs,
        "dissection_sha256": dissection_fingerprint_of(run, question.snapshot, question.layer),
        "probe_sha256": view.labels.fingerprint,
    }
    result = Result(url, KIND, inputs)
    if not result.is_finished():
        from dissect_xr.experiments.replay.passes import looked_at  # with it comes torch

        looked = looked_at(network, question.layer, chosen, pool=pool)
        result.begin()
        numbers = [number for number, _ in concepts]
        _maps(result, view, chosen, network, (numbers, question.share, looked.weights), pool, show)
        result.finish(
            _found(result, chosen, concepts), VARIABLES, passes=[PATH], attrs={"measured_on": question.measured_on}
        )
    return open_cam(url)


def _ordered(labelled: Labelled) -> Labelled:
    """The images in the order of the probe."""
    assert labelled.position is not None
    order = np.argsort(labelled.position, kind="stable")
    return replace(
        labelled,
        images=tuple(labelled.images[n] for n in order),
        label=labelled.label[order],
        split=tuple(labelled.split[n] for n in order),
        position=labelled.position[order],
    )


def _maps(
    result: Result, view: Any, chosen: Labelled, network: Network, asked: tuple[list[int], float, str], pool: Pool,
    show: bool,
) -> None:  # fmt: skip
    """Compute the pass."""
    from dissect_xr.experiments.localisation.gradients import (  # with it comes torch
        GradientTask,
        gradient_block,
        predictions_array,
    )

    numbers, share, weights = asked
    assert chosen.position is not None
    step, count = network.recording.batch, len(chosen.images)
    index, label = chosen.position.tolist(), chosen.label.tolist()

    def make(fingerprint: str) -> list[GradientTask]:
        return [
            GradientTask(
                result.url, view, network, chosen.root.of(chosen.images[n : n + step]), n, chosen.images[n : n + step],
                tuple(index[n : n + step]), tuple(label[n : n + step]),
                tuple(numbers[one] for one in label[n : n + step]), len(chosen.classes), share, weights, fingerprint,
            )
            for n in range(0, count, step)
        ]  # fmt: skip

    arrays = [*map_arrays(count, view.labels.shape[2:], step), predictions_array(count, step)]
    compute_pass(
        result, PATH, {}, make, gradient_block, arrays=arrays, pool=pool, show=show, gpu=network.spec.gpus
    )  # fmt: skip


def _found(result: Result, chosen: Labelled, concepts: list[tuple[int, str]]) -> xr.Dataset:
    """What the result holds."""
    names = ("score", "object_pixels", "pointed", "box", "object_box", "prediction")
    values: dict[str, Any] = {name: store.read(result.url, f"{PATH}/{name}")[:] for name in names}
    if not values["object_pixels"].any():
        raise DissectError(
            f"grad_cam: none of the {len(chosen.images)} images has a pixel of the concept of its class. Name concepts "
            "that are drawn in the images in `concepts`."
        )
    columns = {"image_index": chosen.position, "label": chosen.label}
    return boxes_of_images(values | columns, chosen.images, chosen.classes, concepts)
