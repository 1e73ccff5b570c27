"""Reads ADE20K as of the scene parsing challenge (ADEChallengeData2016): 150 classes in grey PNGs.

Knows: the folders `images` and `annotations`, `objectInfo150.txt` and `sceneCategories.txt`.
Does not know: the full set of 3,688 classes (`ade20k_full`).

Traps
-----
- The numbers in the PNGs are those of objectInfo150.txt: 0 is "none of the 150", 1 to 150 are classes. Nothing is
  subtracted. Training code often makes 0 to 149 of them, with 255 for none (`reduce_zero_label`); label maps that were
  saved in this way shift every class by one and make the walls unlabelled. They are refused, by their 255.
- The scene `misc` is what was left over: no scene.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.completed import completed, paired_rows
from dissect_xr.probe.readers.lists import read_lines
from dissect_xr.probe.readers.masks import decode_mask
from dissect_xr.probe.readers.pairs import Names, paired
from dissect_xr.probe.readers.tables import read_table

CLASSES = 150

NO_SCENE = "misc"
"""The scene of images that are of no scene."""


def read_ade20k(
    folder: str | Path,
    *,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the challenge's images, with objects, and with scenes where `sceneCategories.txt` is there.

    Concepts 1 to 150 are the objects, scenes are numbered from 151 in the order of their names. The splits are
    `training` and `validation`.

    Raises
    ------
    DissectError
        If a table is missing or malformed, or an image has no label map.

    References
    ----------
    Zhou et al. 2017, Scene Parsing through ADE20K Dataset.
    """
    folder = Path(folder)
    images, maps = folder / "images", folder / "annotations"
    if not images.is_dir() or not maps.is_dir():
        raise DissectError(
            f"{folder}: expected ADEChallengeData2016 (images/, annotations/, objectInfo150.txt), found no "
            f"{'images' if not images.is_dir() else 'annotations'}/."
        )
    objects = _objects(folder / "objectInfo150.txt")
    pairs, notes = paired(images, maps, Names(follow_links=follow_links))
    scenes = _scenes(folder / "sceneCategories.txt", {Path(image).stem for image, _ in pairs})
    numbers = {name: CLASSES + n for n, name in enumerate(sorted(set(scenes.values())), 1)}
    rows = tuple(
        replace(row, whole=(numbers[scenes[name]],)) if (name := Path(row.image).stem) in scenes else row
        for row in paired_rows(pairs, images)
    )
    found = LabelSet(
        images=str(images),
        maps=str(maps),
        rows=rows,
        concepts=(*objects, *(Concept(number, name, "scene") for name, number in numbers.items())),
        categories=("object", "scene") if numbers else ("object",),
        planes=("object",),
        decode=decode_ade20k,
        label_size=(0, 0),
        parameters={"layout": "ade20k"},
        notes=notes,
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=folder)


def decode_ade20k(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of a label map of the challenge: its numbers as they are."""
    labels = decode_mask(path)
    if (labels == 255).any():
        raise Fault(
            f"{path}: holds 255, as label maps do whose numbers were reduced by one for training (reduce_zero_label): "
            f"every class would be the one before it. Use the PNGs of ADEChallengeData2016, 0 to {CLASSES}.",
            "label map: its numbers were reduced by one",
            shared=True,
        )
    return labels


def _objects(path: Path) -> tuple[Concept, ...]:
    table = read_table(path, ["Idx", "Name"])
    concepts = tuple(Concept(line.number("Idx"), line.cells["Name"], "object") for line in table.lines)
    if [concept.number for concept in concepts] != [*range(1, CLASSES + 1)]:
        raise DissectError(
            f"{path}: expected the numbers 1 to {CLASSES} in the column 'Idx', in this order, got {len(concepts)} rows."
        )
    return concepts


def _scenes(path: Path, images: set[str]) -> dict[str, str]:
    """Name of an image -> its scene, for those of the images that have one; empty where there is no such file."""
    if not path.is_file():
        return {}
    scenes = {}
    for entry in read_lines(path, "the scene of every image"):
        cells = entry.text.split()
        if len(cells) != 2:
            raise DissectError(f"{entry.where}: expected an image and its scene, got '{entry.text}'.")
        if cells[0] in images and cells[1] != NO_SCENE:
            scenes[cells[0]] = cells[1]
    return scenes
