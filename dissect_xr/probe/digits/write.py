"""The built-in probe: composed images of real handwritten digits with dense labels, as a folder in the Broden layout.

Knows: the five categories, which images are annotated for which of them, and the files of the layout.
Does not know: how an image is painted (`compose`), how a Broden folder is read, or what a store is.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.parallel.progress import track
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.digits.compose import DIGIT_NAMES, SCENES, Handwriting, compose
from dissect_xr.probe.digits.strokes import PART_NAMES, enlarged_ink, stroke_parts
from dissect_xr.probe.digits.textures import TEXTURES

CONCEPTS: dict[str, tuple[str, ...]] = {
    "color": tuple(f"{name}-c" for name in COLOR_NAMES),
    "object": DIGIT_NAMES,
    "part": PART_NAMES,
    "scene": tuple(f"{name}-s" for name in SCENES),
    "texture": tuple(TEXTURES),
}
"""Names of all concepts by category; the label maps of `compose` hold 1-based indices into the category's names."""

UNLABELLED = ""
"""The scene of an image whose index cell is 0, as that of 1,987 images of Broden is."""


@dataclass(frozen=True)
class _Row:
    """One image's labels: the maps it is annotated with, and its scene."""

    name: str
    split: str
    maps: dict[str, NDArray[np.uint8]]
    scene: str | None
    """Name of the scene, or UNLABELLED; None leaves the cell empty."""


@dataclass(frozen=True)
class _Label:
    """One row of label.csv."""

    number: int
    name: str
    category: str
    frequency: int
    coverage: float


def write_digits(folder: str | Path, *, images: int = 1200, size: int = 96, seed: int = 0, show: bool = True) -> Path:
    """Write the digits probe into a folder in the Broden layout, and return that folder.

    A quarter of the images is annotated for texture and half for scenes, so that the domains of the categories differ;
    of the others, half have an empty scene cell and half the number 0. Every fifth image is in the split `val`. Label
    maps have half the size of the images, sampled at half-pixel centres. The same arguments give the same files, byte
    for byte (with the same Pillow), and image number i does not depend on how many images there are.

    Parameters
    ----------
    folder : Path
        Where to write; created if it does not exist, refused if it is not empty.
    images : int
        How many images; 1,200 take about 7 seconds and 23 MB.
    size : int
        Side of an image in pixels, even and at least 64.
    seed : int
        Seed of the random numbers: another seed gives another probe.
    show : bool
        Whether to draw a progress bar.

    Raises
    ------
    DissectError
        If the folder is not empty, the size is odd or below 64, or there are no images.
    """
    if images < 1 or size < 64 or size % 2 or seed < 0:
        raise DissectError(
            f"the digits probe needs at least 1 image, an even size of at least 64 and a seed of at least 0, "
            f"not images={images}, size={size}, seed={seed}. Use images=1200, size=96, seed=0."
        )
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DissectError(f"{folder} is not empty: the digits probe would mix with it. Empty it or name another.")
    (folder / "images" / "digits").mkdir(parents=True, exist_ok=True)
    rows = []
    with track("digits", 2 * images, show=show) as bar:
        for row, rgb in _composed(images, size, seed):
            Image.fromarray(rgb).save(folder / "images" / f"{row.name}.png", compress_level=4)
            rows.append(row)
            bar.advance(1)
        labels = _numbered(rows)
        for row in rows:
            _write_maps(folder, row, labels)
            bar.advance(0)
    _write_tables(folder, rows, labels, size)
    return folder


def _composed(images: int, size: int, seed: int) -> Iterator[tuple[_Row, NDArray[np.uint8]]]:
    """Each image with its labels, in order."""
    handwriting = _handwriting()
    for index in range(images):
        rng = np.random.default_rng([seed, 0, index])
        has_texture = index % 8 in (1, 2)
        patches = int(rng.integers(1 if has_texture else 0, 3))
        scene = _scene_of(index, seed)
        rgb, maps = compose(handwriting, scene=scene, size=size, patches=patches, rng=rng)
        kept = {
            category: labels[1::2, 1::2] for category, labels in maps.items() if category != "texture" or has_texture
        }
        cell = (f"{scene}-s", f"{scene}-s", UNLABELLED, None)[index % 4]
        yield _Row(f"digits/{index:05d}", "val" if index % 5 == 4 else "train", kept, cell), rgb


def _scene_of(index: int, seed: int) -> str:
    """The scene of an image. Among labelled images, and among the others, every scene occurs once in each turn."""
    turn, n = divmod(2 * (index // 4) + index % 2, len(SCENES))
    order = np.random.default_rng([seed, 1, turn]).permutation(len(SCENES))
    return SCENES[int(order[n])]


@lru_cache(maxsize=1)
def _handwriting() -> Handwriting:
    """The digits of scikit-learn, enlarged, with their parts; 14 MB, ready in about a second."""
    # Imported here because it takes longer than the rest of the package.
    from sklearn.datasets import load_digits

    digits = load_digits()
    ink = enlarged_ink(digits.images)
    return Handwriting(ink=ink, parts=stroke_parts(ink), digit=digits.target.astype(np.int64))


def _numbered(rows: Sequence[_Row]) -> dict[str, list[_Label]]:
    """The labels that occur, by category, numbered in one sequence by decreasing frequency, as in Broden.

    Frequency is the number of images with the label, coverage the sum over images of the share of its pixels.
    """
    found = []
    for category, names in CONCEPTS.items():
        share = np.zeros((len(rows), len(names) + 1))
        for index, row in enumerate(rows):
            if category == "scene" and row.scene:
                share[index, names.index(row.scene) + 1] = 1
            elif category in row.maps:
                share[index] = (
                    np.bincount(row.maps[category].ravel(), minlength=len(names) + 1) / row.maps[category].size
                )
        frequency, coverage = (share > 0).sum(axis=0), share.sum(axis=0)
        found += [
            (-int(frequency[k]), -float(coverage[k]), name, category) for k, name in enumerate(names, 1) if frequency[k]
        ]
    labels: dict[str, list[_Label]] = {category: [] for category in CONCEPTS}
    for number, (frequency, coverage, name, category) in enumerate(sorted(found), 1):
        labels[category].append(_Label(number, name, category, -frequency, -coverage))
    return labels


def _write_maps(folder: Path, row: _Row, labels: dict[str, list[_Label]]) -> None:
    """Write one image's label maps as RGB, label = R + 256 * G."""
    for category, indices in row.maps.items():
        number = np.zeros(len(CONCEPTS[category]) + 1, dtype=np.uint16)
        for label in labels[category]:
            number[CONCEPTS[category].index(label.name) + 1] = label.number
        numbers = number[indices]
        rgb = np.stack([numbers % 256, numbers // 256, np.zeros_like(numbers)], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(folder / "images" / f"{row.name}_{category}.png")


def _write_tables(folder: Path, rows: Sequence[_Row], labels: dict[str, list[_Label]], size: int) -> None:
    """Write all tables, index.csv last, so that a folder with an index.csv is complete."""
    scene_number = {label.name: str(label.number) for label in labels["scene"]} | {UNLABELLED: "0"}
    index = []
    for row in rows:
        cells = {category: f"{row.name}_{category}.png" for category in row.maps}
        if row.scene is not None:
            cells["scene"] = scene_number[row.scene]
        sides = (size, size, size // 2, size // 2)
        index.append([f"{row.name}.png", row.split, *sides, *(cells.get(category, "") for category in CONCEPTS)])
    every = sorted((label for group in labels.values() for label in group), key=lambda label: label.number)
    _write_csv(
        folder / "label.csv",
        ["number", "name", "category", "frequency", "coverage", "syns"],
        ([x.number, x.name, f"{x.category}({x.frequency})", x.frequency, f"{x.coverage:.6f}", ""] for x in every),
    )
    categories = []
    for category, group in labels.items():
        ends = (group[0].number, group[-1].number) if group else ("", "")
        categories.append([category, *ends, len(group), sum(label.frequency for label in group)])
        _write_csv(
            folder / f"c_{category}.csv",
            ["code", "number", "name", "frequency", "coverage"],
            ([code, x.number, x.name, x.frequency, x.coverage] for code, x in enumerate(group, 1)),
        )
    _write_csv(folder / "category.csv", ["name", "first", "last", "count", "frequency"], categories)
    _write_csv(folder / "index.csv", ["image", "split", "ih", "iw", "sh", "sw", *CONCEPTS], index)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write one table with CRLF line ends, as in Broden."""
    with path.open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
