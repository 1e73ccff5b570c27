"""COCO's instances: overlapping shapes, crowds and ids with gaps become exactly the labels that they say."""

import json

import coco
import numpy as np
import pytest
from coco import annotation, category, filled, image, rectangle, rle
from stores import scratch

from dissect_xr import read_coco, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.ingest import label_set_fingerprint, open_probe
from dissect_xr.probe.skip import without_bad_images

SIZE = (6, 8)

CATEGORIES = [category(90, "toothbrush", "indoor"), category(1, "person", "person"), category(67, "dining table")]

IMAGES = [image(391895, SIZE), image(139, SIZE), image(285, SIZE)]

ANNOTATIONS = [
    annotation(17, 391895, 67, rle(filled(SIZE, 4, 0, 6, 8))),
    annotation(3, 391895, 1, rectangle(1, 2, 4, 6)),
    annotation(900100000001, 391895, 1, rle(filled(SIZE, 0, 0, 1, 8), text=False), iscrowd=1),
    annotation(5, 285, 90, [*rectangle(0, 0, 1, 2), *rectangle(5, 6, 6, 8)]),
    annotation(4, 391895, 1, rle(filled(SIZE, 2, 4, 6, 8))),
]
"""In the first image two persons of 12 and 16 pixels, 4 of them both, a table of 16 below them, and a crowd above."""


def file_of(folder, images=IMAGES, annotations=ANNOTATIONS, categories=CATEGORIES, **more):
    """The JSON file, and the photographs beside it."""
    coco.photographs(folder / "val2017", images)
    return coco.write(folder / "instances_val2017.json", images, annotations, categories, **more)


def read(folder, **options):
    return read_coco(folder / "val2017", folder / "instances_val2017.json", **options)


def written(label_set, folder, name="probe.zarr"):
    write_probe(label_set, folder / name, pool=Threads(1), show=False)
    return open_probe(folder / name).load()


def labels(probe, number, concept):
    """The pixels of a concept in an image, (row, col)."""
    return (probe["annotation"].isel(image=number) == concept).any("plane").values


def test_labels_by_hand(tmp_path):
    file_of(tmp_path)
    found = read(tmp_path)
    assert [(c.number, c.name, c.category) for c in found.concepts] == [
        (1, "person", "object"),
        (67, "dining table", "object"),
        (90, "toothbrush", "object"),
    ]
    assert found.planes == ("object", "object")
    probe = written(found, tmp_path)
    assert probe["image"].values.tolist() == ["000000391895.jpg", "000000000139.jpg", "000000000285.jpg"]
    assert np.array_equal(labels(probe, 0, 1), filled(SIZE, 1, 2, 4, 6) | filled(SIZE, 2, 4, 6, 8))
    assert np.array_equal(labels(probe, 0, 67), filled(SIZE, 4, 0, 6, 8))
    assert np.array_equal(labels(probe, 2, 90), filled(SIZE, 0, 0, 1, 2) | filled(SIZE, 5, 6, 6, 8))
    assert np.array_equal(probe["ignored"].values[0], filled(SIZE, 0, 0, 1, 8))
    assert not probe["ignored"].values[1:].any()
    assert probe["concept_area"].values.tolist() == [24, 16, 4]
    assert probe["concept_images"].values.tolist() == [1, 1, 1]
    assert probe["annotated"].values.tolist() == [[True], [False], [True]]
    assert probe["domain_area"].values.tolist() == [40 + 48]  # the crowd of 8 pixels is in no area


def test_a_label_below_a_crowd_is_ignored(tmp_path):
    crowd = annotation(9, 139, 67, rectangle(0, 0, 6, 4), iscrowd=1)
    file_of(tmp_path, annotations=[annotation(8, 139, 1, rectangle(0, 2, 6, 6)), crowd])
    probe = written(read(tmp_path), tmp_path)
    assert np.array_equal(labels(probe, 1, 1), filled(SIZE, 0, 4, 6, 6))
    assert probe["concept_area"].values.tolist() == [12, 0, 0]


def test_without_crowds_nothing_is_ignored(tmp_path):
    file_of(tmp_path, annotations=[one for one in ANNOTATIONS if not one["iscrowd"]])
    assert "ignored" not in written(read(tmp_path), tmp_path)


def test_ids_from_0_are_shifted_as_one(tmp_path):
    shifted = [one | {"category_id": one["category_id"] - 1} for one in ANNOTATIONS]
    file_of(tmp_path / "0", annotations=shifted, categories=[one | {"id": one["id"] - 1} for one in CATEGORIES])
    file_of(tmp_path / "1")
    from_0, from_1 = (written(read(tmp_path / name), tmp_path / name) for name in "01")
    for name in ("annotation", "ignored", "concept", "concept_name", "concept_area", "annotated"):
        assert from_0[name].equals(from_1[name]), name
    assert (read(tmp_path / "0").parameters["offset"], read(tmp_path / "1").parameters.get("offset")) == (1, None)


def test_planes_are_as_many_as_concepts_overlap_not_as_boxes_do(tmp_path):
    # Two triangles that share a box and no pixel, and below them a table that one of them stands on.
    upper, lower = [[0, 0, 8, 0, 0, 6]], [[8, 6, 8, 0.5, 0.5, 6]]
    shapes = [annotation(1, 139, 1, upper), annotation(2, 139, 90, lower)]
    file_of(tmp_path, annotations=shapes)
    assert len(read(tmp_path).planes) == 1
    file_of(tmp_path, annotations=[*shapes, annotation(3, 139, 67, rectangle(4, 0, 6, 8))])
    assert len(read(tmp_path).planes) == 2


def test_the_grid_the_crop_and_colours_are_as_with_other_kinds(tmp_path):
    file_of(tmp_path)
    probe = written(read(tmp_path, label_size=(3, 4)).with_colors(COLOR_NAMES), tmp_path)
    # Of the rows and columns 0 to 5 and 0 to 7 the grid has those of odd numbers.
    assert np.array_equal(labels(probe, 0, 67), filled(SIZE, 4, 0, 6, 8)[1::2, 1::2])
    assert not probe["ignored"].values.any()  # the crowd's row 0 is not on the grid
    assert probe["plane_category"].values.tolist() == ["object", "object", "color"]
    assert probe["concept_area"].sel(concept=probe["concept_category"] == "color").sum() == 3 * 12
    assert probe["annotated"].values.all(axis=0).tolist() == [False, True]
    crop = Crop(6, (6, 6))  # columns 1 to 6
    cropped = written(read(tmp_path, label_size=(6, 6)).cropped(crop), tmp_path, "cropped.zarr")
    assert np.array_equal(labels(cropped, 0, 67), filled((6, 6), 4, 0, 6, 6))


def test_splits_are_the_folders_of_the_file_names(tmp_path):
    images = [image(1, SIZE, file_name="train2017/000000000001.jpg"), image(2, SIZE, file_name="val2017/2.jpg")]
    file_of(tmp_path, images, [])
    assert [row.split for row in read(tmp_path).rows] == ["train2017", "val2017"]
    assert [row.split for row in read(tmp_path).subset(split="val2017").rows] == ["val2017"]


def test_order_of_the_lists_makes_no_difference_but_to_the_order_of_images(tmp_path):
    for name, step in (("a", 1), ("b", -1)):
        file_of(tmp_path / name, IMAGES, ANNOTATIONS[::step], CATEGORIES[::step])
    a, b = (written(read(tmp_path / name), tmp_path / name) for name in "ab")
    assert a["annotation"].equals(b["annotation"])
    assert a["concept_name"].equals(b["concept_name"])


def test_another_shape_is_another_probe(tmp_path):
    file_of(tmp_path)
    before = label_set_fingerprint(read(tmp_path))
    file_of(tmp_path, annotations=[*ANNOTATIONS[:-1], annotation(4, 391895, 1, rectangle(0, 0, 1, 1))])
    assert label_set_fingerprint(read(tmp_path)) != before


# --- what is wrong ---


def changed(entries, n, **fields):
    """The entries with other fields in one of them; None leaves a field out."""
    entry = {name: value for name, value in (entries[n] | fields).items() if value is not None}
    return {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES} | {
        "images" if entries is IMAGES else "annotations" if entries is ANNOTATIONS else "categories": [
            *entries[:n],
            entry,
            *entries[n + 1 :],
        ]
    }


BAD = {
    "an image twice": (changed(IMAGES, 1, id=285), r"image 285: is listed twice in `images`"),
    "no id": (changed(IMAGES, 0, id=None), r"entry 0 of `images` \(the first is 0\): expected an image with an id"),
    "no height": (changed(IMAGES, 0, height=None), r"image 391895: expected height and width .* got None and 8"),
    "height in words": (changed(IMAGES, 0, height="6"), r"expected height and width"),
    "no width": (changed(IMAGES, 0, width=0), r"expected height and width .* got 6 and 0"),
    "too large": (changed(IMAGES, 0, width=10**8), r"at most 64,000,000 in all"),
    "no name": (changed(IMAGES, 0, file_name=None, coco_url=None), r"image 391895: expected a file_name, or"),
    "no image": (changed(ANNOTATIONS, 1, image_id=7), r"annotation 3 of `annotations`: image 7 is not in `images`"),
    "no image at all": (changed(ANNOTATIONS, 1, image_id=None), r"annotation 3 of .*image None is not in `images`"),
    "no category": (changed(ANNOTATIONS, 1, category_id=2), r"annotation 3: category_id 2 is none .* from 1 to 90"),
    "crowd of 2": (changed(ANNOTATIONS, 1, iscrowd=2), r"annotation 3: expected iscrowd as 0 or 1, got 2"),
    "two categories": (changed(CATEGORIES, 0, id=67), r"id 67 is that of '(toothbrush|dining table)', too"),
    "no category name": (changed(CATEGORIES, 2, name=" "), r"category 67 has no name"),
    "no category id": (changed(CATEGORIES, 2, id="67"), r"entry 2 of `categories` .* got {"),
    "a large id": (changed(CATEGORIES, 0, id=65_535), r"category id 65535 is too large"),
    "one name twice": (changed(CATEGORIES, 0, name="person"), r"concepts 1 and 90 are both called 'person'"),
    "one file twice": (changed(IMAGES, 1, file_name="000000391895.jpg"), r"'000000391895.jpg' is listed more"),
    "stuff": (changed(CATEGORIES, 0, id=183, name="other"), r"everything that is no stuff.*kind: coco_stuff"),
    "no images": ({"images": [], "annotations": [], "categories": CATEGORIES}, r"`images` is empty"),
    "no categories": ({"images": IMAGES, "annotations": [], "categories": []}, r"`categories` is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_the_file_is_named(tmp_path, case):
    lists, message = BAD[case]
    coco.write(tmp_path / "instances_val2017.json", **lists)
    (tmp_path / "val2017").mkdir()
    with pytest.raises(DissectError, match=message):
        read(tmp_path).check()


TEXTS = {
    "no JSON": ("images: []", r"not readable as JSON: Expecting value: line 1"),
    "cut off": ('{"images": [', r"not readable as JSON"),
    "a key twice": ('{"images": [], "images": []}', r"the key 'images' is given twice"),
    "NaN": ('{"images": [NaN]}', r"it holds NaN"),
    "a list": ("[]", r"expected the lists images, annotations, categories, found a list"),
    "a test set": ('{"images": [], "categories": []}', r"found images, categories. Files of test sets"),
    "nested": ("[" * 100_000, r"not readable as JSON"),
    "no UTF-8": (b"\xff\xfe", r"cannot read it"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_none_is_named(tmp_path, case):
    text, message = TEXTS[case]
    (tmp_path / "instances_val2017.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DissectError, match=rf"instances_val2017\.json: .*{message}"):
        read(tmp_path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(
        DissectError, match=r"instances_val2017\.json: expected a JSON file as COCO has them, found none"
    ):
        read(tmp_path)
    file_of(tmp_path)
    with pytest.raises(DissectError, match=r"elsewhere: expected a folder of images"):
        read_coco(tmp_path / "elsewhere", tmp_path / "instances_val2017.json")
    with pytest.raises(DissectError, match=r"categories: expected some of \['object'\], got part"):
        read(tmp_path, categories=["part"])


FAULTY = {
    "another size": (rle(filled((8, 6), 0, 0, 1, 1)), r"annotation 7: its runs are of an image of \[8, 6\]"),
    "none": ([], r"annotation 7 has no segmentation"),
    "a box": ([[0, 0, 4, 4]], r"annotation 7: its first polygon has four numbers"),
    "left out": (None, r"annotation 7 has no segmentation"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_shape_is_named_with_its_image_and_may_be_skipped(tmp_path, case):
    segmentation, message = FAULTY[case]
    file_of(tmp_path, annotations=[*ANNOTATIONS, annotation(7, 139, 1, segmentation)])
    found = read(tmp_path)
    with pytest.raises(DissectError, match=rf"instances_val2017\.json, image 139: {message}"):
        write_probe(found, tmp_path / "probe.zarr", pool=Threads(1), show=False)
    kept = without_bad_images(found, str(tmp_path / "kept.zarr"), pool=Threads(1), show=False)
    assert [row.image for row in kept.rows] == ["000000391895.jpg", "000000000285.jpg"]
    assert written(kept, tmp_path, "kept.zarr")["concept_area"].values.tolist() == [24, 16, 4]


def test_an_image_of_other_proportions_than_the_file_says_is_refused(tmp_path):
    file_of(tmp_path)
    coco.photographs(tmp_path / "val2017", [image(139, (8, 6))])  # 8 rows, where the file says 6
    with pytest.raises(DissectError, match=r"image 139: 6 x 8 pixels, in other proportions than its image .*8 x 6"):
        write_probe(read(tmp_path), tmp_path / "probe.zarr", pool=Threads(1), show=False)


def test_a_name_that_leads_outside_is_refused(tmp_path):
    file_of(tmp_path)
    content = json.loads((tmp_path / "instances_val2017.json").read_text())
    content["images"][0]["file_name"] = "../secret.png"
    (tmp_path / "instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(DissectError, match=r"lies outside"):
        write_probe(read(tmp_path), tmp_path / "probe.zarr", pool=Threads(1), show=False)


def test_workers_draw_what_the_client_draws(tmp_path, processes):
    file_of(tmp_path)
    write_probe(read(tmp_path), tmp_path / "workers.zarr", pool=processes, show=False)
    assert open_probe(tmp_path / "workers.zarr").load().equals(written(read(tmp_path), tmp_path))


def test_a_byte_order_mark_is_no_character():
    with scratch() as folder:
        path = file_of(folder)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(read(folder).rows) == 3
