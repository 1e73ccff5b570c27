"""Pass 1: the exact activation level T_k that a fraction of a unit's raw activations exceeds.

Knows: order statistics by histograms of ordered bits, in one level for float16 and two for float32.
Does not know: labels, or how tasks are spread.

A histogram holds only codes above a bound taken from a sample; that the bound lies below T is proven afterwards, by the
count of what lies above it, and units where it does not are counted again from the lowest code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from dissect_xr import storage
from dissect_xr.dissection.blocks import Block
from dissect_xr.dissection.histograms import histogram
from dissect_xr.dissection.layers import Layer, ahead, bits

BIN_BITS = 16
"""Bits of a code that one histogram resolves."""

SAMPLE = 512
"""Images that the bound is taken from, at most an eighth of all: values vary more between images than within one."""

Sparse = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(key, count): key = unit << 32 + code + MIDDLE, ascending."""

MIDDLE = 1 << 31
"""Makes codes positive inside a key."""


@dataclass(frozen=True)
class HistogramTask:
    """One block's histogram."""

    layer: Layer
    block: Block
    shift: int
    """bits dropped from the right of a code"""
    low: NDArray[np.int64]
    """(unit of the block,) lowest code counted"""
    high: NDArray[np.int64]
    """(unit of the block,) highest code counted"""

    @property
    def what(self) -> str:
        """For messages."""
        (first, last), units = self.block.images, self.block.units
        span = f"images number {first} to {last - 1}, units {units[0]} to {units[1] - 1}"
        return f"thresholds of {self.layer.path}, {span}"


def rank(fraction: float, count: int) -> int:
    """Index of T among `count` values in descending order: floor(fraction * count), the fraction as written in decimal.

    >>> rank(0.005, 1000)
    5
    """
    return floor(Fraction(repr(float(fraction))) * count)


def top_code(itemsize: int) -> int:
    """The ordered code of +inf, of a float of `itemsize` bytes; that of -inf is its negative."""
    return 0x7C00 if itemsize == 2 else 0x7F800000


def decode(codes: NDArray[np.int64], itemsize: int) -> NDArray[np.float32]:
    """Values of ordered codes."""
    sign = 1 << (8 * itemsize - 1)
    raw = np.where(codes >= 0, codes, -codes | sign)
    return raw.astype(f"u{itemsize}").view(f"f{itemsize}").astype(np.float32)


def sample_bound(task: tuple[Layer, float]) -> NDArray[np.int64]:
    """(unit,) codes below which T most likely does not lie, from whole chunks spread over the images."""
    layer, fraction = task
    images, units = layer.shape[:2]
    chunk = layer.chunk[0]
    starts = range(0, images, chunk)
    wanted = min(len(starts) // 8, -(-SAMPLE // chunk))
    if not wanted:
        return np.full(units, -top_code(layer.itemsize), np.int64)
    array = storage.read(layer.url, f"{layer.path}/activation")
    picked = [starts[n * len(starts) // wanted] for n in range(wanted)]
    bound = np.empty(units, np.int64)
    for first in range(0, units, layer.chunk[1]):
        span = slice(first, first + layer.chunk[1])
        values = np.concatenate([array[i : i + chunk, span] for i in picked])
        # As signed bits, which order positive values as they are, and integers are partitioned faster.
        flat = np.moveaxis(bits(values, "i"), 1, 0).reshape(values.shape[1], -1)
        # Far below T on purpose: counting a few more values costs less than searching a block again.
        kept = flat.shape[1] - 1 - rank(min(0.5, 3 * fraction + 0.03), flat.shape[1])
        level = np.partition(flat, kept, axis=1)[:, kept]
        bound[span] = np.where(level > 0, level, -top_code(layer.itemsize))
    return bound


def histogram_block(task: HistogramTask) -> Sparse:
    """Codes of one block and how often each occurs."""
    layer, (first, last) = task.layer, task.block.units
    array = storage.read(layer.url, f"{layer.path}/activation")
    peaks = storage.read(layer.url, f"{layer.path}/peak")
    base = (task.low >> task.shift) << task.shift
    widths = np.maximum(0, ((task.high - base) >> task.shift) + 1)
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    counts = np.zeros(offsets[-1], np.int64)

    def read(images: tuple[int, int]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        span = slice(*images), slice(first, last)
        return array[span], peaks[span]

    for values, peak in ahead(read, task.block.reads):
        flat = bits(values.reshape(*values.shape[:2], -1), "i")
        histogram(flat, bits(peak, "i"), base, task.shift, counts, offsets, task.high)
    found = np.flatnonzero(counts)
    unit = np.repeat(np.arange(widths.size), np.diff(np.searchsorted(found, offsets)))
    code = ((found - offsets[unit]) << task.shift) + base[unit]
    return ((unit << 32) + code + MIDDLE).astype(np.int64), counts[found]


def merge_histograms(*parts: Sparse) -> Sparse:
    """The histogram of all parts together."""
    keys, which = np.unique(np.concatenate([key for key, _ in parts]), return_inverse=True)
    counts = np.zeros(keys.size, np.int64)
    np.add.at(counts, which, np.concatenate([count for _, count in parts]))
    return keys, counts


@dataclass(frozen=True)
class Selection:
    """Where the order statistics lie in a histogram; all (fraction, unit)."""

    code: NDArray[np.int64]
    """code of the bin"""
    above: NDArray[np.int64]
    """values in higher bins"""
    proven: NDArray[np.bool_]
    """whether the histogram reaches down to it"""


def select(histogram: Sparse, units: int, ranks: NDArray[np.int64]) -> Selection:
    """The bin that holds the value of each rank, counted from the largest.

    Parameters
    ----------
    ranks : (fraction, unit) int64
    """
    keys, counts = histogram
    code, above = np.zeros_like(ranks), np.zeros_like(ranks)
    proven = np.zeros(ranks.shape, np.bool_)
    edges = np.searchsorted(keys >> 32, np.arange(units + 1))
    for unit in range(units):
        mine = slice(edges[unit], edges[unit + 1])
        down = np.cumsum(counts[mine][::-1])
        place = np.searchsorted(down, ranks[:, unit], side="right")
        for f in np.flatnonzero(place < down.size):
            proven[f, unit] = True
            code[f, unit] = (keys[mine][::-1][place[f]] & 0xFFFFFFFF) - MIDDLE
            above[f, unit] = down[place[f] - 1] if place[f] else 0
    return Selection(code, above, proven)


def ranks(layer: Layer, fractions: Sequence[float], units: int) -> NDArray[np.int64]:
    """(fraction, unit) ranks of T in this layer."""
    count = layer.shape[0] * layer.cells
    return np.repeat(np.array([[rank(f, count)] for f in fractions], np.int64), units, axis=1)
