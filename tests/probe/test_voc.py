"""VOC: the border is ignored and no concept; lists say which images are read."""

from pathlib import Path

import numpy as np
import published_sets as sets
import pytest
import stores
from published_sets import areas, probed

from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.readers.scenes.voc import CLASSES, read_voc


def test_objects_have_their_areas_and_the_border_has_none(tmp_path):
    found = read_voc(sets.voc(tmp_path / "set"))
    assert [(row.image, row.split) for row in found.rows] == [("2007_000032.jpg", "train"), ("2007_000033.jpg", "val")]
    assert len(found.concepts) == 20
    probe = probed(found, tmp_path)
    assert areas(probe) == {"car": 1 + 2, "person": 4}
    assert probe["ignored"].values.sum(axis=(1, 2)).tolist() == [8, 6]
    assert probe["domain_area"].values.tolist() == [32 - 14]


def as_masks(root: Path, folder: Path) -> LabelSet:
    """What a person gets who takes 255 for a class like any other."""
    (root / "JPEGImages" / "2011_003276.jpg").unlink()
    table = "\n".join(f"{n}: {name}" for n, name in enumerate([*CLASSES], 1)) + "\n255: border\n"
    (folder / "concepts.yaml").write_text(table)
    return read_masks(images=root / "JPEGImages", masks=root / "SegmentationClass", concepts=folder / "concepts.yaml")


def counted(found: LabelSet, home: Path) -> dict[str, object]:
    """IoU of a unit that fires on the border of the first image, and nowhere else, with every concept that occurs."""
    home.mkdir()
    probe = probed(found, home)
    border = np.array([[0, 255, 255, 255], [0, 255, 7, 255], [0, 255, 255, 255], [0, 0, 0, 0]]) == 255
    maps = np.stack([border, np.zeros((4, 4))]).astype(np.float32)[:, None]
    activations = stores.write_layers(home, str(home / "probe.zarr"), {"conv": maps})
    dissect(activations, home / "probe.zarr", home / "out.zarr", method=stores.method([0.25]), show=False)
    ds = open_dissection(home / "out.zarr").isel(snapshot=0, fraction=0, unit=0).load()
    seen = dict(zip(ds["concept_name"].values.tolist(), ds["iou"].values.tolist(), strict=True))
    return {name: seen[name] for name in areas(probe)} | {"unit_area": ds["unit_area"].values.tolist()}


def test_the_border_would_have_been_the_best_concept_of_a_unit(tmp_path):
    """All 8 active pixels are border pixels: with 255 as a class the unit is a perfect detector, for nothing."""
    root = sets.voc(tmp_path / "set")
    right = counted(read_voc(root), tmp_path / "right")
    assert right == {"car": 0.0, "person": 0.0, "unit_area": [0]}
    naive = counted(as_masks(root, tmp_path), tmp_path / "naive")
    assert naive == {"car": 0.0, "person": 0.0, "border": 8 / 14, "unit_area": [8]}


def test_instances_are_not_classes(tmp_path):
    found = read_voc(sets.voc(tmp_path / "set"), masks="SegmentationObject")
    assert areas(probed(found, tmp_path)) == {"aeroplane": 1 + 6}  # object 1 of each image: whoever asks for it gets it


def test_grey_masks_in_another_folder_are_read(tmp_path):
    root = sets.voc(tmp_path / "set")
    for name in ("2007_000032", "2007_000033"):
        sets.save(root / "SegmentationClassAug" / f"{name}.png", np.array([[0, 3], [255, 3]]))
    probe = probed(read_voc(root, masks="SegmentationClassAug"), tmp_path)
    assert areas(probe) == {"bird": 4}
    assert int(probe["ignored"].sum()) == 2


def test_colours_instead_of_a_palette_are_refused(tmp_path):
    root = sets.voc(tmp_path / "set")
    from PIL import Image

    path = root / "SegmentationClass" / "2007_000032.png"
    with Image.open(path) as image:
        colored = image.convert("RGB")
    colored.save(path)
    with pytest.raises(
        DissectError, match=r"2007_000032\.png: expected a single-channel integer mask, got Pillow mode RGB"
    ):
        probed(read_voc(root), tmp_path)


def test_only_the_lists_that_are_asked_for_are_read(tmp_path):
    root = sets.voc(tmp_path)
    assert [row.split for row in read_voc(root, splits=["val"]).rows] == ["val"]
    with pytest.raises(
        DissectError, match=r"trainval\.txt, line 1: image '2007_000032' is listed already, .*train\.txt"
    ):
        read_voc(root, splits=["train", "trainval"])
    with pytest.raises(DissectError, match=r"expected lists of images, test\.txt, found none"):
        read_voc(root, splits=["test"])


@pytest.mark.parametrize("missing", ["JPEGImages", "SegmentationClass"])
def test_a_missing_folder_is_named(tmp_path, missing):
    root = sets.voc(tmp_path)
    (root / missing).rename(root / "other")
    with pytest.raises(DissectError, match=rf"expected a folder such as VOCdevkit/VOC2012, found no {missing}/"):
        read_voc(root)


def test_a_listed_image_without_a_label_map_is_named_when_the_probe_is_written(tmp_path):
    root = sets.voc(tmp_path / "set")
    sets.text(root / "ImageSets/Segmentation/val.txt", "2007_000033\n2011_003276\n")
    with pytest.raises(DissectError, match=r"2011_003276\.png: expected an image, found no file"):
        probed(read_voc(root), tmp_path)
    assert not (tmp_path / "markers/probe.zarr/done.json").exists()
