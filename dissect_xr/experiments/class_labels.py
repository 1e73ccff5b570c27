"""Images with one class each: from a table `image,class`, or from a probe's whole-image labels of a category.

Knows: the table, the probe's names, labels and splits, and the order of a network's scores, as somebody gave it.
Does not know: models, or what is done with the classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations.references import file_sha256
from dissect_xr.dissection.labels import open_labels
from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.readers.tables import Line, read_table
from dissect_xr.probe.root import image_folder

READERS = 8
"""Threads that read images whose bytes are digested."""

Outputs = Sequence[str] | str | int
"""The classes in the order of a network's scores: their names, a text file with a name on each line, or how many there
are, where the labels are numbers from 0."""


@dataclass(frozen=True)
class Labelled:
    """Images, each of one class and one split."""

    root: Folder
    """folder of the images"""
    images: tuple[str, ...]
    """relative to the folder"""
    label: NDArray[np.int64]
    """(image,) index of its class"""
    split: tuple[str, ...]
    """of each image"""
    classes: tuple[str, ...]
    outputs: bool
    """whether the classes are all of a network's scores, in their order"""
    position: NDArray[np.int64] | None
    """(image,) its index in the probe; None where the images are not a probe's"""
    images_sha256: str
    """the probe's; of the bytes of all images where they are not a probe's"""

    def of(self, split: str) -> "Labelled":
        """The images of one split, in order.

        Raises
        ------
        DissectError
            If there are none; the splits are listed with their numbers of images.
        """
        chosen = np.flatnonzero(np.array(self.split) == split)
        if not chosen.size:
            raise DissectError(
                f"split '{split}': no labelled image is in it; there are {dict(sorted(Counter(self.split).items()))}. "
                "Name two of these, or give the table a column `split`."
            )
        return replace(
            self,
            images=tuple(self.images[n] for n in chosen),
            label=self.label[chosen],
            split=(split,) * chosen.size,
            position=None if self.position is None else self.position[chosen],
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """(class,) images of each class."""
        return np.bincount(self.label, minlength=len(self.classes)).astype(np.int64)

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines an experiment on these images, as JSON."""
        rows = [list(row) for row in zip(self.images, self.label.tolist(), self.split, strict=True)]
        return {
            "images": len(rows),
            "images_sha256": self.images_sha256,
            "classes_sha256": store.fingerprint({"classes": list(self.classes), "outputs": self.outputs}),
            "labels_sha256": store.fingerprint({"labels": rows}),
        }


def class_table(
    path: str | Path,
    *,
    probe: store.Url | None = None,
    folder: str | Path | None = None,
    outputs: Outputs | None = None,
) -> Labelled:
    """The classes of a CSV file with the columns ``image``, ``class`` and, if there is one, ``split``.

    Parameters
    ----------
    probe
        The images are this probe's, by their names in it; where the table has no column ``split``, they are in the
        probe's splits. Images of the probe that the table does not name have no class.
    folder
        The images lie in this folder instead.
    outputs
        The order of a network's scores; every class of the table is one of them. None: the classes that occur, in the
        order of their names, or of their numbers where all are whole numbers.

    Raises
    ------
    DissectError
        If an image or a class is not known, an image is named twice, or there is no split; with file and line.
    """
    if (probe is None) == (folder is None):
        raise DissectError("class_table: expected either a probe or a folder of images, got both or neither.")
    lines = read_table(Path(path), ["image", "class"]).lines
    if not lines:
        raise DissectError(f"{path}: expected a row for each labelled image, found none.")
    names = outputs_of(outputs) or _sorted(line.cells["class"] for line in lines)
    indices = {name: n for n, name in enumerate(names)}
    label = [_index(indices, line, outputs) for line in lines]
    images = [line.cells["image"] for line in lines]
    if repeated := [name for name, times in Counter(images).items() if times > 1]:
        where = next(line.where for line in reversed(lines) if line.cells["image"] == repeated[0])
        raise DissectError(f"{where}: image '{repeated[0]}' is labelled more than once. Keep one of its rows.")
    split = [line.cells.get("split", "") for line in lines]
    position = None
    if probe is not None:
        probe = store.as_url(probe)
        position = np.array(_positions(probe, lines), np.int64)
        if "split" not in lines[0].cells:
            split = np.array(store.read(probe, "split")[:].tolist())[position].tolist()
    if "" in split:
        raise DissectError(
            f"{lines[split.index('')].where}: image '{images[split.index('')]}' is in no split. Give the table a "
            "column `split` (such as train and val): one is ranked or fitted on, the other measured on."
        )
    root = Folder(str(folder)) if folder is not None else image_folder(str(probe))
    return Labelled(
        root=root,
        images=tuple(images),
        label=np.array(label, np.int64),
        split=tuple(split),
        classes=tuple(names),
        outputs=outputs is not None,
        position=position,
        images_sha256=str(store.read_attrs(probe)["images_sha256"]) if probe is not None else _digest(root, lines),
    )


def category_classes(probe: store.Url, category: str, *, outputs: Outputs | None = None) -> Labelled:
    """The whole-image labels of one category of a probe, such as scene; images without one are left out.

    Parameters
    ----------
    outputs
        The order of a network's scores; every label of the category is one of them. None: the category's concepts that
        are whole-image labels, in the order of their numbers.

    Raises
    ------
    DissectError
        If the probe has no such labels, an image has several of them, or one is not among `outputs`.
    """
    probe = store.as_url(probe)
    tables = open_labels(probe)
    categories = np.asarray(store.read(probe, "concept_category")[:].tolist())
    if category not in (there := store.read(probe, "category")[:].tolist()):
        raise DissectError(f"{probe}: has no category '{category}'; there are {', '.join(there)}.")
    of_category = tables.concepts[categories == category]
    concept_names = store.read(probe, "concept_name")[:].tolist()
    names = dict(zip(tables.concepts.tolist(), concept_names, strict=True))
    whole = np.asarray(store.read(probe, "whole_image")[:], np.int64)
    mine = np.isin(whole, of_category) & (whole > 0)
    images, splits = (store.read(probe, name)[:].tolist() for name in ("image", "split"))
    if (several := np.flatnonzero([len(set(row[at].tolist())) > 1 for row, at in zip(whole, mine, strict=True)])).size:
        first = int(several[0])
        found = ", ".join(names[number] for number in sorted(set(whole[first][mine[first]].tolist())))
        raise DissectError(
            f"{probe}: image '{images[first]}' has several labels of the category {category} ({found}), and so have "
            f"{several.size - 1} other images: expected one class of an image. Say in a table which: labels.csv."
        )
    position = np.flatnonzero(mine.any(axis=1))
    if not position.size:
        raise DissectError(
            f"{probe}: no image has a whole-image label of the category {category}. Name another category, or give a "
            "table: labels.csv."
        )
    numbers = whole[position][np.arange(position.size), mine[position].argmax(axis=1)]
    occur = [names[number] for number in sorted(set(numbers.tolist()))]
    classes = outputs_of(outputs) or occur
    if unknown := [name for name in occur if name not in classes]:
        raise DissectError(_not_an_output(f"{probe}, category {category}", unknown[0], classes))
    return Labelled(
        root=image_folder(probe),
        images=tuple(images[n] for n in position),
        label=np.array([classes.index(names[number]) for number in numbers.tolist()], np.int64),
        split=tuple(splits[n] for n in position),
        classes=tuple(classes),
        outputs=outputs is not None,
        position=position.astype(np.int64),
        images_sha256=str(store.read_attrs(probe)["images_sha256"]),
    )


def outputs_of(outputs: Outputs | None) -> list[str]:
    """Names of the classes in the order of a network's scores; empty for None.

    >>> outputs_of(3), outputs_of(["cat", "dog"])
    (['0', '1', '2'], ['cat', 'dog'])
    """
    if outputs is None:
        return []
    where = "outputs"
    if isinstance(outputs, int):
        names = [str(n) for n in range(outputs)]
    elif isinstance(outputs, str):
        where = outputs
        try:
            names = [line.strip() for line in Path(outputs).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DissectError(
                f"outputs: expected a text file with the name of a class on each line, but {outputs} cannot be read "
                f"({error}). Correct the path, or list the names."
            ) from error
    else:
        names = [str(name) for name in outputs]
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        wrong = "an empty one" if "" in names else "one twice" if len(set(names)) < len(names) else f"{len(names)}"
        raise DissectError(f"{where}: expected at least two names of classes, each once, got {wrong}.")
    return names


def _sorted(cells: Any) -> list[str]:
    """Distinct classes, in the order of their numbers where all of them are whole numbers, else of their names."""
    names = set(cells)
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _index(indices: Mapping[str, int], line: Line, outputs: Outputs | None) -> int:
    name = line.cells["class"]
    if not name:
        raise DissectError(f"{line.where}, column 'class': expected the name of a class, got an empty cell.")
    if name not in indices:
        raise DissectError(_not_an_output(line.where, name, list(indices)))
    return indices[name]


def _positions(probe: str, lines: Sequence[Line]) -> list[int]:
    open_labels(probe)  # raises unless the probe is complete
    at = {name: n for n, name in enumerate(store.read(probe, "image")[:].tolist())}
    for line in lines:
        if line.cells["image"] not in at:
            example = next(iter(at))
            raise DissectError(
                f"{line.where}, column 'image': '{line.cells['image']}' is no image of {probe}, whose images are named "
                f"like '{example}'. Mend the name, or give the folder that the images lie in."
            )
    return [at[line.cells["image"]] for line in lines]


def _digest(root: Folder, lines: Sequence[Line]) -> str:
    """sha256 over the bytes of the table's images; reads all of them."""

    def of(line: Line) -> str:
        try:
            return file_sha256(root.path(line.cells["image"]))
        except DissectError as error:
            raise DissectError(f"{line.where}, column 'image': {error}") from error

    with ThreadPoolExecutor(READERS) as executor:
        return store.fingerprint({"files": list(executor.map(of, lines))})


def _not_an_output(where: str, name: str, classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5])
    return (
        f"{where}: class '{name}' is none of the network's {len(classes)} outputs ({shown}, ...). Mend the name, or "
        "correct `outputs`: the names of the classes in the order of the network's scores."
    )
