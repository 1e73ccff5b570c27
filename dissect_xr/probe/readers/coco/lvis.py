"""Reads LVIS, in which images are verified for single categories, as a label set.

Knows: which of its categories an image of LVIS says something about.
Does not know: the lists of the file (`annotations`), how shapes are drawn and stacked (`shapes`).

LVIS has 1,203 categories, and nobody looked for all of them in every image. Where an image has no pixel of a category,
that mostly means nothing. An image says something about three sets of categories, and about no others:

- those with annotations in it;
- `neg_category_ids`: these were looked for, and there are none;
- `not_exhaustive_category_ids`: some of them are annotated, others are not.

So every category is a domain of its own (docs/method.md, section 1.4). Its images are those of the first two sets
without those of the third: in a domain, a pixel without a label has to mean that it is not there. Labels of the third
set do not count in that image.

- **There is no `file_name`** in version 1. An image's path is the end of its `coco_url`, train2017/000000391895.jpg,
  below the folder that holds train2017 and val2017. The images of LVIS's val are of both.
- **An annotation without a segmentation** is one whose pixels are not known: its image is not verified for the
  category.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.coco.annotations import Annotations, ImageEntry, read_annotations
from dissect_xr.probe.readers.coco.shapes import Vocabulary, shape_label_set

Size = tuple[int, int]


def read_lvis(
    images: str | Path,
    annotations: str | Path,
    *,
    label_size: Size | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a file of LVIS such as `lvis_v1_val.json`. No image is read.

    Parameters
    ----------
    images
        Folder that holds `train2017` and `val2017`.
    annotations, label_size, categories
        As of :func:`dissect_xr.probe.readers.coco.instances.read_coco`.

    Raises
    ------
    DissectError
        If the file is missing or malformed, or an image is said to have no pixel of a category that is annotated in it.

    References
    ----------
    Gupta et al. 2019, LVIS: A Dataset for Large Vocabulary Instance Segmentation, section 2.
    """
    read = read_annotations(Path(annotations))
    vocabulary = Vocabulary.of(read).of_categories(categories)
    return federated_label_set(read, Path(images), vocabulary, layout="lvis", size=label_size)


def federated_label_set(
    read: Annotations, folder: Path, vocabulary: Vocabulary, *, layout: str, size: Size | None
) -> LabelSet:
    """The label set of a file whose images are verified for single categories, each of which is a domain.

    Raises
    ------
    DissectError
        As for `read_lvis`.
    """
    own = tuple(replace(concept, own_domain=True) for concept in vocabulary.concepts)

    def verified(image: ImageEntry) -> tuple[int, ...]:
        found = {number for one in verified_categories(read, image) for number in vocabulary.numbers[one]}
        return tuple(sorted(found))

    return shape_label_set(
        read.with_segmentations(), folder, replace(vocabulary, concepts=own), layout=layout, size=size,
        verified=verified,
    )  # fmt: skip


def verified_categories(read: Annotations, image: ImageEntry) -> set[int]:
    """Ids of the categories of which every pixel without a label is known to be another thing.

    Raises
    ------
    DissectError
        If a list of the image is missing, names an unknown category, or contradicts the annotations.
    """
    marks = read.marks(image)
    absent, partly = (set(image.numbers(f"{name}_category_ids")) for name in ("neg", "not_exhaustive"))
    for field, listed in (("neg_category_ids", absent), ("not_exhaustive_category_ids", partly)):
        if unknown := sorted(listed - set(read.categories)):
            raise DissectError(f"{image.where}, {field}: {unknown[0]} is none of `categories`. Correct the list.")
    if both := sorted(absent.intersection(mark.category for mark in marks)):
        raise DissectError(
            f"{image.where}: category {both[0]} is in neg_category_ids, which says that there is none, and is "
            "annotated. Correct one of the two."
        )
    present = {mark.category for mark in marks} - {mark.category for mark in marks if mark.segmentation is None}
    return (present | absent) - partly
