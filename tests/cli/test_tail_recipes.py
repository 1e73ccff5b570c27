"""Runs that keep tails: the counts of all cells from a fraction of the bytes, also where bounds are too high."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import runs
import xarray as xr
from runs import SIZES, call, layers_are

from dissect_xr import store
from dissect_xr.activations.recording import bounds
from dissect_xr.activations.store import open_activations
from dissect_xr.analysis.results import open_dissection
from dissect_xr.tail.sampling import Sampling

RECIPE = """
probe: {kind: digits, folder: "${data}/digits", count: 40, size: 64}
model:
  factory: ${here}/network.py:Small
  input_size: 48
  snapshots: [{name: first, step: 0, seed: 0}, {name: second, step: 5, seed: 1}]
layers: [first, second]
activations: {threads: 1}
dissect: {fractions: [0.005, 0.02]}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    from dissect_xr.probe.digits.write import write_digits

    write_digits(folder / "digits", images=40, size=64)
    return folder


def arguments(folder: Path, digits: Path, keep: str) -> list[str]:
    recipe = runs.write_recipe(folder / "recipe", RECIPE)
    return [str(recipe), "--set", f"data={digits}", "--set", f"activations.keep={keep}", "--out", str(folder / keep)]


def counts(folder: Path) -> xr.Dataset:
    return open_dissection(str(folder / "dissection.zarr")).load()


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "activations.zarr").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A finished run that keeps all cells."""
    folder = tmp_path_factory.mktemp("dense")
    assert call("run", *arguments(folder, digits, "dense"), "--quiet") == 0
    return folder / "dense"


@pytest.fixture(params=SIZES)
def layers(request: pytest.FixtureRequest) -> Iterator[str]:
    """Small layers, and layers that are dissected as large ones are."""
    with layers_are(request.param):
        yield request.param


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["threads", "processes"])
def test_the_counts_are_those_of_all_cells(
    tmp_path: Path, digits: Path, dense: Path, layers: str, workers: list[str]
) -> None:
    given = arguments(tmp_path, digits, "tail")
    assert call("run", *given, *workers, "--quiet") == 0
    found = counts(tmp_path / "tail")
    xr.testing.assert_identical(found.drop_attrs(), counts(dense).drop_attrs())
    assert bytes_of(tmp_path / "tail") < bytes_of(dense) / 2
    assert not list((tmp_path / "tail").rglob("activation/c.*")), "all cells were stored"
    assert call("run", *given, "--verify", "--quiet") == 0
    assert call("verify", str(tmp_path / "tail")) == 0


def test_tails_beside_all_cells_give_the_same(tmp_path: Path, digits: Path, dense: Path, layers: str) -> None:
    given = arguments(tmp_path, digits, "both")
    assert call("run", *given, "--quiet") == 0
    xr.testing.assert_identical(counts(tmp_path / "both").drop_attrs(), counts(dense).drop_attrs())
    cells, wanted = (
        open_activations(str(folder / "activations.zarr"))["second/second"].to_dataset().load()
        for folder in (tmp_path / "both", dense)
    )
    xr.testing.assert_identical(cells.drop_attrs(), wanted.drop_attrs())
    assert bytes_of(dense) < bytes_of(tmp_path / "both") < 1.6 * bytes_of(dense)
    assert call("run", *given, "--verify", "--quiet") == 0
    assert call("verify", str(tmp_path / "both")) == 0
    for keep in ("dense", "tail"):  # it has what both of them need
        assert call("run", *arguments(tmp_path, digits, keep)[:-1], str(tmp_path / "both"), "--quiet") == 0


def test_where_bounds_are_too_high_the_cells_beside_tails_are_read(
    tmp_path: Path, digits: Path, dense: Path, layers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, digits, "both")
    with patch.object(Sampling, "index", lambda self, cells, images: 0):
        assert call("run", *given, "--quiet") == 0
    assert "too high" not in capsys.readouterr().err
    xr.testing.assert_identical(counts(tmp_path / "both").drop_attrs(), counts(dense).drop_attrs())
    url = str(tmp_path / "both/dissection.zarr")
    assert (store.marker(url, "first/second/done") or {})["note"]["bounds_too_high"] > 0


def test_layers_whose_bounds_are_too_high_are_extracted_again_unasked(
    tmp_path: Path, digits: Path, dense: Path, layers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the largest value of the sample is the bound, far fewer values than a fifth of a hundredth exceed it."""
    given = arguments(tmp_path, digits, "tail")
    with patch.object(Sampling, "index", lambda self, cells, images: 0):
        assert call("run", *given, "--quiet") == 0
    said = capsys.readouterr().err
    assert "first: bounds were too high for some units (" in said
    found = counts(tmp_path / "tail")
    xr.testing.assert_identical(found.drop_attrs(), counts(dense).drop_attrs())
    url = str(tmp_path / "tail/dissection.zarr")
    assert (store.marker(url, "first/second/done") or {})["note"]["bounds_too_high"] > 0
    with patch.object(bounds, "run_batches", lambda *_: pytest.fail("a finished run makes no bounds")):
        assert call("run", *given, "--quiet") == 0
    assert "too high" not in capsys.readouterr().err
    assert call("verify", str(tmp_path / "tail")) == 0
    assert not list((tmp_path / "tail").rglob("activation/c.*")), "all cells of all units were stored"


def test_a_plan_says_how_much_less_tails_take(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = {}
    for keep in ("both", "dense", "tail"):
        assert call("run", *arguments(tmp_path, digits, keep), "--dry-run") == 0
        printed = capsys.readouterr().out
        (row,) = (line for line in printed.splitlines() if "activations first" in line)
        disk[keep] = row.split("│")[3].strip()
        assert f"as asked for, keep: {keep}" in printed
        assert "of a snapshot take under a second from all cells and under a second from tails" in printed
    assert f"all cells {disk['dense']} in " in printed
    assert f"tails at most {disk['tail']} in " in printed
    assert "for which 40 of 40 images go through the model twice" in printed
    size = {keep: float(said.split()[0]) for keep, said in disk.items()}
    assert 0 < size["tail"] < size["dense"] < size["both"] <= size["tail"] + size["dense"] + 0.1


@pytest.mark.parametrize("kind", ["derived", "cam"])
def test_what_needs_all_cells_is_refused_before_anything_is_done(
    tmp_path: Path, digits: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, digits, "tail")
    recipe = Path(given[0])
    more = {
        "derived": "derived: [{layer: second, basis: pca}]\n",
        "cam": "experiments: [{kind: cam, classes: classes}]\n",
    }
    recipe.write_text(recipe.read_text() + more[kind])
    assert call("run", *given, "--dry-run") == 2
    assert "Use keep: dense" in capsys.readouterr().err
    assert not (tmp_path / "tail").exists()


def test_the_report_is_that_of_all_cells_byte_for_byte(tmp_path: Path, digits: Path, dense: Path) -> None:
    """Peaks choose its images, and masks are drawn in them: a tail has both."""
    given = arguments(tmp_path, digits, "tail")
    assert call("run", *given, "--quiet") == 0
    assert call("report", *given, "--quiet") == 0
    assert call("report", *arguments(tmp_path, digits, "dense")[:-1], str(dense), "--quiet") == 0
    pages = [
        {path.relative_to(out): path.read_bytes() for path in (out / "report").rglob("*") if path.is_file()}
        for out in (tmp_path / "tail", dense)
    ]
    assert any(path.suffix == ".html" for path in pages[0])
    assert pages[0] == pages[1]
