"""Pass 1, the parts of it: the exact activation level T_k that a fraction of a unit's raw activations exceeds.

Knows: how an order statistic is found in a histogram of floating-point codes, and how a sample bounds it from below.
Does not know: labels, which searches follow each other (`passes`), or where tasks run.

Every floating-point value has a *code*, an integer that grows with the value: the bits of a positive value, and the
negated bits without the sign of a negative one. A histogram of codes therefore holds all order statistics exactly. To
keep it small, it counts only codes at or above a bound, which is taken from a sample; afterwards the counts prove that
the bound was low enough.

A worked example. A unit has n = 1,000 values, one for each of 1,000 images, stored in 100 chunks of 10 images. At a
fraction of 0.005, T is the value with index floor(0.005 * 1,000) = 5 in descending order: the sixth largest.

1. Sample. 6 of the 100 chunks are read, which are 60 values. The bound is the level that a share of
   3 * 0.005 + 4 / 60 = 0.082 of them exceeds, index 4 in descending order: the fifth largest, say 1.5. This share is
   far above 0.005 on purpose, so that the bound most likely lies below T.
2. Count. The histogram counts the values of at least 1.5 only. Say there are 80: 1.5 occurs 70 times, 2.0 6 times,
   2.5 3 times, and 3.0 once.
3. Select. From the largest value downwards 1, 4, 10 and 80 values are passed. Index 5 lies between 4 and 10, so
   T = 2.0, and 4 values lie strictly above it (the exceedance).
4. Prove. The histogram holds 80 values, more than 5. Every value that was not counted is below 1.5, so the sixth
   largest of all is the sixth largest of those counted.

Had the bound been 2.75, the histogram would hold one value only. One is not more than 5, so nothing is proven, and the
unit is searched again, this time over all codes.

>>> from dissect_xr.floats import decode
>>> values = np.array([1.5, 2.0, 2.5, 3.0], np.float16)
>>> keys, counts = values.view(np.int16) + np.int64(MIDDLE), np.array([70, 6, 3, 1])
>>> index = np.array([[rank(0.005, 1000)]])
>>> found = select((keys, counts), 1, index)
>>> decode(found.code, 2).item(), found.above.item(), found.proven.item()
(2.0, 4, True)
>>> select((keys[3:], counts[3:]), 1, index).proven.item()
False
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection.cut import Block, ahead, part_bytes
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.dissection.layers import Layer, prefetch
from dissect_xr.dissection.levels.histograms import histogram, histogram_of_tail
from dissect_xr.floats import bits
from dissect_xr.tail.stored import StoredTail

BIN_BITS = 16
"""A histogram has at most 2**16 bins per unit: a bin for each code of float16."""

BIN_BYTES = 20
"""Bytes that a bin takes at most: its count (4), and its key and count (16) in the list of bins that are not empty."""

TAIL_BINS = 256
"""Bins per unit of a search in a tail at least, also where those of all units do not fit."""

SAMPLE = 1024
"""Images in a sample; 1/16 of all images where that is fewer. Values vary more between images than within one."""

SAMPLE_VALUES = 1 << 14
"""Values of a unit in a sample, about."""

SAMPLE_UNITS = 256
"""Units that one task samples."""

LISTED_UNITS = 64
"""Units whose bins are listed at a time."""

MERGED_UNITS = 16
"""Units whose histograms are merged at a time."""

LEAST_CHUNKS = 8
"""A layer of fewer chunks of images than this is not sampled: all its values are counted."""

SparseHistogram = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Keys and counts of the bins that are not empty, keys ascending; a key is ``(unit << 32) + code + MIDDLE``."""

MIDDLE = 1 << 31
"""Added to a code in a key, so that negative codes become positive and keep their order."""


@dataclass(frozen=True)
class HistogramTask:
    """The histogram of one block, to be counted."""

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
        """What the task does, for messages."""
        (first, last), units = self.block.images, self.block.units
        covered = f"images number {first} to {last - 1}, units {units[0]} to {units[1] - 1}"
        return f"thresholds of {self.layer.path}, {covered}"


@dataclass(frozen=True)
class LayerThresholds:
    """The thresholds of one layer, and how many activations exceed each."""

    threshold: NDArray[np.float32]
    """(fraction, unit)"""
    exceedance: NDArray[np.int64]
    """(fraction, unit)"""
    too_high: tuple[int, ...] = ()
    """units whose thresholds are not known, since they lie below the bounds of the layer's tail"""


def rank(fraction: float, count: int) -> int:
    """Index of T among `count` values in descending order: floor(fraction * count), in exact decimal arithmetic.

    >>> rank(0.005, 1000)
    5
    """
    return floor(Fraction(repr(float(fraction))) * count)


def top_code(itemsize: int) -> int:
    """The code of +inf for floats of `itemsize` bytes; the code of -inf is its negative."""
    return 0x7C00 if itemsize == 2 else 0x7F800000


def bins(layer: Layer, memory: int) -> int:
    """Bins per unit of one search: 2**16, or fewer, so that those of a chunk of units fit in their share of the memory.

    Of a tail, which is read anew for each block of units, those of all units should fit: two searches in turn, the
    second inside a bin of the first, cost two reads.
    """
    most = part_bytes(layer, memory, search=True) // BIN_BYTES
    fit = most // layer.chunk[1]
    if layer.tail is not None:
        fit = min(fit, max(TAIL_BINS, most // layer.shape[1]))
    return max(2, min(1 << BIN_BITS, fit))


def shift(codes: int, most: int) -> int:
    """How many low bits of a code to drop, so that `codes` successive codes fall into at most `most` bins.

    >>> shift(1000, 1000), shift(1001, 1000), shift(1 << 30, 1 << 16)
    (0, 1, 14)
    """
    return (-(-codes // most) - 1).bit_length()


@dataclass(frozen=True)
class SampleTask:
    """A range of units, whose bounds are to be taken from a sample."""

    layer: Layer
    units: tuple[int, int]
    fraction: float

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        return f"thresholds of {self.layer.path}, units {self.units[0]} to {self.units[1] - 1}"


def sample_tasks(layer: Layer, fraction: float) -> list[SampleTask]:
    """Tasks that cover the layer's units, each a range of whole chunks; none where all stored values are counted."""
    if layer.shape[0] <= (LEAST_CHUNKS - 1) * layer.chunk[0] or layer.tail is not None:
        return []
    length = layer.chunk[1] * max(1, SAMPLE_UNITS // layer.chunk[1])
    units = layer.shape[1]
    return [SampleTask(layer, (u, min(u + length, units)), fraction) for u in range(0, units, length)]


def sample_bound(task: SampleTask) -> NDArray[np.int64]:
    """Codes (unit of the task,) that most likely lie below T, from whole chunks spread evenly over the images."""
    layer, images, chunk = task.layer, task.layer.shape[0], task.layer.chunk[0]
    starts = range(0, images, chunk)
    wanted = min(max(1, len(starts) // 16), -(-SAMPLE // chunk))
    maps = Maps(layer, task.units)
    step = ceil(wanted * chunk * layer.cells / SAMPLE_VALUES)
    parts = []
    for n in range(wanted):
        first = starts[n * len(starts) // wanted]
        values = maps.values((first, min(first + chunk, images)))
        # Partitioned as signed bits, which is faster: positive values have the order of their bits. Where the result is
        # not positive it is replaced below, so the wrong order of negative values does no harm.
        flat = np.moveaxis(bits(values, "i"), 1, 0).reshape(values.shape[1], -1)
        parts.append(flat[:, n % step :: step].copy())
    sample = np.concatenate(parts, axis=1)
    # Far below T on purpose: to count a few more values costs less than to search a unit again. The worst case is a
    # unit that is active all over one image in 200 and nowhere else. Its bound is too high only where 20 or more of
    # 1,024 sampled images are such images, or 5 of 32, which happens once in a million.
    share = min(0.5, 3 * task.fraction + 4 / min(images, wanted * chunk))
    kept = sample.shape[1] - 1 - rank(share, sample.shape[1])
    level = np.partition(sample, kept, axis=1)[:, kept]
    return np.where(level > 0, level, -top_code(layer.itemsize)).astype(np.int64)


def histogram_block(task: HistogramTask) -> SparseHistogram:
    """The histogram of one block: its codes, `task.shift` bits dropped, and how often each occurs."""
    base = (task.low >> task.shift) << task.shift
    widths = np.maximum(0, ((task.high - base) >> task.shift) + 1)
    offsets = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    counts = np.zeros(offsets[-1], np.int32)
    if task.layer.tail is not None:
        stored, units = StoredTail(task.layer.tail, ahead(task.layer, task.block)), slice(*task.block.units)
        low = np.maximum(task.low, stored.lowest[units])
        for packed in prefetch(stored, task.block.reads):
            histogram_of_tail(
                packed.span_count, packed.spans[1], bits(packed.values, "i"), units.start, low, base, task.shift,
                counts, offsets, task.high,
            )  # fmt: skip
        return _listed(counts, offsets, base, task.shift)
    for values, peak in prefetch(Maps(task.layer, task.block.units, ahead(task.layer, task.block)), task.block.reads):
        flat = bits(values.reshape(*values.shape[:2], -1), "i")
        histogram(flat, bits(peak, "i"), base, task.shift, counts, offsets, task.high)
    return _listed(counts, offsets, base, task.shift)


def _listed(
    counts: NDArray[np.int32], offsets: NDArray[np.int64], base: NDArray[np.int64], shift: int
) -> SparseHistogram:
    """The bins that are not empty; made some units at a time, so that only the result grows with their number."""
    keys, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    first = (np.arange(base.size) << 32) + base + MIDDLE
    for unit in range(0, base.size, LISTED_UNITS):
        edges = offsets[unit : unit + LISTED_UNITS + 1]
        at = np.flatnonzero(counts[edges[0] : edges[-1]]) + edges[0]
        bins = np.diff(np.searchsorted(at, edges))
        mine = first[unit : unit + LISTED_UNITS] - (edges[:-1] << shift)
        keys.append(np.repeat(mine, bins) + (at << shift))
        found.append(counts[at].astype(np.int64))
    return np.concatenate(keys), np.concatenate(found)


def merge_histograms(*parts: SparseHistogram) -> SparseHistogram:
    """The histogram of all parts together; merged some units at a time, since that takes several times their memory."""
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


def _merged(parts: Sequence[SparseHistogram]) -> SparseHistogram:
    keys = np.concatenate([key for key, _ in parts])
    # The parts are sorted already, and a stable sort only merges sorted runs.
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    if not starts.size:
        return keys, np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(np.concatenate([count for _, count in parts])[order], starts)


@dataclass(frozen=True)
class Selection:
    """The bins in which the order statistics lie; all arrays are (fraction, unit)."""

    code: NDArray[np.int64]
    """lowest code of the bin"""
    above: NDArray[np.int64]
    """how many values lie in higher bins"""
    proven: NDArray[np.bool_]
    """whether the histogram holds so many values that the order statistic is among them"""
    counted: NDArray[np.int64]
    """how many values the histogram holds of the unit"""

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> "Selection":
        """That of empty histograms."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros(shape, int))


def select(histogram: SparseHistogram, units: int, ranks: NDArray[np.int64]) -> Selection:
    """For each unit and fraction, the bin that holds the value of that rank.

    Parameters
    ----------
    ranks : (fraction, unit) int64, indices in descending order, from 0
    """
    keys, counts = histogram
    found = Selection.nothing(ranks.shape)
    edges = np.searchsorted(keys >> 32, np.arange(units + 1))
    up = np.concatenate([[0], np.cumsum(counts)])
    start, end = up[edges[:-1]], up[edges[1:]]
    found.counted[:] = end - start
    found.proven[:] = ranks < found.counted
    # The highest bin with more than `rank` values in it and above it: those below its end are at least end - rank.
    bins = np.searchsorted(up[1:], np.where(found.proven, end - ranks, 1))
    found.above[:] = np.where(found.proven, end - up[1:][bins], 0) if counts.size else 0
    found.code[:] = np.where(found.proven, (keys[bins] & 0xFFFFFFFF) - MIDDLE, 0) if counts.size else 0
    return found


def ranks(layer: Layer, fractions: Sequence[float], units: int) -> NDArray[np.int64]:
    """Ranks of T in this layer for so many units, (fraction, unit)."""
    count = layer.shape[0] * layer.cells
    return np.repeat(np.array([[rank(f, count)] for f in fractions], np.int64), units, axis=1)
