"""Pascal-Part and PASCAL-Context: MATLAB files, parts that lie on each other, lists whose numbers are not those."""

import numpy as np
import published_sets as sets
import pytest
from published_sets import areas, probed
from scipy.io import savemat

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.readers.scenes.part_names import part_name, without_sides
from dissect_xr.probe.readers.scenes.pascal_context import read_pascal_context
from dissect_xr.probe.readers.scenes.pascal_part import read_pascal_part, stacked
from dissect_xr.probe.skip import without_bad_images


def part(root, **options):
    return read_pascal_part(root / "part", image_folder=root / "VOC2010/JPEGImages", **options)


def context(root, **options):
    return read_pascal_context(root / "context", image_folder=root / "VOC2010/JPEGImages", **options)


OBJECTS = {"person": 8, "bus": 6, "chair": 2}
PARTS = {"person: head": 4, "person: eye": 2, "person: leg": 2, "bus: wheel": 2, "bus: front side": 1}


def test_no_part_and_no_object_erases_another(tmp_path):
    """A head has 4 pixels, two of them eyes; a person of 8 stands before a bus of 6, and both have 2 in common."""
    found = part(sets.pascal_part(tmp_path / "set"))
    assert found.planes == ("object", "object", "part", "part")
    probe = probed(found, tmp_path)
    assert areas(probe) == OBJECTS | PARTS
    assert probe["annotated"].values.tolist() == [[True, True], [True, False], [False, False]]
    assert probe["domain_area"].values.tolist() == [32, 16]


def test_sides_are_told_apart_if_asked_for(tmp_path):
    probe = probed(part(sets.pascal_part(tmp_path / "set"), sides=True), tmp_path)
    assert {name: area for name, area in areas(probe).items() if name.startswith("person: ")} == {
        "person: head": 4, "person: left eye": 1, "person: right eye": 1, "person: left lower leg": 1,
        "person: right upper leg": 1,
    }  # fmt: skip


def test_a_part_has_its_object_as_whole(tmp_path):
    found = part(sets.pascal_part(tmp_path))
    assert [(c.number, c.name, c.parent) for c in found.concepts if c.category == "part"] == [
        (601, "bus: front side", 6), (602, "bus: wheel", 6),
        (1501, "person: eye", 15), (1502, "person: head", 15), (1503, "person: leg", 15),
    ]  # fmt: skip


@pytest.mark.parametrize(("kept", "wanted", "planes"), [("object", OBJECTS, 2), ("part", PARTS, 2)])
def test_one_category_alone(tmp_path, kept, wanted, planes):
    found = part(sets.pascal_part(tmp_path / "set"), categories=[kept])
    assert found.planes == (kept,) * planes
    assert areas(probed(found, tmp_path)) == wanted


def test_an_image_without_an_object_has_no_label(tmp_path):
    found = part(sets.pascal_part(tmp_path))
    assert [len(row.maps) for row in found.rows] == [1, 1, 0]


def test_lists_are_the_splits_and_must_be_complete(tmp_path):
    root = sets.pascal_part(tmp_path)
    found = part(root, lists=root / "VOC2010/ImageSets/Main")
    assert [row.split for row in found.rows] == ["train", "val", "train"]
    sets.text(root / "VOC2010/ImageSets/Main/val.txt", "2008_000019\n")
    sets.text(root / "VOC2010/ImageSets/Main/train.txt", "2008_000008\n")
    with pytest.raises(DissectError, match=r"of the 3 images of .*, 1 are in neither list: 2008_000015"):
        part(root, lists=root / "VOC2010/ImageSets/Main")


@pytest.mark.parametrize(
    ("short", "name", "plain"),
    [
        ("llleg", "left lower leg", "leg"), ("rfho", "right front hoof", "hoof"), ("wheel_12", "wheel", "wheel"),
        ("rear", "right ear", "ear"), ("hroofside", "head roof side", "head roof"), ("torso", "torso", "torso"),
        ("cleftside_3", "coach left side", "coach"), ("frontside", "front side", "front side"),
        ("lbuleg", "left back upper leg", "leg"), ("bliplate", "back license plate", "license plate"),
    ],
)  # fmt: skip
def test_names_of_parts_are_written_out(short, name, plain):
    assert (part_name(short), without_sides(part_name(short))) == (name, plain)


def test_every_label_of_a_pixel_has_a_plane():
    masks = {7: np.array([[1, 1, 0]], bool), 3: np.array([[0, 1, 1]], bool), 5: np.array([[0, 1, 0]], bool)}
    assert stacked(masks, (3, 1, 3)).tolist() == [[[7, 3, 3]], [[0, 5, 0]], [[0, 7, 0]]]


def broken(path, kind: str) -> None:
    if kind == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "no MATLAB file":
        path.write_text("{}")
    elif kind == "version 7.3":
        path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    elif kind == "another variable":
        savemat(path, {"LabelMap": np.zeros((2, 2), np.uint16)})
    elif kind == "another struct":
        savemat(path, {"anno": {"objects": {"name": "x"}}})
    elif kind == "another class":
        savemat(path, {"anno": {"objects": {"class": "tree", "mask": np.ones((4, 4)), "parts": []}}})
    elif kind == "floats":
        savemat(path, {"anno": {"objects": {"class": "cat", "mask": np.full((4, 4), 0.5), "parts": []}}})
    else:
        two = [
            {"class": "cat", "mask": np.ones(size, np.uint8), "parts": np.zeros((0, 0))} for size in ((4, 4), (4, 5))
        ]
        rows = np.empty((1, 2), dtype=[("class", object), ("mask", object), ("parts", object)])
        for n, one in enumerate(two):
            rows[0, n] = tuple(one.values())
        savemat(path, {"anno": {"objects": rows}})


BROKEN = {
    "damaged": r"damaged, or no MATLAB file",
    "no MATLAB file": r"damaged, or no MATLAB file",
    "version 7.3": r"is a MATLAB file of version 7\.3, which is HDF5",
    "another variable": r"expected the variable 'anno', found none",
    "another struct": r"expected a struct `anno` with objects",
    "another class": r"'tree' is no class of VOC",
    "floats": r"expected the mask of cat as whole numbers \(row, col\), got float64",
    "several sizes": r"its masks have several sizes",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_of_parts_is_named_or_left_out(tmp_path, kind):
    root = sets.pascal_part(tmp_path / "set")
    broken(root / "part/Annotations_Part/2008_000015.mat", kind)
    found = part(root)
    with pytest.raises(DissectError, match=rf"2008_000015\.mat: {BROKEN[kind]}"):
        write_probe(found, tmp_path / "probe.zarr", show=False, pool=Threads(1))
    kept = without_bad_images(found, str(tmp_path / "kept.zarr"), show=False)
    assert [row.image for row in kept.rows] == ["2008_000008.jpg", "2008_000019.jpg"]
    write_probe(kept, tmp_path / "kept.zarr", show=False)
    assert areas(open_probe(tmp_path / "kept.zarr").load()) == {
        n: a for n, a in (OBJECTS | PARTS).items() if n != "chair"
    }


def test_files_that_are_all_broken_are_an_error_at_once(tmp_path):
    root = sets.pascal_part(tmp_path)
    for path in (root / "part/Annotations_Part").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DissectError, match=r"2008_000008\.mat: damaged"):
        part(root)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DissectError, match=r"Annotations_Part: expected a folder of MATLAB files, found none"):
        part(tmp_path)
    (tmp_path / "part/Annotations_Part").mkdir(parents=True)
    with pytest.raises(DissectError, match=r"expected MATLAB files \(\.mat\), found none"):
        part(tmp_path)
    with pytest.raises(
        DissectError, match=r"labels\.txt: expected the numbers and names of the classes, found no file"
    ):
        context(tmp_path)


# --- PASCAL-Context ---


def test_numbers_are_those_of_labels_txt_and_unknown_is_unlabelled(tmp_path):
    found = context(sets.pascal_context(tmp_path / "set"))
    assert len(found.concepts) == 458
    probe = probed(found, tmp_path)
    assert areas(probe) == {"road": 5, "sky": 12, "table": 4, "cloth": 6}
    assert int(probe["domain_area"][0]) == 32  # `unknown` is a pixel like any other
    assert probe["annotation"].values[0, 0, 0].tolist() == [355, 355, 360, 360]


def test_the_59_classes_are_read_by_names_of_which_three_are_spelt_otherwise(tmp_path):
    root = sets.pascal_context(tmp_path / "set")
    found = context(root, classes=root / "context/59_labels.txt")
    assert {c.number: c.name for c in found.concepts} == {
        2: "aeroplane", 27: "bedclothes", 105: "cloth", 360: "sky", 415: "table"
    }  # fmt: skip
    assert areas(probed(found, tmp_path)) == {"sky": 12, "table": 4, "cloth": 6}  # by its own numbers, sky would be 4


def test_a_class_that_labels_txt_does_not_have_is_refused(tmp_path):
    root = sets.pascal_context(tmp_path)
    sets.text(root / "context/59_labels.txt", "1: aeroplane\n2: sofabed\n")
    with pytest.raises(DissectError, match=r"59_labels\.txt: sofabed not in .*labels\.txt"):
        context(root, classes=root / "context/59_labels.txt")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1: a\n2 b\n", r"labels\.txt, line 2: expected a number, ':' and a name, got '2 b'"),
        ("1: a\n\n1: b\n", r"labels\.txt, line 3: number 1 is given twice"),
        ("x: a\n", r"labels\.txt, line 1: expected a number"),
    ],
)
def test_a_malformed_list_of_names_is_named(tmp_path, lines, message):
    root = sets.pascal_context(tmp_path)
    sets.text(root / "context/labels.txt", lines)
    with pytest.raises(DissectError, match=message):
        context(root)


def test_numbers_beyond_the_list_and_floats_are_refused(tmp_path):
    root = sets.pascal_context(tmp_path / "set")
    path = root / "context/trainval/2008_000015.mat"
    savemat(path, {"LabelMap": np.full((4, 4), 460, np.uint16)})
    with pytest.raises(DissectError, match=r"2008_000015\.mat: holds label 460, which is no concept"):
        probed(context(root), tmp_path)
    savemat(path, {"LabelMap": np.full((4, 4), 0.5)})
    with pytest.raises(DissectError, match=r"2008_000015\.mat: expected LabelMap as whole numbers"):
        probed(context(root), tmp_path)
    savemat(path, {"LabelMap": np.full((4, 4), 70_000, np.int32)})
    with pytest.raises(DissectError, match=r"2008_000015\.mat: expected numbers from 0 to 65535, got 70000 to 70000"):
        probed(context(root), tmp_path)
