"""Counts of a network's predictions on labelled images with sets of units ablated: a pass over the images each.

Knows: how a pass is cut into tasks and kept in an experiment's store, and that counts are summed batch by batch.
Does not know: which sets are worth a pass, or what counts say.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.class_scores import count_predictions
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.replay.predictions import (
    Looked,
    LookTask,
    MeanTask,
    PredictTask,
    look,
    mean_block,
    predict_block,
)
from dissect_xr.experiments.results import Result, compute_pass
from dissect_xr.parallel.pool import Pool, run_tasks
from dissect_xr.parallel.resources import Projection

SET_CHUNK = 4096
"""Sets in a chunk of predictions at most."""

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""True positives and predicted, each (set, class)."""


@dataclass(frozen=True)
class Passes:
    """Passes over labelled images that an experiment keeps."""

    result: Result
    network: Network
    layer: str
    looked: Looked
    pool: Pool
    show: bool = True

    def counts(self, name: str, labelled: Labelled, sets: NDArray[np.bool_], levels: NDArray[np.float32]) -> Counts:
        """Counts of the predictions with each set (set, unit) ablated; computes what of the pass `name` is missing.

        Memory of this process: the sets, and three times the counts.
        """
        classes, batch = len(labelled.classes), self.network.recording.batch
        shape = len(labelled.images), len(sets)
        needed = Projection((("sets of units", 2 * sets.nbytes), ("counts", 3 * 16 * len(sets) * classes)))
        needed.check(
            self.pool.memory, f"{self.result.kind} {name}, {len(sets):,} sets of units and {classes:,} classes"
        )
        found = np.zeros((2, len(sets), classes), np.int64)
        if not len(sets):
            return found[0], found[1]
        chunk = min(batch, shape[0]), min(len(sets), SET_CHUNK)
        tables = [
            (store.ArraySpec("ablated", ("set", "unit"), sets.shape, "bool", (chunk[1], sets.shape[1])), sets),
            (store.ArraySpec("level", ("unit",), levels.shape, "float32", levels.shape), levels),
        ]

        def make(fingerprint: str) -> list[PredictTask]:
            return [
                PredictTask(
                    self.result.url, name, self.network, self.layer, labelled.root.of(images), images, start,
                    self.looked.whole is not None, classes, self.looked.weights, fingerprint,
                )
                for start, images in self._batches(labelled)
            ]  # fmt: skip

        compute_pass(
            self.result, name, {"sets": _sha256(sets), "levels": _sha256(levels)}, make, predict_block,
            arrays=[store.ArraySpec("prediction", ("image", "set"), shape, "int32", chunk)], tables=tables,
            pool=self.pool, show=self.show, gpu=self.network.spec.gpus,
        )  # fmt: skip
        predictions = store.read(self.result.url, f"{name}/prediction")
        for start, images in self._batches(labelled):
            part = slice(start, start + len(images))
            found += count_predictions(predictions[part], labelled.label[part], classes)
        return found[0], found[1]

    def means(self, name: str, labelled: Labelled) -> NDArray[np.float32]:
        """Mean activation of each unit over all images and cells, (unit,); computes what of the pass is missing."""
        shape = len(labelled.images), self.looked.units
        chunk = min(self.network.recording.batch, shape[0]), shape[1]

        def make(fingerprint: str) -> list[MeanTask]:
            return [
                MeanTask(
                    self.result.url, name, self.network, self.layer, labelled.root.of(images), images, start,
                    self.looked.weights, fingerprint,
                )
                for start, images in self._batches(labelled)
            ]  # fmt: skip

        compute_pass(
            self.result, name, {}, make, mean_block,
            arrays=[store.ArraySpec("mean", ("image", "unit"), shape, "float64", chunk)],
            pool=self.pool, show=self.show, gpu=self.network.spec.gpus,
        )  # fmt: skip
        total, means = np.zeros(shape[1]), store.read(self.result.url, f"{name}/mean")
        for start, images in self._batches(labelled):
            total += means[start : start + len(images)].sum(axis=0)
        return np.asarray(total / shape[0], np.float32)

    def _batches(self, labelled: Labelled) -> Iterator[tuple[int, tuple[str, ...]]]:
        batch = self.network.recording.batch
        return ((n, labelled.images[n : n + batch]) for n in range(0, len(labelled.images), batch))


def looked_at(network: Network, layer: str, labelled: Labelled, *, pool: Pool) -> Looked:
    """What a first look at the network and the layer finds, with the first batch of these images."""
    images = labelled.images[: network.recording.batch]
    task = LookTask(network, layer, labelled.root.of(images), images, len(labelled.classes))
    ((_, looked),) = run_tasks(pool, look, [task], gpu=network.spec.gpus)
    found: Looked = looked
    return found


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
