"""Failing writes and blocks, bad images: one clear error, the rest finished, a resume that does only what is left."""

import contextlib
import errno
import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest

pytest.importorskip("torch")

import runs
from folds import fold_tasks
from rich.console import Console

from dissect_xr.errors import BlocksFailed, DamagedError, DissectError, Failed, WriteError
from dissect_xr.parallel import retry
from dissect_xr.parallel.fold import Fold
from dissect_xr.parallel.pool import Threads, run_blocks
from dissect_xr.parallel.retry import attempt
from dissect_xr.plot import figures
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.store import objects
from dissect_xr.store.verify import verify

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images with labels."""
    folder = tmp_path_factory.mktemp("images")
    write_digits(folder / "digits", images=20, size=64)
    return folder / "digits"


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """Contents of the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs.call("run", *arguments(folder, images), "--out", str(folder / "run")) == 0
    return runs.contents(str(folder / "run"))


def arguments(folder: Path, images: Path, recipe: str = runs.RECIPE) -> list[str]:
    return [str(runs.write_recipe(folder / "recipe", recipe)), "--set", f"data={images}", "--quiet"]


# --- writes ---


@contextlib.contextmanager
def no_space_for(pattern: str, after: int = 0):
    """Writing fails for objects whose path holds `pattern`, all but the first `after`."""
    real, seen = objects.writing, []

    @contextlib.contextmanager
    def failing(url, key, nbytes):
        with real(url, key, nbytes):
            if pattern in objects.join(url, key):
                seen.append(key)
                if len(seen) > after:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield

    with patch.object(objects, "writing", failing):
        yield


PREPARED = {
    "metadata of the probe": ("probe.zarr/annotation/zarr.json", 0),
    "labels": ("probe.zarr/annotation/c", 1),
    "runs of labels": ("probe.zarr/run/c", 1),
    "marker of labels": ("markers/probe.zarr/blocks", 1),
    "end of the probe": ("markers/probe.zarr/done", 0),
    "names of the images": ("activations.zarr/image/c", 0),
    "root of activations": ("markers/activations.zarr/created", 0),
    "metadata of all layers' peaks": ("activations.zarr/first/mean/zarr.json", 0),
    "metadata of activations": ("activations.zarr/first/second/activation/zarr.json", 0),
    "activations": ("second/second/activation/c", 0),
    "peaks": ("activations.zarr/second/peak/c", 1),
    "marker of activations": ("markers/activations.zarr/first/blocks", 1),
    "end of a snapshot's activations": ("markers/activations.zarr/first/done", 0),
    "recipe": ("recipe.yaml", 0),
    "lock": ("/lock", 0),
}
DISSECTED = {
    "concepts of results": ("dissection.zarr/concept_name/c", 0),
    "root of results": ("markers/dissection.zarr/created", 0),
    "beginning of a snapshot's results": ("markers/dissection.zarr/first/created", 0),
    "metadata of results": ("dissection.zarr/first/first/dead/zarr.json", 0),
    "thresholds": ("dissection.zarr/first/first/threshold/c", 0),
    "counts": ("dissection.zarr/second/first/intersection/c", 0),
    "end of a layer's results": ("markers/dissection.zarr/first/second/done", 0),
    "end of a snapshot's results": ("markers/dissection.zarr/first/done", 0),
}
IN_STEPS = {
    "beginning of a layer's results": ("markers/dissection.zarr/first/second/created", 0),
    "marker of thresholds": ("first/second/threshold.json", 0),
    "marker of counts": ("markers/dissection.zarr/second/first/counts", 0),
}
"""What is written -> part of its path, and how many such writes succeed."""
WRITES = [
    *(pytest.param("small", *where, id=name) for name, where in (PREPARED | DISSECTED).items()),
    *(pytest.param("large", *where, id=f"{name}, in steps") for name, where in (DISSECTED | IN_STEPS).items()),
]


@pytest.mark.parametrize(("layers", "pattern", "after"), WRITES)
def test_a_write_that_fails_is_one_error_and_leaves_nothing_half_marked(
    images, undisturbed, tmp_path, layers, pattern, after, capsys
):
    given = [*arguments(tmp_path, images), "--out", str(tmp_path / "run")]
    with runs.layers_are(layers), no_space_for(pattern, after):
        assert runs.call("run", *given) == 2
    said = capsys.readouterr().err
    assert pattern in said
    assert "bytes: No space left on device" in said
    assert "Traceback" not in said
    assert said.count("cannot write") == 1
    for url in runs.urls(str(tmp_path / "run")):
        if objects.sizes(url):
            damages = [str(damage) for damage in verify(url)[0] if "nothing in it" not in str(damage)]
            assert damages == []
    assert runs.call("run", *given) == 0
    assert runs.contents(str(tmp_path / "run")) == undisturbed
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("NOT RUN: mounting a tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("layers", runs.SIZES)
def test_a_full_disk_is_named_and_space_is_all_that_is_needed(
    images, undisturbed, tmp_path, small_disk, layers, capsys, no_figures, monkeypatch
):
    from dissect_xr.cli.plan import dry_run

    monkeypatch.setattr(figures, "save_figures", no_figures)  # a run draws them on the full disk, too

    given = [*arguments(tmp_path, images), "--out", str(small_disk / "run")]
    codes, ballast = [], small_disk / "ballast"
    refused = patch.object(dry_run, "_free", lambda out: None)  # else the run is refused before it starts
    with refused, runs.layers_are(layers):
        for free in (64, 160, 256, 384):
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                for _ in range(2048 // 4):
                    file.write(bytes(4096))
                    file.flush()
            os.truncate(ballast, max(0, ballast.stat().st_size - free * 1024))
            codes.append(runs.call("run", *given))
        ballast.unlink()
        assert runs.call("run", *given) == 0
    assert codes[0] == 2
    said = capsys.readouterr().err
    assert f"{small_disk}/run" in said
    assert "No space left on device" in said
    assert "bytes are free there" in said
    assert runs.contents(str(small_disk / "run")) == undisturbed
    assert verify(str(small_disk / "run"))[0] == []


def test_a_place_without_rights_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/key: cannot write 3 bytes: Not a directory"):
        objects.write(str(tmp_path / "file"), "key", b"abc")


# --- blocks ---


def rows(text: str) -> set[str]:
    """Lines, each with single spaces between its words."""
    return {" ".join(line.split()) for line in text.splitlines()}


def sometimes(task: tuple[Path, int, int]) -> int:
    """Fails as often as the task says."""
    folder, number, failures = task
    tries = folder / str(number)
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if len(tries.read_text()) <= failures:
        raise RuntimeError(f"try {len(tries.read_text())}")
    return number


def test_a_block_is_tried_three_times_and_the_rest_finishes(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "PAUSE", 0.0)
    results = []
    running = run_blocks(Threads(2), sometimes, [(tmp_path, n, n) for n in range(4)])
    with pytest.raises(BlocksFailed, match=r"1 blocks failed.*\n.*failed 3 times, RuntimeError: try 3") as caught:
        results.extend(result for _, result in running)
    assert sorted(results) == [0, 1, 2]
    assert len(caught.value.failures) == 1
    assert [len((tmp_path / str(n)).read_text()) for n in range(4)] == [1, 2, 3, 3]


def test_what_the_user_can_mend_is_not_tried_again(tmp_path):
    calls = []

    def wrong(task):
        calls.append(task)
        raise DissectError("mend it")

    with pytest.raises(BlocksFailed, match="2 blocks failed"):
        list(run_blocks(Threads(1), wrong, [1, 2]))
    assert calls == [1, 2]


def test_nothing_more_is_started_after_a_write_failed():
    started = []

    def full(task):
        started.append(task)
        raise WriteError("disk full")

    with pytest.raises(WriteError, match=r"^disk full$"):
        list(run_blocks(Threads(1), full, range(100)))
    assert len(started) <= 4


def test_a_failing_fold_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(retry, "PAUSE", 0.0)

    def leaf(task):
        if task == (1, 3):
            raise RuntimeError("poison")
        return task[1]

    folds = [Fold(n, [(n, i) for i in range(20)], leaf, lambda *p: sum(p), lambda key, part: part) for n in range(3)]
    found = {}
    with pytest.raises(BlocksFailed, match="poison") as caught:
        found.update(iter(fold_tasks(Threads(2), folds)))
    assert found == {0: 190, 2: 190}
    assert len(caught.value.failures) == 1


def test_a_failure_passes_through_merges_and_is_not_computed_with():
    failed = Failed("lost")
    assert attempt(lambda *parts: 1 / 0, 3, failed) is failed


def test_many_failures_are_counted_and_some_named():
    from dissect_xr.cli.outcome import NAMED, unfinished

    run = Mock(probe_url="memory://p", activations_url="memory://a", dissection_url="memory://d", snapshots=[])
    failures = [Failed("...", f"counts of a/[b], images number {n} to {n}") for n in range(NAMED + 7)]
    console = Console(width=120)
    with (
        patch("dissect_xr.store.marker", return_value=None),
        patch("dissect_xr.store.markers", return_value=set()),
    ):
        table = unfinished(run, failures)
    with console.capture() as shown:
        console.print(table)
    assert rows(shown.get()) >= {"labels not begun", "counts of a/[b] 10 images number 0 to 0", "and 7 more"}


def test_errors_travel_between_processes():
    import pickle

    for error in (BlocksFailed([Failed("a"), Failed("b")]), WriteError("w"), DamagedError("d", "store", "key")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


def test_a_poisoned_block_is_named_with_its_images_and_a_resume_does_just_it(
    images, undisturbed, tmp_path, capsys, monkeypatch
):
    from dissect_xr.activations import extract

    monkeypatch.setattr(retry, "PAUSE", 0.0)
    given = [*arguments(tmp_path, images), "--out", str(tmp_path / "run")]
    real, done = extract.extract_block, []

    def poisoned(task):
        if task.key == "first/blocks/16-20":
            raise RuntimeError("device lost")
        done.append(task.key)
        real(task)

    with patch("dissect_xr.activations.extract.extract_block", poisoned):
        assert runs.call("run", *given) == 3
    said = capsys.readouterr().err
    assert "1 blocks failed" in said
    assert "failed 3 times, RuntimeError: device lost" in said
    assert "activations of first, images " in said
    assert rows(said) >= {
        "labels 2 of 2 blocks",
        "activations of first 1 of 2 blocks 1 images digits/00016.png to digits/00019.png (4)",
        "thresholds of first 0 of 2 layers",
        "counts of first 0 of 2 layers",
        "second finished",
    }
    assert set(done) == {"first/blocks/0-16", "second/blocks/0-16", "second/blocks/16-20"}
    again = []
    with patch("dissect_xr.activations.extract.extract_block", lambda task: again.append(task.key) or real(task)):
        assert runs.call("run", *given) == 0
    assert again == ["first/blocks/16-20"]
    assert runs.contents(str(tmp_path / "run")) == undisturbed


POISONED = {
    "small": {
        "dissect.dissect_small": ("counts", "images number 0 to 19", 1),
    },
    "large": {
        "passes.sample_bound": ("thresholds", "units 0 to 5", 1),
        "passes.histogram_block": ("thresholds", "images number 0 to 15, units 0 to 5", 1),
        "passes.count_block": ("counts", "images number 0 to 15, units 0 to 5", 2),
    },
}
"""Layers -> function that fails -> what is said to fail, of what, and how many layers have thresholds then."""


@pytest.mark.parametrize("layers", runs.SIZES)
def test_a_poisoned_layer_does_not_keep_the_others_from_being_counted(
    images, undisturbed, tmp_path, layers, capsys, monkeypatch
):
    monkeypatch.setattr(retry, "PAUSE", 0.0)
    given = [*arguments(tmp_path, images), "--out", str(tmp_path / "run")]
    for name, (what, of, finished) in POISONED[layers].items():
        real = pkgutil.resolve_name(f"dissect_xr.dissection.{name}")

        def poisoned(task, real=real):
            first = not hasattr(task, "block") or task.block.images[0] == 0
            layer = task.wanted.layer if hasattr(task, "wanted") else task.layer
            if layer.path == "first/second" and first:
                raise RuntimeError("poison")
            return real(task)

        with patch(f"dissect_xr.dissection.{name}", poisoned), runs.layers_are(layers):
            assert runs.call("run", *given) == 3
        done = {str(path.parent.relative_to(tmp_path / "run/markers/dissection.zarr")) for path in
                (tmp_path / "run/markers/dissection.zarr").rglob("done.json")}  # fmt: skip
        assert done == {"first/first", "second", "second/first", "second/second"}
        assert rows(capsys.readouterr().err) >= {
            "activations of first 2 of 2 blocks",
            f"thresholds of first {finished} of 2 layers",
            "counts of first 1 of 2 layers",
            f"{what} of first/second 1 {of}",
            "second finished",
        }
    assert runs.call("run", *given) == 0
    assert runs.contents(str(tmp_path / "run")) == undisturbed


@pytest.mark.parametrize(("layers", "name"), [(size, name) for size in POISONED for name in POISONED[size]])
def test_what_cannot_be_read_once_is_tried_again(images, undisturbed, tmp_path, layers, name, monkeypatch):
    monkeypatch.setattr(retry, "PAUSE", 0.0)
    real, tries = pkgutil.resolve_name(f"dissect_xr.dissection.{name}"), []

    def once(task):
        tries.append(task.what)
        if len(tries) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(task)

    with patch(f"dissect_xr.dissection.{name}", once), runs.layers_are(layers):
        assert runs.call("run", *arguments(tmp_path, images), "--out", str(tmp_path / "run")) == 0
    assert max(map(tries.count, tries)) == 2
    assert runs.contents(str(tmp_path / "run")) == undisturbed


# --- the way to a store ---


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError("reset by peer"), True),
        (TimeoutError("timed out"), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (FileNotFoundError(), False),
        (ValueError("HTTP error"), False),
    ],
)
def test_transport_errors_are_told_from_damage(error, passes):
    assert objects.is_transport(error) == passes


def test_so_are_those_of_object_stores():
    exceptions = pytest.importorskip("obstore.exceptions")
    performing = "Generic S3 error: Error performing GET http://127.0.0.1/b/a in 500.384µs - "
    for said, passes in (
        (f"{performing}HTTP error: error sending request", True),
        ("Generic S3 error: HTTP error: request or response body error", True),
        (f"{performing}Server returned non-2xx status code: 503 Service Unavailable:", True),
        (f"{performing}Server returned non-2xx status code: 429 Too Many Requests:", True),
        (f"{performing}Server returned non-2xx status code: 416 Range Not Satisfiable:", False),
        ("Generic InMemory error: Invalid range: Wanted range starting at 5, but object was only 3 bytes long", False),
    ):
        assert objects.is_transport(exceptions.GenericError(said)) == passes, said


def test_a_server_that_cannot_be_reached_is_the_way_to_a_store():
    obstore = pytest.importorskip("obstore")
    from obstore.store import S3Store

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        given = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}, "skip_signature": True}
        store = S3Store("bucket", endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}", **given)
        with pytest.raises(obstore.exceptions.GenericError) as caught:
            obstore.get(store, "key")
    assert objects.is_transport(caught.value)


# --- bad images ---


def test_bad_images_are_skipped_recorded_and_left_out_of_all_counts(images, tmp_path, capsys):
    import shutil

    bad = tmp_path / "bad"
    shutil.copytree(images, bad)
    lines = (bad / "index.csv").read_text().splitlines()
    names = [line.split(",")[0] for line in lines[1:]]
    (bad / "images" / names[3]).write_bytes(b"no image")
    (bad / "images" / names[17]).unlink()
    given = arguments(tmp_path, bad)
    assert runs.call("run", *given, "--out", str(tmp_path / "run")) == 3
    said = capsys.readouterr().err
    assert names[3] in said
    assert names[17] in said
    assert {"first not begun", "second not begun"} <= rows(said)
    assert "labels 0 of 2 blocks 2 images" in " ".join(said.split())
    skipping = [*given, "--set", "skip_bad_images=true", "--out", str(tmp_path / "skipped")]
    assert runs.call("run", *skipping) == 0
    assert runs.call("run", *skipping) == 0
    good = tmp_path / "good"
    shutil.copytree(images, good)
    kept = [line for line in lines if line.split(",")[0] not in (names[3], names[17])]
    (good / "index.csv").write_text("\n".join(kept) + "\n")
    assert runs.call("run", *arguments(tmp_path / "g", good), "--out", str(tmp_path / "wanted")) == 0
    got, wanted = runs.contents(str(tmp_path / "skipped")), runs.contents(str(tmp_path / "wanted"))
    skipped = got["probe.zarr:"]["parameters"].pop("skipped")
    assert {image for image, _ in skipped} == {names[3], names[17]}
    for name in wanted:
        if isinstance(wanted[name], tuple):
            assert got[name] == wanted[name], name
    capsys.readouterr()
    assert runs.call("info", str(tmp_path / "skipped" / "probe.zarr")) == 0
    assert "2 images skipped" in capsys.readouterr().out
    assert np.prod(got["probe.zarr:annotation"][1][:1]) == 18
