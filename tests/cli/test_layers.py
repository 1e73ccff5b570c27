"""`dissect-xr layers`, and layers in recipes that say their layout."""

from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from PIL import Image

from dissect_xr import store
from dissect_xr.activations.store import open_activations
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.errors import DissectError
from dissect_xr.probe.digits.write import write_digits

pytestmark = pytest.mark.usefixtures("no_figures")

NETWORK = """
import torch
from torch import nn


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 8, 8)
        self.block = nn.Sequential(nn.Linear(6, 12), nn.ReLU(inplace=True), nn.Linear(12, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        rows = self.embed(x).flatten(2).transpose(1, 2)
        rows = torch.cat([rows.mean(1, keepdim=True), rows], 1)
        return self.head((rows + self.block(rows))[:, 0])
"""

RECIPE = """
probe: {kind: broden, folder: "${data}"}
model:
  factory: ${here}/patches.py:Patches
  input_size: [32, 48]
  snapshots: [{name: only}]
layers: ["block.2 <", block.0, "block.0 token 0", {layer: block, layout: {kind: tokens, prefix: 1}}]
activations: {dtype: float32, threads: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("layers")
    write_digits(here / "digits", images=20, size=64)
    (here / "patches.py").write_text(NETWORK)
    (here / "recipe.yaml").write_text(RECIPE)
    return here


def command(name: str, folder: Path, *options: str) -> int:
    return runs.call(name, str(folder / "recipe.yaml"), "--set", f"data={folder / 'digits'}", *options)


def test_layers_are_listed_with_what_they_are(folder, capsys):
    assert command("layers", folder) == 0
    shown = capsys.readouterr().out
    rows = [line.split("│")[1:-1] for line in shown.splitlines() if "│" in line]
    lines = {name.strip(): [cell.strip() for cell in cells] for name, *cells in rows}
    assert lines["embed"] == ["1x6x4x6", "6x4x6", "nchw", "0.6", "maps (unit, y, x)", "every 8 px from 4", "not needed"]
    taken = "tokens on a grid of 4x6, after one other"
    assert lines["block.0"] == ["1x25x12", "12x4x6", "tokens", "1.1", taken, "every 8 px from 4", "agrees (5 of 5)"]
    why = "is a 1x2 float32 tensor, one number for each unit: name it with layout: cell for maps of one cell"
    assert lines["head"] == [why]
    assert "block.0 <" not in lines
    assert command("layers", folder, "--inputs") == 0
    assert "block.0 <" in capsys.readouterr().out
    assert not (folder / "out").exists(), "nothing is written"
    assert command("layers", folder, "--snapshot", "none") == 2


def test_what_is_recorded_is_what_the_taps_gave(folder):
    assert command("run", folder, "--quiet", "--out", str(folder / "run")) == 0
    url = str(folder / "run/activations.zarr")
    tree = open_activations(url)
    assert list(tree["only"].children) == ["block.0", "block.0 token 0", "block.2 <", "block"]
    names = tree["image"].values.tolist()
    pixels = [Image.open(folder / "digits" / "images" / name).convert("RGB").resize((48, 32), 2) for name in names]
    batch = torch.tensor(np.stack([np.asarray(one) for one in pixels])).permute(0, 3, 1, 2).float() / 255
    from dissect_xr.activations.request import ModelSpec
    from dissect_xr.activations.sources import load_model

    model = load_model(ModelSpec.of(f"{folder / 'patches.py'}:Patches"))
    with torch.inference_mode():
        rows = model.embed(batch).flatten(2).transpose(1, 2)
        rows = torch.cat([rows.mean(1, keepdim=True), rows], 1)
        first = model.block[0](rows)
        expected = {"block.0": first, "block.2 <": first.relu(), "block": model.block[2](first.relu())}
    for layer, value in expected.items():
        stored = store.read(url, f"only/{layer}/activation")[:]
        by_hand = value[:, 1:].numpy().reshape(20, 4, 6, -1).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(stored, by_hand, rtol=1e-4, atol=1e-6)
    token = store.read(url, "only/block.0 token 0/activation")[:]
    np.testing.assert_allclose(token[:, :, 0, 0], first[:, 0].numpy(), rtol=1e-4, atol=1e-6)
    attrs = {layer: store.read_attrs(url, f"only/{layer}") for layer in ("block.0", "block.0 token 0", "block")}
    assert attrs["block.0"]["tensor_layout"] == {"kind": "tokens", "grid": [4, 6], "prefix": 1}
    assert attrs["block.0"]["impulse_test"].startswith("agrees: 5 of 5")
    assert attrs["block.0"]["geometry"]["x"] == {"jump": "8", "start": "4", "receptive_field": "48"}
    assert attrs["block.0 token 0"]["tensor_layout"] == {"kind": "token"}
    assert attrs["block.0 token 0"]["geometry_reason"] == "its one cell is of the whole image"
    inputs = store.read_attrs(url, "only")["inputs"]
    assert inputs["layouts"]["block"] == {"kind": "tokens", "grid": [4, 6], "prefix": 1}


def test_another_layout_is_another_recording(folder, capsys):
    wrong = "layers.3.layout={kind: tokens, prefix: 0, suffix: 1}"
    assert command("run", folder, "--quiet", "--out", str(folder / "other"), "--set", wrong) == 2
    assert "layer block: a patch of the image was changed, and it was not its own cell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("[{layer: a}]", "layout: Field required"),
        ("[{layer: a, layout: {kind: maps}}]", "kind: Input should be 'nchw'"),
        ("[{layer: a, layout: {kind: tokens, prefixes: 1}}]", "prefixes: Extra inputs"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_with_its_field(folder, layers, message):
    with pytest.raises(DissectError, match=message):
        load_recipe(folder / "recipe.yaml", out="run", overrides=["data=d", f"layers={layers}"])


def test_one_mapping_stands_for_a_list_of_it(folder):
    found = load_recipe(folder / "recipe.yaml", out="run", overrides=["data=d", "layers={layer: a, layout: nhwc}"])
    assert [one.choice.layout.kind for one in found.layers] == ["nhwc"]


SPECIAL = f"""
{NETWORK.replace("class Patches(nn.Module)", "class Before(nn.Module)")}

class Patches(Before):
    def __init__(self):
        super().__init__()
        self.twice, self.out = nn.ReLU(), Pair()

    def forward(self, x):
        rows = self.block(self.embed(x).flatten(2).transpose(1, 2))
        return self.out(self.twice(self.twice(rows)))[0][:, 0]


class Pair(nn.Module):
    def forward(self, x):
        return x, {{"more": x}}
"""


def test_names_of_taps_are_paths_on_disks_and_object_stores(folder, s3, tmp_path):
    (tmp_path / "patches.py").write_text(SPECIAL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    names = ["twice#1 <", "twice#2", "out[0]", "out[1][more]"]
    layers, data = f"layers=[{', '.join(map(repr, names))}]", f"data={folder / 'digits'}"
    options = (str(tmp_path / "recipe.yaml"), "--set", data, "--set", layers, "--quiet", "--out")
    out = f"{s3.bucket()}/run"
    for where in (str(tmp_path / "run"), out):
        assert runs.call("run", *options, where) == 0
        assert list(open_activations(f"{where}/activations.zarr")["only"].children) == names
        assert runs.call("verify", where, "--quiet") == 0
    assert runs.contents(out) == runs.contents(str(tmp_path / "run"))
