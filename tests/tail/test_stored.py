"""Tails in stores: any images are read alone, in order or not, with whatever room there is to read ahead."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.tail.arrays import TailBlocks, TailShape
from dissect_xr.tail.packed import Packed, pack
from dissect_xr.tail.stored import StoredTail, TailPlace

IMAGES, BLOCK, UNITS, CELLS = 22, 8, 3, (4, 5)
BOUND = np.array([0.5, 1.0, 9.0], np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TailPlace, NDArray[np.float16]]:
    """The tail of 22 images in blocks of 8, and their maps; the last unit has no value above its bound."""
    url = str(Path(tmp_path_factory.mktemp("tail")) / "tail.zarr")
    maps = np.random.default_rng(0).normal(size=(IMAGES, UNITS, *CELLS)).astype(np.float16)
    shape = TailShape(IMAGES, BLOCK, "float16", ((UNITS, CELLS[0] * CELLS[1]),))
    bound, values = shape.bound(BOUND, "unit")
    store.create(url, "", [*shape.specs("unit"), bound], {})
    with store.marked(url, "done", fingerprint="") as (writer, _):
        writer.write("bound", (0,), values)
        blocks = TailBlocks(writer, "", shape, BOUND)
        for start in range(0, IMAGES, 4):  # no batch reaches beyond a block
            blocks.add(maps[start : start + 4])
    return TailPlace(url, "", 0, (0, UNITS), BLOCK, CELLS, 0.1), maps


def assert_tail_of(found: Packed, maps: NDArray[np.float16]) -> None:
    """The tail is that of the maps."""
    wanted, _ = pack(maps, BOUND)
    for name in ("span_count", "spans", "values", "ends"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@given(st.integers(0, IMAGES - 1), st.integers(1, IMAGES))
def test_any_images_are_read_alone(stored: tuple[TailPlace, NDArray[np.float16]], first: int, count: int) -> None:
    place, maps = stored
    stop = min(IMAGES, first + count)
    assert_tail_of(StoredTail(place)((first, stop)), maps[first:stop])


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
    st.integers(0, IMAGES - 1),
    st.integers(1, IMAGES),
    st.sampled_from([0, 50, 200, 10**6]),
)
def test_images_in_order_are_the_same_with_any_room(
    stored: tuple[TailPlace, NDArray[np.float16]], steps: list[int], start: int, end: int, nbytes: int
) -> None:
    place, maps = stored
    tail = StoredTail(place, store.Ahead(end, nbytes))
    for step in steps:
        stop = min(IMAGES, start + step)
        if start < stop:
            assert_tail_of(tail((start, stop)), maps[start:stop])
        start = stop


def test_what_is_known_of_all_images(stored: tuple[TailPlace, NDArray[np.float16]]) -> None:
    place, maps = stored
    tail = StoredTail(place)
    np.testing.assert_array_equal(tail.largest, maps.max(axis=(0, 2, 3)))
    np.testing.assert_array_equal(tail.equal, (maps == BOUND[:, None, None]).sum(axis=(0, 2, 3)))
