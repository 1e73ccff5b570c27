"""Reads what raters answered: the files that the page of a survey downloads.

Knows: the fields of such a file, and that answers belong to one survey of one dissection.
Does not know: what follows from the answers (`table`).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field, ValidationError

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.report.source import Source
from dissect_xr.survey.key import Key, Strict, layer_of, problems, read_key
from dissect_xr.survey.page import FORMAT, KINDS, NOTHING
from dissect_xr.survey.questions import dissection_fingerprint

LARGEST = 64 << 20
"""Bytes of a file of answers; a thousand descriptions are some 100 KB."""

Words = Annotated[str, Field(max_length=1000)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Answer(Strict):
    """One answer: `yes` to a phrase, or `kind` and `description`."""

    question: int
    yes: bool | None = None
    kind: str | None = None
    description: Words | None = None


class Sheet(Strict):
    """The answers of one rater."""

    format: Literal["dissect_xr survey answers 1"]
    survey: Sha256
    dissection: Sha256
    rater: Words
    answers: tuple[Answer, ...]


def read_survey(out: store.Url, files: Sequence[str | Path] | str | Path) -> xr.Dataset:
    """The answers of several raters to one survey, (question, rater), in memory.

    Returns
    -------
    xr.Dataset
        Of a survey of phrases ``yes`` float64: 1, 0, or NaN where a rater did not answer. Of a survey of descriptions
        ``kind`` and ``description``, "" where a rater did not answer. Coordinates ``unit``, ``layer``, ``phrase`` and
        ``origin`` (question): `label`, the unit's label; `people`, a person's description; `decoy`, the label of
        another unit; `rater`, described by each rater.

    Raises
    ------
    DissectError
        If a file is no such file, is of another survey or dissection, repeats a rater, or answers what was not asked.
    """
    paths = [Path(file).expanduser() for file in ([files] if isinstance(files, (str, os.PathLike)) else files)]
    if not paths:
        raise DissectError("no answers were given: name the files that the raters have sent.")
    out, sheets = store.as_url(out), {path: _read(path) for path in paths}
    key = _key(out, sheets)
    _check_raters(sheets)
    for path, sheet in sheets.items():
        _check_answers(path, sheet, key)
    return _dataset(key, list(sheets.values()))


def _read(path: Path) -> Sheet:
    try:
        if path.stat().st_size > LARGEST:
            raise DissectError(f"{path}: has {path.stat().st_size:,} bytes, expected at most {LARGEST:,} of answers.")
        return Sheet.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DissectError(f"{path}: expected a file of answers, and it cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise DissectError(
            f"{path}: expected the answers that the page of a survey downloads ('{FORMAT}'): {problems(error)}."
        ) from error


def _key(out: str, sheets: dict[Path, Sheet]) -> Key:
    """The key of the one survey that all sheets answer, whose dissection is still the run's."""
    (first, one), *others = sheets.items()
    for path, other in others:
        if other.survey != one.survey:
            raise DissectError(
                f"{path}: answers the survey {other.survey[:12]}, and {first} the survey {one.survey[:12]}. Read the "
                "answers of one survey at a time."
            )
    key = read_key(out, one.survey, str(first))
    for path, sheet in sheets.items():
        if sheet.dissection != key.dissection:
            raise DissectError(
                f"{path}: is of the dissection {sheet.dissection[:12]}, its survey of {key.dissection[:12]}. "
                "The file was changed after it was downloaded: ask the rater for another."
            )
    if (now := dissection_fingerprint(Source(out), key.snapshot, key.layers)) != key.dissection:
        raise DissectError(
            f"{out}: {key.name} was made from the dissection {key.dissection[:12]}, which is not there any more: that "
            f"of {key.snapshot} is {now[:12]} now. Read the answers beside the dissection that they are of, or make "
            "a new survey."
        )
    return key


def _check_raters(sheets: dict[Path, Sheet]) -> None:
    seen: dict[str, Path] = {}
    for path, sheet in sheets.items():
        name = _plain(sheet.rater).casefold()
        if not name or _controls(name):
            raise DissectError(f"{path}: does not say who answered, in letters: give 'rater' a name.")
        if name in seen:
            raise DissectError(
                f"{path}: holds answers of {sheet.rater!r}, as {seen[name]} does. Give one file of each rater, the "
                "later one; let two people of one name take different names."
            )
        seen[name] = path


def _check_answers(path: Path, sheet: Sheet, key: Key) -> None:
    seen = set()
    for answer in sheet.answers:
        where = f"{path}, question {answer.question}"
        if not 0 <= answer.question < len(key.questions):
            raise DissectError(f"{where}: the survey has the questions 0 to {len(key.questions) - 1}.")
        if answer.question in seen:
            raise DissectError(f"{where}: is answered twice. Keep one of the two.")
        seen.add(answer.question)
        given = {name for name in ("yes", "kind", "description") if getattr(answer, name) is not None}
        if key.ask == "phrase":
            if given != {"yes"}:
                raise DissectError(f"{where}: expected 'yes', true or false, got {', '.join(sorted(given)) or 'none'}.")
        elif answer.kind not in (*KINDS, NOTHING):
            raise DissectError(f"{where}: kind is {answer.kind!r}: expected one of {', '.join((*KINDS, NOTHING))}.")
        elif "yes" in given or (answer.kind == NOTHING) == bool(_plain(answer.description or "")):
            raise DissectError(
                f"{where}: expected a description with one of the six kinds, or '{NOTHING}' without one."
            )
        elif _controls(_plain(answer.description or "")):
            raise DissectError(f"{where}: the description holds control characters, which are no text. Remove them.")


def _dataset(key: Key, sheets: Sequence[Sheet]) -> xr.Dataset:
    shape = len(key.questions), len(sheets)
    yes = np.full(shape, np.nan)
    kind, description = np.full(shape, "", object), np.full(shape, "", object)
    for rater, sheet in enumerate(sheets):
        for answer in sheet.answers:
            at = answer.question, rater
            if answer.yes is not None:
                yes[at] = answer.yes
            kind[at], description[at] = answer.kind or "", _plain(answer.description or "")
    found: dict[str, Any] = {"yes": yes} if key.ask == "phrase" else {"kind": kind, "description": description}
    variables = {
        name: (("question", "rater"), values if values.dtype == np.float64 else values.astype(str))
        for name, values in found.items()
    }
    names = ("unit", "phrase", "origin")
    coords: dict[str, Any] = {
        "question": np.arange(shape[0]),
        "rater": np.array([_plain(sheet.rater) for sheet in sheets], dtype=str),
        "layer": ("question", np.array([layer_of(question.unit) for question in key.questions], dtype=str)),
    } | {name: ("question", np.array([getattr(one, name) for one in key.questions], dtype=str)) for name in names}
    return xr.Dataset(
        variables,
        coords,
        {
            "ask": key.ask,
            "survey_sha256": key.fingerprint,
            "dissection_sha256": key.dissection,
            "snapshot": key.snapshot,
            "layers": list(key.layers),
            "fraction": key.fraction,
            "seed": key.seed,
            "described": int(key.described),
        },
    )


def _controls(text: str) -> bool:
    """Whether the text holds control characters, with which a name could write anywhere in a terminal."""
    return any(unicodedata.category(character) == "Cc" for character in text)


def _plain(text: str) -> str:
    """The text with single spaces, and none at its ends."""
    return " ".join(text.split())
