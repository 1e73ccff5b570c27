"""Thresholds and counts from tails equal those of all cells; bounds that are too high are noticed, and counted."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import oracle
import pytest
import stores
import strategies
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations import write
from dissect_xr.activations.request import Keep
from dissect_xr.activations.store import open_activations
from dissect_xr.activations.write import write_activations
from dissect_xr.bases.basis import IdentityBasis
from dissect_xr.bases.derive import derive
from dissect_xr.dissection import dissect as dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.layers import open_layer
from dissect_xr.errors import BoundTooHighError, DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.tail import sampling
from dissect_xr.tail.sampling import Sampling
from dissect_xr.tail.stored import StoredTail

STEPS = {"one task": True, "in steps": False}
"""Whether a layer is small: one task, or a search and counts by blocks."""


def write_tails(
    folder: Any, probe: str, maps: NDArray[Any], chosen: Sampling, keep: Keep = "tail", **attrs: Any
) -> str:
    """The activations of a probe's images as tails, however large these are."""
    url = str(folder / "tails.zarr")
    with patch.object(write, "WORTH", np.inf):
        write_activations(
            url, {"conv": maps}, images=store.read(probe, "image")[:].tolist(), snapshot="s", dtype=str(maps.dtype),
            attrs={"conv": attrs}, keep=keep, sampling=chosen, show=False,
        )  # fmt: skip
    return url


def too_high(url: str, maps: NDArray[Any], fractions: Any) -> tuple[int, ...]:
    """Units whose threshold lies below the bound, by sorting all their values."""
    layer = open_layer(url, "s", "conv")
    bound = StoredTail(layer.tail or layer.beside).bound
    return tuple(np.flatnonzero((oracle.thresholds(maps, fractions) < bound).any(axis=0)).tolist())


@pytest.mark.parametrize("small", STEPS.values(), ids=STEPS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_tails_give_the_same_numbers_as_all_cells(small, data):
    case = data.draw(strategies.probes())
    images = len(case.annotation)
    maps = data.draw(strategies.activations(images)).activation
    anchoring = data.draw(strategies.anchorings())
    fractions, domain = data.draw(strategies.fractions()), data.draw(st.sampled_from(["annotated", "touched", "all"]))
    margin, sample = data.draw(st.sampled_from([1.0, 2.0, 5.0])), data.draw(st.integers(1, images))
    keep = data.draw(st.sampled_from(["tail", "both"]))
    method = stores.method(fractions, anchoring, domain)
    with stores.scratch() as folder, stores.tiny_chunks(chunk=1, shard=2, units=2), ExitStack() as stack:
        if not small:
            stack.enter_context(patch.object(dissection, "is_small", lambda *_: False))
        probe, out = stores.write_probe_case(case, folder), str(folder / "out.zarr")
        chosen = Sampling(max(fractions), margin, sample)
        url = write_tails(folder, probe, maps, chosen, keep, **stores.geometry_attrs(anchoring))
        units = too_high(url, maps, fractions)
        event(f"{keep}, bounds too high: {bool(units)}")
        if units and keep == "tail":
            with pytest.raises(BoundTooHighError) as raised:
                dissect(url, probe, out, method=method, pool=Threads(1), show=False)
            assert raised.value.layers == {"conv": units}
            assert not any(key.endswith("done") for key in store.markers(out))
            return
        dissect(url, probe, out, method=method, pool=Threads(1), show=False)
        stores.assert_same(stores.stored(out, "s/conv"), stores.expected(maps, case, fractions, anchoring, domain))
        assert store.marker(out, "s/conv/done")["note"].get("bounds_too_high", 0) == len(units)


@pytest.fixture
def case(tmp_path):
    """(probe, its labels, maps of 60 images): ReLU units, one that is dead, one constant, one signed, one of ties."""
    rng = np.random.default_rng(4)
    shape = (60, 4, 4)
    labels = strategies.ProbeCase(
        rng.integers(0, 4, (60, 1, 8, 8)).astype(np.uint16), np.zeros((60, 1), np.uint16),
        np.array([1, 2, 3], np.uint16), np.array([0, 0, 1]), ("object", "color"),
    )  # fmt: skip
    signed = rng.normal(size=shape)
    units = [np.maximum(signed, 0), np.zeros(shape), np.full(shape, -2.5), signed, np.round(signed)]
    return stores.write_probe_case(labels, tmp_path), labels, np.stack(units, axis=1).astype(np.float16)


@pytest.mark.parametrize("small", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dead_constant_signed_and_tied_units_are_proven(case, tmp_path, small, dtype):
    probe, labels, maps = case
    maps = maps.astype(dtype)
    url = write_tails(tmp_path, probe, maps, Sampling(0.05, 2.0, 30))
    out = str(tmp_path / "out.zarr")
    with patch.object(dissection, "is_small", lambda *_: small):
        dissect(url, probe, out, method=stores.method([0.05, 0.01]), pool=Threads(1), show=False)
    wanted = stores.expected(maps, labels, [0.05, 0.01], stores.HALF_PIXEL, "annotated")
    stores.assert_same(stores.stored(out, "s/conv"), wanted)
    assert wanted["threshold"][0, 2] == -2.5, "the constant unit's bound is its threshold"
    assert wanted["dead"][0, 1], "the dead unit is dead"


@pytest.mark.parametrize("small", STEPS.values(), ids=STEPS)
def test_a_unit_that_the_sample_shows_brighter_than_it_is_is_noticed(case, tmp_path, small):
    """The first of every six images, which the sample is, are ten times as bright."""
    probe, _, maps = case
    maps[::6, 0] *= 10
    with patch.object(sampling, "BRIGHT", 0):
        url, out = write_tails(tmp_path, probe, maps, Sampling(0.2, 1.0, 10)), str(tmp_path / "out.zarr")
    assert too_high(url, maps, [0.2]) == (0,)
    with (
        patch.object(dissection, "is_small", lambda *_: small),
        pytest.raises(BoundTooHighError, match=r"s: the tails .* of some units: 1 of conv\. `dissect-xr run` extracts"),
    ):
        dissect(url, probe, out, method=stores.method([0.2]), pool=Threads(1), show=False)


def forget_cells(url):
    """Delete all cells that are stored beside a tail."""
    shards = list(Path(url, "s/conv/activation").glob("c.*"))
    assert shards
    for path in shards:
        path.unlink()


@pytest.mark.parametrize("small", STEPS.values(), ids=STEPS)
def test_of_a_tail_beside_all_cells_only_the_tail_is_read(case, tmp_path, small):
    probe, labels, maps = case
    url, out = write_tails(tmp_path, probe, maps, Sampling(0.05, 2.0, 30), "both"), str(tmp_path / "out.zarr")
    np.testing.assert_array_equal(store.read(url, "s/conv/activation")[:], maps)
    np.testing.assert_array_equal(open_activations(url)["s/conv"]["activation"], maps)
    forget_cells(url)
    with patch.object(dissection, "is_small", lambda *_: small):
        dissect(url, probe, out, method=stores.method([0.05, 0.01]), pool=Threads(1), show=False)
    wanted = stores.expected(maps, labels, [0.05, 0.01], stores.HALF_PIXEL, "annotated")
    stores.assert_same(stores.stored(out, "s/conv"), wanted)


def test_counts_go_on_by_all_cells_where_thresholds_were_found_so(case, tmp_path):
    """The first of every six images, which the sample is, are ten times as bright; the run stops after thresholds."""
    probe, labels, maps = case
    maps[::6, 0] *= 10
    with patch.object(sampling, "BRIGHT", 0):
        url = write_tails(tmp_path, probe, maps, Sampling(0.2, 1.0, 10), "both")
    assert too_high(url, maps, [0.2]) == (0,)
    out = str(tmp_path / "out.zarr")
    with patch.object(dissection, "is_small", lambda *_: False):
        with patch.object(dissection, "count_folds", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            dissect(url, probe, out, method=stores.method([0.2]), pool=Threads(1), show=False)
        assert store.marker(out, "s/conv/threshold")["note"] == {"bounds_too_high": 1}
        dissect(url, probe, out, method=stores.method([0.2]), pool=Threads(1), show=False)
    wanted = stores.expected(maps, labels, [0.2], stores.HALF_PIXEL, "annotated")
    stores.assert_same(stores.stored(out, "s/conv"), wanted)
    assert store.marker(out, "s/conv/done")["note"]["bounds_too_high"] == 1


def test_a_larger_fraction_than_the_tail_serves_is_found_from_the_cells_beside_it(case, tmp_path):
    probe, labels, maps = case
    url, out = write_tails(tmp_path, probe, maps, Sampling(0.01), "both"), str(tmp_path / "out.zarr")
    dissect(url, probe, out, method=stores.method([0.02]), pool=Threads(1), show=False)
    wanted = stores.expected(maps, labels, [0.02], stores.HALF_PIXEL, "annotated")
    stores.assert_same(stores.stored(out, "s/conv"), wanted)


def test_layers_derived_from_one_with_a_tail_beside_are_computed_from_all_cells(case, tmp_path):
    probe, labels, maps = case
    url, out = write_tails(tmp_path, probe, maps, Sampling(0.05), "both"), str(tmp_path / "out.zarr")
    derive(url, "conv", IdentityBasis(), show=False)
    dissect(url, probe, out, method=stores.method([0.05]), pool=Threads(1), show=False)
    wanted = stores.expected(maps, labels, [0.05], stores.HALF_PIXEL, "annotated")
    for name in ("conv", "conv@identity"):
        stores.assert_same(stores.stored(out, f"s/{name}"), wanted)


def test_a_larger_fraction_than_the_tail_was_made_for_is_refused(case, tmp_path):
    probe, _, maps = case
    url = write_tails(tmp_path, probe, maps, Sampling(0.01))
    with pytest.raises(DissectError, match=r"s/conv: its tail serves fractions up to 0\.01, 0\.02 is asked for"):
        dissect(url, probe, str(tmp_path / "out.zarr"), method=stores.method([0.02]), pool=Threads(1), show=False)


def test_a_layer_whose_tail_is_as_large_as_itself_is_kept_dense(case, tmp_path):
    probe, _, maps = case
    url = str(tmp_path / "dense.zarr")
    names = store.read(probe, "image")[:].tolist()
    write_activations(url, {"conv": maps}, images=names, keep="tail", sampling=Sampling(0.2), show=False)
    assert open_layer(url, "snapshot", "conv").tail is None
    np.testing.assert_array_equal(store.read(url, "snapshot/conv/activation")[:], maps)


def test_an_iterator_cannot_be_sampled(case, tmp_path):
    probe, _, maps = case
    names = store.read(probe, "image")[:].tolist()
    with pytest.raises(DissectError, match="layer conv: the bounds of a tail are taken from a sample of all images"):
        write_activations(str(tmp_path / "a.zarr"), {"conv": iter([maps])}, images=names, keep="tail", show=False)


@pytest.mark.parametrize("wrong", [{"fraction": 0.0}, {"fraction": 1.0}, {"margin": 0.5}, {"images": 0}])
def test_a_sampling_without_meaning_is_refused(wrong):
    with pytest.raises(DissectError, match="expected a fraction between 0 and 1, a margin of at least 1"):
        Sampling(**wrong)
