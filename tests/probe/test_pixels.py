"""One function decodes images: colour concepts, exemplars and the model see the same pixels, and fail at the same."""

import struct
from pathlib import Path

import numpy as np
import pytest
from oriented import DISPLAYED, exif
from PIL import Image
from stores import save_labels

from dissect_xr.errors import DissectError
from dissect_xr.exemplars.pictures import read_picture
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.pixels import FORMATS, image_size, read_rgb, stored_rgb, turned
from dissect_xr.probe.readers.broden import decode_broden
from dissect_xr.probe.readers.masks import decode_mask, read_masks

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def masks_of(folder: Path, save, suffix: str = "png"):
    """A label set of one image, which `save` writes, and an empty mask of the same size."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    path = folder / f"images/a.{suffix}"
    save(path)
    with Image.open(path) as image:
        Image.new("L", image.size).save(folder / "masks/a.png")
    (folder / "concepts.yaml").write_text("1: road\n")
    return read_masks(images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml")


# --- grey with 16 bits ---

GRADIENT = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
"""32 x 32, column c at c / 31 of white."""


def white_pixels(label_set, folder: Path) -> int:
    """Pixels of the concept `white-c`."""
    url = str(folder / "probe.zarr")
    write_probe(label_set.with_colors(COLOR_NAMES), url, pool=Threads(1), show=False)
    probe = open_probe(url)
    return int(probe["concept_area"].values[probe["concept_name"].values.tolist().index("white-c")])


def test_colours_of_16_bits_are_those_of_their_high_bytes(tmp_path):
    # White begins at grey 188, in CIELAB halfway between the prototypes 128 (L 53.6) and 250 (L 98.3). Column c has the
    # grey 255 * c / 31, so columns 23 to 31 are white: 9 * 32 pixels. Clipped to 8 bits, all but column 0 would be.
    label_set = masks_of(tmp_path, lambda path: Image.fromarray(GRADIENT).save(path))
    assert white_pixels(label_set, tmp_path) == 288
    with Image.open(tmp_path / "images/a.png") as image:
        assert image.mode == "I;16"


def test_16_bits_are_the_same_everywhere(tmp_path):
    images = pytest.importorskip("dissect_xr.activations.images", reason="needs torch", exc_type=ImportError)
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    wanted = np.dstack([GRADIENT >> 8] * 3).astype(np.uint8)
    assert np.unique(wanted).size == 32
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png")), wanted)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png", (32, 32)), wanted)
    np.testing.assert_array_equal(read_picture(Folder(str(tmp_path)), "a.png", 32), wanted)


def test_16_bits_of_a_pgm_are_read_as_those_of_a_png(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.pgm")
    assert (tmp_path / "a.pgm").read_bytes().startswith(b"P5\n32 32\n65535\n")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.pgm"))[..., 0], GRADIENT >> 8)
    # Of 10 bits, 1023 is white and 256 a quarter of it.
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 1023 " + struct.pack(">HHH", 0, 256, 1023))
    assert np.asarray(read_rgb(tmp_path / "b.pgm"))[0, :, 0].tolist() == [0, 64, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_an_image_in_which_white_is_0_is_read_as_it_is_displayed(tmp_path, bits):
    shown = GRADIENT >> 8
    if bits == 8:  # Pillow turns the numbers round where it saves them
        Image.fromarray(shown.astype(np.uint8)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    else:
        Image.fromarray(65535 - GRADIENT).save(tmp_path / "a.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.tif"))[..., 0], shown)


# --- what cannot be read is found when the probe is written ---

UNREADABLE = {
    "32-bit floats": (lambda path: Image.fromarray(GRADIENT.astype(np.float32)).save(path), "has 32-bit pixels"),
    "32-bit integers": (lambda path: Image.fromarray(GRADIENT.astype(np.int32)).save(path), "has 32-bit pixels"),
    "CIELAB": (lambda path: Image.new("LAB", (32, 32)).save(path), "has pixels in CIELAB"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("colors", [False, True])
def test_what_the_model_cannot_read_is_refused_by_the_probe(tmp_path, kind, colors):
    save, message = UNREADABLE[kind]
    label_set = masks_of(tmp_path, save, "tif")
    label_set = label_set.with_colors(COLOR_NAMES) if colors else label_set
    with pytest.raises(DissectError, match=rf"a\.tif {message}.*Save it"):
        write_probe(label_set, str(tmp_path / "probe.zarr"), pool=Threads(1), show=False)
    with pytest.raises(DissectError, match=message):
        read_picture(Folder(str(tmp_path / "images")), "a.tif", 32)


@pytest.mark.parametrize("suffix", ["png", "gif", "jfif", "jp2", "webp", "bmp", "tif", "ppm", "tga"])
def test_every_format_is_read(tmp_path, suffix):
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.format in FORMATS
        wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / f"a.{suffix}")), wanted)


def test_the_content_counts_not_the_suffix(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.jpg")), PIXELS)


def test_no_program_is_started_for_a_file(tmp_path):
    # Pillow would hand PostScript to Ghostscript, which runs it.
    Image.fromarray(PIXELS).save(tmp_path / "a.png", format="EPS")
    for decode in (read_rgb, decode_mask, decode_broden):
        with pytest.raises(DissectError, match=r"a\.png: not an image that can be read"):
            decode(tmp_path / "a.png")


def test_the_first_of_several_pictures_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 6), level, np.uint8)) for level in (10, 200)]
    for suffix in ("gif", "tif"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
        assert np.unique(np.asarray(read_rgb(tmp_path / f"a.{suffix}"))).tolist() == [10]


def test_a_png_cut_short_is_an_error_however_often_it_is_looked_at(tmp_path):
    # Reading metadata of a PNG decodes its pixels: what goes wrong there must not be taken for missing metadata.
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for part in (0.3, 0.6, 0.9):
        (tmp_path / "a.png").write_bytes(whole[: int(len(whole) * part)])
        for decode in (stored_rgb, decode_mask):
            with pytest.raises(DissectError, match=r"a\.png: damaged or truncated"):
                decode(tmp_path / "a.png")


# --- orientation of files ---


@pytest.mark.parametrize("orientation", DISPLAYED)
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_stored_pixels_and_orientation_of_a_file(tmp_path, orientation, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", exif=exif(orientation), **options)
    stored, found = stored_rgb(tmp_path / f"a.{suffix}")
    assert found == orientation
    np.testing.assert_array_equal(np.asarray(stored), PIXELS)  # a TIFF, too, which Pillow turns by itself
    np.testing.assert_array_equal(np.asarray(turned(stored, found)), DISPLAYED[orientation](PIXELS))
    shown = read_rgb(tmp_path / f"a.{suffix}", orientation=orientation)
    np.testing.assert_array_equal(np.asarray(shown), DISPLAYED[orientation](PIXELS))


def test_so_does_a_jpeg(tmp_path):
    blocks = np.kron(np.array([[0, 255, 0], [255, 255, 0]], np.uint8), np.ones((8, 8), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.jpg", exif=exif(6), quality=100)
    stored, found = stored_rgb(tmp_path / "a.jpg")
    assert (found, stored.size) == (6, (24, 16))
    shown = np.asarray(read_rgb(tmp_path / "a.jpg", orientation=6))[..., 0]
    assert abs(shown.astype(int) - DISPLAYED[6](blocks)).max() <= 2


MODES = {
    "L": lambda: Image.fromarray(PIXELS[..., 0]),
    "P": lambda: Image.fromarray(PIXELS).quantize(),
    "RGB": lambda: Image.fromarray(PIXELS),
    "RGBA": lambda: Image.fromarray(PIXELS).convert("RGBA"),
    "I;16": lambda: Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8),
    "CMYK": lambda: Image.fromarray(PIXELS).convert("CMYK"),
    "1": lambda: Image.fromarray(PIXELS[..., 0] > 99),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_on_its_side_is_read_whatever_its_pixels_are(tmp_path, mode, compression):
    # Pillow maps those without compression into memory, rows and columns exchanged.
    stored = MODES[mode]()
    assert (stored.mode, stored.size) == (mode, (6, 4))
    wanted = np.dstack([PIXELS[..., 0]] * 3) if mode == "I;16" else np.asarray(stored.convert("RGB"))
    for orientation, displayed in DISPLAYED.items():
        path = tmp_path / f"{orientation}.tif"
        stored.save(path, compression=compression, tiffinfo={0x0112: orientation})
        np.testing.assert_array_equal(np.asarray(read_rgb(path)), wanted)
        np.testing.assert_array_equal(np.asarray(read_rgb(path, orientation=orientation)), displayed(wanted))
        assert stored_rgb(path)[1] == orientation


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_size_of_a_file_is_that_of_the_stored_pixels(tmp_path, suffix):
    for orientation in DISPLAYED:
        Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", exif=exif(orientation))
        assert image_size(tmp_path / f"a.{suffix}") == (4, 6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some damage
@pytest.mark.parametrize("damaged", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0nothing that is TIFF", b""])
def test_damaged_metadata_are_no_orientation(tmp_path, damaged):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=damaged or exif(1))
    if not damaged:  # an orientation that does not exist
        content = (tmp_path / "a.jpg").read_bytes()
        entry = struct.pack(">HHI", 0x0112, 3, 1)
        at = content.find(entry) if entry in content else content.find(struct.pack("<HHI", 0x0112, 3, 1))
        (tmp_path / "a.jpg").write_bytes(content[: at + 8] + b"\x63\x63" + content[at + 10 :])
    assert stored_rgb(tmp_path / "a.jpg")[1] == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_label_map_with_an_orientation_is_refused(tmp_path, suffix):
    for decode, picture in (
        (decode_mask, Image.new("L", (6, 4))),
        (decode_broden, Image.new("RGB", (6, 4))),
    ):
        picture.save(tmp_path / f"a.{suffix}", exif=exif(3))
        with pytest.raises(
            DissectError, match=rf"a\.{suffix}: has the EXIF orientation 3: label maps are read as they"
        ):
            decode(tmp_path / f"a.{suffix}")
        picture.save(tmp_path / f"a.{suffix}", exif=exif(1))
        assert decode(tmp_path / f"a.{suffix}").shape == (4, 6)


def test_broden_maps_have_the_same_rules(tmp_path):
    save_labels(tmp_path / "a.png", np.array([[1, 300]]))
    assert decode_broden(tmp_path / "a.png").tolist() == [[1, 300]]
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "b.png", format="JPEG")
    with pytest.raises(DissectError, match=r"b\.png: is a file of the kind JPEG"):
        decode_broden(tmp_path / "b.png")
