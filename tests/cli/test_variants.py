"""Snapshots of a recipe may be networks that differ: each has arguments of its own."""

import numpy as np
import pytest
from runs import RECIPE, call, write_recipe

import dissect_xr as dx
from dissect_xr.analysis.results import open_dissection

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    dx.write_digits(folder / "digits", images=24, size=64, show=False)
    text = RECIPE.replace("seed: 1, metrics", "seed: 1, kwargs: {width: 4}, metrics")
    assert text != RECIPE
    recipe = write_recipe(folder / "recipe", text)
    out = folder / "run"
    assert call("run", str(recipe), "--out", str(out), "--set", f"data={folder / 'digits'}", "--quiet") == 0
    return open_dissection(out / "dissection.zarr")


def test_a_narrower_network_has_no_counts_of_the_units_that_it_lacks(ds):
    assert ds["unit"].values.tolist() == [f"{layer}/{n}" for layer in ("first", "second") for n in range(6)]
    missing = ds["unit_area"].isnull().any(("fraction", "domain")).transpose("snapshot", "unit").values
    assert not missing[0].any()
    np.testing.assert_array_equal(missing[1], [False] * 4 + [True] * 2 + [False] * 4 + [True] * 2)


def test_networks_of_one_run_are_compared(ds):
    networks = {name: ds.sel(snapshot=name, fraction=0.1) for name in ("first", "second")}
    found = dx.compare_networks(networks)
    assert found["network"].values.tolist() == ["first", "second"]
    for name, one in networks.items():
        best = dx.best_concept(one).compute()
        labels = {best["concept_name"].values[n] for n in np.flatnonzero(best["iou"].values > 0.04)}
        assert int(found["unique_detectors"].sel(network=name).sum()) == len(labels)
