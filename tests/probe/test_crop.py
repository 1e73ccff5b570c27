"""A model that sees the centre of each image is dissected on the centre of each image, exactly."""

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("torch")

import runs
import stores

from dissect_xr import store
from dissect_xr.activations.images import read_image
from dissect_xr.activations.request import Preprocess
from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.pictures import read_picture
from dissect_xr.probe.block import image_blocks, read_maps
from dissect_xr.probe.crop import Crop, stored_crop
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.pixels import nearest
from dissect_xr.probe.readers.broden import read_broden

pytestmark = pytest.mark.usefixtures("no_figures")

AS_TORCHVISION = [
    # (height, width), Resize, CenterCrop -> (top, left), (height, width) after Resize
    ((480, 640), 256, (224, 224), (16, 58), (256, 341)),
    ((640, 480), 256, (224, 224), (58, 16), (341, 256)),
    ((375, 500), 256, (224, 224), (16, 58), (256, 341)),
    ((100, 100), 256, (224, 224), (16, 16), (256, 256)),
    ((227, 300), 227, (227, 227), (0, 36), (227, 300)),
    ((33, 50), 33, (32, 31), (0, 10), (33, 50)),
    ((7, 2), 9, (4, 8), (14, 0), (31, 9)),
]


@pytest.mark.parametrize(("shape", "resize", "size", "corner", "resized"), AS_TORCHVISION)
def test_sizes_and_corners_are_those_of_torchvision(shape, resize, size, corner, resized):
    rows, cols = Crop(resize, size).part(*shape)
    assert (rows, cols) == ((corner[0], size[0], resized[0]), (corner[1], size[1], resized[1]))


def test_pixels_are_resized_and_cut(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    wanted = np.asarray(Image.fromarray(noise).resize((27, 20), Image.Resampling.BILINEAR))[2:18, 6:22]
    preprocess = Preprocess((16, 16), resize=20)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (16, 16), crop=preprocess.crop), wanted)
    np.testing.assert_array_equal(read_picture(Folder(str(tmp_path)), "a.png", 16, crop=preprocess.crop), wanted)
    assert Preprocess((16, 16)).crop is None


@given(
    there=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    image=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    more=st.integers(0, 9),
)
def test_each_label_is_the_one_under_the_centre_of_its_pixel(there, image, grid, size, more):
    labels = np.arange(there[0] * there[1]).reshape(there)
    part = Crop(max(size) + more, size).part(*image)
    places = []
    for cells, length, (first, seen, whole) in zip(grid, there, part, strict=True):
        centres = [Fraction(first) + (cell + Fraction(1, 2)) * Fraction(seen, cells) for cell in range(cells)]
        places.append([int(centre / whole * length) for centre in centres])
    np.testing.assert_array_equal(nearest(labels, grid, part), labels[np.ix_(*places)])


def test_labels_outside_are_in_no_count(tmp_path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    labels = np.full((60, 100), 1, np.uint16)
    labels[:, :20] = 2  # the part that is seen begins at column 20
    labels[25:35, 45:55] = 3
    stores.save_labels(folder / "images" / "map.png", labels)
    Image.new("RGB", (100, 60)).save(folder / "images" / "a.png")
    (folder / "index.csv").write_text("image,split,ih,iw,sh,sw,object,part\na.png,train,60,100,60,100,map.png,\n")
    (folder / "label.csv").write_text("number,name,category\n1,sky,object\n2,edge,part\n3,bird,object\n")
    (folder / "category.csv").write_text("name\nobject\npart\n")
    label_set = read_broden(folder, label_size=(60, 60)).cropped(Crop(60, (60, 60)))
    write_probe(label_set, str(tmp_path / "probe.zarr"), show=False)
    found = {name: store.read(str(tmp_path / "probe.zarr"), name)[:].tolist() for name in
             ("concept", "concept_area", "concept_images", "annotated")}  # fmt: skip
    assert found == {
        "concept": [1, 2, 3],
        "concept_area": [60 * 60 - 100, 0, 100],
        "concept_images": [1, 0, 1],
        "annotated": [[True, False]],
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of 64 x 64 with labels, and the same ones cut to their central 48 x 40 beforehand."""
    folder = tmp_path_factory.mktemp("images")
    write_digits(folder / "whole", images=20, size=64)
    write_digits(folder / "cut", images=20, size=64)
    for path in (folder / "cut" / "images").rglob("*.png"):
        with Image.open(path) as image:
            step = image.width // 16  # label maps may be coarser than images
            cut = image.crop((3 * step, 2 * step, 13 * step, 14 * step))
        cut.save(path)
    lines = (folder / "cut" / "index.csv").read_text().splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    for row in rows:
        for name, side in (("ih", 12), ("iw", 10), ("sh", 12), ("sw", 10)):
            place = header.index(name)
            row[place] = str(int(row[place]) * side // 16)
    (folder / "cut" / "index.csv").write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    return folder


def arguments(folder: Path, images: Path, *overrides: str) -> list[str]:
    recipe = runs.write_recipe(folder / "recipe", runs.RECIPE.replace("input_size: 24", "input_size: [48, 40]"))
    sets = [f"data={images}", "probe.label_size=[24, 20]", *overrides]
    return [str(recipe), "--quiet", *(word for one in sets for word in ("--set", one))]


def test_a_cropped_run_equals_a_run_on_images_that_were_cut_before(images, tmp_path):
    cropped = arguments(tmp_path, images / "whole", "model.preprocess.resize=64", "probe.colors=true",
                        "probe.categories=[object, part, scene, texture]")  # fmt: skip
    before = arguments(tmp_path, images / "cut", "probe.colors=true",
                       "probe.categories=[object, part, scene, texture]")  # fmt: skip
    for name, given_ in (("cropped", cropped), ("before", before)):
        assert runs.call("run", *given_, "--out", str(tmp_path / name)) == 0
    got, wanted = runs.contents(str(tmp_path / "cropped")), runs.contents(str(tmp_path / "before"))
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, tuple):
            assert got[name] == value, name
    assert got["probe.zarr:"]["parameters"]["crop"] == {"resize": 64, "size": [48, 40]}
    assert runs.call("report", *cropped[:2], *cropped[2:], "--out", str(tmp_path / "cropped"), "--exemplars", "2") == 0


def test_part_and_labels_must_agree(images, tmp_path, capsys):
    given_ = [*arguments(tmp_path, images / "whole"), "--out", str(tmp_path / "run")]
    assert runs.call("probe", *given_) == 0
    assert runs.call("extract", *given_, "--set", "model.preprocess.resize=64") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "its labels are of whole images, but the preprocessing gives the model Crop(resize=64, size=(48, 40))" in said
    )
    assert runs.call("run", *given_, "--set", "model.preprocess.resize=64") == 2
    assert "parameters.crop was None, is {'resize': 64, 'size': [48, 40]}" in capsys.readouterr().err
    assert runs.call("run", *given_, "--set", "model.preprocess.resize=47") == 2
    assert "preprocess.resize 47: expected" in capsys.readouterr().err


def test_activations_of_whole_images_are_refused_with_labels_of_a_part(images, tmp_path):
    given_ = [*arguments(tmp_path, images / "whole"), "--out", str(tmp_path / "run")]
    for command in ("probe", "extract"):
        assert runs.call(command, *given_) == 0
    probe = str(tmp_path / "part.zarr")
    write_probe(read_broden(images / "whole", label_size=(24, 20)).cropped(Crop(64, (48, 40))), probe, show=False)
    with pytest.raises(DissectError, match="the probe's names, but other pixels"):
        dissect(str(tmp_path / "run" / "activations.zarr"), probe, str(tmp_path / "d.zarr"), show=False)


def test_a_stored_crop_is_the_one_that_was_given():
    crop = Crop(256, (224, 200))
    assert stored_crop({"crop": crop.parameters}) == crop
    assert stored_crop({}) is None


def test_an_endless_strip_is_refused_by_name(images, tmp_path):
    strip = tmp_path / "strip.png"
    Image.new("RGB", (60_000, 1)).save(strip)
    crop = Crop(64, (48, 40))
    with pytest.raises(DissectError, match="3840000 x 64 pixels after resizing"):
        crop.part(1, 60_000)
    with pytest.raises(DissectError, match=r"strip\.png: 3840000 x 64 pixels after resizing"):
        read_image(strip, (48, 40), crop=crop)
    label_set = read_broden(images / "whole", label_size=(24, 20)).cropped(crop)
    label_set = replace(label_set, images=str(tmp_path), rows=(replace(label_set.rows[0], image=strip.name, maps=()),))
    (block,) = image_blocks(label_set, 1)
    with pytest.raises(DissectError, match=r"strip\.png: 3840000 x 64 pixels after resizing"):
        read_maps(block, block.rows[0], hashlib.sha256(), hashlib.sha256())
