"""Metrics of snapshots are read from what training programs write, and are strict JSON in the stores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from dissect_xr import store
from dissect_xr.activations.request import ModelSpec, SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.cli.metrics import read_metrics
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.cli.run import Run
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.schema import from_json, to_json

COLUMNS = {"accuracy": "val_acc", "loss": "loss"}

RECORDS = [
    {"step": 0, "loss": 2.5, "val_acc": None},
    {"step": 0, "val_acc": 0.125},
    {"step": 10.0, "loss": float("nan"), "val_acc": "0.5"},
    {"train_runtime": 12.0},
]


def write(folder: Path, name: str) -> Path:
    """The same records as a file of the format that the name says."""
    path = folder / name
    if name == "list.json":
        path.write_text(json.dumps(RECORDS))
    elif name == "lines.jsonl":
        path.write_text("\n\n".join(json.dumps(record) for record in RECORDS) + "\n")
    else:
        path.write_text("step,loss,val_acc,train_runtime\n0,2.5,,\n0,,0.125,\n10.0,nan,0.5,\n,,,12.0\n")
    return path


@pytest.mark.parametrize("name", ["list.json", "lines.jsonl", "metrics.csv"])
def test_records_of_a_step_are_joined_and_missing_values_are_left_out(tmp_path: Path, name: str) -> None:
    found = read_metrics(write(tmp_path, name), step="step", columns=COLUMNS)
    assert found[0] == {"loss": 2.5, "accuracy": 0.125}
    assert found[10]["accuracy"] == 0.5
    assert math.isnan(found[10]["loss"])
    assert list(found) == [0, 10]


def test_a_single_line_is_one_record(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 3, "loss": 1, "val_acc": 0.25}\n')
    found = read_metrics(tmp_path / "log.jsonl", step="step", columns=COLUMNS)
    assert found == {3: {"loss": 1.0, "accuracy": 0.25}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"step": 1, "loss": 1, "val_acc": 1}, {"step": 2, "loss": "low"}]', "record 2, 'loss': expected a number"),
        ('[{"step": 1.5, "loss": 1, "val_acc": 1}]', "record 1, 'step': expected a whole number, got 1.5"),
        ('[{"step": 1, "loss": true, "val_acc": 1}]', "'loss': expected a number, got True"),
        ('[{"step": 1, "loss": 1}]', "no record has the column 'val_acc'; there are step, loss"),
        ('[{"epoch": 1, "loss": 1, "val_acc": 1}]', "no record has the column 'step'; there are epoch, loss, val_acc"),
        ("[]", "no record has the column 'step'; there are none"),
        ("[3]", "record 1: expected a record"),
        ('[{"step": 1, "loss": 1, "loss": 2, "val_acc": 1}]', "'loss' is given twice in one record"),
        ('{"step": 1, "loss": 1, "val_acc": 1}\n{"step": 2, "step": 3}', "line 2: 'step' is given twice in one record"),
        ('[{"step": 1, "loss": "1_0", "val_acc": 1}]', "record 1, 'loss': expected a number, got '1_0'"),
        ('{"step": 1, "loss": 1, "val_acc": 1}\n{"step": 2', "line 2: neither JSON nor JSON Lines"),
    ],
)
def test_what_cannot_be_a_metric_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(DissectError) as raised:
        read_metrics(tmp_path / "log.json", step="step", columns=COLUMNS)
    assert said in str(raised.value)
    assert "log.json" in str(raised.value)


def test_a_metric_without_any_value_is_nan(tmp_path: Path) -> None:
    """The loss is null in all records, the score in all snapshots, and step 20 is in no record."""
    (tmp_path / "log.jsonl").write_text('{"step": 0, "loss": null, "val_acc": 0.5}\n{"step": 10, "loss": null}\n')
    snapshots = ", ".join(f"{{name: s{step}, step: {step}, metrics: {{score: null}}}}" for step in (0, 10, 20))
    (tmp_path / "recipe.yaml").write_text(
        "probe: {kind: digits, folder: x, count: 4, size: 64}\n"
        "layers: [first]\n"
        f"model: {{factory: torchvision:alexnet, input_size: 32, snapshots: [{snapshots}],\n"
        "  metrics: {file: '${here}/log.jsonl', step: step, columns: {accuracy: val_acc, loss: loss}}}\n"
    )
    out = str(tmp_path / "run")
    run = Run(load_recipe(tmp_path / "recipe.yaml", out=out), out, Threads(1))
    url, maps = str(tmp_path / "activations.zarr"), np.ones((1, 1, 1, 1), np.float32)
    for info, _ in run.snapshots:
        write_activations(url, {"conv": maps}, images=["a"], snapshot=info, show=False)
    stored = [from_json(store.read_attrs(url, f"s{step}")["metrics"]) for step in (0, 10, 20)]
    assert [sorted(metrics) for metrics in stored] == [["accuracy", "loss", "score"]] * 3
    np.testing.assert_array_equal([metrics["accuracy"] for metrics in stored], [0.5, math.nan, math.nan])
    assert all(math.isnan(metrics[name]) for metrics in stored for name in ("loss", "score"))


def test_numbers_that_json_lacks_survive_a_store(tmp_path: Path) -> None:
    url = str(tmp_path / "activations.zarr")
    metrics = {"loss": math.nan, "scale": math.inf, "accuracy": 0.5}
    maps = np.ones((1, 1, 1, 1), np.float32)
    write_activations(url, {"conv": maps}, images=["a"], snapshot=SnapshotInfo("s", 1, metrics), show=False)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    files = [*Path(url).rglob("zarr.json")]
    stored = [json.loads(path.read_text(), parse_constant=refuse)["attributes"] for path in files]
    kept = next(attrs["metrics"] for attrs in stored if "metrics" in attrs)
    assert kept == {"loss": "NaN", "scale": "Infinity", "accuracy": 0.5}
    assert str(from_json(kept)) == str(metrics)
    assert to_json(from_json(kept)) == kept


def test_attributes_that_json_lacks_are_refused(tmp_path: Path) -> None:
    maps, attrs = np.ones((1, 1, 1, 1), np.float32), {"conv": {"input_size": [1.0, math.nan]}}
    with pytest.raises(DissectError, match=r"attribute snapshot/conv\.input_size\[1\]: expected a finite number"):
        write_activations(str(tmp_path / "a.zarr"), {"conv": maps}, images=["a"], attrs=attrs, show=False)
    with pytest.raises(DissectError, match="must be plain numbers, strings and lists, and finite"):
        ModelSpec.of("a:b", {"scale": math.nan})
