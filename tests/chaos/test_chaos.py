"""Whatever is killed, whenever: the same command again ends with the same bits, and nothing is done twice.

CHAOS_ROUNDS and CHAOS_S3_ROUNDS are the rounds on a local disk and on an S3 endpoint (8 and 3 where they are not set),
CHAOS_SEED the first round's seed, drawn where it is not set and shown in the header.
"""

import os
import random
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

import runs
import theatre

from dissect_xr.probe.digits.write import write_digits
from dissect_xr.store import objects
from dissect_xr.store.verify import verify

pytestmark = pytest.mark.slow

SEED = int(os.environ["CHAOS_SEED"])
LOCAL = [SEED + n for n in range(int(os.environ.get("CHAOS_ROUNDS", "8")))]
S3 = [SEED + 1000 + n for n in range(int(os.environ.get("CHAOS_S3_ROUNDS", "3")))]

VICTIMS = ("plain", "gpu", "scheduler", "client")

STAGES = {
    "start": "recipe.yaml",
    "probe": "markers/probe.zarr/blocks",
    "activations": "markers/activations.zarr/first/blocks",
    "tails": "markers/activations.zarr/first/tails",
    "thresholds": "markers/activations.zarr/first/done.json",
    "dissection": "markers/dissection.zarr/first",
    "first thresholds": "markers/dissection.zarr/first/first.0/threshold.json",
    "first counts": "markers/dissection.zarr/first/first.0/counts",
    "first layer": "markers/dissection.zarr/first/first.0/done.json",
    "second": "markers/activations.zarr/second",
    "end": "markers/dissection.zarr/second",
}
"""Stage -> what lies in the output directory once it is under way."""

ALL = tuple(stage for stage in STAGES if stage != "tails")
"""Of a run that keeps all cells."""

BETWEEN_LAYERS = ("first thresholds", "first counts", "first layer")
"""Stages in which one layer has come further than others, for a moment; the first two only if layers are large."""

RECIPE = runs.RECIPE.replace("layers: [first, second]", "layers: [first.0, first.1, first, second.0, second.1, second]")
RECIPE = RECIPE.replace("layers:", "    - {name: third, step: 9, seed: 2}\nlayers:")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(recipe arguments, contents of the run that nothing happened to)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_digits(folder / "digits", images=40, size=64)
    arguments = [str(runs.write_recipe(folder / "recipe", RECIPE)), "--set", f"data={folder / 'digits'}"]
    assert runs.call("run", *arguments, "--quiet", "--out", str(folder / "run")) == 0
    return arguments, runs.contents(str(folder / "run"))


@pytest.fixture(scope="module")
def undisturbed_tails(undisturbed, tmp_path_factory):
    """The same of a run that keeps tails."""
    arguments, _ = undisturbed
    arguments = [*arguments, "--set", "activations.keep=tail", "--set", "dissect.fractions=[0.005, 0.01]"]
    out = str(tmp_path_factory.mktemp("tails") / "run")
    assert runs.call("run", *arguments, "--quiet", "--out", out) == 0
    assert objects.sizes(out, "markers/activations.zarr/first/tails/")
    return arguments, runs.contents(out)


def under_way(out: str, stage: str) -> bool:
    """Whether a run has come to a stage."""
    if objects.is_local(out):
        return Path(out, STAGES[stage]).exists()
    name = STAGES[stage]
    return bool(objects.read(out, name) is not None or objects.sizes(out, f"{name}/"))


def round_of(
    seed: int, out: str, stage_folder: Path, arguments: list[str], wanted: object, *, stages=ALL, **extra: str
) -> None:
    """Kill one process at a random moment of one of the stages, give the command again, and compare."""
    draw = random.Random(seed)
    victim, stage, delay = draw.choice(VICTIMS), draw.choice(stages), draw.random() * 0.6
    size = draw.choice(runs.SIZES) if stage not in BETWEEN_LAYERS[:2] else "large"
    if stage in BETWEEN_LAYERS:
        delay /= 20  # the moment is short
    if size == "large":
        extra["LARGE_ABOVE"] = "64"
    print(f"seed {seed}: SIGKILL of {victim} {delay:.2f} s into {stage}, {size} layers")
    stage_folder.mkdir(exist_ok=True)
    play = theatre.Theatre(stage_folder, theatre.environment(SLOW_FORWARD="0.05", **extra))
    try:
        play.start_cluster()
        play.start_client([*arguments, "--out", out])
        deadline = time.monotonic() + 120
        while not under_way(out, stage) and play.running("client") and time.monotonic() < deadline:
            time.sleep(0.02 if objects.is_local(out) else 0.2)  # a look at the endpoint takes its core from the run
        time.sleep(delay)
        play.kill(victim)
        print(f"seed {seed}: layers done: {[key for key in objects.sizes(out, 'markers/') if dissected(key)]}")
        code = finished(play, victim)
        print(f"seed {seed}: the client ended with {code}")
        assert "Traceback" not in play.log("client"), play.log("client")
        before = theatre.marked(out)
        play.start_cluster()
        play.start_client([*arguments, "--out", out])
        assert play.wait(150) == 0, play.log("client")
        after = theatre.marked(out)
    finally:
        play.close()
    again = {key for key in before if after.get(key) != before[key]}
    assert not again, f"done again after they were marked: {sorted(again)}"
    assert verify(out)[0] == []
    assert runs.contents(out) == wanted
    if "://" not in out:
        assert not list(Path(out).rglob("*.partial"))
        assert not Path(out, "lock").exists()


def dissected(key: str) -> bool:
    """Whether a marker is that of a layer whose dissection is finished."""
    return key.startswith("markers/dissection.zarr") and key.endswith("/done.json") and key.count("/") == 4


def finished(play: theatre.Theatre, victim: str) -> int:
    """Exit code of the disturbed client: killed, done in spite of it, or ended by one clear error."""
    if victim in ("plain", "gpu"):
        play.start_cluster()  # someone starts another one
    try:
        code = play.wait(150)
    except TimeoutError:
        pytest.fail(f"the client hangs:\n{play.log('client')}")
    expected = {"client": {-9, 0}, "scheduler": {2, 0}}.get(victim, {0})
    assert code in expected, play.log("client")
    return code


@pytest.mark.parametrize("seed", LOCAL)
def test_killed_at_any_moment(undisturbed, tmp_path, seed):
    arguments, wanted = undisturbed
    round_of(seed, str(tmp_path / "run"), tmp_path / "stage", arguments, wanted)


@pytest.mark.parametrize("seed", LOCAL[:2])
@pytest.mark.parametrize("stage", BETWEEN_LAYERS)
def test_killed_between_layers(undisturbed, tmp_path, stage, seed):
    arguments, wanted = undisturbed
    round_of(seed, str(tmp_path / "run"), tmp_path / "stage", arguments, wanted, stages=(stage,))


@pytest.mark.parametrize("seed", LOCAL[:2])
def test_killed_while_tails_are_kept(undisturbed_tails, tmp_path, seed):
    arguments, wanted = undisturbed_tails
    stages = ("tails", "thresholds", "dissection", "second")
    round_of(seed, str(tmp_path / "run"), tmp_path / "stage", arguments, wanted, stages=stages)


@pytest.mark.parametrize("seed", S3)
def test_killed_at_any_moment_on_an_object_store(undisturbed, tmp_path, s3, seed):
    arguments, wanted = undisturbed
    round_of(seed, f"{s3.bucket()}/run", tmp_path / "stage", arguments, wanted, **s3.environ)
