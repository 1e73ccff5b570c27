"""`open_dissection`: layers and snapshots as one lazy Dataset, what is missing visible, labels read once."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import stores
import xarray as xr
from distributed import Client
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.analysis import results
from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.results import few_in_memory, open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.store import CONCEPT_COORDINATES, ROOT_COORDINATES
from dissect_xr.errors import DissectError

CASE = ProbeCase(
    np.random.default_rng(0).choice([0, 3, 5], (6, 1, 8, 8)).astype(np.uint16),
    np.zeros((6, 1), np.uint16),
    np.array([3, 5], np.uint16),
    np.array([0, 1]),
    ("a", "b"),
)
SNAPSHOTS = {"late": (7, {"z": 4, "b": 3}), "early": (0, {"z": 4}), "middle": (2, {"z": 4, "b": 3})}
"""Snapshot -> its step and the units of its layers: written in another order than that of steps."""


def dissected(folder: Path, seed: int = 0, snapshots: dict[str, Any] = SNAPSHOTS, fraction: float = 0.1) -> str:
    """A dissection of random maps of these layers."""
    folder.mkdir(exist_ok=True)
    random, probe, out = np.random.default_rng(seed), str(folder / "probe.zarr"), str(folder / "dissection.zarr")
    if not store.exists(probe):
        stores.write_probe_case(CASE, folder)
    for name, (step, layers) in snapshots.items():
        maps = {layer: random.standard_normal((6, units, 3, 3)).astype(np.float16) for layer, units in layers.items()}
        for layer in maps:
            stores.write_layers(folder, probe, {layer: maps[layer]}, snapshot=SnapshotInfo(name, step=step))
    dissect(str(folder / "activations.zarr"), probe, out, method=stores.method([fraction]), show=False)
    return out


def test_counts_are_those_stored_under_their_labels(tmp_path: Path, lazy: None) -> None:
    url = dissected(tmp_path)
    ds = open_dissection(url)
    assert ds["snapshot"].values.tolist() == ["early", "middle", "late"]
    assert ds["step"].values.tolist() == [0, 2, 7]
    assert sorted(ds["unit"].values.tolist()) == ["b/0", "b/1", "b/2", "z/0", "z/1", "z/2", "z/3"]
    assert [f"{layer}/{channel}" for layer, channel in zip(ds["layer"].values, ds["channel"].values, strict=True)] == (
        ds["unit"].values.tolist()
    )
    assert {name for name in ds.variables if ds[name].chunks is None} - set(ds.coords) == {"complete"}
    for name in ds.coords:
        assert ds[name].chunks is None, name


@pytest.mark.parametrize("room", [0, 1])
def test_counts_are_read_once_where_they_are_few_and_stay_lazy_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    ds = open_dissection(dissected(tmp_path))
    monkeypatch.setattr(results, "BLOCK", ds.drop_vars("iou").nbytes - 1 + room)
    found = few_in_memory(ds)
    in_memory = {name for name in found.data_vars if found[name].chunks is None}
    assert in_memory == ({*found.data_vars} - {"iou"} if room else {"complete"})
    assert {name for name in ds.data_vars if ds[name].chunks is None} == {"complete"}, "the Dataset given is as it was"
    xr.testing.assert_identical(found.compute(), ds.compute())


def test_a_store_made_again_is_not_answered_by_what_a_cluster_kept_of_the_first(tmp_path: Path) -> None:
    url = dissected(tmp_path, fraction=0.1)
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as client:
        first = client.persist(open_dissection(url))
        assert int(first["intersection"].sum()) > 0
        shutil.rmtree(url)
        shutil.rmtree(tmp_path / "markers" / "dissection.zarr")
        probe = str(tmp_path / "probe.zarr")
        dissect(str(tmp_path / "activations.zarr"), probe, url, method=stores.method([0.4]), show=False)
        again = client.persist(open_dissection(url))
        for name in ("threshold", "intersection"):
            np.testing.assert_array_equal(
                again[name].values, open_dissection(url)[name].compute(scheduler="sync").values
            )


def test_counts_of_every_pair_are_those_stored(tmp_path: Path) -> None:
    url = dissected(tmp_path)
    ds = open_dissection(url).load()
    for snapshot, (_, layers) in SNAPSHOTS.items():
        for layer in layers:
            part = ds.sel(snapshot=snapshot).isel(unit=(ds["layer"] == layer).values)
            for name, values in stores.stored(url, f"{snapshot}/{layer}").items():
                np.testing.assert_array_equal(part[name].values, values, err_msg=f"{snapshot}/{layer}/{name}")


def test_a_layer_that_a_snapshot_lacks_is_missing_not_zero(tmp_path: Path) -> None:
    ds = open_dissection(dissected(tmp_path))
    complete = ds["complete"].to_pandas()
    assert complete.loc["early"].to_dict() == {"z": True, "b": False}
    assert complete.drop("early").to_numpy().all()
    early = ds.sel(snapshot="early").isel(unit=(ds["layer"] == "b").values).load()
    for name in ("threshold", "exceedance", "intersection", "unit_area", "dead", "iou"):
        assert early[name].isnull().all(), name
    best = best_concept(ds).sel(snapshot="early").compute()
    assert (best["concept_name"] == "").values.tolist() == [[layer == "b" for layer in ds["layer"].values]]


def test_variables_are_listed_in_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dissected(tmp_path)
    straight = open_dissection(str(tmp_path / "dissection.zarr"))
    real = store.open_lazy

    def reversed_listing(*arguments: Any, **options: Any) -> xr.Dataset:
        ds = real(*arguments, **options)
        return ds.drop_vars(ds.coords)[list(ds.data_vars)[::-1]].assign_coords(dict(reversed(list(ds.coords.items()))))

    monkeypatch.setattr(store, "open_lazy", reversed_listing)
    again = open_dissection(str(tmp_path / "dissection.zarr"))
    assert list(straight.data_vars)[:4] == ["threshold", "exceedance", "intersection", "unit_area"]
    assert list(straight.coords)[:6] == ["snapshot", "step", "fraction", "unit", "layer", "channel"]
    assert repr(again) == repr(straight)


def test_whole_snapshots_stay_integers(tmp_path: Path) -> None:
    whole = {name: (step, {"z": 4, "b": 3}) for name, (step, _) in SNAPSHOTS.items()}
    ds = open_dissection(dissected(tmp_path, snapshots=whole))
    assert "complete" not in ds
    assert {name: ds[name].dtype.kind for name in ("intersection", "unit_area", "dead")} == {
        "intersection": "i", "unit_area": "i", "dead": "b",
    }  # fmt: skip


def test_an_unfinished_layer_is_left_out_aloud(tmp_path: Path) -> None:
    url = dissected(tmp_path)
    assert store.drop(url, ["late/b/done"]) == {"late/b/done", "late/done"}
    with pytest.warns(UserWarning, match=r"not finished: late/b\. Run the recipe again"):
        ds = open_dissection(url)
    assert ds["complete"].to_pandas().loc["late"].to_dict() == {"z": True, "b": False}
    for key in store.markers(url):
        if key.endswith("/done"):
            store.drop(url, [key])
    unfinished = pytest.warns(UserWarning, match="not finished: early/z, late/b, late/z, middle/b, middle/z")
    with unfinished, pytest.raises(DissectError, match="found no finished layer"):
        open_dissection(url)


def test_layers_dissected_otherwise_are_refused(tmp_path: Path) -> None:
    url = dissected(tmp_path, snapshots={"one": (0, {"z": 2})})
    other = dissected(tmp_path / "other", snapshots={"two": (1, {"z": 2})}, fraction=0.2)
    for folder in ("{}", "markers/{}"):
        (Path(other).parent / folder.format("dissection.zarr") / "two").rename(
            tmp_path / folder.format("dissection.zarr") / "two"
        )
    with pytest.raises(DissectError, match=r"two/z was dissected with another probe or by other parameters"):
        open_dissection(url)


def test_what_layers_share_is_read_once(tmp_path: Path) -> None:
    url, read, looked = dissected(tmp_path), Counter[str](), Counter[str]()
    get, marker = store.StoredArray.__getitem__, store.marker

    def counting(self: store.StoredArray, key: Any) -> Any:
        read[self.path] += 1
        return get(self, key)

    def looking(url: str, key: str, **options: Any) -> Any:
        looked[key] += 1
        return marker(url, key, **options)

    with patch.object(store.StoredArray, "__getitem__", counting), patch.object(store, "marker", looking):
        open_dissection(url)
    assert read == dict.fromkeys(["fraction", *CONCEPT_COORDINATES, *ROOT_COORDINATES], 1)
    assert looked == dict.fromkeys(["created", *(f"{name}/done" for name in SNAPSHOTS)], 1), "no layer is looked at"


def test_two_stores_keep_apart(tmp_path: Path) -> None:
    first, second = (open_dissection(dissected(tmp_path / str(seed), seed)) for seed in (0, 1))
    both = xr.concat([first["intersection"], second["intersection"]], "store", join="exact").compute()
    assert both.isel(store=0).equals(first["intersection"].compute())
    assert both.isel(store=1).equals(second["intersection"].compute())
    assert not both.isel(store=0).equals(both.isel(store=1))
