"""How units change during training: which concepts they begin to detect, keep, change and lose between snapshots.

Knows: that snapshots are ordered by step, and that a snapshot without counts of a unit is skipped for this unit.
Does not know: how a unit's label is found (`detectors`), or how changes are listed and drawn.

A unit *detects* a concept in a snapshot where it is a detector and the concept is its label. `trajectories`,
`transitions` and `emergence` are lazy where the counts are lazy; the other functions first compute the label of every
unit in every snapshot.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, sections 3.5 and 3.6; Zhou, Bau, Oliva, Torralba:
Interpreting Deep Visual Representations via Network Dissection, TPAMI 2019, section 4.5 (training), 4.6 (fine-tuning).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.detectors import Count, best_concept, detected_concepts
from dissect_xr.analysis.select import category_names, with_units
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

KINDS = ("birth", "death", "switch")
"""What happens to a unit: it becomes a detector, it is one no longer, it becomes the detector of another concept."""


def trajectories(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Each unit's best concept and its IoU in every snapshot, (snapshot, …, unit), snapshots in the order of steps.

    Variables ``concept``, ``concept_name``, ``category`` and ``iou`` of :func:`dissect_xr.best_concept`; ``detector``
    bool, whether that IoU exceeds `cutoff`; ``counted`` bool, whether the snapshot has counts of the unit.

    Raises
    ------
    DissectError
        If `ds` has no dimension ``snapshot`` with its ``step``.
    """
    ds = by_step(ds)
    best = best_concept(ds)
    counted = ds["unit_area"].notnull().any("domain").rename("counted")
    return best.assign(detector=best["iou"] > cutoff, counted=counted)


def events(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Every change of the concept that a unit detects, along ``event``, ordered by unit and step; computes.

    Variables ``unit``, ``kind`` (birth, death, switch), ``snapshot`` and ``step`` of the first snapshot after it,
    ``from_name``, ``from_category``, ``to_name``, ``to_category`` ("" where the unit detects nothing) and ``iou`` (of
    the new concept, or of the best one after a death). A snapshot without counts of a unit is skipped for it.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or holds several fractions.
    """
    trajectory = _in_memory(ds, cutoff)
    detected, counted = _detected(trajectory), trajectory["counted"].values
    before = _previous(detected, counted)
    at, unit = np.nonzero((counted & (before >= 0) & (detected != before)).T)[::-1]
    order = np.lexsort((at, unit))
    at, unit = at[order], unit[order]
    old, new = before[at, unit], detected[at, unit]
    kinds = np.select([old == 0, new == 0], KINDS[:2], KINDS[2])
    names, categories = _names(ds)
    texts = {
        "from_name": names, "from_category": categories, "to_name": names, "to_category": categories,
    }  # fmt: skip
    found: dict[str, Any] = {
        "unit": trajectory["unit"].values[unit],
        "kind": kinds,
        "snapshot": trajectory["snapshot"].values[at],
        "step": trajectory["step"].values[at],
    }
    for name, table in texts.items():
        numbers = old if name.startswith("from") else new
        found[name] = np.array([table[number] for number in numbers.tolist()], dtype=str)
    found["iou"] = trajectory["iou"].values[at, unit]
    return xr.Dataset({name: ("event", values) for name, values in found.items()}, attrs={"cutoff": cutoff})


def transitions(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.DataArray:
    """Number of units by the category they detect in one snapshot and in another, for each pair of snapshots.

    The result is (snapshot, category, to_snapshot, to_category) int64, with ``fraction`` where `ds` has several.
    The category "" stands for units that detect nothing. Units that lack counts in one of the two snapshots are left
    out. ``transitions(ds).sel(snapshot=a, to_snapshot=b)`` answers whether texture detectors became object detectors.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps.
    """
    trajectory = trajectories(with_units(ds), cutoff=cutoff)
    kinds = xr.DataArray([*category_names(ds), ""], dims="category", name="category")
    kinds = kinds.assign_coords(category=kinds)
    detected = trajectory["category"].where(trajectory["detector"], "")
    # float64 counts exactly up to 2**53 and multiplies matrices much faster than int64
    member = ((detected == kinds) & trajectory["counted"]).astype(np.float64)
    if member.chunks is not None:
        # One block for all snapshots: else each pair would make a block. `member.chunk` would chunk coordinates too.
        member = member.copy(data=member.variable.chunk(snapshot=-1, category=-1).data)
    after = member.rename(snapshot="to_snapshot", category="to_category")
    after = after.drop_vars([name for name in after.coords if name not in after.dims and name != "fraction"])
    number: xr.DataArray = xr.dot(member, after, dim="unit").astype(np.int64).rename("units")
    number.attrs = {"long_name": "units by category before and after", "cutoff": cutoff}
    return number


def emergence(ds: xr.Dataset, *, count: Count = "by_unit", cutoff: float = CUTOFF) -> xr.DataArray:
    """Number of unique detectors in every snapshot and category, (snapshot, …, category) float64, ordered by step.

    NaN where a snapshot lacks the counts of some unit of `ds`, since the number would be too small.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or `count` is none of the choices.

    References
    ----------
    Bau et al. 2017, section 3.5.
    """
    ds = with_units(by_step(ds))
    numbers = detected_concepts(ds, count=count, cutoff=cutoff).groupby("concept_category").sum()
    numbers = numbers.rename(concept_category="category").reindex(category=category_names(ds), fill_value=0)
    whole = numbers.where(ds["unit_area"].notnull().any("domain").all("unit")).rename("unique_detectors")
    whole.attrs = {"long_name": "distinct concepts detected", "count": count, "cutoff": cutoff}
    return whole


def changed(ds: xr.Dataset, before: str, after: str, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """What happened to each unit between two snapshots, such as before and after fine-tuning; computes.

    Variables (unit): ``from_name``, ``from_category``, ``from_iou``, ``to_name``, ``to_category``, ``to_iou`` (where
    the unit detects nothing, names are "" and the IoU is its highest), and ``kind``: birth, death, switch, same, none
    (detects nothing in both) or "" (one of the snapshots has no counts of the unit).

    Raises
    ------
    DissectError
        If a snapshot is not in `ds`, or `ds` holds several fractions.

    References
    ----------
    Zhou et al. 2019, section 4.6.
    """
    for name in (before, after):
        if "snapshot" not in ds.dims or name not in ds["snapshot"].values:
            there = ", ".join(map(str, np.atleast_1d(ds["snapshot"].values))) if "snapshot" in ds.variables else "none"
            raise DissectError(f"snapshot '{name}' is not in the Dataset; there are: {there}.")
    trajectory = _in_memory(ds.sel(snapshot=[before, after]).assign_coords(step=("snapshot", [0, 1])), cutoff)
    old, new = _detected(trajectory)
    kinds = np.select([(old == 0) & (new == 0), old == new, old == 0, new == 0], ["none", "same", *KINDS[:2]], KINDS[2])
    kinds = np.where(trajectory["counted"].values.all(axis=0), kinds, "")
    result = xr.Dataset(coords={name: c for name, c in trajectory.coords.items() if c.dims == ("unit",)})
    for index, side in enumerate(("from", "to")):
        one = trajectory.isel(snapshot=index, drop=True)
        for name, variable in (("name", "concept_name"), ("category", "category")):
            result[f"{side}_{name}"] = ("unit", np.where(one["detector"], one[variable], ""))
        result[f"{side}_iou"] = ("unit", one["iou"].values)
    result["kind"] = ("unit", kinds)
    return result.assign_attrs(before=before, after=after, cutoff=cutoff)


def convergence(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """The step from which on each unit detects the same concept until the end; computes.

    Variables (unit): ``concept_name`` and ``category`` at the end, and ``step`` float64, from which on the unit detects
    that concept; NaN for units that detect nothing at the end. A snapshot without counts of a unit is skipped for it.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or holds several fractions.
    """
    trajectory = _in_memory(ds, cutoff)
    detected, counted = _detected(trajectory), trajectory["counted"].values
    last = _previous(np.vstack([detected, detected[:1]]), np.vstack([counted, counted[:1]]))[-1]
    # From the last snapshot backwards: the run ends at the first snapshot that differs, not at one without counts.
    same = np.where(counted, detected == last, True)
    run = np.logical_and.accumulate(same[::-1], axis=0)[::-1] & counted
    steps = np.where(run.any(axis=0) & (last > 0), trajectory["step"].values[run.argmax(axis=0)], np.nan)
    names, categories = _names(ds)
    result = xr.Dataset(
        {
            "concept_name": ("unit", np.array([names[max(n, 0)] for n in last.tolist()], dtype=str)),
            "category": ("unit", np.array([categories[max(n, 0)] for n in last.tolist()], dtype=str)),
            "step": ("unit", steps),
        },
        coords={name: c for name, c in trajectory.coords.items() if c.dims == ("unit",)},
        attrs={"cutoff": cutoff},
    )
    result["step"].attrs = {"long_name": "step from which the concept stays the same"}
    return result


def by_step(ds: xr.Dataset) -> xr.Dataset:
    """`ds` with its snapshots in the order of their steps.

    Raises
    ------
    DissectError
        If it has no dimension ``snapshot`` with the coordinate ``step``.
    """
    if "snapshot" not in ds.dims or "step" not in ds.variables:
        raise DissectError(
            "expected snapshots over the dimension snapshot with its coordinate step; the Dataset lacks them. "
            "Select snapshots with a list, such as ds.sel(snapshot=[name]), which keeps the dimension."
        )
    return ds.sortby("step")


def _in_memory(ds: xr.Dataset, cutoff: float) -> xr.Dataset:
    """Trajectories (snapshot, unit) of one fraction, computed."""
    if ds.sizes.get("fraction", 1) != 1:
        raise DissectError(f"the Dataset has {ds.sizes['fraction']} fractions: select one with ds.isel(fraction=0).")
    one = with_units(ds.squeeze("fraction") if "fraction" in ds.dims else ds)
    trajectory = trajectories(one, cutoff=cutoff)
    return trajectory.transpose("snapshot", "unit").compute()


def _detected(trajectory: xr.Dataset) -> NDArray[np.int64]:
    """Number of the concept that each unit detects, (snapshot, unit), 0 where it detects none."""
    return np.where(trajectory["detector"].values, trajectory["concept"].values, 0).astype(np.int64)


def _previous(detected: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each unit detected in the last earlier snapshot with counts of it; -1 where there is none."""
    previous = np.full(detected.shape, -1, np.int64)
    for at in range(1, len(detected)):
        previous[at] = np.where(counted[at - 1], detected[at - 1], previous[at - 1])
    return previous


def _names(ds: xr.Dataset) -> tuple[dict[int, str], dict[int, str]]:
    """Concept number -> name, and concept number -> category; both are empty for 0."""
    numbers = ds["concept"].values.tolist()
    names, categories = (ds[name].values.tolist() for name in ("concept_name", "concept_category"))
    return {0: "", **dict(zip(numbers, names, strict=True))}, {0: "", **dict(zip(numbers, categories, strict=True))}
