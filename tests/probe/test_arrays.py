"""Arrays of any library and chunking give one probe; other arrays under its name are refused."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published_sets import AREAS, FIRST, NO_LABEL, SECOND, areas
from stores import scratch

from dissect_xr.errors import DissectError
from dissect_xr.probe.ingest import open_probe
from dissect_xr.probe.label_set import Concept
from dissect_xr.probe.readers.unpacked.arrays import About, probe_from_arrays, read_arrays

LABELS = np.stack([FIRST, SECOND])
PIXELS = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
CONCEPTS = {1: "road", 2: "sky", 3: {"name": "car", "category": "vehicle"}}


def made(folder, images=PIXELS, labels=LABELS, concepts=CONCEPTS, **about):
    return probe_from_arrays(images, labels, concepts, folder / "probe.zarr", about=About(**about), show=False).load()


def test_labels_have_their_areas_and_images_their_pixels(tmp_path):
    probe = made(tmp_path)
    assert areas(probe) == AREAS
    assert probe["annotation"].values[:, 0].tolist() == LABELS.tolist()
    assert probe["category"].values.tolist() == ["object", "vehicle"]
    assert probe["image"].values.tolist() == ["000000.png", "000001.png"]
    with Image.open(tmp_path / "probe.files/images/000001.png") as image:
        assert np.array_equal(np.asarray(image), PIXELS[1])
    assert probe.attrs["root"] == "probe.files/images"  # beside the probe, so that both can be moved


IMAGES = {
    "numpy": PIXELS,
    "dask": da.from_array(PIXELS, chunks=(1, 2, 4, 3)),
    "xarray": xr.DataArray(PIXELS, dims=("image", "row", "col", "channel")),
    "xarray, other order": xr.DataArray(PIXELS, dims=("image", "row", "col", "channel")).transpose(
        "channel", "row", "col", "image"
    ),
    "xarray on dask": xr.DataArray(PIXELS, dims=("image", "row", "col", "channel")).chunk(image=2),
    "whole numbers of 64 bits": PIXELS.astype(np.int64),
    "lists": PIXELS.tolist(),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_array_gives_the_same_probe(tmp_path, kind):
    made(tmp_path)
    again = made(tmp_path, images=IMAGES[kind])  # the same fingerprint: it is the probe that is there
    assert areas(again) == AREAS


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_any_chunks_give_the_same_files_and_counts(count, planes, images, labels, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, 3, 4, 3), np.uint8)
    numbers = random.integers(0, 3, (count, planes, 3, 4))
    with scratch() as folder:
        one = made(folder, pixels, numbers, {1: "a", 2: "b"})
        other = made(
            folder, da.from_array(pixels, chunks=(images, 2, 2, 1)),
            xr.DataArray(numbers, dims=("image", "plane", "row", "col")).chunk(image=labels, plane=1),
            [Concept(1, "a", "object"), Concept(2, "b", "object")],
        )  # fmt: skip
        assert one.identical(other)
        for n, name in ((1, "a"), (2, "b")):
            assert areas(one, all=True)[name] == sum(int((image == n).any(axis=0).sum()) for image in numbers)


def test_grey_images_and_single_channels_are_images(tmp_path):
    grey = PIXELS[..., 0]
    found = read_arrays(grey, LABELS, CONCEPTS, tmp_path / "a")
    same = read_arrays(grey[..., None], LABELS, CONCEPTS, tmp_path / "a")
    assert [row.image for row in found.rows] == [row.image for row in same.rows]
    with Image.open(tmp_path / "a/images/000000.png") as image:
        assert image.mode == "L"


def test_names_splits_void_and_labels_of_whole_images(tmp_path):
    labels = np.where(LABELS == 0, 9, LABELS)
    probe = made(
        tmp_path, labels=labels, concepts=CONCEPTS | {4: {"name": "street", "category": "scene"}},
        names=["b/one", "a.png"], splits=["train", "val"], whole=[[4], []], void=[9],
    )  # fmt: skip
    assert probe["image"].values.tolist() == ["b/one.png", "a.png"]
    assert probe["split"].values.tolist() == ["train", "val"]
    assert areas(probe) == AREAS | {"street": 13}  # the image without its three ignored pixels
    assert int(probe["ignored"].sum()) == NO_LABEL


def test_names_may_be_a_coordinate(tmp_path):
    images = xr.DataArray(PIXELS, dims=("image", "row", "col", "channel"), coords={"image": ["x", "y"]})
    assert made(tmp_path, images=images)["image"].values.tolist() == ["x.png", "y.png"]


def test_labels_of_whole_images_alone(tmp_path):
    probe = made(tmp_path, labels=None, concepts={5: "cat", 7: "dog"}, whole=[[5], [5, 7]])
    assert areas(probe) == {"cat": 2 * 112**2, "dog": 112**2}


def test_label_maps_may_be_smaller_than_images(tmp_path):
    assert areas(made(tmp_path, labels=LABELS[:, ::2, ::2])) == {"road": 3, "sky": 3, "car": 1}


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_other_arrays_under_the_same_name_are_refused_and_change_nothing(tmp_path, changed):
    before = made(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = {"images": PIXELS + 1} if changed == "images" else {"labels": LABELS[::-1]}
    with pytest.raises(DissectError, match=r"000000(_0)?\.png: is there already and holds something else"):
        made(tmp_path, **other)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert open_probe(tmp_path / "probe.zarr").load().identical(before)


def test_fewer_images_of_the_same_are_another_probe(tmp_path):
    made(tmp_path)
    with pytest.raises(DissectError, match=r"holds a probe of other images or parameters: images was 2, is 1"):
        made(tmp_path, images=PIXELS[:1], labels=LABELS[:1])


def test_nothing_is_left_of_a_file_that_was_half_written(tmp_path):
    from unittest.mock import patch

    from dissect_xr.errors import WriteError

    with (
        patch("pathlib.Path.replace", side_effect=OSError(28, "No space left on device")),
        pytest.raises(WriteError, match=r"000000\.png: cannot be written: No space left on device"),
    ):
        made(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert areas(made(tmp_path)) == AREAS


LARGE = {"images": np.zeros((2, 16, 16, 3), np.uint8), "labels": np.ones((2, 4, 16), int)}

REFUSED = {
    "floats": ({"images": PIXELS / 255}, r"images: expected whole numbers from 0 to 255, got float64"),
    "too large": ({"images": PIXELS.astype(int) + 200}, r"images: expected whole numbers from 0 to 255, got int64 up"),
    "channels": ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, r"images: expected 1 or 3 channels"),
    "channels first": ({"images": PIXELS.transpose(0, 3, 1, 2)}, r"images: expected 1 or 3 channels in the last dim"),
    "one image": ({"images": PIXELS[0, 0]}, r"images: expected an array .* got the shape \(4, 3\)"),
    "other dims": ({"images": xr.DataArray(PIXELS, dims=("n", "y", "x", "c"))}, r"images: expected dims \('image'"),
    "fewer labels": ({"labels": LABELS[:1]}, r"annotations: expected those of 2 images, got 1"),
    "float labels": ({"labels": LABELS / 1}, r"annotations: expected whole numbers from 0 to 65535, got float64"),
    "negative labels": ({"labels": LABELS - 1}, r"annotations: expected whole numbers .* from -1 to 2 in image '0+'"),
    "names": ({"names": ["a"]}, r"names: expected one for each of the 2 images, got 1"),
    "same names": ({"names": ["a", "a.png"]}, r"names: 'a' occurs more than once"),
    "names outside": ({"names": ["../a", "b"]}, r"'\.\./a\.png' lies outside"),
    "whole": ({"whole": [[8], []]}, r"whole: number 8 of image '000000' is no concept"),
    "concepts": ({"concepts": {0: "sky"}}, r"number 0 means unlabelled"),
    "unknown": ({"concepts": {1: "road"}}, r"000000_0\.png: holds label 2, which is no concept"),
    "proportions": (LARGE, r"4 x 16 pixels, in other proportions than its image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, kind):
    changed, message = REFUSED[kind]
    with pytest.raises(DissectError, match=message):
        made(tmp_path, **changed)
    assert not (tmp_path / "markers/probe.zarr/done.json").exists()


def test_an_object_store_has_no_place_for_images():
    with pytest.raises(DissectError, match=r"images are written beside the probe as files\. Name a local path"):
        probe_from_arrays(PIXELS, LABELS, CONCEPTS, "s3://bucket/probe.zarr")
