"""Unique detectors in several bases are those of each layer by itself, and missing ones are said to be missing."""

import json

import numpy as np
import pytest
import xarray as xr
from trained import CUTOFF, dissection

from dissect_xr.analysis.bases import basis_detectors, derived_layers, over_alpha, present, recorded
from dissect_xr.analysis.detectors import detected_concepts, detectors
from dissect_xr.errors import DissectError

BASES = {
    "conv@identity": {"kind": "identity"},
    "conv@rotation-0.5-s0": {"kind": "rotation", "alpha": 0.5, "seed": 0},
    "conv@rotation-0.5-s1": {"kind": "rotation", "alpha": 0.5, "seed": 1},
    "conv@rotation-1-s1": {"kind": "rotation", "alpha": 1.0, "seed": 1},
    "conv@pca": {"kind": "pca", "rank": None, "centred": True},
}


def in_bases(units: int = 6) -> xr.Dataset:
    """A layer and five that are derived from it, beside one that has nothing to do with them."""
    names = ["conv", *BASES, "other"]
    ds = dissection(units=units * len(names)).isel(snapshot=3)
    layer = np.repeat(names, units)
    derived = {name: {"layer": "conv", "basis": basis} for name, basis in BASES.items()}
    return ds.assign_coords(layer=("unit", layer)).assign_attrs(derived=json.dumps(derived))


def test_counts_are_those_of_each_layer_by_itself() -> None:
    ds = in_bases()
    found = basis_detectors(ds, "conv", cutoff=CUTOFF)
    assert found["basis"].values.tolist() == ["conv", *BASES]
    assert found["kind"].values.tolist() == ["recorded", "identity", "rotation", "rotation", "rotation", "pca"]
    assert found["alpha"].values[2:5].tolist() == [0.5, 0.5, 1.0]
    assert found["seed"].values.tolist() == [-1, -1, 0, 1, 1, -1]
    for name in found["basis"].values.tolist():
        mine, row = ds.isel(unit=ds["layer"].values == name), found.sel(basis=name)
        assert int(row["detectors"]) == int(detectors(mine, cutoff=CUTOFF).sum())
        assert int(row["units"]) == 6
        for count in ("by_unit", "by_category"):
            concepts = detected_concepts(mine, count=count, cutoff=CUTOFF)
            for category in ds["category"].values.tolist():
                wanted = int(concepts.values[concepts["concept_category"].values == category].sum())
                assert int(row[count].sel(category=category)) == wanted
    assert found["by_category"].values.any()
    assert (found["by_unit"] < found["by_category"]).any()


def test_shares_that_were_not_dissected_are_missing() -> None:
    found = basis_detectors(in_bases(), "conv", cutoff=CUTOFF)
    curve = over_alpha(found)
    assert (curve["alpha"].values.tolist(), curve["seed"].values.tolist()) == ([0.5, 1.0], [0, 1])
    for name, alpha, seed in (("conv@rotation-0.5-s0", 0.5, 0), ("conv@rotation-1-s1", 1.0, 1)):
        for count in ("by_unit", "by_category"):
            at = curve[count].sel(alpha=alpha, seed=seed)
            assert at.values.tolist() == found[count].sel(basis=name).values.tolist()
    assert curve["by_unit"].sel(alpha=1.0, seed=0).isnull().all()
    assert curve["by_unit"].isnull().sum() == curve.sizes["category"]


def test_what_is_not_there_is_refused() -> None:
    ds = in_bases()
    with pytest.raises(DissectError, match="expected other and layers derived from it, found other"):
        basis_detectors(ds, "other")
    with pytest.raises(DissectError, match="expected conv and layers derived from it, found conv"):
        basis_detectors(ds.drop_attrs(), "conv")
    with pytest.raises(DissectError, match="found neither"):
        basis_detectors(ds, "conv9")
    found = basis_detectors(ds, "conv")
    with pytest.raises(DissectError, match="expected layers of kind rotation_2017, found recorded, identity, rotation"):
        over_alpha(found, kind="rotation_2017")
    with pytest.raises(DissectError, match="expected one snapshot"):
        basis_detectors(dissection(), "early")


def test_layers_that_the_snapshot_lacks_are_left_out() -> None:
    ds = in_bases()
    names = list(dict.fromkeys(ds["layer"].values.tolist()))
    complete = np.array([name not in ("conv@pca", "conv@rotation-1-s1") for name in names])
    ds = ds.assign(complete=("layer_name", complete)).assign_coords(layer_name=names)
    assert set(present(ds)["layer"].values.tolist()) == set(names) - {"conv@pca", "conv@rotation-1-s1"}
    found = basis_detectors(ds, "conv")
    assert found["basis"].values.tolist() == ["conv", *list(BASES)[:3]]


def test_recorded_layers_are_those_that_are_not_derived() -> None:
    ds = in_bases()
    assert set(recorded(ds)["layer"].values.tolist()) == {"conv", "other"}
    assert recorded(ds.drop_attrs()).sizes == ds.sizes
    assert derived_layers(ds)["conv@pca"] == {"layer": "conv", "basis": BASES["conv@pca"]}
