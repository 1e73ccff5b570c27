"""Whole runs on what people feed: turned photographs, links, masks of other names; what is passed over is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from oriented import DISPLAYED, exif, stored_for
from PIL import Image

pytest.importorskip("torch")

import runs

from dissect_xr import store
from dissect_xr.analysis.results import open_dissection
from dissect_xr.analysis.scores import iou
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.probe.ingest import open_probe

NETWORK = """
import torch
from torch import nn


class Bright(nn.Module):
    \"\"\"One unit, whose activation is how bright a pixel is.\"\"\"

    def __init__(self):
        super().__init__()
        self.bright = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.bright.weight, 1 / 3)

    def forward(self, x):
        return self.bright(x).mean((2, 3))
"""

RECIPE = """
probe:
  kind: masks
  image_folder: ${here}/images
  mask_folder: ${here}/masks
  concepts: ${here}/concepts.yaml
model:
  factory: ${here}/network.py:Bright
  input_size: [48, 32]
  snapshots: [{name: only}]
layers: [bright]
activations: {dtype: float32, threads: 1}
dissect: {fractions: [0.25]}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a recipe, a network and a concept, for images and masks."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "concepts.yaml").write_text("1: bright\n")
    return tmp_path


def run(folder: Path, *settings: str, code: int = 0, command: str = "run") -> str:
    """The output directory of a run with these settings."""
    out = str(folder / "run")
    given = [word for setting in settings for word in ("--set", setting)]
    assert runs.call(command, str(folder / "recipe.yaml"), "--out", out, "--quiet", *given) == code
    return out


def ious(out: str) -> list[float]:
    return iou(open_dissection(store.join(out, "dissection.zarr"))).values.ravel().tolist()


SHOWN = np.zeros((48, 32), np.uint8)
SHOWN[:24, :16] = 255
SHOWN[24:28, :4] = 128
"""What is displayed: six white blocks of 8 x 8 pixels, and 4 x 4 grey ones below them. JPEG keeps flat blocks."""

MASK = (SHOWN > 0).astype(np.uint8)


def test_a_photograph_on_its_side_has_its_labels_where_they_were_drawn(folder):
    # The fraction 0.25 of 48 x 32 pixels are 384, the white ones: T is the grey of the others. 400 pixels are labelled,
    # so the IoU is 384 / 400. On the stored pixels, 32 x 48, a mask squeezed onto them gives 0.35 or so.
    Image.fromarray(stored_for(6, SHOWN)).save(folder / "images/a.jpg", quality=100, exif=exif(6))
    Image.fromarray(MASK).save(folder / "masks/a.png")
    with Image.open(folder / "images/a.jpg") as image:
        assert image.size == (48, 32)
    out = run(folder)
    assert ious(out) == [0.96]
    (one,) = exemplars(
        open_dissection(store.join(out, "dissection.zarr")).isel(snapshot=0, fraction=0),
        Stores(store.join(out, "activations.zarr"), store.join(out, "probe.zarr")),
        ["bright/0"],
        k=1,
        size=48,
        show=False,
    )
    picture = one["picture"].values[0]  # 48 x 48, the image in columns 8 to 39
    assert (picture[:22, 8:22] > 250).all()
    assert (picture[30:, 8:40] < 5).all()
    assert (picture[:, 26:40] < 5).all()


def test_the_report_shows_what_was_dissected(folder):
    for name, orientation in (("a", 6), ("b", 1)):
        pixels = stored_for(orientation, SHOWN)
        Image.fromarray(pixels).save(folder / f"images/{name}.png", exif=exif(orientation))
        Image.fromarray(MASK).save(folder / f"masks/{name}.png")
    out = run(folder)
    run(folder, command="report")
    (strip,) = Path(out, "report").rglob("*.jpg")
    with Image.open(strip) as image:
        shown = np.asarray(image.convert("L")).astype(int)
    side = shown.shape[0]
    first, second = shown[:, :side], shown[:, side : 2 * side]
    assert abs(first - second).max() <= 8  # but for JPEG, the turned image looks as the one that needed no turn
    assert np.ptp(first) > 200


@pytest.mark.filterwarnings("default:.*is begun anew")
@pytest.mark.parametrize("asked", ["displayed", "stored"])
def test_every_orientation_is_the_same_to_labels_colours_and_model(folder, asked):
    mask = np.zeros((32, 32), np.uint8)
    mask[0, 0] = 1
    shown = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for orientation in DISPLAYED:
        pixels = stored_for(orientation, shown) if asked == "displayed" else shown
        Image.fromarray(pixels).save(folder / f"images/{orientation}.png", exif=exif(orientation))
        Image.fromarray(mask).save(folder / f"masks/{orientation}.png")
    size = "model.input_size=[32,32]"
    run(folder, size, "probe.colors=true", code=3)  # square: nothing says which form the masks follow
    out = run(folder, size, "probe.colors=true", f"probe.orientation={asked}")
    labels = open_probe(store.join(out, "probe.zarr"))["annotation"].values
    activation = store.read(store.join(out, "activations.zarr"), "only/bright/activation")[:]
    np.testing.assert_allclose(activation[0, 0], shown.mean(2) / 255, atol=1e-6)
    for image in range(1, 8):
        np.testing.assert_array_equal(labels[image], labels[0])
        np.testing.assert_array_equal(activation[image], activation[0])


def test_links_of_ones_own_are_followed_by_every_stage(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for kind in ("images", "masks"):
        (elsewhere / kind).mkdir()
        (folder / kind / "x").symlink_to(elsewhere / kind)
    Image.fromarray(SHOWN).save(elsewhere / "images/a.png")
    Image.fromarray(MASK).save(elsewhere / "masks/a.png")
    run(folder, code=2)
    out = run(folder, "probe.follow_links=true")
    assert ious(out) == [0.96]
    run(folder, "probe.follow_links=true", command="report")
    assert len([*Path(out, "report").rglob("*.jpg")]) == 1


def test_masks_that_count_from_0_and_have_other_names(folder, capsys):
    (folder / "images/x").mkdir()
    (folder / "masks/x").mkdir()
    Image.fromarray(SHOWN).save(folder / "images/x/a_left.png")
    Image.fromarray(np.where(MASK == 1, 0, 255).astype(np.uint8)).save(folder / "masks/x/a_labelIds.PNG")
    (folder / "masks/x/a_color.png").touch()
    (folder / "images/x/notes.txt").touch()
    (folder / "concepts.yaml").write_text("0: bright\n")
    run(folder, code=2)
    assert "number 0 means unlabelled" in capsys.readouterr().err
    names = ["probe.image_name='{stem}_left.png'", "probe.mask_name='{stem}_labelIds.png'"]
    out = run(folder, *names, "probe.offset=1", "probe.unlabelled=255")
    assert ious(out) == [0.96]
    assert "1 files are not read as images: 1 .txt (x/notes.txt)" in capsys.readouterr().err


def test_a_run_says_which_images_it_leaves_out(folder, capsys):
    for n in range(5):
        Image.fromarray(SHOWN).save(folder / f"images/{n}.png")
        Image.fromarray(MASK if n else MASK * 255).save(folder / f"masks/{n}.png")
    (folder / "images/4.png").write_bytes(b"no image")
    out = run(folder, "skip_bad_images=true")
    said = capsys.readouterr().err
    assert "2 of 5 images are left out (skip_bad_images):" in said
    assert "1: label map: it holds numbers that are no concepts: 255 in 1 (0.png). If they mean no label, " in said
    assert "`ignore: [255]` mends all of them." in said
    assert "1: it is no image that can be read (4.png)." in said
    assert open_probe(store.join(out, "probe.zarr"))["image"].values.tolist() == ["1.png", "2.png", "3.png"]
    shutil.rmtree(out)
    for n in range(1, 3):
        Image.fromarray(MASK * 255).save(folder / f"masks/{n}.png")
    run(folder, "skip_bad_images=true", code=2)
    assert "3 of 5 images have one fault" in capsys.readouterr().err
    run(folder, "skip_bad_images=true", "probe.ignore=[255]")
    assert "1 of 5 images are left out" in capsys.readouterr().err
