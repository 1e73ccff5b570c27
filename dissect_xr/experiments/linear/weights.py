"""Linear weights of units for classes: fitted by a support vector machine, or those of the network's own head.

Knows: scikit-learn's LinearSVC, linear modules; that one task fits some classes, and one reads a head.
Does not know: which images or classes there are, or what weights are good for.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from dissect_xr import store
from dissect_xr.activations.taps import check_layers
from dissect_xr.errors import DissectError
from dissect_xr.experiments.linear.features import Features
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.replay.predictions import batch_of, check_scores, running
from dissect_xr.experiments.replay.replays import tapped
from dissect_xr.probe.folder import Folder

ITERATIONS = 10_000
"""Iterations of a fit at most."""

CLOSE, CLOSE_AUTOCAST = 1e-3, 5e-2
"""How near a head must come to the network's scores, relative to the largest of them."""


@dataclass(frozen=True)
class FitTask:
    """Some classes, each of which is told from all others."""

    url: str
    path: str
    """group of the pass: `position` and `label` (image), `scale` (unit), `weight` (class, unit), `intercept` ..."""
    features: Features
    classes: tuple[int, int]
    """first class, and the first that no longer belongs to the task"""
    c: float
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{self.path}/blocks/{self.classes[0]}-{self.classes[1]}"

    @property
    def images(self) -> tuple[str, ...]:
        """None: progress counts classes."""
        return ()

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"support vector machines, classes number {self.classes[0]} to {self.classes[1] - 1}"


def fit_block(task: FitTask) -> None:
    """Fit the classes of a task and write their weights, and its marker.

    A class's weights do not depend on which others are in the task. Memory: the features of all images in float64, and
    twice that within LIBLINEAR.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    position, label, scale = (store.read(task.url, f"{task.path}/{name}")[:] for name in ("position", "label", "scale"))
    x = task.features.of(np.asarray(position)) / scale
    found = [fit_one(x, label == one, task.c) for one in range(*task.classes)]
    first = task.classes[0]
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _):
        writer.write(f"{task.path}/weight", (first, 0), np.stack([weight for weight, _, _ in found]))
        writer.write(f"{task.path}/intercept", (first,), np.array([intercept for _, intercept, _ in found]))
        writer.write(f"{task.path}/converged", (first,), np.array([converged for _, _, converged in found]))


def fit_one(x: NDArray[np.float64], positive: NDArray[np.bool_], c: float) -> tuple[NDArray[np.float64], float, bool]:
    """Weights (unit,), intercept, and whether the fit converged, of one class against the rest.

    >>> weight, intercept, converged = fit_one(np.array([[0.0], [1.0]]), np.array([False, True]), 1e6)
    >>> round(float(weight[0]), 2), round(intercept, 2), converged  # 2 x - 1 is -1 and 1 on the two
    (2.0, -1.0, True)
    """
    # Not its dual: LIBLINEAR would draw from a generator that all threads of a process share.
    machine = LinearSVC(C=c, dual=False, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(x, positive)
    converged = int(np.max(machine.n_iter_)) < ITERATIONS
    return np.asarray(machine.coef_[0], np.float64), float(machine.intercept_[0]), converged


@dataclass(frozen=True)
class HeadTask:
    """The head of a network whose features are the means of a layer's maps."""

    url: str
    path: str
    network: Network
    head: str
    """name of the module"""
    layer: str
    root: Folder
    images: tuple[str, ...]
    """the first batch, on which the head is compared with the network"""
    classes: int
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{self.path}/blocks/0-{self.classes}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"the head {self.head}"


def read_head(task: HeadTask) -> None:
    """Write the weights of a head, and the task's marker.

    Raises
    ------
    DissectError
        If the module is not linear, or its scores of the layer's means are not those of the network.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    with running(task.network) as model:
        weight, bias = head_weights(model, task.head)
        batch = batch_of(task.network, task.root, task.images)
        found, means = tapped(model, task.layer, batch, _means)
        check_scores(found, len(batch), task.classes)
    if weight.shape != (task.classes, means.shape[1]):
        raise DissectError(
            f"head {task.head}: expected weights for {task.classes} classes and the {means.shape[1]} units of "
            f"{task.layer}, got {weight.shape}. Name the module that turns the layer's means into scores."
        )
    scores, wanted = means @ weight.T + bias, found.double().cpu().numpy()
    apart, largest = float(np.abs(scores - wanted).max()), float(np.abs(wanted).max())
    if not apart <= largest * (CLOSE if task.network.recording.autocast is None else CLOSE_AUTOCAST):
        raise DissectError(
            f"head {task.head}: expected scores that are linear in the means of {task.layer}, but those of the first "
            f"images differ from the network's by up to {apart:.3g} (scores reach {largest:.3g}). Something lies "
            "between: name the last layer before the pooling, or fit weights (leave out `head`)."
        )
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _):
        writer.write(f"{task.path}/weight", (0, 0), weight)
        writer.write(f"{task.path}/intercept", (0,), bias)
        writer.write(f"{task.path}/converged", (0,), np.ones(task.classes, np.bool_))


def head_weights(model: nn.Module, head: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (class, unit) and biases (class,) of a linear module or a convolution of 1 x 1 cells."""
    check_layers(model, [head])
    module = model.get_submodule(head)
    weight = getattr(module, "weight", None)
    is_linear = isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    )
    if not is_linear or not isinstance(weight, Tensor):
        raise DissectError(
            f"head {head}: expected a linear module or a convolution of 1 x 1 cells, got a {type(module).__name__}. "
            "Name the last linear module."
        )
    bias = module.bias if isinstance(module.bias, Tensor) else torch.zeros(len(weight))
    values, biases = (part.detach().double().cpu().numpy() for part in (weight.flatten(1), bias))
    return np.asarray(values), np.asarray(biases)


def _means(maps: Tensor) -> NDArray[np.float64]:
    values = maps.double()
    return np.asarray((values.mean(dim=(2, 3)) if values.ndim == 4 else values).cpu().numpy())
