"""How a layer is cut into tasks: the one rule for unit blocks, image ranges and images per read.

Knows: bytes per unit and per image, how stores are chunked, the memory of a task, the number of workers.
Does not know: what a task computes. The cut never changes a result: counts are integers.
"""

from dataclasses import dataclass
from math import ceil

from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import Layer
from dissect_xr.parallel.fold import TREE
from dissect_xr.parallel.resources import Projection

READ = 24 * 2**20
"""Raw activations of one read in bytes: enough to spread zarr's cost per call, small beside a task's memory."""

LABELS = 32 * 2**20
"""Raw labels of one read in bytes: a shard of them; parts of a shard are read at three fifths of the speed."""

COPIES = 3
"""Times a read is held at once: packed, unpacked, and the next one under way."""

TASK = 2**30
"""Raw activations of one task in bytes at most: some seconds of work."""

COUNTED = 256
"""Units of one chunk of counts: with 64, as activations have, 100,000 units in five snapshots were 24,000 objects of
mostly under 16 KB, and reading them took twice as long."""

COUNTED_BYTES = 8 * 2**20
"""Counts of a chunk, and maps of its units in one chunk of images, in bytes at most: small memory must do."""

RESIDENT = 288 * 2**20
"""Bytes of a worker process before it reads anything (274 MiB measured): interpreter, NumPy, zarr, Dask, kernels."""


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


def counted_units(layer: Layer, unit_bytes: int) -> int:
    """Units of one chunk of counts, whole chunks of activations: what a unit block of a count is made of.

    Fewer where their counts, or their maps of one chunk of images, take more than `COUNTED_BYTES`.
    """
    least = layer.chunk[1]
    most = COUNTED_BYTES // max(unit_bytes, layer.chunk[0] * _map_bytes(layer))
    return least * max(1, min(COUNTED, most) // least)


def cut(
    layer: Layer, *, unit_bytes: int, memory: int, workers: int, split_units: bool, label_bytes: int = 0
) -> list[list[Block]]:
    """The layer's tasks: a list per unit block, each covering all images.

    What a task then holds (`projected`) fits the memory, unless a single chunk of activations does not.

    Parameters
    ----------
    unit_bytes
        Bytes of a unit's partial result.
    memory
        Bytes a task may use, an eighth of it for a partial result: several wait to be merged.
    workers
        Blocks are made until each worker has two.
    split_units
        Whether unit blocks may be made for the workers' sake, and of fewer units than a chunk of counts has: good where
        nothing but the activations is read, and nothing stored.
    label_bytes
        Bytes of one read of labels.
    """
    images, units = layer.shape[:2]
    chunk_images, chunk_units = layer.chunk[0], layer.chunk[1] if split_units else counted_units(layer, unit_bytes)
    room = memory - memory // 4 - COPIES * label_bytes
    per_unit = COPIES * chunk_images * _map_bytes(layer) + 2 * unit_bytes
    fit = min(memory // 8 // max(1, unit_bytes), room // per_unit) // chunk_units
    size = chunk_units * max(1, fit)
    if split_units:
        size = min(size, ceil(ceil(units / (2 * workers)) / chunk_units) * chunk_units)
    size = min(units, size)
    spans = [(u, min(u + size, units)) for u in range(0, units, size)]
    per_image = size * _map_bytes(layer)
    read = min(READ, (room - 2 * unit_bytes * size) // COPIES)
    step = max(1, read // (per_image * chunk_images)) * chunk_images
    ranges = max(ceil(images * per_image / TASK), ceil(2 * workers / len(spans)))
    length = max(step, ceil(ceil(images / ranges) / step) * step)
    return [[Block(span, (i, min(i + length, images)), step) for i in range(0, images, length)] for span in spans]


def _map_bytes(layer: Layer) -> int:
    """Bytes of one unit's map of one image, and of its peak."""
    return (layer.cells + 1) * layer.itemsize


def merge_width(part_bytes: int, memory: int) -> int:
    """Partial results of `part_bytes` that wait for each other and are merged by one task: a quarter of the memory."""
    return int(min(TREE, max(2, memory // 4 // max(1, part_bytes))))


def label_step(labels: ProbeLabels, memory: int) -> int:
    """Images whose labels are read at once: whole shards; whole chunks where a sixteenth of the memory is less."""
    images = min(LABELS, memory // 16) // max(1, labels.image_bytes)
    return images // labels.shard * labels.shard or max(1, images // labels.chunk) * labels.chunk


def projected(layer: Layer, block: Block, *, unit_bytes: int, memory: int, label_bytes: int = 0) -> Projection:
    """The memory one task of this block needs at most, beside the process itself (`RESIDENT`).

    `label_bytes` are the labels of one read; reads are double, since the next one is under way.
    """
    units = block.units[1] - block.units[0]
    images = min(block.step, block.images[1] - block.images[0])
    part = units * unit_bytes
    return Projection(
        (
            ("activations, two reads, packed and unpacked", COPIES * images * units * _map_bytes(layer)),
            ("labels, two reads, packed and unpacked", COPIES * label_bytes),
            ("partial results, two", 2 * part),
            ("partial results that wait", merge_width(part, memory) * part),
        )
    )
