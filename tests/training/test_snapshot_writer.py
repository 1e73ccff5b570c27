"""Snapshots of a network while it is trained: what is written, when, and what is dissected meanwhile."""

import sys
import types

import numpy as np
import pytest
import torch
import yaml
from runs import NETWORK, RECIPE, call

import dissect_xr as dx
from dissect_xr.analysis.results import open_dissection
from dissect_xr.errors import DissectError
from dissect_xr.training.lightning import lightning_callback


@pytest.fixture
def recipe(tmp_path):
    """A recipe beside its network, and a probe of a few images."""
    dx.write_digits(tmp_path / "digits", images=24, size=64, show=False)
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "network.py").write_text(NETWORK)
    path = folder / "recipe.yaml"
    path.write_text(f"data: {tmp_path / 'digits'}\n{RECIPE.split('  snapshots')[0]}{RECIPE[RECIPE.index('layers:') :]}")
    return path


def network(seed=0):
    space = {}
    exec(NETWORK, space)  # the network of the recipe's own file
    torch.manual_seed(seed)
    return space["Small"]()


def changed(model):
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.5)


def test_snapshots_are_written_when_they_are_due_and_the_recipe_names_them(tmp_path, recipe):
    model, out = network(), tmp_path / "run"
    with dx.SnapshotWriter(out, recipe) as snapshot:
        taken = []
        for step in range(12):
            if snapshot(step, model, loss=torch.tensor(1.0 / (step + 1), requires_grad=True), accuracy=float("nan")):
                taken.append(step)
            changed(model)
        assert snapshot(12, model, last=True)
    assert taken == [0, 1, 3, 10]
    written = yaml.safe_load((out / "snapshots/recipe.yaml").read_text())
    assert [one["step"] for one in written["model"]["snapshots"]] == [0, 1, 3, 10, 12]
    assert written["model"]["snapshots"][2]["metrics"] == {"loss": 0.25, "accuracy": None}
    assert call("run", str(out / "snapshots/recipe.yaml"), "--out", str(out), "--quiet") == 0
    ds = open_dissection(out / "dissection.zarr")
    assert ds["step"].values.tolist() == [0, 1, 3, 10, 12]
    np.testing.assert_array_equal(ds["loss"].values, [1, 0.5, 0.25, np.float32(1 / 11), np.nan])
    assert not np.array_equal(*(ds["threshold"].isel(snapshot=n).values for n in (0, 1)))


def test_each_snapshot_is_dissected_while_the_training_goes_on(tmp_path, recipe):
    model, out = network(), tmp_path / "run"
    with dx.SnapshotWriter(out, recipe, [0, 2], dissect=True, images=8, overrides=["layers=[first]"]) as snapshot:
        for step in range(3):
            snapshot(step, model)
            changed(model)
        assert snapshot._background.runs <= 1  # it goes on by itself
    ds = open_dissection(out / "dissection.zarr")
    assert ds["step"].values.tolist() == [0, 2]
    assert dict(dx.open_probe(out / "probe.zarr").sizes)["image"] == 8
    assert list((out / "figures").glob("emergence*.png"))


def test_a_training_that_is_resumed_keeps_its_snapshots(tmp_path, recipe):
    model, out = network(), tmp_path / "run"
    dx.SnapshotWriter(out, recipe)(0, model)
    again = dx.SnapshotWriter(out, recipe)
    assert not again(0, model)  # it is there
    changed(model)
    assert again(3, model)
    steps = [one["step"] for one in yaml.safe_load((out / "snapshots/recipe.yaml").read_text())["model"]["snapshots"]]
    assert steps == [0, 3]
    with pytest.raises(DissectError, match="holds step 0 of another training"):
        dx.SnapshotWriter(out, recipe)(0, model)


def test_weights_that_modules_share_are_written_once_each(tmp_path, recipe):
    model = network()
    model.second[0].bias = model.first[0].bias
    assert dx.SnapshotWriter(tmp_path / "run", recipe)(0, model)


def test_a_malformed_recipe_is_refused_before_the_training(tmp_path, recipe):
    recipe.write_text(recipe.read_text() + "dissct: {}\n")
    with pytest.raises(DissectError, match="dissct"):
        dx.SnapshotWriter(tmp_path / "run", recipe)
    assert not list((tmp_path / "run/snapshots").glob("*"))


def test_an_output_that_is_not_local_is_refused(recipe):
    with pytest.raises(DissectError, match="Name a local output directory"):
        dx.SnapshotWriter("s3://bucket/run", recipe)


def test_a_metric_is_a_number(tmp_path, recipe):
    with pytest.raises(DissectError, match="metric: expected a number, got a str"):
        dx.SnapshotWriter(tmp_path / "run", recipe)(0, network(), loss="low")


def test_what_fails_in_the_background_is_told_at_the_end_and_the_snapshots_stay(tmp_path, recipe):
    out = tmp_path / "run"
    writer = dx.SnapshotWriter(out, recipe, dissect=True, overrides=["layers=[third]"])
    writer(0, network())
    with pytest.raises(DissectError, match=r"(?s)ended with exit code 2.*third"):
        writer.close()
    assert (out / "snapshots/step_000000.safetensors").is_file()


def test_an_error_of_the_training_ends_the_background(tmp_path, recipe):
    writer = dx.SnapshotWriter(tmp_path / "run", recipe, dissect=True)

    def train():
        with writer as snapshot:
            snapshot(0, network())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert not writer._background.is_running


class Trainer:
    """What of Lightning's trainer the callback needs: its hooks are called as Lightning calls them."""

    def __init__(self, callback, steps):
        self.callback, self.steps, self.global_step, self.callback_metrics = callback, steps, 0, {}

    def fit(self, model):
        self.callback.on_train_start(self, model)
        for n in range(self.steps):
            changed(model)
            self.global_step += 1
            self.callback_metrics = {"train/loss": torch.tensor(float(n))}
            self.callback.on_train_batch_end(self, model, None, None, n)
        self.callback.on_train_end(self, model)


def test_a_callback_for_lightning(tmp_path, recipe, monkeypatch):
    if "lightning" not in sys.modules:
        try:
            import lightning.pytorch  # noqa: F401
        except ImportError:
            module = types.ModuleType("pytorch_lightning")
            module.Callback = type("Callback", (), {})
            monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    out = tmp_path / "run"
    Trainer(lightning_callback(dx.SnapshotWriter(out, recipe)), 5).fit(network())
    found = yaml.safe_load((out / "snapshots/recipe.yaml").read_text())["model"]["snapshots"]
    assert [one["step"] for one in found] == [0, 1, 3, 5]
    assert found[2]["metrics"] == {"train_loss": 2.0}


def test_without_lightning_it_says_how_to_install_it(tmp_path, recipe, monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DissectError, match="pip install lightning"):
        lightning_callback(dx.SnapshotWriter(tmp_path / "run", recipe))
