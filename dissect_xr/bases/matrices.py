"""Matrices of bases: random rotations, their fractional powers, and random combinations of units.

Knows: linear algebra, in float64.
Does not know: layers, stores, or which basis is wanted of which layer.

A rotation Q of n units is a point of SO(n). Its power Q**alpha lies on the shortest way from the identity to Q, alpha
of the way along. It is found in planes: a real Schur form Q = Z T Z' has one 2 x 2 block

    cos t   -sin t
    sin t    cos t

for each plane that Q turns by an angle t, and a block of one row, 1, for what it leaves in place: one where n is odd.
Q**alpha turns each of these planes by ``alpha * t``. The angle must come from both numbers of a column (`arctan2`): the
cosine alone does not tell a turn to the left from one to the right.

>>> quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
>>> power(planes(quarter), 0.5).round(3).tolist()
[[0.707, -0.707], [0.707, 0.707]]

References
----------
Mezzadri, How to generate random matrices from the classical compact groups, 2007, section 5.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

Matrix = NDArray[np.float64]

ORTHOGONAL = 1e-8
"""Largest deviation of Q Q' from the identity that is still taken for rounding."""


@dataclass(frozen=True)
class Planes:
    """A rotation as turns of planes."""

    matrix: Matrix
    """the rotation itself"""
    directions: Matrix
    """Z, orthogonal: its columns span the planes, two by two as `pairs` says"""
    pairs: NDArray[np.int64]
    """(plane, 2) columns that span a plane"""
    angles: Matrix
    """(plane,) by which each is turned, from -pi to pi"""


def rotation(units: int, seed: int) -> Matrix:
    """A rotation (unit, unit), drawn uniformly from SO(n).

    The Q of a QR decomposition of a matrix of normal numbers, its columns turned so that the diagonal of R is positive,
    is uniform on O(n). Where it is a reflection, its first row is negated.
    """
    return _uniform(np.random.default_rng(seed).normal(size=(units, units)))


def _uniform(normal: Matrix) -> Matrix:
    q, r = np.linalg.qr(normal)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    if np.linalg.slogdet(q)[0] < 0:
        q[0] = -q[0]
    return q


def planes(matrix: Matrix) -> Planes:
    """A rotation as turns of planes.

    Raises
    ------
    DissectError
        Where the matrix is no rotation.
    """
    units = len(matrix)
    if np.abs(matrix @ matrix.T - np.eye(units)).max() > ORTHOGONAL or np.linalg.slogdet(matrix)[0] < 0:
        raise DissectError(f"expected a rotation, got a matrix of {units} x {units} that is none.")
    form, directions = _schur(matrix)
    pairs, angles, turned_round = [], [], []
    column = 0
    while column < units:
        if column + 1 < units and form[column + 1, column] != 0:
            sine = (form[column + 1, column] - form[column, column + 1]) / 2
            cosine = (form[column, column] + form[column + 1, column + 1]) / 2
            pairs.append((column, column + 1))
            angles.append(float(np.arctan2(sine, cosine)))
            column += 2
            continue
        if form[column, column] < 0:
            turned_round.append(column)
        column += 1
    # A direction that Q reverses has a block of its own, -1. A rotation has an even number of them: two, a half turn.
    pairs += zip(turned_round[::2], turned_round[1::2], strict=True)
    angles += [np.pi] * (len(turned_round) // 2)
    return Planes(matrix, directions, np.array(pairs, np.int64).reshape(-1, 2), np.array(angles))


def _schur(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """The real Schur form of a matrix, and its directions."""
    from scipy.linalg import schur  # here, since commands that draw no rotation would wait for it

    form, directions = schur(matrix, output="real")
    return form, directions


def power(found: Planes, alpha: float) -> Matrix:
    """Q**alpha, (unit, unit); exactly the identity for alpha 0 and exactly Q for alpha 1."""
    units = len(found.matrix)
    if alpha == 0:
        return np.eye(units)
    if alpha == 1:
        return found.matrix.copy()
    turned = found.directions.copy()
    one, two = found.directions[:, found.pairs[:, 0]], found.directions[:, found.pairs[:, 1]]
    cosine, sine = np.cos(alpha * found.angles), np.sin(alpha * found.angles)
    turned[:, found.pairs[:, 0]] = one * cosine + two * sine
    turned[:, found.pairs[:, 1]] = two * cosine - one * sine
    return np.asarray(turned @ found.directions.T)


@lru_cache(maxsize=2)
def rotation_planes(units: int, seed: int) -> Planes:
    """`planes` of `rotation`; kept, since several powers of one rotation are wanted one after the other."""
    return planes(rotation(units, seed))


def rotation_of_2017(units: int, alpha: float, seed: int) -> Matrix:
    """The matrix that the program of 2017 makes of the same three numbers; to compare with `power`, not to use.

    It takes angles by `arccos` from every second number on the diagonal of the Schur form. So it turns every plane to
    the left, and at alpha 1 its matrix is not the rotation that was drawn, though it is orthogonal. Its numbers come
    from NumPy's older generator.

    Raises
    ------
    DissectError
        For an odd number of units, of which its blocks do not fit the matrix.
    """
    even(units)
    normal = np.random.RandomState(seed).normal(size=(units, units))
    form, directions = _schur(_uniform(normal))
    angles = np.arccos(np.clip(np.diagonal(form), -1, 1))[::2]
    pairs = np.arange(units).reshape(-1, 2)
    # No shortcuts: at alpha 0 that program, too, gives the identity only up to rounding.
    cosine, sine = np.cos(alpha * angles), np.sin(alpha * angles)
    one, two = directions[:, pairs[:, 0]], directions[:, pairs[:, 1]]
    turned = np.empty_like(directions)
    turned[:, pairs[:, 0]] = one * cosine + two * sine
    turned[:, pairs[:, 1]] = two * cosine - one * sine
    return np.asarray(turned @ directions.T)


def even(units: int) -> int:
    """A number of units that the rotation of 2017 exists for."""
    if units % 2:
        raise DissectError(
            f"the rotation of 2017 exists for an even number of units, got {units}: its blocks are two units wide."
        )
    return units


def combinations(rows: int, units: int, seed: int) -> Matrix:
    """Random combinations of units, (row, unit): directions drawn uniformly, of length 1, not orthogonal."""
    drawn = np.random.default_rng(seed).normal(size=(rows, units))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
