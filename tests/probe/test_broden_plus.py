"""Broden+: records by lines, indices from 0, scenes from 0, parts only inside of objects that have them."""

import json

import pytest
from broden_plus_case import broden_plus
from published_sets import areas, probed

from dissect_xr.errors import DissectError
from dissect_xr.probe.ingest import label_set_fingerprint
from dissect_xr.probe.readers.scenes.broden_plus import read_broden_plus


def read(root, **options):
    return read_broden_plus(root / "broden_dataset", meta=root / "meta_file", **options)


def test_every_label_of_the_three_sets_has_its_number_and_area(tmp_path):
    """Wheels: two on the car count, the one on the wall does not. A leg counts inside of the person only, and of the
    head's four pixels one is an eye, which is painted later."""
    probe = probed(read(broden_plus(tmp_path / "set")), tmp_path)
    found = {
        (number, name): area
        for number, name, area in zip(
            probe["concept"].values.tolist(),
            probe["concept_name"].values.tolist(),
            probe["concept_area"].values.tolist(),
            strict=True,
        )
        if area
    }
    assert found == {
        (1, "wall"): 5 + 6, (2, "sky"): 4 + 8, (13, "car"): 4, (6, "person"): 8,
        (1012, "wheel"): 2, (1001, "leg"): 1, (1002, "head"): 3, (1006, "eye"): 1,
        (2002, "street"): 16, (3001, "brick"): 3, (3025, "wood"): 3,
    }  # fmt: skip
    assert probe["category"].values.tolist() == ["object", "part", "scene", "material"]
    assert probe["annotated"].values.tolist() == [
        [True, True, True, False], [True, True, False, False], [False, False, False, True], [True, False, False, False]
    ]  # fmt: skip


def test_indices_count_from_0_in_the_order_of_each_set(tmp_path):
    found = read(broden_plus(tmp_path))
    assert [(row.image.rsplit("/", 1)[1], row.split) for row in found.rows] == [
        ("ADE_train_00000001.jpg", "train"), ("2008_000008.jpg", "train"), ("77.jpg", "train"),
        ("ADE_val_00000001.jpg", "val"),
    ]  # fmt: skip


def test_scene_0_is_a_scene_and_minus_1_is_none(tmp_path):
    root = broden_plus(tmp_path)
    found = read(root)
    assert {c.number: c.name for c in found.concepts if c.category == "scene"} == {
        2001: "airfield", 2002: "street", 2003: "zen_garden"
    }  # fmt: skip
    assert [row.whole for row in found.rows] == [(2002,), (), (), ()]
    records = root / "meta_file/broden_ade20k_pascal_train.json"
    records.write_text('{"dataset": "ade20k", "file_index": 1}\n')
    assert read(root, label_size=(4, 4)).rows[0].whole == (2001,)


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [("part", {"wheel": 2, "leg": 1, "head": 3, "eye": 1}), ("material", {"brick": 3, "wood": 3})],
)
def test_one_category_alone(tmp_path, kept, wanted):
    found = read(broden_plus(tmp_path / "set"), categories=[kept])
    assert found.planes == (kept,)
    assert areas(probed(found, tmp_path)) == wanted


def test_what_is_what_is_part_of_the_probe(tmp_path):
    root = broden_plus(tmp_path)
    before = label_set_fingerprint(read(root))
    path = root / "meta_file/label_assignment.csv"
    path.write_text(path.read_text().replace("2420,sky,2,sky", "2421,sky,2,sky"))
    assert label_set_fingerprint(read(root)) != before


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("broden_os_train.json", '{"dataset": "os"}\n', r"broden_os_train\.json, line 1: expected a record"),
        ("broden_os_train.json", '[{"dataset": "os"', r"broden_os_train\.json, line 1: expected a record"),
        ("broden_os_train.json", '{"dataset": "os", "file_index": -1}\n', r"line 1: expected a record"),
        (
            "broden_os_train.json",
            '{"dataset": "os", "file_index": 2}\n',
            r"file_index 2 is beyond the 2 images of .*photos",
        ),
        (
            "broden_os_train.json",
            '{"dataset": "dtd", "file_index": 0}\n',
            r"dataset 'dtd' is none of ade20k, pascal and os",
        ),
        ("object.csv", "label,name\n1,wall\n1,sky\n", r"object\.csv, line 3: expected a new label"),
        (
            "object.csv",
            "label,name\n0,-\n1,wall\n",
            r"label_assignment\.csv, line 3: broden_label 13 is not in object\.csv",
        ),
        (
            "object_part_hierarchy.csv",
            "object_label,part_labels\n2,0;x\n",
            r"line 2, column 'part_labels': expected numbers",
        ),
        (
            "ade20k/scene_categories.txt",
            "a b\n",
            r"scene_categories\.txt: expected 3 lines, as the index has images, got 1",
        ),
        ("ade20k/index_ade20k.mat", "", r"index_ade20k\.mat: damaged, or no MATLAB file"),
    ],
)
def test_what_is_malformed_is_named(tmp_path, file, content, message):
    root = broden_plus(tmp_path)
    (root / "meta_file" / file).write_text(content)
    with pytest.raises(DissectError, match=message):
        read(root)


def test_scenes_in_another_order_are_refused(tmp_path):
    root = broden_plus(tmp_path)
    path = root / "meta_file/ade20k/scene_categories.txt"
    path.write_text(path.read_text().replace("airfield", "zoo"))
    with pytest.raises(
        DissectError, match=r"scene 1 of ADE20K is 'street/outdoor', and 'airfield' in label_assignment"
    ):
        read(root)
    path.write_text(path.read_text().replace("ADE_train_00000002", "ADE_train_00000003"))
    with pytest.raises(DissectError, match=r"line 2: expected the scene of .*ADE_train_00000002\.jpg"):
        read(root)


def test_without_records_there_is_nothing_to_read(tmp_path):
    root = broden_plus(tmp_path)
    for path in (root / "meta_file").glob("*.json"):
        assert json.loads(path.read_text().splitlines()[0])
        path.unlink()
    with pytest.raises(DissectError, match=r"expected files of records, broden_ade20k_pascal_train\.json"):
        read(root)


def test_parts_of_another_size_than_objects_are_refused(tmp_path):
    from published_sets import rg, save

    root = broden_plus(tmp_path / "set")
    path = next((root / "broden_dataset").rglob("*_parts_1.png"))
    import numpy as np

    save(path, rg(np.zeros((2, 2), int)))
    with pytest.raises(DissectError, match=r"_parts_1\.png: has another size than the objects of the image"):
        probed(read(root), tmp_path)
