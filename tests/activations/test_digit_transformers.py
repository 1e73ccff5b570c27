"""The transformers of the pipelines: what each layer is taken for, and that every cell is at its place."""

import sys

import pytest
import torch
from checkout import ROOT

from dissect_xr.activations.layouts.listing import list_layers
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording
from dissect_xr.cli.recipe import load_recipe

PIPELINES = ROOT / "pipelines"
LAYOUTS = {"vit": "tokens", "windows": "nhwc"}


@pytest.fixture(autouse=True)
def _imports(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(PIPELINES), *sys.path])


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layers_of_a_recipe_are_recognised_and_tested(name, tmp_path):
    recipe = load_recipe(PIPELINES / f"{name}.yaml", out=str(tmp_path))
    spec = ModelSpec.of(recipe.model.factory, seed=0)
    recording = Recording(Preprocess((96, 96)), tuple(recipe.layers), batch=4)
    listed = {one.name: one for one in list_layers(spec, recording, inputs=True).layers}
    for layer in recipe.layers:
        assert listed[layer].layout == LAYOUTS[name], layer
        assert listed[layer].tested.startswith(("agrees", "undecided")), listed[layer].tested
        units = 384 if layer.endswith("<") else 96
        side = 24 if layer.startswith("stage1") else 12
        assert listed[layer].maps == (units, side, side)
    first = listed[recipe.layers[0]]
    assert first.tested.startswith("agrees"), first.tested


def test_windows_come_back_to_their_places():
    from train_transformers import WindowBlock

    block = WindowBlock(2, 1)
    block.block = torch.nn.Identity()
    maps = torch.arange(4 * 6 * 3.0).reshape(1, 4, 6, 3)
    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_network_names_every_cell_and_the_image(name):
    from train_transformers import GRID, KINDS, NETWORKS

    from dissect_xr.probe.digits.write import CONCEPTS

    scores = NETWORKS[name]().predictions(torch.rand(2, 3, 96, 96))
    assert {kind: tuple(score.shape) for kind, score in scores.items()} == {
        "scene": (2, len(CONCEPTS["scene"])),
        **{kind: (2, len(CONCEPTS[kind]) + 1, GRID, GRID) for kind in KINDS},
    }
