"""Tails that are written while activations are extracted hold what the activations themselves say, for every batch."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import stores
from scipy import ndimage
from test_extract import IMAGES, LAYERS, RECORDING, SPEC, Small, recorded, run

from dissect_xr import store
from dissect_xr.activations.recording import batches, bounds, kept
from dissect_xr.activations.recording.kept import extract_again
from dissect_xr.activations.store import open_activations
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.dissection.layers import check_dense, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.tail.sampling import Sampling

SAMPLING = Sampling(0.02, 2.0, 16)
"""Of 40 images 16 are sampled."""
TAILS = replace(RECORDING, keep="tail", sampling=SAMPLING)


@pytest.fixture(scope="module")
def dense(probe, tmp_path_factory):
    """Layer -> all its cells as stored."""
    url = str(tmp_path_factory.mktemp("dense") / "activations.zarr")
    run(url, probe)
    return {layer: recorded(url, layer) for layer in LAYERS}


@pytest.fixture(autouse=True)
def any_size():
    """Every tail is worth it, however large it is."""
    with patch.object(bounds, "WORTH", np.inf):
        yield


def wanted_bounds(maps):
    """(unit,) the bounds of a layer, by sorting the values of the sampled images."""
    sample = maps[[i * IMAGES // 16 for i in range(16)]]
    values = np.sort(np.moveaxis(sample, 1, 0).reshape(maps.shape[1], -1).astype(np.float32), axis=1)[:, ::-1]
    share = 0.02 * 2 + 4 / 16 * (1 - 16 / IMAGES)
    return values[:, int(share * values.shape[1])] + np.float32(0)


def assert_tails(url, dense, snapshot="s"):
    """The tails hold the cells above their bounds, and the neighbours of these, and count values at the bound."""
    opened = open_activations(url)
    for layer, maps in dense.items():
        ds = opened[f"{snapshot}/{layer}"].dataset
        bound = ds["bound"].values
        np.testing.assert_array_equal(bound, wanted_bounds(maps))
        levels = bound[:, None, None].astype(maps.dtype)
        inside = ndimage.binary_dilation(maps > levels, np.ones((1, 1, 3, 3), bool))
        np.testing.assert_array_equal(ds["tail_maps"].values, np.where(inside, maps, levels))
        np.testing.assert_array_equal(ds["peak"].values, maps.max(axis=(2, 3)))


@pytest.mark.parametrize("batch", [1, 8, 40])
def test_they_hold_the_cells_above_their_bounds_and_the_neighbours(url, probe, dense, batch):
    run(url, probe, recording=replace(TAILS, batch=batch))
    assert_tails(url, dense)


def test_any_part_of_the_lazy_maps_can_be_read(url, probe, dense):
    run(url, probe, recording=TAILS)
    maps = open_activations(url)["s"][LAYERS[0]]["tail_maps"]
    whole = maps.values
    np.testing.assert_array_equal(maps[5].values, whole[5])
    np.testing.assert_array_equal(maps[:, 3].values, whole[:, 3])
    np.testing.assert_array_equal(maps[7, 2, 1:, 0].values, whole[7, 2, 1:, 0])
    np.testing.assert_array_equal(maps[30:3:-4, 1:6:2].values, whole[30:3:-4, 1:6:2])
    assert maps[4:4].values.shape == (0, *whole.shape[1:])


def test_a_block_that_is_missing_is_done_again_with_the_same_bits(url, probe, dense, processes, tmp_path):
    run(url, probe, recording=TAILS)
    before = stores.digest(Path(url))
    markers = Path(url).parent / "markers/activations.zarr/s/tails"
    assert len(list(markers.iterdir())) == 3
    next(iter(sorted(markers.iterdir()))).unlink()
    run(url, probe, recording=TAILS)
    assert stores.digest(Path(url)) == before
    other = str(tmp_path / "other" / "activations.zarr")
    run(other, probe, recording=TAILS, pool=processes)
    assert stores.digest(Path(other)) == before


def test_batches_that_do_not_fit_are_halved_and_no_map_is_kept_twice(url, probe, dense):
    small = Small(3)
    with patch.object(batches, "forward", small):
        run(url, probe, recording=TAILS)
    assert max(small.asked) > 3
    assert_tails(url, dense)


def test_a_layer_whose_tail_is_large_is_kept_dense_beside_the_others(url, probe, dense):
    first = LAYERS[0]

    def share(maps, bound):
        return 0.9 if maps.shape[1:] == dense[first].shape[1:] else 0.1

    with patch.object(bounds, "WORTH", 0.5), patch.object(bounds, "share_of", share):
        run(url, probe, recording=TAILS)
    np.testing.assert_array_equal(recorded(url, first), dense[first])
    assert store.read_attrs(url, "s")["tail"]["dense"] == [first]
    assert_tails(url, {layer: maps for layer, maps in dense.items() if layer != first})


def test_units_whose_bounds_were_too_high_are_kept_whole_by_a_second_extraction(url, probe, dense):
    extraction = run(url, probe, recording=TAILS)
    first, layer = LAYERS[0], LAYERS[-1]
    tails = {name: Maps(open_layer(url, "s", name)).values((0, IMAGES)) for name in (first, layer)}
    assert not (tails[layer] == dense[layer]).all(axis=(0, 2, 3)).any(), "cells of all units are left out"

    def kept_whole(name, units):
        opened = open_layer(url, "s", name)
        assert opened.too_high == len(units)
        found = Maps(opened).values((0, IMAGES))
        others = np.setdiff1d(np.arange(found.shape[1]), units)
        np.testing.assert_array_equal(found[:, units], dense[name][:, units])
        np.testing.assert_array_equal(found[:, others], tails[name][:, others])
        np.testing.assert_array_equal(open_activations(url)[f"s/{name}"]["tail_maps"], found)

    extract_again(extraction, {layer: [2, 0], first: [1]}, pool=Threads(1), show=False)
    kept_whole(layer, [0, 2])
    kept_whole(first, [1])
    before = stores.digest(Path(url))
    with patch.object(kept, "extract_block", lambda task: pytest.fail("was done already")):
        extract_again(extraction, {first: [1], layer: [0, 2]}, pool=Threads(1), show=False)
    assert stores.digest(Path(url)) == before
    extract_again(extraction, {layer: [1]}, pool=Threads(1), show=False)
    kept_whole(layer, [0, 1, 2])
    kept_whole(first, [1])


def test_a_layer_without_a_tail_is_not_extracted_again(url, probe):
    extraction = run(url, probe)
    with pytest.raises(DissectError, match=r"has no tail that could be extracted again: all its cells are stored"):
        extract_again(extraction, {LAYERS[0]: [0]}, pool=Threads(1), show=False)


def test_what_needs_all_cells_says_so(url, probe):
    run(url, probe, recording=TAILS)
    with pytest.raises(DissectError, match=r"of s/.* only the tail is stored \(keep: tail\), and a test needs more"):
        check_dense(open_layer(url, "s", LAYERS[0]), "a test needs more")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": "both"}, r"and all cells are asked for \(activations.keep: both\)"),
        ({"keep": "dense"}, r"holds the tails of snapshot s, and all cells are asked for \(activations.keep: dense\)"),
        ({"sampling": Sampling(0.03)}, r"the tails of snapshot s serve fractions up to 0\.02, 0\.03 is asked for"),
    ],
)
def test_what_stored_tails_do_not_serve_is_refused(url, probe, change, message):
    run(url, probe, recording=TAILS)
    with pytest.raises(DissectError, match=message):
        run(url, probe, recording=replace(TAILS, **change))


def test_stored_cells_serve_tails_as_well(url, probe, dense):
    run(url, probe)
    run(url, probe, recording=TAILS)
    assert open_layer(url, "s", LAYERS[0]).tail is None


def test_tails_larger_than_the_budget_are_refused(url, probe):
    with pytest.raises(DissectError, match=r"snapshot s: the tails of 2 layers take .* GiB raw, the budget is 0\.00"):
        run(url, probe, spec=SPEC, recording=replace(TAILS, budget=1000))
    assert not store.exists(url, "s")
