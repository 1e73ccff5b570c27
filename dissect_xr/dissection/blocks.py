"""How a layer is cut into tasks: the one rule for unit blocks, image ranges and images per read.

Knows: bytes per unit and per image, the memory of a task, the number of workers.
Does not know: what a task computes. The cut never changes a result: counts are integers.
"""

from dataclasses import dataclass
from math import ceil

from dissect_xr.cluster import TREE, Projection
from dissect_xr.dissection.layers import Layer

READ = 24 * 2**20
"""Raw activations of one read in bytes: enough to spread zarr's cost per call, small beside a task's memory."""

LABELS = 8 * 2**20
"""Raw labels of one read in bytes: they are read in smaller steps than activations, whose chunks can be long."""

COPIES = 3
"""Times a read is held at once: packed, unpacked, and the next one under way."""

TASK = 2**30
"""Raw activations of one task in bytes at most: some seconds of work."""

RESIDENT = 256 * 2**20
"""Bytes of a worker process before it does anything (243 MiB measured): interpreter, NumPy, Numba, zarr, Dask."""


@dataclass(frozen=True)
class Block:
    """What one task covers."""

    units: tuple[int, int]
    images: tuple[int, int]
    step: int
    """images of one read"""

    @property
    def reads(self) -> list[tuple[int, int]]:
        """Half-open image ranges of the reads."""
        first, last = self.images
        return [(i, min(i + self.step, last)) for i in range(first, last, self.step)]


def cut(layer: Layer, *, unit_bytes: int, memory: int, workers: int, split_units: bool) -> list[list[Block]]:
    """The layer's tasks: a list per unit block, each covering all images.

    Parameters
    ----------
    unit_bytes
        Bytes of a unit's partial result.
    memory
        Bytes a task may plan with: a quarter of it for a partial result, half for activations.
    workers
        Blocks are made until each worker has two.
    split_units
        Whether unit blocks may be made for the workers' sake: good where nothing but the activations is read.
    """
    images, units = layer.shape[:2]
    chunk_images, chunk_units = layer.chunk
    chunk_bytes = chunk_images * chunk_units * layer.cells * layer.itemsize
    fit = min(memory // 4 // max(1, unit_bytes) // chunk_units, memory // 2 // (COPIES * chunk_bytes))
    size = chunk_units * max(1, fit)
    if split_units:
        size = min(size, ceil(ceil(units / (2 * workers)) / chunk_units) * chunk_units)
    size = min(units, size)
    spans = [(u, min(u + size, units)) for u in range(0, units, size)]
    per_image = size * layer.cells * layer.itemsize
    step = max(1, min(READ, memory // 8) // (per_image * chunk_images)) * chunk_images
    ranges = max(ceil(images * per_image / TASK), ceil(2 * workers / len(spans)))
    length = max(step, ceil(ceil(images / ranges) / step) * step)
    return [[Block(span, (i, min(i + length, images)), step) for i in range(0, images, length)] for span in spans]


def merge_width(part_bytes: int, memory: int) -> int:
    """Partial results of `part_bytes` that one task may merge: they and their sum fit the memory."""
    return int(min(TREE, max(2, memory // max(1, part_bytes) - 1)))


def label_step(label_bytes: int) -> int:
    """Images whose labels are read at once; `label_bytes` are those of one image."""
    return max(1, LABELS // max(1, label_bytes))


def projected(layer: Layer, block: Block, *, unit_bytes: int, label_bytes: int) -> Projection:
    """The memory one task of this block needs at most, beside the process itself (`RESIDENT`).

    `label_bytes` are the labels of one image; reads are double, since the next one is under way.
    """
    units = block.units[1] - block.units[0]
    images = min(block.step, block.images[1] - block.images[0])
    read = images * units * (layer.cells + 1) * layer.itemsize
    labels = min(images, label_step(label_bytes)) * label_bytes
    return Projection(
        (
            ("activations, two reads, packed and unpacked", COPIES * read),
            ("labels, two reads, packed and unpacked", COPIES * labels),
            ("partial results, two", 2 * units * unit_bytes),
        )
    )
