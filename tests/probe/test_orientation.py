"""An image lies below its label map as the map was drawn: stored or displayed, by its size or as one says."""

import io
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oriented import DISPLAYED, exif, stored_for
from PIL import Image

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.colors import COLOR_NAMES, color_labels
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import Concept
from dissect_xr.probe.orientation import fits, orientation_of
from dissect_xr.probe.pixels import read_rgb
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.root import image_folder

IMAGE = Path("a.jpg")


def chosen(found, stored, *maps, asked=None):
    """The orientation for an image of this size and label maps of these."""
    return orientation_of(IMAGE, found, stored, [(Path(f"{n}.png"), size) for n, size in enumerate(maps)], asked)


SIDES = (5, 6, 7, 8)
UPRIGHT = (2, 3, 4)


@pytest.mark.parametrize("found", SIDES)
def test_the_form_that_a_map_fits_is_taken(found):
    assert chosen(found, (32, 48), (48, 32)) == found
    assert chosen(found, (32, 48), (32, 48)) == 1
    assert chosen(found, (32, 48), (24, 16)) == found  # a map of half the size
    assert chosen(found, (32, 48), (64, 96)) == 1
    assert chosen(found, (32, 48), (48, 32), (24, 16)) == found
    assert chosen(found, (100, 101), (101, 100)) == found  # nearly square, but just this size
    assert chosen(found, (100, 101), (100, 101)) == 1


@pytest.mark.parametrize(
    ("found", "stored", "maps"),
    [
        *((found, (32, 48), [(32, 48)]) for found in UPRIGHT),
        *((found, (32, 32), [(32, 32)]) for found in (*SIDES, *UPRIGHT)),
        (6, (32, 48), []),  # labels of the whole image say nothing about its form
        (6, (100, 101), [(50, 50)]),
    ],
)
def test_a_map_that_fits_both_forms_needs_a_word(found, stored, maps):
    with pytest.raises(Fault, match=rf"a\.jpg: has the EXIF orientation {found}.*`orientation: stored` or") as error:
        chosen(found, stored, *maps)
    assert error.value.shared
    assert chosen(found, stored, *maps, asked="stored") == 1
    assert chosen(found, stored, *maps, asked="displayed") == found


@pytest.mark.parametrize("asked", [None, "stored", "displayed"])
def test_an_image_without_orientation_is_as_stored(asked):
    assert chosen(1, (32, 48), (32, 48), asked=asked) == 1
    assert chosen(1, (32, 48), asked=asked) == 1


@pytest.mark.parametrize(
    ("found", "stored", "maps", "asked", "message"),
    [
        (1, (32, 32), [(20, 64)], None, r"0\.png: 20 x 64 pixels.*image a\.jpg, 32 x 32\."),
        (1, (32, 48), [(48, 32)], "displayed", r"0\.png: 48 x 32 pixels.*a\.jpg, 32 x 48\."),
        (6, (32, 48), [(48, 32)], "stored", r"0\.png: 48 x 32 pixels.*a\.jpg, 32 x 48\."),
        (6, (32, 48), [(32, 48)], "displayed", r"0\.png: 32 x 48 pixels.*a\.jpg, 48 x 32 as displayed\."),
        (6, (32, 48), [(20, 64)], None, r"0\.png: 20 x 64.*a\.jpg, 32 x 48 as stored or 48 x 32 as displayed\."),
        (1, (32, 48), [(32, 48), (48, 32)], None, r"1\.png: 48 x 32 pixels"),
        (6, (32, 48), [(32, 48), (48, 32)], None, r"pixels, in other proportions"),
    ],
)
def test_a_map_of_other_proportions_is_refused_with_both_sizes(found, stored, maps, asked, message):
    with pytest.raises(Fault, match=message) as error:
        chosen(found, stored, *maps, asked=asked)
    assert error.value.shared


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    scale=st.fractions(min_value="1/8", max_value=8),
    up=st.tuples(st.booleans(), st.booleans()),
)
def test_whatever_a_resize_rounds_to_fits(size, scale, up):
    scaled = tuple(max(1, -int(-n * scale // 1) if ceil else int(n * scale)) for n, ceil in zip(size, up, strict=True))
    assert fits(size, scaled)
    assert fits(scaled, size)


def test_a_quarter_turn_of_two_pixels_difference_is_told_apart():
    assert not fits((32, 34), (34, 32))
    assert fits((33, 34), (34, 33))


# --- through the probe ---

SHOWN = np.kron(
    [[(20, 20, 20), (250, 250, 250)], [(180, 40, 40), (60, 140, 60)], [(235, 215, 80), (60, 110, 200)]],
    np.ones((2, 2, 1)),
).astype(np.uint8)
"""What is displayed, 6 x 4: black and white; red and green; yellow and blue."""


def masks_of(folder: Path, orientation: int, mask: np.ndarray, suffix: str = "png"):
    """One image with this orientation, and its mask."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    pixels = stored_for(orientation, SHOWN)
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(folder / f"images/a.{suffix}", exif=exif(orientation), **options)
    Image.fromarray(mask).save(folder / "masks/a.png")
    (folder / "concepts.yaml").write_text("1: top left\n2: bottom right\n")
    return read_masks(images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml")


MASK = np.zeros((6, 4), np.uint8)
MASK[0, 0], MASK[5, 3] = 1, 2


@pytest.mark.parametrize(("orientation", "suffix"), [*product(DISPLAYED, ("png", "tif", "webp"))])
def test_colours_lie_below_the_labels_in_every_orientation(tmp_path, orientation, suffix):
    label_set = masks_of(tmp_path, orientation, MASK, suffix).with_colors(COLOR_NAMES)
    asked = "displayed" if orientation in UPRIGHT else None
    url = str(tmp_path / "probe.zarr")
    write_probe(label_set.oriented(asked), url, pool=Threads(1), show=False)
    probe = open_probe(url).load()
    first = int(probe["concept"].values[2])
    assert probe["annotation"].values[0, 0].tolist() == MASK.tolist()
    np.testing.assert_array_equal(probe["annotation"].values[0, 1] - first + 1, color_labels(SHOWN))
    assert probe.attrs["turned"] == ({} if orientation == 1 else {f"a.{suffix}": orientation})
    folder = image_folder(url)
    name = f"a.{suffix}"
    pixels = read_rgb(folder.path(name), orientation=folder.orientation(name))
    np.testing.assert_array_equal(np.asarray(pixels), SHOWN)


@pytest.mark.parametrize("orientation", DISPLAYED)
def test_labels_of_stored_pixels_lie_on_stored_pixels(tmp_path, orientation):
    pixels = stored_for(orientation, SHOWN)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[0, 0] = 1
    asked = "stored" if orientation in UPRIGHT else None
    label_set = masks_of(tmp_path, orientation, mask).with_colors(COLOR_NAMES).oriented(asked)
    url = str(tmp_path / "probe.zarr")
    write_probe(label_set, url, pool=Threads(1), show=False)
    probe = open_probe(url).load()
    first = int(probe["concept"].values[2])
    np.testing.assert_array_equal(probe["annotation"].values[0, 1] - first + 1, color_labels(pixels))
    assert probe.attrs["turned"] == {}


def test_pixels_that_are_turned_are_other_pixels(tmp_path):
    """Activations made from the stored ones are not taken for those of the displayed ones."""
    prints = []
    for asked in ("stored", "displayed"):
        label_set = masks_of(tmp_path, 3, MASK).oriented(asked)
        write_probe(label_set, str(tmp_path / asked), pool=Threads(1), show=False)
        prints.append(store.read_attrs(str(tmp_path / asked))["images_sha256"])
    assert prints[0] != prints[1]


def test_a_map_of_other_proportions_never_becomes_labels(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/a.png")
    Image.new("L", (64, 20)).save(tmp_path / "masks/a.png")
    (tmp_path / "concepts.yaml").write_text("1: road\n")
    label_set = read_masks(images=tmp_path / "images", masks=tmp_path / "masks", concepts=tmp_path / "concepts.yaml")
    with pytest.raises(DissectError, match=r"masks/a\.png: 20 x 64 pixels.*images/a\.png, 32 x 32"):
        write_probe(label_set, str(tmp_path / "probe.zarr"), pool=Threads(1), show=False)


def test_xmp_says_the_orientation_where_exif_does_not(tmp_path):
    # Some programs write it there only, and viewers that follow Pillow show it turned.
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    data = io.BytesIO()
    Image.new("RGB", (48, 32)).save(data, "JPEG", xmp=xmp)
    (tmp_path / "a.jpg").write_bytes(data.getvalue())
    assert read_rgb(tmp_path / "a.jpg").size == (48, 32)
    label_set = masks_of(tmp_path, 1, MASK)
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "a.jpg").rename(tmp_path / "images/a.jpg")
    Image.new("L", (32, 48)).save(tmp_path / "masks/a.png")
    label_set = read_masks(images=tmp_path / "images", masks=tmp_path / "masks", concepts=tmp_path / "concepts.yaml")
    write_probe(label_set, str(tmp_path / "probe.zarr"), pool=Threads(1), show=False)
    assert open_probe(str(tmp_path / "probe.zarr")).attrs["turned"] == {"a.jpg": 6}


@pytest.mark.parametrize("orientation", DISPLAYED)
def test_a_crop_is_of_the_form_that_the_labels_follow(tmp_path, orientation):
    """The centre of a displayed image, whichever way it is stored."""
    crop, numbers = Crop(8, (4, 4)), np.arange(1, 25, dtype=np.uint8).reshape(6, 4)
    planes = []
    for way in (1, orientation):
        label_set = masks_of(tmp_path / f"{way}", way, numbers)
        concepts = tuple(Concept(n, f"c{n}", "object") for n in range(1, 25))
        label_set = replace(label_set, concepts=concepts).cropped(crop).with_colors(COLOR_NAMES)
        url = str(tmp_path / f"{way}.zarr")
        write_probe(label_set.oriented("displayed"), url, pool=Threads(1), show=False)
        planes.append(open_probe(url)["annotation"].values[0])
    np.testing.assert_array_equal(planes[1], planes[0])
    # The 6 x 4 pixels are resized to 12 x 8, whose rows 4 to 7 and columns 2 to 5 are the centre: pixels 2 and 3 down,
    # 1 and 2 across, on a label grid of 6 x 4.
    assert planes[0][0].tolist() == np.kron(numbers[2:4, 1:3], np.ones((3, 2), int)).tolist()
