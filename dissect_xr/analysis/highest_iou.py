"""The highest IoU of each unit, from the counts, without an array of all IoUs.

Knows: that the first of equal IoUs wins, that a missing IoU loses to every other, that IoUs are those of `scores.iou`.
Does not know: what a label or a dead unit is, or the names of concepts.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.scores import Counts, areas, domain_indices, over_union, ratio

CACHED = 1 << 16
"""Pairs scored at a time. Their counts, 512 KiB, stay in a processor's cache: twice as fast as a whole block."""


def highest_iou(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Index along ``concept`` of each unit's highest IoU, (…, unit) int64, and that IoU, float64; the first of equals.

    IoUs are those of :func:`iou`, bit for bit, but only some thousands are in memory at a time. A missing IoU loses to
    every other; where all are missing, the highest is -1. A task holds one block of counts.

    Raises
    ------
    DissectError
        As :func:`iou`.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": ("concept", [1, 3]), "unit_area": ("domain", [4]), "concept_area": ("concept", [4, 5])},
    ...     {"concept": [7, 9], "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> index, highest = highest_iou(ds)  # 1 / 7 and 3 / 6
    >>> index.item(), highest.item()
    (1, 0.5)
    """
    index, highest = highest_within(ds, np.zeros(ds.sizes.get("concept", 1), np.int64), 1)
    return index.isel(within=0), highest.isel(within=0)


def highest_within(ds: xr.Dataset, group: NDArray[np.int64], groups: int) -> tuple[xr.DataArray, xr.DataArray]:
    """The same among the concepts of each group, (…, unit, within): concept c is in `group[c]` of so many groups."""
    blocks = ds["intersection"].chunksizes.get("concept", (ds.sizes["concept"],)) if "intersection" in ds else (1,)
    stops = np.cumsum(blocks).tolist()
    found = _highest_of_block(ds.isel(concept=slice(0, stops[0])), group[: stops[0]], groups)
    for first, stop in pairwise(stops):
        index, highest = _highest_of_block(ds.isel(concept=slice(first, stop)), group[first:stop], groups)
        better = highest > found[1]
        found = (index + first).where(better, found[0]), highest.where(better, found[1])
    return found


def _highest_of_block(ds: xr.Dataset, group: NDArray[np.int64], groups: int) -> tuple[xr.DataArray, xr.DataArray]:
    """`highest_within` of a Dataset whose concepts lie in one block."""
    of_pair = ("intersection", "concept_area")
    found: tuple[xr.DataArray, xr.DataArray] = xr.apply_ufunc(
        _highest,
        areas(ds, "unit_area", *of_pair),
        xr.Variable("concept", domain_indices(ds)),
        *(ds[name] for name in of_pair),
        input_core_dims=[["domain"], ["concept"], ["concept"], ["concept"]],
        output_core_dims=[["within"], ["within"]],
        kwargs={"members": [np.flatnonzero(group == number) for number in range(groups)]},
        dask="parallelized",
        output_dtypes=[np.int64, np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {"within": groups}},
    )
    return found


def _highest(
    of_domain: Counts,
    domains: NDArray[np.int64],
    intersection: Counts,
    labelled: Counts,
    *,
    members: list[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index and value of the highest IoU among the members of each group.

    From (…, domain), (concept), (…, concept) and (…, concept) to (…, group) twice. -1 for a group without members.
    """
    shape = np.broadcast_shapes(of_domain.shape[:-1], intersection.shape[:-1], labelled.shape[:-1])
    rows = shape or (1,)
    of_domain, intersection, labelled = (
        np.broadcast_to(counts, (*rows, counts.shape[-1])) for counts in (of_domain, intersection, labelled)
    )
    index, highest = np.zeros((*rows, len(members)), np.int64), np.full((*rows, len(members)), -1.0)
    step = max(1, CACHED // domains.size)
    for outer in np.ndindex(rows[:-1]):
        for first in range(0, rows[-1], step):
            at = (*outer, slice(first, first + step))
            scores = ratio(of_domain[at][:, None], domains, intersection[at], labelled[at], formula=over_union)
            if intersection.dtype.kind == "f" or of_domain.dtype.kind == "f" or np.any(domains < 0):
                scores = np.where(np.isnan(scores), -1.0, scores)
            for number, mine in enumerate(members):
                if mine.size:
                    competing = scores if mine.size == domains.size else scores[:, mine]
                    best = competing.argmax(axis=-1)
                    index[(*at, number)] = mine[best]
                    highest[(*at, number)] = np.take_along_axis(competing, best[:, None], axis=-1)[:, 0]
    return index.reshape(*shape, -1), highest.reshape(*shape, -1)
