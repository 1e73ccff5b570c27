"""The page on the stores lists what is in them: every variable and every attribute, no more and no less."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import runs
from checkout import PIPELINES

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.recording.kept import extract_again
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.bases.basis import PcaBasis
from dissect_xr.bases.derive import derive
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import open_probe
from dissect_xr.schema import DRAWN_BY, IGNORED, STORES, TAIL, Group
from dissect_xr.tail.sampling import Sampling

ROLLED = """
from torch import nn


class Rolled(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 3))

    def forward(self, x):
        return super().forward(x.roll(1, 3))  # has no rule
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; beside it activations from arrays, a derived layer, one of no maps, one that was measured."""
    folder = tmp_path_factory.mktemp("format")
    write_digits(folder / "digits", images=20, size=64)
    recipe = str(runs.write_recipe(folder / "recipe"))
    assert runs.call("run", recipe, "--set", f"data={folder / 'digits'}", "--quiet", "--out", str(folder / "run")) == 0
    names = open_probe(str(folder / "run/probe.zarr"))["image"].values.tolist()
    maps = np.ones((20, 2, 3, 3), np.float16)
    stores = [str(folder / f"run/{name}.zarr") for name in ("activations", "probe", "dissection")]
    write_activations(stores[0], {"alone": maps}, images=names, snapshot="written")
    spec, cell = ModelSpec.of(f"{folder / 'recipe'}/network.py:Small"), {"layer": "head", "layout": "cell"}
    recording = Recording(Preprocess(24), (cell,))
    extract(prepare_extraction(stores[0], stores[1], SnapshotInfo("cells"), spec, recording), show=False)
    tails = replace(recording, layers=("first", "second"), keep="tail", sampling=Sampling(0.005, images=8))
    extraction = prepare_extraction(stores[0], stores[1], SnapshotInfo("kept"), spec, tails)
    extract(extraction, show=False)
    extract_again(extraction, {"second": [1]}, pool=Threads(1), show=False)
    write_activations(stores[0], {"alone": maps * np.eye(3)}, images=names, snapshot="written_tails", keep="tail")
    (folder / "rolled.py").write_text(ROLLED)
    measured = prepare_extraction(
        stores[0], stores[1], SnapshotInfo("rolled"), ModelSpec.of(f"{folder / 'rolled.py'}:Rolled"),
        Recording(Preprocess(24), ("0",)),
    )  # fmt: skip
    extract(measured, show=False)
    derive(stores[0], "first", PcaBasis(rank=2), snapshots=["first"], show=False)
    dissect(*stores, method=Method((0.01, 0.1)), only=[("first", "first@pca-2")], show=False)
    return folder / "run"


def groups(store: Path, kind: Group) -> list[Path]:
    """The groups of a store that are of this kind."""
    depth = kind.path.count("/") if kind.path != "/" else 0
    found = [path.parent for path in store.rglob("zarr.json") if json.loads(path.read_text())["node_type"] == "group"]
    found = [path for path in found if len(path.relative_to(store).parts) == depth]
    if store.name != "activations.zarr":
        return found
    # Only there do derived layers hold something else than recorded ones, and tails have a group of their own.
    found = [path for path in found if ("tails" in path.parts) == ("tails" in kind.path)]
    return [path for path in found if ("@" in path.name) == ("@" in kind.path)]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in STORES.items() for kind in kinds])
def test_groups_hold_the_variables_and_attributes_that_are_declared(out: Path, name: str, kind: Group) -> None:
    found = groups(out / name, kind)
    assert found
    seen = set()
    for group in found:
        attributes = json.loads((group / "zarr.json").read_text())["attributes"]
        assert attributes.keys() - {"coordinates"} <= kind.attributes.keys(), group
        seen |= attributes.keys()
        arrays = {path.parent.name: json.loads(path.read_text()) for path in group.glob("*/zarr.json")}
        arrays = {array: metadata for array, metadata in arrays.items() if metadata["node_type"] == "array"}
        declared = {variable.name: variable for variable in kind.variables}
        if {"written", "written_tails"} & {*group.parts}:  # these have `peak` and `mean` of their own, as the page says
            arrays = {array: metadata for array, metadata in arrays.items() if array not in ("peak", "mean")}
            declared = {array: variable for array, variable in declared.items() if array not in ("peak", "mean")}
        if "written_tails" in group.parts and "tail" in attributes:  # this one has the arrays of tails, too
            assert arrays.keys() >= TAIL.keys()
            arrays = {array: metadata for array, metadata in arrays.items() if array not in TAIL}
        if "tail" in attributes:
            declared = {array: variable for array, variable in declared.items() if array != "activation"}
        # The digits have no ignored pixels, and people's labels only.
        assert arrays.keys() == declared.keys() - {IGNORED.name, *DRAWN_BY}, group
        for array, metadata in arrays.items():
            assert tuple(metadata["dimension_names"]) == declared[array].dims, (group, array)
            assert metadata["data_type"] == declared[array].dtype, (group, array)
    assert kind.attributes.keys() <= seen, "an attribute is declared that no group has"


def test_the_page_lists_what_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(PIPELINES), *sys.path])
    import store_format

    text = store_format.PAGE.read_text(encoding="utf-8")
    assert store_format.page(text) == text, "run pipelines/store_format.py"
