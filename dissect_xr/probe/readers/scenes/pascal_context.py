"""Reads PASCAL-Context: the images of VOC2010 with 459 classes of objects and backgrounds, in MATLAB files.

Knows: `trainval/*.mat`, `labels.txt`, and lists of fewer classes such as `59_labels.txt`.
Does not know: the 59 classes as PNGs that others have made.

Traps
-----
- The number in the variable `LabelMap` is that of `labels.txt`, from 1 to 459; 0 is unlabelled.
- `59_labels.txt` numbers its classes anew: its numbers are not those in the files. It is read by names alone, of which
  three differ from those of labels.txt: `table`, `bedclothes` and `cloth`.
- One class is called `unknown`: something is there, and nobody has said what. It counts as unlabelled.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.lists import numbered_names, split_lists
from dissect_xr.probe.readers.pairs import files_below
from dissect_xr.probe.readers.scenes.matlab import label_array, read_mat

UNKNOWN = "unknown"

OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""Names in 59_labels.txt that labels.txt spells otherwise."""


def read_pascal_context(
    folder: str | Path,
    *,
    image_folder: str | Path,
    classes: str | Path | None = None,
    lists: str | Path | None = None,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of all label maps in `folder`/trainval, with the names of `folder`/labels.txt.

    Parameters
    ----------
    image_folder
        The folder VOC2010/JPEGImages.
    classes
        A list such as 59_labels.txt, of which only the names are read: classes that it does not name count as
        unlabelled. None keeps all.
    lists
        A folder with `train.txt` and `val.txt`, such as VOC2010/ImageSets/Main: only images of these are taken, and the
        lists are the splits. None takes all, as one split.

    Raises
    ------
    DissectError
        If a folder or list is missing or malformed, or `classes` names a class that labels.txt does not have.

    References
    ----------
    Mottaghi et al. 2014, The Role of Context for Object Detection and Semantic Segmentation in the Wild.
    """
    folder = Path(folder)
    names = numbered_names(folder / "labels.txt", "the numbers and names of the classes")
    wanted = set(names.values()) - {UNKNOWN} if classes is None else _wanted(Path(classes), names, folder)
    concepts = tuple(Concept(number, name, "object") for number, name in names.items() if name in wanted)
    found = LabelSet(
        images=str(image_folder),
        maps=str(folder / "trainval"),
        rows=mat_rows(folder / "trainval", lists, follow_links=follow_links),
        concepts=concepts,
        categories=("object",),
        planes=("object",),
        decode=decode_pascal_context,
        label_size=(0, 0),
        ignored=frozenset(names) - {concept.number for concept in concepts},
        parameters={"layout": "pascal_context"},
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=folder)


def decode_pascal_context(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of the variable `LabelMap`."""
    labels = label_array(read_mat(path, "LabelMap"), path, "LabelMap")
    if labels.size and (labels.min() < 0 or labels.max() > LARGEST):
        raise Fault(
            f"{path}: expected numbers from 0 to {LARGEST}, got {labels.min()} to {labels.max()}.",
            "label map: it holds a number that no concept can have",
        )
    return labels.astype(np.uint16)


def mat_rows(folder: Path, lists: str | Path | None, *, follow_links: bool) -> tuple[Row, ...]:
    """A row for every MATLAB file in a folder, of the image of the same name, or for those in lists of splits."""
    if not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder of MATLAB files, found none.")
    there = [path.removesuffix(".mat") for path in files_below(folder, follow_links) if path.endswith(".mat")]
    if not there:
        raise DissectError(f"{folder}: expected MATLAB files (.mat), found none.")
    if lists is None:
        return tuple(Row(f"{name}.jpg", "all", ((0, f"{name}.mat"),), (), None, str(folder / name)) for name in there)
    listed = split_lists(Path(lists), ("train", "val"))
    if missing := sorted(set(there) - set(listed)):
        raise DissectError(
            f"{lists}: of the {len(there)} images of {folder}, {len(missing)} are in neither list: {missing[0]}, ... "
            "Name the folder with the lists of all of them, or leave `lists` out."
        )
    return tuple(
        Row(f"{name}.jpg", listed[name].text, ((0, f"{name}.mat"),), (), None, listed[name].where) for name in there
    )


def _wanted(path: Path, names: dict[int, str], folder: Path) -> set[str]:
    """The names of a shorter list as labels.txt spells them."""
    there = set(names.values())
    asked: Sequence[str] = list(numbered_names(path, "a list of classes").values())
    found = [name if name in there else OTHER_NAMES.get(name, name) for name in asked]
    if unknown := [name for name in found if name not in there]:
        raise DissectError(
            f"{path}: {', '.join(unknown)} not in {folder / 'labels.txt'}: expected names of classes of that list."
        )
    return set(found) - {UNKNOWN}
