"""What training does to units: which concepts they take up, keep, change and lose from snapshot to snapshot.

Knows: that snapshots are ordered by step, that a unit holds a concept where it is a detector of it, and that a unit
without counts in a snapshot says nothing there.
Does not know: how a unit's concept is found (`detect`), tables, figures.

Trajectories, transitions and emergence are lazy where the counts are lazy; the others compute each unit's label first,
a few numbers per unit and snapshot.

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
from dissect_xr.analysis.select import with_units
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

KINDS = ("birth", "death", "switch")
"""A unit becomes a detector, stops to be one, becomes one of another concept."""


def trajectories(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Each unit's best concept and IoU over the snapshots, by step: (snapshot, …, unit).

    Variables ``concept``, ``concept_name``, ``category`` and ``iou`` of :func:`dissect_xr.best_concept`; ``detector``
    bool, whether that IoU exceeds `cutoff`; ``counted`` bool, whether the snapshot has counts of the unit.

    Raises
    ------
    DissectError
        If `ds` has no dimension ``snapshot`` with its ``step``.
    """
    ds = by_step(ds)
    best = best_concept(ds)
    counted = ds["unit_area"].notnull().any("category").rename("counted")
    return best.assign(detector=best["iou"] > cutoff, counted=counted)


def events(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """Changes of units' concepts between snapshots, along ``event``, by unit and step; computes.

    Variables ``unit``, ``kind`` (birth, death, switch), ``snapshot`` and ``step`` at which the change shows,
    ``from_name``, ``from_category``, ``to_name``, ``to_category`` ("" where the unit detects nothing) and ``iou`` (of
    the new concept, of the best one after a death). A snapshot without counts of a unit is passed over.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or holds several fractions.
    """
    path = _in_memory(ds, cutoff)
    held, counted = _held(path), path["counted"].values
    before = _previous(held, counted)
    at, unit = np.nonzero((counted & (before >= 0) & (held != before)).T)[::-1]
    order = np.lexsort((at, unit))
    at, unit = at[order], unit[order]
    old, new = before[at, unit], held[at, unit]
    kinds = np.select([old == 0, new == 0], KINDS[:2], KINDS[2])
    names, categories = _names(ds)
    texts = {
        "from_name": names, "from_category": categories, "to_name": names, "to_category": categories,
    }  # fmt: skip
    found: dict[str, Any] = {
        "unit": path["unit"].values[unit],
        "kind": kinds,
        "snapshot": path["snapshot"].values[at],
        "step": path["step"].values[at],
    }
    for name, table in texts.items():
        numbers = old if name.startswith("from") else new
        found[name] = np.array([table[number] for number in numbers.tolist()], dtype=str)
    found["iou"] = path["iou"].values[at, unit]
    return xr.Dataset({name: ("event", values) for name, values in found.items()}, attrs={"cutoff": cutoff})


def transitions(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.DataArray:
    """Units by category before and after, for each pair of snapshots.

    The result is (snapshot, category, to_snapshot, to_category) int64, with ``fraction`` where `ds` has several.
    The category "" stands for units that detect nothing. Units that lack counts in one of the two snapshots are left
    out. ``transitions(ds).sel(snapshot=a, to_snapshot=b)`` answers whether texture detectors became object detectors.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps.
    """
    path = trajectories(with_units(ds), cutoff=cutoff)
    kinds = xr.DataArray([*ds["category"].values.tolist(), ""], dims="category", name="category")
    kinds = kinds.assign_coords(category=kinds)
    held = path["category"].where(path["detector"], "")
    # float64 counts exactly up to 2**53 and multiplies matrices much faster than int64
    member = ((held == kinds) & path["counted"]).astype(np.float64)
    if member.chunks is not None:
        # One block of snapshots: pairs of them would be a block each. `member.chunk` would cut the coordinates too.
        member = member.copy(data=member.variable.chunk(snapshot=-1, category=-1).data)
    after = member.rename(snapshot="to_snapshot", category="to_category")
    after = after.drop_vars([name for name in after.coords if name not in after.dims and name != "fraction"])
    number: xr.DataArray = xr.dot(member, after, dim="unit").astype(np.int64).rename("units")
    number.attrs = {"long_name": "units by category before and after", "cutoff": cutoff}
    return number


def emergence(ds: xr.Dataset, *, count: Count = "by_unit", cutoff: float = CUTOFF) -> xr.DataArray:
    """Unique detectors per category over the snapshots, by step: (snapshot, …, category) float64.

    NaN where a snapshot lacks counts of some unit of `ds`: its number would be too small.

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
    numbers = numbers.rename(concept_category="category").reindex(category=ds["category"], fill_value=0)
    whole = numbers.where(ds["unit_area"].notnull().any("category").all("unit")).rename("unique_detectors")
    whole.attrs = {"long_name": "distinct concepts detected", "count": count, "cutoff": cutoff}
    return whole


def changed(ds: xr.Dataset, before: str, after: str, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """What became of each unit between two snapshots, such as before and after fine-tuning; computes.

    Variables (unit): ``from_name``, ``from_category``, ``from_iou``, ``to_name``, ``to_category``, ``to_iou`` (names
    are "" and the IoU the best one where it detects nothing) and ``kind``: birth, death, switch, same, none (detects
    nothing in either) or "" (no counts in one of them).

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
    path = _in_memory(ds.sel(snapshot=[before, after]).assign_coords(step=("snapshot", [0, 1])), cutoff)
    old, new = _held(path)
    kinds = np.select([(old == 0) & (new == 0), old == new, old == 0, new == 0], ["none", "same", *KINDS[:2]], KINDS[2])
    kinds = np.where(path["counted"].values.all(axis=0), kinds, "")
    result = xr.Dataset(coords={name: c for name, c in path.coords.items() if c.dims == ("unit",)})
    for index, side in enumerate(("from", "to")):
        one = path.isel(snapshot=index, drop=True)
        for name, variable in (("name", "concept_name"), ("category", "category")):
            result[f"{side}_{name}"] = ("unit", np.where(one["detector"], one[variable], ""))
        result[f"{side}_iou"] = ("unit", one["iou"].values)
    result["kind"] = ("unit", kinds)
    return result.assign_attrs(before=before, after=after, cutoff=cutoff)


def convergence(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> xr.Dataset:
    """From which step on each unit's concept stays the same until the end; computes.

    Variables (unit): ``concept_name`` and ``category`` at the end, ``step`` float64 from which every snapshot shows
    that concept, NaN for units that detect nothing at the end. A snapshot without counts of a unit is passed over.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or holds several fractions.
    """
    path = _in_memory(ds, cutoff)
    held, counted = _held(path), path["counted"].values
    last = _previous(np.vstack([held, held[:1]]), np.vstack([counted, counted[:1]]))[-1]
    # A snapshot that differs ends the run of equal ones, read from the end; one without counts does not.
    same = np.where(counted, held == last, True)
    run = np.logical_and.accumulate(same[::-1], axis=0)[::-1] & counted
    steps = np.where(run.any(axis=0) & (last > 0), path["step"].values[run.argmax(axis=0)], np.nan)
    names, categories = _names(ds)
    result = xr.Dataset(
        {
            "concept_name": ("unit", np.array([names[max(n, 0)] for n in last.tolist()], dtype=str)),
            "category": ("unit", np.array([categories[max(n, 0)] for n in last.tolist()], dtype=str)),
            "step": ("unit", steps),
        },
        coords={name: c for name, c in path.coords.items() if c.dims == ("unit",)},
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
            "this is asked over the dimension snapshot with its coordinate step; the Dataset lacks them. "
            "Select snapshots with a list, such as ds.sel(snapshot=[name]), which keeps the dimension."
        )
    return ds.sortby("step")


def _in_memory(ds: xr.Dataset, cutoff: float) -> xr.Dataset:
    """Trajectories (snapshot, unit) of one fraction, computed."""
    if ds.sizes.get("fraction", 1) != 1:
        raise DissectError(f"the Dataset has {ds.sizes['fraction']} fractions: select one with ds.isel(fraction=0).")
    one = with_units(ds.squeeze("fraction") if "fraction" in ds.dims else ds)
    path = trajectories(one, cutoff=cutoff)
    return path.transpose("snapshot", "unit").compute()


def _held(path: xr.Dataset) -> NDArray[np.int64]:
    """Number of the concept that each unit detects, 0 for none, (snapshot, unit)."""
    return np.where(path["detector"].values, path["concept"].values, 0).astype(np.int64)


def _previous(held: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`held` in the last snapshot before that has counts of the unit, -1 where there is none."""
    previous = np.full(held.shape, -1, np.int64)
    for at in range(1, len(held)):
        previous[at] = np.where(counted[at - 1], held[at - 1], previous[at - 1])
    return previous


def _names(ds: xr.Dataset) -> tuple[dict[int, str], dict[int, str]]:
    """Concept number -> name and -> category; 0 -> ""."""
    numbers = ds["concept"].values.tolist()
    names, categories = (ds[name].values.tolist() for name in ("concept_name", "concept_category"))
    return {0: "", **dict(zip(numbers, names, strict=True))}, {0: "", **dict(zip(numbers, categories, strict=True))}
