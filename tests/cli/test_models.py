"""Models and weights as people have them: said what was taken off, or one error before anything runs."""

from pathlib import Path

import pytest
import runs
import torch
from torch import nn

from dissect_xr import store
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import load_model
from dissect_xr.probe.digits.write import write_digits

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_digits(folder / "digits", images=6, size=64)
    return folder / "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, its network, and a checkpoint of it for each snapshot, as PyTorch Lightning writes them."""
    runs.write_recipe(tmp_path)
    for n in range(2):
        model = load_model(ModelSpec.of(f"{tmp_path / 'network.py'}:Small", seed=n))
        names = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"epoch": n, "state_dict": names, "hparams": Path("x")}, tmp_path / f"{n}.ckpt")
    return tmp_path


def command(data: Path, folder: Path, *options: str, weights: bool = True) -> int:
    sets = [f"data={data}", *(f"model.snapshots.{n}.weights={folder / f'{n}.ckpt'}" for n in range(2) if weights)]
    options = tuple(word for one in sets for word in ("--set", one)) + options
    return runs.call("run", str(folder / "recipe.yaml"), *options, "--quiet", "--out", str(folder / "out"))


def test_what_was_taken_off_is_said_once_for_all_snapshots_and_stored(data, folder, capsys):
    assert command(data, folder) == 0
    said = "the state dict under 'state_dict' was taken; taken off the names: model.; passed over, without executing"
    assert capsys.readouterr().err.count(f"weights of first and 1 more snapshots: {said}") == 1
    kept = store.read_attrs(str(folder / "out" / "activations.zarr"), "second")["weights_said"]
    assert "; ".join(kept).startswith(said)
    assert command(data, folder) == 0
    assert capsys.readouterr().err == ""
    seeded = folder / "seeded"
    runs.write_recipe(seeded)
    assert command(data, seeded, weights=False) == 0
    assert capsys.readouterr().err == ""
    for url in ("activations.zarr", "dissection.zarr"):
        for snapshot, layer in (("first", "second"), ("second", "first")):
            name = "activation" if url.startswith("act") else "intersection"
            arrays = [store.read(str(one / "out" / url), f"{snapshot}/{layer}/{name}")[...] for one in (folder, seeded)]
            assert (arrays[0] == arrays[1]).all()


def test_another_key_is_another_snapshot(data, folder, capsys):
    assert command(data, folder) == 0
    assert command(data, folder, "--set", "model.snapshots.0.key=state_dict.model") == 2
    assert "weights_key was None, is 'state_dict.model'" in "".join(capsys.readouterr().err.split("\n"))


CODE = {
    "scripted": (
        "import torch\nmodel = torch.jit.script(nn.Sequential(nn.ReLU()))",
        "torch.jit has scripted or traced",
    ),
    "compiled": ("import torch\nmodel = torch.compile(model)", "is compiled, which hooks cannot enter"),
    "lazy": ("model = nn.Sequential(nn.LazyConv2d(2, 3))", "has Lazy layers that have not seen an input: 0"),
    "dropout": ("model.second[1] = nn.Sequential(Noise())", "layer second does not repeat"),
    "statistics": (
        "model.second[1] = nn.BatchNorm2d(6, track_running_stats=False)",
        "layer second gives an image other",
    ),
    "exit": ("raise SystemExit(3)", "failed: SystemExit: 3"),
}

NOISE = """
import torch

class Noise(nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x)

def build():
    model = Small()
    CODE
    return model
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", CODE)
def test_a_model_that_cannot_be_dissected_is_one_error_before_anything_runs(data, folder, kind, capsys):
    code, message = CODE[kind]
    text = NOISE.replace("    CODE", "\n".join(f"    {line}" for line in code.split("\n")))
    (folder / "network.py").write_text(runs.NETWORK + text)
    factory = f"model.factory={folder / 'network.py'}:build"
    assert command(data, folder, "--set", factory, weights=False) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "internal error" not in said
    assert "failed 3 times" not in said
    assert not (folder / "out" / "probe.zarr").exists()


def test_a_page_instead_of_weights_is_one_error_before_anything_runs(data, folder, capsys):
    (folder / "1.ckpt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    assert command(data, folder) == 2
    assert "1.ckpt: is an HTML page." in "".join(capsys.readouterr().err.split("\n"))
    assert not (folder / "out" / "probe.zarr").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["threads", "processes"])
def test_a_file_that_parses_arguments_ends_neither_the_program_nor_a_worker(data, folder, workers, capfd):
    text = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--data', required=True)\n"
    (folder / "network.py").write_text(f"{text}parser.parse_args()\n{runs.NETWORK}")
    assert command(data, folder, *workers, weights=False) == 2
    said = capfd.readouterr().err
    assert (
        said.rstrip().split("\n")[-1].startswith(f"error: {folder / 'network.py'} ends the program when it is imported")
    )
    assert "workers died" not in said


def test_a_file_may_parse_arguments_that_have_defaults(data, folder, monkeypatch):
    """It does not see those of this program, which it would not know."""
    text = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--lr', default=1)\n"
    (folder / "network.py").write_text(f"{text}parser.parse_args()\n{runs.NETWORK}")
    monkeypatch.setattr("sys.argv", ["dissect-xr", "run", "recipe.yaml", "--out", "out"])
    assert command(data, folder, weights=False) == 0
    assert isinstance(load_model(ModelSpec.of(f"{folder / 'network.py'}:Small")), nn.Module)
