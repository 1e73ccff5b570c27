"""Both passes over all layers of a snapshot, as folds of tasks on a pool.

Knows: which tasks make up a pass and what is merged.
Does not know: what is already done, or where results are stored: it calls back.
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
class Level:
    """Thresholds of one layer."""

    threshold: NDArray[np.float32]
    """(fraction, unit)"""
    exceedance: NDArray[np.int64]
    """(fraction, unit)"""


@dataclass(frozen=True)
class Search:
    """Bins to be searched for the thresholds of one layer; all (unit,) or (fraction, unit)."""

    layer: Layer
    shift: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    ranks: NDArray[np.int64]


class Selector:
    """`Fold.finish` of a search: (key, merged histogram) -> Selection; a class, since it travels to workers."""

    def __init__(self, units: int, ranks: NDArray[np.int64]) -> None:
        self.units, self.ranks = units, ranks

    def __call__(self, key: Any, histogram: Any) -> Selection:
        """The selection of one unit block."""
        return select(histogram, self.units, self.ranks)


def threshold_sizes(layer: Layer, memory: int, width: int | None = None) -> dict[str, int]:
    """Memory and bytes of one unit's bins, as `cut` and `projected` take them; None: as many as the memory allows."""
    return {"memory": memory, "unit_bytes": BIN_BYTES * (width or bins(layer, memory))}


def threshold_blocks(layer: Layer, pool: Pool, width: int | None = None) -> list[list[Block]]:
    """How a layer is cut for a search of so many bins a unit; None: as many as the memory allows."""
    return cut(layer, workers=pool.workers, split_units=True, **threshold_sizes(layer, pool.memory, width))


def count_sizes(labels: ProbeLabels, fractions: int, memory: int) -> dict[str, int]:
    """Memory, bytes of one unit's counts and of one read of labels, as `cut` and `projected` take them."""
    return {
        "memory": memory,
        "unit_bytes": labels.unit_bytes(fractions),
        "label_bytes": min(label_step(labels, memory), labels.shape[0]) * labels.image_bytes,
    }


def count_blocks(layer: Layer, labels: ProbeLabels, fractions: int, pool: Pool) -> list[list[Block]]:
    """How a layer is cut for counting; every task's projected memory is checked."""
    sizes = count_sizes(labels, fractions, pool.memory)
    blocks = cut(layer, workers=pool.workers, split_units=False, **sizes)
    projected(layer, blocks[0][0], **sizes).check(pool.memory, f"counts of {layer.path}")
    return blocks


def find_thresholds(pool: Pool, layers: Sequence[Layer], fractions: Sequence[float], bar: Bar) -> dict[str, Level]:
    """Exact thresholds of every layer, by name. Nothing is written.

    The first search covers codes above a sampled bound; units where the bound was too high are searched again from the
    lowest code, and where a bin holds several codes, as of float32, once more per fraction inside the bin found.
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
    return {s.layer.name: _level(pool, s, f, bar) for s, f in zip(searches, found, strict=True)}


def _from_bottom(search: Search, found: Selection) -> Search:
    """The search again, from the lowest code, for the units that were missed; the others are passed over."""
    missed = ~found.proven.all(axis=0)
    low = np.where(missed, -top_code(search.layer.itemsize), search.high + 1)
    return Search(search.layer, search.shift, low, search.high, search.ranks)


def _filled_in(found: Selection, better: Selection) -> Selection:
    """`found`, with what `better` proved."""
    keep = found.proven
    return Selection(
        np.where(keep, found.code, better.code), np.where(keep, found.above, better.above), keep | better.proven
    )


def _level(pool: Pool, search: Search, found: Selection, bar: Bar) -> Level:
    """Thresholds from the bins found, after further searches inside them while a bin holds several codes."""
    if not search.shift:
        return Level(decode(found.code, search.layer.itemsize), found.above)
    dropped = shift(1 << search.shift, bins(search.layer, pool.memory))
    inside = [
        Search(search.layer, dropped, code, code + (1 << search.shift) - 1, (rank - above)[None])
        for code, above, rank in zip(found.code, found.above, search.ranks, strict=True)
    ]
    levels = [_level(pool, s, f, bar) for s, f in zip(inside, _search(pool, inside, bar), strict=True)]
    return Level(
        np.concatenate([level.threshold for level in levels]),
        found.above + np.concatenate([level.exceedance for level in levels]),
    )


def _search(pool: Pool, searches: Sequence[Search], bar: Bar) -> list[Selection]:
    """Run several searches at once; the selection of each."""
    results = [
        Selection(np.zeros_like(s.ranks), np.zeros_like(s.ranks), np.zeros(s.ranks.shape, np.bool_)) for s in searches
    ]
    folds = []
    for n, search in enumerate(searches):
        width = int(((search.high - search.low) >> search.shift).max()) + 2
        for blocks in threshold_blocks(search.layer, pool, width):
            span = slice(*blocks[0].units)
            if (search.low[span] > search.high[span]).all():
                continue
            tasks = [
                HistogramTask(search.layer, block, search.shift, search.low[span], search.high[span])
                for block in blocks
            ]
            finish = Selector(span.stop - span.start, search.ranks[:, span])
            merged = merge_width(BIN_BYTES * width * (span.stop - span.start), pool.memory)
            folds.append(Fold((n, blocks[0].units), tasks, histogram_block, merge_histograms, finish, merged))
    bar.expect(sum(len(fold.tasks) for fold in folds))
    for (n, units), part in fold_tasks(pool, folds, on_task=_advancing(bar)):
        span = slice(*units)
        results[n].code[:, span], results[n].above[:, span] = part.code, part.above
        results[n].proven[:, span] = part.proven
    return results


@dataclass(frozen=True)
class LayerToCount:
    """What to count in one layer."""

    layer: Layer
    thresholds: NDArray[np.float32]
    """(fraction, unit)"""
    anchoring: str
    domain: Domain
    blocks: Sequence[Sequence[Block]]
    """unit blocks still to be done, each with its image ranges"""


def count(
    pool: Pool,
    jobs: Sequence[LayerToCount],
    labels: ProbeLabels,
    finish: Callable[[LayerToCount], Callable[[Any, Any], Any]],
    bar: Bar,
) -> None:
    """Count all jobs; `finish(job)` makes what stores a unit block's counts, on a worker."""
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
