"""Pass 2: how many active pixels of each unit carry each concept.

Knows: one task's counts and how counts of tasks add up.
Does not know: stores of results, or how tasks are spread.

The mask of a (unit, image) pair is evaluated once, whatever the number of concepts; nothing of (pixels x concepts) is
ever allocated (METHOD 1.5).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection import kernels
from dissect_xr.dissection.cut import Block
from dissect_xr.dissection.interpolation import Axis
from dissect_xr.dissection.labels import ProbeLabels, read_labels
from dissect_xr.dissection.layers import Layer, ahead
from dissect_xr.floats import HALF_VALUES, bits

Domain = Literal["annotated", "touched", "all"]

DOMAINS: dict[str, int] = {"annotated": kernels.ANNOTATED, "touched": kernels.TOUCHED, "all": kernels.ALL}

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Intersection (fraction, unit, concept) and area (fraction, unit, category + 1), the last column over all images."""


_Read = tuple[tuple[int, int], Sequence[Any]]
"""Half-open range of images, arrays that begin with it."""


@dataclass(frozen=True)
class CountTask:
    """One block's counts."""

    layer: Layer
    labels: ProbeLabels
    block: Block
    thresholds: NDArray[np.float32]
    """(fraction, unit of the block)"""
    anchoring: str
    domain: Domain
    label_step: int
    """images whose labels are read at once"""

    @property
    def what(self) -> str:
        """For messages."""
        (first, last), units = self.block.images, self.block.units
        return f"counts of {self.layer.path}, images number {first} to {last - 1}, units {units[0]} to {units[1] - 1}"


def count_block(task: CountTask) -> Counts:
    """Counts of one block.

    Memory: two reads of activations and of labels, and the counts themselves (`blocks.projected`).
    """
    layer, (first, last) = task.layer, task.block.units
    array = store.read(layer.url, f"{layer.path}/activation")
    peaks = store.read(layer.url, f"{layer.path}/peak")
    rows, cols = layer.axes(task.anchoring, task.labels.shape[2:])
    lookup, fractions, units = task.labels.lookup, len(task.thresholds), last - first
    hits = np.zeros((fractions, units, task.labels.concepts.size), np.int64)
    areas = np.zeros((fractions, units, len(task.labels.categories) + 1), np.int64)

    def read(images: tuple[int, int]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        span = slice(*images), slice(first, last)
        return array[span], peaks[span]

    reads, (start, stop), step = task.block.reads, task.block.images, task.label_step
    label_reads = [(max(i, start), min(i + step, stop)) for i in range(start // step * step, stop, step)]
    maps = zip(reads, ahead(read, reads), strict=True)
    labels = zip(label_reads, ahead(partial(read_labels, task.labels.url), label_reads), strict=True)
    for (values, peak), known in _shared(maps, labels):
        tables = (*known, lookup, task.labels.category)
        add_counts((hits, areas), values, peak, task.thresholds, tables, (rows, cols), task.domain)
    return hits, areas


def _shared(first: Iterator[_Read], second: Iterator[_Read]) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Arrays by image of two series of reads, in ranges that lie in one read of each; both cover the same images."""
    (one, left), (two, right) = next(first), next(second)
    while True:
        start, stop = max(one[0], two[0]), min(one[1], two[1])
        yield (
            [array[start - one[0] : stop - one[0]] for array in left],
            [array[start - two[0] : stop - two[0]] for array in right],
        )
        if two[1] == stop:
            two, right = next(second, (two, right))
        if one[1] == stop:
            following = next(first, None)
            if following is None:
                return
            one, left = following


def add_counts(
    counts: Counts,
    values: NDArray[np.floating],
    peak: NDArray[np.floating],
    thresholds: NDArray[np.float32],
    labels: tuple[NDArray[Any], ...],
    axes: tuple[Axis, Axis],
    domain: Domain,
) -> None:
    """Add the counts of maps (image, unit, y, x), float16 or float32, to `counts` in place.

    `peak` are the maps' largest values (image, unit), `thresholds` (fraction, unit); `labels` and the arrays behind
    `counts` are as `kernels.count_pixels` takes them.
    """
    half, (rows, cols) = values.dtype == np.float16, axes
    kernels.count_pixels(
        bits(values) if half else values,
        HALF_VALUES if half else None,
        peak.astype(np.float32),
        thresholds,
        labels,
        _arguments(rows),
        _arguments(cols),
        (cols.spans, cols.span_weights, *cols.spans_of_cells),
        DOMAINS[domain],
        *counts,
    )


def _arguments(
    axis: Axis,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, NDArray[np.float64]]:
    return axis.first, axis.second, axis.numerator, axis.denominator, axis.weight


def merge_counts(*parts: Counts) -> Counts:
    """The counts of all parts together."""
    hits, areas = parts[0][0].copy(), parts[0][1].copy()
    for more_hits, more_areas in parts[1:]:
        hits += more_hits
        areas += more_areas
    return hits, areas
