"""Reads Pascal-Part: the objects of VOC2010 and their parts, each as a mask of its own, in MATLAB files.

Knows: the variable `anno` of `Annotations_Part/*.mat`.
Does not know: how parts are called (`part_names`), the background (`pascal_context`).

Traps
-----
- Parts lie on each other: an eye lies in a head. Painted into one map, the later one would erase the earlier: here
  every label of a pixel has a plane of its own.
- The parts of an object are numbered (`wheel_1`, `wheel_2`) and abbreviated (`llleg`); as they stand, each would be a
  concept. The number is left out, and the name written out.
- A part is one of its object: the head of a person and the head of a horse are two concepts, with their whole.
- MATLAB's version 7.3 and damaged files are refused by name.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.completed import completed, kept_categories
from dissect_xr.probe.readers.scenes.matlab import label_array, read_mat
from dissect_xr.probe.readers.scenes.part_names import part_name, without_sides
from dissect_xr.probe.readers.scenes.pascal_context import mat_rows
from dissect_xr.probe.readers.scenes.voc import CLASSES

CATEGORIES = ("object", "part")


@dataclass(frozen=True)
class Annotation:
    """What the file of an image says."""

    shape: tuple[int, int] | None
    """(rows, columns); None if there is no object"""
    masks: Mapping[str, Mapping[str, NDArray[np.bool_]]]
    """category -> name of a concept -> (row, col) where it is"""

    def depth(self, category: str) -> int:
        """The most masks of a category that lie on one pixel."""
        masks = [*self.masks[category].values()]
        return int(np.sum(masks, axis=0).max()) if masks else 0


def read_pascal_part(
    folder: str | Path,
    *,
    image_folder: str | Path,
    sides: bool = False,
    lists: str | Path | None = None,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of all files in `folder`/Annotations_Part: objects 1 to 20 as in VOC, and parts `person: arm`.

    Reads every file, for the names of the parts and for how many lie on each other. The n-th part of class k, in the
    order of their names, is concept 100 k + n.

    Parameters
    ----------
    image_folder
        The folder VOC2010/JPEGImages.
    sides
        Whether the left and the right arm, the upper and the lower one, are two concepts; otherwise all are `arm`, as
        in Broden.
    lists
        A folder with `train.txt` and `val.txt`, the splits; None takes all images as one split.

    Raises
    ------
    DissectError
        If a folder is missing, or a file damaged.

    References
    ----------
    Chen et al. 2014, Detect What You Can: Detecting and Representing Objects Using Holistic Models and Body Parts.
    """
    folder = Path(folder)
    kept = kept_categories(CATEGORIES, categories, folder)
    maps = folder / "Annotations_Part"
    files, rows, faults = Folder(str(maps), follow_links), [], []
    depth, parts = dict.fromkeys(CATEGORIES, 0), set[str]()
    for row in mat_rows(maps, lists, follow_links=follow_links):
        try:
            found = read_annotation(files.path(row.maps[0][1], row.where), sides=sides)
        except Fault as fault:  # of this image: whoever writes the probe meets it again, or leaves the image out
            rows.append(row)
            faults.append(fault)
            continue
        depth = {category: max(most, found.depth(category)) for category, most in depth.items()}
        parts |= found.masks["part"].keys()
        rows.append(row if found.shape else replace(row, maps=()))
    if faults and not any(depth.values()):
        raise faults[0]
    concepts = tuple(concept for concept in _concepts(parts) if concept.category in kept)
    numbers = {(concept.category, concept.name): concept.number for concept in concepts}
    planes = {category: depth[category] for category in CATEGORIES if category in kept}
    label_set = LabelSet(
        images=str(image_folder),
        maps=str(maps),
        rows=tuple(rows),
        concepts=concepts,
        categories=tuple(planes),
        planes=tuple(category for category, count in planes.items() for _ in range(count)),
        decode=PascalPart(numbers, planes, sides),
        label_size=(0, 0),
        parameters={"layout": "pascal_part", "sides": sides},
    )
    label_set = label_set.following_links() if follow_links else label_set
    return completed(label_set, categories=kept, label_size=label_size, where=folder)


@dataclass(frozen=True)
class PascalPart:
    """Decodes the file of an image."""

    numbers: Mapping[tuple[str, str], int]
    """(category, name) -> number of the concept"""
    planes: Mapping[str, int]
    """category -> planes that it has"""
    sides: bool
    __name__ = "pascal_part"

    def __call__(self, path: Path) -> NDArray[np.uint16]:
        """Concept numbers (plane, row, col): the planes of each category, one after another."""
        found = read_annotation(path, sides=self.sides)
        shape = found.shape or (1, 1)
        labels = []
        for category, count in self.planes.items():
            masks = {self.numbers[category, name]: mask for name, mask in found.masks[category].items()}
            labels.append(stacked(masks, (count, *shape)))
        return np.concatenate(labels)


def stacked(masks: Mapping[int, NDArray[np.bool_]], shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Masks of concepts as label maps (plane, row, col): the n-th label of a pixel, by number, is in plane n.

    >>> stacked({2: np.array([[True, True]]), 5: np.array([[False, True]])}, (2, 1, 2)).tolist()
    [[[2, 2]], [[0, 5]]]
    """
    labels, depth = np.zeros(shape, np.uint16), np.zeros(shape[1:], np.int64)
    for number, mask in sorted(masks.items()):
        rows, cols = np.nonzero(mask)
        labels[depth[rows, cols], rows, cols] = number
        depth[rows, cols] += 1
    return labels


def read_annotation(path: Path, *, sides: bool) -> Annotation:
    """The masks of an image's objects and parts; those of one concept are one.

    Raises
    ------
    Fault
        If the file is damaged, has an object of no class of VOC, or masks of several sizes.
    """
    objects: dict[str, NDArray[np.bool_]] = {}
    parts: dict[str, NDArray[np.bool_]] = {}
    for name, part, mask in masks_of(path):
        long = part if sides else without_sides(part)
        known, key = (parts, f"{name}: {long}") if part else (objects, name)
        known[key] = known[key] | mask if key in known else mask
    shape = next((mask.shape for mask in objects.values()), None)
    return Annotation((shape[0], shape[1]) if shape else None, {"object": objects, "part": parts})


def masks_of(path: Path) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Class, name of the part ("" for the whole object) and mask of every object and part, in the order of the file.

    Raises
    ------
    Fault
        If the file is damaged, has an object of no class of VOC, or masks of several sizes.
    """
    anno, shapes = read_mat(path, "anno"), set[tuple[int, ...]]()
    try:
        found = []
        for one in _structs(anno[0, 0]["objects"]):
            name = _text(one["class"])
            found.append((name, "", one["mask"]))
            found += [(name, _text(part["part_name"]), part["mask"]) for part in _structs(one["parts"])]
    except (IndexError, ValueError, TypeError, KeyError) as error:
        raise Fault(
            f"{path}: expected a struct `anno` with objects (class, mask, parts) and parts (part_name, mask), got "
            f"{type(error).__name__}: {error}. Is it a file of Annotations_Part?",
            "label map: it is no file of Pascal-Part",
            shared=True,
        ) from error
    for name, short, values in found:
        if name not in CLASSES:
            raise Fault(f"{path}: '{name}' is no class of VOC.", "label map: an object is of no class of VOC")
        mask = label_array(values, path, f"the mask of {name} {short}".rstrip()) != 0
        shapes.add(mask.shape)
        if len(shapes) > 1:
            raise Fault(f"{path}: its masks have several sizes, {sorted(shapes)}.", "label map: masks of several sizes")
        yield name, part_name(short), mask


def _structs(values: Any) -> Iterator[Any]:
    """Each struct of an array of structs; an array of numbers without entries is how MATLAB saves none."""
    if values.size:
        yield from values.ravel()


def _text(value: Any) -> str:
    return str(value[0])


def _concepts(parts: Collection[str]) -> Iterator[Concept]:
    """Objects by the number of their class, parts by that and by the order of their names."""
    for number, name in enumerate(CLASSES, 1):
        yield Concept(number, name, "object")
        mine = sorted(part for part in parts if part.startswith(f"{name}: "))
        yield from (Concept(100 * number + n, part, "part", parent=number) for n, part in enumerate(mine, 1))
