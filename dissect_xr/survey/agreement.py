"""How much raters agree: majorities, a second group of raters, Fleiss' kappa.

Knows: arrays of answers, NaN where there is none.
Does not know: what was asked.
"""

from __future__ import annotations

from fractions import Fraction
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fleiss_kappa(counts: NDArray[np.integer[Any]]) -> float:
    """Agreement of raters beyond chance, at most 1, from `counts` (subject, answer): how many raters gave which answer.

    1 is full agreement and 0 what raters who answer at random reach. The number of raters may differ from subject to
    subject; subjects with one answer only count in how common each answer is. NaN where there is nothing to compare:
    no subject has two answers, or all answers are the same.

    With ``n_ij`` the raters who gave subject i the answer j, ``n_i`` their sum over j and ``p_j`` the share of the
    answer j among all answers, kappa is ``1 - sum_ij n_ij (n_i - n_ij) / n_i / (sum_i (n_i - 1) sum_j p_j (1 - p_j))``.
    It is computed in fractions and divided last.

    References
    ----------
    Fleiss: Measuring nominal scale agreement among many raters, Psychological Bulletin 76, 1971, whose formula this is
    where all n_i are equal; Fleiss, Levin, Paik: Statistical Methods for Rates and Proportions, 2003, section 18.3,
    where they are not.

    Examples
    --------
    Two raters and two subjects. They agree on the first (yes, yes) and not on the second (yes, no): three quarters of
    all answers are yes, so by chance 3/8 of the pairs would differ, and 1/2 do.

    >>> fleiss_kappa(np.array([[2, 0], [1, 1]]))
    -0.3333333333333333
    >>> fleiss_kappa(np.array([[3, 0], [0, 3]])), fleiss_kappa(np.array([[3, 0], [3, 0]]))
    (1.0, nan)
    """
    rows = [[int(n) for n in row] for row in counts.tolist() if sum(row)]
    pairs = sum(sum(row) - 1 for row in rows)
    total = sum(map(sum, rows))
    shares = [Fraction(sum(column), total) for column in zip(*rows, strict=True)]
    by_chance = pairs * sum((share * (1 - share) for share in shares), Fraction(0))
    differing = sum((Fraction(n * (sum(row) - n), sum(row)) for row in rows for n in row), Fraction(0))
    return float(1 - differing / by_chance) if by_chance else nan


def majority(yes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether more than half of a question's answers are yes, (question,), from (question, rater): 1, 0 or NaN.

    >>> majority(np.array([[1, 1, 0], [1, 0, nan], [nan, nan, nan]]))  # half is not enough
    array([ True, False, False])
    """
    return np.asarray(2 * np.nansum(yes, axis=1) > np.isfinite(yes).sum(axis=1))


def second_group(yes: NDArray[np.float64]) -> tuple[int, int]:
    """Of the answers to questions that most of the *other* raters say yes to: how many are yes, and how many there are.

    Each rater in turn is the second group, the others are the first. `yes` is (question, rater): 1, 0 or NaN.

    Examples
    --------
    Three raters, one question: for each of the two who said yes, the others are 1 : 1, no majority; for the one who
    said no, both others said yes.

    >>> second_group(np.array([[1.0, 1.0, 0.0]]))
    (0, 1)
    >>> second_group(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    (3, 3)
    """
    given = np.isfinite(yes)
    said = np.nan_to_num(yes)
    others_yes = said.sum(axis=1, keepdims=True) - said
    others = given.sum(axis=1, keepdims=True) - given
    asked = given & (2 * others_yes > others)
    return int(said[asked].sum()), int(asked.sum())
