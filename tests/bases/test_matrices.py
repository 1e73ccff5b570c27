"""Rotations, their powers and random combinations: closed forms, group laws, and what the program of 2017 made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dissect_xr.bases.matrices import (
    combinations,
    planes,
    power,
    rotation,
    rotation_of_2017,
    rotation_planes,
)
from dissect_xr.errors import DissectError

Matrix = NDArray[np.float64]

UNITS = st.integers(1, 24)
SEEDS = st.integers(0, 2**32 - 1)
ALPHAS = st.floats(0, 1)


def turn(angle: float) -> Matrix:
    """The plane turned to the left."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def about(axis: list[float], angle: float) -> Matrix:
    """Space turned about an axis, by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def close(one: Matrix, other: Matrix) -> bool:
    """Equal to 1e-10."""
    return bool(np.abs(one - other).max() <= 1e-10)


@settings(max_examples=50)
@given(units=UNITS, seed=SEEDS)
def test_a_rotation_is_one(units: int, seed: int) -> None:
    drawn = rotation(units, seed)
    assert close(drawn @ drawn.T, np.eye(units))
    assert abs(np.linalg.det(drawn) - 1) < 1e-10
    assert np.array_equal(drawn, rotation(units, seed))


@settings(max_examples=50)
@given(units=UNITS, seed=SEEDS, one=ALPHAS, two=ALPHAS)
def test_powers_are_a_group(units: int, seed: int, one: float, two: float) -> None:
    found = planes(rotation(units, seed))
    assert np.array_equal(power(found, 0), np.eye(units))
    assert np.array_equal(power(found, 1), rotation(units, seed))
    assert close(power(found, one) @ power(found, one).T, np.eye(units))
    # Q**a Q**b = Q**(a + b), also where the sum is 1 and the right side is Q itself.
    assert close(power(found, one) @ power(found, 1 - one), rotation(units, seed))
    assert close(power(found, one / 2) @ power(found, two / 2), power(found, one / 2 + two / 2))


@pytest.mark.parametrize("units", [256, 257])
def test_powers_of_many_units_are_a_group(units: int) -> None:
    found = rotation_planes(units, 0)
    assert len(found.pairs) == 128
    assert close(power(found, 0.3) @ power(found, 0.7), rotation(units, 0))
    assert close(power(found, 0.2) @ power(found, 0.2), power(found, 0.4))


@pytest.mark.parametrize("angle", [-3.0, -1.0, -0.1, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_a_power_turns_by_a_part_of_the_angle(angle: float, alpha: float) -> None:
    assert close(power(planes(turn(angle)), alpha), turn(alpha * angle))
    axis = [1.0, -2.0, 0.5]
    assert close(power(planes(about(axis, angle)), alpha), about(axis, alpha * angle))


def test_a_quarter_turn_by_hand() -> None:
    quarter = planes(np.array([[0.0, -1.0], [1.0, 0.0]]))
    half = np.sqrt(0.5)
    assert close(power(quarter, 0.5), np.array([[half, -half], [half, half]]))
    back = planes(np.array([[0.0, 1.0], [-1.0, 0.0]]))  # a cosine alone does not tell it from the one above
    assert close(power(back, 0.5), np.array([[half, half], [-half, half]]))


def test_two_reversed_directions_are_a_half_turn() -> None:
    half = power(planes(np.diag([1.0, -1.0, 1.0, -1.0])), 0.5)
    assert close(half @ half, np.diag([1.0, -1.0, 1.0, -1.0]))
    assert close(half[::2, ::2], np.eye(2))
    assert close(np.abs(half[1::2, 1::2]), np.array([[0, 1], [1, 0]]))


@pytest.mark.parametrize("matrix", [np.diag([1.0, -1.0]), np.diag([2.0, 0.5]), np.ones((3, 3))])
def test_what_is_no_rotation_is_refused(matrix: Matrix) -> None:
    with pytest.raises(DissectError, match="expected a rotation"):
        planes(matrix)


def test_rotations_are_uniform() -> None:
    """Of a uniform rotation of three units the trace has mean 0 and mean square 1, and each number mean square 1/3."""
    drawn = np.array([rotation(3, seed) for seed in range(4000)])
    traces = np.trace(drawn, axis1=1, axis2=2)
    assert abs(traces.mean()) < 0.06
    assert abs((traces**2).mean() - 1) < 0.1
    assert np.abs((drawn**2).mean(axis=0) - 1 / 3).max() < 0.02
    assert np.abs(drawn.mean(axis=0)).max() < 0.04


@pytest.mark.parametrize("units", [2, 64, 256])
def test_the_matrix_of_2017_is_orthogonal_but_not_the_rotation(units: int) -> None:
    for seed in (0, 1):
        made = rotation_of_2017(units, 1, seed)
        assert close(made @ made.T, np.eye(units))
        assert close(rotation_of_2017(units, 0, seed), np.eye(units))
        q, r = np.linalg.qr(np.random.RandomState(seed).normal(size=(units, units)))
        drawn = q * np.sign(np.diagonal(r))
        drawn[0] *= np.linalg.det(drawn)
        if units > 2:  # of two units, both may turn to the left
            assert 1.8 < np.linalg.norm(made - drawn, 2) <= 2.0
        # Its planes are those of the rotation: the cosines agree, the directions of turns do not.
        assert close(made + made.T, drawn + drawn.T)
    with pytest.raises(DissectError, match="for an even number of units, got 5"):
        rotation_of_2017(5, 1, 0)


@settings(max_examples=20)
@given(rows=UNITS, units=UNITS, seed=SEEDS)
def test_combinations_have_length_one(rows: int, units: int, seed: int) -> None:
    drawn = combinations(rows, units, seed)
    assert drawn.shape == (rows, units)
    assert np.abs(np.linalg.norm(drawn, axis=1) - 1).max() < 1e-12
    assert np.array_equal(drawn, combinations(rows, units, seed))


def test_combinations_are_not_orthogonal() -> None:
    drawn = combinations(64, 64, 0)
    assert np.abs(drawn @ drawn.T - np.eye(64)).max() > 0.2
    assert not np.array_equal(drawn, combinations(64, 64, 1))
