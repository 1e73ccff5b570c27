"""Sums of products are exact: equal to fractions, whatever the cut, the number of workers and the order."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import pytest
import stores
import strategies
from folds import run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dissect_xr.activations.write import write_activations
from dissect_xr.bases import moments, principal_axes
from dissect_xr.bases.moments import digits, exponents
from dissect_xr.bases.principal_axes import MeanProducts, axes, mean_products, projected, sum_blocks
from dissect_xr.dissection.cut import Limits
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.fold import Steps, run_steps
from dissect_xr.parallel.pool import Threads


def stored(folder: Path, values: NDArray[np.floating], name: str = "activations.zarr") -> Layer:
    """Values (image, unit, y, x) as a stored layer."""
    url = str(folder / name)
    names = stores.image_names(len(values))
    write_activations(url, {"conv": values}, images=names, snapshot="s", dtype=str(values.dtype), show=False)
    return open_layer(url, "s", "conv")


def products(layer: Layer, memory: int = 2**26, workers: int = 1) -> MeanProducts:
    """Mean products of both kinds."""
    return run_here(mean_products(layer, (False, True), Limits(memory, 2 * workers)))


@given(values=st.lists(st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7C00 != 0x7C00), min_size=1, max_size=20))
def test_digits_are_the_number(values: list[int]) -> None:
    halves = np.array([values], np.uint16).view(np.float16)
    parts = digits(halves, np.array([-24]), 3)
    for n, value in enumerate(halves[0].tolist()):
        assert all(-8192 <= part[0, n] <= 8192 for part in parts)
        whole = sum(int(part[0, n]) << 14 * place for place, part in enumerate(parts))
        assert Fraction(whole, 2**24) == Fraction(value)


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
)
def test_digits_of_float32_are_near_the_number(values: list[float]) -> None:
    singles = np.array([values], np.float32)
    largest = float(np.abs(singles).max())
    power = exponents(np.array([largest], np.float32))
    parts = digits(singles, power, 4)
    for n, value in enumerate(singles[0].tolist()):
        whole = sum(int(part[0, n]) << 14 * place for place, part in enumerate(parts))
        distance = abs(Fraction(whole) * Fraction(2) ** int(power[0]) - Fraction(value))
        assert distance <= Fraction(largest) / 2**54
        assert distance == 0 or abs(value) < largest / 2**30


@settings(max_examples=25)
@given(st.data())
def test_mean_products_are_exact_for_every_cut(data: st.DataObject) -> None:
    images = data.draw(st.integers(1, 6))
    values = data.draw(strategies.activations(images, max_units=4, max_size=4)).activation
    memory = data.draw(st.sampled_from([2**9, 2**12, 2**26]))
    chunk = data.draw(st.sampled_from([1, 64, 1000]))
    with stores.scratch() as folder, stores.tiny_chunks(chunk=chunk), pytest.MonkeyPatch.context() as patch:
        patch.setattr(principal_axes, "TASK_BYTES", data.draw(st.sampled_from([1, 100, 10**9])))
        patch.setattr(principal_axes, "READ_BYTES", data.draw(st.sampled_from([1, 100, 10**9])))
        patch.setattr(principal_axes, "COLUMNS", data.draw(st.sampled_from([1, 3, 4096])))
        found = products(stored(folder, values), memory=memory, workers=data.draw(st.integers(1, 4)))
    for kind, centred in enumerate((False, True)):
        wanted = oracle.covariance(values, centred)
        if values.dtype == np.float16:
            np.testing.assert_array_equal(found.products[kind], wanted)
        else:
            scale = np.abs(values.astype(np.float64)).max(axis=(0, 2, 3))
            assert (np.abs(found.products[kind] - wanted) <= 2.0**-50 * np.outer(scale, scale)).all()
    assert found.means.tolist() == pytest.approx(values.astype(np.float64).mean(axis=(0, 2, 3)).tolist(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_mean_products_are_the_same_for_every_cut(tmp_path: Path, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large and tiny values, whose float64 sums would depend on their order."""
    random = np.random.default_rng(0)
    values = (random.normal(size=(40, 9, 3, 5)) * 10.0 ** random.integers(-6, 4, (40, 1, 1, 1))).astype(dtype)
    seen = []
    for n, (chunk, memory, task, workers) in enumerate(
        [(10**6, 2**26, 10**9, 1), (1, 2**12, 1, 3), (300, 2**15, 999, 2)]
    ):
        monkeypatch.setattr(principal_axes, "TASK_BYTES", task)
        with stores.tiny_chunks(chunk=chunk, shard=10 * chunk):
            layer = stored(tmp_path, values, f"{n}.zarr")
        limits, kept = Limits(memory, 2 * workers), []

        def kept_steps(layer: Layer = layer, limits: Limits = limits, kept: list = kept) -> Steps:
            kept.append((yield from mean_products(layer, (True,), limits)))

        list(run_steps(Threads(workers), [kept_steps()]))
        seen.append(kept[0])
    assert len({len(sum_blocks(layer, Limits(memory, 2))) for memory in (2**26, 2**12)}) == 2, "rows are not cut"
    for other in seen[1:]:
        np.testing.assert_array_equal(other.products, seen[0].products)
        np.testing.assert_array_equal(other.means, seen[0].means)


def test_mean_products_by_hand(tmp_path: Path) -> None:
    values = np.array([[[[1, 3]], [[2, 2]]], [[[0, 0]], [[2, -6]]]], np.float16)
    found = products(stored(tmp_path, values))
    # Unit 0 is 1, 3, 0, 0 and unit 1 is 2, 2, 2, -6: means 1 and 0, products 10, 8 and 48 in four cells.
    assert found.means.tolist() == [1.0, 0.0]
    assert found.products[0].tolist() == [[2.5, 2.0], [2.0, 12.0]]
    assert found.products[1].tolist() == [[1.5, 2.0], [2.0, 12.0]]


def test_axes_of_a_diagonal_are_the_units_by_variance() -> None:
    found = axes(np.diag([1.0, 3.0, 2.0]), np.array([1.0, 2.0, 4.0]), rank=2, centred=True)
    assert found.matrix.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert found.bias.tolist() == [-2.0, -4.0]
    assert found.variance is not None
    assert found.variance.tolist() == [3.0, 2.0]
    assert axes(np.diag([1.0, 3.0]), np.ones(2), rank=2, centred=False).bias.tolist() == [0.0, 0.0]


def test_the_largest_number_of_an_axis_is_positive() -> None:
    random = np.random.default_rng(0)
    half = random.normal(size=(12, 12))
    matrix = axes(half @ half.T, np.zeros(12), rank=12, centred=False).matrix
    assert (np.take_along_axis(matrix, np.abs(matrix).argmax(axis=1)[:, None], axis=1) > 0).all()
    assert np.abs(matrix @ matrix.T - np.eye(12)).max() < 1e-12


def test_too_many_cells_for_exact_sums_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = stored(tmp_path, np.zeros((5, 1, 2, 2), np.float16))
    monkeypatch.setattr(moments, "MOST_CELLS", 19)
    with pytest.raises(DissectError, match="20 cells of a unit, expected at most 19"):
        products(layer)


def test_memory_of_a_task_is_known_before(tmp_path: Path) -> None:
    layer = stored(tmp_path, np.zeros((64, 32, 7, 7), np.float16))
    for memory in (2**21, 2**24, 2**29):
        assert projected(layer, Limits(memory, 2)).total <= memory
