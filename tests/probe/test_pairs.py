"""Which files of a folder are images, and which mask belongs to each; what is passed over is said."""

import os
import unicodedata
from pathlib import Path
from unittest.mock import patch

import pytest

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.pairs import Names, paired


def touch(folder: Path, *names: str) -> Path:
    """The folder with empty files of these names: nothing of them is read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(exist_ok=True)
    return folder


def pairs(folder: Path, images: list[str], masks: list[str], names: Names | None = None):
    """What is found among these files."""
    return paired(touch(folder / "images", *images), touch(folder / "masks", *masks), names or Names())


def test_a_mask_has_the_name_of_its_image(tmp_path):
    found, notes = pairs(tmp_path, ["b.jpg", "a/c.1.png", "a/b.tif"], ["a/b.png", "a/c.1.png", "b.png", "more.png"])
    assert found == [("a/b.tif", "a/b.png"), ("a/c.1.png", "a/c.1.png"), ("b.jpg", "b.png")]
    assert notes == ()


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jp2", "JPG", "Jpeg", "WEBP", "tiff", "bmp", "avif", "pgm", "tga"])
def test_every_suffix_of_an_image_is_one(tmp_path, suffix):
    assert pairs(tmp_path, [f"a.{suffix}"], ["a.png"])[0] == [(f"a.{suffix}", "a.png")]


@pytest.mark.parametrize("suffix", ["png", "PNG", "Png"])
def test_the_case_of_a_masks_suffix_does_not_matter(tmp_path, suffix):
    assert pairs(tmp_path, ["a.jpg"], [f"a.{suffix}"])[0] == [("a.jpg", f"a.{suffix}")]


def test_one_of_two_cases_is_the_one_that_is_looked_for(tmp_path):
    assert pairs(tmp_path, ["a.jpg"], ["a.png", "a.PNG"])[0] == [("a.jpg", "a.png")]
    with pytest.raises(DissectError, match=r"the mask of b\.jpg may be b\.PNG or b\.Png\. Remove the wrong one"):
        pairs(tmp_path, ["b.jpg"], ["b.PNG", "b.Png"])


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    litter = ["._a.jpg", ".hidden.png", "__MACOSX/a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "x/.git/a.png",
              "Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/old.jpg",
              "@Recycle/old.jpg", "$RECYCLE.BIN/b.jpg", "System Volume Information/c.jpg"]  # fmt: skip
    assert pairs(tmp_path, ["a.jpg", *litter], ["a.png", "._a.png"]) == ([("a.jpg", "a.png")], ())


def test_files_of_other_suffixes_are_counted_and_named(tmp_path):
    others = ["notes.txt", "b.psd", "x/c.psd", "d.PSD", "e.psd", "README"]
    _, (note,) = pairs(tmp_path, ["a.jpg", *others], ["a.png"])
    assert note == (
        f"{tmp_path / 'images'}: 6 files are not read as images: 4 .psd (b.psd, d.PSD, e.psd, ...); "
        "1 .txt (notes.txt); 1 without a suffix (README)."
    )


# --- patterns ---


def test_names_as_those_of_cityscapes(tmp_path):
    names = Names("{stem}_leftImg8bit.png", "{stem}_gtFine_labelIds.png")
    images = ["aachen/aachen_0_leftImg8bit.png", "ulm/ulm_1_leftImg8bit.png"]
    kinds = ("color.png", "labelIds.png", "instanceIds.png", "polygons.json")
    masks = [f"{place}_gtFine_{kind}" for place in ("aachen/aachen_0", "ulm/ulm_1") for kind in kinds]
    found, notes = pairs(tmp_path, [*images, "ulm/extra.png"], masks, names)
    assert found == [(images[0], masks[1]), (images[1], masks[5])]
    assert notes == (f"{tmp_path / 'images'}: 1 files are not read as images: 1 .png (ulm/extra.png).",)


@pytest.mark.parametrize(
    ("pattern", "name", "stem"),
    [
        ("{stem}", "a.b.JPG", "a.b"),
        ("{stem}", "a.txt", None),
        ("{stem}.jpg", "a.JPG", "a"),
        ("{stem}.jpg", "a.png", None),
        ("{stem}_x", "a_x.png", "a"),
        ("{stem}_x", "a_X.png", None),
        ("im_{stem}", "im_7.gif", "7"),
        ("im_{stem}", "im_.gif", None),
        ("a+{stem}(1).png", "a+b(1).png", "b"),
    ],
)
def test_what_stands_for_the_stem(pattern, name, stem):
    assert Names(image=pattern).stem(name) == stem


@pytest.mark.parametrize(
    "pattern", ["", "mask.png", "{stem}{stem}.png", "m/{stem}.png", "m\\{stem}.png", "{name}{stem}"]
)
def test_other_patterns_are_refused(pattern):
    with pytest.raises(DissectError, match=r"image_name '.*': expected the name of a file with \{stem\} in it once"):
        Names(image=pattern)
    with pytest.raises(DissectError, match=r"mask_name '.*': expected the name of a file with \{stem\} in it once"):
        Names(mask=pattern)


# --- what is missing ---


def test_a_missing_mask_is_named_as_it_was_looked_for(tmp_path):
    with pytest.raises(DissectError) as error:
        pairs(tmp_path, ["x/a.jpg", "x/b.jpg", "x/c.jpg"], ["x/a.png", "x/b_mask.png", "x/bc.png", "b.png"])
    said = str(error.value)
    assert f"{tmp_path / 'masks/x/b.png'}: the mask of x/b.jpg is missing, 2 of 3 in all" in said
    assert "There is b_mask.png, bc.png: if that is it, say how masks are called" in said
    assert "`mask_name: '{stem}.png'`" in said


def test_a_mask_folder_that_is_not_there(tmp_path):
    with pytest.raises(DissectError, match=r"masks/a\.png: the mask of a\.jpg is missing, 1 of 1"):
        paired(touch(tmp_path / "images", "a.jpg"), tmp_path / "masks", Names())


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DissectError, match=r"images: holds no image called like '\{stem\}\.gif'"):
        pairs(tmp_path, ["a.jpg"], ["a.png"], Names(image="{stem}.gif"))


# --- masks among the images ---


def test_masks_beside_their_images_are_no_images(tmp_path):
    folder = touch(tmp_path, "a.jpg", "a.png", "b.jpg", "b.PNG", "notes.txt")
    found, (note,) = paired(folder, folder, Names())
    assert found == [("a.jpg", "a.png"), ("b.jpg", "b.PNG")]
    assert "1 .txt (notes.txt)" in note
    folder = touch(tmp_path / "ade", "x_1.jpg", "x_1_seg.png", "x_2.jpg", "x_2_seg.png")
    assert paired(folder, folder, Names(mask="{stem}_seg.png"))[0] == [
        ("x_1.jpg", "x_1_seg.png"),
        ("x_2.jpg", "x_2_seg.png"),
    ]


def test_masks_in_a_folder_below_the_images_are_no_images(tmp_path):
    touch(tmp_path, "a.jpg", "masks/a.png", "masks/unused.png")
    assert paired(tmp_path, tmp_path / "masks", Names()) == ([("a.jpg", "masks/a.png".removeprefix("masks/"))], ())


def test_an_image_is_not_its_own_mask(tmp_path):
    folder = touch(tmp_path, "a.png")
    with pytest.raises(DissectError, match=r"a\.png: would be its own mask"):
        paired(folder, folder, Names())


def test_two_images_of_one_mask_are_refused(tmp_path):
    with pytest.raises(DissectError, match=r"masks/a\.png: is the mask of a\.jpg and of a\.webp.*'\{stem\}\.jpg'"):
        pairs(tmp_path, ["a.webp", "a.jpg"], ["a.png"])
    assert pairs(tmp_path, [], [], Names(image="{stem}.jpg"))[0] == [("a.jpg", "a.png")]


# --- names in Unicode ---

COMPOSED = unicodedata.normalize("NFC", "é/straße_ö")
APART = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(("image", "mask"), [(COMPOSED, APART), (APART, COMPOSED), (APART, APART)])
def test_names_that_look_alike_are_one(tmp_path, image, mask):
    found, _ = pairs(tmp_path, [f"{image}.jpg"], [f"{mask}.png"])
    assert found == [(f"{image}.jpg", f"{mask}.png")]
    names = Names(image=f"{{stem}}_{APART[-2:]}", mask=f"{{stem}}_{COMPOSED[-1:]}.png")
    assert pairs(tmp_path, [], [], names)[0] == found


# --- links ---


@pytest.fixture
def linked(tmp_path):
    """A folder of images in which `train` is a link to a folder elsewhere, as are the masks."""
    touch(tmp_path / "elsewhere", "images/a.jpg", "masks/a.png")
    for kind in ("images", "masks"):
        touch(tmp_path / kind, f"val/b.{'jpg' if kind == 'images' else 'png'}")
        (tmp_path / kind / "train").symlink_to(tmp_path / "elsewhere" / kind)
    return tmp_path


def test_links_to_folders_are_followed_where_that_is_allowed(linked):
    found, _ = paired(linked / "images", linked / "masks", Names(follow_links=True))
    assert found == [("train/a.jpg", "train/a.png"), ("val/b.jpg", "val/b.png")]


def test_links_to_folders_are_not_left_out_without_a_word(linked):
    with pytest.raises(DissectError, match=r"images/train: is a link to a folder.*`follow_links: true`"):
        paired(linked / "images", linked / "masks", Names())


def test_a_link_to_a_folder_inside_shows_nothing_twice(tmp_path):
    touch(tmp_path / "images", "x/a.jpg")
    touch(tmp_path / "masks", "x/a.png")
    (tmp_path / "images/latest").symlink_to("x")
    (tmp_path / "images/x/up").symlink_to(tmp_path / "images")
    for follow in (False, True):
        assert paired(tmp_path / "images", tmp_path / "masks", Names(follow_links=follow))[0] == [
            ("x/a.jpg", "x/a.png")
        ]


def test_a_loop_of_links_outside_ends(linked):
    (linked / "elsewhere/images/back").symlink_to(linked / "elsewhere")
    found, _ = paired(linked / "images", linked / "masks", Names(follow_links=True, image="{stem}.jpg"))
    assert found == [("train/a.jpg", "train/a.png"), ("val/b.jpg", "val/b.png")]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path):
    touch(tmp_path / "images", "a.jpg", "x/b.jpg")
    scandir = os.scandir

    def refuses(path):
        if str(path).endswith("x"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with (
        patch.object(os, "scandir", refuses),
        pytest.raises(DissectError, match=r"images/x: cannot list the folder: Perm"),
    ):
        pairs(tmp_path, [], ["a.png"])


def test_one_folder_is_one_however_it_is_written(tmp_path):
    folder = touch(tmp_path / "both", "a.jpg", "a.png")
    assert paired(folder, tmp_path / "both/../both", Names())[0] == [("a.jpg", "a.png")]
    (tmp_path / "link").symlink_to(folder)
    assert paired(folder, tmp_path / "link", Names())[0] == [("a.jpg", "a.png")]
