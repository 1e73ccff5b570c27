"""The same two images in sets that count from 0 and from 1: the same concepts, and what is ignored is in no area."""

from pathlib import Path

import published_sets as sets
import pytest
from published_sets import AREAS, NO_LABEL, areas, probed

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.pixels import nearest
from dissect_xr.probe.readers.masks import MaskFormat, read_masks
from dissect_xr.probe.readers.pairs import Names
from dissect_xr.probe.readers.scenes.ade20k import read_ade20k
from dissect_xr.probe.readers.scenes.cityscapes import LABELS, read_cityscapes
from dissect_xr.probe.readers.scenes.colored import read_colored
from dissect_xr.probe.readers.scenes.vistas import read_vistas


def colored(root: Path, **options: object) -> LabelSet:
    return read_colored(
        image_folder=root / "701_StillsRaw_full",
        mask_folder=root / "LabeledApproved_full",
        colors_table=root / "label_colors.txt",
        names=Names(mask="{stem}_L.png"),
        **options,
    )


READ = {
    "ade20k": lambda root: read_ade20k(sets.ade20k(root), categories=["object"]),
    "labelIds": lambda root: read_cityscapes(sets.cityscapes(root)),
    "labelTrainIds": lambda root: read_cityscapes(sets.cityscapes(root), ids="labelTrainIds"),
    "vistas": lambda root: read_vistas(sets.vistas(root)),
    "colours": lambda root: colored(sets.camvid(root), void=["Void"]),
    "colours, unlabelled": lambda root: colored(sets.camvid(root), unlabelled=["Void"]),
}

IGNORED = {"labelIds", "labelTrainIds", "vistas", "colours"}
"""Those in which pixels of no class are ignored; in the others they are unlabelled."""


@pytest.mark.parametrize("kind", READ)
def test_sets_from_0_and_from_1_give_the_same_areas(tmp_path, kind):
    probe = probed(READ[kind](tmp_path / "set"), tmp_path)
    short = {name.split(",")[0].lower(): area for name, area in areas(probe).items()}
    assert short == AREAS
    assert probe["domain"].values.tolist() == ["object"]
    assert int(probe["domain_area"][0]) == 32 - (NO_LABEL if kind in IGNORED else 0)
    assert ("ignored" in probe) == (kind in IGNORED)
    if kind in IGNORED:
        assert int(probe["ignored"].sum()) == NO_LABEL
        assert not probe["annotation"].values[:, 0][probe["ignored"].values].any()


@pytest.mark.parametrize("kind", READ)
def test_splits_are_the_sets_own(tmp_path, kind):
    found = READ[kind](tmp_path)
    splits = {"ade20k": ["training", "validation"], "vistas": ["training", "validation"]}
    expected = ["all", "all"] if kind.startswith("colours") else splits.get(kind, ["train", "val"])
    assert [row.split for row in found.rows] == expected
    assert len(found.subset(split=expected[0], limit=1).rows) == 1


@pytest.mark.parametrize("kind", READ)
def test_any_label_grid_samples_the_maps_by_nearest_neighbour(tmp_path, kind):
    from dataclasses import replace

    found = READ[kind](tmp_path / "set")
    whole = probed(found, tmp_path)["annotation"].values
    small = tmp_path / "small"
    small.mkdir()
    sampled = probed(replace(found, label_size=(2, 3)), small)["annotation"].values
    assert sampled.tolist() == [[nearest(plane, (2, 3)).tolist() for plane in image] for image in whole]


def test_the_same_label_maps_as_plain_masks_shift_every_class_of_a_set_from_0(tmp_path):
    """What one gets who takes training ids for numbers of concepts: road is nothing, and 255 a concept of its own."""
    root = sets.cityscapes(tmp_path / "set")
    (tmp_path / "concepts.yaml").write_text("10: sky\n13: car\n255: border")
    names = {"image_name": "{stem}_leftImg8bit.png", "mask_name": "{stem}_gtFine_labelTrainIds.png"}
    given = {"images": root / "leftImg8bit", "masks": root / "gtFine", "concepts": tmp_path / "concepts.yaml"}
    naive = probed(read_masks(**given, format=MaskFormat(**names)), tmp_path)
    assert areas(naive) == {"sky": 12, "car": 4, "border": NO_LABEL + 16}  # and the 16 of the test image
    assert int(naive["domain_area"][0]) == 48


# --- Cityscapes ---


def test_concepts_of_cityscapes_have_the_label_ids_whichever_files_are_read(tmp_path):
    root = sets.cityscapes(tmp_path)
    ids, trained = read_cityscapes(root), read_cityscapes(root, ids="labelTrainIds")
    assert ids.concepts == trained.concepts
    assert len(ids.concepts) == 19
    assert {c.number: c.name for c in ids.concepts}[7] == "road"


def test_classes_that_evaluation_ignores_are_concepts_if_asked_for(tmp_path):
    found = read_cityscapes(sets.cityscapes(tmp_path / "set"), evaluated_only=False)
    probe = probed(found, tmp_path)
    assert areas(probe) == AREAS | {"parking": 2}
    assert int(probe["ignored"].sum()) == 3  # the hood
    assert len(found.concepts) == 27
    with pytest.raises(DissectError, match="evaluated_only: false needs `ids: labelIds`"):
        read_cityscapes(tmp_path / "set", ids="labelTrainIds", evaluated_only=False)


def test_the_test_images_of_cityscapes_are_left_out_and_that_is_said(tmp_path):
    found = read_cityscapes(sets.cityscapes(tmp_path))
    assert not [row for row in found.rows if "berlin" in row.image]
    assert found.notes == (f"{tmp_path / 'leftImg8bit' / 'test'}: left out, it has no labels.",)


def test_the_labels_of_cityscapes_are_34_with_19_that_are_evaluated():
    assert [one.id for one in LABELS] == [*range(34)]
    assert sorted(one.train_id for one in LABELS if one.train_id != 255) == [*range(19)]
    assert sum(one.train_id == 255 for one in LABELS if one.id > 6) == 8


def test_files_of_other_ids_are_refused(tmp_path):
    root = sets.cityscapes(tmp_path / "set")
    labels = root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    labels.write_bytes((root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png").read_bytes())
    with pytest.raises(DissectError, match=r"labelIds\.png: holds 255, which is none of the labelIds"):
        probed(read_cityscapes(root, label_size=(4, 4)), tmp_path)


@pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine"])
def test_a_missing_folder_of_cityscapes_is_named(tmp_path, missing):
    sets.cityscapes(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(DissectError, match=rf"{missing}: expected a folder of Cityscapes, found none"):
        read_cityscapes(tmp_path)


def test_an_image_without_its_label_map_is_named(tmp_path):
    root = sets.cityscapes(tmp_path)
    (root / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DissectError, match=r"lindau_000000_000019_gtFine_labelIds\.png: the mask of lindau/"):
        read_cityscapes(root)


# --- Mapillary Vistas ---


def test_vistas_are_numbered_from_1_and_the_last_class_is_none(tmp_path):
    found = read_vistas(sets.vistas(tmp_path))
    assert {c.number: c.name for c in found.concepts} == {
        1: "Road", 2: "Bird", 3: "Sky", 4: "Car", 5: "Ego Vehicle"
    }  # fmt: skip
    assert found.void == {6}
    assert not [row for row in found.rows if "testing" in row.image]


def test_both_versions_in_one_folder_have_to_be_told_apart(tmp_path):
    root = sets.vistas(tmp_path / "set")
    (root / "config.json").rename(root / "config_v1.2.json")
    sets.vistas_config(root / "config_v2.0.json", ("Bird", "Sky", "Bird", "Barrier", "Unlabeled"), ["Barrier"])
    for split in ("training", "validation"):
        (root / split / "v1.2").mkdir()
        (root / split / "labels").rename(root / split / "v1.2" / "labels")
        sets.save(root / split / "v2.0/labels/a1B2.png", sets.numbered(sets.FIRST, [4, 0, 1, 3]))
    with pytest.raises(DissectError, match=r"holds the labels of v1\.2 \(66 classes\) and of v2\.0 \(124\)"):
        read_vistas(root)
    assert {name.lower(): n for name, n in areas(probed(read_vistas(root, version="v1.2"), tmp_path)).items()} == AREAS
    newer = tmp_path / "newer"
    newer.mkdir()
    # Two classes are readable as `Bird`: both have their full names. `Barrier` is not evaluated, and ignored.
    probe = probed(read_vistas(root, version="v2.0"), newer)
    assert areas(probe, all=True) == {"object--0--bird": 10, "Sky": 8, "object--2--bird": 0}
    assert int(probe["ignored"].sum()) == 2 * (4 + 3)
    kept = read_vistas(root, version="v2.0", evaluated_only=False)
    assert [c.name for c in kept.concepts] == ["object--0--bird", "Sky", "object--2--bird", "Barrier"]
    (root / "config_v2.0.json").unlink()
    with pytest.raises(DissectError, match=r"version v2\.0: expected one of v1\.2"):
        read_vistas(root, version="v2.0")


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": [{"name": "a", "readable": "b"}]}', '{"labels": 3}'])
def test_a_malformed_configuration_is_named(tmp_path, content):
    root = sets.vistas(tmp_path)
    (root / "config.json").write_text(content)
    with pytest.raises(DissectError, match=r"config\.json: expected \{'labels'.*Replace the file"):
        read_vistas(root)


def test_a_folder_that_is_no_vistas_is_refused(tmp_path):
    with pytest.raises(DissectError, match=r"expected Mapillary Vistas with config\.json"):
        read_vistas(tmp_path)
    sets.vistas_config(tmp_path / "config.json", sets.VISTAS)
    with pytest.raises(DissectError, match="expected the folders training/ and validation/"):
        read_vistas(tmp_path)


def test_an_index_beyond_the_configuration_is_refused(tmp_path):
    root = sets.vistas(tmp_path / "set")
    sets.save(root / "training/labels/a1B2.png", sets.numbered(sets.FIRST, [5, 0, 2, 6]))
    with pytest.raises(DissectError, match=r"a1B2\.png: holds label 6, which is no concept"):
        write_probe(read_vistas(root), tmp_path / "probe.zarr", show=False, pool=Threads(1))
