"""Compares two dissections: which concepts each of them detects, and which only one of them.

Knows: that two concepts are the same if their names and categories are, whatever their numbers; in one dissection,
these must therefore be distinct.
Does not know: whether the two are networks, layers or snapshots.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from dissect_xr.analysis.detectors import concept_histogram
from dissect_xr.analysis.select import only
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF


def compare(
    a: xr.Dataset, b: xr.Dataset, *, names: tuple[str, str] = ("this", "other"), cutoff: float = CUTOFF
) -> xr.Dataset:
    """The concepts that two dissections detect; computes the labels of both.

    Variables: ``units(network, concept)``, how many units detect each concept as their label;
    ``unique_detectors(network, category)``, how many concepts have such a unit; ``only(concept)``, the name of the
    dissection that alone detects the concept, "both" or "neither".

    Parameters
    ----------
    a, b
        Dissection Datasets of one snapshot and fraction each.
    names
        The names of the two in the result.
    cutoff
        IoU that a detector exceeds.

    Raises
    ------
    DissectError
        If one holds several snapshots or fractions, or two concepts of one name in one category, or both have the same
        name.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [3, 0]]), "unit_area": (("unit", "domain"), [[4], [4]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> compare(ds, ds.isel(unit=[0])).only.to_series().to_dict()  # the best concepts of the units are sky and car
    {'car': 'this', 'sky': 'both'}
    """
    if names[0] == names[1]:
        raise DissectError(f"expected two different names, got '{names[0]}' for both: give two names.")
    units = [_units(ds, name, cutoff) for ds, name in zip((a, b), names, strict=True)]
    keys = list(dict.fromkeys([*units[0], *units[1]]))
    table = np.array([[found.get(key, 0) for key in keys] for found in units], np.int64).reshape(2, len(keys))
    categories = list(dict.fromkeys(category for category, _ in keys))
    concept_category = np.array([category for category, _ in keys], dtype=str)
    detected = table > 0
    unique = [[int(row[concept_category == category].sum()) for category in categories] for row in detected]
    sides = np.select([detected.all(axis=0), detected[0], detected[1]], ["both", *names], "neither")
    return xr.Dataset(
        {
            "units": (("network", "concept"), table),
            "unique_detectors": (("network", "category"), np.array(unique, np.int64).reshape(2, len(categories))),
            "only": ("concept", sides),
        },
        coords={
            "network": list(names),
            "concept": np.array([name for _, name in keys], dtype=str),
            "concept_category": ("concept", concept_category),
            "category": categories,
        },
        attrs={"cutoff": cutoff},
    )


def _units(ds: xr.Dataset, name: str, cutoff: float) -> dict[tuple[str, str], int]:
    """(category, concept name) -> number of units that detect the concept."""
    units = concept_histogram(only(ds, "snapshot", "fraction", of=f"'{name}'"), cutoff=cutoff)
    columns = (units[coordinate].values.tolist() for coordinate in ("concept_category", "concept_name", "concept"))
    number: dict[tuple[str, str], int] = {}
    for category, concept, n in zip(*columns, strict=True):
        if (category, concept) in number:
            raise DissectError(
                f"'{name}': concepts {number[category, concept]} and {n} are both called '{concept}' in the "
                f"category '{category}', so it is not known which of them to compare. Give them two names with "
                "ds.assign_coords(concept_name=...)."
            )
        number[category, concept] = n
    return dict(zip(number, units.compute().values.tolist(), strict=True))
