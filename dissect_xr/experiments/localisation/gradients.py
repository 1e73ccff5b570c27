"""Maps of classes from gradients (Grad-CAM), for networks that do not end in the mean of a layer's maps.

Knows: captum's `LayerGradCam`, and what must not be changed in place while gradients are taken.
Does not know: which images and classes, or how boxes are drawn (`boxes`).

The weight of a unit is the mean over cells of the gradient of the class's score; the map is the sum of the units' maps
times their weights, and 0 where that is negative. Where a network ends in the mean of the layer's maps, that is the
class activation map over the number of cells, without its negative part.

References
----------
Selvaraju et al. 2017, Grad-CAM: Visual explanations from deep networks via gradient-based localization.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dissect_xr import store
from dissect_xr.activations.recording.threads import autocast, torch_threads
from dissect_xr.activations.sources import cached_model
from dissect_xr.activations.taps import taps
from dissect_xr.dissection.labels import read_labels
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import View, upsampled
from dissect_xr.experiments.localisation.maps import PATH, map_arrays, measured
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.replay.predictions import (
    batch_of,
    best_class,
    check_scores,
    check_weights,
    device_of,
    nothing,
)
from dissect_xr.probe.folder import Folder


@dataclass(frozen=True)
class GradientTask:
    """One batch of images, each with the map of its class."""

    url: str
    view: View
    network: Network
    root: Folder
    first: int
    """place of the first image among all that have maps"""
    images: tuple[str, ...]
    index: tuple[int, ...]
    """of each image in the probe"""
    label: tuple[int, ...]
    concept: tuple[int, ...]
    """of each image, the number of the concept whose pixels are the object"""
    classes: int
    share: float
    weights: str
    """sha256 of the weights that were looked at"""
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{PATH}/blocks/{self.first}-{self.first + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"maps from gradients at {self.view.layer.path}, images {self.images[0]} to {self.images[-1]}"


def gradient_block(task: GradientTask) -> None:
    """Write the maps of a batch, predictions, boxes of maps and objects, and the task's marker."""
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    shape, network = task.view.labels.shape[2:], task.network
    model = cached_model(network.spec, device_of(network))
    check_weights(network, task.weights)
    with torch_threads(network.recording.threads), autocast(device_of(network), network.recording.autocast):
        batch = batch_of(network, task.root, task.images)
        scores, maps = gradient_maps(model, task.view.layer.name, batch, task.label, classes=task.classes)
    prediction = best_class(scores, task.images)
    specs = map_arrays(len(task.images), shape, len(task.images))
    found = {spec.name: np.empty(spec.shape, spec.dtype) for spec in specs}
    for n, coarse in enumerate(maps.double().cpu().numpy()):
        fine = upsampled(coarse, task.view.rows, task.view.cols).astype(np.float32)
        if not np.isfinite(fine).all():
            raise DissectError(
                f"{task.view.layer.path}: the map of image '{task.images[n]}' is not finite. Leave out autocast, or "
                "mend the model."
            )
        planes = read_labels(task.view.labels, (task.index[n], task.index[n] + 1))[0][0]
        one: dict[str, Any] = measured(fine, (planes == task.concept[n]).any(axis=0), task.share)
        one |= {"map": fine, "score": float(scores[n, task.label[n]])}
        for name, value in one.items():
            found[name][n] = value
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _):
        writer.write(f"{PATH}/prediction", (task.first,), prediction.astype(np.int64))
        for name, block in found.items():
            writer.write(f"{PATH}/{name}", (task.first,) + (0,) * (block.ndim - 1), block)


def gradient_maps(
    model: nn.Module, layer: str, batch: Tensor, label: Sequence[int], *, classes: int
) -> tuple[Tensor, Tensor]:
    """Scores (image, class), and the map (image, y, x) of each image's class at a layer.

    Raises
    ------
    DissectError
        If captum is not installed, the network gives no scores of so many classes, or the layer no maps.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise DissectError(
            "Maps from gradients need the package captum, which is not installed: pip install "
            "'dissect-xr[attribution]'."
        ) from error
    target = torch.tensor(list(label), device=batch.device)
    with taps(model, (), nothing), _nothing_in_place(model):
        with torch.no_grad():
            scores = model(batch)
        check_scores(scores, len(batch), classes)
        with torch.enable_grad():
            made = LayerGradCam(model, model.get_submodule(layer)).attribute(
                batch.detach().clone().requires_grad_(), target=target, relu_attributions=True
            )
    if not isinstance(made, Tensor) or made.ndim != 4:
        raise DissectError(f"layer {layer}: expected maps (image, unit, y, x). Name a layer that gives them.")
    return scores, made.detach()[:, 0]


@contextmanager
def _nothing_in_place(model: nn.Module) -> Iterator[None]:
    """Modules do not write over what they are given inside the `with` block: gradients need it."""
    changed = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in changed:
        module.inplace = False  # type: ignore[assignment]  # a setting of torch's own modules, not a tensor
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]


def predictions_array(images: int, block: int) -> store.ArraySpec:
    """Where the predicted classes go."""
    return store.ArraySpec("prediction", ("image",), (images,), "int64", (block,))
