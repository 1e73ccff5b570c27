"""Questions of a survey: which units, which decoys, the same for the same seed."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_case
from survey_case import SMALL

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.scores import iou
from dissect_xr.errors import DissectError
from dissect_xr.report.source import Source
from dissect_xr.survey.key import Key, layer_of
from dissect_xr.survey.questions import FAR, Survey, digest, make_key, phrase


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(str(report_case.write_run(tmp_path_factory.mktemp("run"))))


def units(key: Key, layer: str, *origins: str) -> list[str]:
    return sorted(q.unit for q in key.questions if layer_of(q.unit) == layer and q.origin in origins)


def labels(source: Source) -> dict[str, str]:
    best = best_concept(source.results.sel(snapshot="late")).load()
    names = zip(best["concept_name"].values.tolist(), best["category"].values.tolist(), strict=True)
    return {unit: phrase(*name) for unit, name in zip(best["unit"].values.tolist(), names, strict=True)}


def test_each_unit_is_asked_about_with_its_label(source: Source) -> None:
    key, known = make_key(source, SMALL), labels(source)
    assert (key.snapshot, key.layers, key.fraction) == ("late", ("conv1", "conv2"), report_case.FRACTIONS[0])
    for layer in key.layers:
        assert len(set(units(key, layer, "label"))) == 4
        assert len(units(key, layer, "decoy")) == 2
    assert all(q.phrase == known[q.unit] for q in key.questions if q.origin == "label")


def test_a_decoy_is_the_label_of_another_unit_that_this_one_does_not_detect(source: Source) -> None:
    key, known = make_key(source, replace(SMALL, units=3, decoys=5)), labels(source)
    ds = source.results.sel(snapshot="late").load()
    scores = iou(ds)
    decoys = [q for q in key.questions if q.origin == "decoy"]
    assert decoys
    for q in decoys:
        others = {known[unit] for unit in known if layer_of(unit) == layer_of(q.unit) and unit != q.unit}
        assert q.phrase in others - {known[q.unit]}
        names = ds["concept_name"].values.tolist()
        index = next(n for n, name in enumerate(names) if phrase(name, "") == q.phrase or name == q.phrase)
        mine = scores.sel(unit=q.unit)
        assert float(mine[index]) <= FAR * float(mine.max())


def test_decoys_take_units_of_their_own_while_there_are_some(source: Source) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        key = make_key(source, replace(SMALL, units=6, decoys=3, layers=("conv2",)))
    assert not set(units(key, "conv2", "label")) & set(units(key, "conv2", "decoy"))


def test_dead_units_are_not_asked_about(source: Source) -> None:
    key = make_key(source, Survey(units=100, decoys=0))
    assert units(key, "conv1", "label") == [f"conv1/{n}" for n in range(5)]
    assert len(units(key, "conv2", "label")) == 11
    assert {"conv1/5", "conv2/11"}.isdisjoint(q.unit for q in key.questions)


def test_the_same_seed_gives_the_same_survey_and_another_seed_another(source: Source) -> None:
    key = make_key(source, SMALL)
    assert make_key(Source(source.out), SMALL) == key
    assert make_key(Source(source.out), SMALL).fingerprint == key.fingerprint
    other = make_key(source, replace(SMALL, seed=1))
    assert [q.unit for q in other.questions] != [q.unit for q in key.questions]
    assert other.fingerprint != key.fingerprint


@pytest.mark.parametrize(
    "changed", [{"images": 4}, {"crop": 0.5}, {"decoys": 1}, {"units": 3}, {"layers": ("conv1",)}, {"fraction": 0.2}]
)
def test_whatever_changes_what_is_shown_changes_the_fingerprint(source: Source, changed: dict[str, Any]) -> None:
    survey = replace(SMALL, **changed)
    assert make_key(Source(source.out, survey.fraction), survey).fingerprint != make_key(source, SMALL).fingerprint


def test_a_larger_survey_asks_about_the_units_of_a_smaller_one(source: Source) -> None:
    three, five = (make_key(source, Survey(units=n, decoys=0)) for n in (3, 5))
    assert set(units(three, "conv2", "label")) < set(units(five, "conv2", "label"))


def test_draws_do_not_depend_on_a_version_of_anything() -> None:
    assert digest(7, "unit", "conv5/3").hex()[:16] == "29e613e9e5bc04e6"  # printf '7\\0unit\\0conv5/3' | sha256sum


def test_questions_of_layers_and_decoys_are_mixed(source: Source) -> None:
    origins = [q.origin for q in make_key(source, SMALL).questions]
    assert origins != sorted(origins)
    assert origins != sorted(origins, reverse=True)


def test_raters_who_describe_get_no_phrase(source: Source) -> None:
    key = make_key(source, replace(SMALL, ask="description"))
    assert {(q.phrase, q.origin) for q in key.questions} == {("", "rater")}
    assert [sorted(units(key, layer, "rater")) for layer in key.layers] == [
        units(make_key(source, SMALL), layer, "label") for layer in key.layers
    ]


def test_descriptions_are_asked_about_beside_the_labels(source: Source) -> None:
    plain = make_key(source, SMALL)
    asked = [q.unit for q in plain.questions if q.origin == "label"]
    described = {unit: f"thing {n}" if n else None for n, unit in enumerate(asked)}
    key = make_key(source, SMALL, described=described)
    assert key.described
    assert {q.unit: q.phrase for q in key.questions if q.origin == "people"} == {
        unit: text for unit, text in described.items() if text
    }
    assert [q for q in key.questions if q.origin != "people"] == list(plain.questions)
    with pytest.raises(DissectError, match=r"1 units of this survey, such as conv\d/\d+, are not in the survey of"):
        make_key(source, SMALL, described=dict.fromkeys(asked[1:], "x"))


def test_a_snapshot_that_lacks_a_layer_is_asked_about_what_it_has(source: Source) -> None:
    key = make_key(source, Survey(snapshot="early", units=5, decoys=1))
    assert key.layers == ("conv1",)
    assert {layer_of(q.unit) for q in key.questions} == {"conv1"}
    assert len(key.questions) == 6


def test_what_is_not_there_is_refused(source: Source) -> None:
    with pytest.raises(DissectError, match="no snapshot 'end'; there are early, mid"):
        make_key(source, Survey(snapshot="end"))
    with pytest.raises(DissectError, match="snapshot 'early' has no layer conv2; it has conv1"):
        make_key(source, Survey(snapshot="early", layers=("conv2",)))
    with pytest.raises(DissectError, match=r"fraction 0\.3 was not dissected"):
        make_key(Source(source.out, 0.3), SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ask": "phrases"}, "ask is 'phrases': expected one of phrase, description"),
        ({"units": 0}, "units is 0: expected 1 or more"),
        ({"decoys": -1}, "decoys is -1: expected 0 or more"),
        ({"images": 0}, "images is 0"),
        ({"crop": 1.5}, r"crop is 1\.5: expected a share"),
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DissectError, match=message):
        Survey(**options)


def test_a_layer_of_one_label_has_no_decoys_and_says_so(tmp_path: Path) -> None:
    run = Source(str(report_case.write_run(tmp_path, concepts=1, images=8)))
    with pytest.warns(UserWarning, match="layer conv1 gets 0 decoys, not 2: its other units have no label"):
        key = make_key(run, Survey(units=4, decoys=2, layers=("conv1",)))
    assert {q.origin for q in key.questions} == {"label"}


def test_dead_layers_are_left_out_and_said(tmp_path: Path) -> None:
    run = Source(str(report_case.write_run(tmp_path, units=1, images=8)))
    with pytest.warns(UserWarning, match="layer conv2 of late is left out: all of its units are dead"):
        key = make_key(run, Survey(units=2, decoys=0))
    assert key.layers == ("conv1",)
    with (
        pytest.warns(UserWarning, match="conv2 of late is left out"),
        pytest.raises(DissectError, match="all units of conv2 are dead"),
    ):
        make_key(run, Survey(layers="conv2"))
