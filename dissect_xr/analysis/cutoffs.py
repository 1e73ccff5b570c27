"""The numbers of detectors and of unique detectors at many cutoffs, since a number at one cutoff is fragile.

Knows: that a concept is detected at every cutoff below the highest IoU of the units whose label it is.
Does not know: how a label is found, or how a curve is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.detectors import best_concept

CUTOFFS = np.round(np.arange(0.0, 0.5001, 0.005), 3)
"""IoUs from 0 to 0.5 in steps of 0.005; few units reach more."""


def cutoff_curve(ds: xr.Dataset, cutoffs: Any = CUTOFFS) -> xr.Dataset:
    """The numbers of detectors and unique detectors at each cutoff, (…, cutoff) int64; computes all labels once.

    Variables ``detectors``, ``unique_by_unit`` and ``unique_by_category``, each of all units in `ds` together, as
    :func:`dissect_xr.detectors` and :func:`dissect_xr.unique_detectors` count them. Memory: the labels, and one number
    per concept, however many cutoffs there are.

    Raises
    ------
    DissectError
        If no concept competes, or the Dataset lacks a count.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [0, 5]]), "unit_area": (("unit", "domain"), [[4], [5]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> curve = cutoff_curve(ds, [0.1, 0.55, 0.7])  # both units detect sky, with 4 / 8 and 5 / 8
    >>> curve.detectors.values.tolist(), curve.unique_by_unit.values.tolist()
    ([2, 1, 0], [1, 1, 0])
    """
    levels = xr.DataArray(np.asarray(cutoffs, np.float64), dims="cutoff", name="cutoff")
    levels = levels.assign_coords(cutoff=levels.assign_attrs(long_name="IoU that a detector exceeds", units="1"))
    categories = list(dict.fromkeys(ds["concept_category"].values.tolist()))
    each = {None: best_concept(ds)} | {category: best_concept(ds, within=category) for category in categories}
    labels = [best[["concept", "iou"]].expand_dims(of=[n]) for n, best in enumerate(each.values())]
    computed = xr.concat(labels, "of", coords="minimal", compat="override", join="exact").compute()
    by_unit, by_category = computed.isel(of=0, drop=True), computed.isel(of=slice(1, None))
    curves = {
        "detectors": (by_unit["iou"] > levels).sum([dim for dim in ("unit",) if dim in by_unit.dims]),
        "unique_by_unit": _unique(by_unit, levels),
        "unique_by_category": _unique(by_category, levels).sum("of"),
    }
    result = xr.Dataset(curves).astype(np.int64)
    for name, long_name in _LONG_NAMES.items():
        result[name].attrs = {"long_name": long_name}
    return result


_LONG_NAMES = {
    "detectors": "units whose best IoU exceeds the cutoff",
    "unique_by_unit": "distinct concepts that are a unit's best",
    "unique_by_category": "distinct concepts that are a unit's best in their category, added up",
}


def _unique(best: xr.Dataset, levels: xr.DataArray) -> xr.DataArray:
    """Number of distinct labels with a unit whose IoU exceeds each of the cutoffs `levels`."""
    best = best if "unit" in best.dims else best.expand_dims("unit")
    number: xr.DataArray = xr.apply_ufunc(
        _count,
        best["concept"],
        best["iou"],
        levels,
        input_core_dims=[["unit"], ["unit"], ["cutoff"]],
        output_core_dims=[["cutoff"]],
        vectorize=True,
    )
    return number


def _count(concept: NDArray[np.int64], iou: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of distinct concepts whose highest IoU exceeds each of the cutoffs `levels`."""
    labelled = concept > 0
    numbers, index = np.unique(concept[labelled], return_inverse=True)
    highest = np.full(numbers.size, -1.0)
    np.maximum.at(highest, index, iou[labelled])
    return np.asarray(numbers.size - np.searchsorted(np.sort(highest), levels, side="right"), np.int64)
