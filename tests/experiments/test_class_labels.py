"""Classes of images: from a table and from a probe's whole-image labels, and every way in which they can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import stores
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments.class_labels import category_classes, class_table, outputs_of

IMAGES = stores.image_names(5)


def probe_of(whole: list[list[int]], folder: Path) -> str:
    """A probe of five images with these whole-image labels: 7 and 9 are scenes, 3 is a texture."""
    case = ProbeCase(
        np.zeros((5, 1, 2, 2), np.uint16),
        np.array(whole, np.uint16),
        np.array([3, 7, 9], np.uint16),
        np.array([1, 0, 0]),
        ("scene", "texture"),
    )
    return stores.write_probe_case(case, folder)


@pytest.fixture
def probe(tmp_path: Path) -> str:
    return probe_of([[9, 3], [0, 0], [7, 0], [3, 9], [0, 3]], tmp_path)


def table(folder: Path, *rows: str, header: str = "image,class") -> Path:
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "labels.csv"


def test_a_category_gives_the_images_that_have_one_of_its_labels(probe: str) -> None:
    found = category_classes(probe, "scene")
    assert found.images == (IMAGES[0], IMAGES[2], IMAGES[3])
    assert [found.classes[n] for n in found.label] == ["c9", "c7", "c9"]
    assert found.classes == ("c7", "c9")
    assert found.position is not None
    assert found.position.tolist() == [0, 2, 3]
    assert found.split == ("train",) * 3
    assert not found.outputs
    assert found.counts.tolist() == [1, 2]


def test_outputs_give_the_order_and_may_hold_more_classes(probe: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("c9\nc1\nc7\n")
    found = category_classes(probe, "scene", outputs=str(tmp_path / "names.txt"))
    assert found.classes == ("c9", "c1", "c7")
    assert found.label.tolist() == [0, 2, 0]
    assert found.outputs


def test_a_table_names_images_of_a_probe_in_any_order(probe: str, tmp_path: Path) -> None:
    found = class_table(table(tmp_path, f"{IMAGES[3]},cat", f"{IMAGES[1]},ant"), probe=probe)
    assert found.classes == ("ant", "cat")
    assert found.label.tolist() == [1, 0]
    assert found.position is not None
    assert found.position.tolist() == [3, 1]
    assert found.split == ("train", "train")
    assert found.images_sha256 == store.read_attrs(probe)["images_sha256"]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = ("a.png,10,train", "b.png,9,val", "c.png,10,val")
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    found = class_table(table(tmp_path, *rows, header="image,class,split"), folder=tmp_path)
    assert found.classes == ("9", "10")
    assert found.of("val").images == ("b.png", "c.png")
    assert found.of("val").label.tolist() == [0, 1]
    assert class_table(tmp_path / "labels.csv", folder=tmp_path, outputs=11).label.tolist() == [10, 9, 10]
    (tmp_path / "b.png").write_bytes(b"B")
    again = class_table(tmp_path / "labels.csv", folder=tmp_path)
    assert again.parameters["images_sha256"] != found.parameters["images_sha256"], "another image"
    assert again.parameters["labels_sha256"] == found.parameters["labels_sha256"]
    (tmp_path / "b.png").unlink()
    with pytest.raises(DissectError, match=r"labels.csv, line 3, column 'image': .*b.png"):
        class_table(tmp_path / "labels.csv", folder=tmp_path)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ["{0},cat", "nowhere.png,cat"],
            "image,class",
            r"line 3, column 'image': 'nowhere.png' is no image",
        ),
        (["{0},cat", "{1},"], "image,class", r"line 3, column 'class': expected the name of a class"),
        (["{0},cat", "{1},cat", "{0},dog"], "image,class", r"line 4: image '.*' is labelled more than once"),
        (["{0},cat,train", "{1},dog,"], "image,class,split", r"line 3: image '.*' is in no split"),
        (["{0}"], "image", "columns class are missing"),
        ([], "image,class", "expected a row for each labelled image, found none"),
    ],
)
def test_a_wrong_row_is_named(rows: list[str], header: str, message: str, probe: str, tmp_path: Path) -> None:
    path = table(tmp_path, *(row.format(*IMAGES) for row in rows), header=header)
    with pytest.raises(DissectError, match=message):
        class_table(path, probe=probe)


def test_a_folder_of_images_needs_splits(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"line 2: image 'a.png' is in no split. Give the table a column `split`"):
        class_table(table(tmp_path, "a.png,cat"), folder=tmp_path)
    with pytest.raises(DissectError, match="either a probe or a folder"):
        class_table(tmp_path / "labels.csv")


def test_a_class_that_is_no_output_is_named(probe: str, tmp_path: Path) -> None:
    path = table(tmp_path, f"{IMAGES[0]},cat", f"{IMAGES[1]},cow")
    with pytest.raises(DissectError, match="line 3: class 'cow' is none of the network's 2 outputs"):
        class_table(path, probe=probe, outputs=["dog", "cat"])
    with pytest.raises(DissectError, match="category scene: class 'c9' is none of the network's 2 outputs"):
        category_classes(probe, "scene", outputs=["c7", "c8"])


def test_an_image_of_two_classes_is_named(tmp_path: Path) -> None:
    probe = probe_of([[9, 3], [7, 9], [7, 7], [9, 7], [0, 0]], tmp_path)
    with pytest.raises(
        DissectError, match=rf"image '{IMAGES[1]}' has several labels .*\(c7, c9\), and so have 1 other"
    ):
        category_classes(probe, "scene")


def test_a_category_without_labels_of_whole_images_is_refused(tmp_path: Path) -> None:
    probe = probe_of([[3, 0]] * 5, tmp_path)
    with pytest.raises(DissectError, match="no image has a whole-image label of the category scene"):
        category_classes(probe, "scene")
    with pytest.raises(DissectError, match="no category 'stuff'; there are scene, texture"):
        category_classes(probe, "stuff")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["a", "a"], "got one twice"),
        (["a", ""], "got an empty one"),
        (1, "at least two names of classes, each once, got 1"),
        ("missing.txt", "missing.txt cannot be read"),
    ],
)
def test_wrong_outputs_are_refused(outputs: object, message: str) -> None:
    with pytest.raises(DissectError, match=message):
        outputs_of(outputs)  # type: ignore[arg-type]
