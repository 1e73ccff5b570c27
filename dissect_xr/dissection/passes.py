"""The two passes over a layer, as steps of folds: tasks whose partial results are merged.

Knows: which tasks make up a pass, which searches for a threshold follow each other, which results are merged.
Does not know: what is finished already, or where results are stored: the caller hands in a function that writes them.

How the searches of pass 1 follow each other, for the unit of the worked example in `thresholds`, which has 1,000 values
and the sixth largest of them as T:

1. The sample gives a bound of 1.5; the first search counts codes from there to infinity.
2. Where that histogram holds no more than 5 values, the bound was too high. The unit is searched again over all codes,
   which always proves T. Units whose T is proven are left out of this search.
3. float16 is then done: there are fewer than 2**16 codes, and each has a bin of its own. From 1.5 to infinity float32
   has 1,069,547,521 codes, so the lowest 14 bits are dropped and a bin holds 2**14 codes: one covers
   [2, 2.00390625). Say T lies in that bin and 4 values lie in higher ones. A second search counts only codes inside the
   bin, one code a bin, and T is the value with index 5 - 4 = 1 there. If one value of the bin lies above it, the
   exceedance is 4 + 1 = 5.

>>> lowest, highest = np.array([1.5, np.inf], np.float32).view(np.int32).tolist()
>>> dropped = shift(highest - lowest + 1, 2**16)
>>> highest - lowest + 1, dropped, shift(2**dropped, 2**16)
(1069547521, 14, 0)
>>> code = np.array([2.0], np.float32).view(np.int32).astype(np.int64)
>>> decode(np.array([code[0], code[0] + 2**14]), 4).tolist()
[2.0, 2.00390625]
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection.counts import CountTask, count_block, merge_counts
from dissect_xr.dissection.cut import Block, Limits, cut, label_step, merge_width, projected
from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import Layer
from dissect_xr.dissection.levels.tails import proven_by
from dissect_xr.dissection.method import Domain
from dissect_xr.dissection.thresholds import (
    BIN_BYTES,
    HistogramTask,
    LayerThresholds,
    Selection,
    bins,
    histogram_block,
    merge_histograms,
    ranks,
    sample_bound,
    sample_tasks,
    select,
    shift,
    top_code,
)
from dissect_xr.floats import codes, decode
from dissect_xr.parallel.fold import Fold
from dissect_xr.tail.stored import StoredTail


@dataclass(frozen=True)
class Search:
    """A search for the thresholds of one layer: a histogram of the codes from `low` to `high`."""

    layer: Layer
    shift: int
    """low bits of a code that are dropped: 2**shift codes share a bin"""
    low: NDArray[np.int64]
    """(unit,) lowest code counted; above `high` for a unit that is left out"""
    high: NDArray[np.int64]
    """(unit,) highest code counted"""
    ranks: NDArray[np.int64]
    """(fraction, unit) index of T among the unit's values of at most `high`, in descending order"""


class Selector:
    """What a search does with a merged histogram (`Fold.finish`); a class, so that it can be sent to workers."""

    def __init__(self, units: int, ranks: NDArray[np.int64]) -> None:
        self.units, self.ranks = units, ranks

    def __call__(self, key: Any, histogram: Any) -> Selection:
        """The bins that hold the thresholds of one unit block."""
        return select(histogram, self.units, self.ranks)


def threshold_sizes(layer: Layer, memory: int, width: int | None = None) -> dict[str, int]:
    """Arguments of `cut` and `projected` for a search of `width` bins per unit; None: as many as the memory allows."""
    return {"memory": memory, "unit_bytes": BIN_BYTES * (width or bins(layer, memory))}


def threshold_blocks(layer: Layer, limits: Limits, width: int | None = None) -> list[list[Block]]:
    """The blocks of a search of `width` bins per unit; None: as many as the memory allows."""
    return cut(layer, tasks=limits.tasks, split_units=True, **threshold_sizes(layer, limits.memory, width))


def count_sizes(labels: ProbeLabels, fractions: int, memory: int) -> dict[str, int]:
    """Arguments of `cut` and `projected` for counting."""
    return {
        "memory": memory,
        "unit_bytes": labels.unit_bytes(fractions),
        "label_bytes": min(label_step(labels, memory), labels.shape[0]) * labels.run_bytes,
    }


def count_blocks(layer: Layer, labels: ProbeLabels, fractions: int, limits: Limits) -> list[list[Block]]:
    """The blocks of counting; raises where the largest task would need more memory than it has."""
    sizes = count_sizes(labels, fractions, limits.memory)
    blocks = cut(layer, tasks=limits.tasks, split_units=False, **sizes)
    projected(layer, blocks[0][0], **sizes).check(limits.memory, f"counts of {layer.path}")
    return blocks


def find_thresholds(
    layer: Layer, fractions: Sequence[float], limits: Limits
) -> Generator[Sequence[Fold], Sequence[Any], LayerThresholds]:
    """Exact thresholds of a layer, in steps (`parallel.fold.Steps`); nothing is written.

    Of a tail, the values above its bounds are searched (`proven_by`). Otherwise the first search covers codes from a
    sampled bound upwards, and units whose bound was too high are searched again over all codes. Where a bin holds
    several codes, as for float32, a search inside the bin follows for each fraction.
    """
    units = layer.shape[1]
    top, low = np.full(units, top_code(layer.itemsize), np.int64), np.full(units, -top_code(layer.itemsize), np.int64)
    stored = None if layer.tail is None else StoredTail(layer.tail)
    if stored is not None:
        low, top = stored.lowest, codes(stored.largest).astype(np.int64)
    if samples := sample_tasks(layer, max(fractions)):
        low = np.concatenate((yield [Fold(task.units, [task], sample_bound) for task in samples]))
    dropped = shift(max(1, int((top - low).max()) + 1), bins(layer, limits.memory))
    search = Search(layer, dropped, low, top, ranks(layer, fractions, units))
    found = yield from _search(search, limits)
    result = yield from _thresholds_inside(search, found, limits)
    if stored is not None:
        return proven_by(stored, search.ranks, (found.proven, found.counted), result)
    if found.proven.all():
        return result
    again = _over_all_codes(search, found, bins(layer, limits.memory))
    better = yield from _thresholds_inside(again, (yield from _search(again, limits)), limits)
    return LayerThresholds(
        np.where(found.proven, result.threshold, better.threshold),
        np.where(found.proven, result.exceedance, better.exceedance),
    )


def _over_all_codes(search: Search, found: Selection, most: int) -> Search:
    """A search over all codes, for the units whose threshold is not proven; the others are left out."""
    lowest = -top_code(search.layer.itemsize)
    low = np.where(found.proven.all(axis=0), search.high + 1, lowest)
    return Search(search.layer, shift(1 - 2 * lowest, most), low, search.high, search.ranks)


def _thresholds_inside(
    search: Search, found: Selection, limits: Limits
) -> Generator[Sequence[Fold], Sequence[Any], LayerThresholds]:
    """Thresholds from the bins found; while a bin holds several codes, it is searched first.

    What is not proven is left out, and its threshold means nothing.
    """
    if not search.shift:
        return LayerThresholds(decode(found.code, search.layer.itemsize), found.above)
    dropped = shift(1 << search.shift, bins(search.layer, limits.memory))
    parts = []
    for code, above, rank, proven in zip(found.code, found.above, search.ranks, found.proven, strict=True):
        high = code + (1 << search.shift) - 1
        inside = Search(search.layer, dropped, np.where(proven, code, high + 1), high, (rank - above)[None])
        selected = yield from _search(inside, limits)
        parts.append((yield from _thresholds_inside(inside, selected, limits)))
    return LayerThresholds(
        np.concatenate([part.threshold for part in parts]),
        found.above + np.concatenate([part.exceedance for part in parts]),
    )


def _search(search: Search, limits: Limits) -> Generator[Sequence[Fold], Sequence[Any], Selection]:
    """The selection of a search, from a histogram of each unit block."""
    ranks, layer = search.ranks, search.layer
    result = Selection.nothing(ranks.shape)
    width = _bins_per_unit(search)
    folds = []
    for blocks in threshold_blocks(layer, limits, width):
        units = slice(*blocks[0].units)
        if (search.low[units] > search.high[units]).all():
            continue
        tasks = [HistogramTask(layer, b, search.shift, search.low[units], search.high[units]) for b in blocks]
        finish = Selector(units.stop - units.start, ranks[:, units])
        merged = merge_width(BIN_BYTES * width * (units.stop - units.start), limits.memory)
        folds.append(Fold(units, tasks, histogram_block, merge_histograms, finish, merged))
    for fold, part in zip(folds, (yield folds), strict=True):
        result.code[:, fold.key], result.above[:, fold.key] = part.code, part.above
        result.proven[:, fold.key], result.counted[:, fold.key] = part.proven, part.counted
    return result


def _bins_per_unit(search: Search) -> int:
    """Bins of a unit, on average over the chunk of units that has most: a block is of whole chunks."""
    bins = np.maximum(0, (search.high - search.low) >> search.shift) + 2
    starts = np.arange(0, bins.size, search.layer.chunk[1])
    return int(np.ceil(np.add.reduceat(bins, starts) / np.diff(starts, append=bins.size)).max())


@dataclass(frozen=True)
class LayerToCount:
    """What to count in one layer."""

    layer: Layer
    labels: ProbeLabels
    thresholds: NDArray[np.float32]
    """(fraction, unit)"""
    anchoring: str
    domain: Domain


def count_folds(
    wanted: LayerToCount,
    blocks: Sequence[Sequence[Block]],
    memory: int,
    finish: Callable[[Any, Any], Any] | None = None,
) -> list[Fold]:
    """A fold for each unit block: the counts of its units, which `finish` takes on a worker.

    Parameters
    ----------
    blocks
        A list for each unit block: its blocks cover all images.
    memory
        Bytes that a task may use.
    """
    labels, levels = wanted.labels, wanted.thresholds
    step, unit_bytes = label_step(labels, memory), labels.unit_bytes(len(levels))
    folds = []
    for row in blocks:
        first, stop = row[0].units
        tasks = [
            CountTask(wanted.layer, labels, b, levels[:, first:stop], wanted.anchoring, wanted.domain, step)
            for b in row
        ]
        width = merge_width(unit_bytes * (stop - first), memory)
        folds.append(Fold((first, stop), tasks, count_block, merge_counts, finish, width))
    return folds


def tasks_of(layer: Layer, labels: ProbeLabels, fractions: int, limits: Limits) -> int:
    """Tasks of both passes over a layer, without searches that only some layers need, for a progress bar."""
    first, second = threshold_blocks(layer, limits), count_blocks(layer, labels, fractions, limits)
    return len(sample_tasks(layer, 0.5)) + sum(map(len, first)) + sum(map(len, second))
