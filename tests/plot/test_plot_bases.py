"""The figure of bases draws the counts of `basis_detectors`."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rotated import rotated

from dissect_xr.errors import DissectError
from dissect_xr.plot.bases import rotation_curve


def lines(ax: Axes) -> dict[str, list[list[float]]]:
    """Label -> points, of the curves."""
    return {str(line.get_label()): line.get_xydata().tolist() for line in ax.get_lines() if line.get_marker() == "o"}


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
def test_the_curve_is_the_mean_and_the_band_the_range(count: str) -> None:
    found = rotated()
    ax = rotation_curve(found, count=count)  # type: ignore[arg-type]
    totals = found[count].sum("category")
    points = lines(ax)["all categories"]
    assert [x for x, _ in points] == [0.0, 0.5, 1.0]
    for alpha, mean in points:
        at = totals.values[(found["kind"].values == "rotation") & (found["alpha"].values == alpha)]
        assert mean == pytest.approx(at.mean())
        band = ax.collections[0].get_paths()[0].vertices
        ys = band[np.isclose(band[:, 0], alpha), 1]
        assert (ys.min(), ys.max()) == (at.min(), at.max())
    assert [line.get_ydata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"] == [totals.values[0]]
    assert f"({count.replace('_', ' ')}" in ax.get_ylabel()
    assert "3 seeds" in ax.get_xlabel()


def test_other_bases_stand_beside_the_curve() -> None:
    found = rotated()
    ax = rotation_curve(found)
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == ["0", "0.5", "1", "identity", "random", "pca", "pca\nuncentred"]
    marks = {round(float(line.get_xdata()[0]), 2): float(line.get_ydata()[0]) for line in ax.get_lines()
             if line.get_marker() == "s"}  # fmt: skip
    totals = found["by_unit"].sum("category")
    for at, kind in zip(sorted(marks), ["identity", "random"], strict=False):
        assert marks[at] == pytest.approx(totals.values[found["kind"].values == kind].mean())
    assert len(marks) == 4


def test_a_line_for_each_category() -> None:
    found = rotated()
    ax = rotation_curve(found, per="category", count="by_category")
    assert set(lines(ax)) == {"object", "part", "color"}
    for category, points in lines(ax).items():
        of = found["by_category"].sel(category=category)
        at = of.values[(found["kind"].values == "rotation") & (found["alpha"].values == 1.0)]
        assert points[-1][1] == pytest.approx(at.mean())


def test_the_rotation_of_2017_has_a_curve_of_its_own(tmp_path: Path) -> None:
    found = rotated()
    other = found.isel(basis=found["kind"].values == "rotation")
    other = other.assign_coords(
        kind=("basis", ["rotation_2017"] * other.sizes["basis"]),
        basis=[str(name).replace("rotation", "rotation_2017") for name in other["basis"].values],
    )
    both = xr.concat([found, other], "basis", data_vars="minimal", coords="minimal", compat="override")
    ax = rotation_curve(both)
    assert set(lines(ax)) == {"all categories", "all categories, as in 2017"}
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(tmp_path / "figure.png")


def test_what_has_no_curve_is_refused() -> None:
    found = rotated()
    with pytest.raises(DissectError, match="expected layers of kind rotation, found recorded, identity"):
        rotation_curve(found.isel(basis=[0, 1]))
    with pytest.raises(DissectError, match="per is 'layer'"):
        rotation_curve(found, per="layer")  # type: ignore[arg-type]
