"""Pairs of concepts: overlaps and colours by hand, and by brute force over every pixel."""

import numpy as np
import pytest
import xarray as xr

from dissect_xr import probe_from_arrays
from dissect_xr.errors import DissectError
from dissect_xr.experiments import resemblance
from dissect_xr.experiments.resemblance import concept_resemblance, switched_resemblance
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe
from dissect_xr.probe.readers.unpacked.arrays import About

CONCEPTS = {
    1: "water", 2: "sky", 3: {"name": "street", "category": "scene"}, 4: {"name": "wheel", "category": "part"},
    5: {"name": "blue-c", "category": "color"}, 6: {"name": "green-c", "category": "color"},
}  # fmt: skip


def probe(folder, planes, **about):
    """A probe of label maps (image, plane, row, col)."""
    planes = np.asarray(planes)
    images = np.zeros((len(planes), *planes.shape[2:], 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(planes))  # no two alike
    probe_from_arrays(images, planes, CONCEPTS, folder / "probe.zarr", about=About(**about), show=False)
    return str(folder / "probe.zarr")


def test_values_by_hand(tmp_path):
    water, sky, blue, green = 1, 2, 5, 6
    things = [[water, water, water, sky], [water, sky, sky, 0]]
    other = [[sky, 0, 0, 0], [0, 0, 0, 0]]
    colors = [[blue, blue, green, blue], [green, blue, 0, 0]]
    url = probe(tmp_path, [[things, other, colors]])
    found = concept_resemblance(url, [("water", "sky"), ("sky", "wheel"), ("water", "water")], pool=Threads(1))
    assert found["from_name"].values.tolist() == ["water", "sky", "water"]
    assert found["both"].values.tolist() == [1, 0, 4]
    assert found["overlap"].values[[0, 2]].tolist() == [1 / 7, 1]
    # Water is blue twice and green twice; the sky is blue three times.
    np.testing.assert_array_equal(found["shared_colors"].values, [0.5, np.nan, 1])


def test_images_that_are_not_annotated_for_both_do_not_count(tmp_path):
    part_and_water, water_alone = [[[1, 1]], [[4, 0]]], [[[1, 1]], [[0, 0]]]
    url = probe(tmp_path, [part_and_water, water_alone])
    found = concept_resemblance(url, [("water", "wheel")])
    assert (found["from_area"].item(), found["both"].item(), found["overlap"].item()) == (2, 1, 0.5)
    assert np.isnan(found["shared_colors"].item())  # nothing has a colour


def test_whole_images_and_ignored_pixels(tmp_path):
    url = probe(tmp_path, [[[[1, 1, 0, 255]]]], whole=[[3]], void=[255])
    found = concept_resemblance(url, [("street", "water")])
    assert (found["from_area"].item(), found["to_area"].item(), found["both"].item()) == (3, 2, 2)


def test_all_pairs_by_brute_force(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    planes = np.stack(
        [random.choice([0, 1, 2], (7, 5, 6)), random.choice([0, 2, 4], (7, 5, 6)), random.choice([0, 5, 6], (7, 5, 6))],
        axis=1,
    )
    url = probe(tmp_path, planes)
    stored = open_probe(url).load()
    numbers = [1, 2, 4]
    pairs = [(a, b) for a in numbers for b in numbers]
    found = concept_resemblance(url, pairs, pool=Threads(2))
    annotated = dict(zip(stored["domain"].values, stored["annotated"].values.T, strict=True))
    domain = dict(zip(stored["concept"].values, stored["concept_domain"].values, strict=True))
    carries = {n: (stored["annotation"].values == n).any(axis=1) for n in (*numbers, 5, 6)}
    for n, (a, b) in enumerate(pairs):
        images = annotated[domain[a]] & annotated[domain[b]]
        one, other = carries[a][images], carries[b][images]
        assert found["both"].values[n] == (one & other).sum()
        np.testing.assert_equal(found["overlap"].values[n], (one & other).sum() / (one | other).sum())
        shares = [[(mask & carries[c][images]).sum() for c in (5, 6)] for mask in (one, other)]
        shares = [np.array(share) / sum(share) for share in shares]
        np.testing.assert_allclose(found["shared_colors"].values[n], np.minimum(*shares).sum())


def dissection(labels):
    """Two snapshots whose units have these labels, each with IoU 0.5."""
    names = [one if isinstance(one, str) else one["name"] for one in CONCEPTS.values()]
    kinds = ["object" if isinstance(one, str) else one["category"] for one in CONCEPTS.values()]
    domains = list(dict.fromkeys(kinds))
    intersection = np.zeros((2, len(labels[0]), len(names)), np.int64)
    for snapshot, of_units in enumerate(labels):
        for unit, name in enumerate(of_units):
            if name:
                intersection[snapshot, unit, names.index(name)] = 4
    return xr.Dataset(
        {
            "intersection": (("snapshot", "unit", "concept"), intersection),
            "unit_area": (("snapshot", "unit", "domain"), np.full((2, len(labels[0]), len(domains)), 4)),
            "concept_area": ("concept", np.full(len(names), 8)),
        },
        {
            "snapshot": ["before", "after"], "step": ("snapshot", [0, 1]),
            "unit": [f"u/{n}" for n in range(len(labels[0]))], "layer": ("unit", ["u"] * len(labels[0])),
            "concept": list(CONCEPTS), "concept_name": ("concept", names), "concept_category": ("concept", kinds),
            "concept_domain": ("concept", kinds), "category": domains, "domain": domains,
        },
    )  # fmt: skip


def test_units_that_switch_beside_chance(tmp_path):
    things = [[1, 1, 1, 2], [1, 2, 2, 4]]
    colors = [[5, 5, 6, 5], [6, 5, 0, 6]]
    url = probe(tmp_path, [[things, np.zeros((2, 4), int), colors]])
    ds = dissection([["water", "water", "sky", None], ["sky", "wheel", "sky", "water"]])
    found = switched_resemblance(ds, url, "before", "after")
    assert found["unit"].values.tolist() == ["u/0", "u/1"]
    assert found["overlap"].values.tolist() == [0, 0]
    # Water is blue and green, the sky blue, the wheel green.
    assert found["shared_colors"].values.tolist() == [0.5, 0.5]
    assert float(found["shared_colors_by_chance"]) == 0.5


def test_what_cannot_be_compared_is_said(tmp_path):
    url = probe(tmp_path, [[[[1, 2]]]])
    with pytest.raises(DissectError, match="no concept 'waater'"):
        concept_resemblance(url, [("waater", "sky")])
    same = dissection([["water"], ["water"]])
    with pytest.raises(DissectError, match="no unit detects a concept in before and another one in after"):
        switched_resemblance(same, url, "before", "after")
    assert concept_resemblance(url, []).sizes["pair"] == 0
    assert resemblance.COLORS == "color"
