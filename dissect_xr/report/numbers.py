"""The numbers of the report: the counts of a layer as plain lists, and the labels of all layers for the overview.

Knows: which numbers the pages show, and that the browser derives scores from counts in float64, as `scores` does.
Does not know: files, HTML, images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.scores import domain_indices, iou
from dissect_xr.analysis.select import category_names
from dissect_xr.plot.palette import category_colors

TOP = 10
"""Concepts kept per unit, highest IoU first."""

CUTOFFS = tuple(round(0.005 * n, 3) for n in range(61))
"""The cutoffs at which the overview's curves are computed, 0 to 0.3."""

NAMED_DOMAINS = 20
"""Domains whose areas a unit's card lists at most; where each concept is a domain, there are thousands."""

COUNTS = ("intersection", "unit_area", "concept_area", "domain_area", "dead", "threshold", "exceedance")
"""Variables of a dissection that the report reads."""


@dataclass(frozen=True)
class UnitLabels:
    """The labels of one layer's units in one snapshot, and its unique detectors: what the overview needs of a layer."""

    channel: NDArray[np.int64]
    """(unit,)"""
    concept: NDArray[np.int32]
    """(unit,) index of the best concept, -1 where there is none"""
    iou: NDArray[np.float64]
    """(unit,) IoU with the best concept, -1 where there is none"""
    by_category: NDArray[np.int64]
    """(cutoff,) unique detectors by category at each of CUTOFFS"""
    at_cutoff: int
    """unique detectors by category at the report's cutoff"""

    def detectors(self, cutoff: float) -> int:
        """Number of units whose IoU exceeds the cutoff."""
        return int((self.iou > cutoff).sum())

    def unique(self, cutoff: float) -> int:
        """Number of distinct concepts of these units: unique detectors by unit."""
        return len(self.detected(cutoff))

    def detected(self, cutoff: float) -> dict[int, int]:
        """Index of each detected concept -> its number of units; the largest number first, then by index."""
        concepts, units = np.unique(self.concept[self.iou > cutoff], return_counts=True)
        order = np.lexsort((concepts, -units))
        return {int(concepts[n]): int(units[n]) for n in order}

    def curves(self) -> dict[str, list[int]]:
        """The three counts over CUTOFFS."""
        return {
            "detectors": [self.detectors(cutoff) for cutoff in CUTOFFS],
            "by_unit": unique_over(self.concept, self.iou, CUTOFFS).tolist(),
            "by_category": self.by_category.tolist(),
        }


def layer_numbers(one: xr.Dataset, *, cutoff: float, top: int = TOP) -> tuple[dict[str, Any], UnitLabels]:
    """The numbers of a layer's page, as JSON takes them, and the labels for the overview.

    In place of scores the page gets the counts, from which the browser derives the same IoUs, bit for bit.

    Parameters
    ----------
    one
        Counts of one snapshot, fraction and layer in memory, concepts ascending: (unit, concept).
    cutoff
        IoU that a detector exceeds.
    top
        Concepts on the page per unit.
    """
    scores = iou(one).transpose("unit", "concept").values
    counts = one["intersection"].transpose("unit", "concept").values.astype(np.int64)
    areas = one["unit_area"].transpose("unit", "domain").values.astype(np.int64)
    active = areas[:, domain_indices(one)]  # (unit, concept)
    alive = one["dead"].values == 0
    # Stable: of equal scores the lowest number comes first, as in `best_concept`.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    groups = [np.flatnonzero(one["concept_category"].values == category) for category in category_names(one)]
    winners = [group[scores[:, group].argmax(1)] if group.size else None for group in groups]
    units = range(len(scores))
    numbers = {
        "channel": one["channel"].values.tolist(),
        "dead": (~alive).astype(int).tolist(),
        "threshold": [float(f"{value:.6g}") for value in one["threshold"].values.tolist()],
        "exceedance": one["exceedance"].values.astype(np.int64).tolist(),
        "top": [_pairs(order[unit], scores[unit], counts[unit], active[unit]) if alive[unit] else [] for unit in units],
        "best": [
            [
                [int(w[unit]), int(counts[unit, w[unit]]), int(active[unit, w[unit]])] if w is not None else [-1, 0, 0]
                for w in winners
            ]
            for unit in units
        ],
    }
    if one.sizes["domain"] <= NAMED_DOMAINS:
        numbers["area"] = areas.tolist()
    first = np.where(alive, order[:, 0], -1).astype(np.int32)
    highest = np.where(alive, scores[np.arange(len(scores)), order[:, 0]], -1.0)
    by_category = np.zeros((2, len(CUTOFFS) + 1), np.int64)
    for winner in winners:
        if winner is not None:
            within = np.where(alive, scores[np.arange(len(scores)), winner], -1.0)
            by_category[0] += unique_over(winner, within, (*CUTOFFS, cutoff))
    channel = one["channel"].values.astype(np.int64)
    return numbers, UnitLabels(channel, first, highest, by_category[0, :-1], int(by_category[0, -1]))


def unique_over(concept: NDArray[Any], score: NDArray[np.float64], cutoffs: Sequence[float]) -> NDArray[np.int64]:
    """Number of distinct concepts of the units whose score exceeds each cutoff, (cutoff,) int64.

    >>> unique_over(np.array([3, 3, 5]), np.array([0.2, 0.1, 0.05]), (0.0, 0.05, 0.2)).tolist()
    [2, 1, 0]
    """
    highest = np.full(int(concept.max(initial=-1)) + 1, -1.0)
    labelled = concept >= 0
    np.maximum.at(highest, concept[labelled], score[labelled])
    return np.array([(highest > cutoff).sum() for cutoff in cutoffs], np.int64)


def vocabulary(ds: xr.Dataset) -> dict[str, Any]:
    """Concepts and categories with their areas and colors, as JSON takes them."""
    names = category_names(ds)
    colors = category_colors(names)
    indices = {category: index for index, category in enumerate(names)}
    return {
        "categories": [{"name": name, "color": colors[name]} for name in names],
        "domains": ds["domain"].values.tolist() if ds.sizes["domain"] <= NAMED_DOMAINS else [],
        "concepts": {
            "number": ds["concept"].values.tolist(),
            "name": ds["concept_name"].values.tolist(),
            "category": [indices[category] for category in ds["concept_category"].values.tolist()],
            "area": [int(area) for area in ds["concept_area"].values.tolist()],
            "domain_area": [int(area) for area in ds["domain_area"].values[domain_indices(ds)].tolist()],
            **_drawn(ds),
        },
    }


def _drawn(ds: xr.Dataset) -> dict[str, Any]:
    """Who drew each concept's labels, and how well predicted ones agree with people's, null where that is not known."""
    if "label_source" not in ds.coords:
        return {}
    agreement = [None if np.isnan(value) else round(value, 5) for value in ds["label_iou"].values.tolist()]
    return {"drawn": ds["label_source"].values.tolist(), "label_iou": agreement}


def trajectory(snapshots: Sequence[UnitLabels | None]) -> dict[str, Any]:
    """Each unit's label and IoU in every snapshot, as JSON takes them; None where a snapshot lacks the layer."""
    return {
        "channel": [None if one is None else one.channel.tolist() for one in snapshots],
        "concept": [None if one is None else one.concept.tolist() for one in snapshots],
        "iou": [None if one is None else np.round(one.iou, 5).tolist() for one in snapshots],
    }


def units_of_concepts(layers: Sequence[UnitLabels | None]) -> dict[str, list[list[float]]]:
    """Index of each concept -> units with this label, [layer, channel, IoU], highest IoU first, as JSON takes them."""
    rows = [
        (int(concept), -float(score), layer, int(channel))
        for layer, one in enumerate(layers)
        if one is not None
        for concept, score, channel in zip(one.concept, one.iou, one.channel, strict=True)
        if concept >= 0 and score > 0
    ]
    found: dict[str, list[list[float]]] = {}
    for concept, score, layer, channel in sorted(rows):
        found.setdefault(str(concept), []).append([layer, channel, -score])
    return found


def _pairs(
    order: NDArray[np.int64], scores: NDArray[np.float64], counts: NDArray[np.int64], active: NDArray[np.int64]
) -> list[list[int]]:
    """[concept index, intersection, unit_area] of the unit's best concepts; the first even if it shares no pixel."""
    kept = [index for n, index in enumerate(order.tolist()) if n == 0 or scores[index] > 0]
    return [[index, int(counts[index]), int(active[index])] for index in kept]
