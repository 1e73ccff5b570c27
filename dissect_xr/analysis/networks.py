"""Compares any number of networks: what each detects, what they share, at which depth.

Knows: that concepts are one where their names and categories are, and that layers of networks differ but for their
order.
Does not know: what makes networks different, figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.bases import present, recorded
from dissect_xr.analysis.labels import unit_labels
from dissect_xr.analysis.select import category_names, only
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

_Pair = tuple[str, str]
"""category and name"""


def compare_networks(networks: Mapping[str, xr.Dataset], *, cutoff: float = CUTOFF) -> xr.Dataset:
    """What networks detect, joined along ``network``; computes the labels of each. Derived layers do not count.

    Parameters
    ----------
    networks
        Name -> dissection Dataset of one snapshot and fraction. Several runs, or snapshots of one run.
    cutoff
        IoU that a detector exceeds.

    Returns
    -------
    xr.Dataset
        Of each network: ``units``, ``detectors`` and ``layers`` (network) int64; ``labels`` (network, concept), how
        many units have the concept as their label; ``unique_detectors`` (network, category), how many concepts have
        one; ``own`` (network, category), how many of these no other network detects.
        Of pairs: ``overlap`` (network, other) float64, the concepts that both detect over those that one of the two
        does (Jaccard), NaN where neither detects any.
        Of layers: ``unique_detectors_of_layer`` and ``units_of_layer`` (network, depth), NaN beyond a network's last
        layer; ``layer_name`` (network, depth). The depth of a layer counts from 0 in the order of the model.
        The coordinate ``concept_category`` says the category of a concept; concepts that no network detects are left
        out.

    Raises
    ------
    DissectError
        If there is no network, or one holds several snapshots or fractions.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [3, 0]]), "unit_area": (("unit", "domain"), [[4], [4]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"unit": ["a/0", "b/0"], "layer": ("unit", ["a", "b"]), "concept": [2, 5],
    ...      "concept_name": ("concept", ["car", "sky"]), "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "category": ["object"], "domain": ["object"]},
    ... )
    >>> found = compare_networks({"both": ds, "half": ds.isel(unit=[0])})  # labels are sky and car; sky alone
    >>> found.unique_detectors.values.tolist(), found.own.values.tolist(), found.overlap.values[0].tolist()
    ([[2], [1]], [[1], [0]], [1.0, 0.5])
    """
    if not networks:
        raise DissectError("expected networks to compare, as a dict of name and Dataset; none were given.")
    found = {name: _of_network(ds, name, cutoff) for name, ds in networks.items()}
    pairs = list(dict.fromkeys(pair for one in found.values() for pair in one["labels"]))
    categories = list(dict.fromkeys(category for one in found.values() for category in one["categories"]))
    labels = np.array([[one["labels"].get(pair, 0) for pair in pairs] for one in found.values()], np.int64)
    labels = labels.reshape(len(found), len(pairs))
    of_concept = np.array([category for category, _ in pairs], dtype=str)
    detected = labels > 0
    own = detected & (detected.sum(axis=0) == 1)
    depth = max(len(one["layers"]) for one in found.values())
    return xr.Dataset(
        {
            "units": ("network", np.array([one["units"] for one in found.values()], np.int64)),
            "detectors": ("network", labels.sum(axis=1)),
            "layers": ("network", np.array([len(one["layers"]) for one in found.values()], np.int64)),
            "labels": (("network", "concept"), labels),
            "unique_detectors": (("network", "category"), _by_category(detected, of_concept, categories)),
            "own": (("network", "category"), _by_category(own, of_concept, categories)),
            "overlap": (("network", "other"), _overlap(detected)),
            "unique_detectors_of_layer": (("network", "depth"), _padded(found, "unique", depth)),
            "units_of_layer": (("network", "depth"), _padded(found, "sizes", depth)),
        },
        {
            "network": list(found),
            "other": list(found),
            "concept": np.array([name for _, name in pairs], dtype=str),
            "concept_category": ("concept", of_concept),
            "category": categories,
            "depth": np.arange(depth),
            "layer_name": (
                ("network", "depth"),
                np.array([[*one["layers"], *[""] * (depth - len(one["layers"]))] for one in found.values()], dtype=str),
            ),
        },
        {"cutoff": cutoff},
    )


def _of_network(ds: xr.Dataset, name: str, cutoff: float) -> dict[str, Any]:
    """The labels of one network's detectors, and of each of its layers."""
    ds = recorded(present(only(ds, "snapshot", "fraction", of=f"'{name}'")))
    labels = unit_labels(ds)
    pairs = zip(ds["concept_category"].values.tolist(), ds["concept_name"].values.tolist(), strict=True)
    of_number = dict(zip(ds["concept"].values.tolist(), pairs, strict=True))
    is_detector = labels["iou"].values > cutoff
    numbers, of_layer = labels["concept"].values, ds["layer"].values
    counts: dict[_Pair, int] = {}
    for number in numbers[is_detector].tolist():
        counts[of_number[number]] = counts.get(of_number[number], 0) + 1
    layers = list(dict.fromkeys(of_layer.tolist()))
    mine = [of_layer == layer for layer in layers]
    return {
        "labels": counts,
        "categories": category_names(ds),
        "units": ds.sizes["unit"],
        "layers": layers,
        "sizes": [int(one.sum()) for one in mine],
        "unique": [len(set(numbers[one & is_detector].tolist())) for one in mine],
    }


def _by_category(detected: NDArray[np.bool_], of_concept: NDArray[np.str_], categories: list[str]) -> NDArray[np.int64]:
    """(network, category) how many concepts."""
    return np.array([[int(row[of_concept == category].sum()) for category in categories] for row in detected], np.int64)


def _overlap(detected: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(network, other) concepts of both over those of either."""
    both = detected.astype(np.int64) @ detected.T.astype(np.int64)
    alone = detected.sum(axis=1)
    either = alone[:, None] + alone[None, :] - both
    found: NDArray[np.float64] = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    return found


def _padded(found: Mapping[str, Mapping[str, Any]], what: str, depth: int) -> NDArray[np.float64]:
    values = np.full((len(found), depth), np.nan)
    for row, one in zip(values, found.values(), strict=True):
        row[: len(one[what])] = one[what]
    return values
