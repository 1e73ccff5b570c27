"""The label of each unit, which units are detectors, and how many concepts a layer detects.

Knows: how a unit gets its label (highest IoU; at equal IoUs the lowest concept number; none for a dead unit), and the
two ways to count unique detectors.
Does not know: how an IoU is computed, where the counts come from, or whether they are in memory.

Every function is lazy where the counts are lazy, and reduces them block by block, whichever dimensions are chunked. A
task holds its block of counts and their IoUs, and returns a few numbers per unit or per concept.

A worked example of the two counts of unique detectors. Sky and car are objects, blue is a color; the IoUs are

    unit    sky     car     blue      label     best object    best color
    u/0     0.30    0.02    0.10      sky       sky            blue
    u/1     0.25    0.05    0.03      sky       sky            none above 0.04
    u/2     0.01    0.08    0.09      blue      car            blue
    u/3     0.03    0.02    0.01      none      none           none

- ``by_unit`` counts distinct labels above the cutoff of 0.04: sky and blue, 2.
- ``by_category`` gives each unit a label in each category and counts those: sky and car among objects, blue among
  colors, 3 in all. That u/1 reaches 0.05 with car counts in neither way, since sky is its better object.

>>> intersection = [[46, 4, 18], [40, 10, 6], [2, 15, 16], [6, 4, 2]]  # all areas are 100 pixels: i / (200 - i)
>>> ds = xr.Dataset(
...     {"intersection": (("unit", "concept"), intersection), "concept_area": ("concept", [100, 100, 100]),
...      "unit_area": (("unit", "domain"), np.full((4, 2), 100))},
...     {"concept": [1, 2, 3], "concept_name": ("concept", ["sky", "car", "blue"]), "category": ["object", "color"],
...      "concept_category": ("concept", ["object", "object", "color"]),
...      "concept_domain": ("concept", ["object", "object", "color"]), "domain": ["object", "color"]},
... )
>>> int(detectors(ds).sum()), unique_detectors(ds, count="by_unit").item()
(3, 2)
>>> unique_detectors(ds, count="by_category").item()
3

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, section 2.3: detectors have IoU > 0.04, and a layer's
unique detectors are the distinct concepts that its units detect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.highest_iou import highest_iou
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

Count = Literal["by_unit", "by_category"]
"""How detected concepts are counted: by each unit's label, or by its best concept in every category."""


def best_concept(ds: xr.Dataset, *, within: str | None = None) -> xr.Dataset:
    """Each unit's concept of highest IoU: ``concept`` number, ``concept_name``, ``category`` and ``iou``, (…, unit).

    Where a segmenter drew labels, ``label_iou`` says how well these agree with people's for the concept. At equal IoUs
    the lowest concept number wins. Dead units and units without counts have none: 0, "", "" and NaN.

    Parameters
    ----------
    ds
        A dissection Dataset, or a selection that keeps the dimension ``concept``.
    within
        A category; only its concepts compete.

    Raises
    ------
    DissectError
        If no concept competes, or the Dataset lacks a count.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [0, 0]]), "unit_area": (("unit", "domain"), [[4], [0]]),
    ...      "concept_area": ("concept", [4, 8]), "dead": ("unit", [False, True])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> best = best_concept(ds)  # car 1 / 7, sky 4 / 8; the second unit is dead
    >>> best.concept_name.values.tolist(), best.concept.values.tolist(), best.iou.values.tolist()
    (['sky', ''], [5, 0], [0.5, nan])
    """
    ds = competing(ds, within)
    index, highest = highest_iou(ds)  # the first of equals: concepts are sorted by number
    index, highest = of_labelled_units(ds, index, highest)
    best = {
        "concept": look_up(index, np.append(ds["concept"].values, 0)),
        "concept_name": look_up(index, np.append(ds["concept_name"].values, "")),
        "category": look_up(index, np.append(ds["concept_category"].values, "")),
        "iou": highest,
    }
    if "label_iou" in ds.coords:
        best["label_iou"] = look_up(index, np.append(ds["label_iou"].values, np.nan))
    of_pairs = ["concept", "concept_name", "concept_category", "category"]
    labels = {name: values.drop_vars(of_pairs, errors="ignore").rename(name) for name, values in best.items()}
    for name, values in labels.items():
        values.attrs = {"long_name": _LONG_NAMES[name]}
    return xr.Dataset(labels, attrs={} if within is None else {"within": within})


def detectors(ds: xr.Dataset, *, cutoff: float | xr.DataArray = CUTOFF) -> xr.DataArray:
    """Whether each unit's best IoU exceeds the cutoff, (…, unit) bool; False for dead units and units without counts.

    Parameters
    ----------
    ds
        A dissection Dataset, or a selection that keeps the dimension ``concept``.
    cutoff
        IoU that a detector exceeds; one that equals it is not enough. A DataArray adds its dimension to the result.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1], [2]]), "unit_area": (("unit", "domain"), [[1], [2]]),
    ...      "concept_area": ("concept", [25])},
    ...     {"concept": [2], "concept_name": ("concept", ["car"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object"]),
    ...      "concept_domain": ("concept", ["object"]), "domain": ["object"]},
    ... )
    >>> detectors(ds).values.tolist()  # 1 / 25 is not above 0.04
    [False, True]
    """
    return _described(best_concept(ds)["iou"] > cutoff, "detector", "best IoU exceeds the cutoff", cutoff=cutoff)


def detected_concepts(
    ds: xr.Dataset,
    *,
    count: Count = "by_unit",
    over: str | Sequence[str] = "unit",
    cutoff: float | xr.DataArray = CUTOFF,
) -> xr.DataArray:
    """Whether any unit detects the concept, (…, concept) bool; :func:`unique_detectors` counts these concepts.

    It takes the parameters of :func:`unique_detectors` and raises the same errors.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4]]), "unit_area": (("unit", "domain"), [[4]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> detected_concepts(ds).values.tolist()
    [False, True]
    """
    pooled = _pooled(ds, over)
    if count == "by_unit":
        found = _labelled(ds, best_concept(ds), cutoff).any(pooled)
    elif count == "by_category":
        parts = [competing(ds, category) for category in dict.fromkeys(ds["concept_category"].values.tolist())]
        each = [_labelled(part, best_concept(part), cutoff).any(pooled) for part in parts]
        found = xr.concat(each, "concept", coords="minimal", compat="override", join="exact").sel(concept=ds["concept"])
    else:
        raise DissectError(f"count is {count!r}: expected one of {', '.join(get_args(Count))}.")
    return _described(found, "detected", "some unit detects the concept", cutoff=cutoff, count=count)


def unique_detectors(
    ds: xr.Dataset,
    *,
    count: Count = "by_unit",
    over: str | Sequence[str] = "unit",
    cutoff: float | xr.DataArray = CUTOFF,
) -> xr.DataArray:
    """Number of distinct concepts detected, (…) int64: the dimensions of `ds` without ``concept`` and `over`.

    Units without counts detect nothing. Layer by layer: ``ds.groupby("layer").map(unique_detectors, count="by_unit")``.

    Parameters
    ----------
    ds
        A dissection Dataset, or a selection that keeps the dimension ``concept``.
    count
        ``by_unit``: the distinct labels of detectors, as in published HTML reports. ``by_category``: in each category
        the distinct best concepts of units, added up over categories, as in published figures.
    over
        Dimensions whose units are counted together: ``("snapshot", "unit")`` for concepts detected in any snapshot.
    cutoff
        IoU to exceed (open). A DataArray of cutoffs adds its dimension to the result.

    Raises
    ------
    DissectError
        If no concept competes, the Dataset lacks a count, or `count` or `over` is none of the choices.

    Examples
    --------
    The label of both units is sky; in the category of colors both detect blue as well.

    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[4, 3], [4, 3]]), "concept_area": ("concept", [8, 8]),
    ...      "unit_area": (("unit", "domain"), [[4, 4], [4, 4]])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["sky", "blue"]), "category": ["object", "color"],
    ...      "concept_category": ("concept", ["object", "color"]),
    ...      "concept_domain": ("concept", ["object", "color"]), "domain": ["object", "color"]},
    ... )
    >>> unique_detectors(ds, count="by_unit").item(), unique_detectors(ds, count="by_category").item()
    (1, 2)
    """
    number = detected_concepts(ds, count=count, over=over, cutoff=cutoff).sum("concept", dtype=np.int64)
    return _described(number, "unique_detectors", "distinct concepts detected", cutoff=cutoff, count=count)


def concept_histogram(ds: xr.Dataset, *, cutoff: float | xr.DataArray = CUTOFF) -> xr.DataArray:
    """Number of units that detect each concept as their label, (…, concept) int64.

    Parameters
    ----------
    ds
        A dissection Dataset, or a selection that keeps the dimension ``concept``.
    cutoff
        IoU to exceed (open). A DataArray of cutoffs adds its dimension to the result.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [0, 5]]), "unit_area": (("unit", "domain"), [[4], [5]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> concept_histogram(ds).values.tolist()
    [0, 2]
    """
    units = _labelled(ds, best_concept(ds), cutoff).sum(_pooled(ds, "unit"), dtype=np.int64)
    return _described(units, "units", "units that detect the concept", cutoff=cutoff)


_LONG_NAMES = {
    "concept": "number of the best concept, 0 where there is none",
    "concept_name": "name of the best concept",
    "category": "primary category of the best concept",
    "iou": "IoU with the best concept",
    "label_iou": "IoU of the best concept's predicted labels with people's",
}


def competing(ds: xr.Dataset, within: str | None) -> xr.Dataset:
    """`ds` with the concepts that compete, sorted by number."""
    if "concept" not in ds.dims or "concept_name" not in ds.variables or "concept_category" not in ds.variables:
        raise DissectError(
            "expected the dimension concept with the coordinates concept_name and concept_category; the Dataset lacks "
            "one of these. Select concepts with a list, such as ds.sel(concept=[number]), which keeps the dimension."
        )
    categories = ds["concept_category"].values
    if within is not None:
        ds = ds.isel(concept=np.flatnonzero(categories == within))
    if ds.sizes["concept"] == 0:
        known = ", ".join(dict.fromkeys(categories.tolist())) or "none at all"
        raise DissectError(f"no concept competes in category {within!r}: the Dataset has concepts of {known}.")
    return ds if bool((np.diff(ds["concept"].values) > 0).all()) else ds.sortby("concept")


def of_labelled_units(ds: xr.Dataset, index: xr.DataArray, highest: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both results of `highest_iou`, -1 and NaN for dead units and units without counts."""
    found = highest >= 0
    if "dead" in ds:
        found &= ds["dead"] == 0  # not `~`: `dead` is NaN where a snapshot lacks the layer
    return index.where(found, -1), highest.where(found)


def look_up(index: xr.DataArray, table: NDArray[Any]) -> xr.DataArray:
    """The entry of `table` at each index; the last entry for index -1, a unit without a label."""
    found: xr.DataArray = xr.apply_ufunc(
        _entries, index, kwargs={"table": table}, dask="parallelized", output_dtypes=[table.dtype]
    )
    return found


def _entries(index: NDArray[np.int64], table: NDArray[Any]) -> NDArray[Any]:
    entries: NDArray[Any] = table[index]
    return entries


def _labelled(ds: xr.Dataset, best: xr.Dataset, cutoff: float | xr.DataArray) -> xr.DataArray:
    """Whether the concept is the unit's label, above the cutoff: (…, unit, concept) bool, chunked as the counts."""
    numbers = xr.DataArray(ds["concept"].values, dims="concept")
    if "concept" in ds["intersection"].chunksizes:
        numbers = numbers.chunk(concept=ds["intersection"].chunksizes["concept"])
    labelled = best["concept"].where(best["iou"] > cutoff, 0) == numbers
    return labelled.assign_coords({name: values for name, values in ds.coords.items() if values.dims == ("concept",)})


def _pooled(ds: xr.Dataset, over: str | Sequence[str]) -> list[str]:
    """The dimensions of `over` that the Dataset still has."""
    names = [over] if isinstance(over, str) else list(over)
    allowed = {"snapshot", "fraction", "unit", *map(str, ds["intersection"].dims)} - {"concept"}
    if unknown := [name for name in names if name not in allowed]:
        raise DissectError(
            f"over names {', '.join(unknown)}: expected dimensions of the units, {', '.join(sorted(allowed))}."
        )
    return [name for name in names if name in ds["intersection"].dims]


def _described(values: xr.DataArray, name: str, long_name: str, **parameters: Any) -> xr.DataArray:
    values = values.rename(name)
    scalars = {key: value for key, value in parameters.items() if not isinstance(value, xr.DataArray)}
    values.attrs = {"long_name": long_name, **scalars}
    return values
