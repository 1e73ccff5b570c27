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
from dissect_xr.store import objects, reader, repair, verified, writer
from dissect_xr.store.repair import mended
from dissect_xr.store.verify import verify

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module", params=runs.SIZES)
def size(request):
    """Whether all layers are small or large."""
    with runs.layers_are(request.param):
        yield request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(arguments, folder of a finished run for each size and of one without its dissection); no test may change it."""
    folder = tmp_path_factory.mktemp("finished")
    write_digits(folder / "digits", images=20, size=64)
    arguments = [str(runs.write_recipe(folder / "recipe")), "--set", f"data={folder / 'digits'}", "--quiet"]
    for command in ("probe", "extract"):
        assert runs.call(command, *arguments, "--out", str(folder / "begun")) == 0
    for size in runs.SIZES:
        with runs.layers_are(size), patch.object(figures, "save_figures", lambda ds, folder: ()):
            assert runs.call("run", *arguments, "--out", str(folder / size)) == 0
    return arguments, folder


@pytest.fixture(scope="module")
def finished(made):
    """What a run must hold in the end, whether its layers are small or large."""
    return runs.contents(str(made[1] / "small"))


@pytest.fixture
def run(made, size, tmp_path):
    """(arguments, output directory) of a copy of the finished run."""
    arguments, folder = made
    shutil.copytree(folder / size, tmp_path / "run")
    return [*arguments, "--out", str(tmp_path / "run")], tmp_path / "run"


@pytest.fixture
def begun(made, size, tmp_path):
    """(arguments, output directory) of a copy of the run that is finished but for its dissection."""
    arguments, folder = made
    shutil.copytree(folder / "begun", tmp_path / "run")
    return [*arguments, "--out", str(tmp_path / "run")], tmp_path / "run"


def rot(path: Path) -> None:
    """Flip a bit in the middle: the size stays what it was."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def same(out: Path, finished) -> bool:
    return verify(str(out))[0] == [] and runs.contents(str(out)) == finished


def again(before: dict[str, int], out: Path) -> set[str]:
    """The blocks that were written again."""
    after = runs.blocks(out)
    return {key for key in before if after[key] != before[key]}


NEEDED = [
    ("activations.zarr/first/first/activation/c.0.0.0.0", {"activations.zarr/first/blocks/0-16"}),
    ("activations.zarr/second/second/activation/c.1.0.0.0", {"activations.zarr/second/blocks/16-20"}),
    ("activations.zarr/first/peak/c.1.0", {"activations.zarr/first/blocks/16-20"}),
    ("activations.zarr/second/second/zarr.json", {"activations.zarr/second/created"}),
    ("activations.zarr/first/peak/zarr.json", {"activations.zarr/first/created"}),
    ("activations.zarr/first/first/activation/zarr.json", {"activations.zarr/first/created"}),
    ("activations.zarr/second/zarr.json", {"activations.zarr/second/created"}),
    ("activations.zarr/zarr.json", {"activations.zarr/created"}),
    ("activations.zarr/image/zarr.json", {"activations.zarr/created"}),
    ("probe.zarr/run/c.1.0.0", {"probe.zarr/blocks/16-20"}),
    ("probe.zarr/run_count/c.0.0.0", {"probe.zarr/blocks/0-16"}),
    ("probe.zarr/whole_image/c.0.0", {"probe.zarr/blocks/0-16"}),
    ("probe.zarr/annotated/c.0.0", {"probe.zarr/blocks/0-16"}),
    ("probe.zarr/image/c.0", {"probe.zarr/created"}),
    ("probe.zarr/concept/c.0", {"probe.zarr/created"}),
    ("probe.zarr/concept_name/c.0", {"probe.zarr/created"}),
    ("probe.zarr/concept_category/c.0", {"probe.zarr/created"}),
    ("probe.zarr/category/c.0", {"probe.zarr/created"}),
    ("probe.zarr/concept_area/c.0", set()),
    ("probe.zarr/domain_area/c.0", set()),
    ("probe.zarr/zarr.json", set()),
    ("markers/probe.zarr/blocks/0-16.json", {"probe.zarr/blocks/0-16"}),
    ("markers/activations.zarr/created.json", {"activations.zarr/created"}),
    ("markers/activations.zarr/first/created.json", {"activations.zarr/first/created"}),
    ("markers/activations.zarr/first/done.json", set()),
]
"""An object that a dissection reads, and the markers of the blocks that are made again; none for the end of a stage."""


@pytest.mark.parametrize(("pattern", "block"), NEEDED)
def test_what_a_dissection_reads_is_made_again(finished, begun, pattern, block, capsys):
    arguments, out = begun
    before = runs.blocks(out)
    rot(out / pattern)
    assert runs.call("run", *arguments) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "will be done again" in line]
    assert len(said) == 1
    assert str(out / pattern) in said[0]
    assert same(out, finished)
    assert again(before, out) == block


RESULTS = [
    ("dissection.zarr/concept_area/c.0", {"created"}),
    ("dissection.zarr/concept/c.0", {"created"}),
    ("dissection.zarr/concept_name/c.0", {"created"}),
    ("dissection.zarr/concept_category/c.0", {"created"}),
    ("dissection.zarr/category/c.0", {"created"}),
    ("dissection.zarr/fraction/c.0", {"created"}),
    ("dissection.zarr/domain_area/zarr.json", {"created"}),
    ("dissection.zarr/zarr.json", {"created"}),
    ("dissection.zarr/first/zarr.json", {"first/created"}),
    ("markers/dissection.zarr/created.json", {"created"}),
    ("markers/dissection.zarr/first/done.json", set()),
]
"""An object that the results read, and the markers that are written again."""

OF_LAYERS = {
    "small": [
        ("dissection.zarr/second/first/intersection/c.0.0.0", {"second/first/done"}),
        ("dissection.zarr/first/second/unit_area/c.0.0.0", {"first/second/done"}),
        ("dissection.zarr/first/first/dead/c.0.0", {"first/first/done"}),
        ("dissection.zarr/first/first/threshold/zarr.json", {"first/first/done"}),
        ("dissection.zarr/second/second/zarr.json", {"second/second/done"}),
        ("markers/dissection.zarr/first/first/done.json", {"first/first/done"}),
    ],
    "large": [
        ("dissection.zarr/second/first/intersection/c.0.0.0", {"second/first/counts/0-6"}),
        ("dissection.zarr/first/second/unit_area/c.0.0.0", {"first/second/counts/0-6"}),
        ("dissection.zarr/first/first/dead/c.0.0", {"first/first/counts/0-6"}),
        ("dissection.zarr/first/first/threshold/zarr.json", {"first/first/created"}),
        ("dissection.zarr/second/second/zarr.json", {"second/second/created"}),
        ("markers/dissection.zarr/first/first/created.json", {"first/first/created"}),
        ("markers/dissection.zarr/first/first/done.json", set()),
    ],
}
"""As `RESULTS`, for objects whose markers depend on the size of the layers."""


@pytest.mark.parametrize(
    ("size", "pattern", "block"),
    [(size, *row) for size in runs.SIZES for row in RESULTS + OF_LAYERS[size]],
    indirect=["size"],
)
@pytest.mark.parametrize("keep", ["all", "none"])
def test_what_the_results_read_is_made_again(finished, run, pattern, block, keep, monkeypatch):
    arguments, out = run
    before = {key for key in runs.blocks(out) if key.startswith("dissection")}
    if keep == "none":
        arguments = [*arguments, "--set", "activations.keep=none"]
        assert runs.call("run", *arguments) == 0
    when, real, extracted = runs.blocks(out), extract.extract_block, []
    monkeypatch.setattr(extract, "extract_block", lambda task: extracted.append(task.key) or real(task))
    rot(out / pattern)
    runs.forget_summary(out)
    verified.forget(str(out / "dissection.zarr"))
    assert runs.call("run", *arguments) == 0
    assert before <= set(runs.blocks(out))
    assert {key for key in again(when, out) if key.startswith("dissection")} == {f"dissection.zarr/{b}" for b in block}
    of_a_layer = any(pattern == row[0] for rows in OF_LAYERS.values() for row in rows)
    assert bool(extracted) == (keep == "none" and of_a_layer), "what is no layer's needs no activations"
    if keep == "none":
        assert runs.call("run", *arguments, "--set", "activations.keep=dense") == 0
    assert same(out, finished)


MEANWHILE = [
    (
        "small",
        "dissect_small",
        "activations.zarr/first/first/activation/c.0.0.0.0",
        "activations.zarr/first/blocks/0-16",
    ),
    ("small", "dissect_small", "probe.zarr/run/c.0.0.0", "probe.zarr/blocks/0-16"),
    ("small", "dissect_small", "activations.zarr/second/first/activation/zarr.json", "activations.zarr/second/created"),
    ("small", "finish_snapshot", "markers/dissection.zarr/first/first/done.json", "dissection.zarr/first/first/done"),
    ("small", "finish_snapshot", "dissection.zarr/concept_area/c.0", "dissection.zarr/created"),
    ("small", "finish_snapshot", "dissection.zarr/second/first/dead/c.0.0", "dissection.zarr/second/first/done"),
    ("large", "count_blocks", "dissection.zarr/first/first/threshold/c.0.0", "dissection.zarr/first/first/threshold"),
    ("large", "count_blocks", "activations.zarr/second/first/activation/zarr.json", "activations.zarr/second/created"),
    (
        "large",
        "finish_snapshot",
        "markers/dissection.zarr/first/first/counts/0-6.json",
        "dissection.zarr/first/first/counts/0-6",
    ),
    ("large", "finish_snapshot", "dissection.zarr/concept_area/c.0", "dissection.zarr/created"),
    (
        "large",
        "find_thresholds",
        "dissection.zarr/first/first/threshold/zarr.json",
        "dissection.zarr/first/first/created",
    ),
    (
        "large",
        "count_folds",
        "dissection.zarr/first/first/intersection/zarr.json",
        "dissection.zarr/first/first/created",
    ),
]
"""Before which step of the first layer or snapshot something rots, what, and the block that is done twice."""


@pytest.mark.parametrize(("size", "step", "pattern", "block"), MEANWHILE, indirect=["size"])
def test_what_rots_while_the_run_is_under_way_is_made_again(finished, begun, step, pattern, block, monkeypatch):
    arguments, out = begun
    real, real_mark, written = getattr(dissect, step), store.mark, []

    def rotting(*args):
        layer = getattr(getattr(args[0], "wanted", args[0]), "layer", args[0])
        if (
            "rotten" not in written
            and getattr(layer, "path", "first/first") == "first/first"
            and (out / pattern).exists()
        ):
            written.append("rotten")
            rot(out / pattern)
        return real(*args)

    def noting(url, key, **given):
        real_mark(url, key, **given)
        if not key.endswith("done") or not given.get("depends_on"):
            written.append(f"{Path(url).name}/{key}")

    monkeypatch.setattr(dissect, step, rotting)
    monkeypatch.setattr(store, "mark", noting)
    monkeypatch.setattr(writer, "mark", noting)
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)
    since = written[written.index("rotten") :]
    redone = {key for key in since if key in written[: written.index("rotten")] or since.count(key) > 1}
    assert redone <= {block}
    assert block in since


def test_only_what_rotted_is_extracted_and_read_again(finished, begun):
    arguments, out = begun
    rot(out / "activations.zarr/second/first/activation/c.0.0.0.0")
    rot(out / "activations.zarr/first/second/activation/c.1.0.0.0")
    rot(out / "probe.zarr/run/c.0.0.0")
    real, extracted = extract.extract_block, []
    with patch("dissect_xr.activations.extract.extract_block", lambda task: extracted.append(task.key) or real(task)):
        assert runs.call("run", *arguments) == 0
    assert sorted(extracted) == ["first/blocks/16-20", "second/blocks/0-16"]
    assert same(out, finished)


def test_on_processes_too(finished, begun, capsys):
    arguments, out = begun
    rot(out / "activations.zarr/first/first/activation/c.0.0.0.0")
    rot(out / "activations.zarr/second/peak/c.1.0")
    rot(out / "probe.zarr/run/c.0.0.0")
    assert runs.call("run", *arguments, "--workers", "2") == 0
    assert capsys.readouterr().err.count("will be done again") == 3
    assert same(out, finished)


def test_activations_that_are_dropped_once_counted_are_made_again_too(finished, run):
    arguments, out = run
    dropping = [*arguments, "--set", "activations.keep=none"]
    assert runs.call("run", *dropping) == 0
    rot(out / "dissection.zarr/first/first/intersection/c.0.0.0")
    runs.forget_summary(out)
    assert runs.call("run", *dropping) == 0
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)


def test_what_rots_again_and_again_ends_with_a_message(begun, capsys):
    arguments, out = begun
    path, real, tries = out / "activations.zarr/second/first/activation/c.0.0.0.0", extract.extract_block, []

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


def test_a_block_that_fails_for_another_reason_is_still_reported(finished, begun, size, capsys, monkeypatch):
    from dissect_xr.dissection import dissect, passes

    monkeypatch.setattr(retry, "PAUSE", 0.0)
    arguments, out = begun
    rot(out / "activations.zarr/first/first/activation/c.0.0.0.0")
    small, large = dissect.dissect_small, passes.count_block

    def poisoned_small(task):
        if task.wanted.layer.path == "first/second":
            raise RuntimeError("poison")
        return small(task)

    def poisoned_large(task):
        if task.layer.path == "first/second":
            raise RuntimeError("poison")
        return large(task)

    poisoned = {"small": (dissect, "dissect_small", poisoned_small), "large": (passes, "count_block", poisoned_large)}
    with patch.object(*poisoned[size]):
        assert runs.call("run", *arguments) == 3
    said = capsys.readouterr().err
    assert said.count("will be done again") == 1
    assert "poison" in said
    assert runs.call("run", *arguments) == 0
    assert same(out, finished)


def test_what_cannot_be_made_again_is_said(begun, capsys):
    arguments, out = begun
    folder = next(word for word in arguments if word.startswith("data=")).removeprefix("data=")
    shutil.copytree(folder, out.parent / "elsewhere")
    arguments = [word.replace(folder, str(out.parent / "elsewhere")) for word in arguments]
    assert runs.call("probe", *arguments) == 0  # from now on, the images are those in the other folder
    rot(out / "probe.zarr/run/c.0.0.0")
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
@pytest.mark.parametrize("part", ["/activation/c.", "/peak/zarr.json"])
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


@pytest.mark.parametrize(
    ("size", "part"), [("large", "/threshold/c."), ("small", "concept_name/c.")], indirect=["size"]
)
def test_a_connection_that_the_run_itself_loses_is_tried_again(finished, begun, part, monkeypatch):
    arguments, out = begun
    monkeypatch.setattr(repair, "repair", lambda *given, **more: pytest.fail("nothing is damaged"))
    read = losing(monkeypatch, part, ConnectionResetError("reset by peer"), times=2)
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
            rot(out / "activations.zarr" / key / "c.0.0.0.0")
        if len(calls) < 4:
            raise DamagedError("cannot be read.", url, key)
        return "done"

    assert mended(work, told.append) == "done"
    assert [damage.key for damage in told] == [f"{key}/c.0.0.0.0"]


def test_other_failures_are_none_of_its_business():
    with pytest.raises(BlocksFailed, match="poison") as caught:
        mended(lambda: (_ for _ in ()).throw(BlocksFailed([Failed("poison")])), pytest.fail)
    assert caught.value.failures == [Failed("poison")]


def test_each_store_is_looked_at_only_where_it_could_not_be_read(run):
    _, out = run
    for pattern in ("first/first/activation/c.0.0.0.0", "first/second/activation/c.0.0.0.0"):
        rot(out / "activations.zarr" / pattern)
    told, failures = [], []
    url = str(out / "activations.zarr")

    def work():
        if not told:
            failures.append(Failed("lost", damaged=(url, "first/first/activation")))
            raise BlocksFailed(failures)

    mended(work, told.append)
    assert [damage.key for damage in told] == ["first/first/activation/c.0.0.0.0"]
    assert objects.read(url, "first/second/activation/c.0.0.0.0")


@pytest.mark.parametrize(
    ("size", "marker"), [("small", "first/first/done"), ("large", "first/first/threshold")], indirect=["size"]
)
def test_an_object_that_the_disk_cannot_read_is_damaged(run, marker):
    _, out = run
    real = objects.read

    def failing(url, key):
        if key == "first/first/threshold/c.0.0":
            raise OSError(5, "Input/output error")
        return real(url, key)

    with patch.object(objects, "read", failing):
        (damage,), _ = verify(str(out / "dissection.zarr"))
    assert damage.what == "cannot be read: Input/output error"
    assert damage.markers == (marker,)
