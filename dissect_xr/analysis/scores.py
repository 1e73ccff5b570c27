"""Scores of pairs of a unit and a concept, from the counts of a dissection.

Knows: that a unit's area is taken in the concept's domain, that integers are counted first and divided last,
and that the score of a missing count is NaN.
Does not know: where the counts come from, whether they are in memory, or which score gives a unit its label.

Every function takes a dissection Dataset or a selection of one and returns one DataArray, which is lazy where the
counts are lazy: one task per block of counts, which holds about five arrays of the size of the block. Only coordinates
are read.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, section 2.3 (scoring unit interpretability).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

Counts = NDArray[Any]
"""A block of counts: int64, or float64 where some are missing (NaN)."""

Formula = Callable[..., tuple[Counts, Counts]]
"""Takes the count of the concept's domain, then counts of the pair; gives (part, whole), whose ratio is the score."""


def iou(ds: xr.Dataset) -> xr.DataArray:
    """Intersection over union of each unit's mask and each concept, (…, unit, concept) float64 in [0, 1].

    The union is ``unit_area + concept_area - intersection``, the unit's area in the concept's
    domain. 0 where the union is 0, NaN where a count is missing. Equal quotients have equal bits.

    Raises
    ------
    DissectError
        If a count or the concepts' domains are not in the Dataset.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("domain", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> iou(ds).item()  # 3 / (4 + 5 - 3)
    0.5
    """
    score = _score(ds, over_union, "unit_area", "intersection", "concept_area")
    return _described(score, "iou", "intersection over union")


def precision(ds: xr.Dataset) -> xr.DataArray:
    """Share of a unit's active pixels that carry the concept, (…, unit, concept) float64 in [0, 1].

    0 where the unit has no active pixel in the concept's domain, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("domain", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> precision(ds).item()  # 3 / 4
    0.75
    """
    score = _score(ds, _over_active, "unit_area", "intersection", "concept_area")
    return _described(score, "precision", "share of the active pixels that carry the concept")


def recall(ds: xr.Dataset) -> xr.DataArray:
    """Share of a concept's pixels on which the unit is active, (…, unit, concept) float64 in [0, 1].

    0 where the concept has no pixel, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("domain", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> recall(ds).item()  # 3 / 5
    0.6
    """
    score = _score(ds, _over_labelled, "unit_area", "intersection", "concept_area")
    return _described(score, "recall", "share of the concept's pixels on which the unit is active")


def f1(ds: xr.Dataset) -> xr.DataArray:
    """Harmonic mean of precision and recall, (…, unit, concept) float64 in [0, 1].

    It orders pairs as IoU does: ``f1 = 2 iou / (1 + iou)``. 0 where both areas are 0, NaN where a count is missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("domain", [7]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> f1(ds).item()  # 2 * 3 / (7 + 5)
    0.5
    """
    score = _score(ds, _over_mean_area, "unit_area", "intersection", "concept_area")
    return _described(score, "f1", "harmonic mean of precision and recall")


def share(ds: xr.Dataset) -> xr.DataArray:
    """Share of the label pixels of a concept's domain that carry the concept, (concept) float64 in [0, 1].

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"concept_area": ("concept", [5]), "domain_area": ("domain", [20])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> share(ds).item()  # 5 / 20
    0.25
    """
    score = _score(ds, _over_domain, "domain_area", "concept_area")
    return _described(score, "share", "share of the domain's label pixels that carry the concept")


def lift(ds: xr.Dataset) -> xr.DataArray:
    """Precision relative to the concept's share, (…, unit, concept) float64 >= 0.

    It is about 1 for a unit that has nothing to do with the concept. 0 where precision is 0, NaN where a count is
    missing.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [3]), "unit_area": ("domain", [4]), "concept_area": ("concept", [5]),
    ...      "domain_area": ("domain", [20])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> lift(ds).item()  # (3 / 4) / (5 / 20)
    3.0
    """
    by_chance = share(ds)
    return _described(precision(ds) / by_chance.where(by_chance != 0, 1), "lift", "precision over the concept's share")


def ceiling(ds: xr.Dataset) -> xr.DataArray:
    """Highest IoU that a unit of this area can reach with a concept of this area, (…, unit, concept) float64 in [0, 1].

    It is ``min(q, s) / max(q, s)``, where q and s are the shares of the domain that the unit and the concept cover. The
    area of the domain cancels out, so the two areas are divided.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"unit_area": ("domain", [4]), "concept_area": ("concept", [5])},
    ...     {"concept": [7], "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> ceiling(ds).item()  # at best all 4 active pixels are among the 5
    0.8
    """
    score = _score(ds, _smaller_over_larger, "unit_area", "concept_area")
    return _described(score, "ceiling", "highest IoU that the two areas allow")


def over_union(active: Counts, intersection: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    """The formula of :func:`iou`."""
    return intersection, active + labelled - intersection


def _over_active(active: Counts, intersection: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    return intersection, active


def _over_labelled(active: Counts, intersection: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    return intersection, labelled


def _over_mean_area(active: Counts, intersection: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    return 2 * intersection, active + labelled


def _over_domain(domain: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    return labelled, domain


def _smaller_over_larger(active: Counts, labelled: Counts) -> tuple[Counts, Counts]:
    return np.minimum(active, labelled), np.maximum(active, labelled)


def label_iou(ds: xr.Dataset) -> xr.DataArray:
    """IoU of each concept's predicted labels with people's, (concept) float64; NaN where images with both are missing.

    Where a segmenter drew the labels, a unit's IoU says how well it matches the segmenter. This number says how well
    the segmenter matches people, on the images that have labels of both.

    Examples
    --------
    >>> counts = {"label_intersection": ("concept", [3, 0]), "label_union": ("concept", [4, 0])}
    >>> label_iou(xr.Dataset({}, counts | {"concept": [2, 5]})).values.tolist()
    [0.75, nan]
    """
    both, either = ds["label_intersection"], ds["label_union"]
    found = (both / either.where(either > 0)).rename("label_iou")
    return found.assign_attrs(long_name="IoU of predicted labels with people's", units="1")


def _score(ds: xr.Dataset, formula: Formula, of_domain: str, *of_pair: str) -> xr.DataArray:
    """The ratio that `formula` makes of the count `of_domain` in each concept's domain and others."""
    score: xr.DataArray = xr.apply_ufunc(
        ratio,
        areas(ds, of_domain, *of_pair),
        _domain(ds),
        *(ds[name] for name in of_pair),
        input_core_dims=[["domain"], [], *([] for _ in of_pair)],
        kwargs={"formula": formula},
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    return score


def areas(ds: xr.Dataset, of_domain: str, *of_pair: str) -> xr.DataArray:
    """The count `of_domain`, its domains in one block; raises where one of the counts is not in the Dataset."""
    missing = [name for name in (of_domain, *of_pair, "concept_domain", "domain") if name not in ds.variables]
    if missing:
        raise DissectError(
            f"the Dataset has no {', '.join(missing)}: it has {', '.join(map(str, ds.variables)) or 'nothing'}. "
            f"Give the Dataset of open_dissection, or a selection of it that keeps its coordinates (drop=False)."
        )
    if "concept" in ds[of_domain].dims:
        raise DissectError(
            f"{of_domain} has the dimension concept, which ds.where(...) of concepts gives it. Select concepts with "
            "ds.isel(concept=mask), or where a mask is of units, with ds.isel(unit=mask)."
        )
    counts = ds[of_domain] if "domain" in ds[of_domain].dims else ds[of_domain].expand_dims("domain")
    if counts.chunks is not None:
        # `counts.chunk` would chunk the coordinates too, and xarray would then compute them to compare them.
        counts = counts.copy(data=counts.variable.chunk(domain=-1).data)
    return counts


def domain_indices(ds: xr.Dataset) -> NDArray[np.int64]:
    """Index along ``domain`` of each concept's domain, -1 where that, or the concept's category, is not selected."""
    concepts = ds["concept_domain"].values
    indices = {domain: index for index, domain in enumerate(np.atleast_1d(ds["domain"].values).tolist())}
    found = [indices.get(domain, -1) for domain in concepts.ravel().tolist()]
    index = np.array(found, dtype=np.int64).reshape(concepts.shape)
    if {"category", "concept_category"} <= ds.variables.keys():
        selected = np.isin(ds["concept_category"].values, np.atleast_1d(ds["category"].values))
        index = np.where(selected, index, -1)
    return index


def _domain(ds: xr.Dataset) -> xr.Variable:
    """`domain_indices`, chunked as the concepts are."""
    indices = xr.Variable(ds["concept_domain"].dims, domain_indices(ds))
    # As the intersection is, even for `ceiling`, which does not read it: its concepts would else be in one block.
    blocks = ds["intersection"].chunksizes.get("concept") if "intersection" in ds else None
    return indices if blocks is None else indices.chunk(concept=blocks)


def ratio(areas: Counts, domain: NDArray[np.int64], *of_pair: Counts, formula: Formula) -> NDArray[np.float64]:
    """One block of scores (…, concept), from `areas` (…, 1, domain), `domain` (concept) and the counts of pairs."""
    # `areas` has length 1 along concept and `domain` has no other axis: the reshape drops the axis of length 1.
    area = np.take(areas, domain, axis=-1).reshape(np.broadcast_shapes(areas.shape[:-1], domain.shape))
    if np.any(domain < 0):
        area = np.where(domain >= 0, area, np.nan)
    part, whole = formula(area, *of_pair)
    # 0 / 0 becomes 0 / 1, which is 0 and makes no warning; counts are whole numbers, so no other ratio changes.
    return np.asarray(part / np.maximum(whole, 1), dtype=np.float64)


def _described(score: xr.DataArray, name: str, long_name: str) -> xr.DataArray:
    score = score.rename(name)
    score.attrs = {"long_name": long_name, "units": "1"}
    return score
