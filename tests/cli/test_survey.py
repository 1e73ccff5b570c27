"""`dissect-xr survey`: the page is written, answers become a table, and what is missing is said."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import report_case
from runs import call
from survey_case import SMALL, answered, door, honest, save, sheet, written, yes

from dissect_xr.cli.commands.survey import survey
from dissect_xr.survey.key import Key
from dissect_xr.survey.questions import Survey

OPTIONS = ("--units", "4", "--decoys", "2", "--images", "3", "--layer", "conv1", "--layer", "conv2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def key(run: Path) -> Key:
    return written(run)[0]


def test_the_command_writes_the_survey_of_its_options(
    run: Path, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("survey", str(run), *OPTIONS, "--to", str(tmp_path / "ask.html"), "--quiet") == 0
    assert f"survey: {tmp_path}/ask.html (12 questions about 2 layers of late" in capsys.readouterr().out
    assert (tmp_path / "ask.html").read_bytes() == (run / "survey" / f"{key.name}.html").read_bytes()


def test_its_defaults_are_those_of_python() -> None:
    given = {name: one.default for name, one in inspect.signature(survey).parameters.items()}
    ours = Survey()
    for name in ("ask", "snapshot", "fraction", "units", "decoys", "images", "crop", "seed"):
        assert given[name] == getattr(ours, name)


def test_answers_become_the_table(run: Path, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = answered(tmp_path, key, Ann=honest, Ben=honest, Eve=yes)
    assert call("survey", str(run), "--read", *map(str, files)) == 0
    out = capsys.readouterr().out
    printed = [line.split() for line in out.splitlines()]
    for layer in ("conv1", "conv2"):  # all labels fit for all: no kappa; 4 of 6 answers to decoys are no
        assert [layer, "4", "4/4", "100%", "100%", "-", "4/6", "67%"] in printed
    assert ["Ann", "12/12", "4/4", "100%"] in printed
    assert ["Eve", "12/12", "0/4", "0%"] in printed
    assert "No kappa for conv1, conv2: no question has two answers, or all answers are the same." in out


def test_what_is_missing_is_said(run: Path, key: Key, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "[red]Ann[/red] [link=file:///etc/passwd]x[/link]"
    first = next(n for n, one in enumerate(key.questions) if one.origin == "label" and one.unit.startswith("conv1"))
    file = save(tmp_path / "a.json", sheet(key, nasty, {first: {"yes": True}}))
    assert call("survey", str(run), "--read", str(file)) == 0
    printed = capsys.readouterr().out
    assert f"{nasty} answered 1 of 12 questions; the others are in no number." in printed.replace("\n", " ")
    assert "conv1: 3 of 4 units have no answer; rates are over the others." in printed
    assert "One rater: consistency and kappa need two." in printed


def test_descriptions_and_then_phrases_give_the_papers_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    describing, _ = written(run, replace(SMALL, ask="description"))
    files = [*map(str, answered(tmp_path, describing, Ann=door, Ben=door))]
    assert call("survey", str(run), "--read", *files) == 0
    printed = capsys.readouterr().out
    assert "interpretable units by kind" in printed
    page = tmp_path / "ask.html"
    assert call("survey", str(run), *OPTIONS, "--descriptions", *files, "--to", str(page), "--quiet") == 0
    found = sum(not one.unit.endswith("/0") for one in describing.questions)
    assert f"({12 + found} questions" in capsys.readouterr().out
    key, _ = written(run, SMALL, descriptions=_read(run, files), to=page)
    again = answered(tmp_path / "again", key, Cid=honest, Dan=yes)
    assert call("survey", str(run), "--read", *map(str, again)) == 0
    printed = capsys.readouterr().out
    assert "of interpretable" in printed
    for layer in ("conv1", "conv2"):
        n = sum(one.unit.startswith(layer) and not one.unit.endswith("/0") for one in describing.questions)
        cells = [layer, "4", f"{n}/4", f"{n / 4:.0%}", "4/4", "100%", f"{n}/{n}", "100%", "100%", "-", "2/4", "50%"]
        assert cells in [line.split() for line in printed.splitlines()]


def _read(run: Path, files: list[str]) -> object:
    from dissect_xr.survey.answers import read_survey

    return read_survey(run, files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--read",), "name the files of answers"),
        (("--descriptions",), "name the files of answers"),
        (("a.json",), "a.json: what is to be done with it? Give --read or --descriptions."),
        (("--read", "--descriptions", "a.json"), "give one of the two"),
        (("--read", "a.json", "--seed", "0"), "--seed is of a new survey"),
        (("--read", "a.json"), "a.json: expected a file of answers, and it cannot be read"),
        (("--ask", "words"), "ask is 'words': expected one of phrase, description"),
        (("--layer", "conv9"), "has no layer conv9; it has conv1, conv2"),
    ],
)
def test_what_makes_no_sense_is_one_message(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert call("survey", str(run), *arguments) == 2
    assert message in capsys.readouterr().err
