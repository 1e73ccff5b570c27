"""Pass 2, the parts of it: how many active pixels of each unit carry each concept.

Knows: how one task counts, and that the counts of two tasks are added.
Does not know: where results are stored, or where tasks run.

The mask of a unit in an image is found once, whatever the number of concepts, and no array of pixels x concepts is ever
allocated (docs/method.md, section 1.5). A worked example, of a map with 1 row of 2 cells and an image with 1 row of 8
label pixels:

- The unit has activations 0 and 4 in the two cells, and T = 1. Upsampled, its 8 pixels are
  0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4: pixels 3 to 7 are active, the interval [3, 8).
- The labels are car, car, car, car, sky, sky, none, none. They are held as runs: car up to pixel 4, sky up to pixel 6,
  none up to pixel 8.
- The interval starts in the run of car, which stops at 4: 1 active pixel of car. At 4 starts the run of sky: 2 active
  pixels. At 6 starts the run without a label. Three steps have counted five pixels.

>>> from dissect_xr.dissection.interpolation import half_pixel
>>> from dissect_xr.probe.label_maps.runs import runs_of
>>> car, sky = 2, 5
>>> planes = np.array([car] * 4 + [sky] * 2 + [0] * 2, np.uint16).reshape(1, 1, 1, 8)
>>> lookup = np.full(1 << 16, -1, np.int32)
>>> lookup[[car, sky]] = 0, 1
>>> labels = runs_of(planes), np.zeros((1, 1), np.uint16), np.array([[True]])
>>> intersection, unit_area = np.zeros((1, 1, 2), np.int64), np.zeros((1, 1, 2), np.int64)
>>> maps, threshold = np.array([[[[0, 4]]]], np.float32), np.array([[1]], np.float32)
>>> axes = half_pixel(1, 1), half_pixel(2, 8)
>>> tables = lookup, np.array([0, 0])
>>> from dissect_xr.dissection.derived.maps import all_reached
>>> reached = all_reached(maps, maps.max(axis=(2, 3)))
>>> add_counts((intersection, unit_area), reached, threshold, labels, tables, axes, "all")
>>> intersection.ravel().tolist(), unit_area.ravel().tolist()  # (car, sky) and (the one domain, all images)
([1, 2], [5, 5])

`kernels` explains how the interval is found without a test of every pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection import kernels
from dissect_xr.dissection.cut import Block, ahead
from dissect_xr.dissection.derived.maps import Maps, Reached
from dissect_xr.dissection.interpolation import Axis
from dissect_xr.dissection.labels import ProbeLabels, read_runs
from dissect_xr.dissection.layers import Layer, prefetch
from dissect_xr.dissection.method import Domain
from dissect_xr.floats import HALF_VALUES, bits

DOMAINS: dict[str, int] = {"annotated": kernels.ANNOTATED, "touched": kernels.TOUCHED, "all": kernels.ALL}

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""`intersection` (fraction, unit, concept) and `unit_area` (fraction, unit, domain + 1); its last column is the area
over all images, by which a dead unit is known."""


_Read = tuple[tuple[int, int], Sequence[Any]]
"""A half-open range of images, and arrays of these images."""


@dataclass(frozen=True)
class CountTask:
    """The counts of one block, to be made."""

    layer: Layer
    labels: ProbeLabels
    block: Block
    thresholds: NDArray[np.float32]
    """(fraction, unit of the block)"""
    anchoring: str
    domain: Domain
    label_step: int
    """images whose labels are read at a time"""

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        (first, last), units = self.block.images, self.block.units
        return f"counts of {self.layer.path}, images number {first} to {last - 1}, units {units[0]} to {units[1] - 1}"


def count_block(task: CountTask) -> Counts:
    """The counts of one block.

    Memory: two reads of activations, two of labels, and the counts themselves; `cut.projected` adds them up.
    """
    layer, (first, last) = task.layer, task.block.units
    rows, cols = layer.axes(task.anchoring, task.labels.shape[2:])
    lookup, counts = task.labels.lookup, no_counts(task.labels, len(task.thresholds), last - first)
    reads, (start, stop), step = task.block.reads, task.block.images, task.label_step
    label_reads = [(max(i, start), min(i + step, stop)) for i in range(start // step * step, stop, step)]
    reached = Maps(layer, task.block.units, ahead(layer, task.block)).above(task.thresholds.min(axis=0))
    maps = zip(reads, prefetch(reached, reads), strict=True)
    labels = zip(label_reads, prefetch(partial(read_runs, task.labels), label_reads), strict=True)
    for images, (values, where, peak), known in _shared(maps, labels):
        tables = lookup, task.labels.domain
        found = values, where[images], peak[images]
        add_counts(counts, found, task.thresholds, known, tables, (rows, cols), task.domain)
    return counts


def no_counts(labels: ProbeLabels, fractions: int, units: int) -> Counts:
    """The counts of so many units before any image is counted: zeros."""
    intersection = np.zeros((fractions, units, labels.concepts.size), np.int64)
    return intersection, np.zeros((fractions, units, labels.domains + 1), np.int64)


def _shared(first: Iterator[_Read], second: Iterator[_Read]) -> Iterator[tuple[slice, Sequence[Any], Sequence[Any]]]:
    """Two series of reads together, image range by image range.

    Gives the range in the read of the first series, that read, and the arrays of the second series in the range.

    Both series cover the same images, but are cut differently: reads of [0, 4) and [4, 8) beside reads of [0, 6) and
    [6, 8) give the ranges [0, 4), [4, 6) and [6, 8).
    """
    (one, left), (two, right) = next(first), next(second)
    while True:
        start, stop = max(one[0], two[0]), min(one[1], two[1])
        yield (
            slice(start - one[0], stop - one[0]),
            left,
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
    maps: Reached,
    thresholds: NDArray[np.float32],
    labels: Sequence[Any],
    tables: tuple[NDArray[np.int32], NDArray[np.int64]],
    axes: tuple[Axis, Axis],
    domain: Domain,
) -> None:
    """Add the counts of some maps to `counts`, in place.

    Parameters
    ----------
    counts
        As `kernels.count_pixels` takes them.
    maps
        Maps of float16 or float32, at least those that reach a threshold.
    thresholds : (fraction, unit)
    labels
        As `labels.read_runs` gives them for these images.
    tables
        (65536,) concept number -> index, and (concept,) index of each concept's domain.
    axes
        How the rows and the columns of the label grid sample a map.
    domain
        The images whose active pixels are counted into `unit_area`.
    """
    (values, where, peak), (rows, cols), (lookup, domains) = maps, axes, tables
    is_float16 = values.dtype == np.float16
    runs, whole, annotated, *ignored = labels
    hidden = ignored[0] if ignored else np.zeros((0, rows.first.size, cols.first.size), np.bool_)
    starts = np.concatenate([[0], np.cumsum(annotated.sum(axis=1, dtype=np.int64))])
    kernels.count_pixels(
        bits(values) if is_float16 else values,
        HALF_VALUES if is_float16 else None,
        where,
        peak.astype(np.float32),
        thresholds,
        ((runs.count, runs.run, runs.ends), whole, (starts, np.nonzero(annotated)[1]), hidden, lookup, domains),
        _arguments(rows),
        _arguments(cols),
        (cols.spans, cols.span_weights, *cols.spans_of_cells),
        DOMAINS[domain],
        *counts,
    )
    if domain == "all":
        counts[1][..., :-1] = counts[1][..., -1:]


def _arguments(
    axis: Axis,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int, NDArray[np.float64]]:
    return axis.first, axis.second, axis.numerator, axis.denominator, axis.weight


def merge_counts(*parts: Counts) -> Counts:
    """The counts of all parts together."""
    intersection, unit_area = parts[0][0].copy(), parts[0][1].copy()
    for more_hits, more_areas in parts[1:]:
        intersection += more_hits
        unit_area += more_areas
    return intersection, unit_area
