"""A recipe's derived layers: made after the recorded ones, planned before, taken up, and found again."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runs import NETWORK, SIZES, call, contents, forget_summary, layers_are, urls

pytest.importorskip("torch")

from dissect_xr import store
from dissect_xr.analysis.bases import basis_detectors, derived_layers
from dissect_xr.analysis.results import open_dissection
from dissect_xr.bases import stored
from dissect_xr.bases.basis import MatrixBasis, PcaBasis, RotationBasis
from dissect_xr.cli.fields.derived import wanted
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.errors import DissectError
from dissect_xr.store import objects
from dissect_xr.store.seal import sealed

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
derived:
  - {layer: [first, second], basis: identity}
  - {layer: second, basis: rotation, alpha: [0.5, 1], seed: [0, 1], snapshots: second}
  - {layer: second, basis: random, seed: 3, dtype: float32, snapshots: [second]}
  - {layer: first, basis: pca, rank: [null, 2], centred: false}
  - {layer: first, basis: matrix, file: "${here}/sae.npy", relu: true, name: sae}
dissect: {fractions: [0.005, 0.1]}
"""

FIRST = ["first@identity", "first@matrix-sae", "first@pca-2-uncentred", "first@pca-uncentred", "second@identity"]
SECOND = ["second@random-s3-float32", *(f"second@rotation-{a}-s{s}" for a in ("0.5", "1") for s in (0, 1))]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dissect_xr.probe.digits.write import write_digits

    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "digits", images=24, size=64)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, digits: Path) -> list[str]:
    (tmp_path / "network.py").write_text(NETWORK)
    np.save(tmp_path / "sae.npy", np.random.default_rng(0).normal(size=(9, 6)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return [str(tmp_path / "recipe.yaml"), "--set", f"data={digits}", "--out", str(tmp_path / "run"), "--quiet"]


@pytest.fixture(params=SIZES)
def layers(request: pytest.FixtureRequest) -> Iterator[str]:
    """Small layers, and layers that are dissected as large ones are."""
    with layers_are(request.param):
        yield request.param


def dissected(out: Path) -> dict[str, list[str]]:
    """Snapshot -> its dissected layers, in the order of results."""
    found = {}
    for name in store.marked_groups(str(out / "dissection.zarr")):
        done = store.marker(str(out / "dissection.zarr"), f"{name}/done")
        found[name] = list(done["note"]["layers"]) if done else []
    return found


def test_a_run_dissects_what_the_recipe_derives(recipe: list[str], tmp_path: Path, layers: str) -> None:
    assert call("run", *recipe) == 0
    out = tmp_path / "run"
    of_second = ["second", "second@identity", *SECOND]
    assert dissected(out) == {
        "first": ["first", *FIRST[:4], "second", "second@identity"],
        "second": ["first", *FIRST[:4], *of_second],
    }
    ds = open_dissection(out / "dissection.zarr")
    assert derived_layers(ds).keys() == {*FIRST, *SECOND}
    assert not ds["complete"].sel(snapshot="first", layer_name="second@rotation-1-s0")
    for snapshot in ("first", "second"):
        one = ds.sel(snapshot=snapshot).load()
        same = [one.isel(unit=one["layer"].values == name) for name in ("first", "first@identity")]
        for name in ("threshold", "exceedance", "intersection", "unit_area", "dead"):
            assert np.array_equal(same[0][name].values, same[1][name].values), name
    url = str(out / "activations.zarr")
    assert sealed(url, objects.sizes(url), store.markers(url)) == {"first", "second"}
    found = basis_detectors(ds.sel(snapshot="second", fraction=0.1), "second")
    assert found["kind"].values.tolist() == ["recorded", "identity", "random", *["rotation"] * 4]
    # Given again, nothing is done; with another basis, only that.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if ".zarr" in str(path) and path.is_file()}
    assert call("run", *recipe) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    text = Path(recipe[0]).read_text()
    Path(recipe[0]).write_text(text.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    assert call("run", *recipe) == 0
    # What is written again are markers of the snapshot: which layers are begun, and that all is finished.
    again = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert {path.name for path in again} == {"created.json", "done.json"}
    assert {path.parent.name for path in again} == {"second"}
    assert {"second@rotation-0.5-s2", "second@rotation-1-s2"} <= set(dissected(out)["second"])


def test_stages_one_by_one_and_processes_give_the_same(recipe: list[str], tmp_path: Path) -> None:
    for stage in ("probe", "extract", "dissect"):
        assert call(stage, *recipe) == 0
    other = [*recipe[:-2], str(tmp_path / "other"), "--quiet"]
    assert call("run", *other, "--workers", "2", "--set", "activations.threads=1") == 0
    forget_summary(tmp_path / "other")
    one, two = contents(str(tmp_path / "run")), contents(str(tmp_path / "other"))
    assert one == two


def test_without_activations_nothing_is_made_again(recipe: list[str], tmp_path: Path) -> None:
    arguments = [*recipe, "--set", "activations.keep=none"]
    assert call("run", *arguments) == 0
    url = str(tmp_path / "run/activations.zarr")
    assert not [key for key in objects.sizes(url) if "@" in key]
    before = contents(str(tmp_path / "run"))
    assert call("run", *arguments) == 0
    assert contents(str(tmp_path / "run")) == before
    # Another basis takes the activations again, and leaves what is dissected.
    text = Path(recipe[0]).read_text()
    Path(recipe[0]).write_text(text.replace("seed: 3", "seed: [3, 4]"))
    assert call("run", *arguments) == 0
    after = contents(str(tmp_path / "run"))
    added = after.keys() - before.keys()
    assert added
    assert all("second@random-s4-float32" in place for place in added)
    assert {place: after[place] for place in before} == before


def test_a_dry_run_says_how_many_objects_are_written(
    recipe: list[str], tmp_path: Path, layers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe, "--dry-run") == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    plan = {row[0]: int(row[3].replace(",", "")) for row in rows if row}
    assert list(plan)[1:4] == ["activations first", "bases first", "dissection first"]
    assert not (tmp_path / "run").exists()
    assert call("run", *recipe) == 0
    written: Counter[str] = Counter()
    for url in urls(str(tmp_path / "run")):
        for key in [*objects.sizes(url), *store.markers(url)]:
            snapshot = "second" if key.startswith("second/") else "first"
            stage = Path(url).stem
            if stage == "activations" and "@" in key:
                stage = "bases"
            written[stage if stage == "probe" else f"{stage} {snapshot}"] += 1
    assert plan == written


def test_a_damaged_matrix_is_made_again(recipe: list[str], tmp_path: Path) -> None:
    assert call("run", *recipe) == 0
    before = contents(str(tmp_path / "run"))
    chunk = next((tmp_path / "run/activations.zarr/second/first@pca-uncentred/matrix").glob("c*"))
    chunk.write_bytes(chunk.read_bytes()[:-2])
    assert call("run", *recipe) == 0
    assert contents(str(tmp_path / "run")) == before
    assert call("verify", str(tmp_path / "run"), "--quiet") == 0


def test_the_command_info_names_derived_layers(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("extract", *recipe) == 2  # there is no probe yet
    for stage in ("probe", "extract", "dissect"):
        assert call(stage, *recipe) == 0
    capsys.readouterr()
    assert call("info", str(tmp_path / "run/activations.zarr")) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["first", "first@matrix-sae", "24", "9", "32 x 32", "float16"] in rows
    assert ["second", "second@random-s3-float32", "24", "6", "15 x 15", "float32"] in rows


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{layer: third, basis: identity}", "third is not recorded in first; recorded are first, second"),
        (
            "{layer: first, basis: identity, snapshots: [last]}",
            "snapshots last are none of the recipe's: first, second",
        ),
        ("{layer: first, basis: rotation, alpha: [0, 1.5]}", "alpha 1.5, expected a number from 0 to 1"),
        ("{layer: first, basis: pca, rank: 7}", "rank 7, expected at most the layer's 6 units"),
        ("{layer: first, basis: turn}", "derived.0"),
        ("{layer: first, basis: rotation, power: 2}", "derived.0.rotation.power: Extra inputs"),
        ("{layer: first, basis: matrix, file: none.npy}", "none.npy: cannot be read"),
        ("{layer: [first, first], basis: identity}", "first@identity is asked for more than once"),
    ],
)
def test_an_entry_that_is_wrong_is_refused_before_anything_runs(
    recipe: list[str], tmp_path: Path, entry: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *recipe, "--set", f"derived=[{entry}]") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run/activations.zarr").exists()


def test_lists_in_an_entry_are_combined(recipe: list[str]) -> None:
    loaded = load_recipe(recipe[0], out="run", overrides=["data=d"])
    found = wanted(loaded.derived, ["first", "second"])
    assert [one.name for one in found if "first" in one.snapshots] == [
        "first@identity", "second@identity", "first@pca-uncentred", "first@pca-2-uncentred", "first@matrix-sae",
    ]  # fmt: skip
    assert RotationBasis(0.5, 1) in [one.basis for one in found]
    assert PcaBasis(2, centred=False) in [one.basis for one in found]
    (matrix,) = [one.basis for one in found if isinstance(one.basis, MatrixBasis)]
    assert matrix.relu
    with pytest.raises(DissectError, match=r"second@rotation-1-s0.* is asked for more than once"):
        wanted([*loaded.derived, loaded.derived[1]], ["first", "second"])


def test_a_run_stopped_between_matrices_goes_on(
    recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        """What a killed run looks like from inside."""

    written, real = [], stored.derived_fingerprint

    def stop(*args: object) -> str:
        if len(written) == 4:
            raise Stopped
        written.append(args)
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(stored, "derived_fingerprint", stop)
        with pytest.raises(Stopped):
            call("run", *recipe)
    url = str(tmp_path / "run/activations.zarr")
    assert len([key for key in store.markers(url) if "@" in key]) == 4
    assert call("run", *recipe) == 0
    assert sealed(url, objects.sizes(url), store.markers(url)) == {"first", "second"}
    assert {*FIRST, *SECOND} <= set(dissected(tmp_path / "run")["second"])
