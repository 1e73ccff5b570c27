"""The recipe for CamVid, whole: six snapshots, five layers, 701 photographs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import DATA, ROOT, needs_data

from dissect_xr.analysis.detectors import best_concept, unique_detectors
from dissect_xr.analysis.results import open_dissection


@pytest.mark.data
@pytest.mark.slow
@needs_data
def test_recipe_runs_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dissect_xr", "run", "pipelines/camvid.yaml", "--quiet", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--set", f"data={DATA}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr
    assert "epoch_070" in done.stdout
    results = open_dissection(str(tmp_path / "dissection.zarr")).load()
    assert dict(results.sizes) == {"snapshot": 6, "fraction": 1, "unit": 392, "concept": 26, "category": 3, "domain": 3}
    assert results["step"].values.tolist() == [0, 1, 4, 12, 30, 70]
    assert (np.diff(results["accuracy"].values) > 0).all()
    layer5 = results.isel(unit=results["layer"].values == "layer5", fraction=0)
    unique = unique_detectors(layer5).values
    # The untrained units that pass the cutoff all detect one concept.
    assert unique[-1] >= 2 * unique[0]
    best = best_concept(results).isel(snapshot=-1, fraction=0, unit=results["layer"].values == "layer5")
    assert {"car", "bicyclist", "fence"} <= set(best["concept_name"].values[best["iou"].values > 0.04])
    # activations.keep: none, so the activations of a snapshot go once it is dissected.
    assert not list((tmp_path / "activations.zarr").rglob("activation/c.*"))
