"""Rotten data: every flipped byte and every truncation is found and named, none is read as data, a run mends it."""

import itertools
import random
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

pytest.importorskip("torch")

import runs

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.store import objects
from dissect_xr.store.repair import repair, sweep
from dissect_xr.store.verified import forget
from dissect_xr.store.verify import Expected, expected, inspect, stores_at, verify

pytestmark = pytest.mark.usefixtures("no_figures")

TRIES = 600


@pytest.fixture(scope="module", params=runs.SIZES)
def size(request):
    """Whether all layers are small or large."""
    with runs.layers_are(request.param):
        yield request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(arguments, folder of a finished run for each size, size -> what it holds); made once, as it has no size."""
    folder = tmp_path_factory.mktemp("finished")
    write_digits(folder / "digits", images=20, size=64)
    arguments = [str(runs.write_recipe(folder / "recipe")), "--set", f"data={folder / 'digits'}", "--quiet"]
    for size in runs.SIZES:
        with runs.layers_are(size):
            assert runs.call("run", *arguments, "--out", str(folder / size)) == 0
    return arguments, folder, {size: runs.contents(str(folder / size)) for size in runs.SIZES}


@pytest.fixture
def finished(made, size):
    """(arguments, output directory) of a finished run that no test may change."""
    arguments, folder, _ = made
    return arguments, folder / size


@pytest.fixture
def copy(finished, tmp_path):
    """The same run, to be damaged."""
    arguments, out = finished
    shutil.copytree(out, tmp_path / "run")
    # The images of a probe that lie outside its folder have an absolute root: the copy finds them too.
    return [*arguments, "--out", str(tmp_path / "run")], tmp_path / "run"


def damage(path: Path, draw: random.Random) -> str:
    """Flip a bit of a file, or cut it short; what was done."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    if draw.random() < 0.3:
        path.write_bytes(bytes(content[:place]))
        return f"cut to {place} of {len(content)} bytes"
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    return f"bit of byte {place} of {len(content)} flipped"


def found(known: Expected, path: Path) -> list[str]:
    """What verification says about one file, changed since `known` was read."""
    store = Path(known.url)
    if path.is_relative_to(store):
        return [str(d) for d in inspect(known, only=[path.relative_to(store).as_posix()])]
    return [str(d) for d in expected(known.url).damages if str(path) in str(d)]


def files(out: Path) -> list[tuple[str, Path]]:
    """(store, file) of every object and marker of a run."""
    return [
        (url, path)
        for url in stores_at(str(out))
        for root in (Path(url), out / "markers" / Path(url).name)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]


def test_every_object_is_listed(finished):
    _, out = finished
    for url in stores_at(str(out)):
        known = expected(url)
        assert not known.damages
        assert set(known.objects) == {p.relative_to(url).as_posix() for p in Path(url).rglob("*") if p.is_file()}
    assert verify(str(out))[0] == []


def test_every_flipped_bit_and_truncation_is_found_and_named(copy):
    _, out = copy
    draw = random.Random(4)
    known = {url: expected(url) for url in stores_at(str(out))}
    every = files(out)
    kinds = [path.name == "zarr.json" for _, path in every] + [path.suffix == ".json" for _, path in every]
    assert any(kinds)
    for n in range(TRIES):
        url, path = every[n % len(every)] if n < len(every) else draw.choice(every)
        before = path.read_bytes()
        what = damage(path, draw)
        said = found(known[url], path)
        path.write_bytes(before)
        assert len(said) == 1, f"{path}: {what}: {said}"
        assert said[0].startswith(str(path))
    assert verify(str(out))[0] == []


def values(url: str, path: Path) -> object:
    """What a reader gets of the array or group that a file belongs to."""
    inner = path.relative_to(url).as_posix()
    forget(url)
    if inner.endswith("zarr.json"):
        group = inner.removesuffix("zarr.json").rstrip("/")
        if 'node_type": "group' in path.read_text(errors="replace"):
            return store.read_attrs(url, group)
        array = store.read(url, group)
    else:
        array = store.read(url, inner[: inner.rindex("/c.")])
    return array.dtype, array[...].tolist()


def test_no_damage_is_read_as_data(copy):
    _, out = copy
    draw, refusals = random.Random(5), []
    every = [(url, path) for url, path in files(out) if path.is_relative_to(url)]
    for (url, path), how in itertools.product(every, ("damaged", "removed")):
        before, wanted = path.read_bytes(), values(url, path)
        what = damage(path, draw) if how == "damaged" else f"removed {path.unlink()}"
        try:
            got = values(url, path) if path.exists() or path.name != "zarr.json" else wanted
            assert repr(got) == repr(wanted), f"{path}: {what}: read as data"
        except DissectError as error:
            refusals.append(str(error))
        path.write_bytes(before)
        forget(url)
    assert len(refusals) > 100
    assert all("verify" in refusal and str(out) in refusal for refusal in refusals)


DAMAGES = ("cut", "flipped", "removed")

BLOCKS = [
    ("activations.zarr/first/first/activation/c.0.0.0.0", {"first/blocks/0-16"}),
    ("activations.zarr/second/second/zarr.json", {"second/created"}),
    ("activations.zarr/zarr.json", {"created", "first/created", "second/created"}),
    ("activations.zarr/image/c.0", {"created"}),
    ("activations.zarr/first/zarr.json", {"first/created"}),
    ("activations.zarr/first/peak/c.1.0", {"first/blocks/16-20"}),
    ("activations.zarr/second/mean/c.0.0", {"second/blocks/0-16"}),
    ("activations.zarr/second/mean/zarr.json", {"second/created"}),
    ("activations.zarr/first/second/unit/c.0", {"first/created"}),
    ("probe.zarr/annotation/c.1.0.0.0", {"blocks/16-20"}),
    ("probe.zarr/zarr.json", set()),
    ("probe.zarr/image/c.0", {"created"}),
    ("dissection.zarr/zarr.json", {"created"}),
    ("dissection.zarr/concept_area/c.0", {"created"}),
    ("dissection.zarr/domain_area/c.0", {"created"}),
    ("dissection.zarr/concept_name/zarr.json", {"created"}),
    ("dissection.zarr/fraction/c.0", {"created"}),
    ("dissection.zarr/second/zarr.json", {"second/created"}),
    ("markers/activations.zarr/first/blocks/0-16.json", {"first/blocks/0-16"}),
    ("markers/activations.zarr/second/created.json", {"second/created"}),
    ("markers/probe.zarr/created.json", {"created"}),
    ("markers/dissection.zarr/first/created.json", {"first/created"}),
]
"""An object, and the markers of the blocks that are done again when it is damaged."""

OF_LAYERS = {
    "small": [
        ("dissection.zarr/second/first/intersection/c.0.0.0", {"second/first/done"}),
        ("dissection.zarr/second/first/threshold/c.0.0", {"second/first/done"}),
        ("dissection.zarr/second/first/unit/zarr.json", {"second/first/done"}),
        ("dissection.zarr/first/second/exceedance/c.0.0", {"first/second/done"}),
        ("markers/dissection.zarr/first/second/done.json", {"first/second/done"}),
    ],
    "large": [
        ("dissection.zarr/second/first/intersection/c.0.0.0", {"second/first/counts/0-6"}),
        ("dissection.zarr/second/first/threshold/c.0.0", {"second/first/threshold"}),
        ("dissection.zarr/second/first/unit/zarr.json", {"second/first/created"}),
        ("dissection.zarr/first/second/exceedance/c.0.0", {"first/second/threshold"}),
        ("markers/dissection.zarr/first/second/threshold.json", {"first/second/threshold"}),
        ("markers/dissection.zarr/first/second/created.json", {"first/second/created"}),
        ("markers/dissection.zarr/second/second/counts/0-6.json", {"second/second/counts/0-6"}),
        ("markers/dissection.zarr/first/second/done.json", set()),
    ],
}
"""As `BLOCKS`, for objects whose markers depend on the size of the layers."""

NOTHING_RESTS_ON = [
    ("markers/activations.zarr/first/done.json", set()),
    ("markers/activations.zarr/created.json", {"created"}),
    ("markers/dissection.zarr/first/done.json", set()),
    ("markers/dissection.zarr/created.json", {"created"}),
    ("markers/probe.zarr/done.json", set()),
]
"""Markers that no other depends on: one that is gone was not written yet."""


def mar(path: Path, how: str) -> None:
    """Cut a file, flip a bit of it, or remove it."""
    content = path.read_bytes()
    place = len(content) // 2
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(
            content[:place] if how == "cut" else content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        )


def done_again(before: dict[str, int], out: Path) -> set[str]:
    """The blocks that were written again, as <store>/<marker>."""
    after = runs.blocks(out)
    return {key for key in before if after[key] != before[key]}


@pytest.mark.parametrize(
    ("size", "pattern", "again", "how"),
    [
        *((size, *row, DAMAGES[n % 3]) for size in runs.SIZES for n, row in enumerate(BLOCKS + OF_LAYERS[size])),
        *((size, *row, DAMAGES[n % 2]) for size in runs.SIZES for n, row in enumerate(NOTHING_RESTS_ON)),
    ],
    indirect=["size"],
)
def test_run_does_just_the_damaged_block_again(made, size, copy, pattern, again, how, capsys):
    arguments, out = copy
    before = runs.blocks(out)
    mar(out / pattern, how)
    assert runs.call("run", *arguments, "--verify") == 0
    assert "will be done again" in capsys.readouterr().err
    assert verify(str(out))[0] == []
    assert runs.contents(str(out)) == made[2][size]
    store = pattern.removeprefix("markers/").split("/")[0]
    assert done_again(before, out) == {f"{store}/{key}" for key in again}


@pytest.mark.parametrize(("pattern", "again"), NOTHING_RESTS_ON)
def test_an_end_that_is_not_marked_is_marked_and_nothing_is_done_twice(made, size, copy, pattern, again, capsys):
    arguments, out = copy
    before = runs.blocks(out)
    mar(out / pattern, "removed")
    assert runs.call("run", *arguments) == 0
    assert "will be done again" not in capsys.readouterr().err
    assert (out / pattern).is_file()
    assert verify(str(out))[0] == []
    assert runs.contents(str(out)) == made[2][size]
    store = pattern.removeprefix("markers/").split("/")[0]
    assert done_again(before, out) == {f"{store}/{key}" for key in again}


def test_sizes_are_checked_without_being_asked(copy, capsys):
    arguments, out = copy
    path = out / "activations.zarr/first/first/activation/c.0.0.0.0"
    path.write_bytes(path.read_bytes()[:-1])
    assert runs.call("run", *arguments) == 0
    assert "done again" in capsys.readouterr().err
    assert verify(str(out))[0] == []


def test_verify_names_what_is_damaged_and_exits_with_2(copy, capsys):
    _, out = copy
    assert runs.call("verify", str(out)) == 0
    path = out / "dissection.zarr/first/first/dead/c.0.0"
    path.write_bytes(b"")
    assert runs.call("verify", str(out)) == 2
    assert runs.call("verify", str(out / "dissection.zarr")) == 2
    assert str(path) in capsys.readouterr().out
    assert runs.call("verify", str(out / "figures")) == 2
    assert runs.call("verify", str(out / "probe.zarr")) == 0


def test_a_run_that_keeps_no_activations_is_whole(finished, tmp_path):
    arguments, _ = finished
    out = str(tmp_path / "run")
    assert runs.call("run", *arguments, "--out", out, "--set", "activations.keep=none") == 0
    assert runs.call("verify", out) == 0
    (tmp_path / "run" / "activations.zarr" / "left").write_text("of something unfinished")
    assert runs.call("verify", out) == 2


@pytest.mark.parametrize("at", ["zarr.json", "done"])
def test_a_store_that_does_not_answer_is_not_damaged(finished, at):
    url, real = stores_at(str(finished[1]))[0], objects.read
    before = objects.sizes(url)

    def read(where, key):
        if key.endswith((at, f"{at}.json")):
            raise ConnectionResetError(104, "Connection reset by peer")
        return real(where, key)

    with patch.object(objects, "read", read), pytest.raises(ConnectionResetError):
        repair(url, full=True)
    assert objects.sizes(url) == before
    assert repair(url, full=True) == []


def test_repair_of_an_intact_store_changes_nothing(finished):
    for url in stores_at(str(finished[1])):
        assert repair(url, full=True) == []


def test_files_of_killed_writers_are_swept_away(copy):
    arguments, out = copy
    orphan = out / "probe.zarr" / "annotation" / "c.0.abc.partial"
    orphan.write_text("half")
    (out / "markers" / "probe.zarr" / "done.json.abc.partial").write_text("half")
    left = sweep(str(out / "probe.zarr"))
    assert not orphan.exists()
    assert left == objects.sizes(str(out / "probe.zarr"))
    orphan.write_text("half")
    assert runs.call("run", *arguments) == 0
    assert not list(out.rglob("*.partial"))
