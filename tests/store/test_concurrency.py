"""Writers that could share a shard are refused in one place, and counts are the same for every tree of merges."""

import functools
import random

import numpy as np
import pytest
import stores
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr import store
from dissect_xr.dissection.counts import merge_counts
from dissect_xr.dissection.thresholds import merge_histograms
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads, run_tasks


def in_any_tree(parts, merge, seed):
    """All parts merged, some at a time, in an order drawn at random."""
    draw, left = random.Random(seed), list(parts)
    while len(left) > 1:
        draw.shuffle(left)
        n = draw.randint(2, min(8, len(left)))
        left = [merge(*left[:n]), *left[n:]]
    return left[0]


@given(st.integers(1, 20), st.integers(0, 2**16))
def test_counts_are_equal_for_every_tree(count, seed):
    values = np.random.default_rng(seed)
    parts = [(values.integers(0, 2**40, (2, 3, 4)), values.integers(0, 2**40, (2, 3, 3))) for _ in range(count)]
    got = in_any_tree(parts, merge_counts, seed)
    for n in range(2):
        np.testing.assert_array_equal(got[n], sum(part[n] for part in parts))


@given(st.integers(1, 20), st.integers(0, 2**16))
def test_histograms_are_equal_for_every_tree(count, seed):
    values = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        keys = np.unique(values.integers(0, 40, 12)).astype(np.int64)
        parts.append((keys, values.integers(1, 2**40, keys.size)))
    got = in_any_tree(parts, merge_histograms, seed)
    wanted = functools.reduce(merge_histograms, parts)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45))),
)
def test_no_two_blocks_that_are_let_through_share_a_shard(length, chunk, factor, spans):
    shard = chunk * factor
    with stores.scratch() as folder:
        url = str(folder / "store.zarr")
        store.create(url, "", [store.ArraySpec("a", ("x",), (length,), "int64", (chunk,), (shard,))], {})
        for first, count in spans:
            try:
                store.Writer(url).write("a", (first,), np.ones(count, np.int64))
            except DissectError:
                continue
            touched = range(first // shard, -(-(first + count) // shard))
            assert all(first <= n * shard and min((n + 1) * shard, length) <= first + count for n in touched)


def write_one(task):
    """Write a block."""
    url, first, values = task
    store.Writer(url).write("a", (first,), values)


@pytest.mark.parametrize("workers", [1, 4])
def test_many_writers_of_neighbouring_shards_lose_nothing(tmp_path, workers):
    url, values = str(tmp_path / "store.zarr"), np.arange(64, dtype=np.int64)
    store.create(url, "", [store.ArraySpec("a", ("x",), (64,), "int64", (2,), (4,))], {})
    tasks = [(url, n, values[n : n + 4]) for n in range(0, 64, 4)]
    random.Random(0).shuffle(tasks)
    assert len(list(run_tasks(Threads(workers), write_one, tasks * 3))) == 48
    np.testing.assert_array_equal(store.read(url, "a")[:], values)
