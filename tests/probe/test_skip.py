"""Images are left out with a word about each reason; a fault that most images share is an error, and no image's own."""

from pathlib import Path

import numpy as np
import pytest
import stores
from PIL import Image

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.skip import without_bad_images


def images_with(folder: Path, *numbers: int, size: tuple[int, int] = (4, 6)):
    """A label set of one image for each number, which its mask holds beside 1; only 1 is a concept."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for n, number in enumerate(numbers):
        mask = np.ones(size, np.uint8)
        mask[0, 0] = number
        Image.fromarray(mask).save(folder / f"masks/{n}.png")
        Image.new("RGB", size[::-1], (n, 0, 0)).save(folder / f"images/{n}.png")
    (folder / "concepts.yaml").write_text("1: road\n")
    return label_set(folder)


def label_set(folder: Path, ignore: tuple[int, ...] = ()):
    return read_masks(
        images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml", ignore=ignore
    )


def kept(found, folder: Path):
    return without_bad_images(found, str(folder / "probe.zarr"), pool=Threads(1), show=False)


def test_a_fault_of_most_label_maps_is_an_error_that_says_what_mends_it(tmp_path):
    found = images_with(tmp_path, 255, 255, 255, 1, 255, 255, 1, 255)
    with pytest.raises(
        DissectError, match=r"6 of 8 images have one fault: label map.*no concepts: 255 in 6\."
    ) as error:
        kept(found, tmp_path)
    assert "`ignore: [255]` mends all of them" in str(error.value)
    assert "0.png: holds label 255" in str(error.value)
    mended = kept(label_set(tmp_path, (255,)), tmp_path)  # the same command, with the recipe mended
    assert len(mended.rows) == 8
    assert mended.notes == ()


def test_several_numbers_are_one_fault(tmp_path):
    found = images_with(tmp_path, 255, 254, 1, 255, 0, 253, 252)
    with pytest.raises(
        DissectError, match=r"5 of 7 images.*255 in 2, 252 in 1, 253 in 1, 254 in 1.*`ignore: \[252, 253"
    ):
        kept(found, tmp_path)


def test_half_of_the_images_are_not_most(tmp_path):
    assert len(kept(images_with(tmp_path, 255, 255, 1, 1), tmp_path).rows) == 2


def test_reasons_are_told_the_most_frequent_first(tmp_path):
    found = images_with(tmp_path, 1, 9, 1, 255, 1, 1, 9, 1, 1, 1)
    (tmp_path / "images/0.png").write_bytes(b"no image")
    Image.new("L", (9, 1)).save(tmp_path / "masks/2.png")
    left = kept(found, tmp_path)
    assert [row.image for row in left.rows] == ["4.png", "5.png", "7.png", "8.png", "9.png"]
    assert left.notes == (
        "5 of 10 images are left out (skip_bad_images):",
        "  3: label map: it holds numbers that are no concepts: 9 in 2, 255 in 1 (1.png, 3.png, 6.png). "
        "If they mean no label, `ignore: [9, 255]` mends all of them.",
        "  1: it is no image that can be read (0.png).",
        "  1: label map: it has other proportions than the image (2.png).",
    )
    assert [image for image, _ in left.parameters["skipped"]] == ["0.png", "1.png", "2.png", "3.png", "6.png"]


def test_a_resumed_run_says_the_same(tmp_path):
    found = images_with(tmp_path, 1, 255, 1)
    first = kept(found, tmp_path)
    (tmp_path / "images/1.png").unlink()  # is not looked at again
    assert kept(found, tmp_path) == first
    assert first.notes[0] == "1 of 3 images are left out (skip_bad_images):"
    write_probe(first, str(tmp_path / "probe.zarr"), pool=Threads(1), show=False)
    assert open_probe(str(tmp_path / "probe.zarr"))["image"].values.tolist() == ["0.png", "2.png"]


def test_many_numbers_are_not_offered_to_be_ignored(tmp_path):
    left = kept(images_with(tmp_path, *range(30, 41), *[1] * 12), tmp_path)
    assert "30 in 1" in left.notes[1]
    assert "40 in 1" not in left.notes[1]
    assert "ignore" not in left.notes[1]


def test_damaged_images_are_left_out_however_many_they_are(tmp_path):
    found = images_with(tmp_path, 1, 1, 1)
    for n in range(2):
        (tmp_path / f"images/{n}.png").unlink()
    assert kept(found, tmp_path).notes[1] == "  2: the file is missing (0.png, 1.png)."
    (tmp_path / "images/2.png").write_bytes(b"")
    with pytest.raises(
        DissectError, match=r"(?s)no image of the probe can be used:.*2: the file is missing.*1: it is no"
    ):
        kept(found, tmp_path / "again")


@pytest.mark.parametrize("bad", ["pixels without a range", "an orientation"])
def test_what_the_recipe_or_a_program_can_mend_in_all_images_is_an_error(tmp_path, bad):
    found = images_with(tmp_path, 1, 1, 1)
    for n in range(2):
        if bad == "an orientation":
            exif = Image.Exif()
            exif[0x0112] = 3
            Image.new("RGB", (6, 4)).save(tmp_path / f"images/{n}.png", exif=exif)
        else:
            Image.new("F", (6, 4)).save(tmp_path / f"images/{n}.png", format="TIFF")
    with pytest.raises(DissectError, match=r"2 of 3 images have one fault: it has (an EXIF orientation|32-bit pixels)"):
        kept(found, tmp_path)


def test_label_maps_that_most_rows_of_an_index_name_must_be_there(tmp_path):
    for n in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (3, 4)).save(tmp_path / f"images/{n}.png")
        if n:
            stores.save_labels(tmp_path / f"images/{n}_map.png", np.ones((4, 3), int))
    (tmp_path / "category.csv").write_text("name\nobject\n")
    (tmp_path / "label.csv").write_text("number,name,category\n1,sky,object\n")
    (tmp_path / "index.csv").write_text(
        "image,split,sh,sw,object\n" + "".join(f"{n}.png,train,4,3,{n}_map.png\n" for n in range(3))
    )
    left = kept(read_broden(tmp_path), tmp_path)
    assert left.notes[1] == "  1: label map: the file is missing (0.png)."
    (tmp_path / "images/1_map.png").unlink()
    with pytest.raises(DissectError, match=r"2 of 3 images have one fault: label map: the file is missing"):
        kept(read_broden(tmp_path), tmp_path / "again")


def test_nothing_of_the_machine_is_recorded(tmp_path, monkeypatch):
    images_with(tmp_path, 1, 255, 1)
    monkeypatch.chdir(tmp_path)
    kept(label_set(Path()), tmp_path)
    marker = store.marker(str(tmp_path / "probe.zarr"), "skipped")
    assert marker is not None
    assert str(tmp_path) not in str(marker["note"])
    assert marker["note"]["skipped"][0][1].startswith("1.png: holds label 255, which is no concept of the probe.")


def test_a_folder_of_images_may_be_the_one_that_one_is_in(tmp_path, monkeypatch):
    images_with(tmp_path, 1, 255, 1)
    monkeypatch.chdir(tmp_path / "images")
    found = read_masks(images=".", masks="../masks", concepts="../concepts.yaml")
    assert kept(found, tmp_path).parameters["skipped"][0][1].startswith("1.png: holds label 255")


def test_a_mended_label_set_takes_the_place_of_an_unfinished_probe(tmp_path):
    """What the message of a fault asks for is given, and the same command works."""
    found = images_with(tmp_path, *[1] * 20, 255)
    url = str(tmp_path / "probe.zarr")
    with pytest.raises(DissectError, match=r"20\.png: holds label 255"):
        write_probe(found, url, pool=Threads(1), show=False)
    assert store.markers(url, "blocks") == {"blocks/16-21"}  # 20.png comes before 3.png
    mended = label_set(tmp_path, (255,))
    with pytest.warns(UserWarning, match=r"begun anew, since parameters\.ignore was \[\], is \[255\]"):
        write_probe(mended, url, pool=Threads(1), show=False)
    assert open_probe(url).sizes["image"] == 21
    assert open_probe(url)["concept_area"].values.tolist() == [20 * 24 + 23]
    write_probe(mended, str(tmp_path / "alone.zarr"), pool=Threads(1), show=False)
    assert stores.digest(tmp_path / "probe.zarr") == stores.digest(tmp_path / "alone.zarr")
    with pytest.raises(DissectError, match="other images or parameters"):  # a finished one stays
        write_probe(found, url, pool=Threads(1), show=False)


def test_what_was_left_out_of_an_unfinished_probe_is_looked_at_again(tmp_path):
    found = images_with(tmp_path, 1, 255, 1)
    assert len(kept(found, tmp_path).rows) == 2
    mended = label_set(tmp_path, (255,))
    assert len(kept(mended, tmp_path).rows) == 3
    write_probe(kept(mended, tmp_path), str(tmp_path / "probe.zarr"), pool=Threads(1), show=False)
    with pytest.raises(DissectError, match="'skipped' was made from other inputs or parameters"):
        kept(found, tmp_path)
