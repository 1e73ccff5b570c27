"""Runs the model on the images of a task, batch by batch, and hands the maps of every layer to a sink.

Knows: the next images are decoded while the model runs; a batch that does not fit a GPU is halved and run again.
Does not know: what a sink does with maps (`host` keeps them, `bounds` samples them).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.placement.sequential import Trunk
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.activations.recording.threads import autocast
from dissect_xr.activations.sources import Loaded
from dissect_xr.activations.taps import as_tapped, forward
from dissect_xr.errors import DissectError

DECODERS = 2
"""Threads that decode images beside the forward pass."""


class Sink(Protocol):
    """What takes the maps of a task."""

    batch: int
    """images of one forward pass; halved where so many do not fit"""

    def take(self, first: int, count: int, layer: str, output: Tensor) -> None:
        """Take a layer's output (batch, unit, y, x) of `count` images of the task, from its image `first` on."""

    def settle(self, device: str) -> None:
        """The batch was run: wait for what is under way on the device."""

    def drop(self) -> None:
        """The batch did not fit, and is run again in parts: forget what was taken of it."""


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


def run_batches(loaded: Loaded, task: ExtractTask, device: str, sink: Sink) -> Iterator[tuple[int, int]]:
    """Run all batches, in parts that fit the device; yields (index of the first image, number of images) of each."""
    if loaded.trunk is not None:
        yield from _block_by_block(loaded, loaded.trunk, task, device, sink)
        return
    for first, pixels in _batches(task):
        yield from _run_in_parts(loaded.model, task, device, first, pixels, sink)


def _block_by_block(
    loaded: Loaded, trunk: Trunk, task: ExtractTask, device: str, sink: Sink
) -> Iterator[tuple[int, int]]:
    """Run all batches together, each block of the model for all of them before the next block gets its weights."""
    batches = list(_batches(task))
    while True:
        parts = [
            (first + n, pixels[n : n + sink.batch])
            for first, pixels in batches
            for n in range(0, len(pixels), sink.batch)
        ]
        try:
            trunk.run([partial(_run_part, loaded.model, task, device, *part, sink) for part in parts])
            sink.settle(device)
            break
        except torch.OutOfMemoryError:
            _halve(task, device, sink, max(len(pixels) for _, pixels in parts))
    for first, pixels in parts:
        yield first, len(pixels)


def _run_part(
    model: torch.nn.Module, task: ExtractTask, device: str, first: int, pixels: NDArray[np.uint8], sink: Sink
) -> None:
    """One forward pass, whose maps are copied to the host; `first` is the index of its first image."""
    names = [as_tapped(layer.name, layer.layout) for layer in task.layers]
    batch = to_input(task.preprocess, pixels, device=device)
    with autocast(device, task.autocast):
        forward(model, batch, names, lambda *taken: sink.take(first, len(pixels), *taken))


def _run_in_parts(
    model: torch.nn.Module, task: ExtractTask, device: str, first: int, pixels: NDArray[np.uint8], sink: Sink
) -> Iterator[tuple[int, int]]:
    """Run a batch in parts that fit the device; yields (index of the first image, number of images) of each part."""
    done = 0
    while done < len(pixels):
        part = pixels[done : done + sink.batch]
        try:
            _run_part(model, task, device, first + done, part, sink)
            sink.settle(device)
        except torch.OutOfMemoryError:
            _halve(task, device, sink, len(part))
            continue
        yield first + done, len(part)
        done += len(part)


def _halve(task: ExtractTask, device: str, sink: Sink, images: int) -> None:
    """Halve the batch after one of so many images did not fit; raises what is being handled if that cannot be."""
    sink.drop()
    if task.seeded and sink.batch > 1:
        raise DissectError(
            f"a batch of {images} images does not fit into the memory of {device}, and a smaller one would "
            "give other numbers, since the model may depend on the batch. Choose a smaller batch."
        ) from None
    if sink.batch == 1:
        raise  # called while an error is handled
    sink.batch = (sink.batch + 1) // 2
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
