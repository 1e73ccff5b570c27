"""The papers' table: what the answers of several raters say of each layer.

Knows: what is counted for which question.
Does not know: files, or how a table is printed.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, section 3.1: interpretable units, human consistency,
and the share of automatic labels that people find descriptive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.survey.agreement import fleiss_kappa, majority, second_group
from dissect_xr.survey.page import KINDS, NOTHING
from dissect_xr.survey.questions import digest

LONG_NAMES = {
    "units": "units asked about",
    "answered": "of these, units with an answer to each of their phrases",
    "agree": "answered units whose label more than half of the raters find descriptive",
    "interpretable": "answered units in which more than half of the raters find something common",
    "agree_interpretable": "interpretable units whose label more than half of the raters find descriptive",
    "consistency": "share of raters who find descriptive what most of the others do",
    "kappa": "Fleiss' kappa of the answers that are not to decoys",
    "decoy_answers": "answers to phrases that are the label of another unit",
    "decoys_passed": "of these, answers that say no",
    "units_of_kind": "interpretable units of which more than half of the raters who find something say this kind",
    "rater_answers": "questions that the rater answered",
    "rater_decoy_answers": "decoys that the rater answered",
    "rater_decoys_passed": "of these, decoys that the rater said no to",
}


def survey_table(answers: xr.Dataset) -> xr.Dataset:
    """What raters say of each layer, (layer_name), and of each rater's care, (rater); from :func:`read_survey`.

    Always there are ``units`` and ``answered`` int64, and ``consistency`` and ``kappa`` float64, NaN where they are not
    defined: both need two raters, and kappa different answers. Rates are over answered units. A majority is more than
    half of those who answered. Leave raters out with ``answers.sel(rater=names)``.

    Of a survey of phrases there are ``agree``, ``decoy_answers``, ``decoys_passed`` and the same of each rater. With
    people's descriptions among the phrases there are ``interpretable`` (units whose description by people most raters
    find descriptive) and ``agree_interpretable``, and ``consistency`` is over the descriptions, as in the paper;
    otherwise it is over the labels. Of a survey of descriptions there are ``interpretable`` and ``units_of_kind``
    (layer_name, kind).

    Examples
    --------
    Two units, three raters. Two of three agree with the first label, and one with the second.

    >>> answers = xr.Dataset(
    ...     {"yes": (("question", "rater"), [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])},
    ...     {"unit": ("question", ["conv5/0", "conv5/1"]), "layer": ("question", ["conv5", "conv5"]),
    ...      "origin": ("question", ["label", "label"]), "rater": ["Ann", "Ben", "Eve"]},
    ...     {"ask": "phrase", "layers": ["conv5"], "described": False},
    ... )
    >>> table = survey_table(answers)
    >>> table.agree.item(), table.answered.item()
    (1, 2)
    """
    if answers.sizes.get("rater", 0) == 0:
        raise DissectError("the answers are of no rater: select at least one.")
    phrases = answers.attrs["ask"] == "phrase"
    row: Callable[[xr.Dataset], dict[str, Any]] = _phrases if phrases else _descriptions
    there = set(answers["layer"].values.tolist())
    layers = [layer for layer in np.atleast_1d(answers.attrs["layers"]).tolist() if layer in there]
    rows = [row(answers.isel(question=answers["layer"].values == layer)) for layer in layers]
    dims = {"units_of_kind": ("layer_name", "kind")}
    found = {name: (dims.get(name, ("layer_name",)), np.array([one[name] for one in rows])) for name in rows[0]}
    coords = {"layer_name": layers, "rater": answers["rater"].values} | ({} if phrases else {"kind": list(KINDS)})
    table = xr.Dataset(found | _of_raters(answers), coords, answers.attrs)
    for name, values in table.data_vars.items():
        values.attrs = {"long_name": LONG_NAMES[str(name)]}
    return table


def people_descriptions(answers: xr.Dataset, *, seed: int) -> dict[str, str | None]:
    """Unit -> one of the descriptions that its raters gave, drawn by `seed`; None where most of them found nothing.

    A unit that nobody answered is missing.
    """
    if answers.attrs.get("ask") != "description":
        raise DissectError("expected the answers of a survey of descriptions, got those of a survey of phrases.")
    found: dict[str, str | None] = {}
    finds = _finds(answers)
    for n, unit in enumerate(answers["unit"].values.tolist()):
        if np.isfinite(finds[n]).any():
            given = sorted({text for text in answers["description"].values[n].tolist() if text})
            drawn = min(given, key=lambda text: digest(seed, "description", unit, text), default=None)
            found[unit] = drawn if majority(finds[n : n + 1])[0] else None
    return found


def _phrases(one: xr.Dataset) -> dict[str, Any]:
    """The row of one layer of a survey of phrases."""
    yes, origin, unit = one["yes"].values, one["origin"].values, one["unit"].values
    labels, people, decoys = (yes[origin == name] for name in ("label", "people", "decoy"))
    described = bool(one.attrs["described"])
    asked = {name: n for n, name in enumerate(unit[origin == "people"].tolist())}
    second = [asked.get(name) for name in unit[origin == "label"].tolist()]
    any_people = np.isfinite(people).any(axis=1)
    answered = np.isfinite(labels).any(axis=1) & np.array([n is None or any_people[n] for n in second], np.bool_)
    agree = majority(labels) & answered
    row = {"units": len(labels), "answered": int(answered.sum()), "agree": int(agree.sum())}
    if described:
        finds = majority(people)
        interpretable = answered & np.array([n is not None and finds[n] for n in second], np.bool_)
        row |= {"interpretable": int(interpretable.sum()), "agree_interpretable": int((interpretable & agree).sum())}
    real = yes[origin != "decoy"]
    counts = np.stack([(real == 1).sum(axis=1), (real == 0).sum(axis=1)], axis=1)
    return row | {
        "consistency": _share(*second_group(people if described else labels)),
        "kappa": fleiss_kappa(counts),
        "decoy_answers": int(np.isfinite(decoys).sum()),
        "decoys_passed": int((decoys == 0).sum()),
    }


def _descriptions(one: xr.Dataset) -> dict[str, Any]:
    """The row of one layer of a survey of descriptions."""
    kind, finds = one["kind"].values, _finds(one)
    counts = np.stack([(kind == name).sum(axis=1) for name in (*KINDS, NOTHING)], axis=1)
    interpretable, something = majority(finds), counts[:, :-1].sum(axis=1)
    most = 2 * counts[:, :-1] > something[:, None]
    return {
        "units": len(kind),
        "answered": int(np.isfinite(finds).any(axis=1).sum()),
        "interpretable": int(interpretable.sum()),
        "consistency": _share(*second_group(finds)),
        "kappa": fleiss_kappa(counts),
        "units_of_kind": (most & interpretable[:, None]).sum(axis=0),
    }


def _finds(answers: xr.Dataset) -> NDArray[np.float64]:
    """(question, rater): 1 where a rater finds something common, 0 where nothing, NaN without an answer."""
    kind = answers["kind"].values
    return np.where(kind == "", np.nan, (kind != NOTHING).astype(np.float64))


def _of_raters(answers: xr.Dataset) -> dict[str, Any]:
    """How much each rater answered, and how many decoys each passed."""
    if answers.attrs["ask"] == "description":
        return {"rater_answers": ("rater", (answers["kind"].values != "").sum(axis=0))}
    yes = answers["yes"].values
    decoys = yes[answers["origin"].values == "decoy"]
    return {
        "rater_answers": ("rater", np.isfinite(yes).sum(axis=0)),
        "rater_decoy_answers": ("rater", np.isfinite(decoys).sum(axis=0)),
        "rater_decoys_passed": ("rater", (decoys == 0).sum(axis=0)),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan
