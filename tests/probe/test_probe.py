"""A probe holds what its files say, once per pixel, or says which file and line is wrong."""

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import oracle
import pytest
import stores
import strategies
from checkout import shared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe import ingest, skip
from dissect_xr.probe.colors import COLOR_NAMES, color_labels
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import Concept
from dissect_xr.probe.pixels import nearest
from dissect_xr.probe.readers.broden import decode_broden, read_broden
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.root import image_root
from dissect_xr.probe.sources.numbers import Numbers


def written(label_set, folder, *, name="probe.zarr", pool=None):
    """The label_set's probe, read into memory."""
    url = str(folder / name)
    write_probe(label_set, url, pool=pool or Threads(1), show=False)
    return open_probe(url).load()


def labels_of(probe):
    """The store as the oracle takes it."""
    categories = probe["category"].values.tolist()
    kinds = np.array([categories.index(name) for name in probe["concept_category"].values])
    return strategies.ProbeCase(
        probe["annotation"].values, probe["whole_image"].values, probe["concept"].values, kinds, tuple(categories)
    )


def assert_counts_are_the_labels(probe):
    """Areas, images and annotated as the oracle sums them from the planes."""
    labels = labels_of(probe)
    area, images = np.zeros((2, len(labels.concept)), np.int64)
    annotated = np.zeros((len(labels.annotation), len(labels.categories)), bool)
    for image in range(len(labels.annotation)):
        for concept, pixels in oracle.image_labels(labels, image).items():
            area[concept] += pixels.sum()
            images[concept] += pixels.any()
            annotated[image, labels.concept_category[concept]] |= pixels.any()
    np.testing.assert_array_equal(probe["concept_area"], area)
    np.testing.assert_array_equal(probe["concept_images"], images)
    np.testing.assert_array_equal(probe["annotated"], annotated)
    pixels = int(np.prod(labels.annotation.shape[2:]))
    np.testing.assert_array_equal(probe["domain_area"], annotated.sum(axis=0) * pixels)


# --- what comes out is what went in ---


@settings(max_examples=25)
@given(case=strategies.probes())
def test_broden_folder_comes_back_as_it_was(case):
    with stores.scratch() as folder:
        probe = written(read_broden(stores.write_broden(case, folder)), folder)
    np.testing.assert_array_equal(probe["annotation"], case.annotation)
    for ours, theirs in zip(probe["whole_image"].values, case.whole_image, strict=True):
        assert ours[ours > 0].tolist() == theirs[theirs > 0].tolist()
    assert probe["concept"].values.tolist() == case.concept.tolist()
    assert probe["concept_category"].values.tolist() == [case.categories[kind] for kind in case.concept_category]
    assert probe["category"].values.tolist() == list(case.categories)
    assert probe["image"].values.tolist() == stores.image_names(len(case.annotation))
    assert_counts_are_the_labels(probe)


@settings(max_examples=30)
@given(case=strategies.probes(), seed=strategies.SEEDS)
def test_a_label_counts_once_per_pixel(case, seed):
    random = np.random.default_rng(seed)
    dirty = case.annotation.copy()
    for planes, numbers in zip(dirty, case.whole_image, strict=True):
        source = random.integers(len(planes))
        planes[random.integers(len(planes))][:] = planes[source]  # one label in two planes
        planes[random.random(planes.shape) < 0.2] = numbers[0]  # and one that the whole image has
    wanted = [
        {c: p.sum() for c, p in oracle.image_labels(replace(case, annotation=dirty), image).items() if p.any()}
        for image in range(len(dirty))
    ]
    with stores.scratch() as folder:
        probe = written(stores.plan_of(replace(case, annotation=dirty), folder), folder)
    stored = labels_of(probe)
    for image, planes in enumerate(stored.annotation):
        assert {c: p.sum() for c, p in oracle.image_labels(stored, image).items() if p.any()} == wanted[image]
        assert not np.isin(planes[planes > 0], stored.whole_image[image]).any()
        for later in range(1, len(planes)):
            assert not ((planes[:later] == planes[later]) & (planes[later] > 0)).any()
    assert_counts_are_the_labels(probe)


@given(have=st.tuples(st.integers(1, 30), st.integers(1, 30)), want=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_labels_are_resampled_to_the_nearest_at_half_pixel_centres(have, want):
    labels = np.arange(have[0] * have[1]).reshape(have)
    row, col = ([floor((p + Fraction(1, 2)) * h / w) for p in range(w)] for h, w in zip(have, want, strict=True))
    np.testing.assert_array_equal(nearest(labels, want), labels[np.ix_(row, col)])


# --- Broden by hand ---

SKY, WHEEL, STREET, CAR = 1, 300, 7, 65535
TABLES = {
    "category.csv": "name,first,last,count,frequency\nobject,,,,\npart,,,,\nscene,,,,\n",
    "label.csv": (
        "number,name,category,frequency,coverage,syns\n"
        f"{SKY},sky,object(2),,,\n{WHEEL},wheel,part,,,\n{STREET},street-s,scene(1),,,\n{CAR},car,part(1);object(3),,,\n"
    ),
    "index.csv": (
        "image,split,ih,iw,sh,sw,object,part,scene\n"
        "x/0.png,train,8,6,4,3,x/0_object.png,x/0_part_1.png;x/0_part_2.png,7\n"
        "x/1.png,val,8,6,4,3,x/1_object.png;1,,0\n"
        "x/2.png,train,8,6,4,3,,,0;7\n"
    ),
}
MAPS = {
    "x/0_object": [[1, 1, 1], [0, 0, 0], [CAR, CAR, 0], [CAR, CAR, 0]],
    "x/0_part_1": [[0] * 3, [0] * 3, [WHEEL, 0, WHEEL], [0] * 3],
    "x/0_part_2": [[0] * 3, [WHEEL] * 3, [WHEEL, 0, CAR], [CAR, 0, 0]],
    "x/1_object": [[1, CAR, 0]] * 4,
}


@pytest.fixture
def folder(tmp_path):
    """The set above, with CRLF line ends."""
    return broden(tmp_path / "set")


def broden(folder, **tables):
    for name, text in TABLES.items():
        text = tables.get(name.removesuffix(".csv"), text)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.replace("\n", "\r\n").encode())
    for name, labels in MAPS.items():
        stores.save_labels(folder / "images" / f"{name}.png", np.array(labels))
    for image in range(3):
        random = np.random.default_rng(image).integers(0, 256, (8, 6, 3), np.uint8)
        Image.fromarray(random).save(folder / f"images/x/{image}.png")
    return folder


def test_numbers_paths_planes_and_zeros_of_a_hand_made_set(folder, tmp_path):
    label_set = read_broden(folder)
    assert label_set.planes == ("object", "part", "part")
    assert label_set.label_size == (4, 3)
    probe = written(label_set, tmp_path)
    assert probe["plane_category"].values.tolist() == ["object", "part", "part"]
    assert probe["concept"].values.tolist() == [SKY, STREET, WHEEL, CAR]
    assert probe["concept_name"].values.tolist() == ["sky", "street-s", "wheel", "car"]
    assert probe["concept_category"].values.tolist() == ["object", "scene", "part", "part"]
    assert probe["split"].values.tolist() == ["train", "val", "train"]
    assert probe["whole_image"].values.tolist() == [[STREET], [SKY], [STREET]]
    planes = probe["annotation"].values
    assert planes[0, 0].tolist() == MAPS["x/0_object"]
    assert planes[0, 2].tolist() == [[0] * 3, [WHEEL] * 3, [0, 0, CAR], [0] * 3]  # 300 and 65535 are there already
    assert planes[1, 0].tolist() == [[0, CAR, 0]] * 4  # the whole image is sky
    assert not planes[2].any()
    assert probe["concept_area"].values.tolist() == [3 + 12, 24, 5, 5 + 4]
    assert probe["concept_images"].values.tolist() == [2, 2, 1, 2]
    assert probe["annotated"].values.tolist() == [[True, True, True], [True, True, False], [False, False, True]]
    assert probe["domain_area"].values.tolist() == [24, 24, 24]


def test_a_whole_image_label_named_twice_counts_once(folder, tmp_path):
    text = TABLES["index.csv"].replace("1_object.png;1,,0", "1_object.png;1;1,1,7;0;7")
    (folder / "index.csv").write_text(text)
    probe = written(read_broden(folder), tmp_path)
    assert [numbers[numbers > 0].tolist() for numbers in probe["whole_image"].values] == [[7], [1, 7], [7]]
    assert_counts_are_the_labels(probe)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_do_not_matter(folder, newline, start):
    label_set = read_broden(folder)
    for name, text in TABLES.items():
        (folder / name).write_bytes((start + text.replace("\n", newline) + newline).encode())
    again = read_broden(folder)
    assert ingest.label_set_fingerprint(again) == ingest.label_set_fingerprint(label_set)


@given(numbers=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_labels_are_red_plus_256_green(numbers):
    with stores.scratch() as folder:
        stores.save_labels(folder / "map.png", np.array([numbers]))
        decoded = decode_broden(folder / "map.png")
    assert decoded.tolist() == [numbers]
    assert decoded.dtype == np.uint16


def coverage(folder, **tables):
    for category, rows in tables.items():
        stores.write_table(folder / f"c_{category}.csv", ["code", "number", "name", "frequency", "coverage"], rows)


@pytest.mark.parametrize(
    ("tables", "car"),
    [
        ({}, "part"),  # the first in label.csv
        ({"object": [[1, CAR, "car", 1, ""]], "part": [[1, CAR, "car", 1, ""]]}, "part"),
        ({"object": [[1, CAR, "car", 1, 0.2]], "part": [[1, CAR, "car", 1, 0.1]]}, "object"),
        ({"object": [[1, CAR, "car", 1, 0.2]], "part": [[1, CAR, "car", 1, 0.2]]}, "part"),  # ties: the later
        ({"object": [[1, CAR, "car", 1, 0.2]], "scene": [[1, CAR, "car", 1, 0.2]]}, "scene"),
        ({"object": [[1, CAR, "car", "", 1e-9]]}, "object"),
        ({"scene": [[1, STREET, "street-s", "", ""]]}, "part"),
    ],
)
def test_primary_category_has_the_largest_coverage(folder, tables, car):
    coverage(folder, **tables)
    assert {c.number: c.category for c in read_broden(folder).concepts}[CAR] == car
    assert oracle.primary_categories(folder)[CAR] == car


def test_kept_categories_compete_among_themselves(folder):
    coverage(folder, object=[[1, CAR, "car", 1, 0.1]], part=[[1, CAR, "car", 1, 0.2]])
    label_set = read_broden(folder, categories=["object", "scene"])
    assert {c.number: c.category for c in label_set.concepts} == {SKY: "object", STREET: "scene", CAR: "object"}
    assert label_set.categories == ("object", "scene")
    assert label_set.planes == ("object",)


def test_labels_of_categories_that_are_not_kept_become_none(folder, tmp_path):
    stores.save_labels(folder / "images/x/0_object.png", np.array([[WHEEL, SKY, SKY]] * 4))
    probe = written(read_broden(folder, categories=["object"]), tmp_path)
    assert probe["concept"].values.tolist() == [SKY, CAR]
    assert probe["annotation"].values[0].tolist() == [[[0, 1, 1]] * 4]
    assert probe["whole_image"].values.tolist() == [[0], [SKY], [0]]


def test_label_maps_are_sampled_to_the_grid_that_is_asked_for(folder, tmp_path):
    probe = written(read_broden(folder, label_size=(2, 6)), tmp_path)
    assert probe["annotation"].values[0, 0].tolist() == [[0] * 6, [CAR] * 4 + [0] * 2]


def test_a_set_without_sizes_needs_a_label_size(folder, tmp_path):
    text = TABLES["index.csv"].replace(",ih,iw,sh,sw", "").replace(",8,6,4,3", "")
    (folder / "index.csv").write_text(text)
    with pytest.raises(DissectError, match=r"index\.csv: has no sh and sw"):
        read_broden(folder)
    assert written(read_broden(folder, label_size=(4, 3)), tmp_path)["annotation"].shape == (3, 3, 4, 3)
    for size in ((4, 65_536), (0, 4)):
        with pytest.raises(DissectError, match=rf"\[{size[0]}, {size[1]}\]: expected sides of 1 to 65,535"):
            read_broden(folder, label_size=size).check()


def test_a_set_of_whole_image_labels_only(folder, tmp_path):
    (folder / "index.csv").write_text("image,split,scene\nx/0.png,a,7\nx/1.png,a,0\nx/2.png,b,\n")
    probe = written(read_broden(folder, label_size=(5, 5)), tmp_path)
    assert probe["concept_area"].values.tolist() == [0, 25, 0, 0]
    assert probe["annotated"].values.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert_counts_are_the_labels(probe)


@pytest.mark.data
def test_published_tables_have_the_published_primary_counts():
    folder = shared("broden_metadata")
    label_set = read_broden(folder, index="index_head.csv")
    counts = {"object": 536, "scene": 468, "part": 110, "texture": 47, "material": 25, "color": 11}
    assert Counter(c.category for c in label_set.concepts) == counts
    assert {c.number: c.category for c in label_set.concepts} == oracle.primary_categories(folder)
    assert [c.number for c in label_set.concepts] == list(range(1, 1198))
    assert not any(0 in row.whole for row in label_set.rows)
    assert label_set.check() is label_set  # no two concepts have both name and primary category in common
    assert label_set.categories == tuple(
        line.split(",")[0] for line in (folder / "category.csv").read_text().split()[1:]
    )
    # Material, texture, scene and colour have at most one map an image; parts up to three, or four.
    assert Counter(label_set.planes)["part"] > 1
    assert all(len({plane for plane, _ in row.maps}) == len(row.maps) for row in label_set.rows)


# --- subsets and colours ---


def test_subsets_by_split_and_limit(folder):
    label_set = read_broden(folder)
    assert [row.image for row in label_set.subset(split="train").rows] == ["x/0.png", "x/2.png"]
    assert [row.image for row in label_set.subset(split=["val", "train"], limit=2).rows] == ["x/0.png", "x/1.png"]
    assert [row.image for row in label_set.subset(limit=99).rows] == [row.image for row in label_set.rows]
    assert label_set.subset(split="val").parameters["images"] == {"split": ["val"], "limit": None}
    with pytest.raises(DissectError, match=r"no split \['test'\]; there are \{'train': 2, 'val': 1\}"):
        label_set.subset(split=["train", "test"])
    with pytest.raises(DissectError, match="at least 1, got 0"):
        label_set.subset(limit=0)


def test_every_subset_is_another_probe(folder):
    label_set = read_broden(folder)
    plans = [
        label_set,
        label_set.subset(split="train"),
        label_set.subset(limit=2),
        label_set.with_colors([]),
        label_set.subset(split="val"),
    ]
    plans += [read_broden(folder, categories=["object", "part"]), read_broden(folder, label_size=(2, 3))]
    assert len({ingest.label_set_fingerprint(p) for p in plans}) == len(plans)


def test_where_the_folder_lies_does_not_make_another_probe(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    label_set, moved = read_broden(folder), read_broden(tmp_path / "moved")
    assert ingest.label_set_fingerprint(label_set) == ingest.label_set_fingerprint(moved)


def test_colours_are_a_plane_of_their_own(folder, tmp_path):
    # 65,535 is taken, so the set is without cars here.
    label = TABLES["label.csv"].rpartition(f"{CAR},")[0]
    for name in ("x/0_object", "x/0_part_2", "x/1_object"):
        stores.save_labels(folder / f"images/{name}.png", np.ones((4, 3), int))
    (folder / "label.csv").write_text(label)
    probe = written(read_broden(folder).with_colors(COLOR_NAMES), tmp_path)
    numbers = np.arange(301, 312)
    assert probe["concept"].values.tolist() == [SKY, STREET, WHEEL, *numbers]
    assert probe["concept_name"].values.tolist()[3:] == [f"{name}-c" for name in COLOR_NAMES]
    assert probe["plane_category"].values.tolist() == ["object", "part", "part", "color"]
    for image in range(3):
        pixels = np.asarray(Image.open(folder / f"images/x/{image}.png"))
        wanted = numbers[color_labels(nearest(pixels, (4, 3))).astype(int) - 1]
        np.testing.assert_array_equal(probe["annotation"].values[image, 3], wanted)
    assert probe["annotated"].values[:, 3].all()
    assert_counts_are_the_labels(probe)


def test_colours_need_room_and_no_colours_of_the_sets_own(folder):
    with pytest.raises(DissectError, match="need 11 free numbers above 65535"):
        read_broden(folder).with_colors(COLOR_NAMES)
    label_set = replace(read_broden(folder), categories=("color",))
    with pytest.raises(DissectError, match="already has a category 'color'"):
        label_set.with_colors(COLOR_NAMES)


# --- bad sets ---


def edit(name, old, new):
    """A change of a table's text."""

    def change(folder):
        text = TABLES[name]
        assert old in text
        (folder / name).write_bytes(text.replace(old, new).encode())

    return change


def without(name):
    return lambda folder: (folder / name).unlink()


def table(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


BAD_TABLES = {
    "no category table": (without("category.csv"), r"category\.csv: expected a CSV file with columns name"),
    "no label table": (without("label.csv"), r"label\.csv: expected a CSV file"),
    "no index": (without("index.csv"), r"index\.csv: expected a CSV file"),
    "empty index": (table("index.csv", ""), r"index\.csv, line 1: columns image, split are missing"),
    "no rows": (table("index.csv", "image,split,object\n"), r"index\.csv"),
    "no categories": (table("category.csv", "name\n"), r"category\.csv"),
    "column missing": (edit("label.csv", "number,", "id,"), r"label\.csv, line 1: columns number are missing"),
    "unknown column": (edit("index.csv", "part,scene", "part,place"), r"index\.csv, line 1: columns \['place'\]"),
    "column twice": (edit("index.csv", "object,part,scene", "object,part,part"), r"index\.csv, line 1"),
    "cell missing": (edit("index.csv", ",0\n", "\n"), r"index\.csv, line 3: expected 9 cells, got 8"),
    "cell too many": (edit("label.csv", "sky,object(2),,,", "sky,object(2),,,,"), r"label\.csv, line 2: expected 6"),
    "quote left open": (edit("label.csv", "sky", '"sky'), r"label\.csv"),
    "not text": (table("label.csv", b"number,name,category\n1,sk\xff\xfe,object\n"), r"label\.csv: not readable"),
    "number in words": (edit("label.csv", "300,", "many,"), r"label\.csv, line 3, column 'number'.*'many'"),
    "number zero": (edit("label.csv", "300,", "0,"), r"label\.csv, line 3: number 0"),
    "number too large": (edit("label.csv", "65535,", "65536,"), r"label\.csv, line 5: number 65536"),
    "number twice": (edit("label.csv", "300,", "1,"), r"label\.csv, line 3: number 1 must be new"),
    "label of no category": (edit("label.csv", "scene(1)", "place(1)"), r"label\.csv, line 4: category \['place'\]"),
    "label without category": (edit("label.csv", "scene(1)", ""), r"label\.csv, line 4"),
    "whole-image label unknown": (edit("index.csv", "0;7", "0;8"), r"index\.csv, line 4, column 'scene': label 8"),
    "size in words": (edit("index.csv", "8,6,4,3,,", "8,6,four,3,,"), r"index\.csv, line 4, column 'sh'.*'four'"),
    "size not a number": (edit("index.csv", "8,6,4,3,,", "8,6,nan,3,,"), r"index\.csv, line 4, column 'sh'"),
    "size infinite": (edit("index.csv", "8,6,4,3,,", "8,6,4,inf,,"), r"index\.csv, line 4, column 'sw'"),
    "size negative": (edit("index.csv", "8,6,4,3", "8,6,-4,3"), r"index\.csv, line 2, column 'sh'"),
    "coverage in words": (
        table("c_object.csv", "number,coverage\n1,much\n"),
        r"c_object\.csv, line 2, column 'coverage'.*'much'",
    ),
    "coverage not a number": (table("c_object.csv", "number,coverage\n1,nan\n"), r"c_object\.csv, line 2"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_named_with_its_line(folder, case):
    change, message = BAD_TABLES[case]
    change(folder)
    with pytest.raises(DissectError, match=message):
        read_broden(folder)


@pytest.mark.parametrize("categories", [["object", "texture"], []])
def test_categories_must_be_some_that_exist(folder, categories):
    with pytest.raises(DissectError, match="categor"):
        read_broden(folder, categories=categories)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DissectError, match="nowhere: expected a folder in the Broden layout"):
        read_broden(tmp_path / "nowhere")


def cut(name, keep=0.6):
    def change(folder):
        path = folder / "images" / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return change


def image(name, picture):
    return lambda folder: picture.save(folder / "images" / name)


def link(folder):
    outside = folder.parent / "outside.png"
    stores.save_labels(outside, np.ones((4, 3), int))
    (folder / "images/x/0_object.png").unlink()
    (folder / "images/x/0_object.png").symlink_to(outside)


BAD_FILES = {
    "label map missing": (without("images/x/0_part_2.png"), r"x/0_part_2\.png: expected an image, found no file"),
    "label map cut short": (cut("x/0_object.png"), r"x/0_object\.png: (damaged|not an image)"),
    "label map empty": (cut("x/0_object.png", 0), r"x/0_object\.png: (damaged|not an image)"),
    "label map of another size": (
        lambda folder: stores.save_labels(folder / "images/x/1_object.png", np.ones((3, 4), int)),
        r"x/1_object\.png: expected 4 x 3 \(sh x sw of .*index\.csv, line 3\), got 3 x 4",
    ),
    "label map grey": (
        image("x/0_object.png", Image.new("L", (3, 4))),
        r"x/0_object\.png: expected .*8-bit RGB.*got L",
    ),
    "label map with a palette": (image("x/0_object.png", Image.new("P", (3, 4))), r"x/0_object\.png: expected .*got P"),
    "label unknown": (
        lambda folder: stores.save_labels(folder / "images/x/1_object.png", np.full((4, 3), 301)),
        r"x/1_object\.png: holds label 301, which is no concept",
    ),
    "image missing": (without("images/x/2.png"), r"x/2\.png: expected an image, found no file"),
    "image cut short": (cut("x/1.png"), r"x/1\.png: (damaged|not an image)"),
    "image is a folder": (edit("index.csv", "x/2.png,", "x,"), r"images/x: "),
    "image name empty": (edit("index.csv", "x/2.png,", ","), r"index\.csv, line 4|images: "),
    "image twice": (edit("index.csv", "x/2.png,", "x/0.png,"), r"'x/0\.png' is listed more than once"),
    "path escapes": (edit("index.csv", "x/0_object.png", "../../secret.png"), r"index\.csv, line 2: '../../secret"),
    "path absolute": (edit("index.csv", "x/0.png", "/x/0.png"), r"index\.csv, line 2: '/x/0\.png' lies outside"),
    "path with a null": (edit("index.csv", "x/0.png", "x/0\0.png"), r"index\.csv"),
    "link escapes": (link, r"index\.csv, line 2: 'x/0_object\.png' lies outside"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_file_is_named(folder, tmp_path, case, threads):
    change, message = BAD_FILES[case]
    change(folder)
    with pytest.raises(DissectError, match=message):
        write_probe(read_broden(folder), str(tmp_path / "probe.zarr"), pool=Threads(threads), show=False)
    with pytest.raises(DissectError, match="expected a complete probe"):
        open_probe(str(tmp_path / "probe.zarr"))


def test_a_mended_file_is_all_that_was_missing(folder, tmp_path):
    path = folder / "images/x/1.png"
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(DissectError):
        written(read_broden(folder), tmp_path)
    path.write_bytes(content)
    assert_counts_are_the_labels(written(read_broden(folder), tmp_path))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some damage before it fails
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_however_an_image_is_damaged_one_error_names_it(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    good, path = tmp_path / f"good{suffix}", tmp_path / f"damaged{suffix}"
    Image.fromarray(pixels).save(good)
    content, random = good.read_bytes(), np.random.default_rng(1)
    damaged = [content[:n] for n in range(0, len(content), max(1, len(content) // 60))]
    for _ in range(150):
        flipped = bytearray(content)
        flipped[random.integers(len(flipped))] = random.integers(256)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        try:
            decode_broden(path)
        except DissectError as error:
            assert path.name in str(error)  # noqa: PT017


def test_two_concepts_of_one_name_in_one_category_are_refused(folder, tmp_path):
    label_set = read_broden(folder)
    sky, *others = label_set.concepts
    concepts = (sky, *(replace(c, name=sky.name, category=sky.category) for c in others[:1]), *others[1:])
    wanted = f"concepts {SKY} and {others[0].number} are both called 'sky' in the category 'object'"
    with pytest.raises(DissectError, match=f"{wanted}.*[Rr]ename"):
        write_probe(replace(label_set, concepts=concepts), str(tmp_path / "probe.zarr"), show=False)
    assert not store.exists(str(tmp_path / "probe.zarr"))


def test_one_name_in_two_categories_is_two_concepts(folder):
    label_set = read_broden(folder)
    part = next(c for c in label_set.concepts if c.category == "part")
    thing = next(c for c in label_set.concepts if c.category == "object")
    concepts = tuple(replace(c, name=thing.name) if c == part else c for c in label_set.concepts)
    assert replace(label_set, concepts=concepts).check().concepts == concepts


# --- masks ---


@pytest.fixture
def masks(tmp_path):
    """Three images with masks in folders of their own, one of another size, and concepts in YAML."""
    for n, (name, split) in enumerate((("b", "val"), ("a.1", "train"), ("c", "train"))):
        (tmp_path / "images" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (n, 0, 0)).save(tmp_path / "images" / split / f"{name}{('.jpg', '.PNG', '.bmp')[n]}")
    save = {
        "val/b": Image.fromarray(np.array([[0, 1, 2], [255, 1, 9]], np.uint8)),
        "train/a.1": Image.fromarray(np.array([[9, 9, 0], [0, 300, 300]], np.uint16)),
        "train/c": Image.fromarray(np.kron([[0, 1, 2], [1, 0, 0]], np.ones((2, 2))).astype(np.uint8)),
    }
    for name, mask in save.items():
        mask.save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "concepts.yaml").write_text(
        "1: road\n2: {name: wheel, category: part}\n9: {name: car}\n300: {name: hub, category: part}\n"
    )
    return {"images": tmp_path / "images", "masks": tmp_path / "masks", "concepts": tmp_path / "concepts.yaml"}


def test_masks_become_one_plane(masks, tmp_path):
    probe = written(read_masks(**masks, ignore=[255]), tmp_path)
    assert probe["image"].values.tolist() == ["train/a.1.PNG", "train/c.bmp", "val/b.jpg"]
    assert probe["split"].values.tolist() == ["train", "train", "val"]
    assert probe["concept_name"].values.tolist() == ["road", "wheel", "car", "hub"]
    assert probe["concept_category"].values.tolist() == ["object", "part", "object", "part"]
    assert probe["annotation"].values[:, 0].tolist() == [
        [[9, 9, 0], [0, 300, 300]],
        [[0, 1, 2], [1, 0, 0]],
        [[0, 1, 2], [0, 1, 9]],
    ]
    assert_counts_are_the_labels(probe)


def test_masks_of_kept_categories_on_another_grid(masks, tmp_path):
    probe = written(read_masks(**masks, ignore=[255], categories=["part"], label_size=(2, 6)), tmp_path)
    assert probe["concept"].values.tolist() == [2, 300]
    assert probe["annotation"].values[2, 0].tolist() == [[0, 0, 0, 0, 2, 2], [0] * 6]


def test_concepts_as_csv_are_those_as_yaml(masks, tmp_path):
    table = tmp_path / "concepts.csv"
    table.write_text("number,name,category\n300,hub,part\n1,road,\n9,car,object\n2,wheel,part\n")
    concepts = read_masks(**masks | {"concepts": table}).concepts
    assert set(concepts) == set(read_masks(**masks).concepts)
    assert [c.number for c in concepts] == [1, 2, 9, 300]


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_every_single_channel_mode_is_a_mask(masks, tmp_path, mode):
    values = np.array([[0, 1, 1], [1, 1, 0]])
    kind = {"1": bool, "L": np.uint8, "P": np.uint8, "I;16": np.uint16}[mode]
    mask = Image.fromarray(values.astype(kind))
    if mode == "P":
        mask.putpalette([255, 0, 0] * 256)
    mask.save(masks["masks"] / "val/b.png")
    assert written(read_masks(**masks), tmp_path)["annotation"].values[2, 0].tolist() == values.tolist()


def yaml(text):
    return lambda masks: masks["concepts"].write_text(text)


def mask(name, picture):
    return lambda masks: picture.save(masks["masks"] / name)


BAD_MASKS = {
    "concepts missing": (lambda m: m["concepts"].unlink(), r"concepts\.yaml: expected a table of concepts"),
    "concepts not YAML": (yaml("1: [road"), r"concepts\.yaml: expected a table of concepts"),
    "concepts a list": (yaml("- road\n- car\n"), r"concepts\.yaml: expected \{number: name\}, got list"),
    "concepts empty": (yaml(""), r"concepts\.yaml: expected \{number: name\}"),
    "number in words": (yaml("one: road\n"), r"concepts\.yaml, line 1: expected a number as key, got 'one'"),
    "number a truth value": (yaml("yes: road\n"), r"concepts\.yaml, line 1: expected a number as key"),
    "number zero": (
        yaml("0: road\n"),
        r"concepts\.yaml, line 1: number 0 means unlabelled.*`offset: 1`.*`unlabelled: 255`",
    ),
    "number too large": (yaml("65536: road\n"), r"concepts\.yaml, line 1: number 65536 must be between 1 and"),
    "name missing": (yaml("1: {category: part}\n"), r"concepts\.yaml, line 1: concept 1: expected a name"),
    "name a number": (yaml("1: 5\n"), r"concepts\.yaml, line 1: concept 1: expected a name"),
    "mask missing": (lambda m: (m["masks"] / "train/c.png").unlink(), r"train/c\.png: the mask of .*c\.bmp is missing"),
    "mask in colour": (
        mask("train/c.png", Image.new("RGB", (3, 2), (1, 1, 2))),
        r"train/c\.png: expected a single-channel.*RGB",
    ),
    "mask of floats": (
        lambda m: Image.new("F", (3, 2)).save(m["masks"] / "train/c.png", format="TIFF"),
        r"train/c\.png: expected a single-channel integer mask, got Pillow mode F",
    ),
    "label unknown": (
        mask("train/c.png", Image.fromarray(np.full((2, 3), 77, np.uint8))),
        r"train/c\.png: holds label 77, which is no concept",
    ),
    "void not declared": (mask("train/c.png", Image.fromarray(np.full((2, 3), 254, np.uint8))), r"train/c\.png.*254"),
    "mask cut short": (
        lambda m: (m["masks"] / "train/c.png").write_bytes((m["masks"] / "train/c.png").read_bytes()[:40]),
        r"train/c\.png: (damaged|not an image)",
    ),
    "image cut short": (lambda m: (m["images"] / "val/b.jpg").write_bytes(b"\xff\xd8\xff"), r"val/b\.jpg"),
    "no image": (lambda m: [shutil.rmtree(p) for p in m["images"].iterdir()], r"images: holds no image"),
    "no folder": (lambda m: shutil.rmtree(m["images"]), r"images: expected a folder of images"),
    "no mask folder": (lambda m: shutil.rmtree(m["masks"]), r"masks.*a\.1\.png: the mask of .* missing, 3 of 3"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_a_bad_set_of_masks_is_named(masks, tmp_path, case):
    change, message = BAD_MASKS[case]
    change(masks)
    with pytest.raises(DissectError, match=message):
        written(read_masks(**masks, ignore=[255]), tmp_path)


@pytest.mark.parametrize("number", [-1, 65536])
def test_ignored_numbers_are_numbers_that_masks_can_hold(masks, tmp_path, number):
    with pytest.raises(DissectError, match=str(number)):
        written(read_masks(**masks, ignore=[255, number]), tmp_path)


def test_categories_of_masks_must_exist(masks):
    with pytest.raises(DissectError, match=r"categories: sky not in .*concepts\.yaml; there are \['object', 'part'\]"):
        read_masks(**masks, categories=["part", "sky"])


# --- stores ---


@pytest.fixture
def many(tmp_path):
    """A label_set of 40 images: three blocks."""
    labels = np.random.default_rng(0).integers(0, 5, (40, 2, 6, 5)).astype(np.uint16)
    whole = np.random.default_rng(1).permuted([[1, 2, 3, 4, 0]] * 40, axis=1)[:, :2].astype(np.uint16)
    case = strategies.ProbeCase(labels, whole, np.arange(1, 5), np.array([0, 0, 1, 2]), ("a", "b", "c"))
    return stores.plan_of(case, tmp_path / "images")


def test_the_same_store_for_every_number_of_threads(many, tmp_path):
    probes = [written(many, tmp_path / str(n), pool=Threads(n)) for n in (1, 3)]
    assert probes[0].identical(probes[1])
    assert stores.digest(tmp_path / "1/probe.zarr") == stores.digest(tmp_path / "3/probe.zarr")
    assert_counts_are_the_labels(probes[0])


class Interrupted(BaseException):
    """What a killed run looks like from inside."""


def tasks_of(module, call):
    """The tasks that `call` would run."""
    with patch.object(module, "run_blocks", side_effect=Interrupted) as run, pytest.raises(Interrupted):
        call()
    return run.call_args.args[2]


@pytest.mark.parametrize("module", [ingest, skip])
def test_a_task_does_not_carry_65000_concepts(many, tmp_path, module):
    label_set = replace(
        many,
        concepts=tuple(Concept(n, f"a concept with a long name, {n}", "abc"[n % 3]) for n in range(1, 65_001)),
        ignored=frozenset(range(65_001, 65_536)),
    )
    function = write_probe if module is ingest else skip.without_bad_images
    for task in tasks_of(module, lambda: function(label_set, str(tmp_path / "probe.zarr"), show=False)):
        assert len(task.block.rows) <= 16
        assert len(pickle.dumps(task)) < 2**16 + len(pickle.dumps(task.block.rows))


@given(st.sets(st.integers(0, 65_535)))
def test_numbers_come_back_from_their_bits(numbers):
    assert set(np.flatnonzero(Numbers.of(numbers).mask)) == numbers


def test_a_number_that_is_a_concept_and_ignored_is_no_label(many, tmp_path):
    probe = written(replace(many, ignored=frozenset({2})), tmp_path)
    assert 2 in probe["concept"]
    assert not (probe["annotation"] == 2).any()
    assert probe["concept_area"].sel(concept=2) == 0


def test_a_probe_that_was_deleted_is_written_again(many, tmp_path):
    first = written(many, tmp_path)
    shutil.rmtree(tmp_path / "probe.zarr")
    assert written(many, tmp_path).identical(first)
    shutil.rmtree(tmp_path / "probe.zarr")
    assert written(many.subset(limit=2), tmp_path).sizes["image"] == 2


def test_what_was_found_out_before_there_was_a_store_outlives_it(many, tmp_path):
    url = str(tmp_path / "probe.zarr")
    store.mark(url, "looked at", fingerprint="a", written={})
    written(many, tmp_path)
    shutil.rmtree(url)
    assert store.drop_if_gone(url) == {"created", "done", *(f"blocks/{span}" for span in ("0-16", "16-32", "32-40"))}
    assert store.markers(url) == {"looked at"}


def test_an_interrupted_ingest_is_taken_up(many, tmp_path):
    wanted = written(many, tmp_path / "whole")
    url, done = str(tmp_path / "probe.zarr"), []
    block = ingest.ingest_block

    def dies(task):
        if len(done) == 2:
            raise Interrupted
        done.append(task.start)
        block(task)

    with patch.object(ingest, "ingest_block", dies), pytest.raises(Interrupted):
        write_probe(many, url, pool=Threads(1), show=False)
    assert done == [0, 16]
    with pytest.raises(DissectError, match="expected a complete probe"):
        open_probe(url)
    started = []
    with patch.object(ingest, "ingest_block", lambda task: started.append(task.start) or block(task)):
        write_probe(many, url, pool=Threads(1), show=False)
        write_probe(many, url, pool=Threads(1), show=False)
    assert started == [32]
    assert open_probe(url).load().equals(wanted)


def test_an_ingest_interrupted_before_its_first_block_is_taken_up(many, tmp_path):
    with patch.object(store, "mark", side_effect=Interrupted), pytest.raises(Interrupted):
        written(many, tmp_path)
    assert_counts_are_the_labels(written(many, tmp_path))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_markers_are_lost_the_same_probe_comes_back(many, data):
    with stores.scratch() as folder:
        wanted = written(many, folder)
        stores.lose_markers(str(folder / "probe.zarr"), data)
        assert written(many, folder).identical(wanted)


def test_another_probe_at_the_same_place_is_refused(many, tmp_path):
    written(many, tmp_path)
    with pytest.raises(DissectError, match="other images or parameters"):
        written(many.subset(limit=3), tmp_path)


def test_something_else_at_the_same_place_is_refused(many, tmp_path):
    store.create(str(tmp_path / "probe.zarr"), "", [], {"precious": True})
    with pytest.raises(DissectError, match=r"probe\.zarr: holds something"):
        written(many, tmp_path)
    assert store.read_attrs(str(tmp_path / "probe.zarr")) == {"precious": True}


def test_content_of_images_and_of_labels_is_fingerprinted_apart(folder, tmp_path):
    def prints(name):
        written(read_broden(folder), tmp_path, name=name)
        url = str(tmp_path / name)
        return store.read_attrs(url)["images_sha256"], store.marker(url, "done")["fingerprint"]

    first = prints("1")
    stores.save_labels(folder / "images/x/1_object.png", np.zeros((4, 3), int))
    second = prints("2")
    Image.new("RGB", (8, 6)).save(folder / "images/x/2.png")
    third = prints("3")
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert third[0] != first[0]
    assert third[1] not in (first[1], second[1])


def test_names_of_images_are_fingerprinted_in_their_order(many, tmp_path):
    def names_sha256(label_set, name):
        return written(label_set, tmp_path, name=name).attrs["names_sha256"]

    first = names_sha256(many, "1")
    assert first == store.fingerprint({"images": stores.image_names(40)})
    Image.new("RGB", (2, 2)).save(Path(many.images) / many.rows[5].image)
    assert names_sha256(many, "2") == first
    assert names_sha256(replace(many, rows=many.rows[::-1]), "3") != first


def test_pixels_are_found_again_when_a_run_is_moved(folder, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.move(folder, tmp_path / "run/set")
    written(read_broden(tmp_path / "run/set"), tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert Path(image_root(str(tmp_path / "moved/probe.zarr"))) == tmp_path / "moved/set/images"


def test_images_elsewhere_are_found_by_their_full_path(folder, tmp_path):
    written(read_broden(folder), tmp_path / "run")
    assert Path(image_root(str(tmp_path / "run/probe.zarr"))) == folder / "images"


def test_strings_are_stored_with_variable_length(many, tmp_path):
    written(many, tmp_path)
    for name in ("image", "split", "concept_name", "concept_category", "category", "plane_category"):
        assert json.loads((tmp_path / f"probe.zarr/{name}/zarr.json").read_text())["data_type"] == "string"


@pytest.mark.parametrize("images", [1, 15, 16, 17, 300, 4096, 63305])
def test_blocks_are_powers_of_two_and_no_more_than_a_few_hundred(images):
    length = ingest.block_length(images)
    assert length in (16, 32, 64, 128, 256)
    assert images <= 16 * length * 1.5 or length == 256
