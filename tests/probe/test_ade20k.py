"""ADE20K of the challenge and in full: numbers as they are, parts apart from objects, no pickle."""

import json
import pickle
import re

import numpy as np
import published_sets as sets
import pytest
from published_sets import areas, probed

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.scenes.ade20k import read_ade20k
from dissect_xr.probe.readers.scenes.ade20k_full import PARTS, SCENES, decode_ade20k_full, read_ade20k_full

# --- the challenge ---


def test_numbers_of_the_challenge_are_not_reduced(tmp_path):
    probe = probed(read_ade20k(sets.ade20k(tmp_path / "set")), tmp_path)
    names = dict(zip(probe["concept"].values.tolist(), probe["concept_name"].values.tolist(), strict=True))
    assert (names[1], names[7], names[150]) == ("wall", "road, route", "class 150")
    assert probe["annotation"].values[0, 0].tolist() == [[7, 7, 3, 3], [7, 0, 3, 3], [7, 21, 21, 0], [7, 21, 21, 0]]


def test_scenes_are_of_the_whole_image_and_misc_is_none(tmp_path):
    found = read_ade20k(sets.ade20k(tmp_path / "set"))
    assert [c for c in found.concepts if c.category == "scene"] == [found.concepts[150]]
    assert (found.concepts[150].number, found.concepts[150].name) == (151, "street")  # `highway` is of no image here
    assert [row.whole for row in found.rows] == [(151,), ()]
    probe = probed(found, tmp_path)
    assert probe["annotated"].values.tolist() == [[True, True], [True, False]]
    assert areas(probe)["street"] == 16


def test_without_the_file_of_scenes_there_are_none(tmp_path):
    root = sets.ade20k(tmp_path)
    (root / "sceneCategories.txt").unlink()
    assert read_ade20k(root).categories == ("object",)
    with pytest.raises(DissectError, match=r"categories: scene not in .*; there are \['object'\]"):
        read_ade20k(root, categories=["scene"])


def test_scenes_alone_need_no_label_map(tmp_path):
    root = sets.ade20k(tmp_path)
    found = read_ade20k(root, categories=["scene"])
    assert (found.planes, [row.maps for row in found.rows], found.label_size) == ((), [(), ()], (112, 112))


def test_label_maps_that_were_reduced_for_training_are_refused(tmp_path):
    root = sets.ade20k(tmp_path / "set")
    path = root / "annotations/training/ADE_train_00000001.png"
    reduced = sets.numbered(sets.FIRST, [255, 6, 2, 20])
    sets.save(path, reduced)
    with pytest.raises(DissectError, match=r"holds 255, as label maps do whose numbers were reduced by one"):
        probed(read_ade20k(root, label_size=(4, 4)), tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("objectInfo150.txt", lambda text: text.replace("\n77\t", "\n78\t"), r"expected the numbers 1 to 150"),
        ("objectInfo150.txt", lambda text: text.rsplit("\n", 2)[0], r"expected the numbers 1 to 150.*got 149 rows"),
        ("objectInfo150.txt", lambda text: text.replace("Idx", "Id"), r"line 1: columns Idx, Name are missing"),
        ("sceneCategories.txt", lambda text: text + "ADE_val_00000002\n", r"line 4: expected an image and its scene"),
    ],
)
def test_malformed_tables_are_named(tmp_path, file, change, message):
    root = sets.ade20k(tmp_path)
    (root / file).write_text(change((root / file).read_text()))
    with pytest.raises(DissectError, match=rf"{re.escape(file)}.*{message}"):
        read_ade20k(root)


@pytest.mark.parametrize("missing", ["images", "annotations"])
def test_a_missing_folder_is_named(tmp_path, missing):
    root = sets.ade20k(tmp_path)
    (root / missing).rename(root / "other")
    with pytest.raises(DissectError, match=rf"found no {missing}/"):
        read_ade20k(root)


# --- the full set ---


def test_numbers_of_the_full_set_are_r_and_g(tmp_path):
    numbers = np.array([[0, 1, 255, 256], [401, 3050, 6655, 2560]])
    path = sets.save(tmp_path / "a_seg.png", sets.rg(numbers, instances=7))
    assert decode_ade20k_full(path).tolist() == numbers.tolist()
    assert decode_ade20k_full(path).dtype == np.uint16
    parts = sets.save(tmp_path / "a_parts_2.png", sets.rg(numbers))
    assert decode_ade20k_full(parts).tolist() == np.where(numbers, numbers + PARTS, 0).tolist()


def test_objects_parts_of_every_level_and_scenes(tmp_path):
    found = read_ade20k_full(sets.ade20k_full(tmp_path / "set"))
    assert found.planes == ("object", "part", "part")
    assert [len(row.maps) for row in found.rows] == [3, 1]
    assert [row.split for row in found.rows] == ["training", "validation"]
    probe = probed(found, tmp_path)
    assert areas(probe) == {
        "road, route": 5, "sky": 4 + 8, "car, auto": 4, "window": 1, "wheel": 2, "rim": 1, "outdoor/urban/street": 16
    }  # fmt: skip
    by_number = dict(zip(probe["concept"].values.tolist(), probe["concept_area"].values.tolist(), strict=True))
    # A window of the car, and the windows of a house, which are objects.
    assert (by_number[sets.WINDOW + PARTS], by_number[sets.WINDOW]) == (1, 6)
    assert (by_number[sets.RIM + PARTS], by_number[sets.WHEEL + PARTS]) == (1, 2)
    assert by_number[SCENES] == 16


def test_a_part_has_its_whole_also_where_that_is_a_part(tmp_path):
    found = read_ade20k_full(sets.ade20k_full(tmp_path))
    parents = {c.name: c.parent for c in found.concepts if c.category == "part"}
    assert parents == {"window": sets.CAR_NUMBER, "wheel": sets.CAR_NUMBER, "rim": sets.WHEEL + PARTS}


def test_a_part_of_two_wholes_has_none(tmp_path):
    root = sets.ade20k_full(tmp_path)
    path = root / "images/ADE/validation/urban/house/ADE_val_00000001.json"
    house = sets.ade_object(0, 1276, "house")
    sets.ade_json(path, [house, sets.ade_object(1, sets.WINDOW, "window", 1, 0)], "indoor")
    found = read_ade20k_full(root)
    assert {c.name: c.parent for c in found.concepts if c.category == "part"}["window"] == 0
    assert [c.name for c in found.concepts if c.category == "scene"] == ["indoor", "outdoor/urban/street"]


def test_two_numbers_of_one_name_are_told_apart(tmp_path):
    root = sets.ade20k_full(tmp_path)
    path = root / "images/ADE/validation/urban/house/ADE_val_00000001.json"
    sets.ade_json(path, [sets.ade_object(0, 95, "bag"), sets.ade_object(1, 96, "bag")], [])
    assert {"bag (95)", "bag (96)"} <= {c.name for c in read_ade20k_full(root).concepts}


def test_names_are_latin_and_a_single_object_is_no_list(tmp_path):
    root = sets.ade20k_full(tmp_path)
    assert "café" in {c.name for c in read_ade20k_full(root).concepts}
    path = root / "images/ADE/validation/urban/house/ADE_val_00000001.json"
    sets.ade_json(path, sets.ade_object(0, sets.SKY_NUMBER, "sky"), [])
    assert json.loads(path.read_text("latin-1"))["annotation"]["object"]["name"] == "sky"
    assert len(read_ade20k_full(root).rows) == 2


def test_an_entry_without_a_class_is_no_concept(tmp_path):
    root = sets.ade20k_full(tmp_path)
    path = root / "images/ADE/validation/urban/house/ADE_val_00000001.json"
    nameless = sets.ade_object(0, 1, "")
    for number in ([], 0):
        sets.ade_json(path, [nameless | {"name_ndx": number}], [])
        assert "" not in {c.name for c in read_ade20k_full(root).concepts}


def test_only_the_categories_that_are_kept_are_read(tmp_path):
    found = read_ade20k_full(sets.ade20k_full(tmp_path / "set"), categories=["part"])
    assert (found.planes, found.categories) == (("part", "part"), ("part",))
    assert [[path.rsplit("_", 2)[-2:] for _, path in row.maps] for row in found.rows] == [
        [["parts", "1.png"], ["parts", "2.png"]], []
    ]  # fmt: skip
    assert areas(probed(found, tmp_path)) == {"window": 1, "wheel": 2, "rim": 1}


def test_the_pickle_is_refused_and_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "index_ade20k.pkl"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DissectError, match=r"is a pickle, which runs what is in it, and is not read"):
        read_ade20k_full(path)
    root = sets.ade20k_full(tmp_path / "set")
    (root / "index_ade20k.pkl").write_bytes(path.read_bytes())
    read_ade20k_full(root)
    assert not (tmp_path / "ran").exists()


def spoilt(folder, content: str):
    root = sets.ade20k_full(folder)
    (root / "images/ADE/validation/urban/house/ADE_val_00000001.json").write_text(content)
    return root


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"expected \{'annotation'.*JSONDecodeError"),
        ('{"annotation": []}', r"'annotation' is list"),
        ('{"annotation": {"object": [{"id": 1}]}}', r"object 0: expected id, name, name_ndx and parts"),
        (json.dumps({"annotation": {"object": [sets.ade_object(0, 10_000, "x")]}}), r"name_ndx must lie between 1"),
        (json.dumps({"annotation": {"object": [sets.ade_object(0, 401, "tree")]}}), r"number 401 is 'tree', and 'car"),
        ("[" * 100_000, r"RecursionError|JSONDecodeError"),
    ],
)
def test_a_malformed_json_file_is_named(tmp_path, content, message):
    with pytest.raises(DissectError, match=rf"ADE_val_00000001\.json: .*({message})"):
        read_ade20k_full(spoilt(tmp_path, content))


def test_missing_files_are_named(tmp_path):
    root = sets.ade20k_full(tmp_path)
    house = root / "images/ADE/validation/urban/house"
    (house / "ADE_val_00000001_seg.png").unlink()
    with pytest.raises(DissectError, match=r"ADE_val_00000001_seg\.png: the label map of .* is missing"):
        read_ade20k_full(root)
    (house / "ADE_val_00000001.json").unlink()
    with pytest.raises(DissectError, match=r"ADE_val_00000001\.json: expected the JSON file of the image"):
        read_ade20k_full(root)
    (house / "ADE_val_00000001_atr.txt").write_text('001 # 0 # 0 # building # building # ""\n')
    with pytest.raises(DissectError, match=r"The release of 2016 has _atr\.txt files instead"):
        read_ade20k_full(root)
    with pytest.raises(DissectError, match=r"For ADEChallengeData2016, the 150 classes, use `kind: ade20k`"):
        read_ade20k_full(tmp_path / "other")


def test_a_number_that_no_json_file_names_is_refused(tmp_path):
    root = sets.ade20k_full(tmp_path / "set")
    path = root / "images/ADE/validation/urban/house/ADE_val_00000001_seg.png"
    sets.save(path, sets.rg(sets.numbered(sets.SECOND, [0, 999, sets.SKY_NUMBER, 0])))
    with pytest.raises(DissectError, match=r"ADE_val_00000001_seg\.png: holds label 999, which is no concept"):
        probed(read_ade20k_full(root), tmp_path)
