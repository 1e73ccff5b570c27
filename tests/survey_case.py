"""A survey of the small run of `report_case`, and people who answer it as one likes.

Knows: where a survey's key lies, and the fields of a file of answers.
Does not know: what is tested on them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dissect_xr.survey.key import Key, Question
from dissect_xr.survey.page import NOTHING
from dissect_xr.survey.questions import Survey
from dissect_xr.survey.write import plan_survey, write_planned

SMALL = Survey(units=4, decoys=2, images=3, layers=("conv1", "conv2"))
"""4 units of each of two layers, and 2 decoys of each: 12 questions."""


def written(run: Path, survey: Survey = SMALL, **options: Any) -> tuple[Key, Path]:
    """The key and the page of a survey, written."""
    plan = plan_survey(run, survey, **options)
    return plan.key, write_planned(run, plan, show=False)


def sheet(key: Key, rater: str, answers: Mapping[int, Mapping[str, Any]], **others: Any) -> dict[str, Any]:
    """What the page downloads."""
    return {
        "format": "dissect_xr survey answers 1",
        "survey": key.fingerprint,
        "dissection": key.dissection,
        "rater": rater,
        "answers": [{"question": n, **answer} for n, answer in answers.items()],
        **others,
    }


def save(path: Path, content: Any) -> Path:
    """The content as JSON in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def answered(folder: Path, key: Key, **people: Callable[[Question], dict[str, Any] | None]) -> list[Path]:
    """A file for each person, who answers the questions as the function says; None is no answer."""
    files = []
    for name, answer in people.items():
        answers = {n: given for n, one in enumerate(key.questions) if (given := answer(one)) is not None}
        files.append(save(folder / f"{name}.json", sheet(key, name, answers)))
    return files


def yes(question: Question) -> dict[str, Any]:
    """Yes to everything."""
    return {"yes": True}


def honest(question: Question) -> dict[str, Any]:
    """Yes, but not to decoys."""
    return {"yes": question.origin != "decoy"}


def door(question: Question) -> dict[str, Any]:
    """Everything is a door, but channel 0 is nothing."""
    if question.unit.endswith("/0"):
        return {"kind": NOTHING}
    return {"kind": "object", "description": " a  door "}
