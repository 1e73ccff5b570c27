"""Pixels come out as stored, and what cannot be decoded names its file."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.request import Preprocess
from dissect_xr.errors import DissectError

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_pixels_of_the_right_size_are_as_stored(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.fromarray(NOISE))
    np.testing.assert_array_equal(read_image(path, (6, 9)), NOISE)


def test_other_sizes_are_resized_as_pillow_does(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.fromarray(NOISE))
    expected = np.asarray(Image.fromarray(NOISE).resize((7, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read_image(path, (4, 7)), expected)


GREY = NOISE[:, :, 0]


@pytest.mark.parametrize("name", ["grey", "bits", "sixteen", "alpha", "palette", "clear palette", "grey alpha"])
def test_every_kind_of_pixel_becomes_rgb(name: str, tmp_path: Path):
    grey = np.dstack([GREY] * 3)
    images = {
        "grey": (Image.fromarray(GREY), {}, grey),
        "bits": (Image.fromarray(GREY > 127), {}, np.where(grey > 127, 255, 0)),
        "sixteen": (Image.fromarray(GREY.astype(np.uint16) * 256 + 200), {}, grey),
        "alpha": (Image.fromarray(np.dstack([NOISE, GREY])), {}, NOISE),
        "palette": (Image.fromarray(GREY).convert("P"), {}, grey),
        "clear palette": (Image.fromarray(GREY).convert("P"), {"transparency": bytes(range(256))}, grey),
        "grey alpha": (Image.fromarray(np.dstack([GREY, GREY]), "LA"), {}, grey),
    }
    image, options, expected = images[name]
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", image, **options), (6, 9)), expected)


def test_pixels_without_a_range_are_refused(tmp_path: Path):
    path = saved(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(DissectError, match=r"a\.tif has 32-bit pixels"):
        read_image(path, (6, 9))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp"])
def test_a_damaged_file_is_named(suffix: str, tmp_path: Path):
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(np.tile(NOISE, (20, 20, 1))))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"text", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(DissectError, match=path.name):
            read_image(path, (6, 9))


def test_missing_files_and_directories_are_named(tmp_path: Path):
    with pytest.raises(DissectError, match=r"absent\.jpg: expected an image, found no file"):
        read_image(tmp_path / "absent.jpg", (6, 9))
    with pytest.raises(DissectError, match="expected an image, found a folder"):
        read_image(tmp_path, (6, 9))


def test_huge_images_are_refused_before_decoding(tmp_path: Path):
    path = saved(tmp_path / "a.png", Image.new("1", (3000, 2000)))
    with pytest.raises(DissectError, match=r"3000 x 2000 pixels, more than the 5,000,000 allowed"):
        read_image(path, (6, 9), max_pixels=5_000_000)
    bomb = saved(tmp_path / "bomb.png", Image.new("1", (20_000, 10_000)))
    with pytest.raises(DissectError, match=r"bomb\.png is larger than Pillow decodes"):
        read_image(bomb, (6, 9), max_pixels=10**12)


def test_threads_decode_the_same_pixels(tmp_path: Path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(np.tile(NOISE, (20, 20, 1))))
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda _: read_image(path, (50, 60)), range(32)))
    assert all(np.array_equal(decoded[0], other) for other in decoded)


def test_input_is_scaled_then_centred_then_divided():
    preprocess = Preprocess((6, 9), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    expected = (NOISE / 255 - [0.5, 0.25, 0.0]) / [0.5, 1.0, 2.0]
    found = to_input(preprocess, NOISE[None])
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_bgr_reverses_the_channels_before_the_means():
    preprocess = Preprocess((6, 9), mean=(104.0, 117.0, 123.0), scale=1.0, channels="BGR")
    found = to_input(preprocess, NOISE[None])[0].numpy()
    np.testing.assert_array_equal(found[0], NOISE[:, :, 2] - np.float32(104))


def test_read_only_batches_are_taken():
    batch = np.broadcast_to(NOISE, (2, 6, 9, 3))
    assert to_input(Preprocess((6, 9)), batch).shape == (2, 3, 6, 9)


@pytest.mark.parametrize("batch", [NOISE, NOISE[None, :5], NOISE[None].astype(np.float32), NOISE[None, :, :, :1]])
def test_batches_of_another_form_are_refused(batch: np.ndarray):
    with pytest.raises(DissectError, match=r"expected uint8 images \(n, 6, 9, 3\)"):
        to_input(Preprocess((6, 9)), batch)


FUNCTIONS = """
import torch
def halves(batch): return torch.as_tensor(batch).permute(0, 3, 1, 2) / 2
def grey(batch): return torch.as_tensor(batch).float().mean(3)[:, None]
def bytes_(batch): return torch.as_tensor(batch).permute(0, 3, 1, 2)
def arrays(batch): return batch
def fails(batch): return batch.no_such_thing
"""


def test_a_function_may_replace_the_arithmetic(tmp_path: Path):
    (tmp_path / "f.py").write_text(FUNCTIONS)

    def called(name: str) -> torch.Tensor:
        return to_input(Preprocess((6, 9), callable=f"{tmp_path / 'f.py'}:{name}"), NOISE[None])

    np.testing.assert_array_equal(called("halves")[0, 2], NOISE[:, :, 2] / 2)
    assert called("grey").shape == (1, 1, 6, 9)
    for name, got in (("bytes_", "torch.uint8"), ("arrays", "a ndarray")):
        with pytest.raises(DissectError, match=rf"must return a float tensor \(1, channel, 6, 9\), got {got}"):
            called(name)
    with pytest.raises(DissectError, match="fails failed: AttributeError"):
        called("fails")


@pytest.mark.parametrize(
    "faulty", [{"size": (0, 9)}, {"mean": (1.0,)}, {"std": (1.0, 0.0, 1.0)}, {"scale": 0}, {"channels": "YUV"}]
)
def test_settings_that_cannot_be_are_refused(faulty: dict):
    with pytest.raises(DissectError):
        Preprocess(**{"size": (6, 9), **faulty})
