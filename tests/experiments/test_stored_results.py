"""What is finished of an experiment is kept, and nothing else: resumed, refused, repaired."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from planted import CLASSES, network, write_colors

from dissect_xr import store
from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.experiments.ablation import Ablation, ablation, open_ablation
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.replay import passes
from dissect_xr.experiments.results import experiment_url, finished_experiments, open_result
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Threads
from dissect_xr.store.repair import repair
from dissect_xr.store.verify import verify

PASSES = {"means": 3, "single-ranked": 3, "single-measured": 3, "greedy-2": 3, "curves": 3}
"""Batches of 4 among 9 images."""


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    return write_colors(tmp_path / "colors")


def run(table: Path, out: Path, **change: Any) -> xr.Dataset:
    labelled = class_table(table, folder=table.parent, outputs=CLASSES)
    asked = Ablation(**({"layer": "seen", "snapshot": "s", "sizes": (1, 2), "greedy": 2, "level": "mean"} | change))
    url = experiment_url(str(out), "causal")
    return ablation(url, RunStores.of(out), labelled, network(), asked, pool=Threads(1), show=False).load()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Pass -> tasks done from now on."""
    found: Counter[str] = Counter()
    for name in ("predict_block", "mean_block"):
        real = getattr(passes, name)

        def counted(task: Any, real: Any = real) -> None:
            real(task)
            found[task.path] += 1

        monkeypatch.setattr(passes, name, counted)
    return found


def test_a_finished_experiment_is_opened_and_not_done_again(colors: Path, tmp_path: Path, done: Counter[str]) -> None:
    first = run(colors, tmp_path)
    assert dict(done) == PASSES
    done.clear()
    xr.testing.assert_identical(run(colors, tmp_path), first)
    assert not done
    url = experiment_url(str(tmp_path), "causal")
    xr.testing.assert_identical(open_ablation(url).load(), first)
    assert finished_experiments(str(tmp_path)) == {"causal": "ablation"}
    assert verify(url, show=False)[0] == []


def test_a_run_that_stopped_goes_on_where_it_was(
    colors: Path, tmp_path: Path, done: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(colors, tmp_path / "whole")
    done.clear()
    real = passes.predict_block

    def failing(task: Any) -> None:
        if task.key == "single-measured/blocks/4-8":
            raise DissectError("the disk is on fire")
        real(task)

    with monkeypatch.context() as patch:
        patch.setattr(passes, "predict_block", failing)
        with pytest.raises(BlocksFailed, match=r"single-measured, images val-green-0.png to val-blue-0.png.*on fire"):
            run(colors, tmp_path)
    assert dict(done) == {"means": 3, "single-ranked": 3, "single-measured": 2}
    with pytest.raises(DissectError, match="expected a finished experiment, found none"):
        open_ablation(experiment_url(str(tmp_path), "causal"))
    done.clear()
    xr.testing.assert_identical(run(colors, tmp_path), whole)
    assert dict(done) == {"single-measured": 1, "greedy-2": 3, "curves": 3}


@pytest.mark.parametrize(
    ("key", "again"),
    [
        ("means/mean/c.1.0", {"means": 1}),
        ("single-ranked/prediction/c.1.0", {"single-ranked": 1}),
        ("single-ranked/ablated/c.0.0", {}),
        ("greedy-2/zarr.json", {}),
        ("curves/prediction/c.0.0", {"curves": 1}),
        ("true_positives_without/c.0.0.0", {}),
        ("zarr.json", {}),
    ],
)
def test_what_is_damaged_is_done_again_and_nothing_else(
    key: str, again: dict[str, int], colors: Path, tmp_path: Path, done: Counter[str]
) -> None:
    whole = run(colors, tmp_path)
    url = experiment_url(str(tmp_path), "causal")
    damaged = Path(url, key)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    assert [damage.where for damage in repair(url, full=True, show=False)] == [str(damaged)]
    done.clear()
    xr.testing.assert_identical(run(colors, tmp_path), whole)
    assert dict(done) == again
    assert verify(url, show=False)[0] == []


@pytest.mark.parametrize("key", ["created", "curves/created", "greedy-2/done", "single-measured/blocks/0-4", "done"])
def test_a_lost_marker_costs_no_more_than_its_block(key: str, colors: Path, tmp_path: Path, done: Counter[str]) -> None:
    whole = run(colors, tmp_path)
    url = experiment_url(str(tmp_path), "causal")
    store.unmark(url, key)
    repair(url, show=False)  # as a run does first
    done.clear()
    xr.testing.assert_identical(run(colors, tmp_path), whole)
    assert sum(done.values()) == ("blocks" in key)


def test_a_pass_that_was_asked_something_else_is_done_anew(colors: Path, tmp_path: Path, done: Counter[str]) -> None:
    """As after damage to an earlier pass that, computed again on another machine, orders units in another way."""
    whole = run(colors, tmp_path)
    url = experiment_url(str(tmp_path), "causal")
    for key in [key for key in store.markers(url, "curves") if key != "curves/done"]:
        marker = store.marker(url, key)
        assert marker is not None
        store.mark(url, key, fingerprint="of other sets", written=marker["objects"])
    store.unmark(url, "curves/done")
    store.unmark(url, "done")
    done.clear()
    xr.testing.assert_identical(run(colors, tmp_path), whole)
    assert dict(done) == {"curves": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "relu"}, "layer was 'seen', is 'relu'"),
        ({"sizes": (1,)}, r"sizes was \[1, 2\], is \[1\]"),
        ({"level": "zero", "greedy": 0}, "greedy was 2, is 0; level was 'mean', is 'zero'"),
    ],
)
def test_other_inputs_are_refused_with_every_difference(
    change: dict[str, Any], message: str, colors: Path, tmp_path: Path
) -> None:
    run(colors, tmp_path)
    with pytest.raises(DissectError, match=rf"causal.zarr: holds an experiment from other inputs: {message}\. Give"):
        run(colors, tmp_path, **change)


def test_other_labels_are_refused(colors: Path, tmp_path: Path) -> None:
    run(colors, tmp_path)
    colors.write_text(colors.read_text().replace("train-red-0.png,red", "train-red-0.png,green"))
    with pytest.raises(DissectError, match=r"inputs: labels.labels_sha256 was '[0-9a-f]{64}', is '"):
        run(colors, tmp_path)


def test_a_result_of_another_kind_is_refused(colors: Path, tmp_path: Path) -> None:
    run(colors, tmp_path)
    with pytest.raises(DissectError, match="expected an experiment of the kind classes, found ablation"):
        open_result(experiment_url(str(tmp_path), "causal"), "classes")


def test_sets_that_take_too_much_memory_are_refused_before_anything_runs(colors: Path, tmp_path: Path) -> None:
    labelled = class_table(colors, folder=colors.parent, outputs=CLASSES)
    asked, pool = Ablation("seen", "s", greedy=2), Threads(1, memory=400)
    with pytest.raises(DissectError, match=r"ablation single-ranked, 5 sets of units.*--memory"):
        ablation(tmp_path / "a.zarr", RunStores.of(tmp_path), labelled, network(), asked, pool=pool, show=False)
