"""Label maps as runs: nothing is lost, and any images are read alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dissect_xr import store
from dissect_xr.probe.label_maps.runs import Runs, StoredRuns, joined, run_arrays, runs_of, write_runs

LABELS = arrays(np.uint16, array_shapes(min_dims=4, max_dims=4, max_side=9), elements=st.sampled_from([0, 1, 2, 65535]))


def pixels(runs: Runs, columns: int) -> np.ndarray:
    """The label maps that runs stand for, a run at a time."""
    images, planes, rows = runs.count.shape
    found = np.zeros((images, planes, rows, columns), np.uint16)
    n = 0
    for row in found.reshape(-1, columns):
        start = 0
        while start < columns:
            stop, label = runs.run[:, n].tolist()
            row[start:stop] = label
            start, n = stop, n + 1
    assert n == runs.run.shape[1]
    return found


@given(LABELS)
def test_runs_are_the_pixels_and_no_two_neighbours_are_equal(planes):
    runs = runs_of(planes)
    np.testing.assert_array_equal(pixels(runs, planes.shape[-1]), planes)
    changes = (planes[..., 1:] != planes[..., :-1]).sum(axis=-1)
    np.testing.assert_array_equal(runs.count, changes + 1)
    assert runs.most == (changes + 1).sum(axis=(1, 2)).max()


@given(LABELS, st.data())
def test_slices_and_joined_slices_are_the_same_images(planes, data):
    cut = data.draw(st.integers(0, len(planes)))
    parts = [runs_of(planes)[:cut], runs_of(planes)[cut:]]
    for part, wanted in zip(parts, (planes[:cut], planes[cut:]), strict=True):
        np.testing.assert_array_equal(pixels(part, planes.shape[-1]), wanted)
    np.testing.assert_array_equal(pixels(joined(parts), planes.shape[-1]), planes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[str, np.ndarray]:
    """Runs of 21 images in blocks of 8, and their label maps."""
    url = str(Path(tmp_path_factory.mktemp("runs")) / "runs.zarr")
    planes = np.random.default_rng(0).integers(0, 3, (21, 2, 4, 7)).astype(np.uint16)
    store.create(url, "", run_arrays(planes.shape, 8), {})
    with store.marked(url, "done", fingerprint="") as (writer, _):
        for start in range(0, 21, 8):
            write_runs(writer, start, 8, runs_of(planes[start : start + 8]))
    return url, planes


@given(st.integers(0, 20), st.integers(1, 21))
def test_any_images_are_read_alone(stored, first, count):
    url, planes = stored
    stop = min(21, first + count)
    found = StoredRuns(url)[first:stop]
    np.testing.assert_array_equal(pixels(found, 7), planes[first:stop])
