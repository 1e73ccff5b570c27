"""The two passes over all layers of a snapshot: their tasks are run on a pool and partial results are merged.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection.counts import CountTask, Domain, count_block, merge_counts
from dissect_xr.dissection.cut import Block, cut, label_step, merge_width, projected
from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import Layer
from dissect_xr.dissection.thresholds import (
    BIN_BYTES,
    HistogramTask,
    Selection,
    bins,
    decode,
    histogram_block,
    merge_histograms,
    ranks,
    sample_bound,
    sample_tasks,
    select,
    shift,
    top_code,
)
from dissect_xr.parallel.fold import Fold, fold_tasks
from dissect_xr.parallel.pool import Pool, run_blocks
from dissect_xr.parallel.progress import Bar


@dataclass(frozen=True)
class LayerThresholds:
    """The thresholds of one layer, and how many activations exceed each."""

    threshold: NDArray[np.float32]
    """(fraction, unit)"""
    exceedance: NDArray[np.int64]
    """(fraction, unit)"""


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


def threshold_blocks(layer: Layer, pool: Pool, width: int | None = None) -> list[list[Block]]:
    """The blocks of a search of `width` bins per unit; None: as many as the memory allows."""
    return cut(layer, workers=pool.workers, split_units=True, **threshold_sizes(layer, pool.memory, width))


def count_sizes(labels: ProbeLabels, fractions: int, memory: int) -> dict[str, int]:
    """Arguments of `cut` and `projected` for counting."""
    return {
        "memory": memory,
        "unit_bytes": labels.unit_bytes(fractions),
        "label_bytes": min(label_step(labels, memory), labels.shape[0]) * labels.image_bytes,
    }


def count_blocks(layer: Layer, labels: ProbeLabels, fractions: int, pool: Pool) -> list[list[Block]]:
    """The blocks of counting; raises where the largest task would need more memory than it has."""
    sizes = count_sizes(labels, fractions, pool.memory)
    blocks = cut(layer, workers=pool.workers, split_units=False, **sizes)
    projected(layer, blocks[0][0], **sizes).check(pool.memory, f"counts of {layer.path}")
    return blocks


def find_thresholds(
    pool: Pool, layers: Sequence[Layer], fractions: Sequence[float], bar: Bar
) -> dict[str, LayerThresholds]:
    """Exact thresholds of every layer, by name; computes, and writes nothing.

    The first search covers codes from a sampled bound upwards. Units whose bound was too high are searched again over
    all codes. Where a bin holds several codes, as for float32, a search inside the bin follows for each fraction.
    """
    bounds = {layer.name: np.empty(layer.shape[1], np.int64) for layer in layers}
    samples = [task for layer in layers for task in sample_tasks(layer, max(fractions))]
    for task, bound in run_blocks(pool, sample_bound, samples):
        bounds[task.layer.name][slice(*task.units)] = bound
    searches = []
    for layer in layers:
        top, low = np.full(layer.shape[1], top_code(layer.itemsize), np.int64), bounds[layer.name]
        dropped = shift(int((top - low).max()) + 1, bins(layer, pool.memory))
        searches.append(Search(layer, dropped, low, top, ranks(layer, fractions, layer.shape[1])))
    found = _search(pool, searches, bar)
    missed = [n for n, selection in enumerate(found) if not selection.proven.all()]
    again = _search(pool, [_from_bottom(searches[n], found[n]) for n in missed], bar)
    for n, better in zip(missed, again, strict=True):
        found[n] = _filled_in(found[n], better)
    return {s.layer.name: _thresholds_inside(pool, s, f, bar) for s, f in zip(searches, found, strict=True)}


def _from_bottom(search: Search, found: Selection) -> Search:
    """The same search over all codes, for the units whose threshold is not proven; the others are left out."""
    missed = ~found.proven.all(axis=0)
    low = np.where(missed, -top_code(search.layer.itemsize), search.high + 1)
    return Search(search.layer, search.shift, low, search.high, search.ranks)


def _filled_in(found: Selection, better: Selection) -> Selection:
    """`found`, completed by what `better` proved."""
    keep = found.proven
    return Selection(
        np.where(keep, found.code, better.code), np.where(keep, found.above, better.above), keep | better.proven
    )


def _thresholds_inside(pool: Pool, search: Search, found: Selection, bar: Bar) -> LayerThresholds:
    """Thresholds from the bins found; while a bin holds several codes, it is searched first."""
    if not search.shift:
        return LayerThresholds(decode(found.code, search.layer.itemsize), found.above)
    dropped = shift(1 << search.shift, bins(search.layer, pool.memory))
    inside = [
        Search(search.layer, dropped, code, code + (1 << search.shift) - 1, (rank - above)[None])
        for code, above, rank in zip(found.code, found.above, search.ranks, strict=True)
    ]
    levels = [_thresholds_inside(pool, s, f, bar) for s, f in zip(inside, _search(pool, inside, bar), strict=True)]
    return LayerThresholds(
        np.concatenate([level.threshold for level in levels]),
        found.above + np.concatenate([level.exceedance for level in levels]),
    )


def _search(pool: Pool, searches: Sequence[Search], bar: Bar) -> list[Selection]:
    """The selection of each search; all run at once."""
    results = [
        Selection(np.zeros_like(s.ranks), np.zeros_like(s.ranks), np.zeros(s.ranks.shape, np.bool_)) for s in searches
    ]
    folds = []
    for n, search in enumerate(searches):
        width = int(((search.high - search.low) >> search.shift).max()) + 2
        for blocks in threshold_blocks(search.layer, pool, width):
            units = slice(*blocks[0].units)
            if (search.low[units] > search.high[units]).all():
                continue
            tasks = [
                HistogramTask(search.layer, block, search.shift, search.low[units], search.high[units])
                for block in blocks
            ]
            finish = Selector(units.stop - units.start, search.ranks[:, units])
            merged = merge_width(BIN_BYTES * width * (units.stop - units.start), pool.memory)
            folds.append(Fold((n, blocks[0].units), tasks, histogram_block, merge_histograms, finish, merged))
    bar.expect(sum(len(fold.tasks) for fold in folds))
    for (n, unit_range), part in fold_tasks(pool, folds, on_task=_advancing(bar)):
        units = slice(*unit_range)
        results[n].code[:, units], results[n].above[:, units] = part.code, part.above
        results[n].proven[:, units] = part.proven
    return results


@dataclass(frozen=True)
class LayerToCount:
    """One layer of pass 2, and what is still to be counted in it."""

    layer: Layer
    thresholds: NDArray[np.float32]
    """(fraction, unit)"""
    anchoring: str
    domain: Domain
    blocks: Sequence[Sequence[Block]]
    """a list for each unit block still to be done: its blocks cover all images"""


def count(
    pool: Pool,
    jobs: Sequence[LayerToCount],
    labels: ProbeLabels,
    finish: Callable[[LayerToCount], Callable[[Any, Any], Any]],
    bar: Bar,
) -> None:
    """Count all layers; `finish(job)` gives the function with which a worker stores a unit block's merged counts."""
    step = label_step(labels, pool.memory)

    def tasks(job: LayerToCount, blocks: Sequence[Block]) -> list[CountTask]:
        return [
            CountTask(job.layer, labels, b, job.thresholds[:, slice(*b.units)], job.anchoring, job.domain, step)
            for b in blocks
        ]

    def width(job: LayerToCount, block: Block) -> int:
        part = labels.unit_bytes(len(job.thresholds)) * (block.units[1] - block.units[0])
        return merge_width(part, pool.memory)

    folds = [
        Fold(blocks[0].units, tasks(job, blocks), count_block, merge_counts, finish(job), width(job, blocks[0]))
        for job in jobs
        for blocks in job.blocks
    ]
    for _ in fold_tasks(pool, folds, on_task=_advancing(bar)):
        pass


def _advancing(bar: Bar) -> Callable[[Any], None]:
    return lambda task: bar.advance(task.block.images[1] - task.block.images[0])
