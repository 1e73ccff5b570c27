"""Files of answers: read as they were given, and refused where they are of something else."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_case
from survey_case import SMALL, answered, door, honest, save, sheet, written, yes

from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.errors import DissectError
from dissect_xr.survey import page
from dissect_xr.survey.answers import Sheet, read_survey
from dissect_xr.survey.key import Key
from dissect_xr.survey.write import plan_survey

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def key(run: Path) -> Key:
    return written(run)[0]


@pytest.fixture(scope="module")
def describing(run: Path) -> Key:
    return written(run, replace(SMALL, ask="description"))[0]


def test_answers_come_back_as_they_were_given(run: Path, key: Key, tmp_path: Path) -> None:
    files = answered(tmp_path, key, Ann=yes, Ben=honest)
    found = read_survey(run, files)
    assert found["yes"].dims == ("question", "rater")
    assert found["rater"].values.tolist() == ["Ann", "Ben"]
    for name in ("unit", "phrase", "origin"):
        assert found[name].values.tolist() == [getattr(one, name) for one in key.questions]
    assert set(found["layer"].values.tolist()) == {"conv1", "conv2"}
    assert found["yes"].sel(rater="Ann").values.tolist() == [1.0] * 12
    assert found["yes"].sel(rater="Ben").values.tolist() == [float(q.origin != "decoy") for q in key.questions]
    assert found.attrs["survey_sha256"] == key.fingerprint
    assert found.attrs["layers"] == ["conv1", "conv2"]


def test_what_was_not_answered_is_missing(run: Path, key: Key, tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", sheet(key, "  Ann  Lee ", {3: {"yes": False}}))
    found = read_survey(run, file)
    assert found["rater"].values.tolist() == ["Ann Lee"]
    assert np.flatnonzero(np.isfinite(found["yes"].values[:, 0])).tolist() == [3]
    assert found["yes"].values[3, 0] == 0.0


def test_descriptions_come_back_with_single_spaces(run: Path, describing: Key, tmp_path: Path) -> None:
    found = read_survey(run, answered(tmp_path, describing, Ann=door))
    nothing = np.array([one.unit.endswith("/0") for one in describing.questions])
    assert nothing.any()
    assert found["description"].values[:, 0].tolist() == ["" if n else "a door" for n in nothing]
    assert found["kind"].values[:, 0].tolist() == ["nothing in common" if n else "object" for n in nothing]


def _with(**fields: Any) -> Edit:
    return lambda content: content | fields


def _answer(**answer: Any) -> Edit:
    return lambda content: content | {"answers": [answer]}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _with(survey="0" * 64),
            r"bad\.json: answers survey-000000000000, which is no survey of .*its surveys are ",
        ),
        (_with(survey="../../etc/passwd"), "survey: String should match pattern"),
        (_with(dissection="0" * 64), "is of the dissection 000000000000, its survey of"),
        (_with(format="1"), r"bad\.json: expected the answers that the page of a survey downloads"),
        (_with(rater=" \t"), "does not say who answered"),
        (_with(rater="An\x1b[2Jn"), "does not say who answered, in letters"),
        (_with(rater="x" * 1001), "rater: String should have at most 1000 characters"),
        (_with(more=1), "more: Extra inputs are not permitted"),
        (lambda content: [content], "the file: Input should be an object"),
        (_answer(question=12, yes=True), "question 12: the survey has the questions 0 to 11"),
        (_answer(question=-1, yes=True), "question -1: the survey has the questions 0 to 11"),
        (_answer(question=0, yes="true"), r"answers\.0\.yes: Input should be a valid boolean, got 'true'"),
        (_answer(question=0), "question 0: expected 'yes', true or false, got none"),
        (_answer(question=0, kind="object", description="x"), "expected 'yes', true or false, got description, kind"),
        (
            lambda content: content | {"answers": [{"question": 1, "yes": True}, {"question": 1, "yes": False}]},
            "question 1: is answered twice",
        ),
    ],
)
def test_what_is_no_answer_to_this_survey_is_refused(
    run: Path, key: Key, tmp_path: Path, edit: Edit, message: str
) -> None:
    save(tmp_path / "bad.json", edit(sheet(key, "Ann", {0: {"yes": True}})))
    with pytest.raises(DissectError, match=message):
        read_survey(run, [tmp_path / "bad.json"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"yes": True}, "kind is None: expected one of scene, region or surface"),
        ({"kind": "thing", "description": "x"}, "kind is 'thing'"),
        ({"kind": "object", "description": "  "}, "expected a description with one of the six kinds"),
        ({"kind": "nothing in common", "description": "x"}, "or 'nothing in common' without one"),
        ({"kind": "object", "description": "x", "yes": True}, "expected a description with one of"),
        ({"kind": "object", "description": "a\x1bb"}, "holds control characters"),
    ],
)
def test_what_is_no_description_is_refused(
    run: Path, describing: Key, tmp_path: Path, answer: dict[str, Any], message: str
) -> None:
    save(tmp_path / "bad.json", sheet(describing, "Ann", {2: answer}))
    with pytest.raises(DissectError, match=rf"bad\.json, question 2: .*{message}"):
        read_survey(run, [tmp_path / "bad.json"])


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\xff\xfe"])
def test_what_is_no_json_is_refused(run: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="latin-1")
    with pytest.raises(DissectError, match=r"bad\.json: expected the answers"):
        read_survey(run, [tmp_path / "bad.json"])


def test_missing_and_huge_files_and_none_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DissectError, match=r"gone\.json: expected a file of answers, and it cannot be read: No such"):
        read_survey(run, [tmp_path / "gone.json"])
    with pytest.raises(DissectError, match="no answers were given"):
        read_survey(run, [])
    monkeypatch.setattr("dissect_xr.survey.answers.LARGEST", 10)
    with pytest.raises(DissectError, match=r"has 11 bytes, expected at most 10"):
        read_survey(run, save(tmp_path / "big.json", "x" * 9))


def test_two_surveys_and_two_files_of_one_rater_are_refused(
    run: Path, key: Key, describing: Key, tmp_path: Path
) -> None:
    one, other = (
        save(tmp_path / "1.json", sheet(key, "Ann", {})),
        save(tmp_path / "2.json", sheet(describing, "Eve", {})),
    )
    with pytest.raises(DissectError, match=r"2\.json: answers the survey .*Read the answers of one survey at a time"):
        read_survey(run, [one, other])
    again = save(tmp_path / "3.json", sheet(key, " ANN ", {}))
    with pytest.raises(DissectError, match=r"3\.json: holds answers of ' ANN ', as .*1\.json does"):
        read_survey(run, [one, again])


def test_a_survey_of_another_run_or_an_edited_key_is_refused(run: Path, key: Key, tmp_path: Path) -> None:
    (file,) = answered(tmp_path, key, Ann=yes)
    with pytest.raises(DissectError, match=r"which is no survey of .*: it has none"):
        read_survey(tmp_path, file)
    stored = run / "survey" / f"{key.name}.json"
    before = stored.read_text()
    try:
        stored.write_text(before.replace('"seed": 0', '"seed": 1'))
        with pytest.raises(DissectError, match="was changed after the survey was made"):
            read_survey(run, file)
        stored.write_text(before.replace('"seed"', '"speed"'))
        with pytest.raises(DissectError, match=r"speed: Extra inputs are not permitted.*Make the survey again"):
            read_survey(run, file)
    finally:
        stored.write_text(before)


def test_answers_to_a_dissection_that_is_gone_are_refused(run: Path, key: Key, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (file,) = answered(tmp_path, key, Ann=yes)
    assert read_survey(copy, file).sizes["rater"] == 1
    for folder in ("dissection.zarr", "markers/dissection.zarr"):
        shutil.rmtree(copy / folder)
    with pytest.raises(DissectError, match="which is not there any more"):
        read_survey(copy, file)
    stores = (str(copy / name) for name in ("activations.zarr", "probe.zarr", "dissection.zarr"))
    dissect(*stores, method=Method((0.05,), "half_pixel"), show=False)
    with pytest.raises(DissectError, match="which is not there any more: that of late is"):
        read_survey(copy, file)


def test_descriptions_of_another_snapshot_fraction_or_kind_are_refused(
    run: Path, key: Key, describing: Key, tmp_path: Path
) -> None:
    described = read_survey(run, answered(tmp_path, describing, Ann=door))
    plan = plan_survey(run, SMALL, descriptions=described)
    assert {one.phrase for one in plan.key.questions if one.origin == "people"} == {"a door"}
    with pytest.raises(DissectError, match="the descriptions are of the snapshot late, the survey is of mid"):
        plan_survey(run, replace(SMALL, snapshot=report_case.SNAPSHOTS[1][0]), descriptions=described)
    with pytest.raises(DissectError, match=r"the descriptions are of the fraction 0\.05, the survey is of 0\.2"):
        plan_survey(run, replace(SMALL, fraction=0.2), descriptions=described)
    with pytest.raises(DissectError, match="leave out ask='description'"):
        plan_survey(run, replace(SMALL, ask="description"), descriptions=described)
    with pytest.raises(DissectError, match="expected the answers of a survey of descriptions"):
        plan_survey(run, SMALL, descriptions=read_survey(run, answered(tmp_path, key, Ben=yes)))
    described.attrs["dissection_sha256"] = "0" * 64
    with pytest.raises(DissectError, match="the descriptions are of another dissection"):
        plan_survey(run, SMALL, descriptions=described)


def test_the_page_and_the_reader_mean_the_same_file() -> None:
    assert Sheet.model_fields["format"].annotation.__args__ == (page.FORMAT,)
    assert len({*page.KINDS, page.NOTHING}) == 7
