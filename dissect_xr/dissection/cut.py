"""How a layer is cut into tasks: which units and images a task covers, and how many images it reads at a time.

Knows: bytes per unit and per image, what a derived layer is read from, how stores are chunked, the memory of a task,
the number of tasks.
Does not know: what a task computes. The cut never changes a result, since counts are integers.

A worked example: `layer4` of a ResNet, 63,305 images x 2,048 units x 7 x 7 cells in float16, stored in chunks of 256
images and 64 units, is counted against 1,197 concepts in 6 categories, by 16 workers of 512 MiB for each task.

- Units. The counts of a unit are 8 * (1,197 + 6 + 1) = 9,632 bytes. A partial result may take an eighth of the memory,
  64 MiB, which 6,967 units would fill: all 2,048 units form one unit block.
- Images of a read. The 49 cells of a map and its peak are 100 bytes. 256 images, one chunk, of 2,048 units are 50 MiB,
  more than the 24 MiB of a read; less than a chunk is never read, so a read is 256 images.
- Images of a task. All images are 12.1 GiB, 13 tasks of at most 1 GiB. Two tasks for each of 16 workers are more, 32.
  63,305 / 32 images, rounded up to whole reads, are 8 reads of 256, or 2,048 images: 31 tasks.
- Memory of a task. Three copies of a read of activations, 150 MiB; three copies of a read of labels of 8 MiB, 24 MiB;
  two partial results of 18.8 MiB; and six more that wait to be merged: 324 of 512 MiB.

>>> layer = Layer("activations.zarr", "20", "layer4", (63305, 2048, 7, 7), "float16", (256, 64), "", None, None)
>>> sizes = {"unit_bytes": 8 * (1197 + 6 + 1), "memory": 512 * 2**20, "label_bytes": 8 * 2**20}
>>> blocks = cut(layer, tasks=2 * 16, split_units=False, **sizes)
>>> len(blocks), len(blocks[0]), blocks[0][0]
(1, 31, Block(units=(0, 2048), images=(0, 2048), step=256))
>>> [round(size / 2**20, 1) for _, size in projected(layer, blocks[0][0], **sizes).parts]
[150.0, 24.0, 37.6, 112.9]
"""

from dataclasses import dataclass
from math import ceil

from dissect_xr import store
from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import TILE, Layer
from dissect_xr.parallel.fold import TREE
from dissect_xr.parallel.pool import Pool
from dissect_xr.parallel.resources import Projection

READ_BYTES = 24 * 2**20
"""Raw bytes of activations in one read: so many that zarr's cost per call is small, and few beside a task's memory."""

LABEL_READ_BYTES = 8 * 2**20
"""Raw bytes of labels in one read: two blocks of 256 images, of four planes of 112x112, have so many as runs."""

PART = 8
"""Share of a task's memory that a partial result may take: an eighth."""

TAIL_PART = 6
"""That of a histogram of a tail, which every block of units reads anew: the fewer blocks the better."""

COPIES = 3
"""Copies of a read in memory at once: compressed, decompressed, and the next read, which is already under way."""

TASK_BYTES = 2**30
"""Raw bytes of activations in one task at most: some seconds of work."""

COUNT_CHUNK_UNITS = 256
"""Units of one chunk of counts. With 64, as activations have, 100,000 units in five snapshots made 24,000 objects, most
of them smaller than 16 KB, and took twice as long to read."""

COUNT_CHUNK_BYTES = 8 * 2**20
"""Bytes of a chunk of counts at most, and of the maps of its units in a chunk of images: for tasks of little memory."""

RESIDENT = 288 * 2**20
"""Bytes of a worker process before it reads anything: interpreter, NumPy, zarr, Dask, kernels (274 MiB measured)."""


@dataclass(frozen=True)
class Limits:
    """What a layer is cut by, besides its own size."""

    memory: int
    """bytes that a task may use"""
    tasks: int
    """tasks that a pass over the layer has at least, where there are enough images or units"""

    @classmethod
    def of(cls, pool: Pool) -> "Limits":
        """Two tasks for each worker of the pool, so that one which is faster than the others does not wait long."""
        return cls(pool.memory, 2 * pool.workers)


@dataclass(frozen=True)
class Block:
    """The units and images that one task covers, both half-open ranges."""

    units: tuple[int, int]
    images: tuple[int, int]
    step: int
    """images read at a time"""

    @property
    def reads(self) -> list[tuple[int, int]]:
        """Half-open image ranges of the reads."""
        first, last = self.images
        return [(i, min(i + self.step, last)) for i in range(first, last, self.step)]


def ahead(layer: Layer, block: Block) -> store.Ahead:
    """What a task keeps of peaks and tails beyond the images of a read: an eighth of the read, or half of it."""
    read = block.step * (block.units[1] - block.units[0]) * _map_bytes(layer)
    return store.Ahead(block.images[1], read // (8 if layer.tail is None else 2))


def count_chunk_units(layer: Layer, unit_bytes: int) -> int:
    """Units of a chunk of counts: whole chunks of activations. Unit blocks are whole chunks of counts.

    Fewer than `COUNT_CHUNK_UNITS` where their counts, or their maps of one chunk of images, would take more than
    `COUNT_CHUNK_BYTES`.
    """
    least = layer.chunk[1]
    most = COUNT_CHUNK_BYTES // max(unit_bytes, layer.chunk[0] * _map_bytes(layer))
    return least * max(1, min(COUNT_CHUNK_UNITS, most) // least)


def cut(
    layer: Layer, *, unit_bytes: int, memory: int, tasks: int, split_units: bool, label_bytes: int = 0
) -> list[list[Block]]:
    """The layer's tasks: a list of blocks for each unit block, which together cover all images.

    A task then fits the memory (see `projected`), unless a single chunk of activations does not.

    Parameters
    ----------
    unit_bytes
        Bytes of a unit's partial result.
    memory
        Bytes that a task may use. A partial result gets a share of it (`part_bytes`), since several wait to be merged.
    tasks
        How many there are at least, where there are enough images or units.
    split_units
        Whether there may be more unit blocks than the memory asks for, to make up the number of tasks, and of fewer
        units than a chunk of counts has. Good where only activations are read and no counts are stored.
    label_bytes
        Bytes of labels in one read.
    """
    images, units = layer.shape[:2]
    chunk_images, chunk_units = layer.chunk[0], layer.chunk[1] if split_units else count_chunk_units(layer, unit_bytes)
    room = memory - memory // 4 - COPIES * label_bytes
    per_unit = COPIES * chunk_images * _map_bytes(layer) + 2 * unit_bytes + layer.row_bytes
    beside = COPIES * chunk_images * layer.source_bytes + _tile_bytes(layer)
    fit = min(part_bytes(layer, memory, search=split_units) // max(1, unit_bytes), (room - beside) // per_unit)
    if split_units and layer.tail is not None:
        # Two parts and two that wait, which is more than the quarter that is reserved.
        fit = min(fit, (room + memory // 4 - beside) // (per_unit + 2 * unit_bytes))
    fit //= chunk_units
    size = chunk_units * max(1, fit)
    # Each unit block of a derived layer reads its source again, and each of a tail all of it: no more of them than the
    # memory asks for.
    if split_units and layer.derivation is None and layer.tail is None:
        size = min(size, ceil(ceil(units / tasks) / chunk_units) * chunk_units)
    size = min(units, size)
    spans = [(u, min(u + size, units)) for u in range(0, units, size)]
    per_image = size * _map_bytes(layer) + layer.source_bytes
    read = min(READ_BYTES, (room - (2 * unit_bytes + layer.row_bytes) * size - _tile_bytes(layer)) // COPIES)
    step = max(1, read // (per_image * chunk_images)) * chunk_images
    ranges = max(ceil(images * per_image * _work(layer) / TASK_BYTES), ceil(tasks / len(spans)))
    length = max(step, ceil(ceil(images / ranges) / step) * step)
    return [[Block(span, (i, min(i + length, images)), step) for i in range(0, images, length)] for span in spans]


def part_bytes(layer: Layer, memory: int, *, search: bool) -> int:
    """Bytes that a partial result may take, of a search for thresholds or of counts."""
    return memory // (TAIL_PART if search and layer.tail is not None else PART)


def _map_bytes(layer: Layer) -> int:
    """Bytes of a map, and of its peak."""
    return (layer.cells + 1) * layer.itemsize


def _tile_bytes(layer: Layer) -> int:
    """Bytes of a tile of a derived layer's source, as stored and as float32."""
    return 0 if layer.derivation is None else 6 * TILE * layer.derivation.source.shape[1]


def _work(layer: Layer) -> float:
    """How long a byte of a layer takes, compared with one that is only read and counted.

    A value takes 3 ns to be read and counted; derived from n units it takes n products of 0.05 ns besides.
    """
    return 1 if layer.derivation is None else 1 + layer.derivation.source.shape[1] / 64


def merge_width(part_bytes: int, memory: int) -> int:
    """How many partial results of `part_bytes` one task merges: as many as fit a quarter of the memory, at least 2."""
    return int(min(TREE, max(2, memory // 4 // max(1, part_bytes))))


def label_step(labels: ProbeLabels, memory: int) -> int:
    """Images whose labels are read at a time: whole shards, or chunks where a shard exceeds 1/16 of the memory."""
    images = min(LABEL_READ_BYTES, memory // 16) // max(1, labels.run_bytes)
    return images // labels.shard * labels.shard or max(1, images // labels.chunk) * labels.chunk


def projected(layer: Layer, block: Block, *, unit_bytes: int, memory: int, label_bytes: int = 0) -> Projection:
    """The memory that a task needs at most for this block, without the process itself (`RESIDENT`).

    Parameters are those of `cut`. Two reads are in memory at a time, since the next one is already under way.
    """
    units = block.units[1] - block.units[0]
    images = min(block.step, block.images[1] - block.images[0])
    part = units * unit_bytes
    derived = (
        ("activations that it is derived from, two reads, packed and unpacked", COPIES * images * layer.source_bytes),
        ("rows of the basis, and sums of a tile", units * layer.row_bytes + _tile_bytes(layer)),
    )
    return Projection(
        (
            ("activations, two reads, packed and unpacked", COPIES * images * units * _map_bytes(layer)),
            *(derived if layer.derivation is not None else ()),
            ("labels, two reads, packed and unpacked", COPIES * label_bytes),
            ("partial results, two", 2 * part),
            ("partial results that wait", merge_width(part, memory) * part),
        )
    )
