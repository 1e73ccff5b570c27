"""Every threshold and count of a dissection is the oracle's, however the work is cut, interrupted or refused."""

import math
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import oracle
import pytest
import stores
import strategies
import xarray as xr
from folds import run_here
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.activations.store import LayerShape
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection import cut, kernels, passes, thresholds
from dissect_xr.dissection import dissect as module
from dissect_xr.dissection.counts import CountTask, count_block
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.passes import count_blocks
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.schema import COORDINATES, DRAWN_BY
from dissect_xr.tail.stored import TailPlace

DOMAIN = st.sampled_from(oracle.DOMAINS)
CUTS = st.fixed_dictionaries(
    {
        "chunk": st.sampled_from([1, 64, 1000]),
        "shard": st.sampled_from([1, 256, 4000]),
        "units": st.integers(1, 5),
        "read": st.sampled_from([1, 100, 10_000]),
        "labels": st.sampled_from([1, 200, 10_000]),
        "task": st.sampled_from([1, 400, 10_000]),
    }
)


def grid(labels, *, concepts=(1, 2), kinds=(0, 0), categories=("object",), whole=None):
    """A probe of hand-made label maps (image, row, col)."""
    annotation = np.array(labels, np.uint16)[:, None]
    whole_image = np.zeros((len(annotation), 1), np.uint16) if whole is None else np.array(whole, np.uint16)
    return ProbeCase(annotation, whole_image, np.array(concepts, np.uint16), np.array(kinds, np.int64), categories)


def noise(images=6, units=3, size=(5, 5), dtype=np.float16, seed=0):
    return np.random.default_rng(seed).normal(size=(images, units, *size)).astype(dtype)


def noisy_probe(images=6, size=(8, 8), seed=0, concepts=3):
    labels = np.random.default_rng(seed).integers(0, concepts + 1, (images, *size))
    return grid(labels, concepts=range(1, concepts + 1), kinds=[0] * concepts)


def iou(result, unit, concept, fraction=0, category=0):
    both = result["intersection"][fraction, unit, concept]
    return both / (result["unit_area"][fraction, unit, category] + result["concept_area"][concept] - both)


@contextmanager
def spied(module, name) -> Iterator[list]:
    """First arguments of every call of a function."""
    calls, original = [], getattr(module, name)

    def spy(*args):
        calls.append(args[0])
        return original(*args)

    with patch.object(module, name, spy):
        yield calls


# --- equal to the oracle ---


@settings(max_examples=40)
@given(st.data())
def test_thresholds_and_counts_are_the_oracles(data):
    case = data.draw(strategies.probes(max_images=8, max_size=data.draw(st.sampled_from([12, 40]))))
    acts = data.draw(strategies.activations(len(case.annotation)))
    fractions, anchoring = data.draw(strategies.fractions()), data.draw(strategies.anchorings())
    domain, cut, workers = data.draw(DOMAIN), data.draw(CUTS), data.draw(st.sampled_from([1, 3]))
    with stores.scratch() as folder, stores.tiny_chunks(**cut):
        got = stores.dissected(
            folder, case, acts.activation, fractions, anchoring=anchoring, domain=domain, pool=Threads(workers)
        )
    stores.assert_same(got, stores.expected(acts.activation, case, fractions, anchoring, domain))


@settings(max_examples=15)
@given(st.data())
def test_broden_folder_to_counts_is_the_oracles(data):
    case = data.draw(strategies.probes())
    acts, fractions = data.draw(strategies.activations(len(case.annotation))), data.draw(strategies.fractions())
    with stores.scratch() as folder:
        probe = stores.write_probe_broden(case, folder)
        activations, out = stores.write_layers(folder, probe, {"conv": acts.activation}), str(folder / "out.zarr")
        dissect(activations, probe, out, method=stores.method(fractions), pool=Threads(1), show=False)
        got = stores.stored(out, "s/conv")
        label_set = oracle.read_broden(folder / "broden")
    stores.assert_same(got, stores.expected(acts.activation, case, fractions, stores.HALF_PIXEL, "annotated"))
    stores.assert_same(got, stores.expected(acts.activation, label_set, fractions, stores.HALF_PIXEL, "annotated"))


@pytest.mark.slow
def test_same_for_every_cut(tmp_path):
    case = noisy_probe(images=24, size=(9, 7), concepts=200)
    acts = np.maximum(noise(24, 21, (4, 6)), 0)
    wanted = stores.expected(acts, case, [0.1, 0.3], stores.HALF_PIXEL, "touched")
    probe = stores.write_probe_case(case, tmp_path)
    method = stores.method([0.1, 0.3], domain="touched")
    seen = []
    for n, (sizes, pool) in enumerate(
        [
            ({"units": 64, "chunk": 10**6, "shard": 10**6, "read": 20_000, "labels": 10**6, "task": 10**9}, Threads(1)),
            ({"units": 4, "chunk": 1, "shard": 1, "read": 1, "task": 1}, Threads(1, memory=2**17)),
            ({"units": 5, "chunk": 500, "shard": 5000, "read": 1000, "task": 2000}, Threads(3, memory=2**18)),
            ({"units": 1, "chunk": 100, "shard": 200, "read": 100, "task": 10**6}, Threads(5, memory=2**16)),
            ({"units": 2, "chunk": 10**6, "shard": 10**6, "read": 1, "task": 1}, Threads(2, memory=2**18)),
        ]
    ):
        with stores.tiny_chunks(**sizes), spied(passes, "count_block") as tasks:
            activations = stores.write_layers(tmp_path, probe, {"conv": acts}, name=f"{n}.zarr")
            dissect(activations, probe, str(tmp_path / f"out{n}.zarr"), method=method, pool=pool, show=False)
        seen.append((len({t.block.units for t in tasks}), len({t.block.images for t in tasks}), tasks[0].block.step))
        stores.assert_same(stores.stored(str(tmp_path / f"out{n}.zarr"), "s/conv"), wanted)
    assert all(len(set(kinds)) > 2 for kinds in zip(*seen, strict=True)), f"the cuts hardly differ: {seen}"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_counts_are_exact_for_any_finite_bits(tmp_path, dtype):
    case, random = noisy_probe(12, (11, 13)), np.random.default_rng(3)
    bits = random.integers(0, 2 ** (8 * dtype().itemsize), (12, 6, 4, 5)).astype(f"u{dtype().itemsize}")
    acts = bits.view(dtype)
    acts[~np.isfinite(acts)] = 0
    got = stores.dissected(tmp_path, case, acts, [0.05, 0.5, 0.9])
    stores.assert_same(got, stores.expected(acts, case, [0.05, 0.5, 0.9], stores.HALF_PIXEL, "annotated"))


def tie(random, weights, largest):
    """Whole numbers n of four corners, not above `largest`, with sum(weights * n) == 0."""
    while True:
        free = random.integers(-max(1, largest // 250), largest // 250 + 2, 3)
        corners = np.append(weights[3] * free, -(weights[:3] * free).sum())
        if 0 < np.abs(corners).max() <= largest:
            return corners


@pytest.mark.parametrize(("dtype", "unit", "level"), [(np.float16, 1.0, 1536.0), (np.float32, 2.0**-22, 3.0)])
def test_ties_that_float64_misses_are_not_active(tmp_path, dtype, unit, level):
    """In each image the weighted mean of four cells is T exactly at a pixel whose weights are no binary numbers."""
    random, images, size, grid_size = np.random.default_rng(0), 300, (5, 4), (7, 9)
    rows, cols = stores.axes_of(stores.HALF_PIXEL, size, grid_size)
    acts, rounded = np.full((2 * images, 1, *size), level, dtype), []
    for image in range(images):
        row, col = random.choice([1, 2, 4, 5]), random.choice([2, 3, 5, 6])
        down, right = (
            np.array([axis.lower_weight[at], axis.upper_weight[at]]) for axis, at in ((rows, row), (cols, col))
        )
        corners = tie(random, np.outer(down, right).ravel().astype(np.int64), 500 if dtype == np.float16 else 4_000_000)
        y, x = rows.lower[row], cols.lower[col]
        acts[image, 0, y : y + 2, x : x + 2] = (level + corners * unit).reshape(2, 2)
        assert (acts[image, 0, y : y + 2, x : x + 2].ravel() == level + corners * unit).all()
        rounded.append(float(oracle.upsample(acts[image, 0], rows, cols)[row, col]))
    assert max(rounded) > level > min(rounded)
    case = noisy_probe(2 * images, grid_size)
    got = stores.dissected(tmp_path, case, acts, [0.5])
    assert got["threshold"].tolist() == [[level]]
    stores.assert_same(got, stores.expected(acts, case, [0.5], stores.HALF_PIXEL, "annotated"))


@pytest.mark.parametrize("level", [1.5, 0.1, 1 / 3])
@pytest.mark.parametrize("jump", [Fraction(16), Fraction(223, 17), Fraction(223, 111)])
def test_ties_are_exact_for_weights_of_more_bits_than_a_value_leaves(tmp_path, level, jump):
    """Weights of both axes take 31 and 32 bits, values 24: their product is no float64 any more."""
    anchoring = strategies.AnchoringCase((227, 211), (Fraction(35, 2), jump), (Fraction(1, 3), jump))
    axes = stores.axes_of(anchoring, (9, 8), (113, 97))
    if jump != 16:
        assert axes[0].denominator * axes[1].denominator > 2 ** (53 - 24)
    case, random = noisy_probe(4, (113, 97)), np.random.default_rng(0)
    acts = np.float32(level) * random.choice([0, 1, 1, 1, 1, 1, 1, 2], (4, 2, 9, 8)).astype(np.float32)
    got = stores.dissected(tmp_path, case, acts, [0.3], anchoring=anchoring)
    assert got["threshold"].tolist() == [[np.float32(level)] * 2]
    stores.assert_same(got, stores.expected(acts, case, [0.3], anchoring, "annotated"))


@settings(max_examples=12)
@given(st.data())
def test_several_fractions_in_one_pass_are_those_of_several_passes(data):
    case = data.draw(strategies.probes(max_images=3))
    acts = data.draw(strategies.activations(len(case.annotation), max_size=5))
    fractions = data.draw(strategies.fractions())
    with stores.scratch() as folder:
        probe = stores.write_probe_case(case, folder)
        activations = stores.write_layers(folder, probe, {"conv": acts.activation})
        results = []
        for n, chosen in enumerate([fractions, *([q] for q in fractions)]):
            out = str(folder / f"{n}.zarr")
            dissect(activations, probe, out, method=stores.method(chosen), pool=Threads(1), show=False)
            results.append(stores.stored(out, "s/conv"))
    together, *alone = results
    for f, single in enumerate(alone):
        for name in ("threshold", "exceedance", "intersection", "unit_area", "dead"):
            np.testing.assert_array_equal(together[name][f], single[name][0], err_msg=name)


def test_maps_larger_than_the_label_grid_are_sampled(tmp_path):
    case, acts = noisy_probe(5, (3, 4)), noise(5, 4, (14, 13))
    got = stores.dissected(tmp_path, case, acts, [0.2, 0.5])
    stores.assert_same(got, stores.expected(acts, case, [0.2, 0.5], stores.HALF_PIXEL, "annotated"))
    assert got["intersection"].any()


# --- known answers ---

LEFT = np.repeat([[1.0, 1.0, 0.0, 0.0]], 4, axis=0)


def test_half_overlap_gives_one_third(tmp_path):
    left, top = [[1, 1, 0, 0]] * 4, [[2] * 4] * 2 + [[0] * 4] * 2
    case = grid([left, top, [[0] * 4] * 4], concepts=(1, 2, 3), kinds=(0, 0, 0), whole=[[0], [0], [3]])
    acts = np.stack([LEFT] * 3)[:, None].astype(np.float16)
    got = stores.dissected(tmp_path, case, acts, [0.5])
    assert got["threshold"].tolist() == [[0.0]]
    assert got["exceedance"].tolist() == [[24]]
    assert got["intersection"].tolist() == [[[8, 4, 8]]]
    assert got["unit_area"].tolist() == [[[24]]]
    assert got["concept_area"].tolist() == [8, 8, 16]
    assert [iou(got, 0, c) for c in range(3)] == [8 / 24, 4 / 28, 8 / 32]


def test_unit_that_is_a_concept_has_iou_one(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, (7, 6, 6))
    case = grid(labels, concepts=(1, 2, 3), kinds=(0, 0, 0))
    acts = np.stack([labels == c for c in (1, 2, 3)], axis=1).astype(np.float32)
    got = stores.dissected(tmp_path, case, acts, [0.4])
    assert [[iou(got, k, c) == 1.0 for c in range(3)] for k in range(3)] == np.eye(3, dtype=bool).tolist()


def test_half_the_image_of_another_labels_half_gives_one_third(tmp_path):
    case = grid([[[1] * 4] * 2 + [[0] * 4] * 2], concepts=(1,), kinds=(0,))
    got = stores.dissected(tmp_path, case, LEFT[None, None].astype(np.float16), [0.5])
    assert iou(got, 0, 0) == 4 / 12


def test_bilinear_edge_lies_three_quarters_across(tmp_path):
    case = grid([[[1] * 4] * 4], concepts=(1,), kinds=(0,))
    got = stores.dissected(tmp_path, case, np.array([[[[1, 0], [1, 0]]]], np.float16), [0.5])
    assert got["intersection"].tolist() == [[[12]]]  # weights 1, 3/4, 1/4, 0 of four columns


def test_interpolated_value_at_the_threshold_is_not_active(tmp_path):
    case = grid([[[1] * 3]], concepts=(1,), kinds=(0,))
    acts = np.array([[[[3, 1]]], [[[2, 2]]]], np.float16)  # the middle pixel of the first image is exactly 2 = T
    got = stores.dissected(tmp_path, replace_images(case, 2), acts, [0.3])
    assert got["threshold"].tolist() == [[2.0]]
    assert got["intersection"].tolist() == [[[1]]]


def replace_images(case, images):
    return replace(
        case, annotation=np.repeat(case.annotation, images, 0), whole_image=np.repeat(case.whole_image, images, 0)
    )


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -3.0, 65504.0, 2.0**-24])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_constant_unit_is_dead(tmp_path, value, dtype):
    got = stores.dissected(tmp_path, noisy_probe(), np.full((6, 2, 3, 3), value, dtype), [0.005, 0.9])
    assert (got["threshold"] == value).all()
    assert not np.signbit(got["threshold"][got["threshold"] == 0]).any()
    assert got["dead"].all()
    for name in ("exceedance", "intersection", "unit_area"):
        assert not got[name].any()


def test_unit_that_fires_less_than_the_fraction_has_threshold_zero(tmp_path):
    acts = np.zeros((6, 1, 10, 10), np.float16)
    acts[::2] = -0.0
    acts[3, 0, 4, 4] = 0.25
    case = noisy_probe()
    got = stores.dissected(tmp_path, case, acts, [0.005])
    assert (got["threshold"].tolist(), got["exceedance"].tolist()) == ([[0.0]], [[1]])
    stores.assert_same(got, stores.expected(acts, case, [0.005], stores.HALF_PIXEL, "annotated"))
    assert not got["dead"].any()


def test_unit_above_its_threshold_between_label_pixels_is_dead(tmp_path):
    acts = np.zeros((1, 1, 9, 9), np.float16)
    acts[0, 0, 0, 0] = 1.0  # a one-pixel label grid looks at the middle of the map
    got = stores.dissected(tmp_path, grid([[[1]]], concepts=(1,), kinds=(0,)), acts, [0.1])
    assert got["exceedance"].tolist() == [[1]]
    assert got["dead"].tolist() == [[True]]


def test_float32_thresholds_are_told_apart_in_their_last_bits(tmp_path):
    base = np.float32(1.0).view(np.uint32)
    codes = base + np.random.default_rng(0).permutation(6 * 16).astype(np.uint32)
    acts = codes.view(np.float32).reshape(6, 1, 4, 4)
    acts = np.concatenate([acts, -acts, (codes - base).view(np.float32).reshape(acts.shape)], axis=1)
    fractions = [0.01, 0.25, 0.5]
    case = noisy_probe()
    got = stores.dissected(tmp_path, case, acts, fractions)
    stores.assert_same(got, stores.expected(acts, case, fractions, stores.HALF_PIXEL, "annotated"))
    assert got["exceedance"].tolist() == [[0] * 3, [24] * 3, [48] * 3]


@pytest.mark.parametrize("fraction", [0.29, 0.57, 0.58])
def test_fraction_is_read_as_a_decimal(tmp_path, fraction):
    assert math.floor(fraction * 100) == round(fraction * 100) - 1  # what binary arithmetic would take
    acts = np.random.default_rng(0).permutation(100).astype(np.float16).reshape(4, 1, 5, 5)
    got = stores.dissected(tmp_path, noisy_probe(4), acts, [fraction])
    assert got["threshold"].tolist() == [[99 - round(fraction * 100)]]
    assert got["exceedance"].tolist() == [[round(fraction * 100)]]


# --- the sampled bound ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.9])
def test_threshold_is_exact_where_the_sample_misleads(tmp_path, dtype, fraction):
    acts = noise(40, 4, (3, 3), dtype)
    acts[0] += 100  # the one image that the sample sees
    acts[:, 1] = np.abs(acts[:, 1])
    acts[0, 2] = -100  # and here a bound that is far too low: right, only slower
    case = noisy_probe(40)
    with (
        stores.tiny_chunks(chunk=1, shard=1),
        patch.object(thresholds, "SAMPLE", 1),
        spied(passes, "histogram_block") as tasks,
    ):
        got = stores.dissected(tmp_path, case, acts, [fraction])
    first = [task for task in tasks if task.shift == max(task.shift for task in tasks)]
    assert any((task.low > 0).any() for task in first), "no bound was taken"
    assert max(Counter(task.block for task in first).values()) == 2, "nothing had to be searched again"
    stores.assert_same(got, stores.expected(acts, case, [fraction], stores.HALF_PIXEL, "annotated"))


@settings(max_examples=25)
@given(st.data())
def test_threshold_is_exact_for_every_sample(data):
    images = data.draw(st.integers(8, 24))
    acts = data.draw(strategies.activations(images, max_size=3))
    fractions, sample = data.draw(strategies.fractions()), data.draw(st.integers(1, 3))
    layers, wanted = {"conv": acts.activation}, oracle.thresholds(acts.activation, fractions)
    with (
        stores.scratch() as folder,
        stores.tiny_chunks(chunk=1, shard=1, units=2),
        patch.object(thresholds, "SAMPLE", sample),
    ):
        url = str(folder / "activations.zarr")
        write_activations(
            url, layers, images=stores.image_names(images), snapshot="s", dtype=str(acts.activation.dtype)
        )
        found = run_here(passes.find_thresholds(open_layer(url, "s", "conv"), fractions, cut.Limits(2**29, 2)))
    stores.assert_same(
        {"threshold": found.threshold, "exceedance": found.exceedance},
        {"threshold": wanted, "exceedance": oracle.exceedances(acts.activation, wanted)},
    )


# --- what is refused ---


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_fraction_outside_0_1_is_refused(fraction):
    with pytest.raises(DissectError, match="not between 0 and 1"):
        Method(fractions=(0.1, fraction))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fractions": ()}, "at least one"),
        ({"fractions": (0.1, 0.1)}, "distinct"),
        ({"anchoring": "align_corners"}, "receptive_field or half_pixel"),
        ({"domain": "labelled"}, "annotated, touched, all"),
    ],
)
def test_method_without_meaning_is_refused(given, message):
    with pytest.raises(DissectError, match=message):
        Method(**given)


@pytest.fixture
def run(tmp_path):
    """A finished dissection: (activations, probe, out, method)."""
    case = noisy_probe()
    probe = stores.write_probe_case(case, tmp_path)
    activations = stores.write_layers(tmp_path, probe, {"conv": noise()})
    out, method = str(tmp_path / "out.zarr"), Method((0.1,), "half_pixel")
    dissect(activations, probe, out, method=method, pool=Threads(1), show=False)
    return activations, probe, out, method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": (0.2,)}, r"fractions was \[0.1\], is \[0.2\]"),
        ({"domain": "all"}, "domain was 'annotated', is 'all'"),
        ({"anchoring": "receptive_field"}, "anchoring was 'half_pixel', is 'receptive_field'"),
    ],
)
def test_other_parameters_are_refused_and_told_apart(run, change, message):
    activations, probe, out, method = run
    before = stores.stored(out, "s/conv")
    with pytest.raises(DissectError, match=message):
        dissect(activations, probe, out, method=replace(method, **change), pool=Threads(1), show=False)
    stores.assert_same(stores.stored(out, "s/conv"), before)


def test_other_activations_are_refused_and_told_apart(run, tmp_path):
    _, probe, out, method = run
    other = stores.write_layers(tmp_path, probe, {"conv": noise(seed=9)}, name="other.zarr")
    with pytest.raises(DissectError, match=r"activations_sha256 was '[0-9a-f]{64}', is '[0-9a-f]{64}'"):
        dissect(other, probe, out, method=method, pool=Threads(1), show=False)


def test_other_geometry_makes_other_activations(run, tmp_path):
    _, probe, _, method = run
    rf = replace(method, anchoring="receptive_field")
    results = []
    for n, start in enumerate((0, 16)):
        anchoring = strategies.AnchoringCase((32, 32), (start, 8), (start, 8))
        moved = stores.write_layers(tmp_path, probe, {"conv": noise()}, anchoring=anchoring, name=f"{n}.zarr")
        if n == 1:
            with pytest.raises(DissectError, match="activations_sha256 was"):
                dissect(moved, probe, str(tmp_path / "rf0.zarr"), method=rf, pool=Threads(1), show=False)
        dissect(moved, probe, str(tmp_path / f"rf{n}.zarr"), method=rf, pool=Threads(1), show=False)
        results.append(stores.stored(str(tmp_path / f"rf{n}.zarr"), "s/conv")["intersection"])
    assert (results[0] != results[1]).any()


def test_activations_of_another_probe_are_refused(run, tmp_path):
    activations, _, _, method = run
    (tmp_path / "more").mkdir()
    other = stores.write_probe_case(noisy_probe(images=7), tmp_path / "more")
    with pytest.raises(DissectError, match="its activations are of 6 images, the probe has 7"):
        dissect(activations, other, str(tmp_path / "new.zarr"), method=method, pool=Threads(1), show=False)
    assert not store.exists(str(tmp_path / "new.zarr"), "s/conv")


def test_same_images_with_other_labels_need_no_new_activations(run, tmp_path):
    activations, _, _, method = run
    (tmp_path / "more").mkdir()
    case = noisy_probe(seed=5)
    probe = stores.write_probe_case(case, tmp_path / "more")
    out = str(tmp_path / "new.zarr")
    dissect(activations, probe, out, method=method, pool=Threads(1), show=False)
    stores.assert_same(
        stores.stored(out, "s/conv"), stores.expected(noise(), case, [0.1], stores.HALF_PIXEL, "annotated")
    )


def test_activations_made_elsewhere_need_only_the_probes_image_names(tmp_path):
    case, acts = noisy_probe(), noise()
    probe, url = stores.write_probe_case(case, tmp_path), str(tmp_path / "activations.zarr")
    write_activations(url, {"conv": acts}, images=store.read(probe, "image")[:].tolist(), snapshot="s")
    out = str(tmp_path / "out.zarr")
    dissect(url, probe, out, method=stores.method([0.1]), pool=Threads(1), show=False)
    stores.assert_same(stores.stored(out, "s/conv"), stores.expected(acts, case, [0.1], stores.HALF_PIXEL, "annotated"))


def test_label_maps_wider_than_can_be_counted_are_refused(tmp_path, monkeypatch):
    probe = stores.write_probe_case(noisy_probe(size=(3, 8)), tmp_path)
    monkeypatch.setattr("dissect_xr.dissection.labels.LABEL_SIDE", 7)
    with pytest.raises(DissectError, match=r"sides of at most 7 pixels, got \(3, 8\)"):
        open_labels(probe)
    monkeypatch.setattr("dissect_xr.dissection.labels.LABEL_SIDE", 8)
    assert open_labels(probe).shape[2:] == (3, 8)


def test_activations_made_elsewhere_of_other_images_are_refused(tmp_path):
    probe, url = stores.write_probe_case(noisy_probe(), tmp_path), str(tmp_path / "activations.zarr")
    names = store.read(probe, "image")[:].tolist()
    write_activations(url, {"conv": noise()}, images=names[::-1], snapshot="s")
    with pytest.raises(DissectError, match=r"of other images than the probe's: number 0 is .* 6 differ in all"):
        dissect(url, probe, str(tmp_path / "out.zarr"), method=stores.method([0.1]), pool=Threads(1), show=False)


def test_incomplete_activations_are_refused(run, tmp_path):
    activations, probe, _, method = run
    store.create(activations, "s/half", [], {"step": 0, "position": 1})
    out = str(tmp_path / "new.zarr")
    with pytest.raises(DissectError, match="s/half are not complete"):
        dissect(activations, probe, out, method=method, only=[("s", "half")], pool=Threads(1), show=False)
    dissect(activations, probe, out, method=method, pool=Threads(1), show=False)
    assert stores.complete_pairs(out) == [("s", "conv")]


def test_store_without_layers_is_refused(run, tmp_path):
    _, probe, _, method = run
    url = str(tmp_path / "empty.zarr")
    store.create(url, "", [], {})
    with pytest.raises(DissectError, match="no complete layer"):
        dissect(url, probe, str(tmp_path / "new.zarr"), method=method, pool=Threads(1), show=False)


def test_unfinished_probe_is_refused(run, tmp_path):
    activations, probe, _, method = run
    (tmp_path / "markers" / "probe.zarr" / "done.json").unlink()
    with pytest.raises(DissectError, match="expected a complete probe"):
        dissect(activations, probe, str(tmp_path / "new.zarr"), method=method, pool=Threads(1), show=False)


def test_layer_without_geometry_is_counted_at_half_pixels_and_says_why(run, tmp_path):
    activations, probe, out, method = run
    other = str(tmp_path / "rf.zarr")
    dissect(activations, probe, other, method=replace(method, anchoring="receptive_field"), pool=Threads(1), show=False)
    stores.assert_same(stores.stored(other, "s/conv"), stores.stored(out, "s/conv"))
    attrs = store.read_attrs(other, "s/conv")
    assert (store.read_attrs(other)["anchoring"], attrs["anchoring_used"]) == ("receptive_field", "half_pixel")
    assert "without geometry" in attrs["anchoring_reason"]


# --- taking a run up again ---


@pytest.fixture
def layers(tmp_path):
    """Activations of two layers, cut into several unit blocks, with their probe."""
    case = noisy_probe(images=10, concepts=200)
    arrays = {"one": noise(10, 11, (4, 4)), "two": noise(10, 6, (3, 5), np.float32, seed=1)}
    probe = stores.write_probe_case(case, tmp_path)
    with stores.tiny_chunks(units=3, chunk=1):
        activations = stores.write_layers(tmp_path, probe, arrays)
    wanted = {
        name: stores.expected(values, case, [0.1], stores.HALF_PIXEL, "annotated") for name, values in arrays.items()
    }
    return activations, probe, wanted


MANY_BLOCKS = Threads(1, memory=2**16)
"""Of the counts of 200 concepts it holds those of three units: four unit blocks of one layer, two of the other."""


def test_second_run_computes_nothing(layers, tmp_path):
    activations, probe, _ = layers
    out, method = str(tmp_path / "out.zarr"), stores.method([0.1])
    with stores.tiny_chunks():
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    with spied(kernels, "count_pixels") as counts, spied(thresholds, "histogram") as histograms:
        dissect(activations, probe, out, method=method, pool=Threads(2), show=False)
    assert not counts
    assert not histograms


class Interrupted(BaseException):
    """What a killed run looks like from inside."""


@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_interrupted_run_is_taken_up_where_it_stopped(layers, tmp_path, after):
    activations, probe, wanted = layers
    out, method = str(tmp_path / "out.zarr"), stores.method([0.1])
    finished = []

    def dies(task):
        if len(finished) == after:
            raise Interrupted
        finished.append((task.layer.name, task.block.units))
        return count_block(task)

    with (
        stores.tiny_chunks(task=10**9),
        patch.object(passes, "count_block", dies),
        pytest.raises(Interrupted),
    ):
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    assert set(stores.complete_pairs(out)) <= {("s", "one")}, "of its four unit blocks"
    found = {name for name in wanted if store.marker(out, f"s/{name}/threshold") is not None}
    assert found
    kept = {
        (name, tuple(map(int, key.rpartition("/")[2].split("-"))))
        for name in wanted
        for key in store.markers(out, f"s/{name}/counts")
    }
    with (
        stores.tiny_chunks(task=10**9),
        spied(passes, "count_block") as tasks,
        spied(passes, "histogram_block") as histograms,
    ):
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    assert not {task.layer.name for task in histograms} & found
    again = {(task.layer.name, task.block.units) for task in tasks}
    assert not again & kept
    assert len(again | kept) == 6
    assert len(kept) >= after - 2  # those in flight were lost
    for name in wanted:
        stores.assert_same(stores.stored(out, f"s/{name}"), wanted[name])


def test_run_interrupted_in_its_thresholds_is_taken_up(layers, tmp_path):
    activations, probe, wanted = layers
    out, method = str(tmp_path / "out.zarr"), stores.method([0.1])
    with (
        stores.tiny_chunks(),
        patch.object(passes, "histogram_block", side_effect=Interrupted),
        pytest.raises(Interrupted),
    ):
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    assert not any("threshold" in key or "counts" in key for key in store.markers(out))
    with stores.tiny_chunks():
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    for name in wanted:
        stores.assert_same(stores.stored(out, f"s/{name}"), wanted[name])


def test_run_taken_up_with_other_memory_gives_the_same_counts(layers, tmp_path):
    activations, probe, wanted = layers
    out, method = str(tmp_path / "out.zarr"), stores.method([0.1])
    with stores.tiny_chunks():
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
    for key in ("s/one/done", "s/one/counts/3-6", "s/two/done"):
        (tmp_path / "markers" / "out.zarr" / f"{key}.json").unlink()
    dissect(activations, probe, out, method=method, pool=Threads(3), show=False)
    for name in wanted:
        stores.assert_same(stores.stored(out, f"s/{name}"), wanted[name])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_markers_are_lost_the_same_counts_come_back(layers, data):
    activations, probe, wanted = layers
    method = stores.method([0.1])
    with stores.scratch() as folder, stores.tiny_chunks(read=4000, labels=4000, task=10**9):
        out = str(folder / "out.zarr")
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
        stores.lose_markers(out, data)
        dissect(activations, probe, out, method=method, pool=MANY_BLOCKS, show=False)
        for name in wanted:
            stores.assert_same(stores.stored(out, f"s/{name}"), wanted[name])


def test_counts_of_many_concepts_are_written_in_chunks(tmp_path):
    case, acts = noisy_probe(concepts=10), noise()
    with patch("dissect_xr.dissection.store.CONCEPT_CHUNK", 3):
        got = stores.dissected(tmp_path, case, acts, [0.1, 0.4])
    assert store.read(str(tmp_path / "dissection.zarr"), "s/conv/intersection").chunks[2] == 3
    stores.assert_same(got, stores.expected(acts, case, [0.1, 0.4], stores.HALF_PIXEL, "annotated"))


def test_layers_of_a_later_snapshot_are_added(layers, tmp_path):
    activations, probe, wanted = layers
    out, method = str(tmp_path / "out.zarr"), stores.method([0.1])
    dissect(activations, probe, out, method=method, only=[("s", "two")], pool=Threads(1), show=False)
    assert stores.complete_pairs(out) == [("s", "two")]
    stores.write_layers(tmp_path, probe, {"two": noise(10, 6, (3, 5), seed=2)}, snapshot=SnapshotInfo("t", step=-3))
    with spied(module, "dissect_small") as tasks:
        dissect(activations, probe, out, method=method, pool=Threads(1), show=False)
    assert {task.wanted.path for task in tasks} == {"s/one", "t/two"}
    assert [snapshot for snapshot, _ in stores.complete_pairs(out)] == ["t", "s", "s"]
    stores.assert_same(stores.stored(out, "s/one"), wanted["one"])


def test_results_open_as_a_plain_datatree(run):
    _, probe, out, _ = run
    with xr.open_datatree(out, engine="zarr", consolidated=False) as tree:
        layer = tree["s/conv"]
        assert layer["unit"].values.tolist() == ["conv/0", "conv/1", "conv/2"]
        assert layer["intersection"].dims == ("fraction", "unit", "concept")
        assert layer["concept"].values.tolist() == store.read(probe, "concept")[:].tolist()
        assert layer["intersection"].coords.keys() == {"fraction", "unit", "concept"}, "shared names are inherited"
        drawn = {*DRAWN_BY, "label_iou"}  # people drew all labels
        assert tree.coords.keys() == {*COORDINATES} - {"snapshot", "step", "unit", "layer", "channel", *drawn}
        assert (tree["concept_area"].dims, tree["domain_area"].dims) == (("concept",), ("domain",))


# --- memory ---


def test_a_count_holds_neither_pixels_by_concepts_nor_all_maps(tmp_path):
    """The bound is one that any of the forbidden allocations alone would break.

    One image's label pixels by concepts are 112 * 112 * 8,000 / 8 = 12.5 MB even as bits, all images' maps of the
    block 16 * 28 * 28 * 2 * 512 = 12.8 MB, all label maps 112 * 112 * 2 * 512 = 12.8 MB. Tasks may use 8 MiB; what
    Python takes beside it, and reads that end at other times than planned, may make it 10.
    """
    images, units, concepts, memory, bound = 512, 16, 8000, 8 * 2**20, 10 * 2**20
    labels = np.random.default_rng(0).integers(0, concepts + 1, (images, 14, 14)).repeat(8, 1).repeat(8, 2)
    case = grid(labels, concepts=range(1, concepts + 1), kinds=[0] * concepts)
    acts = noise(images, units, (28, 28))
    pixels = case.annotation[0].size
    assert min(pixels * concepts // 8, acts.nbytes, case.annotation.nbytes) > bound
    probe = stores.write_probe_case(case, tmp_path)
    with stores.tiny_chunks(
        chunk=2**17, shard=2**20, units=units, read=cut.READ_BYTES, labels=2**19, task=cut.TASK_BYTES
    ):
        layer = open_layer(stores.write_layers(tmp_path, probe, {"conv": acts}), "s", "conv")
        label_set = open_labels(probe)
        ((block, *_),) = count_blocks(layer, label_set, 1, cut.Limits(memory, 2))
        block = replace(block, images=(0, images))
        levels = oracle.thresholds(acts, [0.05]).astype(np.float32)
        step = cut.label_step(label_set, memory)
        task = CountTask(layer, label_set, block, levels, "half_pixel", "annotated", step)
        count_block(replace(task, block=replace(block, images=(0, block.step))))  # compiles, imports
        tracemalloc.start()
        hits, _ = count_block(task)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert hits.any()
    assert peak < bound


def test_a_merge_holds_no_more_than_the_plan_allows(layers, tmp_path):
    activations, probe, wanted = layers
    out, held = str(tmp_path / "out.zarr"), []

    def weighed(merge):
        def spy(*parts):
            merged = merge(*parts)
            held.append(sum(array.nbytes for part in (*parts, merged) for array in part))
            return merged

        return spy

    with (
        stores.tiny_chunks(read=1, task=1),
        patch.object(passes, "merge_counts", weighed(passes.merge_counts)),
    ):
        dissect(activations, probe, out, method=stores.method([0.1]), pool=MANY_BLOCKS, show=False)
    assert len(held) > 6
    assert max(held) <= MANY_BLOCKS.memory
    stores.assert_same(stores.stored(out, "s/one"), wanted["one"])


@settings(max_examples=300)
@given(
    shape=st.tuples(st.integers(1, 70_000), st.integers(1, 4096), st.integers(1, 112), st.integers(1, 112)),
    dtype=st.sampled_from(["float16", "float32"]),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 10_000)),
    labels=st.tuples(st.integers(1, 6), st.integers(1, 224)),
    memory=st.integers(28, 33).map(lambda n: 2**n),
    workers=st.integers(1, 64),
)
@example((701, 2688, 128, 128), "float16", (1, 6240), (4, 112), 2**29, 1)
def test_a_plan_is_refused_only_where_no_smaller_one_fits(shape, dtype, counts, labels, memory, workers):
    spec = LayerShape("conv", shape, dtype, 256).spec
    layer = Layer("", "s", "conv", shape, dtype, spec.chunks[:2], "", None, None)
    sizes = {"unit_bytes": 8 * counts[0] * (counts[1] + 2), "label_bytes": 2 * labels[0] * labels[1] ** 2}
    sizes["memory"] = memory
    blocks = cut.cut(layer, **sizes, tasks=2 * workers, split_units=False)
    units = min(shape[1], cut.count_chunk_units(layer, sizes["unit_bytes"]))
    least = cut.Block((0, units), (0, shape[0]), spec.chunks[0])
    assert cut.projected(layer, blocks[0][0], **sizes).total <= max(memory, cut.projected(layer, least, **sizes).total)
    covered = [(unit, image) for row in blocks for block in row for unit, image in [(block.units, block.images)]]
    assert sum((u[1] - u[0]) * (i[1] - i[0]) for u, i in covered) == shape[0] * shape[1]
    assert all(u[0] % spec.chunks[1] == 0 and i[0] % spec.chunks[0] == 0 for u, i in covered)


@pytest.mark.parametrize("memory", [256, 512, 1024])
@pytest.mark.parametrize(("units", "cells"), [(512, 14), (2048, 7), (8192, 7), (16384, 1), (64, 112)])
@pytest.mark.parametrize("fractions", [1, 3, 5])
def test_tasks_of_tails_are_counted_where_those_of_all_cells_are(memory, units, cells, fractions):
    """And searches of tails, whose parts may be larger, fit where more than a chunk of units does."""
    place = TailPlace("", "", 0, (0, units), 1024, (cells, cells), 0.005)
    dense = Layer("", "s", "conv", (63_305, units, cells, cells), "float16", (64, 64), "", None, None)
    tail, memory = replace(dense, tail=place), memory * 2**20
    sizes = {"unit_bytes": 8 * fractions * (1197 + 6 + 1), "memory": memory, "label_bytes": min(2**23, memory // 16)}
    counts = [
        cut.projected(one, cut.cut(one, **sizes, tasks=4, split_units=False)[0][0], **sizes).total
        for one in (dense, tail)
    ]
    assert counts[0] == counts[1]
    search = {"memory": memory, "unit_bytes": thresholds.BIN_BYTES * thresholds.bins(tail, memory)}
    block = cut.cut(tail, **search, tasks=4, split_units=True)[0][0]
    assert cut.projected(tail, block, **search).total <= memory or block.units[1] <= tail.chunk[1]


def test_every_plan_that_is_made_also_fits(tmp_path):
    case = replace_images(grid(np.ones((1, 112, 112), int)), 20)
    acts = noise(20, 8, (7, 7))
    probe = stores.write_probe_case(case, tmp_path)
    activations = stores.write_layers(tmp_path, probe, {"conv": acts})
    out = str(tmp_path / "out.zarr")
    dissect(activations, probe, out, method=stores.method([0.1]), pool=Threads(1), show=False)
    assert stores.complete_pairs(out) == [("s", "conv")]
