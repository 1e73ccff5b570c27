"""COCO-Stuff: one class has the numbers 157 and 156 in its two forms, and is one concept in both."""

import coco
import numpy as np
import pytest
from coco import annotation, category, filled, image, rle
from PIL import Image

from dissect_xr import read_coco, read_coco_stuff, read_coco_stuff_maps, write_probe
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe

LABELS = "0: unlabeled\n1: person\n2: bicycle\n12: street sign\n92: banner\n157: sky-other\n182: wood\n"

SIZE = (2, 4)

MAP = np.array([[0, 0, 156, 156], [255, 91, 181, 1]], np.uint8)

IMAGES = [image(49, SIZE)]


def maps_of(folder, pixels=MAP, labels=LABELS):
    coco.photographs(folder / "images", [image(49, SIZE, file_name="train2017/000000000049.jpg")])
    path = folder / "stuffthingmaps" / "train2017" / "000000000049.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)
    (folder / "labels.txt").write_text(labels)


def read_maps(folder, **options):
    return read_coco_stuff_maps(folder / "images", folder / "stuffthingmaps", folder / "labels.txt", **options)


def written(label_set, folder, name="probe.zarr"):
    write_probe(label_set, folder / name, pool=Threads(1), show=False)
    return open_probe(folder / name).load()


def test_label_maps_by_hand(tmp_path):
    maps_of(tmp_path)
    probe = written(read_maps(tmp_path), tmp_path)
    assert probe["annotation"].values[0, 0].tolist() == [[1, 1, 157, 157], [0, 92, 182, 2]]
    assert probe["ignored"].values[0].tolist() == [[False] * 4, [True, False, False, False]]
    assert probe["concept_name"].values.tolist() == ["person", "bicycle", "street sign", "banner", "sky-other", "wood"]
    assert probe["concept_area"].values.tolist() == [2, 1, 0, 1, 2, 1]
    assert probe["split"].values.tolist() == ["train2017"]


STUFF = [category(92, "banner", "textile"), category(157, "sky-other", "sky"), category(183, "other", "other")]


def stuff_of(folder):
    sky, other = filled(SIZE, 0, 2, 1, 4), filled(SIZE, 0, 0, 1, 2)
    marks = [annotation(10000001, 49, 157, rle(sky)), annotation(10000002, 49, 183, rle(other))]
    coco.photographs(folder / "train2017", IMAGES)
    return coco.write(folder / "stuff_train2017.json", IMAGES, marks, STUFF)


def test_the_two_forms_side_by_side(tmp_path):
    maps_of(tmp_path)
    of_maps = written(read_maps(tmp_path), tmp_path, "maps.zarr")
    of_file = written(read_coco_stuff(tmp_path / "train2017", stuff_of(tmp_path)), tmp_path, "file.zarr")
    sky = [(probe["annotation"].values[0, 0] == 157).tolist() for probe in (of_maps, of_file)]
    assert sky[0] == sky[1] == filled(SIZE, 0, 2, 1, 4).tolist()
    names = [
        dict(zip(p["concept"].values.tolist(), p["concept_name"].values.tolist(), strict=True))
        for p in (of_maps, of_file)
    ]
    assert names[0][157] == names[1][157] == "sky-other"


def test_other_is_no_concept_and_its_pixels_are_unlabelled(tmp_path):
    probe = written(read_coco_stuff(tmp_path / "train2017", stuff_of(tmp_path)), tmp_path)
    assert probe["concept_name"].values.tolist() == ["banner", "sky-other"]
    assert probe["annotation"].values[0, 0].tolist() == [[0, 0, 157, 157], [0, 0, 0, 0]]
    assert probe["domain_area"].values.tolist() == [8]
    with pytest.raises(DissectError, match=r"category 183 is 'other'.*read_coco_stuff"):
        read_coco(tmp_path / "train2017", tmp_path / "stuff_train2017.json")


def test_maps_of_the_challenge_are_refused_rather_than_shifted(tmp_path):
    maps_of(tmp_path, np.array([[183, 183, 156, 156], [0, 91, 181, 183]], np.uint8))
    with pytest.raises(DissectError, match=r"holds label 183, which is no concept"):
        written(read_maps(tmp_path), tmp_path)


TABLES = {
    "shifted already": ("0: person\n1: bicycle\n", r"line 1: 0 is 'person', expected 'unlabeled'"),
    "no number": ("person\n", r"line 1: expected a number and a name, such as '1: person', got 'person'"),
    "a number twice": ("1: person\n1: bicycle\n", r"line 2: number 1 must be new"),
    "too large": ("183: other\n", r"line 1: number 183 must be new, and at most 182"),
    "empty": ("0: unlabeled\n\n", r"expected lines such as '1: person', found none"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table_is_named_with_its_line(tmp_path, case):
    text, message = TABLES[case]
    maps_of(tmp_path, labels=text)
    with pytest.raises(DissectError, match=rf"labels\.txt.*{message}"):
        read_maps(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    maps_of(tmp_path)
    with pytest.raises(DissectError, match=r"nothing\.txt: expected labels\.txt of COCO-Stuff, cannot read it"):
        read_coco_stuff_maps(tmp_path / "images", tmp_path / "stuffthingmaps", tmp_path / "nothing.txt")
    with pytest.raises(DissectError, match=r"elsewhere: expected a folder of images"):
        read_coco_stuff_maps(tmp_path / "elsewhere", tmp_path / "stuffthingmaps", tmp_path / "labels.txt")
    (tmp_path / "stuffthingmaps/train2017/000000000049.png").unlink()
    with pytest.raises(DissectError, match=r"the mask of train2017/000000000049\.jpg is missing"):
        read_maps(tmp_path)
