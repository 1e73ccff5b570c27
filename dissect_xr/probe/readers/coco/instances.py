"""Reads instances as COCO has them, a JSON file of polygons and run-length codes, as a label set.

Knows: what COCO's categories and crowds mean.
Does not know: the lists of the file (`annotations`), how shapes are drawn (`rasters`) and stacked (`shapes`).

What goes wrong with these files, and what is done here:

- **Ids have gaps.** COCO's 80 categories have ids from 1 to 90. The number of a concept is its category's id; where one
  id is 0, as some tools write it, all numbers are one higher, since 0 means no label.
- **Instances overlap**, and a pixel keeps the labels of all of them: each further one lies in the next plane.
- **Crowds** (`iscrowd: 1`) are areas in which single members are not told apart, and other things lie between them:
  their pixels are ignored, in no mask, no concept and no area.
- **An annotation without a segmentation**, with a box only, leaves open which pixels have the label: its image is
  refused.
- **Sizes** are those of the file's `height` and `width`; an image file of other proportions is refused.
- Files of COCO-Stuff look the same, but have a category `other` for everything that is no stuff: see `stuff`.
"""

from collections.abc import Sequence
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.coco.annotations import read_annotations
from dissect_xr.probe.readers.coco.shapes import Vocabulary, shape_label_set
from dissect_xr.probe.readers.coco.stuff import is_other


def read_coco(
    images: str | Path,
    annotations: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a file of instances such as `instances_val2017.json`. No image is read.

    All concepts are of the category `object`.

    Parameters
    ----------
    images
        Folder that the field `file_name` is relative to. The first folder in it, if there is one, is the split.
    annotations
        The JSON file.
    label_size
        (rows, columns) of the probe's label grid; None takes the size of the first image.
    categories
        Categories to keep; None keeps all.

    Raises
    ------
    DissectError
        If the file is missing or malformed; it names the entry.

    References
    ----------
    Lin et al. 2014, Microsoft COCO: Common Objects in Context.
    """
    read = read_annotations(Path(annotations))
    if other := [number for number, fields in read.categories.items() if is_other(fields)]:
        raise DissectError(
            f"{annotations}: category {other[0]} is 'other', which in COCO-Stuff means everything that is no stuff. "
            "Read the file as `kind: coco_stuff`, or by read_coco_stuff."
        )
    vocabulary = Vocabulary.of(read).of_categories(categories)
    return shape_label_set(read, Path(images), vocabulary, layout="coco", size=label_size)
