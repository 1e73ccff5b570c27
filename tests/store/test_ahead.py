"""Rows read ahead: the same rows, and each chunk is decompressed as seldom as the room allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr import store
from dissect_xr.store.ahead import Ahead, Rows

VALUES = np.arange(50 * 6).reshape(50, 6)


class Counted:
    """An array in chunks of 16 rows that notes which rows are read."""

    chunks, dtype = (16, 6), VALUES.dtype

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def __getitem__(self, key):
        self.reads.append((key[0].start, key[0].stop))
        return VALUES[key]


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(0, 49), st.integers(0, 2000), st.integers(1, 50))
def test_ranges_in_order_are_the_rows_themselves(steps, start, nbytes, stop):
    array = Counted()
    rows = Rows(array, slice(1, 5), Ahead(stop, nbytes))
    for step in steps:
        end = min(50, start + step)
        np.testing.assert_array_equal(rows(start, end), VALUES[start:end, 1:5])
        start = end


def test_a_chunk_is_read_once_where_there_is_room():
    array = Counted()
    rows = Rows(array, slice(0, 6), Ahead(40, 10**6))
    for start in range(0, 40, 4):
        rows(start, start + 4)
    assert array.reads == [(0, 16), (16, 32), (32, 40)]


def test_without_room_only_what_is_asked_for_is_read():
    for ahead in (None, Ahead(40, 0)):
        array = Counted()
        rows = Rows(array, slice(0, 6), ahead)
        for start in range(0, 8, 4):
            rows(start, start + 4)
        assert array.reads == [(0, 4), (4, 8)]


@pytest.fixture
def url(tmp_path) -> str:
    """A store of one array."""
    found = str(tmp_path / "rows.zarr")
    store.create(found, "", [store.ArraySpec("rows", ("row", "col"), (50, 6), "int64", (16, 6))], {})
    with store.marked(found, "done", fingerprint="") as (writer, _):
        for start in range(0, 50, 16):
            writer.write("rows", (start, 0), VALUES[start : start + 16])
    return found


def test_stored_arrays_are_read_so(url):
    rows = Rows(store.read(url, "rows"), slice(2, 3), Ahead(50, 1000))
    found = np.concatenate([rows(start, min(50, start + 7)) for start in range(0, 50, 7)])
    np.testing.assert_array_equal(found, VALUES[:, 2:3])
