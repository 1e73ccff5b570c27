"""Scores of unit-concept pairs, from the counts of a dissection.

Knows: that a concept competes in its primary category, that counts are divided last, and that a missing count is a
missing score.
Does not know: where the counts come from, whether they are in memory, which score labels a unit.

Each function takes a dissection Dataset (or a selection of one) and returns one DataArray, lazy where the counts are
lazy: a few operations per block of counts, so a task holds a few arrays of the size of its block. Only coordinates
are read.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, section 2.3 (scoring unit interpretability).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.errors import DissectError


def iou(ds: xr.Dataset) -> xr.DataArray:
    """Intersection over union of each unit's mask and each concept, (…, unit, concept) float64 in [0, 1].

    The union is ``unit_area + concept_area - intersection``, with the unit's area in the images annotated for the
    concept's primary category. 0 where the union is 0, NaN where a count is missing. Equal ratios of counts give
    equal bits.

    Raises
    ------
    DissectError
        If a count or the concepts' categories are not in the Dataset.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> iou(ds).item()  # 3 / (4 + 5 - 3)
    0.5
    """
    return _pair(ds, _over_union, "iou", "intersection over union")


def precision(ds: xr.Dataset) -> xr.DataArray:
    """Share of a unit's active pixels that carry the concept, (…, unit, concept) float64 in [0, 1].

    0 where the unit has no active pixel in the concept's domain, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> precision(ds).item()  # 3 / 4
    0.75
    """
    intersection, active, _ = _counts(ds)
    return _ratio(intersection, active, "precision", "share of the active pixels that carry the concept")


def recall(ds: xr.Dataset) -> xr.DataArray:
    """Share of a concept's pixels on which the unit is active, (…, unit, concept) float64 in [0, 1].

    0 where the concept has no pixel, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> recall(ds).item()  # 3 / 5
    0.6
    """
    intersection, _, labelled = _counts(ds)
    return _ratio(intersection, labelled, "recall", "share of the concept's pixels on which the unit is active")


def f1(ds: xr.Dataset) -> xr.DataArray:
    """Harmonic mean of precision and recall, (…, unit, concept) float64 in [0, 1].

    It orders pairs as IoU does: ``f1 = 2 iou / (1 + iou)``. 0 where both areas are 0, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [7]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> f1(ds).item()  # 2 * 3 / (7 + 5)
    0.5
    """
    intersection, active, labelled = _counts(ds)
    return _ratio(2 * intersection, active + labelled, "f1", "harmonic mean of precision and recall")


def share(ds: xr.Dataset) -> xr.DataArray:
    """Share of the label pixels annotated for a concept's category that carry the concept, (concept) float64 in [0, 1].

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"concept_area": ("concept", [5]), "category_area": ("category", [20])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> share(ds).item()  # 5 / 20
    0.25
    """
    _check(ds, "concept_area", "category_area")
    return _ratio(
        ds["concept_area"],
        _of_primary_category(ds, "category_area"),
        "share",
        "share of the domain that carries the concept",
    )


def lift(ds: xr.Dataset) -> xr.DataArray:
    """Precision relative to the concept's share, (…, unit, concept) float64 >= 0.

    A unit blind to the concept has about 1. 0 where precision is 0, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [4]), "concept_area": ("concept", [5]),
    ...      "category_area": ("category", [20])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> lift(ds).item()  # (3 / 4) / (5 / 20)
    3.0
    """
    return _ratio(precision(ds), share(ds), "lift", "precision over the concept's share")


def ceiling(ds: xr.Dataset) -> xr.DataArray:
    """Highest IoU that a unit of this area can reach with a concept of this area, (…, unit, concept) float64 in [0, 1].

    It is ``min(q, s) / max(q, s)`` of the unit's and the concept's share of the domain. The domain cancels: areas are
    compared.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("category", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_category": ("concept", ["object"]), "category": ["object"]},
    ... )
    >>> ceiling(ds).item()  # 4 / 5, at best all active pixels hit
    0.8
    """
    _, active, labelled = _counts(ds)
    smaller = xr.apply_ufunc(np.minimum, active, labelled, dask="allowed")
    larger = xr.apply_ufunc(np.maximum, active, labelled, dask="allowed")
    return _ratio(smaller, larger, "ceiling", "highest IoU that the two areas allow")


def _score(ds: xr.Dataset, formula: Formula, category_count: str, *counts: str, long_name: str) -> xr.DataArray:
    """The ratio that `formula` makes of `category_count`, taken in each concept's category, and of `counts`.

    float64, 0 where the whole is 0, NaN where a count is missing or the concept's category is not selected.
    """
    missing = [name for name in (category_count, *counts, "concept_category", "category") if name not in ds.variables]
    if missing:
        raise DissectError(
            f"the Dataset has no {', '.join(missing)}: it has {', '.join(map(str, ds.variables)) or 'nothing'}. Give the "
            f"Dataset of open_dissection, or a selection of it that keeps its coordinates (drop=False)."
        )
    in_category = ds[category_count] if "category" in ds[category_count].dims else ds[category_count].expand_dims("category")
    if in_category.chunks is not None:
        in_category = in_category.chunk(category=-1)
    arrays = [in_category, _primary_category(ds), *(ds[name] for name in counts)]
    ratio: xr.DataArray = xr.apply_ufunc(
        _ratio_of_block,
        *arrays,
        input_core_dims=[["category"], *([] for _ in arrays[1:])],
        kwargs={"formula": formula},
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    ratio.attrs = {"long_name": long_name, "units": "1"}
    return ratio


def _primary_category(ds: xr.Dataset) -> xr.DataArray:
    """Position of each concept's primary category along ``category``, -1 for one not selected; in blocks as the intersection."""
    concepts = ds["concept_category"]
    places = {category: place for place, category in enumerate(np.atleast_1d(ds["category"].values).tolist())}
    found = np.array([places.get(category, -1) for category in concepts.values.ravel().tolist()], dtype=np.int64)
    blocks = ds["intersection"].chunksizes if "intersection" in ds else {}
    return concepts.copy(data=found.reshape(concepts.shape)).chunk({dim: blocks[dim] for dim in concepts.dims if dim in blocks})


def _ratio_of_block(in_category: Counts, category: Counts, *counts: Counts, formula: Formula) -> NDArray[np.float64]:
    """One block of scores from `in_category` (…, 1, category), `category` (concept) and counts that broadcast to (…, concept)."""
    # `category` varies along the last axis only, and `in_category` not along it: so one axis of length 1 goes.
    of_concept = in_category[..., category].reshape(np.broadcast_shapes(in_category.shape[:-1], category.shape))
    if (category < 0).any():
        of_concept = np.where(category >= 0, of_concept, np.nan)
    part, whole = formula(of_concept, *counts)
    # A part of nothing is nothing: 0 / 1 stands for 0 / 0, without a warning.
    return np.asarray(part / np.where(whole == 0, 1, whole), dtype=np.float64)
