"""What changes between snapshots, against Python loops over each unit's labels."""

import math
from itertools import pairwise
from typing import Any

import pytest
import xarray as xr
from trained import CATEGORIES, CUTOFF, dissection

from dissect_xr.analysis.detectors import best_concept, detected_concepts
from dissect_xr.analysis.snapshots import changed, convergence, emergence, events, trajectories, transitions
from dissect_xr.errors import DissectError

CASES = [(seed, missing) for seed in range(6) for missing in (False, True)]


def held(ds: xr.Dataset) -> dict[str, list[tuple[int, str, tuple[str, str, float] | None]]]:
    """Unit -> (step, snapshot, (name, category, IoU)) of snapshots with counts; "" for no detector."""
    best = best_concept(ds)
    found: dict[str, list[Any]] = {}
    for u, unit in enumerate(ds["unit"].values.tolist()):
        found[unit] = []
        for step, s in sorted((int(ds["step"][s]), s) for s in range(ds.sizes["snapshot"])):
            if math.isnan(float(ds["unit_area"][s, u, 0])):
                continue
            one = best.isel(snapshot=s, unit=u)
            iou = float(one["iou"])
            name = (one["concept_name"].item(), one["category"].item()) if iou > CUTOFF else ("", "")
            found[unit].append((step, ds["snapshot"].values[s].item(), (*name, iou)))
    return found


@pytest.mark.parametrize(("seed", "missing"), CASES)
def test_events_are_those_of_a_loop(seed: int, missing: bool) -> None:
    ds = dissection(seed, missing=missing)
    wanted = []
    for unit, path in held(ds).items():
        for (_, _, old), (step, snapshot, new) in pairwise(path):
            if old[:2] != new[:2]:
                kind = "birth" if not old[0] else "death" if not new[0] else "switch"
                wanted.append((unit, kind, snapshot, step, *old[:2], *new))
    got = events(ds, cutoff=CUTOFF)
    names = ["unit", "kind", "snapshot", "step", "from_name", "from_category", "to_name", "to_category", "iou"]
    rows = list(zip(*(got[name].values.tolist() for name in names), strict=True))
    assert [row[:-1] for row in rows] == [row[:-1] for row in wanted]
    assert [row[-1] for row in rows] == pytest.approx([row[-1] for row in wanted], nan_ok=True)
    assert seed or missing or {row[1] for row in rows} == {"birth", "death", "switch"}


@pytest.mark.parametrize(("seed", "missing"), CASES)
def test_transitions_count_every_unit_once(seed: int, missing: bool) -> None:
    ds = dissection(seed, missing=missing)
    wanted: dict[Any, int] = {}
    for path in held(ds).values():
        for _, before, old in path:
            for _, after, new in path:
                key = (before, old[1], after, new[1])
                wanted[key] = wanted.get(key, 0) + 1
    table = transitions(ds, cutoff=CUTOFF)
    got = table.transpose("snapshot", "category", "to_snapshot", "to_category").to_series()
    assert {key: number for key, number in got.items() if number} == wanted
    assert table["category"].values.tolist() == [*CATEGORIES, ""]


@pytest.mark.parametrize(("seed", "missing"), CASES)
def test_convergence_is_the_start_of_the_last_run(seed: int, missing: bool) -> None:
    ds = dissection(seed, missing=missing)
    got = convergence(ds, cutoff=CUTOFF)
    for unit, path in held(ds).items():
        one = got.sel(unit=unit)
        last = path[-1][2][:2]
        assert (one["concept_name"].item(), one["category"].item()) == last
        first = next(n for n in range(len(path)) if all(p[2][:2] == last for p in path[n:]))
        expected = path[first][0] if last[0] else math.nan
        assert one["step"].item() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("seed", "missing"), CASES)
def test_changed_names_what_became_of_each_unit(seed: int, missing: bool) -> None:
    ds = dissection(seed, missing=missing)
    got = changed(ds, "s3", "s2", cutoff=CUTOFF)
    for unit, path in held(ds).items():
        at = {snapshot: label for _, snapshot, label in path}
        one = got.sel(unit=unit)
        if {"s3", "s2"} - set(at):
            assert one["kind"].item() == ""
            continue
        old, new = at["s3"], at["s2"]
        assert (one["from_name"].item(), one["from_category"].item()) == old[:2]
        assert (one["to_name"].item(), one["to_category"].item()) == new[:2]
        assert [one["from_iou"].item(), one["to_iou"].item()] == pytest.approx([old[2], new[2]], nan_ok=True)
        kind = (
            "none" if not old[0] and not new[0] else "same" if old[:2] == new[:2] else "birth" if not old[0] else None
        )
        assert one["kind"].item() == (kind or ("death" if not new[0] else "switch"))


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
def test_emergence_is_the_number_of_detected_concepts(count: Any) -> None:
    ds = dissection(1)
    got = emergence(ds, count=count, cutoff=CUTOFF)
    assert got["step"].values.tolist() == sorted(ds["step"].values.tolist())
    found = detected_concepts(ds, count=count, cutoff=CUTOFF)
    for snapshot in ds["snapshot"].values:
        for category in CATEGORIES:
            one = found.sel(snapshot=snapshot).values[(ds["concept_category"] == category).values]
            assert got.sel(snapshot=snapshot, category=category) == one.sum()
    partly = emergence(dissection(1, missing=True), cutoff=CUTOFF)
    assert partly.sel(snapshot=["s0", "s2"]).isnull().all()
    assert partly.sel(snapshot=["s1", "s3", "s4"]).notnull().all()


def test_trajectories_are_lazy_and_by_step(lazy: None) -> None:
    ds = dissection().chunk(snapshot=1, unit=2)
    ds = ds.assign_coords({name: coord.variable.to_base_variable() for name, coord in dissection().coords.items()})
    path = trajectories(ds)
    assert path["step"].values.tolist() == [0, 10, 20, 30, 40]
    assert all(
        values.chunks is not None for values in (path["iou"], path["concept_name"], transitions(ds), emergence(ds))
    )


def test_same_in_blocks() -> None:
    ds = dissection(3)
    blocks = ds.chunk(snapshot=2, unit=2, concept=3)
    xr.testing.assert_identical(events(blocks, cutoff=CUTOFF), events(ds, cutoff=CUTOFF))
    xr.testing.assert_equal(transitions(blocks, cutoff=CUTOFF).compute(), transitions(ds, cutoff=CUTOFF))


def test_fractions_stay_apart() -> None:
    one = dissection(2).drop_vars("fraction")
    counts = one[["intersection", "unit_area", "dead"]]
    two = xr.concat([counts, counts * 0], "fraction")
    two = two.assign_coords(fraction=[0.005, 0.01]).assign(concept_area=one["concept_area"])
    table = transitions(two, cutoff=CUTOFF)
    alone = transitions(one, cutoff=CUTOFF)
    xr.testing.assert_equal(table.isel(fraction=0, drop=True).transpose(*alone.dims), alone)
    assert table.isel(fraction=1).sel(category="", to_category="").values.tolist() == [[9] * 5] * 5
    with pytest.raises(DissectError, match=r"2 fractions: select one with ds.isel\(fraction=0\)"):
        events(two)


def test_errors_say_what_to_select() -> None:
    ds = dissection()
    for function in (trajectories, events, transitions, convergence, emergence):
        with pytest.raises(DissectError, match="over the dimension snapshot"):
            function(ds.isel(snapshot=0))
    with pytest.raises(DissectError, match="snapshot 'x' is not in the Dataset; there are: s0, s1"):
        changed(ds, "x", "s0")


def test_no_events_is_an_empty_table() -> None:
    empty = events(dissection(), cutoff=0.999)
    assert empty.sizes == {"event": 0}
    assert convergence(dissection(), cutoff=0.999)["step"].isnull().all()
