"""Unique detectors of a layer in several bases: are its units special, or would any directions do as well?

Knows: which layers of a dissection are derived from which one, and how both counts of unique detectors are made.
Does not know: how derived layers are computed, figures.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, section 3.2 and figure 4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.labels import unit_labels
from dissect_xr.analysis.select import category_names, only
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

RECORDED = "recorded"
"""Kind of the layer itself, beside those of bases."""


def derived_layers(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Derived layer -> the recorded ``layer`` that it is derived from, and its ``basis``, kind and parameters.

    >>> derived_layers(xr.Dataset(attrs={"derived": '{"conv@pca": {"layer": "conv", "basis": {"kind": "pca"}}}'}))
    {'conv@pca': {'layer': 'conv', 'basis': {'kind': 'pca'}}}
    """
    found: dict[str, dict[str, Any]] = json.loads(ds.attrs.get("derived", "{}"))
    return found


def recorded(ds: xr.Dataset) -> xr.Dataset:
    """`ds` without the units of derived layers."""
    derived = list(derived_layers(ds))
    return ds.isel(unit=np.flatnonzero(~np.isin(ds["layer"].values, derived))) if derived else ds


def present(ds: xr.Dataset) -> xr.Dataset:
    """A Dataset of one snapshot without the layers that this snapshot lacks."""
    if "complete" not in ds:
        return ds
    lacking = ds["layer_name"].values[ds["complete"].values == 0]
    return ds.isel(unit=np.flatnonzero(~np.isin(ds["layer"].values, lacking)))


def basis_detectors(ds: xr.Dataset, layer: str, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Unique detectors of a layer and of every layer that is derived from it and is there; computes.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot and fraction, with its attributes.
    layer
        A recorded layer.
    cutoff
        IoU that a detector exceeds.

    Returns
    -------
    xr.Dataset
        ``by_unit`` and ``by_category`` (basis, category) int64, the two counts of
        :func:`dissect_xr.unique_detectors`, and ``detectors`` and ``units`` (basis) int64. The coordinate ``basis`` is
        the layer's name; ``kind`` (the layer itself is ``recorded``), ``alpha`` and ``seed`` are those of the basis,
        NaN and -1 where it has none.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions, or no layer that is derived from this one.
    """
    ds = present(only(ds, "snapshot", "fraction"))
    bases = {name: one["basis"] for name, one in derived_layers(ds).items() if one["layer"] == layer}
    of = ds["layer"].values
    there = [name for name in (layer, *bases) if (of == name).any()]
    if layer not in there or len(there) < 2:
        raise DissectError(
            f"expected {layer} and layers derived from it, found {', '.join(there) or 'neither'}. Derive layers "
            "(`derived` in the recipe), and keep the attribute `derived` of open_dissection."
        )
    labels = unit_labels(ds.isel(unit=np.flatnonzero(np.isin(of, there))))
    categories = category_names(ds)
    kinds = dict(zip(ds["concept"].values.tolist(), ds["concept_category"].values.tolist(), strict=True))
    rows = [_counts(labels.isel(unit=labels["layer"].values == name), categories, kinds, cutoff) for name in there]
    parameters = [{"kind": RECORDED} if name == layer else bases[name] for name in there]
    return xr.Dataset(
        {
            "by_unit": (("basis", "category"), np.stack([row[0] for row in rows])),
            "by_category": (("basis", "category"), np.stack([row[1] for row in rows])),
            "detectors": ("basis", np.array([row[2] for row in rows])),
            "units": ("basis", np.array([row[3] for row in rows])),
        },
        {
            "basis": there,
            "category": categories,
            "kind": ("basis", [one["kind"] for one in parameters]),
            "alpha": ("basis", np.array([one.get("alpha", np.nan) for one in parameters], np.float64)),
            "seed": ("basis", np.array([one.get("seed", -1) for one in parameters], np.int64)),
        },
        {"layer": layer, "cutoff": cutoff},
    )


def over_alpha(found: xr.Dataset, *, kind: str = "rotation") -> xr.Dataset:
    """Unique detectors of rotated layers, ``by_unit`` and ``by_category`` (alpha, seed, category) float64.

    NaN where a share of the way was not dissected for a seed.

    Parameters
    ----------
    found
        What `basis_detectors` gives.
    kind
        ``rotation``, or ``rotation_2017``.

    Raises
    ------
    DissectError
        If there is none of this kind.

    Examples
    --------
    >>> counts = [[3, 1], [2, 0], [1, 0]]
    >>> found = xr.Dataset(
    ...     {"by_unit": (("basis", "category"), counts), "by_category": (("basis", "category"), counts)},
    ...     {"basis": ["conv", "conv@rotation-1-s0", "conv@rotation-1-s1"], "category": ["object", "part"],
    ...      "kind": ("basis", ["recorded", "rotation", "rotation"]), "alpha": ("basis", [np.nan, 1.0, 1.0]),
    ...      "seed": ("basis", [-1, 0, 1])},
    ... )
    >>> over_alpha(found).by_unit.sel(category="object").values.tolist()
    [[2.0, 1.0]]
    """
    mine = found.isel(basis=found["kind"].values == kind)
    if not mine.sizes["basis"]:
        known = ", ".join(dict.fromkeys(found["kind"].values.tolist()))
        raise DissectError(f"expected layers of kind {kind}, found {known}. Derive them: basis: {kind}.")
    alphas, seeds = np.unique(mine["alpha"].values), np.unique(mine["seed"].values)
    at = np.searchsorted(alphas, mine["alpha"].values), np.searchsorted(seeds, mine["seed"].values)
    variables = {}
    for count in ("by_unit", "by_category"):
        values = np.full((alphas.size, seeds.size, mine.sizes["category"]), np.nan)
        values[at] = mine[count].values
        variables[count] = (("alpha", "seed", "category"), values)
    return xr.Dataset(variables, {"alpha": alphas, "seed": seeds, "category": mine["category"].values})


def _counts(
    labels: xr.Dataset, categories: Sequence[str], kinds: dict[int, str], cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """Unique detectors of each category by both counts, detectors, and units, of one layer."""
    detects = labels["iou"].values > cutoff
    labelled = [kinds[number] for number in np.unique(labels["concept"].values[detects]).tolist()]
    within = dict(zip(labels["within"].values.tolist(), range(labels.sizes["within"]), strict=True))
    above, best = labels["iou_within"].values > cutoff, labels["concept_within"].values
    by_category = [
        np.unique(best[above[:, within[name]], within[name]]).size if name in within else 0 for name in categories
    ]
    by_unit = [labelled.count(name) for name in categories]
    return np.array(by_unit, np.int64), np.array(by_category, np.int64), int(detects.sum()), detects.size
