"""The demo, run as `make demo` runs it: detectors emerge as the network learns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from checkout import ROOT

from dissect_xr.analysis.detectors import detected_concepts, unique_detectors
from dissect_xr.analysis.results import open_dissection


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder: the one that DISSECT_XR_DEMO names, finished or not, or a new one (three minutes)."""
    folder = Path(os.environ.get("DISSECT_XR_DEMO") or tmp_path_factory.mktemp("demo"))
    train = [sys.executable, "pipelines/train_digits.py", "--probe", f"{folder}/digits", "--out", f"{folder}/snapshots"]
    run = [sys.executable, "-m", "dissect_xr", "run", "pipelines/digits.yaml", "--set", f"data={folder}"]
    for command in (train, [*run, "--out", f"{folder}/run", "--quiet"]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def results(demo: Path) -> xr.Dataset:
    return open_dissection(str(demo / "run" / "dissection.zarr")).load()


@pytest.mark.slow
@pytest.mark.parametrize("count", ["by_unit", "by_category"])
def test_the_last_snapshot_has_twice_the_unique_detectors(results: xr.Dataset, count: str) -> None:
    at = results.sel(fraction=0.005)
    unique = unique_detectors(at, count=count)
    assert int(unique[-1]) >= 2 * int(unique[0]) > 0


@pytest.mark.slow
def test_detectors_are_of_at_least_three_categories(results: xr.Dataset) -> None:
    last = results.sel(fraction=0.005).isel(snapshot=-1)
    found = detected_concepts(last)
    assert len(set(found["concept_category"].values[found.values])) >= 3


@pytest.mark.slow
def test_all_snapshots_and_layers_are_there_with_accuracy(results: xr.Dataset) -> None:
    assert results["step"].values.tolist() == [0, 3, 10, 30, 90, 250, 700]
    assert results["accuracy"].notnull().all()
    assert float(results["accuracy"][-1]) > 3 * float(results["accuracy"][0])
    assert list(dict.fromkeys(results["layer"].values)) == [f"layer{n}" for n in range(1, 6)]
    assert results["fraction"].values.tolist() == [0.005, 0.04]
    assert "complete" not in results


@pytest.mark.slow
def test_figures_are_left(demo: Path, results: xr.Dataset) -> None:
    names = {path.name for path in (demo / "run" / "figures").iterdir()}
    assert {"concepts-step_000700-0.005.png", "emergence-layers-0.005.png", "emergence-categories-0.04.png"} <= names
