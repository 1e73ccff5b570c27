"""Reads Broden+ (unified perceptual parsing): ADE20K, Pascal and OpenSurfaces with one list of labels.

Knows: the records (`broden_*.json`), where the images and label maps of each set lie, and who is in which split.
Does not know: how numbers of a set become those of Broden+ (`broden_plus_labels`).

Traps
-----
- The records are JSON by lines, not one JSON. `file_index` counts from 0: in `index_ade20k.mat` for ADE20K, in the
  sorted names of `Annotations_Part` for Pascal, in the rows of `photos.csv` for OpenSurfaces. A file too many in one of
  these shifts all that follow, so the folders must be complete. `height` and `width` are those after a resize.
- Objects, parts and materials count from 1, 0 is none. Scenes count from 0, which is `airfield`, and -1 is none (listed
  with the name `zen_garden`, the last of the list, which Python takes -1 for).
- A part counts only inside of an object that has such a part, as `object_part_hierarchy.csv` says.
- Of ADE20K (release 2016) only parts of the first level are taken, with the numbers of `(R // 10) * 256 + G`.
- In Pascal's own numbers, parts have no left and right.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed, kept_categories
from dissect_xr.probe.readers.lists import read_lines
from dissect_xr.probe.readers.scenes.ade20k import NO_SCENE
from dissect_xr.probe.readers.scenes.broden_plus_labels import BrodenPlus, BrodenPlusLabels
from dissect_xr.probe.readers.scenes.matlab import read_mat
from dissect_xr.probe.readers.tables import read_table

RECORDS = {
    "broden_ade20k_pascal_train.json": "train",
    "broden_os_train.json": "train",
    "broden_ade20k_pascal_val.json": "val",
    "broden_os_val.json": "val",
}
"""Files of records -> split."""

CATEGORIES = ("object", "part", "scene", "material")


def read_broden_plus(
    folder: str | Path,
    *,
    meta: str | Path,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of all records: objects from 1, parts from 1,001, scenes from 2,001, materials from 3,001.

    The number within a category is that of Broden+, for scenes it and 1. The files of the images and of the label maps
    stay where the sets have them.

    Parameters
    ----------
    folder
        `broden_dataset`, with `ade20k`, `pascal` and `opensurfaces` in it.
    meta
        `meta_file`, with the records, the lists of labels and `ade20k/index_ade20k.mat`.

    Raises
    ------
    DissectError
        If a table or a record is malformed, or a record names an image that a set does not have.

    References
    ----------
    Xiao et al. 2018, Unified Perceptual Parsing for Scene Understanding.
    """
    folder, meta = Path(folder), Path(meta)
    kept = kept_categories(CATEGORIES, categories, meta)
    labels = BrodenPlusLabels.read(meta)
    sources = _Sources(folder, meta, labels)
    rows = tuple(sources.row(record) for record in _records(meta))
    found = LabelSet(
        images=str(folder),
        maps=str(folder),
        rows=rows,
        concepts=tuple(Concept(number, name, category) for number, name, category in labels.concepts),
        categories=CATEGORIES,
        planes=("object", "part", "material"),
        decode=BrodenPlus(labels.tables, labels.has_part),
        label_size=(0, 0),
        parameters={"layout": "broden_plus", "labels_sha256": labels.sha256},
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=kept, label_size=label_size, where=meta)


@dataclass(frozen=True)
class _Record:
    """One line of a file of records."""

    dataset: str
    index: int
    split: str
    where: str


def _records(meta: Path) -> list[_Record]:
    there = [name for name in RECORDS if (meta / name).is_file()]
    if not there:
        raise DissectError(f"{meta}: expected files of records, {', '.join(RECORDS)}, found none.")
    records = []
    for name in there:
        for entry in read_lines(meta / name, "records of Broden+, one JSON a line"):
            try:
                content: Any = json.loads(entry.text)
                dataset, index = content["dataset"], content["file_index"]
                if not isinstance(dataset, str) or not isinstance(index, int) or index < 0:
                    raise TypeError(f"dataset {dataset!r}, file_index {index!r}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DissectError(
                    f"{entry.where}: expected a record with dataset and file_index, {type(error).__name__}: {error}."
                ) from error
            records.append(_Record(dataset, index, RECORDS[name], entry.where))
    return records


@dataclass(eq=False)
class _Sources:
    """The files of the three sets."""

    folder: Path
    meta: Path
    labels: BrodenPlusLabels

    def row(self, record: _Record) -> Row:
        """The row of a record."""
        match record.dataset:
            case "ade20k":
                return self._ade20k(record)
            case "pascal":
                _check(record, len(self._pascal), self.folder / "pascal/part/Annotations_Part")
                name = self._pascal[record.index]
                maps = ((0, f"pascal/context/trainval/{name}"), (1, f"pascal/part/Annotations_Part/{name}"))
                image = f"pascal/VOC2010/JPEGImages/{name.removesuffix('.mat')}.jpg"
                return Row(image, record.split, maps, (), None, record.where)
            case "os":
                _check(record, len(self._photos), self.folder / "opensurfaces/photos.csv")
                photo = self._photos[record.index]
                material = (2, f"opensurfaces/photos-labels/{photo}.png")
                return Row(f"opensurfaces/photos/{photo}.jpg", record.split, (material,), (), None, record.where)
        raise DissectError(f"{record.where}: dataset '{record.dataset}' is none of ade20k, pascal and os.")

    def _ade20k(self, record: _Record) -> Row:
        _check(record, len(self._ade), self.meta / "ade20k/index_ade20k.mat")
        image = self._ade[record.index]
        stem = f"ade20k/{image.removesuffix('.jpg')}"
        parts = f"{stem}_parts_1.png"
        maps = [(0, f"{stem}_seg.png"), *([(1, parts)] if (self.folder / parts).is_file() else [])]
        name = self._scenes[record.index]
        scene = self.labels.scene(self._order[name], name)
        whole = (scene,) if scene else ()
        return Row(f"ade20k/{image}", record.split, tuple(maps), whole, None, record.where)

    @cached_property
    def _ade(self) -> list[str]:
        """Path below `ade20k` of every image."""
        index = read_mat(self.meta / "ade20k/index_ade20k.mat", "index")
        try:
            names, folders = (index[0, 0][field].ravel() for field in ("filename", "folder"))
            return [f"{_text(folder)}/{_text(name)}" for name, folder in zip(names, folders, strict=True)]
        except (ValueError, IndexError, TypeError, KeyError) as error:
            raise DissectError(
                f"{self.meta / 'ade20k/index_ade20k.mat'}: expected the struct `index` with filename and folder of "
                f"every image, {type(error).__name__}: {error}."
            ) from error

    @cached_property
    def _scenes(self) -> list[str]:
        """Scene of every image, in the same order."""
        path = self.meta / "ade20k/scene_categories.txt"
        entries = read_lines(path, "the scene of every image of ADE20K")
        if len(entries) != len(self._ade):
            raise DissectError(f"{path}: expected {len(self._ade)} lines, as the index has images, got {len(entries)}.")
        scenes = []
        for entry, image in zip(entries, self._ade, strict=True):
            name, _, scene = entry.text.partition(" ")
            if f"{name}.jpg" != image.rpartition("/")[2] or not scene.strip():
                raise DissectError(f"{entry.where}: expected the scene of {image}, got '{entry.text}'.")
            scenes.append(scene.strip())
        return scenes

    @cached_property
    def _order(self) -> dict[str, int]:
        """Scene -> its number: the order of the names, from 1; images of no scene have 0."""
        names = sorted(set(self._scenes) - {NO_SCENE})
        return {NO_SCENE: 0} | {name: n for n, name in enumerate(names, 1)}

    @cached_property
    def _pascal(self) -> list[str]:
        """Names of the files of Pascal-Part, sorted."""
        folder = self.folder / "pascal/part/Annotations_Part"
        if not folder.is_dir():
            raise DissectError(f"{folder}: expected a folder of MATLAB files, found none.")
        return sorted(path.name for path in folder.iterdir() if path.name.endswith(".mat"))

    @cached_property
    def _photos(self) -> list[int]:
        """Number of every photograph of OpenSurfaces."""
        table = read_table(self.folder / "opensurfaces/photos.csv", ["photo_id"])
        return [line.number("photo_id") for line in table.lines]


def _text(value: Any) -> str:
    """A text in a cell of MATLAB."""
    return str(value[0])


def _check(record: _Record, count: int, source: Path) -> None:
    if record.index >= count:
        raise DissectError(
            f"{record.where}: file_index {record.index} is beyond the {count} images of {source}. Is the set complete?"
        )
