"""The dissection of a small layer, whose activations are in memory whole: one task.

Knows: order statistics of values in memory, and that labels are read a few images at a time.
Does not know: how a large layer is cut, or which layers there are (`dissect`).

A run over all layers of a network has hundreds of layers of a few megabytes each. What they cost is not arithmetic but
calls: to open arrays, to read and to write them. Here activations are read once, and all that is written of a layer has
one marker.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection import cut
from dissect_xr.dissection.counts import add_counts, no_counts
from dissect_xr.dissection.derived.maps import Maps, all_reached
from dissect_xr.dissection.labels import read_runs
from dissect_xr.dissection.levels.tails import proven_by
from dissect_xr.dissection.store import LayerToDissect, count_arrays, threshold_arrays
from dissect_xr.dissection.thresholds import LayerThresholds, ranks
from dissect_xr.floats import codes, decode
from dissect_xr.tail.stored import StoredTail

COPIES = 4
"""Copies of a layer's activations in memory at once: packed, unpacked, as codes, and partitioned."""


@dataclass(frozen=True)
class SmallLayer:
    """A layer that one task dissects whole."""

    wanted: LayerToDissect
    memory: int
    """bytes that the task may use"""

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        return f"counts of {self.wanted.path}, images number 0 to {self.wanted.layer.shape[0] - 1}"


def is_small(wanted: LayerToDissect, memory: int) -> bool:
    """Whether a layer's activations are at most one read, and all its counts fit a task of this memory.

    What a derived layer is derived from counts as well: its source, and the matrix.
    """
    layer = wanted.layer
    activations = layer.shape[0] * (layer.shape[1] * layer.cells * layer.itemsize + layer.source_bytes)
    activations += layer.shape[1] * layer.row_bytes
    counts = layer.shape[1] * wanted.labels.unit_bytes(len(wanted.method.fractions))
    return activations <= min(cut.READ_BYTES, memory // 2 // COPIES) and counts <= memory // 8


def dissect_small(task: SmallLayer) -> tuple[int, ...]:
    """Find the thresholds of a small layer, count, write both and mark them; nothing where it is marked.

    Returns the units that have a bound that was too high; where there are any, nothing is written.
    """
    wanted, key = task.wanted, f"{task.wanted.path}/done"
    layer, labels, fractions = wanted.layer, wanted.labels, wanted.method.fractions
    if store.marker(wanted.out, key, fingerprint=wanted.fingerprint) is not None:
        return ()
    images, units = layer.shape[:2]
    values, peaks = Maps(layer)((0, images))
    index = ranks(layer, fractions, units)
    found = thresholds(values, index)
    if layer.tail is not None:
        stored = StoredTail(layer.tail)
        above = (values > stored.bound[:, None, None].astype(values.dtype)).sum(axis=(0, 2, 3))
        counted = np.broadcast_to(above, found.threshold.shape)
        found = proven_by(stored, index, (index < counted, counted), found)
        if found.too_high:
            return _by_cells(task, found.too_high)
    tables, counts = (labels.lookup, labels.domain), no_counts(labels, len(fractions), units)
    axes, step = layer.axes(wanted.anchoring, labels.shape[2:]), cut.label_step(labels, task.memory)
    for first in range(0, images, step):
        part = slice(first, min(first + step, images))
        known = read_runs(labels, (part.start, part.stop))
        add_counts(
            counts, all_reached(values[part], peaks[part]), found.threshold, known, tables, axes, wanted.method.domain
        )
    written = wanted.create(threshold_arrays(found) | count_arrays(*counts))
    store.mark(wanted.out, key, fingerprint=wanted.fingerprint, written=written, note=wanted.summary)
    return ()


def _by_cells(task: SmallLayer, too_high: tuple[int, ...]) -> tuple[int, ...]:
    """Dissect a layer, some of whose units have a bound that was too high, by all cells, if they are there.

    Returns the units that are left.
    """
    if task.wanted.layer.beside is None:
        return too_high
    return dissect_small(replace(task, wanted=task.wanted.by_cells(len(too_high))))


def thresholds(values: NDArray[np.floating], ranks: NDArray[np.int64]) -> LayerThresholds:
    """The value of each rank among all values of a unit, counted from the largest, and how many lie above it.

    Parameters
    ----------
    values : (image, unit, y, x) float16 or float32
    ranks : (fraction, unit) int64, the same for all units

    Examples
    --------
    >>> maps = np.array([[[[3, -0.0, 1, 1]]]], np.float16)
    >>> found = thresholds(maps, np.array([[1]]))
    >>> found.threshold.tolist(), found.exceedance.tolist()
    ([[1.0]], [[1]])
    """
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    ordered = codes(flat)  # integers are partitioned faster
    indices = ordered.shape[1] - 1 - ranks[:, 0]
    ordered.partition(np.unique(indices), axis=1)
    found = ordered[:, indices].T
    above = np.stack([(ordered > level[:, None]).sum(axis=1) for level in found])
    return LayerThresholds(decode(found.astype(np.int64), values.dtype.itemsize), above)
