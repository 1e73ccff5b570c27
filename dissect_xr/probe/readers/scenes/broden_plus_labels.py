"""The labels of Broden+: which number of which set is which of its objects, parts, scenes and materials.

Knows: `label_assignment.csv`, `object_part_hierarchy.csv`, the lists of names, and how each set stores numbers.
Does not know: records, or which images there are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import LARGEST
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.scenes.ade20k_full import decode_rg
from dissect_xr.probe.readers.scenes.part_names import without_sides
from dissect_xr.probe.readers.scenes.pascal_context import decode_pascal_context
from dissect_xr.probe.readers.scenes.pascal_part import masks_of
from dissect_xr.probe.readers.tables import Line, read_table

BASE = {"object": 0, "part": 1000, "scene": 2001, "material": 3000}
"""Is added to the label of a category; scenes count from 0."""

MOST = 1000
"""Labels of a category are fewer."""

PASCAL_PARTS = "pascal/part names"
"""The table from the names of Pascal's parts to concept numbers, as JSON."""


@dataclass(frozen=True)
class BrodenPlusLabels:
    """Everything that the tables say."""

    concepts: tuple[tuple[int, str, str], ...]
    """number, name and category"""
    tables: Mapping[str, bytes]
    """``<set>/<category>`` -> uint16 concept number of each of the set's numbers, 0 for none"""
    has_part: bytes
    """int64 ``1000 * object + part`` for each part that an object has"""
    scenes: Mapping[int, tuple[str, int]]
    """number of a scene of ADE20K -> its name and concept number, 0 for none"""
    sha256: str
    """of all of it"""

    @classmethod
    def read(cls, meta: Path) -> "BrodenPlusLabels":
        """The tables in the folder `meta_file`.

        Raises
        ------
        DissectError
            If one is missing or malformed, or names a label that is in no list.
        """
        names = {category: _names(meta / f"{category}.csv", category) for category in BASE}
        numbers: dict[str, dict[int, int]] = {}
        scenes: dict[int, tuple[str, int]] = {}
        parts: dict[str, int] = {}
        path = meta / "label_assignment.csv"
        for line in read_table(path, ["dataset", "category", "raw_label", "raw_name", "broden_label"]).lines:
            source, category = line.cells["dataset"], line.cells["category"]
            if category not in BASE:
                continue
            raw, number = line.number("raw_label"), _number(line, category, names)
            numbers.setdefault(f"{source}/{category}", {})[raw] = number
            if category == "scene":
                scenes[raw] = line.cells["raw_name"].removesuffix("-s"), number
            if category == "part" and source == "pascal":
                parts[line.cells["raw_name"]] = number
        concepts = tuple(
            (label + BASE[category], name, category)
            for category in BASE
            for label, name in sorted(names[category].items())
        )
        tables = {key: _array(found) for key, found in numbers.items() if not key.endswith("/scene")}
        tables |= {PASCAL_PARTS: json.dumps(parts).encode()}
        has_part = _hierarchy(meta / "object_part_hierarchy.csv")
        content = [concepts, sorted(scenes.items()), {key: table.hex() for key, table in sorted(tables.items())}]
        digest = sha256(json.dumps([content, has_part.hex()]).encode()).hexdigest()
        return cls(concepts, tables, has_part, scenes, digest)

    def scene(self, raw: int, name: str) -> int:
        """Concept number of the scene of ADE20K that has this number and name, 0 for none."""
        if raw == 0:
            return 0
        known, number = self.scenes.get(raw, ("none", 0))
        if _letters(known) != _letters(name):
            raise DissectError(
                f"scene {raw} of ADE20K is '{name}', and '{known}' in label_assignment.csv. Scenes are numbered in the "
                "order of the names in scene_categories.txt; use the file of the full set."
            )
        return number


def _number(line: Line, category: str, names: Mapping[str, Mapping[int, str]]) -> int:
    """Concept number in a row of the assignment, 0 for none: -1 is no scene, 0 is none of the others."""
    label = line.number("broden_label")
    if label < 0 or (label == 0 and category != "scene"):
        return 0
    if label not in names[category]:
        raise DissectError(f"{line.where}: broden_label {label} is not in {category}.csv.")
    return label + BASE[category]


def _names(path: Path, category: str) -> dict[int, str]:
    """Label -> name of a list; label 0 is a scene, and none of the others."""
    found: dict[int, str] = {}
    for line in read_table(path, ["label", "name"]).lines:
        label, name = line.number("label"), line.cells["name"]
        if not 0 <= label < MOST or label in found or not name:
            raise DissectError(f"{line.where}: expected a new label from 0 to {MOST - 1} and a name, got {label}.")
        if label or category == "scene":
            found[label] = name
    return found


def _array(numbers: Mapping[int, int]) -> bytes:
    """A table from raw numbers to concept numbers."""
    if min(numbers) < 0 or max(numbers) > LARGEST:
        raise DissectError(f"label_assignment.csv: raw_label must lie between 0 and {LARGEST}.")
    table = np.zeros(max(numbers) + 1, np.uint16)
    table[list(numbers)] = list(numbers.values())
    return table.tobytes()


def _hierarchy(path: Path) -> bytes:
    """The pairs of an object and a part of it."""
    pairs = []
    for line in read_table(path, ["object_label", "part_labels"]).lines:
        whole = line.number("object_label")
        for cell in line.cells["part_labels"].split(";"):
            if not cell.strip().isdecimal():
                raise DissectError(
                    f"{line.where}, column 'part_labels': expected numbers with ; between, got '{cell}'."
                )
            if int(cell):
                pairs.append(whole * MOST + int(cell))
    return np.array(sorted(pairs), np.int64).tobytes()


def _letters(name: str) -> str:
    """The letters and digits of a name: separators differ between the lists."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class BrodenPlus:
    """Decodes the label maps of the three sets, which it tells by their paths."""

    tables: Mapping[str, bytes]
    has_part: bytes
    __name__ = "broden_plus"

    def __call__(self, path: Path) -> NDArray[np.uint16]:
        """Concept numbers (row, col)."""
        if path.name.endswith("_parts_1.png"):
            whole = path.with_name(path.name.replace("_parts_1.png", "_seg.png"))
            return self._inside(self._numbers("ade20k/part", decode_rg(path)), self(whole), path)
        if path.name.endswith("_seg.png"):
            return self._numbers("ade20k/object", decode_rg(path))
        if path.parent.name == "Annotations_Part":
            whole = path.parents[2] / "context" / "trainval" / path.name
            objects = self(whole)
            return self._inside(self._pascal_parts(path, objects.shape), objects, path)
        if path.suffix == ".mat":
            return self._numbers("pascal/object", decode_pascal_context(path))
        with open_labels(path) as image:
            if image.mode != "RGB":
                raise Fault(f"{path}: expected materials as 8-bit RGB, got {image.mode}.", "label map: it is no RGB")
            return self._numbers("os/material", np.asarray(image)[..., 0].astype(np.uint16))

    def _numbers(self, key: str, raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The numbers of a set as concept numbers, 0 where Broden+ has no label for it."""
        table = np.zeros(1 << 16, np.uint16)
        known = np.frombuffer(self.tables.get(key, b""), np.uint16)
        table[: known.size] = known
        return table[raw]

    def _pascal_parts(self, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint16]:
        """Parts as Broden+ paints them: in the order of the file, later ones over earlier ones."""
        numbers: dict[str, int] = json.loads(self.tables[PASCAL_PARTS])
        labels = np.zeros(shape, np.uint16)
        for _, name, mask in masks_of(path):
            if mask.shape != shape:
                raise Fault(
                    f"{path}: has another size than the objects of the image.", "label map: parts of another size"
                )
            if name:
                labels[mask] = numbers.get(without_sides(name), 0)
        return labels

    def _inside(self, parts: NDArray[np.uint16], objects: NDArray[np.uint16], path: Path) -> NDArray[np.uint16]:
        """The parts that lie in an object which has such a part."""
        if parts.shape != objects.shape:
            raise Fault(f"{path}: has another size than the objects of the image.", "label map: parts of another size")
        pairs = objects.astype(np.int64) * MOST + parts - BASE["part"]
        return np.where(np.isin(pairs, np.frombuffer(self.has_part, np.int64)), parts, 0).astype(np.uint16)
