"""Colour names: prototypes name themselves, everyday colours get theirs, photographs agree with published maps."""

import csv

import numpy as np
import pytest
from checkout import shared
from PIL import Image

from dissect_xr.probe.colors import COLOR_NAMES, PROTOTYPES, color_labels, lab


def name_of(*rgb: int) -> str:
    return COLOR_NAMES[int(color_labels(np.array(rgb, dtype=np.uint8))) - 1]


def test_each_prototype_has_its_own_name():
    assert color_labels(PROTOTYPES).tolist() == list(range(1, 12))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((255, 0, 0), "red"),
        ((0, 128, 0), "green"),
        ((0, 255, 0), "green"),
        ((0, 0, 255), "blue"),
        ((255, 255, 0), "yellow"),
        ((255, 165, 0), "orange"),
        ((128, 0, 128), "purple"),
        ((255, 192, 203), "pink"),
        ((139, 69, 19), "brown"),
    ],
)
def test_css_colours_keep_their_names(rgb, name):
    assert name_of(*rgb) == name


@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 6, 3), (2, 4, 6, 3), (0, 3)])
def test_labels_drop_only_the_channel_axis(shape):
    labels = color_labels(np.zeros(shape, dtype=np.uint8))
    assert labels.shape == shape[:-1]
    assert labels.dtype == np.uint8


def test_every_pixel_has_a_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    labels = color_labels(pixels)
    assert labels.min() >= 1
    assert labels.max() <= 11


def test_table_agrees_with_the_exact_nearest_prototype():
    pixels = np.random.default_rng(1).integers(0, 256, (5000, 3), dtype=np.uint8)
    distance = ((lab(pixels)[:, None] - lab(PROTOTYPES)[None]) ** 2).sum(axis=-1)
    agreement = float((color_labels(pixels) == distance.argmin(axis=1) + 1).mean())
    assert agreement > 0.97  # differs only within 2 levels of a border


@pytest.mark.parametrize("wrong", [np.zeros((4, 3)), np.zeros((4, 4), dtype=np.uint8), np.uint8(3)])
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="uint8 pixels of shape"):
        color_labels(wrong)


@pytest.mark.data
def test_agrees_with_the_colour_maps_of_camvid():
    folder = shared("camvid_broden")
    with (folder / "label.csv").open(newline="") as file:
        names = {int(row["number"]): row["name"] for row in csv.DictReader(file)}
    number_to_label = np.zeros(65536, dtype=np.uint8)
    for number, name in names.items():
        if name.endswith("-c"):
            number_to_label[number] = COLOR_NAMES.index(name.removesuffix("-c")) + 1
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:60]
    same = []
    for row in rows:
        rgb = np.asarray(Image.open(folder / "images" / row["image"]).convert("RGB"))
        published = np.asarray(Image.open(folder / "images" / row["color"])).astype(np.int64)
        block_mean = rgb.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
        same.append(color_labels(block_mean) == number_to_label[published[..., 0] + 256 * published[..., 1]])
    assert np.mean(same) >= 0.70
