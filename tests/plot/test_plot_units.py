"""Figures of units and comparisons: what is drawn is what was counted, and looks as it did."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from dissected import Run, dissected, noisy
from figures import BASELINE, FIGURES, save
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from trained import CATEGORIES, CUTOFF, dissection

from dissect_xr.analysis.cutoffs import cutoff_curve as curve_of
from dissect_xr.analysis.detectors import best_concept, detectors, unique_detectors
from dissect_xr.analysis.snapshots import changed, trajectories
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.plot.compare import before_after, fine_tuning, layers_compared, networks_compared
from dissect_xr.plot.concepts import emergence
from dissect_xr.plot.palette import LEGIBLE, OKABE_ITO, category_colors, contrast, ink, on
from dissect_xr.plot.units import contact_sheet, cutoff_curve, evolution, gallery, iou_histogram

TOLERANCE = 8
"""RMS difference of pixels of 0 to 255: fonts are rendered a little differently by each build of matplotlib."""


@pytest.mark.parametrize("name", FIGURES)
def test_looks_as_it_did(name: str, tmp_path: Path) -> None:
    save(name, tmp_path / "figure.png")
    expected = tmp_path / "expected.png"
    expected.write_bytes((BASELINE / f"{name}.png").read_bytes())
    assert expected.stat().st_size < 60_000
    assert compare_images(str(expected), str(tmp_path / "figure.png"), TOLERANCE) is None


def test_another_figure_is_told_apart(tmp_path: Path) -> None:
    save("fine_tuning", tmp_path / "figure.png")
    ax = fine_tuning(dissection(5, units=40), cutoff=CUTOFF)
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(tmp_path / "other.png", dpi=60)
    assert compare_images(str(tmp_path / "figure.png"), str(tmp_path / "other.png"), TOLERANCE) is not None


def test_a_gallery_without_its_masks_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dissect_xr.exemplars.pictures.DIMMED", 1.0)
    save("gallery", tmp_path / "figure.png")
    assert compare_images(str(BASELINE / "gallery.png"), str(tmp_path / "figure.png"), TOLERANCE) is not None


def one(seed: int = 0) -> xr.Dataset:
    return dissection(seed, units=40).isel(snapshot=3)


def test_histogram_counts_every_labelled_unit_and_splits_at_the_cutoff() -> None:
    ds = one()
    ax = iou_histogram(ds, cutoff=CUTOFF)
    bars = [bar for container in ax.containers for bar in container]
    assert sum(bar.get_height() for bar in bars) == best_concept(ds)["iou"].notnull().sum()
    right = sum(bar.get_height() for bar in bars if bar.get_x() + bar.get_width() / 2 > CUTOFF)
    assert right == detectors(ds, cutoff=CUTOFF).sum()
    colors = [to_hex(container[0].get_facecolor()) for container in ax.containers]
    assert colors == [color.lower() for color in category_colors(CATEGORIES).values()]
    assert f"{int(right)} of 40 units" in ax.get_title()


def test_histogram_of_dead_units_is_empty() -> None:
    ax = iou_histogram(one().assign(dead=("unit", np.ones(40, np.bool_))))
    assert ax.get_title().startswith("0 of 40")


def test_curves_are_the_counts() -> None:
    ds = one()
    ax = cutoff_curve(ds)
    lines = [line.get_ydata() for line in ax.get_lines()]
    for n, layer in enumerate(("early", "late")):
        curve = curve_of(ds.isel(unit=(ds["layer"] == layer).values))
        assert list(lines[2 * n]) == curve["unique_by_unit"].values.tolist()
        assert list(lines[2 * n + 1]) == curve["unique_by_category"].values.tolist()


@pytest.mark.parametrize("missing", [False, True])
def test_evolution_names_each_new_concept_below_the_curve(missing: bool) -> None:
    ds = dissection(missing=missing)
    ax = evolution(ds, "late/6", cutoff=CUTOFF)
    path = trajectories(ds, cutoff=CUTOFF).sel(unit="late/6").transpose("snapshot", ...)
    names = [name for name in path["concept_name"].values.tolist() if name]
    wanted = [name for n, name in enumerate(names) if not n or names[n - 1] != name]
    texts = [text for text in ax.texts if text.get_text() != "late/6"]
    assert [text.get_text() for text in texts] == wanted
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), path["iou"].values)
    with pytest.raises(DissectError, match="no unit 'late/77'"):
        evolution(ds, ["late/77"])


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
def test_stacked_bars_end_at_the_number_of_unique_detectors(count: str) -> None:
    networks = {f"n{n}": one(n) for n in range(3)}
    ax = networks_compared(networks, count=count, cutoff=CUTOFF)  # type: ignore[arg-type]
    ends = [max(container[n].get_x() + container[n].get_width() for container in ax.containers) for n in range(3)]
    assert ends == [unique_detectors(ds, count=count, cutoff=CUTOFF) for ds in networks.values()]  # type: ignore[arg-type]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["n0", "n1", "n2"]
    layers = layers_compared(one(), cutoff=CUTOFF)
    assert [label.get_text() for label in layers.get_yticklabels()] == ["early", "late"]
    with pytest.raises(DissectError, match="none were given"):
        networks_compared({})


def test_fine_tuning_counts_units_against_the_first_snapshot() -> None:
    ds = dissection(units=40)
    lines = {str(line.get_label()): line.get_ydata() for line in fine_tuning(ds, cutoff=CUTOFF).get_lines()}
    order = ds.sortby("step")["snapshot"].values.tolist()
    for kind, label in (("birth", "new detector"), ("switch", "other concept"), ("death", "lost")):
        kinds = [changed(ds, order[0], name, cutoff=CUTOFF)["kind"].values for name in order]
        assert list(lines[label]) == [(k == kind).sum() for k in kinds]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    case, activation = noisy()
    with dissected(case, activation, [0.2]) as made:
        yield made


def test_gallery_shows_the_exemplars_in_the_order_asked_for(run: Run) -> None:
    ds = run.ds.isel(snapshot=0, fraction=0)
    units = ["conv/3", "conv/0"]
    ax = gallery(ds, run.stores, units, k=3, size=12, show=False)
    shown = {
        str(u["unit"].values): u["picture"].values for u in exemplars(ds, run.stores, units, k=3, size=12, show=False)
    }
    np.testing.assert_array_equal(ax.images[0].get_array(), contact_sheet(shown[unit] for unit in units))
    best = best_concept(ds).sel(unit=units).compute()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    pairs = zip(units, best["concept_name"].values, best["iou"].values, strict=True)
    assert labels == [f"{unit}\n{name} {iou:.3f}" for unit, name, iou in pairs]
    complete(ax)
    complete(gallery(ds, run.stores, ["conv/1"], k=2, size=12, crop=0.5, show=False))
    with pytest.raises(DissectError, match="none were given"):
        gallery(ds, run.stores, [], show=False)


def test_before_and_after_stand_side_by_side(run: Run) -> None:
    ds = run.ds.isel(fraction=0)
    ax = before_after(ds, run.stores, ("s", "s"), units=["conv/0", "conv/2"], k=2, show=False)
    sheet = np.asarray(ax.images[0].get_array())
    half = sheet.shape[1] // 2
    np.testing.assert_array_equal(sheet[:, :half], sheet[:, half:])  # one snapshot on both sides
    assert [label.get_text() for label in ax.get_xticklabels()] == ["before: s", "after: s"]
    complete(ax)
    with pytest.raises(DissectError, match="no unit changed its concept between s and s"):
        before_after(ds, run.stores, ("s", "s"), show=False)


def complete(ax: Axes) -> None:
    """Every label lies on the figure."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    box = figure.bbox
    for text in [*ax.get_yticklabels(), *ax.texts]:
        where = text.get_window_extent()
        assert box.x0 - 1 <= where.x0, text.get_text()
        assert where.x1 <= box.x1 + 1, text.get_text()


def test_names_of_points_cover_no_other_name() -> None:
    ds = dissection(units=40)
    ax = evolution(ds, ["early/1", "early/2", "late/26", "late/27"], cutoff=CUTOFF)
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) > 12
    covering = [(n, m) for n, one in enumerate(boxes) for m, other in enumerate(boxes[:n]) if one.overlaps(other)]
    assert not covering
    for box in boxes:
        assert box.y0 >= ax.bbox.y0


def test_ticks_are_at_snapshots_and_leave_room() -> None:
    ds = dissection(units=40, snapshots=5).assign_coords(step=("snapshot", [0, 1, 1000, 1001, 200_000]))
    ax = emergence(ds, cutoff=CUTOFF)
    assert isinstance(ax.figure, Figure)
    ax.figure.draw_without_rendering()
    labels = ax.get_xticklabels()
    assert [label.get_text() for label in labels] == ["0", "1", "1,000", "200,000"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("color", OKABE_ITO)
def test_every_colour_is_legible_as_text_and_behind_it(color: str) -> None:
    assert contrast(ink(color), "#FFFFFF") >= LEGIBLE
    assert contrast({"white": "#FFFFFF", "black": "#000000"}[on(color)], color) >= LEGIBLE


def test_categories_are_listed_as_in_the_paper() -> None:
    ds = one()
    shuffled = ds.isel(category=[2, 0, 1])
    for function in (iou_histogram, layers_compared):
        legend = function(shuffled, cutoff=CUTOFF).get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["object", "part", "color"]
