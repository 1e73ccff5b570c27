"""Any probe, written in the Broden layout and read back, is equal: labels, domains, ignored pixels, images."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import published_sets as sets
import pytest
import stores
import strategies
import xarray as xr
from federated import federated
from hypothesis import given, settings
from hypothesis import strategies as st
from oriented import exif
from PIL import Image
from runs import call

from dissect_xr.cli.recipe import BrodenProbe
from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import DissectError, WriteError
from dissect_xr.io.broden import _check_annotated, _Layout, write_broden
from dissect_xr.io.spread import map_size, spread
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.orientation import fits
from dissect_xr.probe.pixels import nearest, read_rgb
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.readers.scenes.pascal_part import read_pascal_part
from dissect_xr.probe.readers.scenes.voc import read_voc
from dissect_xr.probe.readers.unpacked.arrays import About, probe_from_arrays
from dissect_xr.probe.root import image_folder


def read_back(fields: dict[str, Any]) -> LabelSet:
    """The label set that a recipe with these fields has."""
    part = BrodenProbe.model_validate(fields)
    return read_broden(part.folder, label_size=part.label_size, void=part.void)


def again(url: str, folder: Path, crop: Crop | None = None) -> str:
    """The probe, written in the Broden layout and read back."""
    fields = write_broden(url, folder / "broden", pool=Threads(1), show=False)
    other = str(folder / "again.zarr")
    write_probe(read_back(fields).cropped(crop), other, show=False)
    return other


IN_ANOTHER_ORDER = ("whole_image", "plane_category")


def assert_equal(one: str, other: str) -> None:
    """Every variable and coordinate is the same; labels of whole images in any order, planes as well."""
    a, b = open_probe(one).load(), open_probe(other).load()
    for name in [name for name in (*a.variables, *b.variables) if name not in (*IN_ANOTHER_ORDER, "annotation")]:
        xr.testing.assert_equal(a[name].variable, b[name].variable)
    whole = [[sorted(set(row) - {0}) for row in data["whole_image"].values.tolist()] for data in (a, b)]
    assert whole[0] == whole[1]
    order = np.argsort(
        [a["category"].values.tolist().index(c) for c in a["plane_category"].values.tolist()], kind="stable"
    )
    assert np.array_equal(a["annotation"].values[:, order], b["annotation"].values)
    assert a["plane_category"].values[order].tolist() == b["plane_category"].values.tolist()


def pixels(url: str, name: str) -> np.ndarray:
    folder: Folder = image_folder(url)
    return np.asarray(read_rgb(folder.path(name), orientation=folder.orientation(name)))


@settings(max_examples=12)
@given(st.data())
def test_federated_probes_with_ignored_pixels_come_back(data):
    one = data.draw(federated())
    with stores.scratch() as folder:
        url = one.write(folder)
        assert_equal(url, again(url, folder))


@settings(max_examples=6)
@given(strategies.probes(max_images=5))
def test_probes_come_back_and_so_do_their_counts(case):
    with stores.scratch() as folder:
        url = stores.write_probe_case(case, folder)
        other = again(url, folder)
        assert_equal(url, other)
        maps = np.random.default_rng(0).random((len(case.annotation), 3, 2, 2)).astype(np.float32)
        found = []
        for name, probe in (("a", url), ("b", other)):
            (folder / name).mkdir()
            activations = stores.write_layers(folder / name, probe, {"conv": maps})
            dissect(activations, probe, folder / name / "out.zarr", method=stores.method([0.1]), show=False)
            found.append(stores.stored(str(folder / name / "out.zarr"), "s/conv"))
        stores.assert_same(*found)


def test_the_digits_come_back(tmp_path):
    write_digits(tmp_path / "digits", images=8, show=False)
    write_probe(read_broden(tmp_path / "digits"), tmp_path / "probe.zarr", show=False)
    other = again(str(tmp_path / "probe.zarr"), tmp_path)
    assert_equal(str(tmp_path / "probe.zarr"), other)
    for name in open_probe(other)["image"].values.tolist():
        assert (tmp_path / "broden/images" / name).read_bytes() == (tmp_path / "digits/images" / name).read_bytes()
    one, two = (open_probe(url).attrs["images_sha256"] for url in (tmp_path / "probe.zarr", other))
    assert one == two  # activations of the one are those of the other


def test_the_tables_are_those_of_broden(tmp_path):
    labels = np.array([[[1, 1], [1, 0]], [[1, 300], [0, 0]]])
    url = tmp_path / "probe.zarr"
    concepts = {1: "sky", 300: {"name": "door, gate", "category": "part"}, 5: {"name": "street-s", "category": "scene"}}
    probe_from_arrays(
        np.zeros((2, 4, 4, 3), np.uint8), labels, concepts, url, label_size=(2, 2), show=False,
        about=About(names=["b", "a/c"], whole=[[5], []], splits=["train", "val"]),
    )  # fmt: skip
    fields = write_broden(url, tmp_path / "broden", show=False)
    assert fields == {"kind": "broden", "folder": str(tmp_path / "broden")}
    texts = {path.name: path.read_bytes().decode() for path in (tmp_path / "broden").glob("*.csv")}
    assert texts["index.csv"] == (
        "image,split,ih,iw,sh,sw,object,scene,part\r\n"
        "b.png,train,4,4,2,2,b_object.png,5,\r\n"
        "a/c.png,val,4,4,2,2,a/c_object.png,,\r\n"
    )
    assert texts["label.csv"] == (
        "number,name,category,frequency,coverage,syns\r\n"
        '1,sky,object(2),2,1.0,\r\n5,street-s,scene(1),1,1.0,\r\n300,"door, gate",part(1),1,0.25,\r\n'
    )
    assert texts["category.csv"] == (
        "name,first,last,count,frequency\r\nobject,1,1,1,2\r\nscene,5,5,1,1\r\npart,300,300,1,1\r\n"
    )
    assert texts["c_part.csv"] == 'code,number,name,frequency,coverage\r\n1,300,"door, gate",1,0.25\r\n'
    with Image.open(tmp_path / "broden/images/a/c_object.png") as image:
        assert np.asarray(image).tolist() == [[[1, 0, 0], [300 % 256, 1, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_ignored_pixels_have_a_number_that_has_to_be_given(tmp_path):
    write_probe(read_voc(sets.voc(tmp_path / "set")), tmp_path / "probe.zarr", show=False)
    url = str(tmp_path / "probe.zarr")
    fields = write_broden(url, tmp_path / "broden", show=False)
    assert fields["void"] == [21]
    with pytest.raises(DissectError, match=r"_object\.png: holds label 21, which is no concept"):
        write_probe(read_broden(tmp_path / "broden"), tmp_path / "naive.zarr", show=False)
    other = str(tmp_path / "again.zarr")
    write_probe(read_back(fields), other, show=False)
    assert_equal(url, other)


def test_parts_keep_their_wholes_and_planes(tmp_path):
    root = sets.pascal_part(tmp_path / "set")
    found = read_pascal_part(root / "part", image_folder=root / "VOC2010/JPEGImages")
    write_probe(found, tmp_path / "probe.zarr", show=False)
    assert_equal(str(tmp_path / "probe.zarr"), again(str(tmp_path / "probe.zarr"), tmp_path))


SIZES = {"wide": (30, 50), "tall": (61, 20), "small": (3, 4), "a line": (1, 40)}


@pytest.mark.parametrize("kind", SIZES)
def test_images_of_other_proportions_than_the_grid_come_back(tmp_path, kind):
    height, width = SIZES[kind]
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (3, height, width))
    images = random.integers(0, 256, (3, height, width, 3), np.uint8)
    url = tmp_path / "probe.zarr"
    probe_from_arrays(images, labels, {1: "a", 2: "b", 3: "c"}, url, label_size=(16, 16), show=False)
    fields = write_broden(url, tmp_path / "broden", show=False)
    assert fields.get("label_size") == (None if kind == "small" else [16, 16])  # 3 x 4 may be rounded from a square
    write_probe(read_back(fields), tmp_path / "again.zarr", show=False)
    assert_equal(str(url), str(tmp_path / "again.zarr"))


SIDE = st.integers(1, 40)


@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 2**32 - 1))
def test_sampling_a_spread_map_gives_the_grid_back(height, width, rows, cols, seed):
    labels = np.random.default_rng(seed).integers(0, 65536, (rows, cols)).astype(np.uint16)
    size = map_size((height, width), (rows, cols))
    assert fits((height, width), size)
    found = spread(labels, size)
    assert found.shape == size
    assert np.array_equal(nearest(found, (rows, cols)), labels)


@given(SIDE, SIDE, st.integers(1, 60), st.integers(1, 60), st.integers(0, 30), SIDE, SIDE, st.integers(0, 2**32 - 1))
def test_and_so_it_does_for_a_part_of_the_image(height, width, tall, wide, more, rows, cols, seed):
    """What a model with `resize` and a centred crop of tall x wide sees."""
    crop = Crop(max(tall, wide) + more, (tall, wide))
    part = crop.part(height, width)
    labels = np.random.default_rng(seed).integers(1, 65536, (rows, cols)).astype(np.uint16)
    size = map_size((height, width), (rows, cols), part)
    assert fits((height, width), size)
    assert np.array_equal(nearest(spread(labels, size, part), (rows, cols), part), labels)


def test_a_cropped_probe_comes_back_with_the_same_crop(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    random = np.random.default_rng(1)
    for n, (height, width) in enumerate([(40, 60), (64, 48), (50, 50)]):
        sets.save(images / f"{n}.png", random.integers(0, 256, (height, width, 3)))
        sets.save(masks / f"{n}.png", random.integers(0, 4, (height, width)))
    (tmp_path / "concepts.yaml").write_text("1: a\n2: b\n3: c")
    crop = Crop(24, (20, 16))
    found = read_masks(images=images, masks=masks, concepts=tmp_path / "concepts.yaml", label_size=(9, 7)).cropped(crop)
    write_probe(found, tmp_path / "probe.zarr", show=False)
    url = str(tmp_path / "probe.zarr")
    assert_equal(url, again(url, tmp_path, crop))


def test_a_turned_photograph_is_saved_as_it_is_displayed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    stored = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (24, 16), np.uint8)
    Image.fromarray(stored).save(tmp_path / "images/a.png", exif=exif(6))
    Image.fromarray(labels).save(tmp_path / "masks/a.png")
    sets.save(tmp_path / "images/b.png", stored[:, ::-1])
    sets.save(tmp_path / "masks/b.png", labels.T)
    (tmp_path / "concepts.yaml").write_text("1: a\n2: b")
    found = read_masks(
        images=tmp_path / "images", masks=tmp_path / "masks", concepts=tmp_path / "concepts.yaml", label_size=(12, 12)
    )
    write_probe(found, tmp_path / "probe.zarr", show=False)
    url, other = str(tmp_path / "probe.zarr"), again(str(tmp_path / "probe.zarr"), tmp_path)
    assert open_probe(url).attrs["turned"] == {"a.png": 6}
    assert_equal(url, other)
    for name in ("a.png", "b.png"):
        assert np.array_equal(pixels(url, name), pixels(other, name))


def test_names_that_would_collide_are_told_apart(tmp_path):
    labels = np.array([[[1, 2]], [[2, 2]], [[1, 1]], [[2, 1]]])
    images = np.arange(8, dtype=np.uint8).reshape(4, 1, 2)
    url = tmp_path / "probe.zarr"
    names = ["a", "A", "a_kind_1", "x;y"]
    concepts = {1: {"name": "one", "category": "kind 1"}, 2: {"name": "two", "category": "kind-1"}}
    probe_from_arrays(images, labels, concepts, url, about=About(names=names), show=False)
    assert_equal(str(url), again(str(url), tmp_path))
    with (tmp_path / "broden/index.csv").open(newline="") as file:
        cells = [row["kind 1"] for row in csv.DictReader(file)]
    assert cells == ["a_0_kind_1.png", "A_1_kind_1.png", "a_kind_1_kind_1.png", "x_y_kind_1.png"]


def test_categories_whose_files_would_collide_are_told_apart(tmp_path):
    planes = np.array([[[[1, 2]], [[2, 1]]]])
    concepts = {1: {"name": "one", "category": "a b"}, 2: {"name": "two", "category": "a_b"}}
    url = tmp_path / "probe.zarr"
    probe_from_arrays(np.zeros((1, 1, 2), np.uint8), planes, concepts, url, show=False)
    assert_equal(str(url), again(str(url), tmp_path))


@pytest.mark.parametrize(
    ("concepts", "about", "message"),
    [
        ({1: {"name": "a", "category": "split"}}, {}, r"category 'split': cannot be a column"),
        ({1: {"name": "a", "category": "b(2)"}}, {}, r"category 'b\(2\)': cannot be a column"),
        ({1: {"name": " a", "category": "b"}}, {}, r"concept ' a': a table of the Broden layout cannot hold this name"),
        ({1: "a"}, {"names": [" x"]}, r"image ' x\.png': a table of the Broden layout cannot hold this name"),
        ({1: "a"}, {"splits": ["x\ny"]}, r"split 'x\\ny': a table of the Broden layout"),
    ],
)
def test_names_that_no_table_can_hold_are_refused(tmp_path, concepts, about, message):
    url = tmp_path / "probe.zarr"
    probe_from_arrays(
        np.zeros((1, 1, 2), np.uint8), np.ones((1, 1, 2), int), concepts, url, about=About(**about), show=False
    )
    with pytest.raises(DissectError, match=message):
        write_broden(url, tmp_path / "broden", show=False)
    assert not (tmp_path / "broden").exists()


@pytest.fixture
def probe(tmp_path):
    """A small probe in the output directory of a run."""
    url = tmp_path / "run/probe.zarr"
    labels = np.array([[[1, 2]], [[2, 0]]])
    images = np.arange(4, dtype=np.uint8).reshape(2, 1, 2)
    probe_from_arrays(images, labels, {1: "a", 2: "b"}, url, about=About(void=[9]), show=False)
    return url


def test_what_merged_label_sets_know_besides_is_refused(tmp_path, probe):
    opened = open_probe(probe)
    with pytest.raises(DissectError, match=r"concept 'a': its domain 'object \(coco\)' is neither its category nor"):
        _Layout.of(opened.assign_coords(concept_domain=("concept", ["object (coco)", "object"])))
    layout = _Layout.of(opened)
    labels, nothing = np.array([[[1, 2]]], np.uint16), np.zeros((1, 1, 2), np.uint16)
    _check_annotated(layout, "x.png", (labels, np.array([0], np.uint16)), np.array([True]))
    for wrong in ((nothing, [True]), (labels, [False])):
        with pytest.raises(DissectError, match=r"x\.png: is annotated for \[.*\] and has labels of \[.*\], which"):
            _check_annotated(layout, "x.png", (wrong[0], np.array([0], np.uint16)), np.array(wrong[1]))


def test_a_folder_that_holds_something_is_refused(tmp_path, probe):
    (tmp_path / "broden").mkdir()
    write_broden(probe, tmp_path / "broden", show=False)
    with pytest.raises(DissectError, match="is no empty folder"):
        write_broden(probe, tmp_path / "broden", show=False)


def test_a_folder_without_an_index_is_what_an_interrupted_export_leaves(tmp_path, probe, monkeypatch):
    monkeypatch.setattr("dissect_xr.io.broden._write_tables", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_broden(probe, tmp_path / "broden", show=False)
    assert not (tmp_path / "broden/index.csv").exists()
    with pytest.raises(DissectError, match=r"category\.csv: expected a CSV file"):
        read_broden(tmp_path / "broden")


def test_a_full_disk_ends_with_a_message(tmp_path, probe, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(WriteError, match=r"000000\.png: cannot be written: No space left on device"):
        write_broden(probe, tmp_path / "broden", show=False)


def test_a_missing_image_is_named(tmp_path, probe):
    (tmp_path / "run/probe.files/images/000001.png").unlink()
    with pytest.raises(DissectError, match=r"000001\.png: expected an image, found no file"):
        write_broden(probe, tmp_path / "broden", show=False)


def test_on_the_command_line_a_run_is_exported_and_what_reads_it_is_said(tmp_path, probe, capsys):
    assert call("export", str(tmp_path / "run"), "--format", "broden", "--to", str(tmp_path / "broden"), "--quiet") == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"read it with `probe: {{kind: broden, folder: {tmp_path / 'broden'}, void: [3]}}`" in printed
    assert call("export", str(probe), "--format", "broden", "--to", str(tmp_path / "b"), "--layer", "x") == 2
    assert "--format broden writes a probe: it has no --snapshot, --layer or --fraction" in capsys.readouterr().err


def test_labels_with_domains_of_their_own_need_to_be_verified(tmp_path, probe):
    write_broden(probe, tmp_path / "broden", show=False)
    path = tmp_path / "broden/label.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},own_domain", f"{lines[1]},1", f"{lines[2]},"]))
    with pytest.raises(DissectError, match=r"index\.csv, line 1: label\.csv has labels with own_domain"):
        read_broden(tmp_path / "broden")


def test_a_category_that_is_not_kept_takes_the_wholes_of_its_parts_with_it(tmp_path):
    root = sets.pascal_part(tmp_path / "set")
    found = read_pascal_part(root / "part", image_folder=root / "VOC2010/JPEGImages")
    write_probe(replace(found, label_size=(4, 4)), tmp_path / "probe.zarr", show=False)
    write_broden(tmp_path / "probe.zarr", tmp_path / "broden", show=False)
    assert {c.parent for c in read_broden(tmp_path / "broden").concepts if c.category == "part"} == {6, 15}
    assert {c.parent for c in read_broden(tmp_path / "broden", categories=["part"]).concepts} == {0}
