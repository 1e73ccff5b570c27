"""Agreement of raters: the published example of Fleiss' kappa, and cases by hand."""

from itertools import combinations
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dissect_xr.survey.agreement import fleiss_kappa, majority, second_group

TABLE_1 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
"""Table 1: 30 patients and five diagnoses (depression, personality disorder, schizophrenia, neurosis, other) by six
psychiatrists each."""

FLEISS_1971 = np.array([[int(n) for n in row] for row in TABLE_1.split()])


def test_kappa_of_the_published_example() -> None:
    assert FLEISS_1971.sum(axis=0).tolist() == [26, 26, 30, 55, 43]
    assert round(fleiss_kappa(FLEISS_1971), 3) == 0.430


def test_kappa_of_each_diagnosis_of_the_published_example() -> None:
    """Against all others together: section "agreement on a particular category" of the paper."""
    found = [fleiss_kappa(np.stack([column, 6 - column], axis=1)) for column in FLEISS_1971.T]
    assert [round(kappa, 3) for kappa in found] == [0.245, 0.245, 0.520, 0.471, 0.566]


def test_kappa_with_unequal_numbers_of_raters_by_hand() -> None:
    # 5 answers, 3 of them yes. Beyond one per subject there are 1 + 1 + 0, which by chance differ by 2 * 12/25 = 24/25;
    # subject 2 differs by 1 * 1 / 2 for each of its two answers, which is 1.
    assert fleiss_kappa(np.array([[2, 0], [1, 1], [0, 1]])) == pytest.approx(1 - 25 / 24, abs=1e-15)


def test_subjects_without_an_answer_change_nothing() -> None:
    assert fleiss_kappa(np.insert(FLEISS_1971, 3, 0, axis=0)) == fleiss_kappa(FLEISS_1971)


@pytest.mark.parametrize("counts", [[[1, 0], [0, 1]], [[3, 0], [2, 0]], [[0, 0]]])
def test_kappa_is_not_defined(counts: list[list[int]]) -> None:
    assert isnan(fleiss_kappa(np.array(counts)))


@given(
    arrays.arrays(np.int64, st.tuples(st.integers(1, 8), st.just(5)), elements=st.integers(0, 2)),
)
def test_kappa_is_what_pairs_of_raters_say(answers: np.ndarray) -> None:
    """Of five raters who all answer: 1 - differing pairs / the share that would differ by chance."""
    counts = np.stack([(answers == category).sum(axis=1) for category in range(3)], axis=1)
    shares = counts.sum(axis=0) / counts.sum()
    by_chance = 1 - (shares**2).sum()
    assume(by_chance > 0)
    pairs = [one != other for row in answers.tolist() for one, other in combinations(row, 2)]
    assert fleiss_kappa(counts) == pytest.approx(1 - np.mean(pairs) / by_chance, abs=1e-12)


def test_a_majority_is_more_than_half_of_those_who_answered() -> None:
    found = majority(np.array([[1, nan, nan], [1, 0, nan], [1, 1, 0], [0, 0, 1], [nan, nan, nan]]))
    assert found.tolist() == [True, False, True, False, False]


def test_the_second_group_answers_what_most_others_affirm() -> None:
    # Question 0: each sees two yes of the others. Question 1: the first two see 1 of 2; the third sees 2 of 2 and says
    # no. Question 2: the second rater sees the one yes of the first, and says no; the first sees no yes.
    found = second_group(np.array([[1, 1, 1], [1, 1, 0], [1, 0, nan]]))
    assert found == (3, 5)


def test_one_rater_has_no_second_group() -> None:
    assert second_group(np.array([[1.0], [0.0]])) == (0, 0)
