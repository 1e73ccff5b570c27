"""The command line: one message and exit code 2 for what the user can mend, and every stage by itself."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from checkout import ROOT
from runs import NETWORK, SIZES, call, layers_are, urls

from dissect_xr import store
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.cli.commands.options import parse_bytes
from dissect_xr.cli.commands.stages import _pool
from dissect_xr.dissection.layers import Layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import _ThreadStream
from dissect_xr.plot import figures
from dissect_xr.probe.ingest import IngestTask
from dissect_xr.store import objects

pytestmark = pytest.mark.usefixtures("no_figures")

RECIPE = """
probe: {kind: digits, folder: "${data}/digits", count: 24, size: 64}
model:
  factory: ${here}/network.py:Small
  input_size: 32
  snapshots:
    - {name: first, step: 0, seed: 0, metrics: {accuracy: 0.1}}
    - {name: second, step: 5, seed: 1, metrics: {accuracy: 0.5}}
layers: [first, second]
dissect: {fractions: [0.005, 0.1]}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    from dissect_xr.probe.digits.write import write_digits

    write_digits(folder / "digits", images=24, size=64)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, digits: Path) -> list[str]:
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return [str(tmp_path / "recipe.yaml"), "--set", f"data={digits}", "--out", str(tmp_path / "run")]


def counts(folder: Path) -> xr.Dataset:
    from dissect_xr.analysis.results import open_dissection

    return open_dissection(str(folder / "dissection.zarr")).load()


def test_run_prints_a_table_and_leaves_results_and_figures(
    recipe: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    no_figures: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figures, "save_figures", no_figures)
    assert call("run", *recipe, "--quiet") == 0
    printed = capsys.readouterr().out
    for word in ("first", "second", "detectors", "by_unit", "by_category", "fraction 0.005", "fraction 0.1"):
        assert word in printed
    results = counts(tmp_path / "run")
    assert results.sizes["snapshot"] == 2
    assert results["accuracy"].values.tolist() == [0.1, 0.5]
    assert results["step"].values.tolist() == [0, 5]
    assert {path.suffix for path in (tmp_path / "run" / "figures").iterdir()} == {".png"}
    assert (tmp_path / "run" / "recipe.yaml").exists()


def test_stages_one_by_one_equal_a_run_on_processes(recipe: list[str], tmp_path: Path) -> None:
    for stage in ("probe", "extract", "dissect"):
        assert call(stage, *recipe, "--quiet") == 0
    other = [*recipe[:-1], str(tmp_path / "other")]
    assert call("run", *other, "--quiet", "--workers", "2", "--set", "activations.threads=1") == 0
    one, two = counts(tmp_path / "run"), counts(tmp_path / "other")
    xr.testing.assert_identical(one.drop_attrs(), two.drop_attrs())


def test_a_second_run_does_nothing_again(
    recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if "zarr" in str(p) and p.is_file()}
    capsys.readouterr()
    assert call("run", *recipe) == 0
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if "zarr" in str(p) and p.is_file()}
    assert after == before
    assert "activations" not in capsys.readouterr().err


def test_keep_none_drops_activations_and_resumes_without_them(recipe: list[str], tmp_path: Path) -> None:
    assert call("run", *recipe, "--quiet", "--set", "activations.keep=none") == 0
    url = tmp_path / "run" / "activations.zarr"
    left = {path.relative_to(url).as_posix() for path in url.rglob("c.*")}
    assert left == {"image/c.0"}, "names of the images, which the next snapshot needs"
    first = counts(tmp_path / "run")
    assert call("run", *recipe, "--quiet", "--set", "activations.keep=none") == 0
    xr.testing.assert_identical(first, counts(tmp_path / "run"))
    assert {path.relative_to(url).as_posix() for path in url.rglob("c.*")} == left


def executed(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """(function, snapshot) -> blocks given to the threads from now on; looking at a model's layers is none."""
    found: Counter[tuple[str, str]] = Counter()
    real = _ThreadStream.add

    def add(self: _ThreadStream, tag: Any, function: Any, *args: Any) -> None:
        called = [part for part in (function, *args) if callable(part)][-1]
        task = getattr(args[-1], "wanted", args[-1])
        at = getattr(task, "layer", task)
        if isinstance(at, Layer | ExtractTask | IngestTask):
            found[called.__name__, getattr(at, "snapshot", "")] += 1
        real(self, tag, function, *args)

    monkeypatch.setattr(_ThreadStream, "add", add)
    return found


PASSES = {"small": {"dissect_small"}, "large": {"sample_bound", "histogram_block", "count_block"}}
"""Layers -> functions of the tasks that dissect them."""


@pytest.fixture(params=SIZES)
def layers(request: pytest.FixtureRequest) -> Iterator[str]:
    """Small layers, and layers that are dissected as large ones are."""
    with layers_are(request.param):
        yield request.param


@pytest.mark.parametrize("keep", ["dense", "tail", "none"])
def test_only_a_snapshot_added_later_is_computed(
    recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, layers: str
) -> None:
    blocks = executed(monkeypatch)
    arguments = [*recipe, "--quiet", "--set", f"activations.keep={keep}"]
    assert call("run", *arguments) == 0
    assert {function for function, _ in blocks} == {"ingest_block", "extract_block"} | PASSES[layers]
    first = {(function, "third"): number for (function, name), number in blocks.items() if name == "first"}
    folders = [tmp_path / "run" / part for part in ("probe.zarr", "activations.zarr", "dissection.zarr", "markers")]
    old = {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*") if p.is_file()}
    blocks.clear()
    text = Path(recipe[0]).read_text()
    Path(recipe[0]).write_text(text.replace("layers:", "    - {name: third, step: 9, seed: 2}\nlayers:"))
    assert call("run", *arguments) == 0
    assert blocks == first  # as many as a snapshot took before, and none of the two that were there
    assert {p: p.stat().st_mtime_ns for p in old} == old
    assert counts(tmp_path / "run")["snapshot"].values.tolist() == ["first", "second", "third"]


def test_dry_run_plans_every_stage_and_writes_nothing(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe, "--dry-run") == 0
    printed = capsys.readouterr().out
    for stage in ("probe", "activations first", "dissection first", "activations second", "dissection second"):
        assert stage in printed
    assert not (tmp_path / "run").exists()


def planned(recipe: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Stage -> objects, as `--dry-run` prints them."""
    capsys.readouterr()
    assert call("run", *recipe, "--dry-run") == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    return {row[0]: int(row[3].replace(",", "")) for row in rows if row}


@pytest.mark.usefixtures("layers")
@pytest.mark.parametrize("keep", ["dense", "tail", "both"])
def test_a_dry_run_says_how_many_objects_each_stage_writes(
    recipe: list[str], keep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of fractions so small that no tail takes half as much as its layer, which would then be kept whole.
    recipe = [*recipe, "--set", f"activations.keep={keep}", "--set", "dissect.fractions=[0.002, 0.004]"]
    plan = planned(recipe, capsys)
    assert call("run", *recipe, "--quiet") == 0
    written: Counter[str] = Counter()
    for url in urls(str(tmp_path / "run")):
        stage = Path(url).stem
        for key in [*objects.sizes(url), *store.markers(url)]:
            # What the snapshots share is written with the first of them.
            snapshot = "second" if key.startswith("second/") else "first"
            written[stage if stage == "probe" else f"{stage} {snapshot}"] += 1
    assert plan == written


def test_a_plan_is_of_what_is_not_finished(recipe: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    whole = planned(recipe, capsys)
    assert list(whole) == ["probe", *(f"{stage} {name}" for name in ("first", "second") for stage in STAGES)]
    one = [*recipe, "--set", "model.snapshots=[{name: second, step: 5, seed: 1, metrics: {accuracy: 0.5}}]"]
    assert call("run", *one, "--quiet") == 0
    assert list(planned(one, capsys)) == ["probe"]
    left = planned(recipe, capsys)
    assert list(left) == ["probe", "activations first", "dissection first"]
    assert left["activations first"] == whole["activations second"], "the names of the images are there"
    assert left["dissection first"] == whole["dissection second"]


@pytest.mark.parametrize(
    "changed", ["step: 6, seed: 1, metrics: {accuracy: 0.5}", "step: 5, seed: 1, metrics: {accuracy: 0.6}"]
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_finished_snapshot_keeps_its_step_and_metrics(
    recipe: list[str], changed: str, dry: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one = [*recipe, "--quiet", "--set"]
    assert call("run", *one, "model.snapshots=[{name: second, step: 5, seed: 1, metrics: {accuracy: 0.5}}]") == 0
    capsys.readouterr()
    assert call("run", *one, f"model.snapshots=[{{name: second, {changed}}}]", *dry) == 2
    said = capsys.readouterr().err
    assert "snapshot second is stored with {'step': 5, 'metrics': {'accuracy': 0.5}}, the recipe says" in said
    assert "Traceback" not in said


STAGES = ("activations", "dissection")
"""Of each snapshot."""


FINISHED = """
import sys

from dissect_xr.cli.main import main

try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code
assert not [name for name in sys.modules if name.partition(".")[0] == "torch" or "network" in name.split("_")]
"""


@pytest.mark.parametrize("keep", ["dense", "tail", "none"])
def test_a_finished_run_loads_no_model_and_not_even_torch(recipe: list[str], keep: str) -> None:
    arguments = ["run", *recipe, "--quiet", "--set", f"activations.keep={keep}"]
    assert call(*arguments) == 0
    for options in ([], ["--dry-run"]):
        again = [sys.executable, "-c", FINISHED, *arguments, *options]
        subprocess.run(again, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_weights_that_are_gone_are_named_though_the_run_is_finished(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    sys.path.insert(0, str(tmp_path))
    try:
        import network
    finally:
        sys.path.remove(str(tmp_path))
    torch.save(network.Small().state_dict(), tmp_path / "weights.pt")
    arguments = [*recipe, "--quiet", "--set", f"model.snapshots=[{{name: one, weights: {tmp_path / 'weights.pt'}}}]"]
    assert call("run", *arguments) == 0
    (tmp_path / "weights.pt").unlink()
    assert call("run", *arguments) == 2
    assert "weights.pt: there is no such file; " in capsys.readouterr().err


def test_workers_beside_a_scheduler_are_expected_and_not_started() -> None:
    assert _pool(8, 2, None, "1GiB") == {"workers": 8, "gpus": 2, "memory": 2**30}
    cluster = {"scheduler": "tcp://a:1", "memory": 2**30}
    assert _pool(8, 2, "tcp://a:1", "1GiB") == cluster | {"expect": 8, "expect_gpus": 2}
    assert _pool(None, 0, "tcp://a:1", "1GiB") == cluster | {"expect": None, "expect_gpus": 0}


def test_what_cannot_fit_is_refused_before_anything_is_written(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dissect_xr.cli.plan import dry_run

    assert call("run", *recipe, "--quiet", "--set", "activations.budget=1000") == 2
    assert "the budget is" in capsys.readouterr().err
    monkeypatch.setattr(dry_run, "_free", lambda out: 10)
    assert call("run", *recipe, "--dry-run") == 2
    assert "activations.keep: tail or none" in capsys.readouterr().err
    monkeypatch.setattr(dry_run, "_free", lambda out: None)
    monkeypatch.setattr(dry_run, "memory_limit", lambda: 2**20)
    assert call("run", *recipe, "--dry-run") == 2
    assert "this machine has" in capsys.readouterr().err
    assert not (tmp_path / "run" / "probe.zarr").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "model.factory=nowhere.py:Net"], "nowhere.py"),
        (["--set", "model.factory=${here}/network.py:Missing"], "Missing"),
        (["--set", "layers=[conv*]"], "first"),
        (["--set", "layers=[head]"], "head"),
        (["--set", "dissect.fractions=[1.5]"], "1.5"),
        (["--set", "dissect.fractions=[0.1, 0.1]"], "distinct"),
        (["--set", "probe.images.split=test"], "no split"),
        (["--set", "probe.categories=[sound]"], "sound"),
        (["--set", "model.snapshots.0.weights=none.pt"], "none.pt"),
        (["--set", "probe.kind=folder"], "probe"),
        (["--memory", "lots"], "512MiB"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    recipe: list[str], change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe, "--quiet", *change) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_an_output_that_holds_something_else_is_refused(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    assert call("run", *recipe) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_other_parameters_under_a_run_are_refused_with_the_difference(
    recipe: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe, "--quiet") == 0
    assert call("run", *recipe, "--quiet", "--set", "dissect.domain=all") == 2
    assert "domain was 'annotated', is 'all'" in capsys.readouterr().err
    assert call("run", *recipe, "--quiet", "--set", "model.snapshots.0.seed=7") == 2
    assert "weights_sha256 was" in capsys.readouterr().err


def test_info_and_export(recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", *recipe, "--quiet") == 0
    capsys.readouterr()
    run = tmp_path / "run"
    for name, words in (
        ("probe.zarr", ["24 images", "object: ", "share"]),
        ("activations.zarr", ["first", "6", "32 x 32", "float16"]),
        ("dissection.zarr", ["detectors", "top concepts"]),
    ):
        assert call("info", str(run / name)) == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in words), printed
    assert call("export", str(run / "dissection.zarr"), "--to", str(tmp_path / "units.csv")) == 0
    lines = (tmp_path / "units.csv").read_text().splitlines()
    assert lines[0].startswith("snapshot,step,fraction,unit,layer,channel,concept")
    assert len(lines) == 1 + 2 * 2 * 12
    to = ["--to", str(tmp_path / "units.parquet"), "--format", "parquet", "--quiet"]
    assert call("export", str(run / "dissection.zarr"), *to) == 0
    assert len(pd.read_parquet(tmp_path / "units.parquet")) == 2 * 2 * 12
    to = ["--to", str(tmp_path / "second.csv"), "--format", "netdissect-csv"]
    assert call("export", str(run / "dissection.zarr"), *to) == 2
    one = ["--snapshot", "second", "--layer", "second", "--fraction", "0.1"]
    assert call("export", str(run / "dissection.zarr"), *to, *one) == 0
    assert (tmp_path / "second.csv").read_text().startswith("unit,category,label,score")
    assert call("info", str(tmp_path)) == 2


def test_the_installed_command_shows_no_traceback_unless_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dissect_xr", "info", str(tmp_path / "nothing.zarr")]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (plain.returncode, "Traceback" in plain.stderr) == (2, False)
    assert "expected a store" in plain.stderr
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(("text", "size"), [("512MiB", 2**29), ("2 GB", 2 * 10**9), ("1.5GiB", 3 * 2**29)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-5GB", "1 KiB", "5 parsecs", "nan GB", "inf GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(DissectError, match="expected"):
        parse_bytes(text)


def test_a_store_that_does_not_answer_is_no_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(path: str, *, show: bool) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("dissect_xr.store.verify.verify", verify)
    assert call("verify", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "a store did not answer: [Errno 104] Connection reset by peer" in said
    assert "give the same command again" in said
