"""The bounds above which cells belong to a tail, from a sample of images that goes through the model first.

Knows: how many images are sampled, which value of a sample is the bound, when a tail is not worth it.
Does not know: what a tail is used for: a bound that turns out too high is noticed where thresholds are proven.

A worked example. A layer of 7x7 cells, 63,305 images, the fraction 0.005 and the margin 2. The sample is 1,024 images,
which are 50,176 values of a unit. Its bound is the value that 2 * 0.005 of them exceed: the one with the index
floor(0.01 * 50,176) = 501 in descending order. In all images about one value in a hundred lies above it, and T, which
one value in two hundred exceeds, most likely does too.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from math import floor

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
from dissect_xr.activations.tail.packed import pack
from dissect_xr.floats import bits

MEASURED = 8
"""Images of the sample whose tails are made, to see how large tails are."""

WORTH = 0.5
"""A layer whose tail would be larger than this share of it is kept dense."""


@dataclass(frozen=True)
class Sampling:
    """How bounds are chosen."""

    fraction: float
    """the largest fraction that thresholds are wanted for"""
    margin: float
    """times the fraction: the share of a sample's values above the bound"""

    def index(self, values: int) -> int:
        """Index of the bound among so many values in descending order.

        >>> Sampling(0.005, 2).index(50176)
        501
        """
        share = Fraction(repr(self.fraction)) * Fraction(repr(self.margin))
        return min(values - 1, floor(share * values))


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
        self._largest = {layer.name: _Largest(self._wanted(layer.shape)) for layer in self._task.layers}
        self._maps: dict[str, dict[int, NDArray[np.floating]]] = {layer.name: {} for layer in self._task.layers}
        self._waiting: list[tuple[int, str, NDArray[np.floating]]] = []

    def _wanted(self, shape: Sequence[int]) -> int:
        return 1 + self._sampling.index(len(self._task.images) * shape[2] * shape[3])

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
            bound = self._largest[layer.name].smallest(layer.dtype)
            maps = np.stack([found for _, found in sorted(self._maps[layer.name].items())])
            packed, _ = pack(maps, bound)
            values.append(bound)
            shares[layer.name] = packed.nbytes / maps.nbytes
        return Bounds(np.concatenate(values), shares)


class _Largest:
    """The largest values of each unit, of all that were added."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._kept: list[NDArray[np.signedinteger]] = []
        """(unit, value) as integers in the order of values"""

    def add(self, maps: NDArray[np.floating]) -> None:
        """Add the values of maps (image, unit, y, x)."""
        raw = bits(np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1), "i")
        self._kept.append(np.where(raw < 0, np.iinfo(raw.dtype).min - raw, raw))
        if sum(part.shape[1] for part in self._kept) > 2 * self._wanted:
            self._cut()

    def _cut(self) -> None:
        joined = np.concatenate(self._kept, axis=1)
        if (spare := joined.shape[1] - self._wanted) > 0:
            joined = np.partition(joined, spare, axis=1)[:, spare:].copy()
        self._kept = [joined]

    def smallest(self, dtype: str) -> NDArray[np.float32]:
        """(unit,) the smallest of the largest values; -0.0 as 0.0."""
        self._cut()
        found = self._kept[0].min(axis=1)
        raw = np.where(found < 0, np.iinfo(found.dtype).min - found, found).astype(found.dtype)
        return raw.view(dtype).astype(np.float32) + np.float32(0)
