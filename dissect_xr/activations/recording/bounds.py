"""The bounds above which cells belong to a tail, from a sample of images that goes through the model first.

Knows: how the sample of a task is run through the model.
Does not know: which value is the bound (`tail.sampling`); where one that is too high is noticed.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect_xr.activations.recording.batches import run_batches
from dissect_xr.activations.recording.block import loaded_for
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.activations.recording.threads import torch_threads
from dissect_xr.activations.repeats import check_size
from dissect_xr.activations.sources import device_of, seeded
from dissect_xr.activations.store import check_finite
from dissect_xr.tail.sampling import MEASURED, WORTH, Largest, Sampling, share_of


@dataclass(frozen=True)
class Bounds:
    """The bounds of the layers of a snapshot."""

    values: NDArray[np.float32]
    """(unit of all layers,)"""
    shares: Mapping[str, float]
    """layer -> bytes of the tail over those of the maps, before compression, in some images"""

    @property
    def dense(self) -> list[str]:
        """Layers whose tails are not worth it."""
        return [layer for layer, share in self.shares.items() if share > WORTH]


def find_bounds(task: tuple[ExtractTask, Sampling]) -> Bounds:
    """The bounds of a task's layers, from its images, which are the sample.

    Memory: of each unit twice the values above its bound, and the maps of a batch and of `MEASURED` images.
    """
    extract, sampling = task
    device = device_of(extract.spec, extract.device)
    with torch_threads(extract.threads):
        loaded = loaded_for(extract, device)
        sample = _Sample(extract, sampling, together=loaded.trunk is not None)
        with seeded(extract.seed, device) if extract.seeded else nullcontext():
            for first, count in run_batches(loaded, extract, device, sample):
                sample.keep(first, count)
    return sample.bounds()


class _Sample:
    """The largest values of every unit in the sample, and the maps of a few images."""

    def __init__(self, task: ExtractTask, sampling: Sampling, *, together: bool) -> None:
        self.batch = task.batch
        self._task, self._sampling, self._together = task, sampling, together
        n = len(task.images)
        self._measured = {i * n // min(n, MEASURED) for i in range(min(n, MEASURED))}
        self._begin()

    def _begin(self) -> None:
        self._largest = {layer.name: Largest(self._wanted(layer.shape)) for layer in self._task.layers}
        self._maps: dict[str, dict[int, NDArray[np.floating]]] = {layer.name: {} for layer in self._task.layers}
        self._waiting: list[tuple[int, str, NDArray[np.floating]]] = []

    def _wanted(self, shape: Sequence[int]) -> int:
        return 1 + self._sampling.index(shape[2] * shape[3], shape[0])

    def take(self, first: int, count: int, layer: str, output: Tensor) -> None:
        """Take the maps of a layer, to be kept when the batch has succeeded."""
        (known,) = (one for one in self._task.layers if one.name == layer)
        check_size(layer, output, count, known.shape[1:], "for a blank image")
        stored = output.detach().to(getattr(torch, known.dtype)).cpu().contiguous().numpy()
        check_finite(stored, layer, self._task.images[first:], known.dtype)
        if self._together:  # all batches are run before the first of them has succeeded
            self._keep(first, layer, stored)
        else:
            self._waiting.append((first, layer, stored))

    def settle(self, device: str) -> None:
        """The maps were copied when they were taken."""

    def drop(self) -> None:
        """Forget a part that did not fit; where all parts are run together, all of them are run again."""
        self._waiting.clear()
        if self._together:
            self._begin()

    def keep(self, first: int, count: int) -> None:
        """Keep what was taken of a part."""
        for job in self._waiting:
            self._keep(*job)
        self._waiting.clear()

    def _keep(self, first: int, layer: str, maps: NDArray[np.floating]) -> None:
        self._largest[layer].add(maps)
        for image in self._measured & set(range(first, first + len(maps))):
            self._maps[layer][image] = maps[image - first]

    def bounds(self) -> Bounds:
        """The bounds, and how large the tails of some images are."""
        values, shares = [], {}
        for layer in self._task.layers:
            bound = self._largest[layer.name].smallest()
            maps = np.stack([found for _, found in sorted(self._maps[layer.name].items())])
            values.append(bound)
            shares[layer.name] = share_of(maps, bound)
        return Bounds(np.concatenate(values), shares)
