"""The figures: what is drawn is what was counted."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dissect_xr.analysis.detectors import concept_histogram, detected_concepts, unique_detectors
from dissect_xr.errors import DissectError
from dissect_xr.plot.concepts import concept_bars, emergence
from dissect_xr.plot.palette import category_colors

CATEGORIES = ["object", "part", "color"]


def dissection(*, missing: bool = False) -> xr.Dataset:
    """Four snapshots of two layers; with `missing`, the second layer has no counts in the third snapshot."""
    random = np.random.default_rng(0)
    kinds = np.array([0, 0, 1, 2, 1, 0, 2])
    intersection = random.integers(0, [[[1]], [[12]], [[30]], [[60]]], (4, 10, 7)).astype(float if missing else int)
    unit_area = random.integers(60, 90, (4, 10, 3)).astype(intersection.dtype)
    if missing:
        intersection[2, 6:], unit_area[2, 6:] = np.nan, np.nan
    return xr.Dataset(
        {
            "intersection": (("snapshot", "unit", "concept"), intersection),
            "unit_area": (("snapshot", "unit", "domain"), unit_area),
            "concept_area": ("concept", random.integers(60, 200, 7)),
        },
        {
            "snapshot": ["d", "b", "c", "a"],
            "step": ("snapshot", [0, 10, 100, 1000]),
            "accuracy": ("snapshot", [0.1, 0.3, 0.5, 0.6]),
            "fraction": 0.005,
            "unit": [f"u/{unit}" for unit in range(10)],
            "layer": ("unit", ["late"] * 6 + ["early"] * 4),
            "concept": np.arange(1, 8) * 3,
            "concept_name": ("concept", [f"a concept with a rather long name {number}" for number in range(7)]),
            "concept_category": ("concept", np.array(CATEGORIES)[kinds]),
            "concept_domain": ("concept", np.array(CATEGORIES)[kinds]),
            "category": CATEGORIES,
            "domain": CATEGORIES,
        },
    )


def lines(ax: Axes) -> dict[str, list[tuple[float, float]]]:
    return {str(line.get_label()): [tuple(point) for point in line.get_xydata().tolist()] for line in ax.get_lines()}


def drawn(ax: Axes, path: Path) -> None:
    """Everything is drawn, without a warning."""
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(path / "figure.png")
    assert (path / "figure.png").stat().st_size > 5000


def test_bars_are_the_detectors_of_each_concept(tmp_path: Path) -> None:
    ds = dissection().isel(snapshot=3)
    ax = concept_bars(ds, cutoff=0.1)
    names = [label.get_text() for label in ax.get_yticklabels()]
    bars = [bar for container in ax.containers for bar in container]
    got = {name: bar.get_width() for name, bar in zip(names, bars, strict=True)}
    units = concept_histogram(ds, cutoff=0.1)
    expected = {name: n for name, n in zip(ds["concept_name"].values.tolist(), units.values.tolist(), strict=True) if n}
    assert got == expected
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars] == pytest.approx(list(ax.get_yticks()))
    drawn(ax, tmp_path)


def test_bars_are_grouped_by_category_and_descend() -> None:
    ds = dissection().isel(snapshot=3)
    ax = concept_bars(ds, cutoff=0.05)
    colors = category_colors(CATEGORIES)
    present = [category for category in CATEGORIES if any(category in text.get_text() for text in ax.texts)]
    assert len(ax.containers) == len(present) > 1
    for category, container in zip(present, ax.containers, strict=True):
        widths = [bar.get_width() for bar in container]
        assert widths == sorted(widths, reverse=True)
        assert {to_hex(bar.get_facecolor()) for bar in container} == {colors[category].lower()}


def test_long_names_leave_room_for_bars_and_title() -> None:
    ds = dissection().isel(snapshot=3)
    long = [f"door, double-door, double door, entrance, gateway number {n}" for n in range(ds.sizes["concept"])]
    ax = concept_bars(ds.assign_coords(concept_name=("concept", long)), cutoff=0.1)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    width = figure.get_window_extent().width
    assert ax.get_window_extent().width > 0.5 * width
    assert ax.title.get_window_extent().x1 <= width


def test_no_detectors_make_an_empty_figure(tmp_path: Path) -> None:
    ax = concept_bars(dissection().isel(snapshot=[0]), cutoff=0.99)
    assert ax.get_title() == "0 concepts, detected by 0 of 10 units"
    drawn(ax, tmp_path)


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
def test_emergence_draws_unique_detectors_per_layer(count: Any, tmp_path: Path) -> None:
    ds = dissection()
    ax = emergence(ds, count=count)
    assert list(lines(ax)) == ["late", "early"]  # in the order of the units
    for layer, points in lines(ax).items():
        numbers = unique_detectors(ds.isel(unit=np.flatnonzero(ds["layer"] == layer)), count=count)
        assert points == list(zip([0, 10, 100, 1000], numbers.values.tolist(), strict=True))
    assert ax.get_xscale() == "symlog"
    drawn(ax, tmp_path)


def test_emergence_draws_unique_detectors_per_category(tmp_path: Path) -> None:
    ds = dissection()
    ax = emergence(ds, per="category", count="by_category")
    found = detected_concepts(ds, count="by_category")
    for category, points in lines(ax).items():
        numbers = found.isel(concept=np.flatnonzero(ds["concept_category"] == category)).sum("concept")
        assert [number for _, number in points] == numbers.values.tolist()
    assert [to_hex(line.get_color()) for line in ax.get_lines()] == [
        color.lower() for color in category_colors(CATEGORIES).values()
    ]
    drawn(ax, tmp_path)


@pytest.mark.parametrize("per", ["layer", "category"])
def test_missing_counts_leave_a_gap(per: Any) -> None:
    points = lines(emergence(dissection(missing=True), per=per))
    gaps = {name: [np.isnan(number) for _, number in line] for name, line in points.items()}
    gap, whole = [False, False, True, False], [False] * 4
    assert gaps == ({"late": whole, "early": gap} if per == "layer" else dict.fromkeys(CATEGORIES, gap))


def test_accuracy_is_on_a_second_axis() -> None:
    ds = dissection()
    second = next(ax for ax in emergence(ds).figure.axes if ax.get_ylabel() == "accuracy")
    assert lines(second) == {"accuracy": [(0, 0.1), (10, 0.3), (100, 0.5), (1000, 0.6)]}
    assert len(emergence(ds.drop_vars("accuracy")).figure.axes) == 1


def test_snapshots_are_drawn_by_step() -> None:
    ds = dissection()
    assert lines(emergence(ds.isel(snapshot=[2, 0, 3, 1]))) == lines(emergence(ds))
    assert set(emergence(ds).get_xticks()) <= set(ds["step"].values.tolist())
    assert emergence(ds).get_xticks(minor=True).size == 0


def test_same_for_blocks_and_length_one_fraction() -> None:
    ds = dissection()
    whole = ds.drop_vars("fraction")
    counts = whole[["intersection", "unit_area"]].expand_dims(fraction=[0.005])
    blocks = counts.assign(concept_area=whole["concept_area"]).chunk(unit=3)
    assert lines(emergence(blocks)) == lines(emergence(ds))
    one = concept_bars(blocks.isel(snapshot=[3]))
    assert [len(c) for c in one.containers] == [len(c) for c in concept_bars(ds.isel(snapshot=3)).containers]


def test_axes_that_are_given_are_drawn_on() -> None:
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert concept_bars(dissection().isel(snapshot=3), ax=first) is first
    assert emergence(dissection(), ax=second) is second


def test_colors_are_fixed_and_differ() -> None:
    usual = category_colors(["object", "part", "scene", "material", "texture", "color"])
    assert len(set(usual.values())) == 6
    assert category_colors(["texture", "object"]) == {name: usual[name] for name in ("texture", "object")}
    others = category_colors(["digit", "object", "stroke"])
    assert others["object"] == usual["object"]
    assert len(set(others.values())) == 3
    assert len(category_colors([f"category {number}" for number in range(20)])) == 20


def test_errors_say_what_to_select() -> None:
    ds = dissection()
    with pytest.raises(DissectError, match=r"one snapshot, the Dataset has 4: select with ds.isel\(snapshot=0\)"):
        concept_bars(ds)
    with pytest.raises(DissectError, match="dimension snapshot with its coordinate step"):
        emergence(ds.isel(snapshot=0))
    with pytest.raises(DissectError, match="dimension snapshot with its coordinate step"):
        emergence(ds.drop_vars("step"))
    with pytest.raises(DissectError, match="per is 'unit': expected layer or category"):
        emergence(ds, per="unit")  # type: ignore[arg-type]


def test_pyplot_is_not_imported() -> None:
    program = "import sys, dissect_xr.plot.concepts; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
