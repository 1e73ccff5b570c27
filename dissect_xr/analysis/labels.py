"""The label of every unit, and its best concept in each category, from one reading of the counts.

Knows: that both counts of unique detectors, of any layers and snapshots, follow from these few numbers.
Does not know: how a best concept is found (`detectors`), tables, figures.
"""

import numpy as np
import xarray as xr

from dissect_xr.analysis.detectors import competing, look_up, of_labelled_units
from dissect_xr.analysis.highest_iou import highest_within
from dissect_xr.schema import CUTOFF


def unit_labels(ds: xr.Dataset) -> xr.Dataset:
    """Best concepts of each unit, in memory; computes. A few numbers per unit, whatever the number of concepts.

    Returns
    -------
    xr.Dataset
        ``concept`` and ``iou`` (…, unit), as `best_concept` gives them, and ``concept_within`` and ``iou_within``
        (…, unit, within), the best of each category that has concepts. 0 and NaN where there is none.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[4, 3]]), "concept_area": ("concept", [8, 8]),
    ...      "unit_area": (("unit", "domain"), [[4, 4]])},
    ...     {"unit": ["conv5/0"], "concept": [2, 5], "concept_name": ("concept", ["sky", "blue"]),
    ...      "category": ["object", "color"], "concept_category": ("concept", ["object", "color"]),
    ...      "concept_domain": ("concept", ["object", "color"]), "domain": ["object", "color"]},
    ... )
    >>> labels = unit_labels(ds)  # 4 / 8 and 3 / 9
    >>> labels.concept.values.tolist(), labels.concept_within.values.tolist()
    ([2], [[2, 5]])
    """
    categories = list(dict.fromkeys(ds["concept_category"].values.tolist()))
    ds = competing(ds, None)
    numbers = {category: number for number, category in enumerate(categories)}
    group = np.array([numbers[category] for category in ds["concept_category"].values.tolist()])
    index, highest = of_labelled_units(ds, *highest_within(ds, group, len(categories)))
    numbered = look_up(index, np.append(ds["concept"].values, 0))
    within = xr.Dataset({"concept_within": numbered, "iou_within": highest}).compute()
    within = within.assign_coords(within=np.array(categories, dtype=str))
    iou = within["iou_within"].max("within")
    # The first of equals: the lowest number of the categories' best.
    first = within["concept_within"].where(within["iou_within"] == iou, np.iinfo(np.int64).max).min("within")
    best = within.assign(concept=first.where(iou.notnull(), 0), iou=iou)
    return best.drop_vars(["concept_name", "concept_category", "category"], errors="ignore").transpose(
        ..., "unit", "within"
    )


def short_name(name: str, length: int = 40) -> str:
    """A concept's name in at most `length` characters: ADE20K has names of 60, beside which no number has room.

    The end is kept, too, since some names differ only there.

    >>> short_name("sky"), short_name("screen, silver screen, projection screen", 24)
    ('sky', 'screen, silver s… screen')
    """
    return name if len(name) <= length else f"{name[: length - 8]}…{name[-7:]}"


def layer_counts(labels: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Detectors and unique detectors of each layer, from `unit_labels` of one snapshot and fraction.

    Returns
    -------
    xr.Dataset
        ``units``, ``detectors``, ``by_unit`` and ``by_category`` (layer_name) int64.

    Examples
    --------
    >>> labels = xr.Dataset(
    ...     {"concept": ("unit", [2, 2]), "iou": ("unit", [0.5, 0.03]),
    ...      "concept_within": (("unit", "within"), [[2], [2]]), "iou_within": (("unit", "within"), [[0.5], [0.03]])},
    ...     {"layer": ("unit", ["conv5", "conv5"])},
    ... )
    >>> counts = layer_counts(labels)
    >>> counts.units.item(), counts.detectors.item(), counts.by_unit.item(), counts.by_category.item()
    (2, 1, 1, 1)
    """
    layer = np.atleast_1d(labels["layer"].values)
    names = list(dict.fromkeys(layer.tolist()))
    rows = [_counts(labels.isel(unit=np.flatnonzero(layer == name)), cutoff) for name in names]
    return xr.Dataset(
        {key: ("layer_name", np.array([row[key] for row in rows])) for key in rows[0]}, {"layer_name": names}
    )


def top_concepts(labels: xr.Dataset, count: int, *, cutoff: float = CUTOFF) -> list[tuple[int, int]]:
    """(concept number, units that detect it as their label) of the most frequent labels; equal ones by number."""
    numbers, units = np.unique(labels["concept"].values[labels["iou"].values > cutoff], return_counts=True)
    order = np.lexsort((numbers, -units))[:count]
    return [(int(numbers[n]), int(units[n])) for n in order]


def _counts(one: xr.Dataset, cutoff: float) -> dict[str, int]:
    detects = one["iou"].values > cutoff
    within = one["iou_within"].values > cutoff
    concepts = one["concept_within"].values
    return {
        "units": detects.size,
        "detectors": int(detects.sum()),
        "by_unit": np.unique(one["concept"].values[detects]).size,
        "by_category": sum(np.unique(concepts[within[:, n], n]).size for n in range(within.shape[1])),
    }
