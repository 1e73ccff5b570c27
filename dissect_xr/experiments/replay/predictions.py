"""Predictions of a network with sets of units ablated: a task per batch of images, written into an experiment's store.

Knows: how images become a batch, which model runs it and how; where predictions and mean activations are written.
Does not know: what is ablated and why.

A task is one batch of images, so that results are the same however tasks are spread: how a sum is rounded may depend on
the number of images that a kernel sees at once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr import store
from dissect_xr.activations import sources
from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.recording.batches import DECODERS
from dissect_xr.activations.recording.threads import autocast, torch_threads
from dissect_xr.activations.request import Preprocess
from dissect_xr.activations.sources import cached, cached_model
from dissect_xr.activations.taps import taps
from dissect_xr.errors import DissectError
from dissect_xr.experiments.replay.maps import check_maps
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.replay.replays import Rest, Whole, tapped, why_whole
from dissect_xr.probe.folder import Folder


def device_of(network: Network) -> str:
    """The device that this process runs a network on."""
    return sources.device_of(network.spec, network.recording.device)


@contextmanager
def running(network: Network) -> Iterator[nn.Module]:
    """The model inside the `with` block: in eval and inference mode, with the threads and dtype asked for."""
    device, recording = device_of(network), network.recording
    model = cached_model(network.spec, device)
    with (
        torch_threads(recording.threads),
        taps(model, (), nothing),  # no tap: the model is in eval mode meanwhile
        torch.inference_mode(),
        autocast(device, recording.autocast),
    ):
        yield model


def check_weights(network: Network, sha256: str) -> None:
    """Raise unless the network has the weights that were looked at."""
    if cached(network.spec, device_of(network)).sha256 != sha256:
        raise DissectError(
            f"{network.spec.weights or network.spec.factory}: the weights changed during the experiment. Keep each "
            "snapshot's weights in a file of its own, and run again under another name."
        )


def nothing(layer: str, output: Tensor) -> None:
    """A sink that drops what it is given."""


def batch_of(network: Network, root: Folder, images: Sequence[str]) -> Tensor:
    """Images as the network takes them."""
    preprocess = network.recording.preprocess
    return to_input(preprocess, pixels_of(root, images, preprocess), device=device_of(network))


def pixels_of(root: Folder, images: Sequence[str], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Pixels (image, row, col, 3) of image files in the folder `root`."""

    def decode(name: str) -> NDArray[np.uint8]:
        return read_image(
            root.path(name),
            preprocess.size,
            crop=preprocess.crop,
            orientation=root.orientation(name),
            interpolation=preprocess.interpolation,
        )

    with ThreadPoolExecutor(DECODERS) as executor:
        return np.stack(list(executor.map(decode, images)))


@dataclass(frozen=True)
class LookTask:
    """A first look at a network and a layer, with the first batch of images."""

    network: Network
    layer: str
    root: Folder
    images: tuple[str, ...]
    classes: int

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"the network cut at {self.layer}"


@dataclass(frozen=True)
class Looked:
    """What a first look finds."""

    units: int
    weights: str
    """sha256"""
    whole: str | None
    """why the whole network runs for each set of units; None where only what follows the layer does"""


_PLACED = "its weights come and go, or lie on several devices, and only the whole network brings them"
"""Why a network runs whole."""


def look(task: LookTask) -> Looked:
    """The layer's units, the weights, and how to replay; runs on a worker that can run the model.

    Raises
    ------
    DissectError
        If the network gives no scores of so many classes, or the layer no maps.
    """
    with running(task.network) as model:
        batch = batch_of(task.network, task.root, task.images)
        found, units = tapped(model, task.layer, batch, lambda output: output.shape[1])
        check_scores(found, len(batch), task.classes)
        check_maps(model, task.layer, task.network.recording.preprocess, batch)
        placed = cached(task.network.spec, device_of(task.network)).placed
        whole = _PLACED if placed else why_whole(model, task.layer, batch)
    return Looked(units, cached(task.network.spec, device_of(task.network)).sha256, whole)


def check_scores(found: Any, images: int, classes: int) -> None:
    """Raise unless a network's output is (image, class), one score for each class."""
    if isinstance(found, Tensor) and found.shape == (images, classes) and found.is_floating_point():
        return
    got = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
    raise DissectError(
        f"the network's output: expected scores ({images}, {classes}), one for each of {images} images and {classes} "
        f"classes, got {got}. Correct `outputs`, or name a factory whose network returns the scores alone."
    )


@dataclass(frozen=True)
class PredictTask:
    """One batch of images, with all sets of a pass."""

    url: str
    path: str
    """group of the pass: `ablated` (set, unit), `level` (unit) and `prediction` (image, set)"""
    network: Network
    layer: str
    root: Folder
    images: tuple[str, ...]
    start: int
    """index of the first image in the pass"""
    whole: bool
    """whether the whole network runs for each set"""
    classes: int
    weights: str
    """sha256 of the weights that were looked at"""
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{self.path}/blocks/{self.start}-{self.start + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"predictions {self.path}, images {self.images[0]} to {self.images[-1]} ({len(self.images)})"


def predict_block(task: PredictTask) -> None:
    """Write the predicted classes of a batch for every set, and its marker; does nothing if the marker exists.

    Memory: the layer's output for the batch (what skips past it as well), a stack of copies of these, and what the
    model itself needs.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    sets = np.asarray(store.read(task.url, f"{task.path}/ablated")[:], np.bool_)
    levels = torch.from_numpy(np.asarray(store.read(task.url, f"{task.path}/level")[:]))
    found = np.empty((len(task.images), len(sets)), np.int32)
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _), _running(task) as model:
        batch = batch_of(task.network, task.root, task.images)
        replay = Whole(model, task.layer) if task.whole else Rest.of(model, task.layer)
        for n, scores in enumerate(replay.scores(batch, sets, levels.to(batch.device))):
            check_scores(scores, len(batch), task.classes)
            found[:, n] = best_class(scores, task.images)
        writer.write(f"{task.path}/prediction", (task.start, 0), found)


@contextmanager
def _running(task: "PredictTask | MeanTask") -> Iterator[nn.Module]:
    """The task's model, whose weights must be those that were looked at."""
    network = task.network
    try:
        with running(network) as model:
            check_weights(network, task.weights)
            yield model
    except torch.OutOfMemoryError as error:
        raise DissectError(
            f"{task.what}: does not fit into the memory of {device_of(network)}. Use a smaller `activations.batch`, "
            "under another name, since a result is of one size of batches."
        ) from error


def best_class(scores: Tensor, images: Sequence[str]) -> NDArray[np.int32]:
    """(image,) class of the highest score, the first of equal ones.

    Raises
    ------
    DissectError
        Naming the image, if a score is not finite.
    """
    values = scores.float().cpu().numpy()
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise DissectError(
            f"image {images[int(np.argmin(finite))]}: expected finite scores, got {values[~finite][0, :5].tolist()}. "
            "Mend the model or the input."
        )
    return np.asarray(values.argmax(axis=1), np.int32)


@dataclass(frozen=True)
class MeanTask:
    """One batch of images, of which the layer's mean activations are taken."""

    url: str
    path: str
    """group of the pass: `mean` (image, unit)"""
    network: Network
    layer: str
    root: Folder
    images: tuple[str, ...]
    start: int
    weights: str
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{self.path}/blocks/{self.start}-{self.start + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"means {self.path}, images {self.images[0]} to {self.images[-1]} ({len(self.images)})"


def mean_block(task: MeanTask) -> None:
    """Write the mean activation of every unit in each image of a batch, in float64, and the batch's marker."""
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _), _running(task) as model:
        _, means = tapped(model, task.layer, batch_of(task.network, task.root, task.images), _means)
        finite = np.isfinite(means)
        if not finite.all():
            image, unit = np.argwhere(~finite)[0]
            raise DissectError(
                f"layer {task.layer}, image {task.images[image]}: an activation of unit {unit} is not finite. Mend the "
                "model or the input."
            )
        writer.write(f"{task.path}/mean", (task.start, 0), means)


def _means(maps: Tensor) -> NDArray[np.float64]:
    """Means (image, unit) of a layer's output."""
    values = maps.double()
    return np.asarray((values.mean(dim=(2, 3)) if values.ndim == 4 else values).cpu().numpy())
