"""Real photographs and a real network, from image files to counts: every number is the oracle's."""

from dataclasses import replace
from functools import cache

import camvid
import numpy as np
import oracle
import pytest
import stores
from checkout import DATA, needs_data

from dissect_xr import store
from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.broden import read_broden

pytestmark = [needs_data, pytest.mark.data, pytest.mark.slow]

LAYERS = ("layer3", "layer4", "layer5")
FRACTION = 0.005
GRID = (112, 112)
INDEXES = ("index.csv", "index_partial.csv")
CHANGED = ("0001TP", "Seq05VD")
"""Sequences whose rows differ between the indexes. Counts add up, so the other images are counted once for both."""
CASES = [
    ("epoch_070", "layer3", "half_pixel", INDEXES[:1]),
    ("epoch_070", "layer3", "receptive_field", INDEXES),
    ("epoch_070", "layer4", "half_pixel", INDEXES),
    ("epoch_070", "layer4", "receptive_field", INDEXES[:1]),
    ("epoch_070", "layer5", "half_pixel", INDEXES[:1]),
    ("epoch_070", "layer5", "receptive_field", INDEXES),
    ("epoch_000", "layer3", "receptive_field", INDEXES[:1]),
    ("epoch_000", "layer4", "half_pixel", INDEXES[:1]),
    ("epoch_000", "layer5", "receptive_field", INDEXES[:1]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Probes of both indexes, and activations of two snapshots, by the package."""
    folder = tmp_path_factory.mktemp("camvid")
    for index in INDEXES:
        label_set = read_broden(DATA / "camvid_broden", index=index)
        write_probe(label_set, str(folder / f"{index}.zarr"), show=False)
    code, weights = camvid.model_code(), DATA / "camvid_cnn"
    # (pixel - mean) / SCALE, in this order, rounds as the model's own preprocessing does.
    preprocess = Preprocess(camvid.INPUT_SIZE, code.MEAN_RGB, (code.SCALE,) * 3, scale=1.0)
    recording = Recording(preprocess, LAYERS, batch=camvid.BATCH)
    for snapshot in ("epoch_070", "epoch_000"):
        spec = ModelSpec.of(f"{weights / 'model.py'}:CamVidNet", weights=weights / f"{snapshot}.pt")
        info = SnapshotInfo(snapshot, step=int(snapshot[-3:]))
        extraction = prepare_extraction(
            str(folder / "activations.zarr"), str(folder / "index.csv.zarr"), info, spec, recording
        )
        extract(extraction, show=False)
    return folder


@cache
def activations(snapshot):
    """By torch alone, layer -> (image, unit, y, x)."""
    return camvid.activations(snapshot, LAYERS)


@cache
def labels(index):
    """The label set, by the oracle."""
    return oracle.read_broden(DATA / "camvid_broden", index)


def counts_of(activation, levels, label_set, axes, images):
    """The oracle's counts of some images."""
    chosen = replace(label_set, annotation=label_set.annotation[images], whole_image=label_set.whole_image[images])
    return oracle.count(activation[images], levels, chosen, *axes)


def sum_of(parts):
    """Counts of all images, from those of parts of them."""
    return oracle.Counts(
        sum(part.intersection for part in parts),
        {domain: sum(part.unit_area[domain] for part in parts) for domain in oracle.DOMAINS},
        sum(part.concept_area for part in parts),
        sum(part.domain_area for part in parts),
        np.logical_and.reduce([part.dead for part in parts]),
    )


@cache
def expected(snapshot, layer, anchoring, indexes):
    """Levels, and counts by index, by the oracle."""
    activation = activations(snapshot)[layer]
    levels = oracle.thresholds(activation, [FRACTION])
    place = "half_pixel" if anchoring == "half_pixel" else camvid.geometry(layer)
    axes = oracle.axes(activation.shape[2:], GRID, camvid.INPUT_SIZE, place)
    changed = np.array([any(sequence in name for sequence in CHANGED) for name in labels("index.csv").images])
    common = counts_of(activation, levels, labels("index.csv"), axes, ~changed)
    return levels, {
        index: sum_of([common, counts_of(activation, levels, labels(index), axes, changed)]) for index in indexes
    }


def test_partial_index_differs_only_where_the_shared_counts_say():
    whole, partial = (labels(index) for index in INDEXES)
    assert whole.images == partial.images
    assert whole.concept.tolist() == partial.concept.tolist()
    for image, name in enumerate(whole.images):
        same = {c: m.sum() for c, m in oracle.image_labels(whole, image).items()} == {
            c: m.sum() for c, m in oracle.image_labels(partial, image).items()
        }
        assert same != any(sequence in name for sequence in CHANGED)


@pytest.mark.parametrize("index", INDEXES)
def test_probe_holds_the_labels_that_the_oracle_reads(folder, index):
    wanted, url = labels(index), str(folder / f"{index}.zarr")
    assert store.read(url, "image")[:].tolist() == wanted.images
    assert store.read(url, "concept")[:].tolist() == wanted.concept.tolist()
    assert store.read(url, "concept_name")[:].tolist() == wanted.concept_name
    kinds = [wanted.categories[kind] for kind in wanted.concept_category]
    assert store.read(url, "concept_category")[:].tolist() == kinds
    planes, whole = (store.read(url, name)[:] for name in ("annotation", "whole_image"))
    stored = replace(wanted, annotation=planes, whole_image=whole)
    for image in range(len(wanted.images)):
        ours, theirs = oracle.image_labels(stored, image), oracle.image_labels(wanted, image)
        assert ours.keys() == theirs.keys()
        assert all((ours[c] == theirs[c]).all() for c in ours)


@pytest.mark.parametrize("snapshot", ["epoch_070", "epoch_000"])
def test_recorded_activations_are_torchs_bit_for_bit(folder, snapshot):
    for layer, wanted in activations(snapshot).items():
        stored = store.read(str(folder / "activations.zarr"), f"{snapshot}/{layer}/activation")[:]
        assert stored.dtype == wanted.dtype == np.float16
        np.testing.assert_array_equal(stored.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize(("snapshot", "layer", "anchoring", "indexes"), CASES)
def test_every_count_is_the_oracles(folder, tmp_path, snapshot, layer, anchoring, indexes):
    levels, by_index = expected(snapshot, layer, anchoring, indexes)
    above = oracle.exceedances(activations(snapshot)[layer], levels)
    # In index.csv every image is annotated for all categories: only `touched` differs from the others there.
    for index, domain in [(n, d) for n in indexes for d in (["touched"] if n == INDEXES[0] else oracle.DOMAINS)]:
        out, method = str(tmp_path / f"{domain}-{index}.zarr"), Method((FRACTION,), anchoring, domain)
        sources = str(folder / "activations.zarr"), str(folder / f"{index}.zarr")
        dissect(*sources, out, method=method, only=[(snapshot, layer)], show=False)
        counts = by_index[index]
        wanted = {
            "threshold": levels,
            "exceedance": above,
            "intersection": counts.intersection,
            "unit_area": counts.unit_area[domain],
            "dead": counts.dead,
            "concept_area": counts.concept_area,
            "domain_area": counts.domain_area,
        }
        stores.assert_same(stores.stored(out, f"{snapshot}/{layer}"), wanted)
        assert store.read_attrs(out, f"{snapshot}/{layer}")["anchoring_used"] == anchoring


def test_domains_differ_on_the_partial_index():
    counts = expected("epoch_070", "layer5", "receptive_field", INDEXES)[1]
    areas = [counts["index_partial.csv"].unit_area[domain] for domain in oracle.DOMAINS]
    assert (areas[0] < areas[2]).any()
    assert (areas[1] < areas[0]).any()
    assert (counts["index.csv"].unit_area["annotated"] == areas[2]).all()


def test_two_units_of_layer3_tie_with_their_threshold_at_thousands_of_pixels():
    activation = activations("epoch_070")["layer3"]
    axes = oracle.axes(activation.shape[2:], GRID, camvid.INPUT_SIZE, "half_pixel")
    assert {axis.denominator for axis in axes} == {8}  # so float64 holds S exactly
    for unit, ties in ((47, 18832), (31, 16603)):
        level = oracle.threshold(activation[:, unit], FRACTION)
        assert np.count_nonzero(oracle.upsample(activation[:, unit], *axes) == level) == ties


@pytest.mark.parametrize("layer", LAYERS)
def test_recorded_geometry_is_the_models(folder, layer):
    attrs = store.read_attrs(str(folder / "activations.zarr"), f"epoch_070/{layer}")
    start, jump = camvid.geometry(layer)
    for axis in ("y", "x"):
        assert (attrs["geometry"][axis]["start"], attrs["geometry"][axis]["jump"]) == (str(start), str(jump))
    assert attrs["input_size"] == list(camvid.INPUT_SIZE)
