"""A recipe says what is wrong with it, and overrides reach every field."""

from pathlib import Path

import pytest
from checkout import PIPELINES

from dissect_xr.cli.recipe import BrodenProbe, DigitsProbe, load_recipe, read_raw
from dissect_xr.errors import DissectError

MINIMAL = """
probe: {kind: broden, folder: "${data}/labels"}
model:
  factory: ${here}/model.py:Net
  input_size: 64
  snapshots:
    - {name: a, step: 1}
    - {name: b, step: 2, weights: b.pt}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


def test_words_are_filled_in(recipe: Path) -> None:
    loaded = load_recipe(recipe, out="run", overrides=["data=some/where"])
    assert isinstance(loaded.probe, BrodenProbe)
    assert loaded.probe.folder == "some/where/labels"
    assert loaded.model.factory == f"{recipe.parent}/model.py:Net"
    assert loaded.model.input_size == (64, 64)


def test_defaults_are_the_papers(recipe: Path) -> None:
    loaded = load_recipe(recipe, out="run", overrides=["data=d"])
    assert loaded.dissect.fractions == [0.005]
    assert (loaded.dissect.anchoring, loaded.dissect.domain) == ("receptive_field", "annotated")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("dissect.fractions=[0.01, 0.04]", lambda r: r.dissect.fractions == [0.01, 0.04]),
        ("activations.batch=7", lambda r: r.activations.batch == 7),
        ("model.snapshots.1.weights=c.pt", lambda r: r.model.snapshots[1].weights == "c.pt"),
        ("model.snapshots.0.metrics.accuracy=0.5", lambda r: r.model.snapshots[0].metrics == {"accuracy": 0.5}),
        ("probe={kind: digits, count: 10}", lambda r: isinstance(r.probe, DigitsProbe) and r.probe.count == 10),
        ("layers=[conv*]", lambda r: r.layers == ["conv*"]),
        ("model.snapshots.1.key=ema.module", lambda r: r.model.snapshots[1].key == "ema.module"),
        ("activations.allow_nondeterministic=true", lambda r: r.activations.allow_nondeterministic),
    ],
)
def test_an_override_reaches(recipe: Path, override: str, read: object) -> None:
    assert read(load_recipe(recipe, out="run", overrides=["data=d", override]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dissect.fractions=half", "dissect.fractions"),
        ("dissect.domian=all", "dissect.domian: Extra inputs are not permitted"),
        ("activations.batch=0", "activations.batch"),
        ("activations.dtype=int8", "activations.dtype"),
        ("model.snapshots=[]", "model.snapshots"),
        ("model.snapshots.5.step=1", "expected an index from 0 to 1"),
        ("probe.kind=imagenet", "probe"),
        ("nonsense", "expected KEY=VALUE"),
        ("model.input_size.x=1", "no group of fields"),
        ('layers=["${nowhere}"]', "none of data, here, out"),
        ("data=[", "not readable as YAML"),
    ],
)
def test_a_wrong_field_is_named(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(DissectError, match=message.replace("[", r"\[").replace(".", r"\.")):
        load_recipe(recipe, out="run", overrides=["data=d", override])


def test_a_tilde_at_the_start_is_the_home_folder(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    model = ["model.factory=~/net.py:Net", "model.snapshots.1.weights=~/b.pt", "model.kwargs.a=a~/b"]
    loaded = load_recipe(recipe, out="run", overrides=["data=~/labels", *model])
    assert isinstance(loaded.probe, BrodenProbe)
    assert loaded.probe.folder == "/home/me/labels/labels"
    assert loaded.model.factory == "/home/me/net.py:Net"
    assert loaded.model.snapshots[1].weights == "/home/me/b.pt"
    assert loaded.model.kwargs == {"a": "a~/b"}


def test_missing_data_says_what_is_expected(recipe: Path) -> None:
    with pytest.raises(DissectError, match=r"probe.folder: expects '\$\{data\}/labels'.*--set data=FOLDER"):
        load_recipe(recipe, out="run")


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just text", "!!python/object/apply:os.system [true]"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(DissectError, match=r"r\.yaml"):
        read_raw(path)


def test_a_field_given_twice_is_refused_with_its_line(recipe: Path) -> None:
    lines = recipe.read_text().rstrip().splitlines()
    recipe.write_text("\n".join([*lines, "layers: [conv9]", "layers: [conv8]"]))
    with pytest.raises(DissectError, match=rf"r?\.yaml, line {len(lines) + 2}: 'layers' is given twice"):
        load_recipe(recipe, out="run")


def test_a_wrong_field_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "probe: {kind: digits}\nmodel:\n  factory: a:b\n  input_size: 8\n  snapshots:\n  - name: x\n    step: y\n"
    )
    with pytest.raises(DissectError, match=r"r\.yaml, line 7: model\.snapshots\.0\.step: "):
        load_recipe(path, out="run")


@pytest.mark.parametrize(
    ("override", "wanted"),
    [("layers=conv1", ["conv1"]), ("layers=all", "all"), ("layers=[a, b]", ["a", "b"])],
)
def test_a_single_layer_is_a_list(recipe: Path, override: str, wanted: object) -> None:
    assert load_recipe(recipe, out="run", overrides=["data=d", override]).layers == wanted
    assert load_recipe(recipe, out="run", overrides=["data=d", "dissect.fractions=0.01"]).dissect.fractions == [0.01]


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"nowhere\.yaml: expected a recipe"):
        read_raw(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", ["camvid", "digits"])
def test_shipped_recipes_are_valid(name: str) -> None:
    path = PIPELINES / f"{name}.yaml"
    loaded = load_recipe(path, out="run", overrides=["data=d"])
    assert len(loaded.model.snapshots) >= 6
    assert len(loaded.layers) == 5
