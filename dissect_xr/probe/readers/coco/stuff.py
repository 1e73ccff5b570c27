"""Reads COCO-Stuff as a label set: from its JSON file, or from its label maps.

Knows: which numbers stand for the classes of COCO-Stuff in each of its three forms.
Does not know: the lists of a JSON file (`annotations`), how shapes are stacked (`shapes`) or files found (`pairs`).

The same class has another number in each form, and a shift by one makes every class its neighbour:

======================================  ====================  =============  ================================
form                                    numbers of classes    nothing known  beside them
======================================  ====================  =============  ================================
labels.txt, JSON files                  1 to 182              (0)            183, "other", in the JSON files
label maps of stuffthingmaps            0 to 181              255            nothing
label maps of the challenge of 2017     92 to 182             0              183, "other"
======================================  ====================  =============  ================================

- **Label maps** are read by `read_coco_stuff_maps`, in the second form. Their numbers are one lower than those in the
  table of labels, which starts with person as 1; that one is added. Maps of the third form hold 183, which is 184 then
  and no concept: they are refused.
- **255** is where no annotator has said anything. COCO-Stuff ignores it, and so its pixels are ignored here.
- **other** (183) stands for everything that is no stuff, where another file has the labels. It is no concept, and its
  pixels have no label.
- The 11 classes among the first 91 that nobody has labelled (street sign, hat, ...) are in labels.txt. They stay
  concepts without pixels.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.coco.annotations import read_annotations
from dissect_xr.probe.readers.coco.shapes import Vocabulary, shape_label_set
from dissect_xr.probe.readers.masks import OffsetMask
from dissect_xr.probe.readers.pairs import Names, paired

CATEGORY = "object"
"""Of all concepts: in Broden, sky and road are objects, too."""

OTHER = 183
"""The category of everything that is no stuff."""

UNKNOWN = 255
"""In label maps, what no annotator has labelled."""

CLASSES = 182
"""Number of the last class."""

_LINE = re.compile(r"(\d+)\s*:\s*(\S.*?)\s*")


def is_other(fields: Mapping[str, Any]) -> bool:
    """Whether a category is the one of COCO-Stuff that means everything that is no stuff."""
    return fields["name"] == "other" and fields.get("id") == OTHER


def read_coco_stuff(
    images: str | Path,
    annotations: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a JSON file of COCO-Stuff such as `stuff_val2017.json`. No image is read.

    Parameters
    ----------
    images, annotations, label_size, categories
        As of :func:`dissect_xr.probe.readers.coco.instances.read_coco`.

    Raises
    ------
    DissectError
        If the file is missing or malformed; it names the entry.

    References
    ----------
    Caesar et al. 2018, COCO-Stuff: Thing and Stuff Classes in Context.
    """
    read = read_annotations(Path(annotations))
    other = [number for number, fields in read.categories.items() if is_other(fields)]
    vocabulary = Vocabulary.of(read, category=CATEGORY, left_out=other).of_categories(categories)
    return shape_label_set(read, Path(images), vocabulary, layout="coco_stuff", size=label_size)


def read_coco_stuff_maps(
    images: str | Path,
    maps: str | Path,
    labels: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the label maps in `stuffthingmaps_trainval2017`. Only the first map is read, for its size.

    Parameters
    ----------
    images
        Folder of the images; the first folder of an image's path is its split.
    maps
        Folder of the label maps; that of `train2017/a.jpg` is `train2017/a.png`.
    labels
        The table `labels.txt`, with lines such as `1: person`.
    label_size
        (rows, columns) of the probe's label grid; None takes the size of the first map.
    categories
        Categories to keep; None keeps all.
    follow_links
        Whether links may lead out of the two folders: for folders of one's own.

    Raises
    ------
    DissectError
        If a label map is missing or the table is malformed.
    """
    images, maps = Path(images), Path(maps)
    concepts = _labels(Path(labels))
    if not images.is_dir():
        raise DissectError(f"{images}: expected a folder of images, found none.")
    pairs, passed_over = paired(images, maps, Names(follow_links=follow_links))
    decode = OffsetMask(1, ())
    shape = decode(Folder(str(maps), follow_links).path(pairs[0][1])).shape
    size = label_size or (shape[0], shape[1])
    found = LabelSet(
        images=str(images),
        maps=str(maps),
        rows=tuple(
            Row(path, path.split("/")[0] if "/" in path else "all", ((0, map_),), (), None, str(images / path))
            for path, map_ in pairs
        ),
        concepts=concepts,
        categories=(CATEGORY,),
        planes=(CATEGORY,),
        decode=decode,
        label_size=size,
        void=frozenset({UNKNOWN + decode.offset}),
        parameters={"layout": "coco_stuff_maps", "label_size": list(size), "offset": decode.offset},
        notes=passed_over,
    ).of_categories(categories)
    return found.following_links() if follow_links else found


def _labels(path: Path) -> tuple[Concept, ...]:
    """The concepts of labels.txt, ascending by number."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DissectError(f"{path}: expected labels.txt of COCO-Stuff, cannot read it: {error}.") from error
    found: dict[int, Concept] = {}
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DissectError(f"{path}, line {n}: expected a number and a name, such as '1: person', got '{line}'.")
        number, name = int(match[1]), match[2]
        if number == 0 and name != "unlabeled":
            raise DissectError(
                f"{path}, line {n}: 0 is '{name}', expected 'unlabeled'. In labels.txt of COCO-Stuff the classes count "
                "from 1, and their numbers in label maps from 0; this table seems to be shifted already."
            )
        if number > CLASSES or number in found:
            raise DissectError(f"{path}, line {n}: number {number} must be new, and at most {CLASSES}.")
        if number:
            found[number] = Concept(number, name, CATEGORY)
    if not found:
        raise DissectError(f"{path}: expected lines such as '1: person', found none.")
    return tuple(found[number] for number in sorted(found))
