"""The principal axes of a layer's activations over all images and cells, out of core.

Knows: how a layer is cut into tasks that sum products, and what the axes of a matrix of mean products are.
Does not know: how products are summed (`moments`), or what becomes of the axes.

An example: two units that are 1 together in half of the cells, and 0 together in the others. Their covariance is 1/4 in
all four places. The first axis lies halfway between them and has the variance 1/2, the second has none.

>>> found = axes(np.full((2, 2), 0.25), np.array([0.5, 0.5]), rank=2, centred=True)
>>> found.matrix[0].round(3).tolist(), np.abs(found.variance).round(3).tolist()
([0.707, 0.707], [0.5, 0.0])
>>> found.bias[0].round(3).item()  # so that the mean of the derived unit is 0
-0.707
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.bases.basis import Linear
from dissect_xr.bases.moments import (
    COLUMNS,
    HALF_EXPONENT,
    LargestTask,
    Rows,
    SumTask,
    check_cells,
    digit_count,
    exponents,
    largest,
    merge_largest,
    merge_sums,
    sums,
)
from dissect_xr.dissection.cut import COPIES, READ_BYTES, TASK_BYTES, Block, Limits, merge_width
from dissect_xr.dissection.layers import Layer
from dissect_xr.parallel.fold import Fold
from dissect_xr.parallel.resources import Projection


@dataclass(frozen=True)
class MeanProducts:
    """Mean products of every two units of a layer."""

    kinds: tuple[bool, ...]
    products: NDArray[np.float64]
    """(kind, unit, unit) without the product of their means where the kind is True"""
    means: NDArray[np.float64]
    """(unit,)"""

    def axes(self, *, rank: int, centred: bool) -> Linear:
        """The first `rank` principal axes."""
        return axes(self.products[self.kinds.index(centred)], self.means, rank=rank, centred=centred)


def axes(products: NDArray[np.float64], means: NDArray[np.float64], *, rank: int, centred: bool) -> Linear:
    """The first axes of a symmetric matrix (unit, unit), by falling variance; each row's largest number is positive.

    Centred, means are subtracted from the derived units, by their bias.
    """
    variance, columns = np.linalg.eigh(products)
    matrix = columns.T[::-1][:rank]
    largest = np.take_along_axis(matrix, np.abs(matrix).argmax(axis=1)[:, None], axis=1)
    matrix = matrix * np.where(largest < 0, -1.0, 1.0)
    bias = -(matrix.astype(np.float32).astype(np.float64) @ means) if centred else np.zeros(len(matrix))
    return Linear(matrix, bias, variance[::-1][:rank].copy())


def mean_products(
    layer: Layer, kinds: tuple[bool, ...], limits: Limits
) -> Generator[Sequence[Fold], Sequence[Any], MeanProducts]:
    """Mean products of a recorded layer, in steps (`parallel.fold.Steps`); exact sums, so the same for every cut."""
    check_cells(layer)
    units = layer.shape[1]
    powers = np.full(units, HALF_EXPONENT, np.int64)
    if layer.itemsize == 4:
        row = sum_blocks(layer, limits)[0]
        (found,) = yield [Fold(None, [LargestTask(layer, block) for block in row], largest, merge_largest)]
        powers = exponents(found)
    folds, finish = [], Rows(powers, layer.shape[0] * layer.cells, kinds)
    for row in sum_blocks(layer, limits):
        first, stop = row[0].units
        tasks = [SumTask(layer, block, powers, columns(layer, limits)) for block in row]
        width = merge_width((stop - first) * row_bytes(layer), limits.memory)
        folds.append(Fold((first, stop), tasks, sums, merge_sums, finish, width))
    parts = yield folds
    return MeanProducts(kinds, np.concatenate([part for part, _ in parts], axis=1), parts[0][1])


def sum_blocks(layer: Layer, limits: Limits) -> list[list[Block]]:
    """The tasks that sum products: for each block of rows a list of blocks, which together cover all images."""
    images, units = layer.shape[:2]
    height = max(1, min(units, limits.memory // 8 // row_bytes(layer)))
    spans = [(row, min(row + height, units)) for row in range(0, units, height)]
    image_bytes, chunk = units * layer.cells * layer.itemsize, layer.chunk[0]
    step = max(1, min(READ_BYTES, limits.memory // 4 // COPIES) // (image_bytes * chunk)) * chunk
    # A byte takes as long as those of a derived layer do (`cut`): each value is multiplied with those of all units.
    work = 1 + units / 64
    ranges = max(ceil(images * image_bytes * work / TASK_BYTES), ceil(limits.tasks / len(spans)))
    length = max(step, ceil(ceil(images / ranges) / step) * step)
    return [[Block(span, (i, min(i + length, images)), step) for i in range(0, images, length)] for span in spans]


def sum_tasks(layer: Layer, limits: Limits) -> int:
    """Tasks of `mean_products`, for a progress bar."""
    blocks = sum_blocks(layer, limits)
    return sum(map(len, blocks)) + (len(blocks[0]) if layer.itemsize == 4 else 0)


def row_bytes(layer: Layer) -> int:
    """Bytes of the sums of one row, with the unit's own."""
    digits = digit_count(layer)
    return 8 * (2 * digits - 1) * layer.shape[1] + 8 * digits


def columns(layer: Layer, limits: Limits) -> int:
    """Cells whose digits are in memory at a time: they and what they are made of take an eighth of the memory."""
    return max(1, min(COLUMNS, limits.memory // 8 // (8 * (digit_count(layer) + 3) * layer.shape[1])))


def projected(layer: Layer, limits: Limits) -> Projection:
    """The memory that a task of `mean_products` needs at most, without the process itself."""
    block = sum_blocks(layer, limits)[0][0]
    part = (block.units[1] - block.units[0]) * row_bytes(layer)
    images = min(block.step, block.images[1] - block.images[0])
    digits = 8 * (digit_count(layer) + 3) * layer.shape[1] * columns(layer, limits)
    return Projection(
        (
            (
                "activations, two reads, packed and unpacked",
                COPIES * images * layer.shape[1] * layer.cells * layer.itemsize,
            ),
            ("digits of some cells", digits),
            ("sums, two", 2 * part),
            ("sums that wait", merge_width(part, limits.memory) * part),
        )
    )
