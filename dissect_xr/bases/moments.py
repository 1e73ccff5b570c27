"""Exact sums over all images and cells of a layer: of each unit's activations, and of the products of every two units'.

Knows: how a task sums the images of its block, so that no sum is ever rounded; that sums of two tasks are added.
Does not know: principal axes, or where tasks run.

Sums of float64 depend on their order in the last bits, so these are sums of whole numbers. Every float16 is a whole
number times 2**-24, of at most 40 bits. The number is written with three digits of 14 bits, from -8,192 to 8,191,
and a product of two numbers is a sum of nine products of digits. A matrix product in float64 adds products of digits of
2**26 at most: up to 2**27 of them are exact in any order, on any processor. What it gives is added up in int64. The
result is the same for every cut, number of workers and order, and it is rounded once, when it is divided.

An example: the numbers of 1.5 and of -2**-24 are 25,165,824 and -1. In digits, the lowest first, they are (0, 1536, 0)
and (-1, 0, 0), and their product is -1536 * 2**14 * 2**-48.

>>> values = np.array([[1.5, -(2.0**-24)]], np.float16)
>>> parts = digits(values, np.array([-24]), 3)
>>> [part.ravel().tolist() for part in parts]
[[0.0, -1.0], [1536.0, 0.0], [0.0, 0.0]]
>>> 1536 * 2**14 * -1 * 2.0**-48 == 1.5 * -(2.0**-24)
True

Values of float32 have exponents too far apart for whole numbers of one kind. Each unit's are taken as whole numbers
times a power of two of its own, 2**54 of which its largest value does not reach: they are exact where they are at least
2**-30 of that value, and changed by at most 2**-54 of it where they are smaller. The sums are exact again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection.cut import Block
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.dissection.layers import Layer, prefetch
from dissect_xr.errors import DissectError

BITS = 14
"""Bits of a digit."""

HALF_EXPONENT, HALF_DIGITS = -24, 3
"""float16 values are whole numbers times 2**-24 of three digits."""

SINGLE_BITS, SINGLE_DIGITS = 54, 4
"""float32 values are taken as whole numbers of at most 54 bits, of four digits."""

COLUMNS = 4096
"""Cells whose products are added by one matrix product at most."""

MOST_CELLS = 2**34
"""Cells of a unit at most: four products of digits, of 2**26 at most, of so many cells are below 2**63."""

Sums = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Sums of products of digits (class, row, unit) and of digits (digit, unit): class s has the weight 2**(14 s)."""


@dataclass(frozen=True)
class SumTask:
    """The sums of one block, to be made; its units are the rows of the matrix of products."""

    layer: Layer
    block: Block
    exponents: NDArray[np.int64]
    """(unit,) of two, that values are whole numbers of"""
    columns: int
    """cells whose digits are in memory at a time"""

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        first, last = self.block.images
        return f"products of units of {self.layer.path}, images number {first} to {last - 1}"


@dataclass(frozen=True)
class LargestTask:
    """The largest absolute values of a block, to be found."""

    layer: Layer
    block: Block

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        first, last = self.block.images
        return f"largest values of {self.layer.path}, images number {first} to {last - 1}"


def largest(task: LargestTask) -> NDArray[np.float32]:
    """The largest absolute value of each unit in a block, (unit,)."""
    found = np.zeros(task.layer.shape[1], np.float32)
    for values in prefetch(Maps(task.layer).values, task.block.reads):
        np.maximum(found, np.abs(values).max(axis=(0, 2, 3)), out=found)
    return found


def merge_largest(*parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest of each unit in all parts."""
    return np.asarray(np.maximum.reduce(parts))


def exponents(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of units with these largest absolute values: whole numbers times 2**exponent have at most `SINGLE_BITS` bits.

    >>> exponents(np.array([1.0, 0.75, 0.0], np.float32)).tolist()
    [-53, -54, -54]
    """
    return (np.frexp(values)[1] - SINGLE_BITS).astype(np.int64)


def digit_count(layer: Layer) -> int:
    """Digits of a value of this layer."""
    return HALF_DIGITS if layer.itemsize == 2 else SINGLE_DIGITS


def digits(values: NDArray[np.floating], exponents: NDArray[np.int64], count: int) -> list[NDArray[np.float64]]:
    """The digits of values (unit, cell), the lowest first, as whole numbers in float64."""
    whole = np.rint(np.ldexp(values.astype(np.float64), -exponents[:, None])).astype(np.int64)
    found = []
    for _ in range(count - 1):
        low = ((whole + (1 << BITS - 1)) & ((1 << BITS) - 1)) - (1 << BITS - 1)
        found.append(low.astype(np.float64))
        whole = (whole - low) >> BITS
    return [*found, whole.astype(np.float64)]


def sums(task: SumTask) -> Sums:
    """The sums of one block.

    Memory: two reads of all units, the digits of `columns` cells, and the sums.
    """
    layer, rows = task.layer, slice(*task.block.units)
    count, units = digit_count(layer), layer.shape[1]
    products = np.zeros((2 * count - 1, rows.stop - rows.start, units), np.int64)
    totals = np.zeros((count, units), np.int64)
    for values in prefetch(Maps(layer).values, task.block.reads):
        for part in _columns(values, task.columns):
            found = digits(part, task.exponents, count)
            for n, one in enumerate(found):
                totals[n] += one.sum(axis=1).astype(np.int64)
                if not one[rows].any():  # as the highest digits of most networks
                    continue
                for m, other in enumerate(found):
                    if other.any():
                        products[n + m] += (one[rows] @ other.T).astype(np.int64)
    return products, totals


def _columns(values: NDArray[np.floating], columns: int) -> Iterator[NDArray[np.floating]]:
    """Maps (image, unit, y, x) as (unit, cell) of at most so many cells at a time."""
    images, units = values.shape[:2]
    flat = values.reshape(images, units, -1)
    cells = flat.shape[2]
    step = max(1, columns // cells)
    for i in range(0, images, step):
        for x in range(0, cells, columns):
            yield flat[i : i + step, :, x : x + columns].transpose(1, 0, 2).reshape(units, -1)


def merge_sums(*parts: Sums) -> Sums:
    """The sums of all parts together."""
    products, totals = parts[0][0].copy(), parts[0][1].copy()
    for more_products, more_totals in parts[1:]:
        products += more_products
        totals += more_totals
    return products, totals


@dataclass(frozen=True)
class Rows:
    """`Fold.finish` of the sums of some rows: the mean products of these units with all units, and all means."""

    exponents: NDArray[np.int64]
    cells: int
    """of a unit in all images"""
    kinds: tuple[bool, ...]
    """what is wanted: mean products (False), or those less the product of both means (True)"""

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        return "mean products of units"

    def __call__(self, rows: tuple[int, int], sums: Sums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(kind, row, unit) mean products, and (unit,) means; each is rounded once.

        Python's whole numbers have as many bits as it takes, and their quotient is the float64 nearest to the exact
        one.
        """
        products, totals = sums
        found = np.empty((len(self.kinds), *products.shape[1:]), np.float64)
        total, powers = _numbers(totals), self.exponents.tolist()
        for unit, part in enumerate(np.moveaxis(products, 1, 0), rows[0]):
            for other, product in enumerate(_numbers(part)):
                power = powers[unit] + powers[other]
                for n, centred in enumerate(self.kinds):
                    number = product * self.cells - (total[unit] * total[other] if centred else 0)
                    found[n, unit - rows[0], other] = _quotient(number, self.cells**2, power)
        means = [_quotient(number, self.cells, exponent) for number, exponent in zip(total, powers, strict=True)]
        return found, np.array(means)


def _numbers(parts: NDArray[np.int64]) -> list[int]:
    """The whole numbers (unit,) of digits (digit, unit)."""
    return [sum(part << BITS * n for n, part in enumerate(column)) for column in parts.T.tolist()]


def _quotient(number: int, divisor: int, exponent: int) -> float:
    """number * 2**exponent / divisor, rounded once."""
    return (number << exponent) / divisor if exponent >= 0 else number / (divisor << -exponent)


def check_cells(layer: Layer) -> None:
    """Raise where a layer has so many cells that sums would not fit int64."""
    cells = layer.shape[0] * layer.cells
    if cells > MOST_CELLS:
        raise DissectError(
            f"{layer.path}: {cells:,} cells of a unit, expected at most {MOST_CELLS:,} for principal axes. Use fewer "
            "images."
        )
