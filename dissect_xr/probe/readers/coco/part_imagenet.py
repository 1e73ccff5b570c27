"""Reads PartImageNet, parts of animals and things in images of ImageNet, as a label set.

Knows: how PartImageNet names parts, where its images may lie, and that its lines enclose nothing.
Does not know: the lists of the file (`annotations`), how shapes are drawn and stacked (`shapes`).

PartImageNet has 40 parts of 11 wholes, such as "Quadruped Head" of the supercategory "Quadruped". Every image shows one
object, whose parts are all annotated.

- **Ids count from 0.** Numbers of concepts are one higher.
- **Wholes are no categories of the file.** Each becomes a concept of the category `object`, with the pixels that its
  parts have together, and is their `parent`. Numbers of wholes follow those of parts, in the order of the ids.
- **file_name** has no folder, n02100583_13225.JPEG; the images lie in the folder, or in one for each synset there:
  n02100583/n02100583_13225.JPEG.
- **Some polygons are lines or points**, of four or two numbers. They enclose no pixel, and are left out.
- The label maps that are offered beside the JSON files, with 40 for the background, are masks: `kind: masks` reads them
  with `offset: 1` and `unlabelled: 40`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.coco.annotations import Annotations, ImageEntry, read_annotations
from dissect_xr.probe.readers.coco.shapes import Vocabulary, shape_label_set


def read_part_imagenet(
    images: str | Path,
    annotations: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a file of PartImageNet such as `val.json`. No image is read, but where they lie is looked up.

    Parameters
    ----------
    images, annotations, label_size, categories
        As of :func:`dissect_xr.probe.readers.coco.instances.read_coco`. The categories are `part` and `object`.

    Raises
    ------
    DissectError
        If the file is missing or malformed, or a part has no whole.

    References
    ----------
    He et al. 2022, PartImageNet: A Large, High-Quality Dataset of Parts.
    """
    read, folder = _without_lines(read_annotations(Path(annotations))), Path(images)

    def path(image: ImageEntry) -> str:
        name = image.name
        below = f"{name.split('_')[0]}/{name}"
        return below if not os.path.lexists(folder / name) and os.path.lexists(folder / below) else name

    vocabulary = _with_wholes(read).of_categories(categories)
    return shape_label_set(read, folder, vocabulary, layout="part_imagenet", size=label_size, paths=path)


def _with_wholes(read: Annotations) -> Vocabulary:
    """The parts and their wholes; a category stands for both."""
    parts = Vocabulary.of(read, category="part")
    wholes = {number: _whole(fields, read) for number, fields in read.categories.items()}
    taken = parts.concepts[-1].number
    numbers = {name: taken + n for n, name in enumerate(dict.fromkeys(wholes.values()), 1)}
    return Vocabulary(
        concepts=(
            *(replace(one, parent=numbers[wholes[one.number - parts.offset]]) for one in parts.concepts),
            *(Concept(number, name, "object") for name, number in numbers.items()),
        ),
        numbers={number: (*parts.numbers[number], numbers[whole]) for number, whole in wholes.items()},
        offset=parts.offset,
    )


def _whole(fields: Mapping[str, Any], read: Annotations) -> str:
    """The name of the whole that a category is a part of: its supercategory, or the first word of its name."""
    name, given = str(fields["name"]).strip(), fields.get("supercategory")
    for whole in (given, name.split()[0]):
        if isinstance(whole, str) and name.startswith(f"{whole} "):
            return whole
    raise DissectError(
        f"{read.path}, category {fields['id']}: expected the name of a part after that of its whole, such as "
        f"'Quadruped Head', got '{name}'."
    )


def _without_lines(read: Annotations) -> Annotations:
    """The content without polygons of fewer than three points, and without annotations that had no others."""
    entries = {image: [kept for one in listed if (kept := _kept(one))] for image, listed in read.entries.items()}
    return replace(read, entries=entries)


def _kept(entry: Any) -> Any:
    """An annotation without its lines, None if nothing is left."""
    shape = json.loads(entry.get("segmentation") or "null")
    if not isinstance(shape, list) or not all(isinstance(one, list) for one in shape):
        return entry  # what is wrong with it is said where it is drawn
    closed = [polygon for polygon in shape if len(polygon) >= 6]
    if len(closed) == len(shape):
        return entry
    return {**entry, "segmentation": json.dumps(closed, separators=(",", ":"))} if closed else None
