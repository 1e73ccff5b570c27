"""The published tables of Network Dissection: their figures come back, and what is written is read again."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from published import FIGURES, published

from dissect_xr.analysis.detectors import best_concept, detectors, unique_detectors
from dissect_xr.analysis.scores import iou, precision
from dissect_xr.errors import DissectError
from dissect_xr.io.netdissect_csv import read_netdissect_csv, write_netdissect_csv

HEADER = (
    "unit,category,label,score,object-label,object-truth,object-activation,object-intersect,object-iou,"
    "texture-label,texture-truth,texture-activation,texture-intersect,texture-iou"
)
ROWS = [
    "2,object,road,0.5,road,5,4.0,3,0.5,,24924928,0.0,145532,0.00587",  # the phantom has no label
    "1,texture,dotted,0.25,car,8,2.0,0,0,dotted,3,2.0,1,0.25",
]


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "net_conv5.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def dissection() -> xr.Dataset:
    """A layer of five units: one dead, one without any overlap, two of equal score."""
    return xr.Dataset(
        {
            "intersection": (
                ("unit", "concept"),
                [[5, 0, 2, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 4, 0, 3], [5, 0, 2, 1]],
            ),
            "unit_area": (("unit", "domain"), [[9, 8], [0, 0], [3, 0], [12, 12], [9, 8]]),
            "concept_area": ("concept", [10, 6, 4, 7]),
            "dead": ("unit", [False, True, False, False, False]),
        },
        {
            "snapshot": "last",
            "fraction": 0.005,
            "unit": [f"features.conv5/{channel}" for channel in range(5)],
            "layer": ("unit", ["features.conv5"] * 5),
            "channel": ("unit", range(5)),
            "concept": [3, 8, 20, 21],
            "concept_name": ("concept", ["sky", "tree", "red, dark", "blue"]),
            "concept_category": ("concept", ["object", "object", "color", "color"]),
            "concept_domain": ("concept", ["object", "object", "color", "color"]),
            "category": ["object", "color"],
            "domain": ["object", "color"],
        },
    )


@pytest.mark.data
@pytest.mark.parametrize("name", FIGURES)
def test_published_figures_come_back(name: str) -> None:
    ds = read_netdissect_csv(published(name))
    units, number, by_unit, by_category = FIGURES[name]
    assert ds.sizes["unit"] == units
    assert detectors(ds).sum().item() == number
    assert unique_detectors(ds, count="by_unit").item() == by_unit
    assert unique_detectors(ds, count="by_category").item() == by_category


@pytest.mark.data
def test_published_units_come_back() -> None:
    best = best_concept(read_netdissect_csv(published("resnet152_places365_res5c.csv")))
    named = {924: ("train", 0.293), 1573: ("dog", 0.216), 1410: ("house", 0.143), 1243: ("airplane", 0.173)}
    for unit, (name, score) in (named | {264: ("plant", 0.126)}).items():
        found = best.sel(unit=f"res5c/{unit - 1}")
        assert found["concept_name"].item() == name
        assert round(found["iou"].item(), 3) == score


@pytest.mark.data
@pytest.mark.parametrize("name", FIGURES)
def test_each_row_gives_its_own_label_and_score(name: str) -> None:
    path = published(name)
    best = best_concept(read_netdissect_csv(path))
    lines = path.read_text().splitlines()[1:]
    for line in lines:
        unit, category, label, score = line.split(",")[:4]
        found = best.isel(unit=int(unit) - 1)
        assert (found["category"].item(), found["concept_name"].item()) == (category, label)
        assert found["iou"].item() == float(score)


@pytest.mark.data
def test_phantom_textures_are_missing() -> None:
    ds = read_netdissect_csv(published("resnet152_places365_res5c.csv"))
    assert ds["unit_area"].isnull().sum("unit").values.tolist() == [0, 0, 0, 0, 695, 0]
    assert "" not in ds["concept_name"].values.tolist()
    assert not ds["dead"].any()
    within = best_concept(ds, within="texture")
    assert (within["concept"] == 0).sum().item() == 695


@pytest.mark.data
@pytest.mark.parametrize("name", FIGURES)
def test_published_tables_are_written_as_they_were(name: str, tmp_path: Path) -> None:
    path = published(name)
    ds = read_netdissect_csv(path)
    write_netdissect_csv(ds, tmp_path / name)
    xr.testing.assert_identical(read_netdissect_csv(tmp_path / name), ds)
    if name.startswith("alexnet"):  # the other holds counts of a phantom
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_units_count_from_zero_and_ascend(tmp_path: Path) -> None:
    ds = read_netdissect_csv(table(tmp_path, *ROWS))
    assert ds["unit"].values.tolist() == ["conv5/0", "conv5/1"]
    assert ds["channel"].values.tolist() == [0, 1]
    assert set(ds["layer"].values.tolist()) == {"conv5"}
    assert read_netdissect_csv(table(tmp_path, *ROWS), layer="features.10")["unit"].values[0] == "features.10/0"


def test_concepts_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    ds = read_netdissect_csv(table(tmp_path, *ROWS))
    assert ds["concept_name"].values.tolist() == ["car", "road", "dotted"]
    assert ds["concept"].values.tolist() == [1, 2, 3]
    xr.testing.assert_identical(read_netdissect_csv(table(tmp_path, *ROWS[::-1])), ds)


def test_what_a_file_does_not_say_is_missing(tmp_path: Path) -> None:
    ds = read_netdissect_csv(table(tmp_path, *ROWS))
    assert np.array_equal(ds["intersection"], [[0, np.nan, 1], [np.nan, 3, np.nan]], equal_nan=True)
    assert np.array_equal(ds["unit_area"], [[2, 2], [4, np.nan]], equal_nan=True)
    assert ds["concept_area"].values.tolist() == [8, 5, 3]
    assert np.array_equal(iou(ds), [[0, np.nan, 0.25], [np.nan, 0.5, np.nan]], equal_nan=True)
    assert np.array_equal(precision(ds), [[0, np.nan, 0.5], [np.nan, 0.75, np.nan]], equal_nan=True)
    assert best_concept(ds)["concept_name"].values.tolist() == ["dotted", "road"]


def test_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    ds = read_netdissect_csv(table(tmp_path, *ROWS))
    xr.testing.assert_identical(read_netdissect_csv(table(tmp_path, "", *ROWS, header="\ufeff" + HEADER)), ds)


def test_a_dissection_is_written_and_read_again(tmp_path: Path) -> None:
    ds = dissection()
    write_netdissect_csv(ds, tmp_path / "net_conv5.csv")
    back = read_netdissect_csv(tmp_path / "net_conv5.csv", layer="features.conv5")
    assert back["dead"].values.tolist() == ds["dead"].values.tolist()
    for within in (None, "object", "color"):
        first, second = best_concept(ds, within=within), best_concept(back, within=within)
        assert second["concept_name"].values.tolist() == first["concept_name"].values.tolist()
        assert second["category"].values.tolist() == first["category"].values.tolist()
        assert np.array_equal(second["iou"], first["iou"], equal_nan=True)
    units = [line.split(",")[0] for line in (tmp_path / "net_conv5.csv").read_text().splitlines()]
    assert units == ["unit", "1", "5", "4", "3", "2"]  # by score, equal ones as they come, the dead one last


def test_length_one_dimensions_and_blocks_are_written_alike(tmp_path: Path) -> None:
    ds = dissection()
    write_netdissect_csv(ds, tmp_path / "a.csv")
    counts = ds.drop_vars(["snapshot", "fraction"])
    whole = counts.drop_vars("concept_area").expand_dims(snapshot=["last"], fraction=[0.005])
    write_netdissect_csv(whole.assign(concept_area=counts["concept_area"]).chunk(unit=2), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_tables_of_more_than_one_layer_are_refused(tmp_path: Path) -> None:
    ds = dissection()
    with pytest.raises(DissectError, match="a table is of one snapshot, the Dataset has 2"):
        write_netdissect_csv(xr.concat([ds, ds], "snapshot", data_vars="all"), tmp_path / "a.csv")
    mixed = ds.assign_coords(layer=("unit", ["a", "a", "b", "b", "b"]))
    with pytest.raises(DissectError, match=r"of one layer; the Dataset has .* of a, b"):
        write_netdissect_csv(mixed, tmp_path / "a.csv")
    without = ds.assign(intersection=ds["intersection"].where(ds["channel"] != 2))
    with pytest.raises(DissectError, match=r"features.conv5/2 has no counts"):
        write_netdissect_csv(without, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2,object,road,0.5,road,five,4.0,3,0.5,,,,,", "line 3, column object-truth: expected a number, got 'five'"),
        ("2,object,road,0.5,road,5,4.5,3,0.5,,,,,", "line 3, column object-activation: expected a whole number"),
        ("2,object,road,0.5,road,5,nan,3,0.5,,,,,", "line 3, column object-activation: expected a whole number"),
        ("2,object,road,0.5,road,5,1e300,3,0.5,,,,,", "line 3, column object-activation: expected a whole number"),
        ("2,object,road,0.5,road,5,4.0,5,0.5,,,,,", "line 3, column object-intersect: expected 0 to 4"),
        ("2,object,road,0.5,road,5,4.0,3,0.6,,,,,", "line 3, column object-iou: expected 0.5, which the counts give"),
        ("2,object,road,0.5,road,5,4.0,3,nan,,,,,", "line 3, column object-iou: expected 0.5"),
        ("2,object,car,0.5,car,5,4.0,3,0.5,,,,,", "line 3, column object-truth: car has 5 pixels here, 8 on line 2"),
        ("2,object,road,0.5,road,5,4.0,3,0.5,,,,", "line 3: expected 14 columns as in the header, got 13"),
        ("x,object,road,0.5,road,5,4.0,3,0.5,,,,,", "line 3, column unit: expected a number, got 'x'"),
        ("0,object,road,0.5,road,5,4.0,3,0.5,,,,,", "line 3, column unit: expected 1 or more, got '0'"),
        ("1,object,road,0.5,road,5,4.0,3,0.5,,,,,", "line 3, column unit: 1 is on line 2 already"),
    ],
)
def test_errors_name_line_and_column(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=message) as error:
        read_netdissect_csv(table(tmp_path, ROWS[1], row))
    assert "net_conv5.csv" in str(error.value)


def test_errors_name_the_columns_that_are_missing(tmp_path: Path) -> None:
    for column in ("unit", "object-truth", "texture-iou"):
        with pytest.raises(DissectError, match=f"line 1: column {column} is missing"):
            read_netdissect_csv(table(tmp_path, *ROWS, header=HEADER.replace(column, "other")))
    with pytest.raises(DissectError, match=r"line 1: column unit, <category>-label, .* is missing"):
        read_netdissect_csv(table(tmp_path, "1,2", header="a,b"))
    with pytest.raises(DissectError, match="line 1: column unit is there twice"):
        read_netdissect_csv(table(tmp_path, *ROWS, header=HEADER.replace("score", "unit")))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="expected a row per unit below the header"):
        read_netdissect_csv(table(tmp_path))
    with pytest.raises(DissectError, match="cannot be read"):
        read_netdissect_csv(tmp_path / "nowhere.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DissectError, match="cannot be read"):
        read_netdissect_csv(tmp_path / "image.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DissectError, match="is missing"):
        read_netdissect_csv(tmp_path / "empty.csv")
