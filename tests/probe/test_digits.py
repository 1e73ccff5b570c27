"""The built-in probe: the same files every time, true tables, and concepts rare enough to be detected."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.colors import COLOR_NAMES, color_labels
from dissect_xr.probe.digits.strokes import END, JUNCTION, LOOP, PART_NAMES, stroke_parts
from dissect_xr.probe.digits.textures import TEXTURES, texture
from dissect_xr.probe.digits.write import CONCEPTS, write_digits

IMAGES = 1200
PIXELS = 48 * 48


def table(path: Path) -> list[dict[str, str]]:
    text = path.read_bytes().decode("ascii")
    assert text.count("\n") == text.count("\r\n")
    return list(csv.DictReader(text.splitlines()))


class Probe:
    """A digits folder read back with none of the package's code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = table(folder / "index.csv")
        self.labels = {int(row["number"]): row for row in table(folder / "label.csv")}
        self.maps = {g: self._stack(g) for g in ("color", "object", "part", "texture")}
        self.scene = np.array([int(row["scene"] or 0) for row in self.index])

    def _stack(self, category: str) -> NDArray[np.int64]:
        """Numbers of all annotated images, `(image, row, col)`; zeros for images with an empty cell."""
        maps = np.zeros((len(self.index), 48, 48), dtype=np.int64)
        for place, row in enumerate(self.index):
            if row[category]:
                rgb = np.asarray(Image.open(self.folder / "images" / row[category])).astype(np.int64)
                maps[place] = rgb[..., 0] + 256 * rgb[..., 1]
        return maps

    def shares(self, category: str) -> dict[str, float]:
        """Pixels of each concept over pixels of the images annotated for the category."""
        if category == "scene":
            counts, domain = np.bincount(self.scene), int((self.scene > 0).sum())
        else:
            maps = self.maps[category]
            counts, domain = np.bincount(maps.ravel()), PIXELS * int((maps > 0).any(axis=(1, 2)).sum())
        return {self.labels[number]["name"]: counts[number] / domain for number in np.flatnonzero(counts) if number}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return Probe(write_digits(tmp_path_factory.mktemp("digits"), images=IMAGES))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_arguments_give_the_same_bytes(tmp_path):
    first = digest(write_digits(tmp_path / "a", images=12))
    assert first == digest(write_digits(tmp_path / "b", images=12))
    assert first != digest(write_digits(tmp_path / "c", images=12, seed=1))


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    few, more = write_digits(tmp_path / "few", images=4), write_digits(tmp_path / "more", images=9)
    for path in (few / "images" / "digits").glob("0000?.png"):
        assert path.read_bytes() == (more / "images" / "digits" / path.name).read_bytes()


def test_one_image_is_a_whole_probe(tmp_path):
    folder = write_digits(tmp_path, images=1, size=64)
    assert [(row["name"], row["count"]) for row in table(folder / "category.csv")][-1] == ("texture", "0")
    assert table(folder / "index.csv")[0]["sh"] == "32"


@pytest.mark.parametrize("wrong", [{"images": 0}, {"size": 62}, {"size": 97}, {"seed": -1}])
def test_impossible_probes_are_refused(tmp_path, wrong):
    with pytest.raises(DissectError, match="images=1200, size=96"):
        write_digits(tmp_path, **wrong)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DissectError, match="not empty"):
        write_digits(tmp_path, images=1)


@pytest.mark.parametrize(
    ("category", "least"), [("object", 10), ("part", 7), ("texture", 16), ("color", 7), ("scene", 48)]
)
def test_enough_concepts_can_be_detected(probe, category, least):
    detectable = [share for share in probe.shares(category).values() if 0.002 <= share <= 0.03]
    assert len(detectable) >= least


def test_all_concepts_occur(probe):
    for category, names in CONCEPTS.items():
        assert set(probe.shares(category)) == set(names)
    assert all(name.endswith("-c") for name in CONCEPTS["color"])
    assert all(name.endswith("-s") for name in CONCEPTS["scene"])


def test_a_quarter_has_textures_and_half_has_scenes(probe):
    cells = {category: [row[category] for row in probe.index] for category in CONCEPTS}
    assert sum(bool(cell) for cell in cells["texture"]) == IMAGES // 4
    assert (probe.maps["texture"] > 0).any(axis=(1, 2)).sum() == IMAGES // 4
    assert (probe.scene > 0).sum() == IMAGES // 2
    assert cells["scene"].count("0") == cells["scene"].count("") == IMAGES // 4
    both = [bool(t) and s not in ("", "0") for t, s in zip(cells["texture"], cells["scene"], strict=True)]
    assert sum(both) == IMAGES // 8
    assert sum(row["split"] == "val" for row in probe.index) == IMAGES // 5


def test_index_tells_the_true_sizes(probe):
    row = probe.index[7]
    shape = {kind: np.asarray(Image.open(probe.folder / "images" / row[kind])).shape for kind in ("image", "part")}
    assert shape["image"] == (int(row["ih"]), int(row["iw"]), 3) == (96, 96, 3)
    assert shape["part"] == (int(row["sh"]), int(row["sw"]), 3) == (48, 48, 3)


def test_numbers_run_through_all_categories(probe):
    assert list(probe.labels) == list(range(1, sum(map(len, CONCEPTS.values())) + 1))
    for category, maps in probe.maps.items():
        kinds = {probe.labels[number]["category"].split("(")[0] for number in np.unique(maps) if number}
        assert kinds == {category}


def test_frequency_and_coverage_are_true(probe):
    for category in CONCEPTS:
        for row in table(probe.folder / f"c_{category}.csv"):
            where = probe.scene if category == "scene" else probe.maps[category].reshape(IMAGES, -1)
            hit = where == int(row["number"])
            frequency = int(hit.sum()) if category == "scene" else int(hit.any(axis=1).sum())
            coverage = float(hit.sum()) if category == "scene" else float(hit.mean(axis=1).sum())
            label = probe.labels[int(row["number"])]
            assert (row["name"], int(row["frequency"])) == (label["name"], frequency)
            assert label["category"] == f"{category}({frequency})"
            assert float(row["coverage"]) == pytest.approx(coverage)
            assert float(label["coverage"]) == pytest.approx(coverage, abs=1e-6)


def test_category_table_is_true(probe):
    rows = {row["name"]: row for row in table(probe.folder / "category.csv")}
    assert list(rows) == list(CONCEPTS) == [name for name in probe.index[0] if name in CONCEPTS]
    for category, row in rows.items():
        members = table(probe.folder / f"c_{category}.csv")
        numbers = [int(member["number"]) for member in members]
        assert (int(row["first"]), int(row["last"]), int(row["count"])) == (numbers[0], numbers[-1], len(numbers))
        assert int(row["frequency"]) == sum(int(member["frequency"]) for member in members)


def test_parts_lie_on_digits(probe):
    part, digit = probe.maps["part"] > 0, probe.maps["object"] > 0
    assert not (part & ~digit).any()
    assert (part & digit).sum() > 0.95 * digit.sum()


def test_every_pixel_has_a_paint_and_mostly_its_colour(probe):
    assert (probe.maps["color"] > 0).all()
    names = np.zeros(len(probe.labels) + 1, dtype=np.int64)
    for number, label in probe.labels.items():
        if label["name"].endswith("-c"):
            names[number] = COLOR_NAMES.index(label["name"].removesuffix("-c")) + 1
    agreement = []
    for place in range(0, IMAGES, 40):
        rgb = np.asarray(Image.open(probe.folder / "images" / probe.index[place]["image"]))[1::2, 1::2]
        agreement.append((color_labels(rgb) == names[probe.maps["color"][place]]).mean())
    assert np.mean(agreement) > 0.75


def test_a_cross_has_ends_a_junction_and_directions():
    ink = np.zeros((1, 60, 60), dtype=np.float32)
    ink[0, 27:33, 4:56] = ink[0, 4:56, 27:33] = 1
    parts = stroke_parts(ink)[0]
    assert parts[29, 29] == JUNCTION
    assert {parts[29, 5], parts[29, 54], parts[5, 29], parts[54, 29]} == {END}
    assert PART_NAMES[parts[29, 18] - 1] == "horizontal-stroke"
    assert PART_NAMES[parts[18, 29] - 1] == "vertical-stroke"
    assert not parts[ink[0] == 0].any()


@pytest.mark.parametrize(("slope", "name"), [(1, "falling-stroke"), (-1, "rising-stroke")])
def test_oblique_strokes_fall_or_rise(slope, name):
    rows, cols = np.mgrid[0:40, 0:40]
    middle = rows - 19.5 - slope * (cols - 19.5)
    ink = ((np.abs(middle) < 4) & (np.abs(cols - 19.5) < 15)).astype(np.float32)[None]
    assert PART_NAMES[stroke_parts(ink)[0, 19, 19] - 1] == name


def test_only_enclosed_background_is_a_loop():
    ink = np.zeros((1, 40, 40), dtype=np.float32)
    ink[0, 8:32, 8:32] = 1
    ink[0, 14:26, 14:26] = 0
    assert (stroke_parts(ink) == LOOP).sum() == 12 * 12
    ink[0, 18:22, 26:32] = 0
    assert not (stroke_parts(ink) == LOOP).any()


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_have_two_tones(name):
    patch = texture(name, shape=(60, 50), period=8, rng=np.random.default_rng(0))
    assert patch.shape == (60, 50)
    assert patch.dtype == np.bool_
    assert 0.08 < patch.mean() < 0.92
