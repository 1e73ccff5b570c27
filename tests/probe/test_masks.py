"""A mask gives exactly the numbers that were saved in it, or is refused; 0 may be a concept where an offset says so."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stores import scratch

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import label_set_fingerprint, open_probe, write_probe
from dissect_xr.probe.readers.masks import MaskFormat, OffsetMask, decode_mask, read_masks

NUMBERS = np.array([[0, 1, 2], [7, 1, 255]], np.uint8)


def saved(path: Path, pixels, mode: str | None = None, **options) -> Path:
    """These pixels as a file."""
    Image.fromarray(pixels, mode).save(path, **options) if mode else Image.fromarray(pixels).save(path, **options)
    return path


def stacked(*channels):
    return np.stack(channels, axis=-1)


OPAQUE = np.full_like(NUMBERS, 255)

GREY = {
    "grey": NUMBERS,
    "RGB": stacked(NUMBERS, NUMBERS, NUMBERS),
    "RGBA": stacked(NUMBERS, NUMBERS, NUMBERS, OPAQUE),
    "LA": stacked(NUMBERS, OPAQUE),
}


@pytest.mark.parametrize("kind", GREY)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_is_grey_however_it_is_saved(tmp_path, kind, suffix):
    path = saved(tmp_path / f"a.{suffix}", GREY[kind], kind if kind == "LA" else None)
    with Image.open(path) as image:
        assert image.mode == {"grey": "L"}.get(kind, kind)
    assert decode_mask(path).tolist() == NUMBERS.tolist()
    assert decode_mask(path).dtype == np.uint16


HALF = np.where(NUMBERS == 7, 128, 255).astype(np.uint8)

COLORED = {
    "colours": (
        stacked(NUMBERS, NUMBERS, NUMBERS[::-1]),
        None,
        r"Pillow mode RGB with channels that differ.*Replace each",
    ),
    "colours and alpha": (
        stacked(NUMBERS, NUMBERS, NUMBERS[::-1], OPAQUE),
        None,
        r"Pillow mode RGBA with channels that differ",
    ),
    "half transparent": (stacked(NUMBERS, HALF), "LA", r"Pillow mode LA with transparent pixels"),
    "half transparent RGB": (
        stacked(NUMBERS, NUMBERS, NUMBERS, HALF),
        None,
        r"Pillow mode RGBA with transparent pixels",
    ),
}


@pytest.mark.parametrize("case", COLORED)
def test_masks_that_hold_more_than_numbers_are_refused(tmp_path, case):
    pixels, mode, message = COLORED[case]
    with pytest.raises(DissectError, match=rf"a\.png: expected a single-channel integer mask, got {message}"):
        decode_mask(saved(tmp_path / "a.png", pixels, mode))


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9))
def test_16_bits_are_read_as_they_are(numbers):
    with scratch() as folder:
        for suffix in ("png", "tif"):
            path = saved(folder / f"a.{suffix}", np.array([numbers], np.uint16))
            assert decode_mask(path).tolist() == [numbers]


def test_32_bits_are_read_as_far_as_concepts_have_numbers(tmp_path):
    assert decode_mask(saved(tmp_path / "a.tif", np.array([[0, 65535]], np.int32))).tolist() == [[0, 65535]]
    for number in (-1, 65536):
        with pytest.raises(DissectError, match=rf"b\.tif: concept numbers must lie between 0 and 65535, got {number}"):
            decode_mask(saved(tmp_path / "b.tif", np.array([[0, number]], np.int32)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_hold_their_indices(tmp_path, bits):
    numbers = NUMBERS % min(2**bits, 200)
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([200, 0, 0] * 256)
    image.save(tmp_path / "a.png", bits=bits)
    assert decode_mask(tmp_path / "a.png").tolist() == numbers.tolist()


LOSSY = {
    "JPEG": ({}, r"is a file of the kind JPEG, which may change the numbers"),
    "WEBP": ({"lossless": True}, r"is a file of the kind WEBP"),
    "JPEG2000": ({}, r"is a file of the kind JPEG2000"),
    "GIF": ({}, r"is a file of the kind GIF"),  # its colours are renumbered when it is saved
}


@pytest.mark.parametrize("kind", LOSSY)
def test_formats_that_change_numbers_are_refused_whatever_the_suffix(tmp_path, kind):
    options, message = LOSSY[kind]
    saved(tmp_path / "a.png", np.tile(NUMBERS, (16, 16)), format=kind, **options)
    with pytest.raises(DissectError, match=rf"a\.png: {message}.*Save it as PNG"):
        decode_mask(tmp_path / "a.png")


def test_so_is_jpeg_in_a_tiff(tmp_path):
    path = saved(tmp_path / "a.tif", np.tile(NUMBERS, (16, 16)), compression="jpeg")
    with pytest.raises(DissectError, match=r"a\.tif: is a file of the kind TIFF with (tiff_)?jpeg"):
        decode_mask(path)
    assert decode_mask(saved(tmp_path / "b.tif", NUMBERS, compression="tiff_lzw")).tolist() == NUMBERS.tolist()


WHITE_IS_0 = {262: 0}


@pytest.mark.parametrize("pixels", [NUMBERS, NUMBERS > 1], ids=["8 bits", "1 bit"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_in_which_white_is_0_is_refused(tmp_path, pixels, compression):
    # Of a mask of 32 x 32 with 96 stored ones, 928 would be counted.
    saved(tmp_path / "a.tif", pixels, compression=compression, tiffinfo=WHITE_IS_0)
    black = saved(tmp_path / "b.tif", pixels, compression=compression)
    untold = saved(tmp_path / "c.tif", pixels, compression=compression)
    entry = struct.pack("<HHI", 262, 3, 1)
    assert untold.read_bytes().count(entry) == 1
    untold.write_bytes(untold.read_bytes().replace(entry, struct.pack("<HHI", 261, 3, 1)))
    assert decode_mask(black).tolist() == pixels.astype(int).tolist()
    for path in (tmp_path / "a.tif", untold):
        with pytest.raises(DissectError, match=rf"{path.name}: is a TIFF that says that white is 0.*Save it as PNG"):
            decode_mask(path)


def test_16_bits_in_which_white_is_0_are_read_as_they_are_stored(tmp_path):
    numbers = np.array([[0, 1, 300], [7, 1, 65535]], np.uint16)
    assert decode_mask(saved(tmp_path / "a.tif", numbers, tiffinfo=WHITE_IS_0)).tolist() == numbers.tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_grey_whose_numbers_pillow_would_multiply_is_refused(tmp_path, bits):
    path = saved(tmp_path / "a.png", NUMBERS % 4, bits=bits)
    with Image.open(path) as image:
        assert np.asarray(image).max() == 3 * 255 // (2**bits - 1)
    with pytest.raises(DissectError, match=rf"a\.png: its pixels are of the kind L;{bits}, which Pillow makes 8 bits"):
        decode_mask(path)


def rgb_of_16_bits(numbers) -> bytes:
    """A PNG of 16 bits per channel, which Pillow reads but does not write: 300 would become 1."""
    import zlib

    rows = b"".join(b"\0" + b"".join(struct.pack(">HHH", n, n, n) for n in row) for row in numbers)
    header = struct.pack(">IIBBBBB", len(numbers[0]), len(numbers), 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_16_bits_per_channel_are_not_cut_to_8(tmp_path):
    (tmp_path / "a.png").write_bytes(rgb_of_16_bits([[0, 300]]))
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image)[0, 1].tolist() == [1, 1, 1]
    with pytest.raises(DissectError, match=r"a\.png: its pixels are of the kind RGB;16B.*or as grey with 16"):
        decode_mask(tmp_path / "a.png")


# --- numbers ---


def folder_of(folder: Path, mask, table: str) -> dict:
    """One image with this mask, and a table of concepts."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    saved(folder / "masks/a.png", mask)
    Image.new("RGB", mask.shape[::-1]).save(folder / "images/a.jpg")
    (folder / "concepts.yaml").write_text(table)
    return {"images": folder / "images", "masks": folder / "masks", "concepts": folder / "concepts.yaml"}


def written(folder: Path, label_set):
    url = str(folder / "probe.zarr")
    write_probe(label_set, url, pool=Threads(1), show=False)
    return open_probe(url).load()


ZERO_BASED = np.array([[0, 0, 1], [2, 255, 254]], np.uint8)
TABLE = "0: road\n1: car\n2: {name: wheel, category: part}\n"


def test_0_is_a_concept_where_an_offset_says_so(tmp_path):
    given = folder_of(tmp_path, ZERO_BASED, TABLE)
    probe = written(tmp_path, read_masks(**given, ignore=[254], format=MaskFormat(offset=1, unlabelled=255)))
    assert probe["annotation"].values[0, 0].tolist() == [[1, 1, 2], [3, 0, 0]]
    assert probe["concept_name"].values.tolist() == ["road", "car", "wheel"]
    assert probe["concept_area"].values.tolist() == [2, 1, 1]
    assert probe["domain_area"].values.tolist() == [6, 6]


def test_without_an_offset_0_is_told_to_be_unlabelled(tmp_path):
    with pytest.raises(DissectError, match=r"line 1: number 0 means unlabelled.*`offset: 1`.*`unlabelled: 255`"):
        read_masks(**folder_of(tmp_path, ZERO_BASED, TABLE))


def test_with_an_offset_nothing_is_unlabelled_unless_that_is_said(tmp_path):
    given = folder_of(tmp_path, ZERO_BASED, TABLE)
    with pytest.raises(DissectError, match=r"a\.png: holds label 254, which is no concept.*`ignore: \[254, 255\]`"):
        written(tmp_path, read_masks(**given, format=MaskFormat(offset=1)))


def test_unlabelled_without_an_offset_is_as_ignored(tmp_path):
    given = folder_of(tmp_path, ZERO_BASED, "1: car\n2: wheel\n")
    probes = [
        written(tmp_path / name, read_masks(**given, ignore=ignore, format=MaskFormat(unlabelled=unlabelled)))
        for name, ignore, unlabelled in (("1", [254, 255], ()), ("2", [], [254, 255]), ("3", [255], 254))
    ]
    for probe in probes:
        assert probe["annotation"].values[0, 0].tolist() == [[0, 0, 1], [2, 0, 0]]


def test_a_number_is_a_concept_or_unlabelled(tmp_path):
    given = folder_of(tmp_path, ZERO_BASED, TABLE)
    with pytest.raises(DissectError, match=r"unlabelled: 2 is a concept in .*concepts\.yaml, too"):
        read_masks(**given, format=MaskFormat(offset=1, unlabelled=[2, 255]))


@pytest.mark.parametrize("offset", [-1, 65536])
def test_offsets_are_those_that_leave_numbers(offset):
    with pytest.raises(DissectError, match=rf"offset: expected 0 to 65535, got {offset}"):
        MaskFormat(offset=offset)
    with pytest.raises(DissectError, match="unlabelled: -1 is no number"):
        MaskFormat(unlabelled=-1)


@given(
    numbers=st.lists(st.integers(0, 65535), min_size=1, max_size=9),
    offset=st.integers(1, 3),
    void=st.sets(st.integers(0, 65535), max_size=2),
)
def test_numbers_are_shifted_and_none_wraps_round(numbers, offset, void):
    decode = pickle.loads(pickle.dumps(OffsetMask(offset, tuple(void))))
    with scratch() as folder:
        path = saved(folder / "a.png", np.array([numbers], np.uint16))
        if any(number + offset > 65535 and number not in void for number in numbers):
            with pytest.raises(DissectError, match=rf"with the offset {offset} added"):
                decode(path)
        else:
            assert decode(path).tolist() == [[0 if number in void else number + offset for number in numbers]]


def test_what_a_mask_means_makes_another_probe_and_defaults_do_not(tmp_path):
    given = folder_of(tmp_path, NUMBERS % 2, "1: road\n")
    usual = read_masks(**given)
    assert usual.parameters == {"layout": "masks", "ignore": [], "categories": ["object"], "label_size": [2, 3]}
    formats = [
        MaskFormat(),
        MaskFormat(unlabelled=255),
        MaskFormat(image_name="{stem}.jpg"),
        MaskFormat(follow_links=True),
    ]
    others = [read_masks(**given, format=one) for one in formats] + [
        usual.oriented("stored"),
        usual.oriented("displayed"),
    ]
    (given["concepts"]).write_text("0: road\n1: car\n")
    others.append(read_masks(**given, format=MaskFormat(offset=1)))
    prints = [label_set_fingerprint(one) for one in others]
    assert prints[0] == label_set_fingerprint(usual)
    assert len(set(prints)) == len(prints)


def test_what_a_mask_means_is_stored_with_the_probe(tmp_path):
    given = folder_of(tmp_path, ZERO_BASED, TABLE)
    format = MaskFormat(mask_name="{stem}.PNG", offset=1, unlabelled=[255, 254])
    written(tmp_path, read_masks(**given, format=format))
    stored = store.read_attrs(str(tmp_path / "probe.zarr"))["parameters"]
    assert stored["mask_name"] == "{stem}.PNG"
    assert stored["offset"] == 1
    assert stored["unlabelled"] == [254, 255]
    assert json.loads(json.dumps(stored)) == stored
