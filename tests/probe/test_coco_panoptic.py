"""Panoptic PNGs: every segment has the category of its own image's list; 0 and crowds are ignored."""

import coco
import numpy as np
import pytest
from coco import category, image, panoptic
from PIL import Image
from stores import scratch

from dissect_xr import read_coco_panoptic, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import label_set_fingerprint, open_probe
from dissect_xr.probe.readers.coco.panoptic import decode_segments
from dissect_xr.probe.skip import without_bad_images

CATEGORIES = [
    category(1, "person", "person", isthing=1, color=[220, 20, 60]),
    category(184, "tree-merged", "plant", isthing=0, color=[60, 143, 60]),
    category(200, "rug-merged", "furniture-stuff", isthing=0, color=[250, 141, 255]),
]

IMAGES = [image(142238, (2, 4)), image(439180, (2, 4))]

# The published numbers of segments in these images; 3153362 is a crowd of persons.
FIRST = np.array([[3937500, 3937500, 0, 2330219], [4260062, 3153362, 0, 2330219]])
SECOND = np.array([[3937500, 3937500, 3937500, 3937500], [1, 1, 1, 16777215]])

ANNOTATIONS = [
    panoptic(439180, {3937500: 200, 1: 184, 16777215: 1}),
    panoptic(142238, {3937500: 1, 4260062: 1, 3153362: 1, 2330219: 184}, crowds=[3153362]),
]


def file_of(folder, images=IMAGES, annotations=ANNOTATIONS, categories=CATEGORIES):
    coco.photographs(folder / "val2017", images)
    for number, segments in ((142238, FIRST), (439180, SECOND)):
        coco.save_segments(folder / "panoptic_val2017" / f"{number:012d}.png", segments)
    coco.write(folder / "panoptic_val2017.json", images, annotations, categories)


def read(folder, **options):
    return read_coco_panoptic(
        folder / "val2017", folder / "panoptic_val2017", folder / "panoptic_val2017.json", **options
    )


def written(label_set, folder):
    write_probe(label_set, folder / "probe.zarr", pool=Threads(1), show=False)
    return open_probe(folder / "probe.zarr").load()


def test_labels_by_hand(tmp_path):
    file_of(tmp_path)
    probe = written(read(tmp_path), tmp_path)
    assert probe["annotation"].values[:, 0].tolist() == [[[1, 1, 0, 184], [1, 0, 0, 184]], [[200] * 4, [184] * 3 + [1]]]
    assert probe["ignored"].values.tolist() == [
        [[False, False, True, False], [False, True, True, False]],
        [[False] * 4] * 2,
    ]
    assert probe["concept_name"].values.tolist() == ["person", "tree-merged", "rug-merged"]
    assert probe["concept_area"].values.tolist() == [4, 5, 4]
    assert probe["domain_area"].values.tolist() == [5 + 8]


def test_a_segment_is_red_and_256_green_and_65536_blue(tmp_path):
    Image.fromarray(np.array([[[12, 34, 56], [0, 0, 1]]], np.uint8)).save(tmp_path / "a.png")
    assert decode_segments(tmp_path / "a.png").tolist() == [[12 + 256 * 34 + 65_536 * 56, 65_536]]


def test_one_number_is_another_segment_in_another_image(tmp_path):
    file_of(tmp_path)
    by_image = {row.where.split()[-1]: dict(row.segments) for row in read(tmp_path).rows}
    assert by_image["142238"][3937500] == 1
    assert by_image["439180"][3937500] == 200


def test_another_category_of_a_segment_is_another_probe(tmp_path):
    file_of(tmp_path)
    before = label_set_fingerprint(read(tmp_path))
    file_of(tmp_path, annotations=[panoptic(439180, {3937500: 200, 1: 184, 16777215: 184}), ANNOTATIONS[1]])
    assert label_set_fingerprint(read(tmp_path)) != before


def segment(**fields):
    """Annotations in which the first segment of the second image has other fields."""
    changed = ANNOTATIONS[1] | {"segments_info": [ANNOTATIONS[1]["segments_info"][0] | fields]}
    return [ANNOTATIONS[0], changed]


BAD = {
    "no annotation": (ANNOTATIONS[:1], r"image 142238: expected one entry of `annotations`, found 0"),
    "two annotations": ([*ANNOTATIONS, ANNOTATIONS[1]], r"image 142238: expected one entry of `annotations`, found 2"),
    "instances": (
        [ANNOTATIONS[0], coco.annotation(1, 142238, 1, [])],
        r"image 142238: expected an annotation with file_name and segments_info.*`kind: coco`",
    ),
    "no category": (segment(category_id=2), r"image 142238, segment 3937500: category_id 2 is none of `categories`"),
    "crowd of 2": (segment(iscrowd=2), r"segment 3937500: expected iscrowd as 0 or 1"),
    "segment 0": (segment(id=0), r"expected segments with ids from 1 to 16,777,215, got 0"),
    "segment 2^24": (segment(id=2**24), r"got 16777216"),
    "no number": (segment(id="1"), r"got '1'"),
    "a segment twice": (
        [ANNOTATIONS[0], ANNOTATIONS[1] | {"segments_info": ANNOTATIONS[1]["segments_info"][:1] * 2}],
        r"segment 3937500 is listed twice",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_the_file_is_named(tmp_path, case):
    annotations, message = BAD[case]
    file_of(tmp_path, annotations=annotations)
    with pytest.raises(DissectError, match=rf"panoptic_val2017\.json.*{message}"):
        read(tmp_path)


def save_resized(path):
    coco.save_segments(path, FIRST.repeat(2, axis=0).repeat(2, axis=1))


def save_grey(path):
    Image.fromarray(FIRST.astype(np.uint8)).save(path)


def save_of_another_image(path):
    coco.save_segments(path, np.where(FIRST == 0, 77, FIRST))


FILES = {
    "another size": (save_resized, r"000000142238\.png: expected 2 x 4 .*got 4 x 8 pixels"),
    "grey": (save_grey, r"000000142238\.png: expected segments as 8-bit RGB .*got L"),
    "another image's": (save_of_another_image, r"holds segment 77, one of 1 that .*image 142238 does not list"),
    "missing": (lambda path: path.unlink(), r"000000142238\.png: expected an image, found no file"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_png_is_named_and_may_be_skipped(tmp_path, case):
    spoil, message = FILES[case]
    file_of(tmp_path)
    spoil(tmp_path / "panoptic_val2017" / "000000142238.png")
    with pytest.raises(DissectError, match=message):
        written(read(tmp_path), tmp_path)
    kept = without_bad_images(read(tmp_path), str(tmp_path / "kept.zarr"), pool=Threads(1), show=False)
    assert [row.image for row in kept.rows] == ["000000439180.jpg"]


def test_folders_must_be_there():
    with scratch() as folder:
        file_of(folder)
        with pytest.raises(DissectError, match=r"elsewhere: expected a folder"):
            read_coco_panoptic(folder / "val2017", folder / "elsewhere", folder / "panoptic_val2017.json")
