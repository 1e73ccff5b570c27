"""The scores of one concept with all units, and of one unit with its best concepts.

Knows: which scores describe a pair of a unit and a concept.
Does not know: how scores are computed (`scores`) or shown.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from dissect_xr.analysis import scores
from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.select import concept_index, unit_index
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF


def of_concept(ds: xr.Dataset, concept: str | int, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Scores of one concept with every unit, (…, unit): ``iou``, ``precision``, ``recall``, ``label``, ``detector``.

    ``label`` says whether the concept is the unit's label, ``detector`` whether its IoU also exceeds the cutoff. The
    detectors alone: ``answer.where(answer.detector.compute(), drop=True)``.

    Parameters
    ----------
    ds
        A dissection Dataset, or a selection that keeps the dimension ``concept``.
    concept
        Its name (in upper or lower case) or number.
    cutoff
        IoU that a detector exceeds.

    Raises
    ------
    DissectError
        If there is no such concept; similar names are listed.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4], [3, 0]]), "unit_area": (("unit", "domain"), [[4], [4]]),
    ...      "concept_area": ("concept", [4, 8])},
    ...     {"concept": [2, 5], "concept_name": ("concept", ["car", "sky"]), "category": ["object"],
    ...      "concept_category": ("concept", ["object", "object"]),
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> car = of_concept(ds, "car")  # 1 / 7 and 3 / 5; the first unit's label is sky, 4 / 8
    >>> car.label.values.tolist(), car.iou.values.round(3).tolist()
    ([False, True], [0.143, 0.6])
    """
    index = concept_index(ds, concept)
    pair = ds.isel(concept=[index])
    answer = xr.Dataset({name: getattr(scores, name)(pair).isel(concept=0) for name in ("iou", "precision", "recall")})
    label = best_concept(ds)["concept"] == int(np.atleast_1d(ds["concept"].values)[index])
    return answer.assign(label=label, detector=label & (answer["iou"] > cutoff)).assign_attrs(cutoff=cutoff)


def of_unit(ds: xr.Dataset, unit: str, *, top: int = 5) -> xr.Dataset:
    """The `top` best concepts of one unit in every snapshot and fraction, (…, rank); computes.

    Variables ``concept``, ``concept_name``, ``category`` and the scores ``iou``, ``precision``, ``recall``, ``share``
    and ``ceiling``. Concepts with equal IoUs are in the order of their numbers. Where counts are missing, IoUs are NaN.

    Raises
    ------
    DissectError
        If there is no such unit; similar ids are listed.

    Examples
    --------
    >>> ds = xr.Dataset(
    ...     {"intersection": (("unit", "concept"), [[1, 4]]), "unit_area": (("unit", "domain"), [[4]]),
    ...      "concept_area": ("concept", [4, 8]), "domain_area": ("domain", [40])},
    ...     {"unit": ["conv5/0"], "concept": [2, 5], "concept_name": ("concept", ["car", "sky"]),
    ...      "concept_category": ("concept", ["object", "object"]), "category": ["object"],
    ...      "concept_domain": ("concept", ["object", "object"]), "domain": ["object"]},
    ... )
    >>> best = of_unit(ds, "conv5/0")
    >>> best.concept_name.values.tolist(), best.iou.values.round(3).tolist(), best.recall.values.tolist()
    (['sky', 'car'], [0.5, 0.143], [0.5, 0.25])
    """
    if top < 1:
        raise DissectError(f"top is {top}: expected 1 or more concepts.")
    index = unit_index(ds, unit)
    one = (ds.isel(unit=index) if "unit" in ds.dims else ds).sortby("concept")
    names = ("iou", "precision", "recall", "share", "ceiling")
    found = xr.Dataset({name: getattr(scores, name)(one) for name in names}).compute()
    order = found["iou"].fillna(-1.0)
    ranked = xr.apply_ufunc(
        lambda values: np.argsort(-values, axis=-1, kind="stable")[..., :top],
        order,
        input_core_dims=[["concept"]],
        output_core_dims=[["rank"]],
        exclude_dims={"concept"},
    )
    found = found.reset_coords(["concept_name", "concept_category"]).isel(concept=ranked)
    found = found.rename(concept_category="category").reset_coords("concept")
    return found.assign_coords(rank=np.arange(ranked.sizes["rank"]), unit=unit)
