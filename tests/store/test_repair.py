"""What rots while a run needs it is made again unasked: just the block concerned, the same bits, and never for ever."""

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("torch")

import runs

from dissect_xr import store
from dissect_xr.activations import extract
from dissect_xr.dissection import cut, dissect, thresholds
from dissect_xr.dissection.layers import open_layer
from dissect_xr.dissection.passes import threshold_blocks
from dissect_xr.errors import BlocksFailed, DamagedError, DissectError, Failed
from dissect_xr.parallel import retry
from dissect_xr.plot import figures
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.store import objects, reader, repair
from dissect_xr.store.repair import mended
from dissect_xr.store.verify import verify


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take longer than everything else."""
    monkeypatch.setattr(figures, "save_figures", lambda ds, folder: ())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(arguments, a finished run, the same one before its dissection); no test may change them."""
    folder = tmp_path_factory.mktemp("finished")
    write_digits(folder / "digits", images=20, size=64)
    arguments = [str(runs.write_recipe(folder / "recipe")), "--set", f"data={folder / 'digits'}", "--quiet"]
    for command in ("probe", "extract"):
        assert runs.call(command, *arguments, "--out", str(folder / "begun")) == 0
    assert runs.call("run", *arguments, "--out", str(folder / "run")) == 0
    return arguments, folder / "run", folder / "begun"


@pytest.fixture
def run(finished, tmp_path):
    """(arguments, output directory) of a copy of the finished run."""
    arguments, out, _ = finished
    shutil.copytree(out, tmp_path / "run")
    return [*arguments, "--out", str(tmp_path / "run")], tmp_path / "run"


@pytest.fixture
def begun(finished, tmp_path):
    """(arguments, output directory) of a copy of the run that is finished but for its dissection."""
    arguments, _, out = finished
    shutil.copytree(out, tmp_path / "run")
    return [*arguments, "--out", str(tmp_path / "run")], tmp_path / "run"


def rot(path: Path) -> None:
    """Flip a bit in the middle: the size stays what it was."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def marked(out: Path) -> dict[str, int]:
    """Marker -> when it was written; those of ends, which rest on others, left out."""
    found = {
        path.relative_to(out / "markers").with_suffix("").as_posix(): path for path in out.rglob("markers/**/*.json")
    }
    return {key: path.stat().st_mtime_ns for key, path in found.items() if not key.endswith("/done")}


def same(out: Path, finished) -> bool:
    return verify(str(out))[0] == [] and runs.contents(str(out)) == runs.contents(str(finished[1]))


NEEDED = [
    ("activations.zarr/first/first/activation/c/0/0/0/0", "activations.zarr/first/blocks/0-16"),
    ("activations.zarr/second/second/activation/c/1/0/0/0", "activations.zarr/second/blocks/16-20"),
    ("activations.zarr/first/second/peak/c/1/0", "activations.zarr/first/blocks/16-20"),
    ("activations.zarr/first/first/image/c/0", "activations.zarr/first/created"),
    ("activations.zarr/second/second/zarr.json", "activations.zarr/second/created"),
    ("activations.zarr/first/first/peak/zarr.json", "activations.zarr/first/created"),
    ("probe.zarr/annotation/c/1/0/0/0", "probe.zarr/blocks/16-20"),
    ("probe.zarr/whole_image/c/0/0", "probe.zarr/blocks/0-16"),
    ("probe.zarr/annotated/c/0/0", "probe.zarr/blocks/0-16"),
    ("probe.zarr/image/c/0", "probe.zarr/created"),
    ("probe.zarr/concept/c/0", "probe.zarr/created"),
    ("probe.zarr/concept_name/c/0", "probe.zarr/created"),
    ("probe.zarr/concept_category/c/0", "probe.zarr/created"),
    ("probe.zarr/category/c/0", "probe.zarr/created"),
    ("probe.zarr/concept_area/c/0", None),
    ("probe.zarr/category_area/c/0", None),
    ("probe.zarr/zarr.json", None),
    ("markers/probe.zarr/blocks/0-16.json", "probe.zarr/blocks/0-16"),
    ("markers/activations.zarr/first/second/done.json", None),
]
"""An object that a dissection reads, and the marker of the block that makes it; None for the end of a stage."""


@pytest.mark.parametrize(("pattern", "block"), NEEDED)
def test_what_a_dissection_reads_is_made_again(finished, begun, pattern, block, capsys):
    arguments, out = begun
    before = marked(out)
    rot(out / pattern)
    assert runs.call("run", *arguments) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "will be done again" in line]
    assert len(said) == 1
    assert str(out / pattern) in said[0]
    assert same(out, finished)
    after = marked(out)
    assert {key for key in before if after[key] != before[key]} == ({block} if block else set())


@pytest.mark.parametrize(
    ("pattern", "block"),
    [
        ("second/first/intersection/c/0/0/0", "second/first/counts/0-6"),
        ("first/second/unit_area/c/0/0/0", "first/second/counts/0-6"),
        ("first/first/dead/c/0/0", "first/first/counts/0-6"),
        ("first/first/concept_name/c/0", "first/first/created"),
    ],
)
def test_what_the_results_read_is_made_again(finished, run, pattern, block):
    arguments, out = run
    before = marked(out)
    rot(out / "dissection.zarr" / pattern)
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)
    after = marked(out)
    assert {key for key in before if after[key] != before[key]} == {f"dissection.zarr/{block}"}


MEANWHILE = [
    ("_counts", "dissection.zarr/first/first/threshold/c/0/0", "dissection.zarr/first/first/threshold"),
    ("_counts", "activations.zarr/second/first/activation/zarr.json", "activations.zarr/second/created"),
    ("_finish", "markers/dissection.zarr/first/first/counts/0-6.json", "dissection.zarr/first/first/counts/0-6"),
    ("_thresholds", "dissection.zarr/first/second/threshold/zarr.json", "dissection.zarr/first/second/created"),
]
"""Before which step of the first snapshot something rots, what, and the block that is done twice."""


@pytest.mark.parametrize(("step", "pattern", "block"), MEANWHILE)
def test_what_rots_while_the_run_is_under_way_is_made_again(finished, begun, step, pattern, block, monkeypatch):
    arguments, out = begun
    real, real_mark, written = getattr(dissect, step), store.mark, []

    def rotting(*args):
        if not written.count("rotten"):
            written.append("rotten")
            rot(out / pattern)
        return real(*args)

    def noting(url, key, **given):
        written.append(f"{Path(url).name}/{key}")
        real_mark(url, key, **given)

    monkeypatch.setattr(dissect, step, rotting)
    monkeypatch.setattr(store, "mark", noting)
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)
    since = written[written.index("rotten") :]
    redone = {key for key in since if key in written[: written.index("rotten")] or since.count(key) > 1}
    assert {key for key in redone if not key.endswith("/done")} <= {block}
    assert block in since


def test_only_what_rotted_is_extracted_and_read_again(finished, begun):
    arguments, out = begun
    rot(out / "activations.zarr/second/first/activation/c/0/0/0/0")
    rot(out / "activations.zarr/first/second/activation/c/1/0/0/0")
    rot(out / "probe.zarr/annotation/c/0/0/0/0")
    real, extracted = extract.extract_block, []
    with patch("dissect_xr.activations.extract.extract_block", lambda task: extracted.append(task.key) or real(task)):
        assert runs.call("run", *arguments) == 0
    assert sorted(extracted) == ["first/blocks/16-20", "second/blocks/0-16"]
    assert same(out, finished)


def test_on_processes_too(finished, begun, capsys):
    arguments, out = begun
    rot(out / "activations.zarr/first/first/activation/c/0/0/0/0")
    rot(out / "activations.zarr/second/second/peak/c/1/0")
    rot(out / "probe.zarr/annotation/c/0/0/0/0")
    assert runs.call("run", *arguments, "--workers", "2") == 0
    assert capsys.readouterr().err.count("will be done again") == 3
    assert same(out, finished)


def test_activations_that_are_dropped_once_counted_are_made_again_too(finished, run):
    arguments, out = run
    dropping = [*arguments, "--set", "keep_activations=none"]
    assert runs.call("run", *dropping) == 0
    rot(out / "dissection.zarr/first/first/intersection/c/0/0/0")
    assert runs.call("run", *dropping) == 0
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)


def test_what_rots_again_and_again_ends_with_a_message(begun, capsys):
    arguments, out = begun
    path, real, tries = out / "activations.zarr/second/first/activation/c/0/0/0/0", extract.extract_block, []

    def rotting(task):
        real(task)
        if task.key == "second/blocks/0-16":
            tries.append(task.key)
            rot(path)

    rot(path)
    with patch("dissect_xr.activations.extract.extract_block", rotting):
        assert runs.call("run", *arguments) == 2
    assert len(tries) == 1
    said = capsys.readouterr().err
    assert f"{path}: is damaged again, though this run has computed it again" in said
    assert "Traceback" not in said
    assert runs.call("run", *arguments) == 0


def test_a_block_that_fails_for_another_reason_is_still_reported(finished, begun, capsys, monkeypatch):
    from dissect_xr.dissection import passes

    monkeypatch.setattr(retry, "PAUSE", 0.0)
    arguments, out = begun
    rot(out / "activations.zarr/first/first/activation/c/0/0/0/0")
    real = passes.count_block

    def poisoned(task):
        if task.layer.path == "first/second":
            raise RuntimeError("poison")
        return real(task)

    with patch.object(passes, "count_block", poisoned):
        assert runs.call("run", *arguments) == 3
    said = capsys.readouterr().err
    assert said.count("will be done again") == 1
    assert "poison" in said
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)


def test_what_cannot_be_made_again_is_said(begun, capsys):
    arguments, out = begun
    rot(out / "probe.zarr/annotation/c/0/0/0/0")
    folder = next(word for word in arguments if word.startswith("data=")).removeprefix("data=")
    shutil.copytree(folder, out.parent / "elsewhere")
    arguments = [word.replace(folder, str(out.parent / "elsewhere")) for word in arguments]
    image = out.parent / "elsewhere" / "images" / str(store.read(str(out / "probe.zarr"), "image")[3])
    image.write_bytes(image.read_bytes()[:100])
    assert runs.call("run", *arguments) == 3
    said = capsys.readouterr().err
    assert f"{image}: damaged or truncated image" in said
    assert "Traceback" not in said


# --- what passes ---


def losing(monkeypatch, part: str, error: Exception, times: int) -> list[str]:
    """The first `times` reads of objects whose key holds `part` raise `error`; the keys of all that are read."""
    read: list[str] = []

    def lose(key):
        if part in key:
            read.append(key)
            if len(read) <= times:
                raise error

    class Losing(reader.VerifiedStore):
        async def get(self, key, *args, **given):
            lose(key)
            return await super().get(key, *args, **given)

        def get_sync(self, key, **given):
            lose(key)
            return super().get_sync(key, **given)

    monkeypatch.setattr(retry, "PAUSE", 0.0)
    monkeypatch.setattr(reader, "VerifiedStore", Losing)
    return read


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), TimeoutError("timed out")])
@pytest.mark.parametrize("part", ["/activation/c/", "/peak/zarr.json"])
def test_a_connection_that_is_lost_is_tried_again_and_nothing_is_looked_for(begun, part, error, monkeypatch):
    url = str(begun[1] / "activations.zarr")
    layer = open_layer(url, "first", "first")
    blocks = threshold_blocks(layer, cut.Limits(2**29, 2))[0]
    low = np.full(layer.shape[1], -thresholds.top_code(layer.itemsize))
    task = thresholds.HistogramTask(layer, blocks[0], 0, low, -low)
    wanted = thresholds.histogram_block(task)
    read = losing(monkeypatch, part, error, times=retry.ATTEMPTS - 1)
    found = retry.attempt(thresholds.histogram_block, task)
    assert [part.tolist() for part in found] == [part.tolist() for part in wanted]
    read.clear()
    losing(monkeypatch, part, error, times=99)
    lost = retry.attempt(thresholds.histogram_block, task)
    assert f"failed 3 times, {type(error).__name__}" in lost.message
    assert lost.damaged is None


def test_a_connection_that_the_run_itself_loses_is_tried_again(finished, begun, monkeypatch):
    arguments, out = begun
    monkeypatch.setattr(repair, "repair", lambda *given, **more: pytest.fail("nothing is damaged"))
    read = losing(monkeypatch, "/threshold/c/", ConnectionResetError("reset by peer"), times=2)
    assert runs.call("run", *arguments) == 0
    assert len(read) > 2
    assert same(out, finished)


# --- the loop itself ---


def damaged(url: str) -> DamagedError:
    return DamagedError(f"{url}/key: cannot be read.", url, "key")


def test_what_cannot_be_read_once_is_read_again(tmp_path):
    calls, told = [], []

    def work():
        calls.append(None)
        if len(calls) == 1:
            raise damaged(str(tmp_path / "store"))
        return "done"

    assert mended(work, told.append) == "done"
    assert (len(calls), told) == (2, [])


def test_what_can_never_be_read_ends_it(tmp_path):
    calls = []

    def work():
        calls.append(None)
        raise damaged(str(tmp_path / "store"))

    with pytest.raises(DissectError, match=r"key: cannot be read, though no damage is found.* 3 times"):
        mended(work, pytest.fail)
    assert len(calls) == repair.FRUITLESS


def test_a_connection_that_stays_lost_ends_it_too():
    calls = []

    def work():
        calls.append(None)
        raise ConnectionResetError("reset by peer")

    with pytest.raises(DissectError, match=r"a store: cannot be read.*reset by peer"):
        mended(work, pytest.fail)
    assert len(calls) == repair.FRUITLESS


def test_what_was_intact_may_be_damaged_later(run):
    _, out = run
    url, key, calls, told = str(out / "activations.zarr"), "first/first/activation", [], []

    def work():
        calls.append(None)
        if len(calls) == 3:
            rot(out / "activations.zarr" / key / "c/0/0/0/0")
        if len(calls) < 4:
            raise DamagedError("cannot be read.", url, key)
        return "done"

    assert mended(work, told.append) == "done"
    assert [damage.key for damage in told] == [f"{key}/c/0/0/0/0"]


def test_other_failures_are_none_of_its_business():
    with pytest.raises(BlocksFailed, match="poison") as caught:
        mended(lambda: (_ for _ in ()).throw(BlocksFailed([Failed("poison")])), pytest.fail)
    assert caught.value.failures == [Failed("poison")]


def test_each_store_is_looked_at_only_where_it_could_not_be_read(run):
    _, out = run
    for pattern in ("first/first/activation/c/0/0/0/0", "first/second/activation/c/0/0/0/0"):
        rot(out / "activations.zarr" / pattern)
    told, failures = [], []
    url = str(out / "activations.zarr")

    def work():
        if not told:
            failures.append(Failed("lost", damaged=(url, "first/first/activation")))
            raise BlocksFailed(failures)

    mended(work, told.append)
    assert [damage.key for damage in told] == ["first/first/activation/c/0/0/0/0"]
    assert objects.read(url, "first/second/activation/c/0/0/0/0")


def test_an_object_that_the_disk_cannot_read_is_damaged(run):
    _, out = run
    real = objects.read

    def failing(url, key):
        if key == "first/first/threshold/c/0/0":
            raise OSError(5, "Input/output error")
        return real(url, key)

    with patch.object(objects, "read", failing):
        (damage,), _ = verify(str(out / "dissection.zarr"))
    assert damage.what == "cannot be read: Input/output error"
    assert damage.markers == ("first/first/threshold",)
