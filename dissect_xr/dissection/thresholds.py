"""Pass 1: the exact activation level T_k that a fraction of a unit's raw activations exceeds.

Knows: order statistics by histograms of ordered bits, in one level for float16 and two for float32.
Does not know: labels, or how tasks are spread.

A histogram holds only codes above a bound taken from a sample; that the bound lies below T is proven afterwards, by the
count of what lies above it, and units where it does not are counted again from the lowest code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection.cut import Block
from dissect_xr.dissection.histograms import histogram
from dissect_xr.dissection.layers import Layer, ahead
from dissect_xr.floats import bits

BIN_BITS = 16
"""Bits of a code that one histogram resolves."""

BIN_BYTES = 20
"""What a bin of a block's histogram may take: its count (4), and its key and count (16) once they are listed."""

SAMPLE = 1024
"""Images that the bound is taken from, a sixteenth of small stores: values vary more between images than within one."""

SAMPLE_VALUES = 1 << 14
"""Values of a unit that the bound is taken from."""

SAMPLE_UNITS = 256
"""Units of one sample."""

MERGED_UNITS = 16
"""Units whose histograms are merged together."""

LEAST_CHUNKS = 8
"""Chunks of images under which no bound is sampled: all values are counted."""

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


def bins(layer: Layer, memory: int) -> int:
    """Bins that one search may have: 2**16, fewer where those of a chunk's units would not fit an eighth of memory."""
    return max(2, min(1 << BIN_BITS, memory // 8 // (BIN_BYTES * layer.chunk[1])))


def shift(codes: int, most: int) -> int:
    """Bits dropped from the right of a code, so that so many codes fall into at most so many bins.

    >>> shift(1000, 1000), shift(1001, 1000), shift(1 << 30, 1 << 16)
    (0, 1, 14)
    """
    return (-(-codes // most) - 1).bit_length()


@dataclass(frozen=True)
class SampleTask:
    """Units whose bound is taken from a sample."""

    layer: Layer
    units: tuple[int, int]
    fraction: float

    @property
    def what(self) -> str:
        """For messages."""
        return f"thresholds of {self.layer.path}, units {self.units[0]} to {self.units[1] - 1}"


def sample_tasks(layer: Layer, fraction: float) -> list[SampleTask]:
    """The layer's units in ranges of whole chunks."""
    length = layer.chunk[1] * max(1, SAMPLE_UNITS // layer.chunk[1])
    units = layer.shape[1]
    return [SampleTask(layer, (u, min(u + length, units)), fraction) for u in range(0, units, length)]


def sample_bound(task: SampleTask) -> NDArray[np.int64]:
    """(unit of the task,) codes below which T most likely does not lie, from whole chunks spread over the images."""
    layer, images, chunk = task.layer, task.layer.shape[0], task.layer.chunk[0]
    starts, units = range(0, images, chunk), slice(*task.units)
    wanted = min(max(1, len(starts) // 16), -(-SAMPLE // chunk))
    if len(starts) < LEAST_CHUNKS:
        return np.full(units.stop - units.start, -top_code(layer.itemsize), np.int64)
    array = store.read(layer.url, f"{layer.path}/activation")
    step = ceil(wanted * chunk * layer.cells / SAMPLE_VALUES)
    parts = []
    for n in range(wanted):
        first = starts[n * len(starts) // wanted]
        values = array[first : first + chunk, units]
        # As signed bits, which order positive values as they are, and integers are partitioned faster.
        flat = np.moveaxis(bits(values, "i"), 1, 0).reshape(values.shape[1], -1)
        parts.append(flat[:, n % step :: step].copy())
    sample = np.concatenate(parts, axis=1)
    # Far below T on purpose: counting a few more values costs less than searching a block again. The worst case is a
    # unit that fires all over one image in 200: the bound is too high where 20 of 1,024 images, or 5 of 32, are its
    # own, which happens once in a million.
    share = min(0.5, 3 * task.fraction + 4 / min(images, wanted * chunk))
    kept = sample.shape[1] - 1 - rank(share, sample.shape[1])
    level = np.partition(sample, kept, axis=1)[:, kept]
    return np.where(level > 0, level, -top_code(layer.itemsize)).astype(np.int64)


def histogram_block(task: HistogramTask) -> Sparse:
    """Codes of one block and how often each occurs."""
    layer, (first, last) = task.layer, task.block.units
    array = store.read(layer.url, f"{layer.path}/activation")
    peaks = store.read(layer.url, f"{layer.path}/peak")
    base = (task.low >> task.shift) << task.shift
    widths = np.maximum(0, ((task.high - base) >> task.shift) + 1)
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    counts = np.zeros(offsets[-1], np.int32)

    def read(images: tuple[int, int]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        span = slice(*images), slice(first, last)
        return array[span], peaks[span]

    for values, peak in ahead(read, task.block.reads):
        flat = bits(values.reshape(*values.shape[:2], -1), "i")
        histogram(flat, bits(peak, "i"), base, task.shift, counts, offsets, task.high)
    return _listed(counts, offsets, base, task.shift)


def _listed(counts: NDArray[np.int32], offsets: NDArray[np.int64], base: NDArray[np.int64], shift: int) -> Sparse:
    """Bins that are not empty; a unit at a time, so that nothing but the result grows with the units."""
    keys, found = [], []
    for unit in range(base.size):
        mine = counts[offsets[unit] : offsets[unit + 1]]
        bins = np.flatnonzero(mine)
        keys.append((unit << 32) + (bins << shift) + base[unit] + MIDDLE)
        found.append(mine[bins].astype(np.int64))
    return np.concatenate(keys), np.concatenate(found)


def merge_histograms(*parts: Sparse) -> Sparse:
    """The histogram of all parts together; some units at a time, since merging takes several times their size."""
    last = max((int(key[-1]) >> 32 for key, _ in parts if key.size), default=-1)
    edges = np.arange(0, last + 1 + MERGED_UNITS, MERGED_UNITS) << 32
    cuts = [np.searchsorted(key, edges) for key, _ in parts]
    merged = [
        _merged(
            [(key[at[n] : at[n + 1]], count[at[n] : at[n + 1]]) for (key, count), at in zip(parts, cuts, strict=True)]
        )
        for n in range(edges.size - 1)
    ]
    empty = np.empty(0, np.int64)
    return np.concatenate([k for k, _ in merged] or [empty]), np.concatenate([c for _, c in merged] or [empty])


def _merged(parts: Sequence[Sparse]) -> Sparse:
    keys = np.concatenate([key for key, _ in parts])
    # Stable sorting merges runs that are sorted already.
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    if not starts.size:
        return keys, np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(np.concatenate([count for _, count in parts])[order], starts)


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
        index = np.searchsorted(down, ranks[:, unit], side="right")
        for f in np.flatnonzero(index < down.size):
            proven[f, unit] = True
            code[f, unit] = (keys[mine][::-1][index[f]] & 0xFFFFFFFF) - MIDDLE
            above[f, unit] = down[index[f] - 1] if index[f] else 0
    return Selection(code, above, proven)


def ranks(layer: Layer, fractions: Sequence[float], units: int) -> NDArray[np.int64]:
    """(fraction, unit) ranks of T in this layer."""
    count = layer.shape[0] * layer.cells
    return np.repeat(np.array([[rank(f, count)] for f in fractions], np.int64), units, axis=1)
