"""PartImageNet: parts whose ids count from 0, and wholes that are what their parts cover together."""

import coco
import numpy as np
import pytest
from coco import annotation, category, filled, image, rectangle

from dissect_xr import read_part_imagenet, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe

SIZE = (4, 6)

CATEGORIES = [
    category(0, "Quadruped Head", "Quadruped"),
    category(1, "Quadruped Body", "Quadruped"),
    category(24, "Car Body", "Car"),
    category(26, "Car Side Mirror", "Car"),
]

IMAGES = [
    image(0, SIZE, file_name="n02100583_13225.JPEG"),
    image(1, SIZE, file_name="n02814533_7.JPEG"),
]

ANNOTATIONS = [
    annotation(0, 0, 0, rectangle(0, 0, 2, 3)),
    annotation(1, 0, 1, [*rectangle(1, 2, 4, 6), [3, 3, 4, 4], [5, 1]]),  # with a line and a point, as there are some
    annotation(2, 1, 26, [[3, 3, 4, 4]]),
    annotation(3, 1, 24, [[3, 3, 4, 4], *rectangle(3, 0, 4, 6)]),
]


def file_of(folder, categories=CATEGORIES, images="images"):
    coco.photographs(folder / images, IMAGES)
    return coco.write(folder / "val.json", IMAGES, ANNOTATIONS, categories)


def written(label_set, folder):
    write_probe(label_set, folder / "probe.zarr", pool=Threads(1), show=False)
    return open_probe(folder / "probe.zarr").load()


def test_labels_by_hand(tmp_path):
    found = read_part_imagenet(tmp_path / "images", file_of(tmp_path))
    assert [(c.number, c.name, c.category, c.parent) for c in found.concepts] == [
        (1, "Quadruped Head", "part", 28),
        (2, "Quadruped Body", "part", 28),
        (25, "Car Body", "part", 29),
        (27, "Car Side Mirror", "part", 29),
        (28, "Quadruped", "object", 0),
        (29, "Car", "object", 0),
    ]
    assert found.parameters["offset"] == 1
    probe = written(found, tmp_path)
    head, body = filled(SIZE, 0, 0, 2, 3), filled(SIZE, 1, 2, 4, 6)
    for number, wanted in ((1, head), (2, body), (28, head | body)):
        assert np.array_equal((probe["annotation"].values[0] == number).any(axis=0), wanted), number
    assert probe["concept_area"].values.tolist() == [6, 12, 6, 0, 17, 6]
    assert probe["annotated"].values.all()


def test_images_may_lie_in_a_folder_for_each_synset(tmp_path):
    path = file_of(tmp_path)
    for entry in IMAGES:
        synset = tmp_path / "images" / entry["file_name"].split("_")[0]
        synset.mkdir()
        (tmp_path / "images" / entry["file_name"]).rename(synset / entry["file_name"])
    found = read_part_imagenet(tmp_path / "images", path)
    assert [row.image for row in found.rows] == ["n02100583/n02100583_13225.JPEG", "n02814533/n02814533_7.JPEG"]
    assert [row.split for row in found.rows] == ["n02100583", "n02814533"]
    assert written(found, tmp_path)["concept_area"].values.tolist() == [6, 12, 6, 0, 17, 6]


def test_an_image_that_is_nowhere_is_named_as_the_file_names_it(tmp_path):
    path = file_of(tmp_path)
    (tmp_path / "images" / "n02814533_7.JPEG").unlink()
    with pytest.raises(DissectError, match=r"images/n02814533_7\.JPEG: expected an image, found no file"):
        written(read_part_imagenet(tmp_path / "images", path), tmp_path)


@pytest.mark.parametrize("supercategory", [None, "", "animal", 4])
def test_without_a_supercategory_the_whole_is_the_first_word(tmp_path, supercategory):
    categories = [one | {"supercategory": supercategory} for one in CATEGORIES]
    found = read_part_imagenet(tmp_path / "images", file_of(tmp_path, categories))
    assert [c.name for c in found.concepts if c.category == "object"] == ["Quadruped", "Car"]


def test_a_part_without_a_whole_is_named(tmp_path):
    path = file_of(tmp_path, [*CATEGORIES, category(39, "Bottle", "Bottle")])
    with pytest.raises(DissectError, match=r"category 39: expected the name of a part .*got 'Bottle'"):
        read_part_imagenet(tmp_path / "images", path)


def test_parts_alone(tmp_path):
    found = read_part_imagenet(tmp_path / "images", file_of(tmp_path), categories=["part"])
    assert [concept.parent for concept in found.concepts] == [0] * 4
    assert written(found, tmp_path)["concept_area"].values.tolist() == [6, 12, 6, 0]
