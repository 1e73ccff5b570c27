"""The maps of an image block in host memory, as a task fills them layer by layer.

Knows: dtypes, peaks and means, shards that are whole, tails.
Does not know: how the model is run (`batches`), files.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect_xr.activations.recording.levels import Counted, Levels, smallest_normal, some_of
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.activations.repeats import check_size
from dissect_xr.activations.store import check_finite, tail_shape
from dissect_xr.floats import means
from dissect_xr.schema import layer_path
from dissect_xr.tail.packed import Packed, pack


class HostMaps:
    """The block's maps in host memory, filled layer by layer during the forward pass."""

    def __init__(
        self, task: ExtractTask, bound: NDArray[np.float32] | None, threads: ThreadPoolExecutor, *, pinned: bool
    ) -> None:
        n = len(task.images)
        self._task = task
        self._threads = threads
        self._tails = {} if bound is None else {
            layer.name: TailOfLayer(bound[slice(*layer.columns)], tail_shape(task.layers).span_dtype)
            for layer in task.layers if layer.has_tail and layer.columns is not None
        }  # fmt: skip
        self.dtype = getattr(torch, task.layers[0].dtype)
        self.batch = task.batch
        self.maps = {
            la.name: torch.empty((n, *la.shape[1:]), dtype=self.dtype, pin_memory=pinned)
            for la in task.layers
            if la.has_cells
        }
        units = max(layer.columns[1] for layer in task.layers if layer.columns is not None)
        self.peaks = torch.empty((n, units), dtype=self.dtype)
        self.means = torch.empty((n, units), dtype=torch.float32)
        columns = {layer.name: slice(*layer.columns) for layer in task.layers if layer.columns is not None}
        self.peak = {name: self.peaks[:, mine] for name, mine in columns.items()}
        self.mean = {name: self.means[:, mine] for name, mine in columns.items()}
        self._small: list[tuple[Tensor, Tensor]] = []
        self._largest = {layer.name: 0.0 for layer in task.layers}
        self._sizes: list[tuple[str, Tensor]] = []
        self._levels = {layer.name: Levels() for layer in task.layers}
        self._samples: list[tuple[str, Tensor]] = []
        self._devices: set[torch.device] = set()
        self._normal = smallest_normal(task.layers[0].dtype)
        self.filled = 0
        self._images_written = dict.fromkeys(self.maps, 0)
        self._shapes = {layer.name: tuple(layer.shape[1:]) for layer in task.layers}

    def take(self, first: int, count: int, layer: str, output: Tensor) -> None:
        """Cast a layer's output (batch, unit, y, x) of `count` images to the stored dtype and copy it to host memory.

        `peak` and `mean` are computed from the values after the cast, and so is the tail, where that is kept.
        """
        check_size(layer, output, count, self._shapes[layer], "for a blank image")
        if self._largest[layer] < self._normal:  # which it is not after the first batch, as a rule
            low, high = output.detach().aminmax()
            self._sizes.append((layer, torch.maximum(-low, high)))
        if output.dtype != self.dtype and not self._levels[layer].complete:  # which it is after the first, as a rule
            self._samples.append((layer, some_of(output.detach(), self._levels[layer].values).clone()))
        span = slice(first, first + count)
        peak, mean = self.peak[layer][span], self.mean[layer][span]
        tail = self._tails.get(layer)
        if tail is not None or output.device.type == "cpu":
            maps = self.maps[layer][span] if layer in self.maps else torch.empty(output.shape, dtype=self.dtype)
            maps.copy_(output.detach())
            torch.amax(maps, (2, 3), out=peak)
            self._summarise(maps.numpy(), mean.numpy(), tail, first)
            if tail is not None:
                self._check_finite(layer, span, maps.numpy())
            return
        self._devices.add(output.device)
        stored = output.detach().to(self.dtype)
        self.maps[layer][span].copy_(stored, non_blocking=True)
        self._small.append((peak, stored.amax((2, 3))))
        self._small.append((mean, stored.mean((2, 3), dtype=torch.float64).to(torch.float32)))

    def _summarise(
        self, maps: NDArray[np.floating], mean: NDArray[np.float32], tail: "TailOfLayer | None", first: int
    ) -> None:
        """Fill `mean` and take the tails, on as many threads as the model has: the maps do not fit a cache."""

        def summarise(part: slice) -> None:
            mean[part] = means(maps[part])
            if tail is not None:
                tail.take(first + part.start, maps[part])

        step = -(-len(maps) // torch.get_num_threads())
        parts = [slice(start, start + step) for start in range(0, len(maps), step)]
        list(self._threads.map(summarise, parts))

    def settle(self, device: str) -> None:
        """Wait until the copies are complete, and copy what is small to host memory."""
        for target, source in self._small:
            target.copy_(source)
        for layer, size in self._sizes:
            self._largest[layer] = max(self._largest[layer], float(size))
        for layer, sample in self._samples:
            self._levels[layer].add((sample.float() if sample.dtype == torch.bfloat16 else sample).cpu().numpy())
        self._forget_batch()
        if device.startswith("cuda"):
            for one in self._devices:  # several, where the model is split
                torch.cuda.synchronize(one)

    def drop(self) -> None:
        """Discard what is small of a batch, and the tails of a part: it did not fit, and is run again."""
        self._forget_batch()
        for tail in self._tails.values():
            tail.forget(self.filled)

    def _forget_batch(self) -> None:
        for held in (self._small, self._sizes, self._samples):
            held.clear()

    @property
    def faint(self) -> dict[str, float]:
        """Layer -> its largest absolute activation, where that is below the smallest normal number of the dtype."""
        return {layer: largest for layer, largest in self._largest.items() if largest < self._normal}

    @property
    def coarse(self) -> dict[str, Counted]:
        """Layer -> its levels in a sample, as computed and as stored, where most of them are lost."""
        dtype = self._task.layers[0].dtype
        found = {layer: levels.coarse(dtype) for layer, levels in self._levels.items()}
        return {layer: counted for layer, counted in found.items() if counted is not None}

    def check(self, first: int, count: int) -> None:
        """Raise if a value of the batch is not finite; otherwise count the batch as filled."""
        span = slice(first, first + count)
        for layer, maps in self.maps.items():
            self._check_finite(layer, span, maps[span].numpy())
        self.filled = first + count

    def _check_finite(self, layer: str, span: slice, maps: NDArray[Any]) -> None:
        if not self.mean[layer][span].isfinite().all():  # a mean is not finite if one of its values is not
            check_finite(maps, layer, self._task.images[span], self._task.layers[0].dtype)

    def tails(self) -> tuple[list[list[Packed]], NDArray[np.int64], NDArray[np.floating]]:
        """The tails of each layer, none of those kept dense.

        Also, of each unit of all layers, how many values equal its bound, and the largest.
        """
        parts, equal = [], np.zeros(self.peaks.shape[1], np.int64)
        for layer in self._task.layers:
            tail = self._tails.get(layer.name)
            parts.append([] if tail is None else tail.parts)
            if tail is not None and layer.columns is not None:
                equal[slice(*layer.columns)] = tail.equal
        return parts, equal, self.peaks.amax(0).numpy()

    def whole_shards(self) -> Iterator[tuple[str, tuple[int, ...], NDArray[Any]]]:
        """(path, start, maps) of every shard whose images are all filled since the last call."""
        task = self._task
        for layer in task.layers:
            while layer.has_cells and self._images_written[layer.name] < self.filled:
                first = self._images_written[layer.name]
                last = min(first + layer.shard_images, len(task.images))
                if last > self.filled:
                    break
                self._images_written[layer.name] = last
                path = f"{layer_path(task.snapshot, layer.name)}/activation"
                yield path, (task.start + first, 0, 0, 0), self.maps[layer.name][first:last].numpy()


class TailOfLayer:
    """The tails of one layer's maps, part by part."""

    def __init__(self, bound: NDArray[np.float32], span_dtype: str) -> None:
        self._bound, self._span_dtype = bound, span_dtype
        self._parts: dict[int, tuple[Packed, NDArray[np.int64]]] = {}

    def take(self, first: int, maps: NDArray[np.floating]) -> None:
        """Pack maps as stored, those of the block's images from `first` on."""
        self._parts[first] = pack(maps, self._bound, self._span_dtype)

    def forget(self, filled: int) -> None:
        """Forget the parts from an image on."""
        self._parts = {first: part for first, part in self._parts.items() if first < filled}

    @property
    def parts(self) -> list[Packed]:
        """In the order of images."""
        return [part for _, (part, _) in sorted(self._parts.items())]

    @property
    def equal(self) -> NDArray[np.int64]:
        """(unit,) values equal to the bound."""
        return np.asarray(np.sum([equal for _, equal in self._parts.values()], axis=0))
