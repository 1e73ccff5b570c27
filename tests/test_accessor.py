"""`ds.dissect`: the answers of the pure functions, in xarray's own words."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from trained import CUTOFF, dissection

import dissect_xr  # noqa: F401  registers the accessor
from dissect_xr.analysis import scores
from dissect_xr.analysis.cutoffs import CUTOFFS, cutoff_curve
from dissect_xr.analysis.detectors import best_concept, concept_histogram, detectors, unique_detectors
from dissect_xr.analysis.snapshots import changed, convergence, emergence, events, trajectories, transitions
from dissect_xr.errors import DissectError


def one(seed: int = 0) -> xr.Dataset:
    """One snapshot."""
    return dissection(seed).isel(snapshot=0)


def wide() -> xr.Dataset:
    """One unit and as many concepts as Broden."""
    names = np.array(["object"] * 1197)
    return xr.Dataset(
        {"intersection": (("unit", "concept"), np.zeros((1, 1197), np.int64))},
        {"unit": ["late/0"], "concept": np.arange(1, 1198), "concept_category": ("concept", names)},
    )


def test_import_registers_it_without_heavy_libraries() -> None:
    code = """if 1:
        import sys, dissect_xr, xarray
        assert hasattr(xarray.Dataset, "dissect")
        sys.exit(", ".join({"torch", "numba", "matplotlib", "zarr", "jinja2", "sklearn"} & set(sys.modules)) or None)"""
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_answers_are_those_of_the_functions() -> None:
    ds = dissection()
    xr.testing.assert_identical(ds.dissect.best(), best_concept(ds))
    xr.testing.assert_identical(ds.dissect.best(within="part"), best_concept(ds, within="part"))
    xr.testing.assert_identical(ds.dissect.detectors(), detectors(ds))
    xr.testing.assert_identical(ds.dissect.detectors(CUTOFF), detectors(ds, cutoff=CUTOFF))
    options: dict[str, Any] = {"count": "by_category", "over": ("snapshot", "unit"), "cutoff": CUTOFF}
    xr.testing.assert_identical(ds.dissect.unique_detectors(**options), unique_detectors(ds, **options))
    for name, function in (
        ("trajectories", trajectories),
        ("transitions", transitions),
        ("emergence", emergence),
        ("convergence", convergence),
    ):
        xr.testing.assert_identical(getattr(ds.dissect, name)(cutoff=CUTOFF), function(ds, cutoff=CUTOFF))
    xr.testing.assert_identical(ds.dissect.changed("s0", "s1"), changed(ds, "s0", "s1"))
    table = ds.dissect.events(cutoff=CUTOFF)
    assert list(table["kind"]) == events(ds, cutoff=CUTOFF)["kind"].values.tolist()


def test_selections_and_groups_keep_working() -> None:
    ds = dissection()
    late = ds.isel(unit=(ds["layer"] == "late").values)
    assert late.dissect.unique_detectors().equals(unique_detectors(late))
    per_layer = ds.groupby("layer").map(lambda part: part.dissect.unique_detectors(cutoff=CUTOFF).to_dataset())
    assert (
        per_layer["unique_detectors"]
        .sel(layer="late")
        .equals(unique_detectors(late, cutoff=CUTOFF).assign_coords(layer="late"))
    )
    assert ds.sel(snapshot="s1").dissect.best().equals(best_concept(ds).sel(snapshot="s1"))


def test_one_unit_answers_as_a_list_of_one() -> None:
    ds = dissection(missing=True)
    single, listed = ds.sel(unit="late/5").dissect, ds.sel(unit=["late/5"]).dissect
    for name in ("transitions", "emergence", "convergence"):
        xr.testing.assert_identical(getattr(single, name)(cutoff=CUTOFF), getattr(listed, name)(cutoff=CUTOFF))
    xr.testing.assert_identical(single.changed("s0", "s3", cutoff=CUTOFF), listed.changed("s0", "s3", cutoff=CUTOFF))
    assert single.events(cutoff=CUTOFF).equals(listed.events(cutoff=CUTOFF))
    assert len(listed.events(cutoff=CUTOFF)) > 0
    assert isinstance(single.plot.evolution("late/5"), Axes)
    for name in ("cutoff_curve", "layers_compared"):
        assert isinstance(getattr(one().sel(unit="late/5").dissect.plot, name)(), Axes)


def test_selections_in_xarrays_words_agree() -> None:
    ds = dissection().load()
    late, objects = (ds["layer"] == "late"), (ds["concept_category"] == "object")
    wanted = ds.isel(unit=late.values).dissect.unique_detectors(cutoff=CUTOFF)
    for same in (ds.isel(unit=late), ds.where(late, drop=True), ds.where(late), ds.query(unit="layer == 'late'")):
        assert same.dissect.unique_detectors(cutoff=CUTOFF).values.tolist() == wanted.values.tolist()
    by_snapshot = ds.groupby("snapshot").map(lambda part: part.dissect.detectors(CUTOFF).to_dataset(name="found"))
    assert (
        by_snapshot["found"].values.tolist() == ds.dissect.detectors(CUTOFF).transpose("snapshot", ...).values.tolist()
    )
    stacked = ds.expand_dims("fraction").stack(place=("snapshot", "fraction")).dissect.best()["iou"]
    np.testing.assert_array_equal(stacked.transpose("place", ...), ds.dissect.best()["iou"].transpose("snapshot", ...))
    assert ds.isel(concept=objects).dissect.best()["category"].values.ravel().tolist().count("object") > 0
    with pytest.raises(DissectError, match=r"unit_area has the dimension concept.* ds.isel\(concept=mask\)"):
        ds.where(objects, drop=True).dissect.best()


def test_lazy_in_lazy_out(lazy: None) -> None:
    whole = dissection()
    ds = whole.chunk(unit=2).assign_coords(whole.coords)
    answers = [ds.dissect.best()["iou"], ds.dissect.detectors(), ds.dissect.unique_detectors()]
    answers += [ds.dissect.concept("dog")["detector"], ds.dissect.transitions(), ds.dissect.emergence()]
    assert all(answer.chunks is not None for answer in answers)
    assert "units" in repr(ds.dissect)


@pytest.mark.parametrize("seed", range(3))
def test_cutoff_curve_is_the_counts_at_every_cutoff(seed: int) -> None:
    ds = dissection(seed, missing=seed == 2)
    levels = [0.0, 0.1, 0.2, 0.25, 0.5, 1.0]
    curve = ds.dissect.cutoff_curve(levels)
    for level in levels:
        at = curve.sel(cutoff=level)
        assert at["detectors"].values.tolist() == detectors(ds, cutoff=level).sum("unit").values.tolist()
        for count in ("by_unit", "by_category"):
            number = unique_detectors(ds, count=count, cutoff=level)
            assert at[f"unique_{count}"].transpose(*number.dims).values.tolist() == number.values.tolist()
    highest = float(scores.iou(ds).max())
    assert cutoff_curve(ds, [highest])["detectors"].max() == 0  # strict
    assert ds.dissect.cutoff_curve()["cutoff"].values.tolist() == CUTOFFS.tolist()
    assert cutoff_curve(ds.isel(snapshot=1, unit=0), levels)["detectors"].dims == ("cutoff",)


def test_concept_is_what_every_unit_says_of_it() -> None:
    ds = dissection()
    answer = ds.dissect.concept("DOG", cutoff=CUTOFF)
    assert answer["iou"].equals(scores.iou(ds).sel(concept=3))
    assert answer["precision"].equals(scores.precision(ds).sel(concept=3))
    found = best_concept(ds)["concept"] == 3
    assert answer["label"].values.tolist() == found.values.tolist()
    assert answer["detector"].sum() == concept_histogram(ds, cutoff=CUTOFF).sel(concept=3).sum()
    assert ds.dissect.concept(3)["iou"].equals(answer["iou"])


def test_unknown_names_are_answered_with_near_ones() -> None:
    ds = dissection()
    with pytest.raises(DissectError, match="no concept 'dgo'; near: dog"):
        ds.dissect.concept("dgo")
    with pytest.raises(DissectError, match="no concept 'night'; near: a street at night"):
        ds.dissect.concept("night")
    with pytest.raises(DissectError, match="no concept '4' among 7"):
        ds.dissect.concept(4)
    with pytest.raises(DissectError, match=r"no unit 'erly/1'; near: early/1.* <layer>/<channel>"):
        ds.dissect.unit("erly/1")
    double = ds.assign_coords(concept_name=("concept", ["dog"] * 7))
    with pytest.raises(
        DissectError, match=r"'dog' names 7 concepts: give the number, one of 3 \(object\), 6 \(object\)"
    ):
        double.dissect.concept("dog")


def test_unit_is_its_best_concepts_in_order() -> None:
    ds = dissection(missing=True)
    answer = ds.dissect.unit("late/6", top=4)
    mine = ds.sel(unit="late/6")
    found = {name: getattr(scores, name)(mine) for name in ("iou", "precision", "recall", "ceiling")}
    share = scores.share(mine)
    for s in range(ds.sizes["snapshot"]):
        at = answer.isel(snapshot=s)
        values = np.nan_to_num(found["iou"].isel(snapshot=s).values, nan=-1)
        order = sorted(range(7), key=lambda c, values=values: (-values[c], c))[:4]
        assert at["concept"].values.tolist() == ds["concept"].values[order].tolist()
        assert at["concept_name"].values.tolist() == ds["concept_name"].values[order].tolist()
        assert at["category"].values.tolist() == ds["concept_category"].values[order].tolist()
        for name, values in found.items():
            np.testing.assert_array_equal(at[name].values, values.isel(snapshot=s).values[order])
        np.testing.assert_array_equal(at["share"].values, share.values[order])
    assert one().dissect.unit("late/6", top=99).sizes["rank"] == 7
    with pytest.raises(DissectError, match="top is 0"):
        one().dissect.unit("late/6", top=0)


def test_dataframe_has_a_row_per_unit() -> None:
    ds = dissection()
    table = ds.dissect.to_dataframe(cutoff=CUTOFF)
    assert len(table) == ds.sizes["snapshot"] * ds.sizes["unit"]
    assert list(table.columns[:6]) == ["snapshot", "step", "fraction", "unit", "layer", "channel"]
    assert list(table["snapshot"][:9]) == ["s0"] * 9
    assert table["detector"].sum() == detectors(ds, cutoff=CUTOFF).sum()
    single = one().dissect.to_dataframe()
    assert list(single["unit"]) == ds["unit"].values.tolist()
    assert list(single["concept_name"]) == best_concept(one())["concept_name"].values.tolist()
    assert len(one().isel(unit=2).dissect.to_dataframe()) == 1


def test_compare_counts_concepts_by_name_and_category() -> None:
    a, b = one(0), one(1)
    b = b.assign_coords(concept=b["concept"] + 100).isel(concept=[6, 5, 4, 3, 2, 1])  # other numbers, no dog
    got = a.dissect.compare(b, names=("A", "B"), cutoff=CUTOFF)
    for name, ds in (("A", a), ("B", b)):
        units = concept_histogram(ds, cutoff=CUTOFF)
        mine = dict(zip(units["concept_name"].values.tolist(), units.values.tolist(), strict=True))
        for concept in got["concept"].values.tolist():
            assert got["units"].sel(network=name, concept=concept) == mine.get(concept, 0)
        assert got["unique_detectors"].sel(network=name).sum() == unique_detectors(ds, cutoff=CUTOFF)
    for concept in got["concept"].values.tolist():
        here, there = (got["units"].sel(concept=concept) > 0).values.tolist()
        wanted = {(True, True): "both", (True, False): "A", (False, True): "B", (False, False): "neither"}
        assert got["only"].sel(concept=concept) == wanted[here, there]
    with pytest.raises(DissectError, match="expected one snapshot, 'other' has 5: select with"):
        a.dissect.compare(dissection())
    with pytest.raises(DissectError, match="give two names"):
        a.dissect.compare(b, names=("A", "A"))


@pytest.mark.parametrize("names", [("A", "B"), ("B", "A")])
def test_compare_refuses_two_concepts_of_one_name_in_one_category(names: tuple[str, str]) -> None:
    a, b = one(0), one(1)
    twice = b.assign_coords(concept_name=b["concept_name"].where(b["concept"] != 18, "dog"))  # 3 and 18 are objects
    first, second = (a, twice) if names == ("A", "B") else (twice, a)
    wanted = "'B': concepts 3 and 18 are both called 'dog' in the category 'object'"
    with pytest.raises(DissectError, match=wanted):
        first.dissect.compare(second, names=names)


def test_compare_takes_one_name_in_two_categories() -> None:
    a = one(0)
    a = a.assign_coords(concept_name=a["concept_name"].where(a["concept"] != 9, "dog"))  # the part 9, the object 3
    got = a.dissect.compare(one(1), cutoff=CUTOFF)
    assert got["unique_detectors"].sel(network="this").sum() == unique_detectors(a, cutoff=CUTOFF)


def test_repr_says_what_is_there() -> None:
    ds = dissection().expand_dims("fraction")
    assert repr(ds.dissect).splitlines() == [
        "dissection",
        "snapshots: 5: s0, s1, s2, s3, s4, steps 0 to 40",
        "layers:    2: early (4 units), late (5 units)",
        "units:     9",
        "concepts:  7: object 3, part 2, color 2",
        "fractions: 0.005",
    ]
    many = ds.assign_coords(layer=("unit", [f"<l{n}>" for n in range(9)]))
    assert "<l5> (1 unit), …, <l8> (1 unit)" in repr(many.dissect)
    assert "&lt;l5&gt;" in many.dissect._repr_html_()
    assert "<l5>" not in many.dissect._repr_html_()
    assert "no dissection" in repr(xr.Dataset({"x": 1}).dissect)
    assert "units:     1" in repr(one().isel(unit=0).dissect)
    assert "snapshots: none\n" in repr(ds.isel(snapshot=[]).dissect)
    assert "layers:    none\nunits:     0\n" in repr(ds.isel(unit=[]).dissect)
    assert "object 1,197" in repr(wide().dissect)
    assert "concept_bars()" in repr(ds.dissect.plot)


def test_plots_are_methods_that_return_axes() -> None:
    ds = dissection()
    for name in ("concept_bars", "iou_histogram", "cutoff_curve", "layers_compared"):
        assert isinstance(getattr(one().dissect.plot, name)(cutoff=CUTOFF), Axes)
    for name in ("emergence", "fine_tuning"):
        assert isinstance(getattr(ds.dissect.plot, name)(cutoff=CUTOFF), Axes)
    assert isinstance(ds.dissect.plot.evolution("late/5"), Axes)
