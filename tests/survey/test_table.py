"""The papers' table, with numbers that one can count with the fingers."""

from math import isnan, nan
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dissect_xr.errors import DissectError
from dissect_xr.survey.page import KINDS, NOTHING
from dissect_xr.survey.table import LONG_NAMES, people_descriptions, survey_table

RATERS = ["Ann", "Ben", "Eve"]


def phrases(rows: list[tuple[str, str, list[float]]], *, described: bool = False) -> xr.Dataset:
    """Answers to phrases: (unit, origin, answers of three raters)."""
    units, origins, yes = zip(*rows, strict=True)
    return xr.Dataset(
        {"yes": (("question", "rater"), np.array(yes, np.float64))},
        {
            "unit": ("question", list(units)),
            "layer": ("question", [unit.partition("/")[0] for unit in units]),
            "origin": ("question", list(origins)),
            "rater": RATERS,
        },
        {"ask": "phrase", "layers": ["b", "a"], "described": int(described)},
    )


def descriptions(rows: list[tuple[str, list[tuple[str, str]]]]) -> xr.Dataset:
    """Answers in words: (unit, (kind, description) of three raters)."""
    units, given = zip(*rows, strict=True)
    kind, text = (np.array([[pair[n] for pair in row] for row in given]) for n in (0, 1))
    return xr.Dataset(
        {"kind": (("question", "rater"), kind), "description": (("question", "rater"), text)},
        {
            "unit": ("question", list(units)),
            "layer": ("question", [unit.partition("/")[0] for unit in units]),
            "rater": RATERS,
        },
        {"ask": "description", "layers": ["b", "a"]},
    )


def row(table: xr.Dataset, layer: str) -> dict[str, Any]:
    one = table.sel(layer_name=layer)
    return {str(name): values.item() for name, values in one.data_vars.items() if not values.dims}


LABELS = [
    ("a/0", "label", [1, 1, 0]),  # most agree
    ("a/1", "label", [1, 0, nan]),  # one of two is not most
    ("a/2", "label", [nan, nan, nan]),  # not answered
    ("a/3", "label", [1, 1, 1]),
    ("a/4", "decoy", [0, 0, 1]),
    ("a/0", "decoy", [0, nan, 1]),
    ("b/0", "label", [0, 0, 0]),
]


def test_labels_by_hand() -> None:
    table = survey_table(phrases(LABELS))
    assert table["layer_name"].values.tolist() == ["b", "a"], "in the order of the model"
    found = row(table, "a")
    assert (found["units"], found["answered"], found["agree"]) == (4, 3, 2)
    assert (found["decoy_answers"], found["decoys_passed"]) == (5, 3)
    # a/0: only Eve sees most of the others say yes, and says no. a/1: Ben sees Ann's yes, and says no. a/3: all three.
    assert found["consistency"] == 3 / 5
    # Answers: 3, 2 and 3, of which 6 are yes and 2 no. By chance (2 + 1 + 2) * 2 * 6/8 * 2/8 = 15/8 differ; there do
    # 2 * 2*1/3 = 4/3 of a/0 and 2 * 1*1/2 = 1 of a/1.
    assert found["kappa"] == pytest.approx(1 - (4 / 3 + 1) / (15 / 8), abs=1e-12)
    assert "interpretable" not in table


def test_a_number_that_is_not_defined_is_missing() -> None:
    found = row(survey_table(phrases(LABELS)), "b")
    assert isnan(found["consistency"])
    assert isnan(found["kappa"])
    assert (found["units"], found["agree"], found["decoy_answers"]) == (1, 0, 0)


def test_the_care_of_raters() -> None:
    table = survey_table(phrases(LABELS))
    assert table["rater"].values.tolist() == RATERS
    assert table["rater_answers"].values.tolist() == [6, 5, 5]
    assert table["rater_decoy_answers"].values.tolist() == [2, 1, 2]
    assert table["rater_decoys_passed"].values.tolist() == [2, 1, 0]


def test_a_rater_is_left_out_by_selecting_the_others() -> None:
    table = survey_table(phrases(LABELS).sel(rater=["Ann", "Ben"]))
    found = row(table, "a")
    assert (found["answered"], found["agree"]) == (3, 2)
    assert (found["decoy_answers"], found["decoys_passed"]) == (3, 3)
    assert table.sizes["rater"] == 2
    with pytest.raises(DissectError, match="are of no rater"):
        survey_table(phrases(LABELS).sel(rater=[]))


def test_labels_and_peoples_descriptions_by_hand() -> None:
    rows = [
        ("a/0", "label", [1, 1, 0]), ("a/0", "people", [1, 1, 1]),
        ("a/1", "label", [0, 0, 1]), ("a/1", "people", [1, 1, 0]),
        ("a/2", "label", [1, 1, 1]), ("a/2", "people", [0, 0, 1]),  # people do not stand by their description
        ("a/3", "label", [1, 1, 1]),  # people found nothing
        ("a/4", "label", [1, 1, 1]), ("a/4", "people", [nan, nan, nan]),  # not answered
    ]  # fmt: skip
    found = row(survey_table(phrases(rows, described=True)), "a")
    assert (found["units"], found["answered"]) == (5, 4)
    assert (found["interpretable"], found["agree"], found["agree_interpretable"]) == (2, 3, 1)
    # Over descriptions. a/0: all three. a/1: only Eve sees most of the others say yes, and says no. a/2: none sees so.
    assert found["consistency"] == 3 / 4


OBJECT, SCENE = KINDS[2], KINDS[0]


def test_descriptions_by_hand() -> None:
    rows = [
        ("a/0", [(OBJECT, "car"), (OBJECT, "cars"), (SCENE, "street")]),
        ("a/1", [(OBJECT, "wheel"), (SCENE, "road"), (NOTHING, "")]),  # most find something, but not of one kind
        ("a/2", [(NOTHING, ""), (NOTHING, ""), (SCENE, "sea")]),
        ("a/3", [("", ""), ("", ""), ("", "")]),
    ]
    table = survey_table(descriptions(rows))
    found = row(table, "a")
    assert (found["units"], found["answered"], found["interpretable"]) == (4, 3, 2)
    kinds = table["units_of_kind"].sel(layer_name="a")
    assert kinds.sel(kind=OBJECT) == 1
    assert kinds.sum() == 1
    # a/0: all three. a/1: only who finds nothing sees both others find something. a/2: nobody sees most find something.
    assert found["consistency"] == 3 / 4
    # 9 answers: 3 object, 3 scene, 3 nothing; by chance 6 * 3 * 1/3 * 2/3 = 4 differ; there do 4/3 + 2 + 4/3.
    assert found["kappa"] == pytest.approx(1 - (4 / 3 + 2 + 4 / 3) / 4, abs=1e-12)
    assert table["rater_answers"].values.tolist() == [3, 3, 3]


def test_one_description_of_those_given_is_drawn() -> None:
    rows = [
        ("a/0", [(OBJECT, "car"), (OBJECT, "cars"), (NOTHING, "")]),
        ("a/1", [(NOTHING, ""), (NOTHING, ""), (SCENE, "sea")]),
        ("a/2", [("", ""), ("", ""), ("", "")]),
    ]
    drawn = [people_descriptions(descriptions(rows), seed=seed) for seed in range(20)]
    assert {one["a/0"] for one in drawn} == {"car", "cars"}
    assert all(one["a/1"] is None and "a/2" not in one for one in drawn)
    assert people_descriptions(descriptions(rows), seed=3) == drawn[3]


def test_every_number_says_what_it_is() -> None:
    rows = [("a/0", "label", [1, 1, 0]), ("a/0", "people", [1, 1, 1])]
    tables = [survey_table(phrases(rows, described=True)), survey_table(descriptions([("a/0", [(OBJECT, "x")] * 3)]))]
    assert set(LONG_NAMES) == {str(name) for table in tables for name in table.data_vars}
    for table in tables:
        assert all(values.attrs["long_name"] == LONG_NAMES[str(name)] for name, values in table.data_vars.items())
