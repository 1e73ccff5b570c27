"""Tails in memory hold the cells above a bound with their neighbours, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from dissect_xr.tail.packed import Packed, joined, pack


def kept(maps: NDArray[np.floating], bound: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The cells of a tail, by SciPy's dilation of one map after the other."""
    above = maps > bound[:, None, None]
    return ndimage.binary_dilation(above, np.ones((1, 1, 3, 3), bool))


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    """Maps of few different values, so that ties are frequent, with bounds that are values of them or lie beside."""
    shape = tuple(draw(st.integers(1, most)) for most in (4, 3, 6, 6))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    seed, levels = draw(st.integers(0, 2**16)), draw(st.integers(1, 6))
    rng = np.random.default_rng(seed)
    maps = rng.choice(np.array([-2, -0.0, 0, 0.5, 1, 3]), p=rng.dirichlet(np.ones(6)), size=shape).astype(dtype)
    bound = rng.choice([-3, -2, 0, 0.25, 1, 3, -np.inf], size=shape[1]).astype(np.float32)
    return maps * min(levels, 3), bound


@settings(max_examples=150, deadline=None)
@given(cases())
def test_a_tail_is_the_cells_above_and_their_neighbours(case: tuple[NDArray[np.floating], NDArray[np.float32]]) -> None:
    maps, bound = case
    found, equal = pack(maps, bound)
    inside = kept(maps, bound)
    assert found.values.view(f"u{maps.itemsize}").tolist() == maps[inside].view(f"u{maps.itemsize}").tolist()
    assert equal.tolist() == (maps == bound[:, None, None]).sum(axis=(0, 2, 3)).tolist()
    whole, where = found.maps(bound, (0, maps.shape[1]))
    expected = np.where(inside, maps, bound[:, None, None].astype(maps.dtype))
    np.testing.assert_array_equal(whole.reshape(maps.shape), expected)
    assert where.ravel().tolist() == list(range(len(whole)))
    assert found.ends[:, 1].tolist() == np.cumsum(inside.sum(axis=(1, 2, 3))).tolist()


@pytest.mark.parametrize("cells", [(7, 7), (40, 33), (1, 1)])
def test_images_are_packed_alike_however_they_are_cut(cells: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(9, 5, *cells)).astype(np.float16)
    bound = np.full(5, 1.25, np.float32)
    whole, _ = pack(maps, bound)
    parts = joined([pack(part, bound)[0] for part in np.split(maps, [1, 4, 8])])
    for name in ("span_count", "spans", "values", "ends"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_only_the_wanted_maps_of_a_range_of_units_are_unpacked() -> None:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(6, 7, 4, 5)).astype(np.float32)
    bound = np.linspace(-1, 2, 7).astype(np.float32)
    wanted = rng.random((6, 3)) < 0.5
    found, _ = pack(maps, bound)
    some, where = found.maps(bound, (2, 5), wanted)
    whole, _ = found.maps(bound, (0, 7))
    assert len(some) == wanted.sum()
    for image, unit in np.argwhere(wanted):
        np.testing.assert_array_equal(some[where[image, unit]], whole.reshape(maps.shape)[image, unit + 2])
    assert (where[~wanted] == -1).all()


def test_all_cells_are_packed_where_the_bound_is_below_them_all() -> None:
    """The buffers begin too small for that, and grow."""
    maps = np.ones((3, 2, 70, 70), np.float16)
    found: Packed = pack(maps, np.zeros(2, np.float32))[0]
    assert found.values.size == maps.size
    assert found.spans.T.tolist() == [[0, 4900]] * 6


def test_a_map_of_more_cells_than_sixteen_bits_count_has_wider_spans() -> None:
    maps = np.zeros((1, 1, 256, 257), np.float16)
    maps[0, 0, -1, -1] = 1
    found, _ = pack(maps, np.zeros(1, np.float32))
    assert found.spans.dtype == np.uint32
    assert found.spans[:, 0].tolist() == [254 * 257 + 255, 2]


def test_images_of_a_tail_are_cut_out_of_it() -> None:
    maps = np.random.default_rng(2).normal(size=(7, 3, 4, 5)).astype(np.float16)
    bound = np.full(3, 1.0, np.float32)
    whole, _ = pack(maps, bound)
    for first in range(8):
        for stop in range(first, 8):
            part, _ = pack(maps[first:stop], bound)
            for name in ("span_count", "spans", "values", "ends"):
                np.testing.assert_array_equal(getattr(whole.images(first, stop), name), getattr(part, name))
