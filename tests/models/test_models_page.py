"""Every recipe of docs/models.md runs, with random weights and as few pixels as its model takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import runs
import yaml
from checkout import ROOT
from pages import blocks
from vision import library

from dissect_xr.activations.store import open_activations

pytestmark = pytest.mark.usefixtures("no_figures")

torchvision, timm, transformers = library("torchvision"), library("timm"), library("transformers")

RECIPES = [yaml.safe_load(block) for block in blocks(ROOT / "docs" / "models.md", "yaml")]
RECIPES = [recipe for recipe in RECIPES if "model" in recipe and "factory" in recipe["model"]]

SMALLER: dict[str, dict[str, Any]] = {
    "torchvision:resnet50": {"model.input_size": 64},
    "timm:vit_base_patch14_dinov2.lvd142m": {
        "model.kwargs": {"img_size": 56, "embed_dim": 48, "num_heads": 2, "depth": 2}
    },
    "timm:vit_giant_patch14_dinov2.lvd142m": {
        "model.kwargs": {"img_size": 56, "embed_dim": 48, "num_heads": 2, "depth": 8}
    },
    "transformers:facebook/dinov2-base": {},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dissect_xr.probe.digits.write import write_digits

    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, images=24, size=64)
    return folder


def local(folder: Path) -> str:
    """A folder as one of DINOv2's, tiny."""
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    size = {"shortest_edge": 32}
    transformers.BitImageProcessor(size=size, crop_size={"height": 28, "width": 28}, resample=3).save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["model"]["factory"].partition(".")[0])
def test_a_recipe_of_the_page_runs(
    recipe: dict[str, Any], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    factory = recipe["model"]["factory"]
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(recipe))
    given = {
        "probe.folder": str(digits),
        "probe.count": 24,
        "probe.size": 64,
        "probe.images": {"limit": 4},
        "model.snapshots": [{"name": "trained", "seed": 0}],
        **SMALLER[factory],
    }
    if factory.startswith("transformers:"):
        given |= {"model.factory": local(tmp_path / "folder"), "model.snapshots.0.weights": "pretrained"}
    options = [part for name, value in given.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    assert runs.call("run", str(path), "--out", str(out), "--quiet", *options) == 0, capsys.readouterr().err
    tree = open_activations(str(out / "activations.zarr"))["trained"]
    inputs = tree.attrs["inputs"]
    assert inputs["library"]["name"] == factory.partition(":")[0]
    assert len(inputs["weights_sha256"]) == 64
    assert inputs["preprocess"]["mean"] != [0.0, 0.0, 0.0]
    for layer in recipe["layers"]:
        assert tree[layer].sizes["image"] == 4


def test_the_page_has_a_recipe_of_each_library():
    assert [recipe["model"]["factory"] for recipe in RECIPES] == list(SMALLER)[:2] + list(SMALLER)[:1:-1]
