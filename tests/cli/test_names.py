"""Modules may have any name: it is escaped in paths and shown as it is, or refused before anything runs."""

import json
from pathlib import Path

import pytest
import xarray as xr

pytest.importorskip("torch")

import runs

from dissect_xr.activations.store import open_activations
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.interpolation import half_pixel
from dissect_xr.exemplars.masks import Stores, open_view
from dissect_xr.exemplars.top_images import top_images
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.schema import layer_of, layer_path

NAMES = ("inception_4e/output", "a%2Fb", "__private", "back\\slash", "blocks", "done", "créé à", "tab\there", "a//b/")

NETWORK = """
from torch import nn


class Named(nn.Module):
    def __init__(self, names, plain=False):
        super().__init__()
        self.names = [f"layer{n}" if plain else name for n, name in enumerate(names)]
        for n, name in enumerate(self.names):
            self.add_module(name, nn.Conv2d(6 if n else 3, 6, 3, padding=1))

    def forward(self, x):
        for name in self.names:
            # The last layer sees the image mirrored: it has no geometry, so it is anchored at half pixels.
            x = self.get_submodule(name)(x.flip(3) if name == self.names[-1] else x)
        return x
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    write_digits(folder / "digits", images=12, size=64)
    recipe = runs.RECIPE.replace("layers: [first, second]", "layers: all").replace(":Small", ":Named")
    recipe = recipe.replace("    - {name: second, step: 5, seed: 1, metrics: {accuracy: 0.5}}\n", "")
    runs.write_recipe(folder, recipe)
    (folder / "network.py").write_text(NETWORK)
    return folder


def command(folder: Path, name: str, out: str, names: tuple[str, ...], *options: str, plain: bool = False) -> int:
    kwargs = json.dumps({"names": names, "plain": plain})
    sets = ["--set", f"data={folder / 'digits'}", "--set", f"model.kwargs={kwargs}"]
    return runs.call(name, str(folder / "recipe.yaml"), *sets, "--quiet", "--out", str(folder / out), *options)


def test_any_name_gives_what_a_plain_one_gives(folder, capsys):
    assert command(folder, "run", "named", NAMES) == 0
    assert "inception_4e/output" in capsys.readouterr().out
    assert command(folder, "run", "plain", NAMES, plain=True) == 0
    named, plain = (open_dissection(str(folder / out / "dissection.zarr")) for out in ("named", "plain"))
    assert list(dict.fromkeys(named["layer"].values.tolist())) == list(NAMES)
    units = [f"{NAMES[int(unit[5])]}/{unit[7:]}" for unit in plain["unit"].values.tolist()]
    assert named["unit"].values.tolist() == units
    renamed = plain.assign_coords(unit=units, layer=named["layer"])
    xr.testing.assert_equal(named.drop_vars("iou").load(), renamed.drop_vars("iou").load())


def test_what_is_finished_is_found_again(folder, capsys):
    assert command(folder, "run", "named", NAMES) == 0
    before = runs.blocks(folder / "named")
    assert command(folder, "run", "named", NAMES) == 0
    assert runs.blocks(folder / "named") == before
    capsys.readouterr()
    assert runs.call("verify", str(folder / "named")) == 0
    assert runs.call("info", str(folder / "named" / "activations.zarr")) == 0
    assert "inception_4e/output" in capsys.readouterr().out
    assert command(folder, "report", "named", NAMES, "--exemplars", "1") == 0
    for marker in Path(folder, "named/markers").rglob("*4e*/done.json"):
        marker.unlink()
    assert command(folder, "run", "named", NAMES) == 0
    assert runs.blocks(folder / "named").keys() == before.keys()


def test_activations_and_exemplars_know_the_names(folder):
    assert command(folder, "run", "named", NAMES) == 0
    stores = Stores(str(folder / "named/activations.zarr"), str(folder / "named/probe.zarr"))
    layer = open_activations(stores.activations)["first/inception_4e%2Foutput"].dataset
    assert set(layer["layer"].values.tolist()) == {"inception_4e/output"}
    assert layer["unit"].values.tolist()[-1] == "inception_4e/output/5"
    found = top_images(stores.activations, "first", "a//b/", k=2)
    assert found["unit"].values.tolist() == [f"a//b//{channel}" for channel in range(6)]
    ds = open_dissection(str(folder / "named/dissection.zarr")).isel(fraction=0, snapshot=0)
    assert json.loads(ds.attrs["anchoring_fallbacks"]) == {"first/a%2F%2Fb%2F": "half_pixel"}
    assert list(json.loads(ds.attrs["anchoring_reasons"])) == ["first/a//b/"]
    assert open_view(ds, stores, "inception_4e/output").rows.first.size == 32
    view = open_view(ds, stores, "a//b/")
    expected = half_pixel(24, 32)
    assert (view.rows.first.tolist(), view.rows.weight.tolist()) == (expected.first.tolist(), expected.weight.tolist())


@pytest.mark.parametrize("name", ["peak", "mean", "x" * 241])
def test_a_name_that_cannot_be_stored_is_refused_before_anything_runs(folder, tmp_path, name, capsys):
    assert command(folder, "run", str(tmp_path / "out"), ("first", name)) == 2
    assert f"layer {name[:60]}" in "".join(capsys.readouterr().err.split("\n"))
    assert not (tmp_path / "out" / "activations.zarr").exists()
    assert not (tmp_path / "out" / "probe.zarr").exists()


@pytest.mark.parametrize("name", [*NAMES, ".", "..", ".hidden", "_one", "%", "%25", "a/b", "a%2fb"])
def test_escaped_names_are_one_part_of_a_path_and_come_back(name):
    path = layer_path("s", name)
    assert path.count("/") == 1
    assert layer_of(f"{path}/activation") == name
    assert path.rpartition("/")[2] not in (".", "..")


def test_plain_names_stay_as_they_are():
    for name in ("layer4.1.conv2", "features.0", "Mixed_7c", "_x", "conv 1", "é"):
        assert layer_path("s", name) == f"s/{name}"
