"""What a dry run says of a model is known before any weights are read or fetched."""

from pathlib import Path
from typing import Any

import pytest
import runs
from checkout import TESTS
from vision import library

from dissect_xr.activations.checkpoints import files
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.placement.outline import outline
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording
from dissect_xr.cli.plan import model as plan
from dissect_xr.errors import DissectError

pytestmark = pytest.mark.usefixtures("no_figures")

torchvision, timm = library("torchvision"), library("timm")

RECIPE = """
probe: {kind: digits, folder: "${data}", count: 24, size: 64}
model:
  factory: timm:vit_tiny_patch16_224
  kwargs: {img_size: 64, depth: 2, embed_dim: 24, num_heads: 2}
  snapshots: [{name: trained, weights: pretrained}]
layers: [patch_embed.proj]
activations: {placement: sequential}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dissect_xr.probe.digits.write import write_digits

    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder, images=24, size=64)
    return folder


def dry(recipe: str, data: Path, folder: Path, *more: str) -> int:
    (folder / "recipe.yaml").write_text(recipe)
    out = str(folder / "run")
    return runs.call("run", str(folder / "recipe.yaml"), "--out", out, "--set", f"data={data}", "--dry-run", *more)


def test_sizes_and_shapes_are_counted_by_hand():
    spec = ModelSpec.of(f"{TESTS / 'networks.py'}:tiny", {"units": 4})
    found = outline(spec, Recording(Preprocess(8), ("all",)))
    # 3 x 4 x 9 + 4 of the convolution, 4 + 4 of the normalisation, 64 x 5 + 5 of the classifier
    assert found.parameters == 112 + 8 + 325
    assert (found.nbytes, found.dtypes) == (4 * 445, ("float32",))
    assert found.maps == {"0": (4, 8, 8), "1": (4, 8, 8), "2": (4, 8, 8), "3": (4, 4, 4)}
    assert found.one_block == 4 * 325
    halved = outline(ModelSpec.of(spec.factory, placement=Placement.of(dtype="bfloat16")), Recording(Preprocess(8)))
    assert (halved.nbytes, halved.dtypes) == (2 * 445, ("bfloat16",))


def test_a_dry_run_fetches_nothing_and_says_what_fits(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fetch(*args: object, **kwargs: object) -> Any:
        raise AssertionError("weights are fetched")

    for name in ("load_pretrained", "_builder.load_pretrained"):
        monkeypatch.setattr(f"timm.models._builder.{name.split('.')[-1]}", fetch)
    assert dry(RECIPE, data, tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=2)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"model timm:vit_tiny_patch16_224 (timm {timm.__version__}): {count:,} parameters" in printed
    assert "weights: pretrained; none were read for what follows" in printed
    assert "size [64, 64], mean (0.5, 0.5, 0.5)" in printed
    assert "resize 71, interpolation bicubic" in printed  # 64 / 0.9
    assert "placement sequential (chosen): 0.1 MiB of weights at once; fits this machine" in printed
    assert "patch_embed.proj 24 x 4 x 4 768" in printed
    assert "activations trained" in printed
    assert not (tmp_path / "run").exists()


def test_weights_are_not_opened_before_the_model_is_shown(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = RECIPE.replace("weights: pretrained", f"weights: {tmp_path / 'none.safetensors'}")
    text = text.replace("placement: sequential", "placement: single")
    assert dry(text, data, tmp_path) == 2
    printed = capsys.readouterr()
    assert "patch_embed.proj 24 x 4 x 4" in " ".join(printed.out.split())
    assert "there is no such file" in printed.err
    with pytest.raises(DissectError, match="there is no such file"):
        files.located(tmp_path / "none.safetensors")


def test_a_model_larger_than_memory_is_refused_with_the_placements_that_would_do(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "memory_limit", lambda: 100_000)
    assert dry(RECIPE.replace("placement: sequential", "placement: single"), data, tmp_path) == 2
    printed = capsys.readouterr()
    assert "placement single (chosen)" in printed.out
    assert "does not fit this machine (0.1 MiB)" in printed.out
    assert "With activations.placement: sequential, 0.1 MiB of them are in memory at once" in " ".join(
        printed.err.split()
    )


def test_a_model_that_needs_values_is_planned_as_before(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "network.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.first = nn.Conv2d(3, 2, 3)\n\n    def forward(self, x):\n"
        "        x = self.first(x)\n        return x if float(x.sum()) > 0 else -x\n"
    )
    text = RECIPE.replace("timm:vit_tiny_patch16_224", "${here}/network.py:Net").replace("patch_embed.proj", "first")
    text = text.replace("  kwargs: {img_size: 64, depth: 2, embed_dim: 24, num_heads: 2}\n", "  input_size: 32\n")
    text = text.replace("weights: pretrained", "seed: 0").replace("placement: sequential", "placement: single")
    assert dry(text, data, tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing is known of it before its weights are read: the model fails on an input of 1x3x32x32" in printed
    assert "activations trained" in printed
