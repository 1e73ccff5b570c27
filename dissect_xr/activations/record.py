"""Records the activations of all layers for one image block: decode, run the model, write shards.

Knows: one task, in which the next images are decoded and finished shards are written while the model runs.
Does not know: which tasks there are (`extract`), thresholds or labels.
"""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect_xr import store
from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.placement.sequential import Trunk
from dissect_xr.activations.repeats import check_size
from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.activations.sources import Loaded, cached, device_of, seeded
from dissect_xr.activations.store import LayerShape, check_finite, smallest_normal
from dissect_xr.activations.taps import as_tapped, forward
from dissect_xr.errors import DissectError
from dissect_xr.floats import means
from dissect_xr.probe.folder import Folder
from dissect_xr.schema import layer_path

DECODERS = 2
"""Threads that decode images beside the forward pass."""

WRITERS = 2
"""Threads that compress and write shards: two, since zarr does part of a write on one core. Each holds a shard."""


@dataclass(frozen=True)
class ExtractTask:
    """One image block of one snapshot."""

    url: str
    snapshot: str
    spec: ModelSpec
    preprocess: Preprocess
    layers: tuple[LayerShape, ...]
    folder: Folder
    """folder of the images, and how they are turned"""
    images: tuple[str, ...]
    """the block's images, relative to the folder"""
    start: int
    """index of the block's first image"""
    batch: int
    """images of one forward pass"""
    device: str | None
    """None: cuda if there is a GPU, else cpu"""
    threads: int | None
    """torch threads; None leaves torch's own choice"""
    autocast: str | None
    """dtype of torch.autocast; None: no autocast"""
    fingerprint: str
    weights: str
    """sha256 of the weights that the fingerprint includes"""
    seeded: bool = False
    """whether the model may draw random numbers, and depend on the batch"""

    @property
    def key(self) -> str:
        """Key of the block's marker."""
        return f"{self.snapshot}/blocks/{self.start}-{self.start + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"activations of {self.snapshot}, images {self.images[0]} to {self.images[-1]} ({len(self.images)})"

    @property
    def seed(self) -> int:
        """Seed of the block, where the model may draw random numbers."""
        return int.from_bytes(hashlib.sha256(f"{self.fingerprint} {self.start}".encode()).digest()[:8], "little") // 2


def extract_block(task: ExtractTask) -> None:
    """Write the activations of one image block for all layers, and its marker; does nothing if the marker exists.

    A worker that died later may have finished the block already. Memory: the block's maps of all layers as stored, two
    batches of images, and what the model itself needs. A GPU holds the maps of one layer at a time; if a batch does not
    fit into its memory, the batch is halved.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    device = device_of(task.spec, task.device)
    with torch_threads(task.threads), store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, note):
        loaded = cached(task.spec, device)
        if loaded.sha256 != task.weights:
            raise DissectError(
                f"{task.spec.weights or task.spec.factory}: the weights changed while {task.snapshot} was extracted. "
                "Keep each snapshot's weights in a file of its own, and run again under another name."
            )
        host = HostMaps(task, pinned=device.startswith("cuda"))
        random = seeded(task.seed, device) if task.seeded else nullcontext()
        with random, ThreadPoolExecutor(WRITERS) as background:
            written: list[Future[None]] = []
            for begin, part in _parts(loaded, task, device, host):
                host.check(task, begin, part)
                written += [background.submit(writer.write, *job) for job in host.whole_shards(task)]
            for future in written:
                future.result()
        for name, values in (("peak", host.peaks), ("mean", host.means)):
            writer.write(f"{task.snapshot}/{name}", (task.start, 0), values.numpy())
        note["batch"] = host.batch
        if faint := host.faint:
            note["faint"] = faint


class HostMaps:
    """The block's maps in host memory, filled layer by layer during the forward pass."""

    def __init__(self, task: ExtractTask, *, pinned: bool) -> None:
        n = len(task.images)
        self.dtype = getattr(torch, task.layers[0].dtype)
        self.batch = task.batch
        self.maps = {
            la.name: torch.empty((n, *la.shape[1:]), dtype=self.dtype, pin_memory=pinned) for la in task.layers
        }
        units = sum(layer.shape[1] for layer in task.layers)
        self.peaks = torch.empty((n, units), dtype=self.dtype)
        self.means = torch.empty((n, units), dtype=torch.float32)
        columns = {layer.name: slice(*layer.columns) for layer in task.layers if layer.columns is not None}
        self.peak = {name: self.peaks[:, mine] for name, mine in columns.items()}
        self.mean = {name: self.means[:, mine] for name, mine in columns.items()}
        self._small: list[tuple[Tensor, Tensor]] = []
        self._largest = dict.fromkeys(self.maps, 0.0)
        self._sizes: list[tuple[str, Tensor]] = []
        self._devices: set[torch.device] = set()
        self._normal = smallest_normal(task.layers[0].dtype)
        self.filled = 0
        self._images_written = dict.fromkeys(self.maps, 0)

    def take(self, first: int, count: int, layer: str, output: Tensor) -> None:
        """Cast a layer's output (batch, unit, y, x) of `count` images to the stored dtype and copy it to host memory.

        `peak` and `mean` are computed from the values after the cast.
        """
        check_size(layer, output, count, tuple(self.maps[layer].shape[1:]), "for a blank image")
        if self._largest[layer] < self._normal:  # which it is not after the first batch, as a rule
            low, high = output.detach().aminmax()
            self._sizes.append((layer, torch.maximum(-low, high)))
        span = slice(first, first + count)
        maps, peak, mean = (of[layer][span] for of in (self.maps, self.peak, self.mean))
        if output.device.type == "cpu":
            maps.copy_(output.detach())
            torch.amax(maps, (2, 3), out=peak)
            mean.copy_(torch.from_numpy(means(maps.numpy())))
            return
        self._devices.add(output.device)
        stored = output.detach().to(self.dtype)
        maps.copy_(stored, non_blocking=True)
        self._small.append((peak, stored.amax((2, 3))))
        self._small.append((mean, stored.mean((2, 3), dtype=torch.float64).to(torch.float32)))

    def settle(self, device: str) -> None:
        """Wait until the copies are complete, and copy what is small to host memory."""
        for target, source in self._small:
            target.copy_(source)
        for layer, size in self._sizes:
            self._largest[layer] = max(self._largest[layer], float(size))
        self.drop()
        if device.startswith("cuda"):
            for one in self._devices:  # several, where the model is split
                torch.cuda.synchronize(one)

    def drop(self) -> None:
        """Discard what is small of a batch: it did not fit into the device's memory, or is on the host."""
        self._small.clear()
        self._sizes.clear()

    @property
    def faint(self) -> dict[str, float]:
        """Layer -> its largest absolute activation, where that is below the smallest normal number of the dtype."""
        return {layer: largest for layer, largest in self._largest.items() if largest < self._normal}

    def check(self, task: ExtractTask, first: int, count: int) -> None:
        """Raise if a value of the batch is not finite; otherwise count the batch as filled."""
        span = slice(first, first + count)
        for layer in task.layers:
            if not self.mean[layer.name][span].isfinite().all():  # a mean is not finite if one of its values is not
                check_finite(self.maps[layer.name][span].numpy(), layer.name, task.images[first:], layer.dtype)
        self.filled = first + count

    def whole_shards(self, task: ExtractTask) -> Iterator[tuple[str, tuple[int, ...], NDArray[Any]]]:
        """(path, start, maps) of every shard whose images are all filled since the last call."""
        for layer in task.layers:
            while self._images_written[layer.name] < self.filled:
                first = self._images_written[layer.name]
                last = min(first + layer.shard_images, len(task.images))
                if last > self.filled:
                    break
                self._images_written[layer.name] = last
                path = f"{layer_path(task.snapshot, layer.name)}/activation"
                yield path, (task.start + first, 0, 0, 0), self.maps[layer.name][first:last].numpy()


def _batches(task: ExtractTask) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(index of the first image, pixels) of each batch; the next batch is decoded while the caller uses this one."""

    def decode(name: str) -> NDArray[np.uint8]:
        path, orientation = task.folder.path(name), task.folder.orientation(name)
        how = task.preprocess
        return read_image(path, how.size, crop=how.crop, orientation=orientation, interpolation=how.interpolation)

    with ThreadPoolExecutor(DECODERS) as executor:
        waiting = [executor.submit(decode, name) for name in task.images[: task.batch]]
        for first in range(0, len(task.images), task.batch):
            following = task.images[first + task.batch : first + 2 * task.batch]
            ready, waiting = waiting, [executor.submit(decode, name) for name in following]
            yield first, np.stack([future.result() for future in ready])


def _parts(loaded: Loaded, task: ExtractTask, device: str, host: HostMaps) -> Iterator[tuple[int, int]]:
    """Run all batches, in parts that fit the device; yields (index of the first image, number of images) of each."""
    if loaded.trunk is not None:
        yield from _block_by_block(loaded, loaded.trunk, task, device, host)
        return
    for first, pixels in _batches(task):
        yield from _run_in_parts(loaded.model, task, device, first, pixels, host)


def _block_by_block(
    loaded: Loaded, trunk: Trunk, task: ExtractTask, device: str, host: HostMaps
) -> Iterator[tuple[int, int]]:
    """Run all batches together, each block of the model for all of them before the next block gets its weights."""
    batches = list(_batches(task))
    while True:
        parts = [
            (first + n, pixels[n : n + host.batch])
            for first, pixels in batches
            for n in range(0, len(pixels), host.batch)
        ]
        try:
            trunk.run([partial(_run_part, loaded.model, task, device, *part, host) for part in parts])
            host.settle(device)
            break
        except torch.OutOfMemoryError:
            _halve(task, device, host, max(len(pixels) for _, pixels in parts))
    for first, pixels in parts:
        yield first, len(pixels)


def _run_part(
    model: torch.nn.Module, task: ExtractTask, device: str, first: int, pixels: NDArray[np.uint8], host: HostMaps
) -> None:
    """One forward pass, whose maps are copied to the host; `first` is the index of its first image."""
    names = [as_tapped(layer.name, layer.layout) for layer in task.layers]
    batch = to_input(task.preprocess, pixels, device=device)
    with autocast(device, task.autocast):
        forward(model, batch, names, lambda *taken: host.take(first, len(pixels), *taken))


def _run_in_parts(
    model: torch.nn.Module, task: ExtractTask, device: str, first: int, pixels: NDArray[np.uint8], host: HostMaps
) -> Iterator[tuple[int, int]]:
    """Run a batch in parts that fit the device; yields (index of the first image, number of images) of each part."""
    done = 0
    while done < len(pixels):
        part = pixels[done : done + host.batch]
        try:
            _run_part(model, task, device, first + done, part, host)
            host.settle(device)
        except torch.OutOfMemoryError:
            _halve(task, device, host, len(part))
            continue
        yield first + done, len(part)
        done += len(part)


def _halve(task: ExtractTask, device: str, host: HostMaps, images: int) -> None:
    """Halve the batch after one of so many images did not fit; raises what is being handled if that cannot be."""
    host.drop()
    if task.seeded and host.batch > 1:
        raise DissectError(
            f"a batch of {images} images does not fit into the memory of {device}, and a smaller one would "
            "give other numbers, since the model may depend on the batch. Choose a smaller batch."
        ) from None
    if host.batch == 1:
        raise  # called while an error is handled
    host.batch = (host.batch + 1) // 2
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def autocast(device: str, dtype: str | None) -> AbstractContextManager[Any]:
    """`torch.autocast` to a dtype on a device; None for no autocast."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.partition(":")[0], dtype=getattr(torch, dtype))


class _TorchThreads:
    """Torch's number of threads, as set by tasks that may overlap in time on several threads.

    Torch keeps a number per thread, and one for threads that have none yet; setting it sets both. A task that begins on
    a new thread while another one runs would thus find that task's number, and leave it behind. So the first of the
    tasks that overlap notes the number, and each of them restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._before = 0
        """the number that the first of the tasks found"""

    @contextmanager
    def set_to(self, threads: int | None) -> Iterator[None]:
        """Set the number inside the `with` block; None sets the number that there was before all tasks."""
        with self._lock:
            if not self._tasks:
                self._before = torch.get_num_threads()
            torch.set_num_threads(threads or self._before)
            self._tasks += 1
        try:
            yield
        finally:
            with self._lock:
                self._tasks -= 1
                torch.set_num_threads(self._before)


torch_threads = _TorchThreads().set_to
