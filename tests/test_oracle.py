"""The oracle itself, held by cases whose answer is known: by hand, in print, from torch, or from a loop over pixels."""

import csv
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracle
import pytest
import torch
from checkout import DATA, needs_data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from strategies import ProbeCase, activations, anchorings, fractions, probes

ALEXNET_CONV5 = [(11, 4, 0, 1), (3, 2, 0, 1), (5, 1, 2, 1), (3, 2, 0, 1), (3, 1, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1)]


def plain(map_size, label_size, anchoring="half_pixel"):
    return oracle.axes(map_size, label_size, map_size, anchoring)


def probe(annotation, whole_image, concept, concept_category, categories=("object", "scene")):
    arrays = np.array(annotation, np.uint16), np.array(whole_image, np.uint16), np.array(concept, np.uint16)
    return ProbeCase(*arrays, np.array(concept_category), categories)


# --- thresholds ---


@pytest.mark.parametrize(
    ("values", "fraction", "level", "above"),
    [
        (range(1, 11), 0.2, 8, 2),
        (range(1, 11), 0.29, 8, 2),
        (range(1, 11), 0.3, 7, 3),
        (range(1000), 0.005, 994, 5),
        ([3, 3, 3, 1], 0.5, 3, 0),
        ([2, 1, 1, 1, 0], 0.4, 1, 1),
        ([0, 0, 0, 7], 0.25, 0, 1),
        ([-1, -2, -3], 0.5, -2, 1),
        ([4], 0.999, 4, 0),
    ],
)
def test_threshold_by_hand(values, fraction, level, above):
    shuffled = np.random.default_rng(0).permutation(np.array(values, np.float16))
    assert oracle.threshold(shuffled, fraction) == level
    assert oracle.exceedance(shuffled, level) == above


def test_fraction_is_read_as_a_decimal():
    assert math.floor(0.29 * 100) == 28  # what binary arithmetic would take
    assert oracle.threshold(np.arange(100, dtype=np.float32), 0.29) == 99 - 29


def test_negative_zero_counts_as_zero():
    level = oracle.threshold(np.array([-0.0, -0.0, 0.0], np.float16), 0.5)
    assert math.copysign(1, level) == 1
    assert oracle.exceedance(np.array([0.0, -0.0, 1.0], np.float16), -0.0) == 1


@given(case=activations(3), levels=fractions())
def test_at_most_the_fraction_lies_above_its_threshold(case, levels):
    above = oracle.exceedances(case.activation, oracle.thresholds(case.activation, levels))
    size = case.activation[:, 0].size
    assert (above <= np.array([[math.floor(Fraction(str(q)) * size)] for q in levels])).all()


# --- geometry ---


def test_alexnet_conv5_is_anchored_as_in_the_paper():
    start, jump, field = oracle.anchors(ALEXNET_CONV5)
    assert (start, jump, field) == (Fraction("17.5"), 16, 163)
    rows = [float((start + 16 * i) * 113 / 227 - Fraction(1, 2)) for i in range(13)]
    assert rows[0] == pytest.approx(8.2115, abs=1e-4)
    assert rows[1] == pytest.approx(16.176, abs=1e-3)
    assert rows[12] == pytest.approx(103.788, abs=1e-3)


def test_positions_run_through_the_anchors_and_hold_outside():
    u = oracle.axis_positions(13, 113, 227, oracle.anchors(ALEXNET_CONV5)[:2])
    assert u[:9] == (0,) * 9  # rows up to 8 lie before the first anchor at 8.21
    assert 0 < u[9] < Fraction(1, 8)
    assert u[103] < 12
    assert u[104:] == (12,) * 9
    assert len({b - a for a, b in pairwise(u[9:104])}) == 1


def test_dilation_widens_the_field_and_padding_moves_the_start():
    assert oracle.anchors([(3, 1, 2, 2)]) == (Fraction(1, 2), 1, 5)
    assert oracle.anchors([(2, 2, 0, 1), (3, 1, 0, 1)]) == (3, 2, 6)


def test_half_pixel_is_the_receptive_field_of_cells_that_tile_the_input():
    tiled = oracle.axis_positions(7, 112, 224, (16, 32))
    assert oracle.axis_positions(7, 112, 224, "half_pixel") == tiled


@pytest.mark.parametrize("sizes", [(13, 13, 112, 112), (7, 5, 56, 113), (1, 4, 9, 9), (20, 14, 6, 14)])
def test_half_pixel_is_torch_bilinear(sizes):
    y, x, row, col = sizes
    maps = np.random.default_rng(1).normal(size=(1, 3, y, x))
    theirs = torch.nn.functional.interpolate(torch.tensor(maps), (row, col), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(oracle.upsample(maps, *plain((y, x), (row, col))), theirs.numpy(), rtol=0, atol=1e-12)


# --- masks ---


def test_one_cell_covers_the_whole_grid():
    cell = np.array([[2.0]], np.float16)
    assert oracle.mask(cell, 1.99, *plain((1, 1), (5, 7))).all()
    assert not oracle.mask(cell, 2.0, *plain((1, 1), (5, 7))).any()


def test_map_larger_than_the_grid_is_sampled():
    maps = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert oracle.upsample(maps, *plain((4, 4), (2, 2))).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert oracle.upsample(maps[:3, :3], *plain((3, 3), (1, 1))).tolist() == [[5.0]]


def test_ties_at_the_threshold_are_excluded():
    ramp = np.array([[0.0, 12.0]], np.float16)
    rows, cols = plain((1, 2), (1, 12))  # twelfths: S = 0 0 0 1 3 5 7 9 11 12 12 12
    assert oracle.mask(ramp, 5.0, rows, cols).sum() == 6
    assert oracle.mask(ramp, 4.999, rows, cols).sum() == 7
    assert oracle.mask(ramp, 12.0, rows, cols).sum() == 0


def test_float64_alone_would_get_ties_wrong():
    flat = np.full((13, 13), 0.1, np.float16)
    flat[0, 0] = 1  # so that the map is looked at
    rows, cols = plain((13, 13), (112, 112))
    rounded = oracle.upsample(flat, rows, cols) > float(flat[5, 5])
    assert rounded.sum() > oracle.mask(flat, float(flat[5, 5]), rows, cols).sum() == 13 * 13


@settings(deadline=None)
@given(st.data())
def test_masks_are_exact_rational_arithmetic(data):
    values = data.draw(activations(2, max_size=5)).activation
    place, size = data.draw(anchorings()), data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    rows, cols = oracle.axes(values.shape[2:], size, place.input_size, place.rows, place.cols)
    levels = oracle.thresholds(values, data.draw(fractions()))
    for i, f, k in np.ndindex(len(values), *levels.shape):
        active = oracle.masks(values[i], levels[f], rows, cols)[k]
        cells = [[Fraction(float(v)) for v in line] for line in values[i, k]]
        for row, col in np.ndindex(size):
            s = bilinear(cells, rows.positions[row], cols.positions[col])
            assert active[row, col] == (s > Fraction(float(levels[f, k])))


def bilinear(cells, u, v):
    """The sum over all cells of value x hat(u - y) x hat(v - x)."""
    hats = [
        [max(1 - abs(at - cell), Fraction(0)) for cell in range(n)] for at, n in ((u, len(cells)), (v, len(cells[0])))
    ]
    return sum(hats[0][y] * hats[1][x] * cells[y][x] for y, x in np.ndindex(len(cells), len(cells[0])))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="finite"):
        oracle.threshold(np.array([1, np.nan], np.float16), 0.5)


# --- counts ---


def test_half_overlap_gives_one_third():
    case = probe([[[[5, 5, 0, 0]] * 4]], [[0]], [5], [0])
    maps = np.zeros((1, 1, 4, 4), np.float16)
    maps[0, 0, :2] = 1
    counts = oracle.count(maps, np.array([[0.5]]), case, *plain((4, 4), (4, 4)))
    assert (counts.intersection.item(), counts.concept_area.item()) == (4, 8)
    assert oracle.iou(counts, case.concept_category).item() == 1 / 3


def test_domains_by_hand():
    """Three images of 2x2; object 3, scene 9. Unit 0 lights the left column everywhere, unit 1 nothing, unit 2 all."""
    case = probe(
        [[[[3, 0], [0, 0]]], [[[0, 3], [0, 3]]], [[[0, 0], [0, 0]]]],
        [[9], [0], [0]],
        [3, 9],
        [0, 1],
    )
    maps = np.zeros((3, 3, 2, 2), np.float32)
    maps[:, 0, :, 0], maps[:, 2] = 1, 1
    counts = oracle.count(maps, np.array([[0.5] * 3]), case, *plain((2, 2), (2, 2)))
    assert counts.intersection[0].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert counts.unit_area["annotated"][0].tolist() == [[4, 2], [0, 0], [8, 4]]  # object: images 0, 1; scene: 0
    assert counts.unit_area["touched"][0].tolist() == [[2, 2], [0, 0], [8, 4]]  # unit 0 misses the object of image 1
    assert counts.unit_area["all"][0].tolist() == [[6, 6], [0, 0], [12, 12]]
    assert (counts.concept_area.tolist(), counts.domain_area.tolist()) == ([3, 4], [8, 4])
    assert counts.dead.tolist() == [[False, True, False]]
    assert oracle.iou(counts, case.concept_category, "touched")[0, 0].tolist() == [1 / 4, 2 / 4]


def test_label_in_two_planes_or_of_the_whole_image_counts_once():
    case = probe([[[[3, 9]], [[3, 9]]]], [[9]], [3, 9], [0, 1])
    counts = oracle.count(np.ones((1, 1, 1, 2), np.float16), np.array([[0.5]]), case, *plain((1, 2), (1, 2)))
    assert counts.intersection.tolist() == [[[1, 2]]]
    assert counts.concept_area.tolist() == [1, 2]


@settings(deadline=None)
@given(st.data())
def test_counts_are_those_of_a_loop_over_pixels(data):
    case = data.draw(probes(max_images=3, max_size=5))
    values, place = data.draw(activations(len(case.annotation), max_size=4)).activation, data.draw(anchorings())
    rows, cols = oracle.axes(values.shape[2:], case.annotation.shape[2:], place.input_size, place.rows, place.cols)
    levels = oracle.thresholds(values, data.draw(fractions())[:1])
    counts = oracle.count(values, levels, case, rows, cols)
    category = dict(zip(case.concept.tolist(), case.concept_category.tolist(), strict=True))
    both, area = np.zeros_like(counts.intersection[0]), {d: np.zeros_like(a[0]) for d, a in counts.unit_area.items()}
    for i, k in np.ndindex(values.shape[:2]):
        active = oracle.mask(values[i, k], levels[0, k], rows, cols)
        pixels = [
            set(case.annotation[i, :, r, c].tolist()) | set(case.whole_image[i].tolist())
            for r, c in np.ndindex(active.shape)
        ]
        lit = [labels - {0} for labels, on in zip(pixels, active.ravel(), strict=True) if on]
        for label in (c for labels in lit for c in labels):
            both[k, case.concept.tolist().index(label)] += 1
        for g in range(len(case.categories)):
            area["all"][k, g] += len(lit)
            area["annotated"][k, g] += len(lit) * any(category.get(c) == g for labels in pixels for c in labels)
            area["touched"][k, g] += len(lit) * any(category[c] == g for labels in lit for c in labels)
    assert (counts.intersection[0] == both).all()
    assert all((counts.unit_area[d][0] == area[d]).all() for d in oracle.DOMAINS)
    assert (counts.dead[0] == (area["all"][:, 0] == 0)).all()


@given(case=probes())
def test_probes_are_as_after_ingest(case):
    for image, slots in zip(case.annotation, case.whole_image, strict=True):
        labels = [image[:, row, col][image[:, row, col] > 0].tolist() for row, col in np.ndindex(image.shape[1:])]
        assert all(len(set(pixel)) == len(pixel) and not set(pixel) & set(slots.tolist()) for pixel in labels)
    assert set(np.unique(case.annotation)) | set(np.unique(case.whole_image)) <= {0, *case.concept.tolist()}
    assert (np.diff(case.concept.astype(int)) > 0).all()


# --- answers ---

SCORES = np.array([[0.1, 0.1, 0.3, 0.0], [0.02, 0.05, 0.04, 0.0], [0.0] * 4, [0.1, 0.0, 0.3, 0.041]])
CONCEPT, CATEGORY = np.array([2, 7, 8, 40]), np.array([0, 0, 1, 1])


def test_ties_go_to_the_lowest_number_and_dead_units_have_no_label():
    assert oracle.best(SCORES[:, :2], CONCEPT[:2], [False, False, True, False]) == [(2, 0.1), (7, 0.05), None, (2, 0.1)]
    assert oracle.best(SCORES[2:3], CONCEPT, [False]) == [(2, 0.0)]


def test_unique_detectors_by_hand():
    assert oracle.unique_by_unit(SCORES, CONCEPT, [False, False, True, False]) == 2  # 8, 7, none, 8
    assert oracle.unique_by_category(SCORES, CONCEPT, CATEGORY) == 3  # 2, 7 and 8; 0.04 is no detector


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet_places365_conv5", (118, 72, 91)),
        ("alexnet_imagenet_conv5", (97, 50, 61)),
        ("resnet152_places365_res5c", (1452, 278, 347)),
    ],
)
def test_published_detectors_come_back(name, expected):
    with (DATA / "netdissect_2017" / f"{name}.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    kinds = [column.removesuffix("-iou") for column in rows[0] if column.endswith("-iou")]
    pairs = sorted({(g, row[f"{g}-label"]) for row in rows for g in kinds if row[f"{g}-label"]})
    scores = np.zeros((len(rows), len(pairs)))
    for k, row in enumerate(rows):
        for g in (g for g in kinds if row[f"{g}-label"]):
            scores[k, pairs.index((g, row[f"{g}-label"]))] = float(row[f"{g}-iou"])
    concept, category = np.arange(len(pairs)), np.array([kinds.index(g) for g, _ in pairs])
    detectors = int((scores.max(axis=1) > 0.04).sum())
    by_unit = oracle.unique_by_unit(scores, concept, [False] * len(rows))
    assert (detectors, by_unit, oracle.unique_by_category(scores, concept, category)) == expected


# --- Broden on disk ---


def write_broden(folder):
    files = {
        "category.csv": ["name,first,last,count,frequency", "object,,,2,", "part,,,2,", "scene,,,1,"],
        "label.csv": [
            "number,name,category,frequency,coverage,syns",
            "1,door,part(3);object(2),5,2,",
            "300,tree,object(1);part(4),5,2,",
            "7,street-s,scene,1,,",
        ],
        "c_object.csv": ["code,number,name,frequency,coverage", "1,1,door,2,2.50", "2,300,tree,1,"],
        "c_part.csv": ["code,number,name,frequency,coverage", "1,1,door,3,2.5", "2,300,tree,4,"],
        "c_scene.csv": ["code,number,name,frequency,coverage", "1,7,street-s,1,"],
        "index.csv": [
            "image,split,ih,iw,sh,sw,object,part,scene",
            "a.jpg,train,4,4,2,2,a_object.png,1;a_part.png,7",
            "b.jpg,val,4,4,2,2,b_object.png,,0",
        ],
    }
    for name, lines in files.items():
        (folder / name).write_text("\r\n".join(lines) + "\r\n", "ascii")
    (folder / "images").mkdir()
    for name, labels in {
        "a_object": [[300, 0], [0, 1]],
        "a_part": [[0, 1], [300, 0]],
        "b_object": np.arange(16).reshape(4, 4) // 6,
    }.items():
        value = np.asarray(labels)
        rgb = np.stack([value % 256, value // 256, value * 0], axis=2).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "images" / f"{name}.png")


def test_broden_folder_by_hand(tmp_path):
    write_broden(tmp_path)
    got = oracle.read_broden(tmp_path)
    assert got.images == ["a.jpg", "b.jpg"]
    assert got.annotation[0].tolist() == [[[300, 0], [0, 1]], [[0, 1], [300, 0]]]
    assert got.annotation[1, 0].tolist() == [[0, 1], [2, 2]]  # 4x4 sampled at its rows and columns 1 and 3
    assert got.whole_image.tolist() == [[1, 7], [0, 0]]
    assert (got.concept.tolist(), got.concept_name) == ([1, 7, 300], ["door", "street-s", "tree"])
    # door ties in coverage: the later category; street-s and tree have none: the first in label.csv
    assert [got.categories[g] for g in got.concept_category] == ["part", "scene", "object"]


@needs_data
@pytest.mark.data
def test_primary_categories_of_broden():
    folder = DATA / "broden_metadata"
    primary = oracle.primary_categories(folder)
    counted = {g: list(primary.values()).count(g) for g in ("object", "scene", "part", "texture", "material", "color")}
    assert counted == {"object": 536, "scene": 468, "part": 110, "texture": 47, "material": 25, "color": 11}
    with (folder / "label.csv").open(newline="") as lines:
        first = {int(row["number"]): row["category"].split("(")[0] for row in csv.DictReader(lines)}
    assert sum(primary[number] != category for number, category in first.items()) == 17


@needs_data
@pytest.mark.data
def test_camvid_has_the_coverage_its_tables_say():
    """To 2 %: the tables were made at 360 x 360 (every coverage is a multiple of 1/129600), the maps have 112 x 112."""
    got = oracle.read_broden(DATA / "camvid_broden")
    assert got.annotation.shape == (701, 2, 112, 112)
    pixels = np.bincount(got.annotation.ravel(), minlength=27)
    images = np.bincount(got.whole_image.ravel(), minlength=27)
    for g in got.categories:
        with (DATA / "camvid_broden" / f"c_{g}.csv").open(newline="") as lines:
            for row in csv.DictReader(lines):
                number, coverage = int(row["number"]), float(row["coverage"])
                assert pixels[number] / 112**2 + images[number] == pytest.approx(coverage, rel=0.02)
