"""LVIS and PACO: an image counts for the categories that it was verified for, and for no others."""

import coco
import numpy as np
import pytest
from coco import annotation, category, filled, image, rectangle, rle

from dissect_xr import read_lvis, read_paco, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe

SIZE = (4, 4)

CATEGORIES = [
    category(1, "aerosol_can", synset="aerosol.n.02", frequency="c", synonyms=["aerosol_can", "spray_can"]),
    category(35, "handbag", synset="bag.n.04", frequency="f", synonyms=["handbag", "purse", "pocketbook"]),
    category(1203, "zucchini", synset="zucchini.n.02", frequency="c", synonyms=["zucchini", "courgette"]),
]
for one in CATEGORIES:
    del one["supercategory"]


def lvis_image(number, folder, absent=(), partly=()):
    """An image of version 1, which has no file_name."""
    return image(
        number, SIZE, file_name=None, coco_url=f"http://images.cocodataset.org/{folder}/{number:012d}.jpg",
        neg_category_ids=list(absent), not_exhaustive_category_ids=list(partly),
    )  # fmt: skip


IMAGES = [
    lvis_image(397133, "val2017", absent=[35]),
    lvis_image(37777, "train2017", partly=[35]),
    lvis_image(252219, "val2017", absent=[1, 1203]),
]

ANNOTATIONS = [
    annotation(1, 397133, 1, rectangle(0, 0, 2, 2), iscrowd=None),
    annotation(2, 37777, 1, rectangle(0, 0, 1, 4), iscrowd=None),
    annotation(3, 37777, 35, rectangle(1, 0, 2, 4), iscrowd=None),
]


def file_of(folder, images=IMAGES, annotations=ANNOTATIONS, categories=CATEGORIES):
    coco.photographs(folder / "coco", images)
    return coco.write(folder / "lvis_v1_val.json", images, annotations, categories)


def read(folder, **options):
    return read_lvis(folder / "coco", folder / "lvis_v1_val.json", **options)


def written(label_set, folder):
    write_probe(label_set, folder / "probe.zarr", pool=Threads(1), show=False)
    return open_probe(folder / "probe.zarr").load()


def annotated(probe):
    """Image -> names of the domains that it is annotated for."""
    names, rows = probe["domain"].values, probe["annotated"].values
    return {image: names[row].tolist() for image, row in zip(probe["image"].values.tolist(), rows, strict=True)}


def test_domains_by_hand(tmp_path):
    file_of(tmp_path)
    probe = written(read(tmp_path), tmp_path)
    can, bag, zucchini = "object: aerosol_can", "object: handbag", "object: zucchini"
    assert probe["concept_domain"].values.tolist() == probe["domain"].values.tolist() == [can, bag, zucchini]
    assert annotated(probe) == {
        "val2017/000000397133.jpg": [can, bag],  # annotated, and looked for in vain
        "train2017/000000037777.jpg": [can],  # its handbags are not all annotated
        "val2017/000000252219.jpg": [can, zucchini],
    }
    assert probe["concept_area"].values.tolist() == [4 + 4, 0, 0]  # the handbag that does not count is not there
    assert not (probe["annotation"] == 35).any()
    assert probe["domain_area"].values.tolist() == [48, 16, 16]


def test_an_annotation_with_a_box_only_leaves_its_image_unverified(tmp_path):
    file_of(tmp_path, annotations=[*ANNOTATIONS, annotation(4, 397133, 1, [])])
    probe = written(read(tmp_path), tmp_path)
    assert annotated(probe)["val2017/000000397133.jpg"] == ["object: handbag"]
    assert probe["concept_area"].values.tolist() == [4, 0, 0]


BAD = {
    "both": (
        [lvis_image(397133, "val2017", absent=[1]), *IMAGES[1:]],
        r"image 397133: category 1 is in neg_category_ids, which says that there is none, and is annotated",
    ),
    "unknown absent": (
        [lvis_image(397133, "val2017", absent=[2]), *IMAGES[1:]],
        r"image 397133, neg_category_ids: 2 is none of `categories`",
    ),
    "unknown partly": (
        [lvis_image(397133, "val2017", partly=[2]), *IMAGES[1:]],
        r"image 397133, not_exhaustive_category_ids: 2 is none of `categories`",
    ),
    "no list": (
        [image(397133, SIZE, not_exhaustive_category_ids=[]), *IMAGES[1:]],
        r"image 397133: expected neg_category_ids as a list of category ids, got None",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_the_file_is_named(tmp_path, case):
    images, message = BAD[case]
    file_of(tmp_path, images)
    with pytest.raises(DissectError, match=rf"lvis_v1_val\.json, {message}"):
        read(tmp_path)


# --- PACO ---

OBJECTS = {"mug": 699, "drill": 394}

PACO = [
    category(394, "drill", "OBJECT", synset="drill.n.01", frequency="f"),
    category(699, "mug", "OBJECT", synset="mug.n.04", frequency="f"),
    category(1300, "mug:handle", "PART"),
    category(1301, "drill:handle", "PART"),
    category(1302, "mug:rim", "PART"),
]

PACO_IMAGES = [
    image(
        1, SIZE, file_name="train2017/000000000001.jpg", neg_category_ids=[394, 1301],
        not_exhaustive_category_ids=[1302], neg_category_ids_attrs=[], not_exhaustive_category_ids_attrs=[],
    )
]  # fmt: skip


def part(number, category_id, mask, of):
    """An annotation as PACO lists it; that of an object names itself."""
    return annotation(
        number, 1, category_id, rle(mask), iscrowd=None, attribute_ids=[1], dom_color_ids=[], obj_ann_id=of,
        unknown_color=0, unknown_pattern_marking=0, unknown_material=0, unknown_transparency=0,
    )  # fmt: skip


PACO_ANNOTATIONS = [
    part(1, 699, filled(SIZE, 0, 0, 3, 3), 1),
    part(2, 1300, filled(SIZE, 0, 2, 3, 4), 1),
    part(3, 1302, filled(SIZE, 0, 0, 1, 3), 1),
]


def paco_of(folder, categories=PACO):
    coco.photographs(folder / "coco", PACO_IMAGES)
    more = {"part_categories": [category(9, "handle", "PART")], "attributes": [category(0, "black", "ATTR")]}
    return coco.write(folder / "paco_lvis_v1_train.json", PACO_IMAGES, PACO_ANNOTATIONS, categories, **more)


def test_parts_have_their_object_as_parent(tmp_path):
    found = read_paco(tmp_path / "coco", paco_of(tmp_path))
    assert [(c.number, c.name, c.category, c.parent) for c in found.concepts] == [
        (394, "drill", "object", 0),
        (699, "mug", "object", 0),
        (1300, "mug:handle", "part", 699),
        (1301, "drill:handle", "part", 394),
        (1302, "mug:rim", "part", 699),
    ]
    assert len(found.planes) == 3
    probe = written(found, tmp_path)
    assert np.array_equal((probe["annotation"].values[0] == 699).any(axis=0), filled(SIZE, 0, 0, 3, 3))
    assert np.array_equal((probe["annotation"].values[0] == 1300).any(axis=0), filled(SIZE, 0, 2, 3, 4))
    assert probe["concept_area"].values.tolist() == [0, 9, 6, 0, 0]
    domains = ["object: drill", "object: mug", "part: mug:handle", "part: drill:handle"]
    assert annotated(probe) == {"train2017/000000000001.jpg": domains}


def test_objects_alone(tmp_path):
    found = read_paco(tmp_path / "coco", paco_of(tmp_path), categories=["object"])
    assert found.planes == ("object",)
    probe = written(found, tmp_path)
    assert probe["concept"].values.tolist() == [394, 699]
    assert probe["concept_area"].values.tolist() == [0, 9]
    assert annotated(probe) == {"train2017/000000000001.jpg": ["object: drill", "object: mug"]}


def test_parts_alone_have_no_parent(tmp_path):
    found = read_paco(tmp_path / "coco", paco_of(tmp_path), categories=["part"])
    assert [concept.parent for concept in found.concepts] == [0, 0, 0]
    assert written(found, tmp_path)["concept_area"].values.tolist() == [6, 0, 0]


def test_a_part_of_nothing_is_named(tmp_path):
    path = paco_of(tmp_path, [*PACO, category(1303, "kettle:lid", "PART")])
    with pytest.raises(DissectError, match=r"category 'kettle:lid' is a part of 'kettle', which is no category"):
        read_paco(tmp_path / "coco", path)
