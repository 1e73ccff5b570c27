"""Reads PACO, objects and their parts in images that are verified for single categories, as a label set.

Knows: how PACO names parts, and which categories an image says something about.
Does not know: the lists of the file (`annotations`), how shapes are drawn and stacked (`shapes`).

PACO has 75 objects, and 456 parts of them that are called `mug:handle`. As in LVIS (see `lvis`), an image says
something about its annotated categories and those in `neg_category_ids`, but not about those in
`not_exhaustive_category_ids`; the lists name objects and parts.

- **Parts** are of the category `part`, and their `parent` is the object of the name before the colon: `mug:handle` and
  `drill:handle` are two concepts. The list `part_categories` of the file, with one `handle` for both, is not read.
- **Objects without a mask.** In PACO-EGO4D, many objects have a box and no segmentation. Which pixels they have is not
  known, so their image is not verified for them.
- **file_name** is relative to the folder of COCO's images (PACO-LVIS) or of the frames (PACO-EGO4D).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.coco.annotations import Annotations, read_annotations
from dissect_xr.probe.readers.coco.lvis import federated_label_set
from dissect_xr.probe.readers.coco.shapes import Vocabulary


def read_paco(
    images: str | Path,
    annotations: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a file of PACO such as `paco_lvis_v1_val.json`. No image is read.

    Parameters
    ----------
    images, annotations, label_size, categories
        As of :func:`dissect_xr.probe.readers.coco.instances.read_coco`. The categories are `object` and `part`.

    Raises
    ------
    DissectError
        If the file is missing or malformed, or the object of a part is no category.

    References
    ----------
    Ramanathan et al. 2023, PACO: Parts and Attributes of Common Objects.
    """
    read = read_annotations(Path(annotations))
    vocabulary = Vocabulary.of(read)
    numbers = {concept.name: concept.number for concept in vocabulary.concepts}
    vocabulary = replace(vocabulary, concepts=tuple(_named(one, numbers, read) for one in vocabulary.concepts))
    kept = vocabulary.of_categories(categories)
    return federated_label_set(read, Path(images), kept, layout="paco", size=label_size)


def _named(concept: Concept, numbers: dict[str, int], read: Annotations) -> Concept:
    """An object as it is, a part with its category and its parent."""
    whole, colon, _ = concept.name.partition(":")
    if not colon:
        return concept
    if whole not in numbers:
        raise DissectError(f"{read.path}: category '{concept.name}' is a part of '{whole}', which is no category.")
    return replace(concept, category="part", parent=numbers[whole])
