"""Experiments of a recipe: done after the counts, kept, repaired, refused early; equal to networks run one by one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from checkout import PIPELINES
from runs import call

from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.activations.sources import load_model
from dissect_xr.dissection.layers import open_layer
from dissect_xr.experiments.ablation import open_ablation
from dissect_xr.experiments.cam import open_cam
from dissect_xr.experiments.classes import open_classes
from dissect_xr.experiments.explanation import open_explanation
from dissect_xr.experiments.linear.features import Features
from dissect_xr.probe.digits.write import CONCEPTS, write_digits
from dissect_xr.probe.ingest import open_probe

pytestmark = pytest.mark.usefixtures("no_figures")

FACTORY, UNITS, BATCH = f"{PIPELINES / 'train_digits.py'}:DigitNet", [4, 4, 5, 5, 6], 16

SCENES = {"category": "scene", "outputs": list(CONCEPTS["scene"])}

EXPERIMENTS = [
    {"kind": "ablation", "name": "causal", "layer": "layer4", "labels": SCENES, "sizes": [1, 3]},
    {"kind": "classes", "layer": "layer5", "labels": SCENES, "head": "heads.scene"},
    {"kind": "explanation", "right": 1, "wrong": 2, "units": 2},
    {"kind": "cam", "concepts": dict.fromkeys(CONCEPTS["scene"], "loop"), "share": 0.25},
]

RECIPE = {
    "probe": {"kind": "digits", "folder": "${data}"},
    "model": {
        "factory": FACTORY,
        "kwargs": {"units": UNITS},
        "input_size": 64,
        "snapshots": [{"name": "random", "seed": 1}],
    },
    "layers": ["layer4", "layer5"],
    "activations": {"batch": BATCH, "threads": 1},
    "dissect": {"fractions": [0.05]},
    "experiments": EXPERIMENTS,
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits", images=120, size=64, show=False)


def arguments(folder: Path, digits: Path, out: str = "run", **change: object) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | change))
    return [str(folder / "recipe.yaml"), "--set", f"data={digits}", "--out", str(folder / out)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished")
    assert call("run", *arguments(folder, digits), "--quiet") == 0
    return folder / "run"


def results(out: Path) -> dict[str, xr.Dataset]:
    opened = {"causal": open_ablation, "classes": open_classes, "explanation": open_explanation, "cam": open_cam}
    return {name: function(out / "experiments" / f"{name}.zarr").load() for name, function in opened.items()}


def test_a_run_leaves_results_and_figures(finished: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = results(finished)
    assert found["causal"].sizes["unit"] == 5
    assert found["classes"].sizes["unit"] == 6
    assert set(found["explanation"]["unit"].values.ravel()) <= set(found["classes"]["unit"].values)
    assert found["cam"].attrs["share"] == 0.25
    assert set(found["cam"]["concept_name"].values) == {"loop"}
    label, uses = found["cam"]["label"].values, found["classes"]
    features = Features(open_layer(str(finished / "activations.zarr"), "random", "layer5"))
    parts = features.of(found["cam"]["image_index"].values) * uses["weight"].values[label]
    np.testing.assert_allclose(found["cam"]["score"], parts.sum(axis=1) + uses["intercept"].values[label], atol=1e-5)
    for name in found:
        assert (finished / "figures" / f"experiment-{name}.png").stat().st_size > 5_000
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != "lock"}
    assert call("run", *arguments(finished.parent, digits), "--quiet") == 0
    printed = capsys.readouterr().out
    for name in found:
        assert f"experiment {name}: " in printed
        assert f"experiment-{name}.png" in printed
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != "lock"}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"recipe.yaml"}, "everything was finished"


def test_a_run_that_finds_all_finished_imports_no_torch(finished: Path, digits: Path) -> None:
    given = ["run", *arguments(finished.parent, digits), "--quiet"]
    code = (
        "import sys\nfrom dissect_xr.cli.main import main\n"
        f"try:\n    main({given!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "sys.exit(', '.join({'torch', 'sklearn'} & set(sys.modules)) or None)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_effects_on_digits_are_those_of_the_network_run_for_each_unit(finished: Path, digits: Path) -> None:
    ds = results(finished)["causal"]
    probe = open_probe(finished / "probe.zarr")
    scene = {
        number: str(name) for number, name in zip(probe["concept"].values, probe["concept_name"].values, strict=True)
    }
    labels = {}
    for name, split, numbers in zip(
        probe["image"].values, probe["split"].values, probe["whole_image"].values, strict=True
    ):
        for number in numbers[numbers > 0].tolist():
            if scene[number] in CONCEPTS["scene"]:
                labels[str(name)] = str(split), CONCEPTS["scene"].index(scene[number])
    model = load_model(ModelSpec.of(FACTORY, {"units": UNITS}, seed=1))
    torch.set_num_threads(1)
    for split in ("train", "val"):
        mine = [(name, label) for name, (where, label) in labels.items() if where == split]
        true_positives, predicted = np.zeros((2, 6, 48), np.int64)
        for first in range(0, len(mine), BATCH):
            part = mine[first : first + BATCH]
            pixels = np.stack([read_image(digits / "images" / name, (64, 64)) for name, _ in part])
            for row in range(6):  # nothing, then each unit
                with torch.inference_mode():
                    handle = model.layer4.register_forward_hook(
                        lambda m, a, output, row=row: (
                            output * torch.tensor([unit != row - 1 for unit in range(5)]).reshape(1, 5, 1, 1)
                        )
                    )
                    scores = model(to_input(Preprocess((64, 64)), pixels)).argmax(1).numpy()
                    handle.remove()
                np.add.at(predicted[row], scores, 1)
                np.add.at(true_positives[row], scores[scores == [label for _, label in part]], 1)
        at = ds.sel(split=split)
        assert at["class_images"].values.sum() == len(mine) > 0
        assert at["predicted"].values.tolist() == predicted[0].tolist()
        assert at["predicted_without"].values.tolist() == predicted[1:].tolist()
        assert at["true_positives_without"].values.tolist() == true_positives[1:].tolist()
    assert len({tuple(row) for row in ds["predicted_without"].values.reshape(10, 48)}) > 2, "units differ"


def test_the_head_says_what_the_network_says(finished: Path) -> None:
    """On these images: means of activations stored as float16 give the class that the network gives."""
    found = results(finished)
    network, head = found["causal"].sel(split="val"), found["classes"].sel(split="val")
    assert np.abs(network["predicted"].values - head["predicted"].values).sum() <= 2
    assert found["explanation"]["contribution"].dims == ("image", "rank")


def test_the_same_on_processes_and_by_itself(finished: Path, digits: Path, tmp_path: Path) -> None:
    given = arguments(tmp_path, digits)
    assert call("experiment", *given, "--quiet") == 2, "nothing is dissected yet"
    assert call("run", *arguments(tmp_path, digits, experiments=[]), "--quiet") == 0
    assert call("experiment", *arguments(tmp_path, digits), "--quiet", "--workers", "2", "--only", "causal") == 0
    assert {path.name for path in (tmp_path / "run" / "experiments").iterdir()} == {"causal.zarr", "markers"}
    assert call("experiment", *arguments(tmp_path, digits), "--quiet", "--workers", "2") == 0
    for name, ds in results(tmp_path / "run").items():
        xr.testing.assert_identical(ds, results(finished)[name])


def test_damage_is_verified_and_mended(
    finished: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    given = arguments(tmp_path, digits)
    assert call("verify", str(tmp_path / "run"), "--quiet") == 0
    chunk = tmp_path / "run" / "experiments" / "causal.zarr" / "single-measured" / "prediction" / "c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-2])
    assert call("verify", str(tmp_path / "run"), "--quiet") == 2
    assert "single-measured/prediction/c.0.0" in capsys.readouterr().out
    assert call("run", *given, "--quiet") == 0
    assert "damaged, will be done again" in capsys.readouterr().err
    assert call("verify", str(tmp_path / "run"), "--quiet") == 0
    xr.testing.assert_identical(results(tmp_path / "run")["causal"], results(finished)["causal"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([EXPERIMENTS[0], EXPERIMENTS[0]], "experiments.1 (causal): another experiment has this name"),
        ([EXPERIMENTS[0] | {"snapshot": "last"}], "no snapshot 'last' in the recipe; there are ['random']"),
        ([EXPERIMENTS[2]], "expected an experiment of the kind classes, called 'classes', before it"),
        ([EXPERIMENTS[3]], "(cam): expected an experiment of the kind classes, called 'classes', before it"),
        ([EXPERIMENTS[1], EXPERIMENTS[3] | {"concepts": "no.csv"}], "expected concepts at no.csv, found no file"),
        ([EXPERIMENTS[1], EXPERIMENTS[3] | {"share": 1}], "experiments.1.cam.share"),
        ([EXPERIMENTS[0] | {"labels": {"category": "scene"}}], "which class is which score of the network"),
        ([EXPERIMENTS[0] | {"labels": {"table": "no.csv", "outputs": 3}}], "expected labels at no.csv, found nothing"),
        ([EXPERIMENTS[0] | {"labels": {"outputs": 3}}], "expected either `table` or `category`"),
        ([EXPERIMENTS[0] | {"labels": {"category": "scene", "outputs": ["a", "a"]}}], "each once, got one twice"),
        ([EXPERIMENTS[0] | {"name": "../out"}], "experiments.0.ablation.name"),
        ([EXPERIMENTS[0] | {"measured_on": "train"}], "ranked and measured on the same images (train)"),
        ([{"kind": "ablatoin"}], "experiments.0"),
    ],
)
@pytest.mark.parametrize("command", ["run", "experiment"])
def test_what_cannot_be_done_is_refused_before_anything_runs(
    command: str,
    change: list[dict[str, object]],
    message: str,
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(command, *arguments(tmp_path, digits, experiments=change)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "probe.zarr").exists()


def test_activations_that_are_not_kept_are_named(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *arguments(tmp_path, digits, activations={"keep": "none"}), "--dry-run") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "experiments.1 (classes): needs the stored activations, which activations.keep: none removes" in error


def test_an_unknown_name_lists_those_there_are(
    finished: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(finished.parent, digits)
    assert call("experiment", *given, "--only", "casual") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--only casual: the recipe has no such experiment; there are causal, classes, explanation, cam" in error
    assert json.loads((finished / "summary.json").read_text())
