"""Tags of whole images: each covers every pixel of its image, and images without one are annotated for nothing."""

import published_sets as sets
import pytest
from published_sets import areas, probed

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.tags import read_dtd, read_image_folders, read_tags

PIXELS = 112 * 112


def table(root, **options):
    return read_tags(image_folder=root / "photos", table=root / "tags.csv", **options)


def test_a_tag_covers_its_images(tmp_path):
    probe = probed(table(sets.tags(tmp_path / "set")), tmp_path)
    assert {name: area // PIXELS for name, area in areas(probe).items()} == {"dog": 2, "indoor": 1, "outdoor": 1}
    assert probe["image"].values.tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert probe["split"].values.tolist() == ["train", "train", "val"]
    assert probe["annotated"].values.tolist() == [[True, True], [True, True], [False, False]]
    assert probe["domain_area"].values.tolist() == [2 * PIXELS, 2 * PIXELS]
    assert not probe["annotation"].values.any()


def test_concepts_are_in_the_order_of_categories_and_names(tmp_path):
    found = table(sets.tags(tmp_path))
    assert [(c.number, c.category, c.name) for c in found.concepts] == [
        (1, "animal", "dog"), (2, "place", "indoor"), (3, "place", "outdoor")
    ]  # fmt: skip
    assert [row.whole for row in found.rows] == [(1, 2), (1, 3), ()]


def test_a_category_may_be_kept_and_the_grid_chosen(tmp_path):
    found = table(sets.tags(tmp_path / "set"), categories=["place"], label_size=(2, 3))
    assert areas(probed(found, tmp_path)) == {"indoor": 6, "outdoor": 6}


def test_two_columns_are_enough_and_a_tag_twice_is_one(tmp_path):
    root = sets.tags(tmp_path)
    (root / "tags.csv").write_text("image;tag\na.jpg;dog\na.jpg;dog\nb.jpg;a, b\n")
    found = table(root)
    assert [(c.category, c.name) for c in found.concepts] == [("tag", "a, b"), ("tag", "dog")]
    assert [(row.split, row.whole) for row in found.rows] == [("all", (2,)), ("all", (1,))]


def test_backslashes_are_slashes(tmp_path):
    sets.photo(tmp_path / "photos" / "sub" / "a.jpg")
    sets.text(tmp_path / "tags.csv", "image,tag\nsub\\a.jpg,dog\nsub/a.jpg,cat\n")
    assert [row.image for row in table(tmp_path).rows] == ["sub/a.jpg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,label\na.jpg,dog\n", r"line 1: columns tag are missing"),
        (
            "image,tag,split\na.jpg,dog,train\na.jpg,cat,val\n",
            r"line 3: image 'a\.jpg' is in the split 'val', and in 'train'",
        ),
        ("image,tag\na.jpg,\n", r"tags\.csv: expected images with tags, found none"),
    ],
)
def test_malformed_tables_are_named(tmp_path, content, message):
    root = sets.tags(tmp_path)
    (root / "tags.csv").write_text(content)
    with pytest.raises(DissectError, match=message):
        table(root)


def test_an_image_that_is_not_there_is_named_when_the_probe_is_written(tmp_path):
    root = sets.tags(tmp_path / "set")
    (root / "tags.csv").write_text("image,tag\na.jpg,dog\nd.jpg,dog\n")
    with pytest.raises(DissectError, match=r"d\.jpg: expected an image, found no file"):
        probed(table(root), tmp_path)
    with pytest.raises(DissectError, match=r"nowhere: expected a folder of images, found none"):
        read_tags(image_folder=tmp_path / "nowhere", table=root / "tags.csv")


# --- folders ---


def test_folders_are_tags_at_any_depth(tmp_path):
    found = read_image_folders(image_folder=sets.image_folders(tmp_path / "set"), category="animal")
    assert [(row.image, row.whole) for row in found.rows] == [
        ("cat/1.jpg", (1,)), ("cat/more/2.jpg", (1,)), ("dog/3.jpg", (2,))
    ]  # fmt: skip
    assert areas(probed(found, tmp_path)) == {"cat": 2 * PIXELS, "dog": PIXELS}


def test_folders_that_may_be_splits_have_to_be_explained(tmp_path):
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg"):
        sets.photo(tmp_path / name)
    with pytest.raises(
        DissectError, match=r"train: is it a split, .* or a tag\? Give `splits: true` or `splits: false`"
    ):
        read_image_folders(image_folder=tmp_path)
    splits = read_image_folders(image_folder=tmp_path, splits=True)
    assert [(row.split, row.whole) for row in splits.rows] == [("train", (1,)), ("train", (2,)), ("val", (1,))]
    tags = read_image_folders(image_folder=tmp_path, splits=False)
    assert [c.name for c in tags.concepts] == ["train", "val"]


def test_images_outside_of_the_folders_of_tags_are_refused(tmp_path):
    sets.photo(tmp_path / "loose.jpg")
    with pytest.raises(DissectError, match=r"loose\.jpg: expected images as <tag>/<image>"):
        read_image_folders(image_folder=tmp_path)
    (tmp_path / "loose.jpg").rename(tmp_path / "loose.txt")
    sets.photo(tmp_path / "a" / "loose.jpg")
    with pytest.raises(DissectError, match=r"loose\.jpg: expected images as <split>/<tag>/<image>"):
        read_image_folders(image_folder=tmp_path, splits=True)
    assert read_image_folders(image_folder=tmp_path).notes == (f"{tmp_path}: 1 files are not read as images.",)


# --- DTD ---


def test_all_textures_of_an_image_count(tmp_path):
    probe = probed(read_dtd(sets.dtd(tmp_path / "set")), tmp_path)
    assert {name: area // PIXELS for name, area in areas(probe).items()} == {"banded": 3, "striped": 2, "woven": 1}
    assert probe["split"].values.tolist() == ["train", "train", "val", "test"]
    assert set(probe["concept_category"].values.tolist()) == {"texture"}


def test_another_partition_has_other_splits(tmp_path):
    found = read_dtd(sets.dtd(tmp_path), partition=2)
    assert {row.image: row.split for row in found.rows}["woven/woven_0001.jpg"] == "train"
    assert found.parameters["partition"] == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "val1.txt",
            "banded/banded_0002.jpg\n",
            r"val1\.txt, line 1: image 'banded/banded_0002\.jpg' is listed already",
        ),
        ("labels_joint_anno.txt", "banded/banded_0002.jpg banded \n", r"says nothing of banded/banded_0006\.jpg"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, file, content, message):
    root = sets.dtd(tmp_path)
    (root / "labels" / file).write_text(content)
    with pytest.raises(DissectError, match=message):
        read_dtd(root)


def test_a_partition_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DissectError, match=r"train3\.txt: expected partition 3 of DTD, found no file"):
        read_dtd(sets.dtd(tmp_path), partition=3)
