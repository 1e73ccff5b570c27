"""Reads Cityscapes: street scenes of 50 cities, from the PNGs of label ids or of training ids.

Knows: the classes of cityscapesScripts (`labels.py`), and how images and label maps are called.
Does not know: polygons and instances.

Traps
-----
- `labelIds` count from 0, `unlabeled`, to 33, and so do `labelTrainIds`, from 0, `road`, to 18, with 255 for all else:
  0 is a class in one and void in the other. Concepts have the label ids here, whichever files are read.
- Void is more than 255: the hood of the car that filmed, the border of rectification, what moves and what is static
  (ids 0 to 6). These pixels are ignored, in no mask, no concept and no area.
- Eight more classes, such as `parking` and `bridge`, are ignored when methods are evaluated (`ignoreInEval`) and 255 in
  `labelTrainIds`. They are ignored here, too, unless `evaluated_only` is false; then `labelIds` are needed.
- The label maps of the split `test` hold void alone. It is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import Concept, LabelSet
from dissect_xr.probe.readers.completed import completed, paired_rows
from dissect_xr.probe.readers.masks import decode_mask
from dissect_xr.probe.readers.pairs import LITTER, Names, Pair, paired


class Label(NamedTuple):
    """A class of Cityscapes."""

    id: int
    train_id: int
    """255 where evaluation ignores it"""
    name: str


LABELS = (
    Label(0, 255, "unlabeled"), Label(1, 255, "ego vehicle"), Label(2, 255, "rectification border"),
    Label(3, 255, "out of roi"), Label(4, 255, "static"), Label(5, 255, "dynamic"), Label(6, 255, "ground"),
    Label(7, 0, "road"), Label(8, 1, "sidewalk"), Label(9, 255, "parking"), Label(10, 255, "rail track"),
    Label(11, 2, "building"), Label(12, 3, "wall"), Label(13, 4, "fence"), Label(14, 255, "guard rail"),
    Label(15, 255, "bridge"), Label(16, 255, "tunnel"), Label(17, 5, "pole"), Label(18, 255, "polegroup"),
    Label(19, 6, "traffic light"), Label(20, 7, "traffic sign"), Label(21, 8, "vegetation"), Label(22, 9, "terrain"),
    Label(23, 10, "sky"), Label(24, 11, "person"), Label(25, 12, "rider"), Label(26, 13, "car"),
    Label(27, 14, "truck"), Label(28, 15, "bus"), Label(29, 255, "caravan"), Label(30, 255, "trailer"),
    Label(31, 16, "train"), Label(32, 17, "motorcycle"), Label(33, 18, "bicycle"),
)  # fmt: skip

VOID = 6
"""Ids up to this one are void."""

IGNORED = 255
"""Training id of what evaluation ignores, and what every ignored pixel is decoded to."""


def read_cityscapes(
    folder: str | Path,
    *,
    ids: Literal["labelIds", "labelTrainIds"] = "labelIds",
    annotations: str = "gtFine",
    evaluated_only: bool = True,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the images in leftImg8bit/<split>/<city>, without the split `test`.

    Parameters
    ----------
    folder
        Holds `leftImg8bit` and the folder of annotations.
    ids
        The files of label ids, or those of training ids. Concepts have the label ids, 7 to 33, in both.
    annotations
        `gtFine` or `gtCoarse`.
    evaluated_only
        Whether classes that evaluation ignores are ignored, as they are in `labelTrainIds`.

    Raises
    ------
    DissectError
        If a folder or a label map is missing, or training ids are to tell classes apart that they do not.

    References
    ----------
    Cordts et al. 2016, The Cityscapes Dataset for Semantic Urban Scene Understanding.
    """
    folder = Path(folder)
    if ids not in ("labelIds", "labelTrainIds"):
        raise DissectError(f"ids '{ids}': expected labelIds or labelTrainIds.")
    if ids == "labelTrainIds" and not evaluated_only:
        raise DissectError("evaluated_only: false needs `ids: labelIds`: in labelTrainIds all other classes are 255.")
    images, maps = folder / "leftImg8bit", folder / annotations
    if not images.is_dir() or not maps.is_dir():
        missing = images if not images.is_dir() else maps
        raise DissectError(f"{missing}: expected a folder of Cityscapes, found none.")
    names = Names("{stem}_leftImg8bit.png", f"{{stem}}_{annotations}_{ids}.png", follow_links)
    splits = sorted(path.name for path in images.iterdir() if path.is_dir() and path.name not in {"test", *LITTER})
    splits = [name for name in splits if not name.startswith(".")]
    pairs, notes = pairs_of_splits(images, maps, splits, names)
    kept = [one for one in LABELS if one.id > VOID and (one.train_id != IGNORED or not evaluated_only)]
    found = LabelSet(
        images=str(images),
        maps=str(maps),
        rows=paired_rows(pairs, images),
        concepts=tuple(Concept(one.id, one.name, "object") for one in kept),
        categories=("object",),
        planes=("object",),
        decode=Cityscapes(ids, frozenset(one.id for one in kept)),
        label_size=(0, 0),
        void=frozenset({IGNORED}),
        parameters={"layout": "cityscapes", "ids": ids, "annotations": annotations, "evaluated_only": evaluated_only},
        notes=(*notes, *([f"{images / 'test'}: left out, it has no labels."] if (images / "test").is_dir() else [])),
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=folder)


@dataclass(frozen=True)
class Cityscapes:
    """Decodes label maps to label ids."""

    ids: str
    kept: frozenset[int]
    """the label ids that are concepts; all others are ignored pixels"""
    __name__ = "cityscapes"

    def __call__(self, path: Path) -> NDArray[np.uint16]:
        """Label ids (row, col), 255 where a pixel is ignored."""
        labels = decode_mask(path)
        table = np.zeros(1 << 16, np.uint16)
        for one in LABELS:
            number = one.id if self.ids == "labelIds" else one.train_id
            table[number] = one.id if one.id in self.kept else IGNORED
        if self.ids == "labelTrainIds":
            table[IGNORED] = IGNORED
        numbers = table[labels]
        if not numbers.all():
            number = int(labels[numbers == 0][0])
            raise Fault(
                f"{path}: holds {number}, which is none of the {self.ids} of Cityscapes. Is it a file of other ids?",
                f"label map: it holds numbers that are none of the {self.ids}",
                shared=True,
                numbers=(number,),
            )
        return numbers


def pairs_of_splits(images: Path, maps: Path, splits: list[str], names: Names) -> tuple[list[Pair], tuple[str, ...]]:
    """Images and label maps below a folder for each split, and what a person should be told of other files.

    Raises
    ------
    DissectError
        If there is no split, or an image has no label map.
    """
    if not splits:
        raise DissectError(f"{images}: expected a folder for each split, such as train, found none.")
    pairs: list[Pair] = []
    notes: list[str] = []
    for split in splits:
        found, passed_over = paired(images / split, maps / split, names)
        pairs += [(f"{split}/{image}", f"{split}/{path}") for image, path in found]
        notes += passed_over
    return pairs, tuple(notes)
