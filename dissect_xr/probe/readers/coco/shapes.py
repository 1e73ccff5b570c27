"""Label sets whose labels are shapes in a JSON file: the text of each image, and the label maps drawn from it.

Knows: which concepts a category stands for, crowds, and how many planes the overlapping shapes of an image need.
Does not know: how a mask is drawn (`rasters`), or what a format means by its categories (`instances`, `lvis`, ...).

Shapes overlap: a cup stands before a table, and both have the pixel. A label map holds one number per pixel, so each
further number goes to the next plane; instances of one concept are united, since a label counts once per pixel. How
many planes there are has to be known before any image is drawn. It is the largest number of concepts on one pixel, and
drawing all images to find it would take long; so images are drawn only while the boxes around their shapes leave it
open whether they need more planes than one that was drawn already.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.readers.coco.annotations import Annotations, ImageEntry, Mark
from dissect_xr.probe.readers.coco.rasters import Size, box, mask, stacked


@dataclass(frozen=True)
class Vocabulary:
    """The concepts of a label set, and the categories that stand for them."""

    concepts: tuple[Concept, ...]
    """ascending by number"""
    numbers: Mapping[int, tuple[int, ...]]
    """category id -> the numbers of its concepts: a part's own and that of its whole, or none"""
    offset: int
    """what was added to the ids: 1 where they count from 0, since 0 is no concept"""
    kept: tuple[str, ...] | None = None
    """the categories that were chosen, None if none were"""

    @classmethod
    def of(cls, read: Annotations, *, category: str = "object", left_out: Sequence[int] = ()) -> "Vocabulary":
        """One concept for each category, whose number is the id; all ids one higher where an id is 0.

        Raises
        ------
        DissectError
            If an id is too large.
        """
        offset = offset_of(read)
        concepts = tuple(
            Concept(number + offset, str(fields["name"]).strip(), category)
            for number, fields in read.categories.items()
            if number not in left_out
        )
        numbers = {number: () if number in left_out else (number + offset,) for number in read.categories}
        return cls(concepts, numbers, offset)

    def of_categories(self, names: Sequence[str] | None) -> "Vocabulary":
        """The concepts of these categories only: shapes of others are not drawn. None keeps all.

        Raises
        ------
        DissectError
            If there is no such category.
        """
        there = list(dict.fromkeys(concept.category for concept in self.concepts))
        if names is None:
            return self
        if not names or (unknown := [name for name in names if name not in there]):
            raise DissectError(f"categories: expected some of {there}, got {', '.join(unknown) if names else 'none'}.")
        kept = {concept.number: concept for concept in self.concepts if concept.category in names}
        return Vocabulary(
            concepts=tuple(one if one.parent in kept else replace(one, parent=0) for one in kept.values()),
            numbers={category: tuple(n for n in mine if n in kept) for category, mine in self.numbers.items()},
            offset=self.offset,
            kept=tuple(name for name in there if name in names),
        )

    @property
    def void(self) -> int:
        """The number of ignored pixels: the first after the concepts."""
        return max(concept.number for concept in self.concepts) + 1


def offset_of(read: Annotations) -> int:
    """What is added to the ids of categories to get the numbers of concepts: 1 if one is 0, else nothing.

    Raises
    ------
    DissectError
        If an id is too large for a number of a concept.
    """
    offset, largest = int(0 in read.categories), max(read.categories)
    if largest + offset >= LARGEST:
        raise DissectError(
            f"{read.path}: category id {largest} is too large: expected less than {LARGEST - offset}. Renumber it."
        )
    return offset


def shape_label_set(
    read: Annotations,
    folder: Path,
    vocabulary: Vocabulary,
    *,
    layout: str,
    size: Size | None,
    paths: Callable[[ImageEntry], str] = lambda image: image.name,
    verified: Callable[[ImageEntry], tuple[int, ...]] = lambda image: (),
) -> LabelSet:
    """The label set of all images of a file, each with the shapes of its annotations.

    Parameters
    ----------
    folder
        The images.
    layout
        What the format is called in the parameters of the probe.
    size
        (rows, columns) of the probe's label grid; None takes the size of the first image.
    paths
        The path of an image below the folder.
    verified
        Numbers of the concepts with a domain of their own that were looked for everywhere in an image.

    Raises
    ------
    DissectError
        If the folder is missing, there is no image, or an annotation is malformed.
    """
    if not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder of images, found none.")
    if not read.images:
        raise DissectError(f"{read.path}: `images` is empty. Expected at least one.")
    if not vocabulary.concepts:
        raise DissectError(f"{read.path}: no category is a concept. Expected at least one.")
    found = [_row(image, read, vocabulary, paths(image), verified(image)) for image in read.images]
    categories = tuple(dict.fromkeys(concept.category for concept in vocabulary.concepts))
    label_size = size or read.images[0].size
    parameters: dict[str, Any] = {"layout": layout, "label_size": list(label_size)}
    parameters |= {"categories": list(vocabulary.kept)} if vocabulary.kept else {}
    has_crowds = any(mark.crowd for image in read.images for mark in read.marks(image))
    return LabelSet(
        images=str(folder),
        maps=str(folder),
        rows=tuple(row for row, _ in found),
        concepts=vocabulary.concepts,
        categories=categories,
        planes=(categories[0],) * planes_needed([(concepts, row.shapes or "") for row, concepts in found]),
        decode=no_label_map,
        draw=draw_shapes,
        label_size=label_size,
        void=frozenset({vocabulary.void} if has_crowds else ()),
        parameters=parameters | ({"offset": vocabulary.offset} if vocabulary.offset else {}),
    )


def _row(
    image: ImageEntry, read: Annotations, vocabulary: Vocabulary, path: str, verified: tuple[int, ...]
) -> tuple[Row, int]:
    """One image with its shapes, and how many concepts it has."""
    marks = read.marks(image)
    text = shapes_text(marks, image.size, vocabulary)
    concepts = {number for mark in marks if not mark.crowd for number in vocabulary.numbers[mark.category]}
    split = path.split("/")[0] if "/" in path else "all"
    return Row(path, split, (), (), None, image.where, shapes=text, verified=verified), len(concepts)


def no_label_map(path: Path) -> NDArray[np.uint16]:
    """Label sets of shapes have no label maps; raises."""
    raise DissectError(f"{path}: the labels of this set are shapes, expected no label map.")


def shapes_text(marks: Iterable[Mark], size: Size, vocabulary: Vocabulary) -> str:
    """The text from which `draw_shapes` draws an image of this size.

    Crowds become ignored pixels: where a category is a crowd, nobody has said which pixels are between its members.
    """
    shapes, crowds = list[str](), list[str]()
    for mark in marks:
        numbers = (vocabulary.void,) if mark.crowd else vocabulary.numbers[mark.category]
        if numbers:
            text = f"[{json.dumps(mark.id)},{json.dumps(numbers)},{mark.segmentation or 'null'}]"
            (crowds if mark.crowd else shapes).append(text)
    return f'{{"size":{json.dumps(size)},"crowds":[{",".join(crowds)}],"shapes":[{",".join(shapes)}]}}'


def draw_shapes(text: str) -> list[tuple[int, NDArray[np.uint16]]]:
    """The (plane, label map) pairs of an image, as many as concepts lie on one of its pixels, and at least one.

    Raises
    ------
    Fault
        If a segmentation is missing or malformed; it names the annotation.
    """
    content = json.loads(text)
    size = (content["size"][0], content["size"][1])
    planes = stacked(_masks(content["shapes"], size), size)
    for number, pixels in _masks(content["crowds"], size):
        planes[0][pixels] = number
    return list(enumerate(planes))


def _masks(marks: Sequence[Any], size: Size) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The pixels of each concept, ascending by number, one after another: a large image has many."""
    ordered = sorted(((number, n) for n, mark in enumerate(marks) for number in mark[1]))
    for number, group in groupby(ordered, key=lambda pair: pair[0]):
        pixels = np.zeros(size, np.bool_, order="F")
        for _, n in group:
            pixels |= _of_mark(marks[n], size)
        yield number, pixels


def _of_mark(mark: Any, size: Size) -> NDArray[np.bool_]:
    """The pixels of one annotation."""
    name, _, segmentation = mark
    if segmentation is None:
        raise Fault(
            f"annotation {name} has no segmentation: where its object is, nobody has said pixel by pixel. Add it, or "
            "leave the image out (`skip_bad_images: true`).",
            "an annotation has no segmentation",
        )
    try:
        return mask(segmentation, size)
    except Fault as error:
        raise Fault(f"annotation {name}: {error}", f"a segmentation: {error.reason}", shared=error.shared) from error


def planes_needed(images: Sequence[tuple[int, str]]) -> int:
    """The largest number of label maps that `draw_shapes` makes of one of the images, at least 1.

    An image whose shapes are faulty counts as one, since it is refused or left out.

    Parameters
    ----------
    images
        (how many concepts it has, text that `draw_shapes` reads) of each.
    """
    most = 1
    for concepts, text in sorted(images, key=lambda image: -image[0]):
        if concepts <= most:
            break
        try:
            if _boxes_deep(json.loads(text)) > most:
                most = max(most, len(draw_shapes(text)))
        except Fault:
            continue
    return most


def _boxes_deep(content: Mapping[str, Any]) -> int:
    """The largest number of concepts whose boxes lie on one pixel."""
    size = (content["size"][0], content["size"][1])
    boxes = [(number, box(shape, size)) for _, numbers, shape in content["shapes"] if shape for number in numbers]
    cuts = [sorted({edge for _, found in boxes for edge in found[axis::2]}) for axis in (0, 1)]
    rows, cols = ({edge: n for n, edge in enumerate(one)} for one in cuts)
    deep = np.zeros((len(rows), len(cols)), np.int64)
    for _, group in groupby(sorted(boxes), key=lambda pair: pair[0]):
        here = np.zeros(deep.shape, np.bool_)
        for _, (top, left, bottom, right) in group:
            here[rows[top] : rows[bottom], cols[left] : cols[right]] = True
        deep += here
    return int(deep.max(initial=0))
