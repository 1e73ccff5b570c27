"""Reads PASCAL VOC (2007 to 2012): 20 classes of objects in PNGs with a palette, and their ignored borders.

Knows: `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation`, and the order of the classes.
Does not know: parts (`pascal_part`), the classes of the background (`pascal_context`).

Traps
-----
- The number is the palette's index, not its colour. 0 is the background, which is no concept.
- 255 (drawn in cream) is the border of every object, and what is hard to tell. It is no class and no background: these
  pixels are ignored, in no mask, no concept and no area.
- `SegmentationObject` counts the objects of an image; it has the same palette and no classes.
- `trainval.txt` repeats `train.txt` and `val.txt`, and most images of JPEGImages have no label map: only the images of
  the two lists are read.
"""

from collections.abc import Sequence
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.lists import split_lists
from dissect_xr.probe.readers.masks import decode_mask

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Class 1, 2, ... 20."""

BORDER = 255


def read_voc(
    folder: str | Path,
    *,
    masks: str = "SegmentationClass",
    splits: Sequence[str] = ("train", "val"),
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the images that `ImageSets/Segmentation/<split>.txt` of VOCdevkit/VOC<year> lists.

    Parameters
    ----------
    masks
        Folder of the label maps; others in the same form are `SegmentationClassAug` (SBD), for example.
    splits
        Names of the lists that are read; an image in two of them is refused.

    Raises
    ------
    DissectError
        If the folder or the lists are missing, or an image is listed twice.

    References
    ----------
    Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) Challenge.
    """
    folder = Path(folder)
    for name in ("JPEGImages", masks):
        if not (folder / name).is_dir():
            raise DissectError(f"{folder}: expected a folder such as VOCdevkit/VOC2012, found no {name}/ in it.")
    listed = split_lists(folder / "ImageSets" / "Segmentation", splits)
    found = LabelSet(
        images=str(folder / "JPEGImages"),
        maps=str(folder / masks),
        rows=tuple(
            Row(f"{name}.jpg", entry.text, ((0, f"{name}.png"),), (), None, entry.where)
            for name, entry in listed.items()
        ),
        concepts=tuple(Concept(number, name, "object") for number, name in enumerate(CLASSES, 1)),
        categories=("object",),
        planes=("object",),
        decode=decode_mask,
        label_size=(0, 0),
        void=frozenset({BORDER}),
        parameters={"layout": "voc", "masks": masks},
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=folder)
