"""The mask of one unit in one image, and the counts of single images: exactly what pass 2 counted.

Knows: a unit's maps, its threshold and the label grid; that the kernel of pass 2 decides whether a pixel is active.
Does not know: which images are worth looking at, or how pictures are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.select import only
from dissect_xr.dissection.counts import add_counts
from dissect_xr.dissection.derived.maps import Maps, all_reached
from dissect_xr.dissection.interpolation import Axis
from dissect_xr.dissection.labels import ProbeLabels, open_labels, read_labels
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.dissection.method import Domain
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_maps.runs import runs_of

NUMBERS = (1 << 16) - 1
"""Label pixels that can have a label of their own at a time: labels are uint16, and 0 is none."""


@dataclass(frozen=True)
class Stores:
    """The two stores that a dissection was made from."""

    activations: str
    """path or URL"""
    probe: str
    """path or URL"""

    def __post_init__(self) -> None:
        for name in ("activations", "probe"):
            object.__setattr__(self, name, store.as_url(getattr(self, name)))


@dataclass(frozen=True)
class View:
    """One layer of one snapshot: its activations, and the labels, thresholds and parameters of its dissection."""

    layer: Layer
    labels: ProbeLabels
    rows: Axis
    cols: Axis
    domain: Domain
    thresholds: dict[str, float]
    """unit id -> threshold"""


def open_view(ds: xr.Dataset, stores: Stores, layer: str) -> View:
    """The layer of `ds`, which is of one snapshot and fraction; reads the layer's thresholds.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions, or was made from other stores.
    """
    ds = one(ds)
    labels = open_labels(stores.probe)
    if ds.attrs.get("probe_sha256") not in (None, labels.fingerprint):
        raise DissectError(f"{stores.probe}: is not the probe of this dissection. Give the one it was made from.")
    snapshot = str(ds["snapshot"].values)
    opened = open_layer(stores.activations, snapshot, layer)
    anchoring = json.loads(ds.attrs.get("anchoring_fallbacks", "{}")).get(opened.path, ds.attrs["anchoring"])
    rows, cols = opened.axes(anchoring, labels.shape[2:])
    mine = ds["threshold"].isel(unit=np.flatnonzero(ds["layer"].values == layer)).compute()
    thresholds = dict(zip(mine["unit"].values.tolist(), mine.values.tolist(), strict=True))
    return View(opened, labels, rows, cols, ds.attrs.get("domain", "annotated"), thresholds)


def one(ds: xr.Dataset) -> xr.Dataset:
    """`ds` without the dimensions snapshot and fraction, along which it must hold one value each.

    Raises
    ------
    DissectError
        If it holds several, or does not say of which snapshot it is.
    """
    ds = only(ds, "snapshot", "fraction")
    if "snapshot" not in ds.variables:
        raise DissectError("the Dataset does not say which snapshot it is: select it with ds.sel(snapshot=name).")
    return ds


def upsampled(values: NDArray[np.floating], rows: Axis, cols: Axis) -> NDArray[np.float64]:
    """The map on the label grid, ``W_y A W_x^T`` in float64 (docs/method.md, section 1.3), (row, col).

    >>> from dissect_xr.dissection.interpolation import half_pixel
    >>> upsampled(np.array([[0.0, 4.0]]), half_pixel(1, 1), half_pixel(2, 4))
    array([[0., 1., 3., 4.]])
    """
    a = np.asarray(values, np.float64)
    y, x = rows.weight[:, None], cols.weight[None, :]
    upper = a[rows.first] + y * (a[rows.second] - a[rows.first])
    return np.asarray(upper[:, cols.first] + x * (upper[:, cols.second] - upper[:, cols.first]), np.float64)


def mask(values: NDArray[np.floating], threshold: float, rows: Axis, cols: Axis) -> NDArray[np.bool_]:
    """Active label pixels of one map (y, x) in float16 or float32: (row, col), decided exactly as counts are.

    Every pixel gets a label of its own; the pixels whose labels the kernel counts are the active ones.

    >>> from dissect_xr.dissection.interpolation import half_pixel
    >>> mask(np.array([[0.0, 4.0]], np.float32), 1.0, half_pixel(1, 1), half_pixel(2, 4))  # strict: 1 is not above 1
    array([[False, False,  True,  True]])
    """
    height, width = rows.first.size, cols.first.size
    active = np.zeros(height * width, np.bool_)
    if float(values.max()) <= threshold:
        return active.reshape(height, width)
    tables = np.arange(-1, NUMBERS, dtype=np.int32), np.zeros(NUMBERS, np.int64)
    for first in range(0, active.size, NUMBERS):
        stop = min(first + NUMBERS, active.size)
        planes = np.zeros(active.size, np.uint16)
        planes[first:stop] = np.arange(1, stop - first + 1)
        labels = runs_of(planes.reshape(1, 1, height, width)), np.zeros((1, 1), np.uint16), np.ones((1, 1), np.bool_)
        intersection, _ = _counted(values[None, None], threshold, labels, tables, (rows, cols), "all")
        active[first:stop] = intersection[: stop - first] > 0
    return active.reshape(height, width)


def image_counts(
    view: View, unit: str, concept: int, images: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Intersection, unit_area (in the concept's domain) and concept_area of each image of a half-open range.

    `concept` is an index along ``concept``. The sums over all images are the stored counts. Memory: the labels of these
    images, and their maps of one chunk of units.
    """
    channel, threshold, labels = channel_of(view, unit), view.thresholds[unit], view.labels
    maps = Maps(view.layer, (channel, channel + 1)).values(images)
    here = read_labels(labels, images)
    planes, whole, _, *ignored = here
    seen = planes[0, 0].size - ignored[0].sum(axis=(1, 2)) if ignored else planes[0, 0].size
    number = labels.concepts[concept]
    area = (planes == number).sum(axis=(1, 2, 3)) + (whole == number).any(axis=1) * seen
    intersection, active = np.zeros((2, len(maps)), np.int64)
    tables = labels.lookup, labels.domain
    for i in np.flatnonzero(maps.max(axis=(1, 2, 3)) > threshold).tolist():
        image = runs_of(planes[i : i + 1]), *(array[i : i + 1] for array in here[1:])
        counted, areas = _counted(maps[i : i + 1], threshold, image, tables, (view.rows, view.cols), view.domain)
        intersection[i], active[i] = counted[concept], areas[labels.domain[concept]]
    return intersection, active, area.astype(np.int64)


def image_blocks(view: View) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover all images: whole stored chunks, with about 16 MiB of maps and labels each."""
    images, length = view.layer.shape[0], view.layer.chunk[0]
    layer = view.layer
    per_image = layer.chunk[1] * layer.cells * layer.itemsize + layer.source_bytes + view.labels.image_bytes
    step = max(1, (16 << 20) // (per_image * length)) * length
    return ((first, min(first + step, images)) for first in range(0, images, step))


def channel_of(view: View, unit: str) -> int:
    """The unit's channel.

    Raises
    ------
    DissectError
        If the dissection does not hold the unit.
    """
    if unit not in view.thresholds:
        raise DissectError(f"unit '{unit}' is not among the {len(view.thresholds)} units of {view.layer.path}.")
    return int(unit.rpartition("/")[2])


def _counted(
    maps: NDArray[np.floating],
    threshold: float,
    labels: Sequence[Any],
    tables: tuple[NDArray[np.int32], NDArray[np.int64]],
    axes: tuple[Axis, Axis],
    domain: Domain,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts (concept,) and (domain,) of one map (1, 1, y, x), by the kernel of pass 2."""
    intersection = np.zeros((1, 1, tables[1].size), np.int64)
    areas = np.zeros((1, 1, labels[2].shape[1] + 1), np.int64)
    level = np.array([[threshold]], np.float32)
    add_counts((intersection, areas), all_reached(maps, maps.max(axis=(2, 3))), level, labels, tables, axes, domain)
    return intersection[0, 0], areas[0, 0, :-1]
