"""Tables for other programs: what is written is read again, block by block, and whole or not at all."""

import errno
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from trained import dissection

from dissect_xr.analysis.scores import iou
from dissect_xr.errors import DissectError, WriteError
from dissect_xr.io import export, netdissect_csv
from dissect_xr.io.export import write_table
from dissect_xr.io.unit_table import unit_table

COUNTS = ("intersection", "unit_area", "dead", "threshold")


def stored(*, missing: bool = False, fractions: int = 2) -> xr.Dataset:
    """(snapshot, fraction, unit, concept) as `open_dissection` gives it; the second fraction has half the counts."""
    ds = dissection(missing=missing).drop_vars("fraction")
    both = xr.concat([ds[list(COUNTS)], ds[list(COUNTS)] // 2], "fraction", join="exact").isel(
        fraction=slice(fractions)
    )
    both["dead"] = both["dead"].astype(ds["dead"].dtype)
    both = both.transpose("snapshot", "fraction", "unit", "concept", "domain")
    return both.assign(concept_area=ds["concept_area"], domain_area=ds["domain_area"]).assign_coords(
        fraction=[0.005, 0.04][:fractions]
    )


def blocks(ds: xr.Dataset, unit: int = 4) -> xr.Dataset:
    """Counts in blocks of units, coordinates in memory."""
    return ds.assign({name: ds[name].variable.chunk(snapshot=1, unit=unit) for name in COUNTS})


def one_layer() -> xr.Dataset:
    """What fits every format."""
    ds = blocks(stored(fractions=1)).isel(snapshot=[0])
    return ds.isel(unit=ds["layer"].values == ds["layer"].values[0])


def by_unit(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order of their own, names as plain text."""
    frame = frame.astype({name: str for name in frame if frame[name].dtype in ("category", "str", "object")})
    keys = ["snapshot", "fraction", "unit", *(["concept"] if "intersection" in frame else [])]
    return frame.sort_values(keys).reset_index(drop=True)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_of_units_come_back(tmp_path: Path, format: str, missing: bool) -> None:
    ds = stored(missing=missing)
    write_table(blocks(ds), tmp_path / "units", format, show=False)
    if format == "parquet":
        found = pd.read_parquet(tmp_path / "units")
    else:
        empty = {name: [""] for name in ("iou", "threshold", "dead")}
        found = pd.read_csv(tmp_path / "units", keep_default_na=False, na_values=empty)
        found = found.astype({"threshold": np.float32, "dead": ds["dead"].dtype})
    pd.testing.assert_frame_equal(by_unit(found), by_unit(unit_table(ds)), check_exact=True)
    assert len(found) == 5 * 2 * 9


@pytest.mark.parametrize("missing", [False, True])
def test_rows_of_pairs_are_all_that_overlap(tmp_path: Path, missing: bool) -> None:
    ds = stored(missing=missing)
    write_table(blocks(ds), tmp_path / "pairs.parquet", "parquet-pairs", show=False)
    found = pd.read_parquet(tmp_path / "pairs.parquet")
    every = ds.assign(iou=iou(ds), area=ds["unit_area"].sel(domain=ds["concept_domain"]))
    frame = every[["intersection", "area", "concept_area", "iou"]].to_dataframe().reset_index()
    wanted = frame[frame["intersection"] > 0].drop(columns=["category", "domain", "concept_domain"], errors="ignore")
    wanted = wanted.rename(columns={"area": "unit_area", "concept_category": "category"})
    wanted = wanted.astype(dict.fromkeys(("intersection", "unit_area"), np.int64))
    assert len(found) == len(wanted) > 300
    pd.testing.assert_frame_equal(by_unit(found), by_unit(wanted[list(found)]), check_exact=True)
    assert not found.duplicated(["snapshot", "fraction", "unit", "concept"]).any()


@pytest.mark.parametrize("format", ["csv", "parquet", "parquet-pairs"])
def test_every_block_is_read_once_and_no_two_are_held(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds, read = blocks(stored()), Counter[Any]()
    rows = {"held": 0, "written": 0}

    def noting(block: Any, block_info: Any = None) -> Any:
        if block_info:
            read[tuple(block_info[0]["chunk-location"])] += 1
            rows["held"] = max(rows["held"], sum(read.values()) - rows["written"])
        return block

    counts = ds["intersection"].data.map_blocks(noting, dtype=np.int64, meta=np.empty((0,) * 4, np.int64))
    ds = ds.assign(intersection=(ds["intersection"].dims, counts))
    real = export._blocks

    def counted(*arguments: Any) -> Any:
        for block in real(*arguments):
            yield block
            rows["written"] += 1

    monkeypatch.setattr(export, "_blocks", counted)
    write_table(ds, tmp_path / "table", format, show=False)
    assert set(read.values()) == {1}
    assert len(read) == 5 * 3  # snapshots, blocks of units
    assert rows["held"] == 1


def test_a_row_group_is_a_block_and_carries_the_parameters(tmp_path: Path) -> None:
    from pyarrow.parquet import ParquetFile

    ds = blocks(stored()).assign_attrs(probe_sha256="ab", fractions=[0.005, 0.04])
    write_table(ds, tmp_path / "units.parquet", "parquet", show=False)
    with ParquetFile(tmp_path / "units.parquet") as file:
        assert file.num_row_groups == 5 * 3
        parameters = json.loads(file.schema_arrow.metadata[b"dissect_xr"])
    assert parameters == {"probe_sha256": "ab", "fractions": [0.005, 0.04], "cutoff": 0.04}


class FullDisk:
    """A CSV writer that writes the first row only."""

    def __init__(self, file: Any) -> None:
        self.writerow = lambda row: file.write("row\n")

    def writerows(self, rows: Any) -> None:
        """Fails."""
        raise OSError(errno.EIO, "rotten")


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_table_that_fails_is_no_table(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(block: Any) -> Any:
        raise OSError("rotten")

    ds = blocks(stored())
    bad = ds["intersection"].data.map_blocks(failing, dtype=np.int64, meta=np.empty((0,) * 4, np.int64))
    ds = ds.assign(
        intersection=(
            ds["intersection"].dims,
            xr.concat([ds["intersection"][:3], ds["intersection"].copy(data=bad)[3:]], "snapshot").data,
        )
    )
    if format == "netdissect-csv":  # reads all before it writes
        ds = one_layer()
        monkeypatch.setattr(netdissect_csv.csv, "writer", FullDisk)
    (tmp_path / "table").write_text("old")
    with pytest.raises(OSError, match="rotten"):
        write_table(ds, tmp_path / "table", format, show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert (tmp_path / "table").read_text() == "old"


@pytest.mark.parametrize("format", export.FORMATS)
@pytest.mark.parametrize("to", ["nowhere/table", "folder", "file/table"])
def test_where_nothing_can_be_written_is_said_before_anything_is_read(tmp_path: Path, format: str, to: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    ds = one_layer()
    ds["intersection"] = ds["intersection"].copy(data=ds["intersection"].data.map_blocks(pytest.fail, meta=np.empty(0)))
    with pytest.raises(WriteError, match=f"{to}: "):
        write_table(ds, tmp_path / to, format, show=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    (tmp_path / "table").write_text("old")
    with pytest.raises(WriteError, match="table: cannot be written: No space left on device"):
        write_table(blocks(stored()), tmp_path / "table", "csv", show=False)
    assert (tmp_path / "table").read_text() == "old"


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DissectError, match=r"pip install 'dissect-xr\[parquet\]'"):
        write_table(stored(), tmp_path / "units.parquet", "parquet", show=False)


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="csv, netdissect-csv, parquet, parquet-pairs"):
        write_table(stored(), tmp_path / "units.xlsx", "xlsx", show=False)


def test_progress_shows_unless_silenced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(blocks(stored()), tmp_path / "units.csv", "csv")
    assert "15/15" in capsys.readouterr().err
    write_table(blocks(stored()), tmp_path / "units.csv", "csv", show=False)
    assert capsys.readouterr() == ("", "")
