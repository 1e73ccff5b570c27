"""Derived layers: every number is the oracle's, however the work is cut, and all that reads a layer reads them."""

import numpy as np
import oracle
import pytest
import stores
import strategies
from dissected import noisy
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect_xr import store
from dissect_xr.activations.store import LayerShape, open_activations
from dissect_xr.activations.write import write_activations
from dissect_xr.analysis.bases import derived_layers
from dissect_xr.analysis.results import open_dissection
from dissect_xr.bases.basis import IdentityBasis, MatrixBasis, NegativeBasis, RandomBasis, RotationBasis
from dissect_xr.bases.derive import derive, layer_maps
from dissect_xr.dissection import cut, layers
from dissect_xr.dissection.derived import maps as module
from dissect_xr.dissection.derived.maps import Maps, derived, peaks_of
from dissect_xr.dissection.derived.product import multiply
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.layers import Derivation, Layer, complete_snapshots, derived_layer, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars, iou_images, top_images
from dissect_xr.parallel.pool import Threads


def matrices(random, rows, units):
    """A matrix and a bias, some of whose numbers are 0, some large, some tiny."""
    matrix = random.normal(size=(rows, units)) * random.choice([0.0, 1.0, 1.0, 1.0, 2.0**-12, 64.0], (rows, units))
    return matrix.astype(np.float32), (random.normal(size=rows) * random.choice([0.0, 1.0])).astype(np.float32)


# --- the product ---


@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 13), st.integers(1, 70)),
    seed=strategies.SEEDS,
)
def test_a_product_is_added_from_the_left_in_float32(shape, seed):
    rows, units, cells = shape
    random = np.random.default_rng(seed)
    matrix, _ = matrices(random, rows, units)
    maps = (random.normal(size=(units, cells)) * random.choice([1, 1e-3, 1e4], (units, 1))).astype(np.float32)
    sums = np.full((rows, cells), np.nan, np.float32)
    multiply(matrix, maps, sums)
    one_by_one = np.zeros((rows, cells), np.float32)
    for k in range(units):
        one_by_one += matrix[:, k, None] * maps[k]
    np.testing.assert_array_equal(sums, one_by_one)
    columns = random.permutation(cells)[: 1 + cells // 2]
    some = np.empty((1, columns.size), np.float32)
    multiply(matrix[-1:], np.ascontiguousarray(maps[:, columns]), some)
    np.testing.assert_array_equal(some[0], sums[-1, columns], err_msg="it depends on what is computed beside it")


@settings(max_examples=40)
@given(st.data())
def test_derived_maps_are_the_oracles_for_every_tile(data):
    acts = data.draw(strategies.activations(data.draw(st.integers(1, 6)))).activation
    random = np.random.default_rng(data.draw(strategies.SEEDS))
    matrix, bias = matrices(random, data.draw(st.integers(1, 7)), acts.shape[1])
    relu, dtype = data.draw(st.booleans()), data.draw(st.sampled_from([np.float16, np.float32]))
    with np.errstate(over="ignore"):
        wanted = oracle.derived(acts, matrix, bias, relu, dtype)
    for tile in (1, 5, 512):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "TILE", tile)
            got = derived(acts, matrix, bias, relu=relu, dtype=np.dtype(dtype).name)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, wanted)


def test_a_derived_value_by_hand():
    source = np.array([[[[1.0]], [[2.0]], [[-3.0]]]], np.float16)
    matrix = np.array([[1, 1, 1], [2, 0, 1], [0.1, 0, 0]], np.float32)
    got = derived(source, matrix, np.array([0, 0.5, 0], np.float32), relu=False, dtype="float16")
    assert got.ravel().tolist() == [0.0, -0.5, float(np.float16(0.1))]
    got = derived(source, matrix, np.array([0, 0.5, 0], np.float32), relu=True, dtype="float32")
    assert got.ravel().tolist() == [0.0, 0.0, float(np.float32(0.1))]


# --- counts ---


def write_matrix(folder, matrix, bias=None, **options):
    """A basis from files."""
    np.save(folder / "matrix.npy", matrix)
    if bias is not None:
        np.save(folder / "bias.npy", bias)
    return MatrixBasis(str(folder / "matrix.npy"), bias=None if bias is None else str(folder / "bias.npy"), **options)


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


@settings(max_examples=30)
@given(st.data())
def test_counts_of_a_derived_layer_are_the_oracles(data):
    case = data.draw(strategies.probes(max_images=8))
    acts = data.draw(strategies.activations(len(case.annotation))).activation
    acts = (acts / 64).astype(acts.dtype)  # so that no sum is too large for float16
    random = np.random.default_rng(data.draw(strategies.SEEDS))
    matrix, bias = matrices(random, data.draw(st.integers(1, 7)), acts.shape[1])
    matrix = np.clip(matrix, -8, 8)
    relu, dtype = data.draw(st.booleans()), data.draw(st.sampled_from([None, "float16", "float32"]))
    fractions, anchoring = data.draw(strategies.fractions()), data.draw(strategies.anchorings())
    domain, cut = data.draw(st.sampled_from(oracle.DOMAINS)), data.draw(CUTS)
    workers, together = data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 2, 64]))
    method = stores.method(fractions, anchoring, domain)
    with stores.scratch() as folder, stores.tiny_chunks(**cut), pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "DERIVED_UNITS", together)
        basis = write_matrix(folder, matrix, bias, relu=relu, dtype=dtype)
        probe = stores.write_probe_case(case, folder)
        activations = stores.write_layers(folder, probe, {"conv": acts}, anchoring=anchoring)
        (name,) = derive(activations, "conv", basis, show=False)
        out = str(folder / "out.zarr")
        dissect(activations, probe, out, method=method, pool=Threads(workers), show=False)
        got = stores.stored(out, f"s/{name}")
        recorded = stores.stored(out, "s/conv")
    maps = oracle.derived(acts, matrix, bias, relu, dtype or acts.dtype)
    stores.assert_same(got, stores.expected(maps, case, fractions, anchoring, domain))
    stores.assert_same(recorded, stores.expected(acts, case, fractions, anchoring, domain))


@settings(max_examples=15)
@given(st.data())
def test_identity_gives_the_recorded_layers_counts(data):
    case = data.draw(strategies.probes(max_images=6))
    acts, cut = data.draw(strategies.activations(len(case.annotation))).activation, data.draw(CUTS)
    with stores.scratch() as folder, stores.tiny_chunks(**cut):
        probe = stores.write_probe_case(case, folder)
        activations = stores.write_layers(folder, probe, {"conv": acts})
        derive(activations, "conv", [IdentityBasis(), RotationBasis(0, seed=1)], show=False)
        out = str(folder / "out.zarr")
        dissect(activations, probe, out, method=stores.method([0.1, 0.3]), pool=Threads(2), show=False)
        recorded = stores.stored(out, "s/conv")
        for name in ("conv@identity", "conv@rotation-0-s1"):
            stores.assert_same(stores.stored(out, f"s/{name}"), recorded)


@settings(max_examples=15)
@given(st.data())
def test_the_other_tail_has_the_counts_of_a_layer_with_all_signs_changed(data):
    case = data.draw(strategies.probes(max_images=6))
    acts, cut = data.draw(strategies.activations(len(case.annotation))).activation, data.draw(CUTS)
    with stores.scratch() as folder, stores.tiny_chunks(**cut):
        probe = stores.write_probe_case(case, folder)
        activations = stores.write_layers(folder, probe, {"conv": acts, "flipped": -acts})
        assert derive(activations, "conv", NegativeBasis(), show=False) == ["conv@negative"]
        out = str(folder / "out.zarr")
        dissect(activations, probe, out, method=stores.method([0.1, 0.3]), pool=Threads(2), show=False)
        stores.assert_same(stores.stored(out, "s/conv@negative"), stores.stored(out, "s/flipped"))


# --- what else reads maps ---


@pytest.fixture
def three(tmp_path):
    """The stores of a layer of five units, and three layers derived from it."""
    case, acts = noisy(images=9)
    random = np.random.default_rng(3)
    matrix, bias = matrices(random, 6, 5)
    probe = stores.write_probe_case(case, tmp_path)
    with stores.tiny_chunks(chunk=100, units=2):
        activations = stores.write_layers(tmp_path, probe, {"conv": acts})
    bases = [
        write_matrix(tmp_path, matrix, bias, name="sae", relu=True),
        RotationBasis(0.5, seed=2),
        RandomBasis(seed=1),
    ]
    names = derive(activations, "conv", bases, show=False)
    return case, acts, probe, activations, names, oracle.derived(acts, matrix, bias, True)


def test_peaks_and_maps_of_a_derived_layer_are_those_of_its_maps(three, monkeypatch):
    _, _, _, activations, names, maps = three
    layer = open_layer(activations, "s", names[0])
    assert (layer.shape, layer.dtype) == ((9, 6, 3, 3), "float16")
    np.testing.assert_array_equal(np.concatenate(list(layer_maps(activations, "s", names[0]))), maps)
    values, peaks = Maps(layer, (2, 5))((1, 8))
    np.testing.assert_array_equal(values, maps[1:8, 2:5])
    np.testing.assert_array_equal(peaks, maps[1:8, 2:5].max(axis=(2, 3)))
    for units in (1, 4):
        monkeypatch.setattr(module, "PEAK_UNITS", units)
        monkeypatch.setattr(layers, "DERIVED_UNITS", 1)
        stored = peaks_of(open_layer(activations, "s", names[0]))
        np.testing.assert_array_equal(stored[2:9, 1:6], maps[2:9, 1:6].max(axis=(2, 3)))
    recorded = peaks_of(open_layer(activations, "s", "conv"))
    np.testing.assert_array_equal(recorded[0:9, 0:5], three[1].max(axis=(2, 3)))


def test_exemplars_and_images_of_a_derived_layer(three, tmp_path):
    case, _, probe, activations, names, maps = three
    out, name = str(tmp_path / "out.zarr"), names[0]
    dissect(activations, probe, out, method=stores.method([0.2]), show=False)
    ds, both = open_dissection(out).isel(snapshot=0, fraction=0), Stores(activations, probe)
    top = top_images(activations, "s", name, k=3)
    units = [f"{name}/{row}" for row in range(6)]
    assert top["unit"].values.tolist() == units
    for row, unit in enumerate(units):
        peaks = maps[:, row].max(axis=(1, 2))
        assert top["peak"].sel(unit=unit).values.tolist() == sorted(peaks, reverse=True)[:3]
        one = ds.sel(unit=unit).load()
        counts = iou_images(ds, both, unit, int(case.concept[0]), show=False).sum("image")
        assert counts["hit"] == one["intersection"].sel(concept=int(case.concept[0]))
        assert counts["hit"] + counts["miss"] == one["concept_area"].sel(concept=int(case.concept[0]))
    axes = stores.axes_of(stores.HALF_PIXEL, maps.shape, case.annotation.shape)
    for shown in exemplars(ds, both, units, k=2, size=16, show=False):
        row = int(str(shown["unit"].values).rpartition("/")[2])
        level = float(ds["threshold"].sel(unit=units[row]))
        for index, active in zip(shown["image_index"].values, shown["active"].values, strict=True):
            assert active == oracle.mask(maps[index, row], level, *axes).sum()


def test_results_say_what_a_layer_is_derived_from(three, tmp_path):
    _, _, probe, activations, names, _ = three
    out = str(tmp_path / "out.zarr")
    dissect(activations, probe, out, method=stores.method([0.2]), show=False)
    ds = open_dissection(out)
    assert list(dict.fromkeys(ds["layer"].values.tolist())) == ["conv", *sorted(names)]
    assert ds.sizes["unit"] == 5 + 6 + 5 + 5
    found = derived_layers(ds)
    assert found["conv@rotation-0.5-s2"]["layer"] == "conv"
    assert found["conv@rotation-0.5-s2"]["basis"] == {"kind": "rotation", "alpha": 0.5, "seed": 2}
    assert found.keys() == set(names)
    attrs = store.read_attrs(out, "s/conv@random-s1")["derived"]
    assert attrs["matrix_sha256"] == store.read_attrs(activations, "s/conv@random-s1")["matrix_sha256"]
    assert attrs["dtype"] == "float16"
    assert "derived" not in store.read_attrs(out, "s/conv")


def test_a_layer_derived_later_keeps_the_order_of_the_model(tmp_path):
    case, acts = noisy(images=4)
    probe = stores.write_probe_case(case, tmp_path)
    activations = str(tmp_path / "activations.zarr")
    names = store.read(probe, "image")[:].tolist()
    write_activations(activations, {"z": acts, "a": acts}, images=names, snapshot="s", show=False)
    out = str(tmp_path / "out.zarr")
    dissect(activations, probe, out, method=stores.method([0.2]), show=False)
    derive(activations, "z", IdentityBasis(), show=False)
    derive(activations, "a", IdentityBasis(), show=False)
    dissect(activations, probe, out, method=stores.method([0.2]), show=False)
    order = list(dict.fromkeys(open_dissection(out)["layer"].values.tolist()))
    assert order == ["z", "z@identity", "a", "a@identity"]
    (snapshot,) = complete_snapshots(activations)
    assert list(snapshot.layers) == ["z", "a"]
    assert {name: source for name, (source, _) in snapshot.derived.items()} == {"z@identity": "z", "a@identity": "a"}
    assert list(open_activations(activations)["s"]) == ["a", "z"], "derived maps are not stored"


def test_values_too_large_for_float16_are_refused_by_name(tmp_path):
    case, _ = noisy(images=4)
    acts = np.ones((4, 2, 3, 3), np.float16)
    acts[2, :, 1, 2] = 60000
    probe = stores.write_probe_case(case, tmp_path)
    activations = stores.write_layers(tmp_path, probe, {"conv": acts})
    sums = np.array([[0, 0], [1, 1]], np.float32)
    half, single = (write_matrix(tmp_path, sums, name="sum", dtype=dtype) for dtype in (None, "float32"))
    derive(activations, "conv", [half, single], show=False)
    out, image = str(tmp_path / "out.zarr"), stores.image_names(4)[2]
    with pytest.raises(
        DissectError, match=rf"s/conv@matrix-sum: unit 1 is inf as float16 in image '{image}', row 1, col"
    ):
        dissect(activations, probe, out, method=stores.method([0.2]), show=False)
    only = [("s", "conv@matrix-sum-float32")]
    dissect(activations, probe, out, method=stores.method([0.2]), only=only, show=False)
    wanted = oracle.derived(acts, sums, dtype=np.float32)
    assert wanted.max() == 120000
    got = stores.stored(out, "s/conv@matrix-sum-float32")
    stores.assert_same(got, stores.expected(wanted, case, [0.2], stores.HALF_PIXEL, "annotated"))


# --- memory ---


@settings(max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 70_000), st.integers(1, 2048), st.integers(1, 28), st.integers(1, 28)),
    rows=st.integers(1, 32_768),
    dtype=st.sampled_from(["float16", "float32"]),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4000)),
    labels=st.tuples(st.integers(1, 6), st.integers(1, 224)),
    memory=st.integers(28, 33).map(lambda n: 2**n),
    workers=st.integers(1, 64),
)
def test_a_plan_of_a_derived_layer_is_refused_only_where_no_smaller_one_fits(
    shape, rows, dtype, counts, labels, memory, workers
):
    spec = LayerShape("conv", shape, "float16", 256).spec
    source = Layer("", "s", "conv", shape, "float16", spec.chunks[:2], "", None, None)
    layer = derived_layer("conv@x", Derivation(source, {}, "", False), units=rows, dtype=dtype, fingerprint="")
    sizes = {"unit_bytes": 8 * counts[0] * (counts[1] + 2), "label_bytes": 2 * labels[0] * labels[1] ** 2}
    sizes["memory"] = memory
    for split_units in (False, True):
        blocks = cut.cut(layer, **sizes, tasks=2 * workers, split_units=split_units)
        units = min(rows, layer.chunk[1] if split_units else cut.count_chunk_units(layer, sizes["unit_bytes"]))
        least = cut.Block((0, units), (0, shape[0]), spec.chunks[0])
        limit = max(memory, cut.projected(layer, least, **sizes).total)
        assert cut.projected(layer, blocks[0][0], **sizes).total <= limit
        assert len({block.units for row in blocks for block in row}) == len(blocks)
        covered = [(unit, image) for row in blocks for block in row for unit, image in [(block.units, block.images)]]
        assert sum((u[1] - u[0]) * (i[1] - i[0]) for u, i in covered) == shape[0] * rows


def test_memory_of_a_derived_layer_by_hand():
    """A ViT's 768 units of 14 x 14 cells, and 16,384 latents, in one block of 256 of them."""
    source = Layer("", "s", "vit", (1000, 768, 14, 14), "float16", (64, 64), "", None, None)
    layer = derived_layer("x", Derivation(source, {}, "", True), units=16_384, dtype="float16", fingerprint="")
    assert (layer.source_bytes, layer.row_bytes) == (768 * 196 * 2, 4 * 768 + 4 * 512)
    found = cut.projected(layer, cut.Block((0, 256), (0, 1000), 64), unit_bytes=8000, memory=2**29, label_bytes=0)
    parts = dict(found.parts)
    assert parts["activations, two reads, packed and unpacked"] == 3 * 64 * 256 * 197 * 2
    assert parts["activations that it is derived from, two reads, packed and unpacked"] == 3 * 64 * 768 * 196 * 2
    assert parts["rows of the basis, and sums of a tile"] == 256 * 4 * (768 + 512) + 6 * 512 * 768
