"""Reads the full ADE20K (ADE20K_2021_17_01): 3,688 classes of objects, parts, parts of parts, and scenes.

Knows: the JSON file, `_seg.png` and `_parts_<level>.png` that lie beside every image.
Does not know: the challenge with its 150 classes (`ade20k`).

Traps
-----
- A number is ``(R // 10) * 256 + G``; B counts instances. R is a multiple of 10 and must be divided as a whole number,
  before it is multiplied and in more than 8 bits.
- The names of the numbers are in the JSON files, as `name_ndx` and `name`. `index_ade20k.pkl` says the same, but a
  pickle runs what is in it: it is not read.
- Parts have the numbers of objects: a `door` of a car and a `door` of its own are one number. They are two concepts
  here, of two categories; a part's number is the one in the file and 10,000. Its whole is stored where it has only one.
- JSON files are in Latin-1, and where there could be a list there may be a single entry, or an empty list for none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.pairs import files_below

PARTS = 10_000
"""Is added to the numbers of parts; numbers in the files are at most 25 * 256 + 255 = 6,655."""

SCENES = 20_000
"""Scenes are numbered from here, in the order of their names."""


def read_ade20k_full(
    folder: str | Path,
    *,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of all images below `folder`/images/ADE: objects in one plane, parts in one per level, scenes.

    Reads the JSON file of every image. A scene is called by all its levels, as in `outdoor/urban/street`. The splits
    are the folders below images/ADE, `training` and `validation`.

    Raises
    ------
    DissectError
        If an image lacks its JSON file or `_seg.png`, or a JSON file is malformed.

    References
    ----------
    Zhou et al. 2019, Semantic Understanding of Scenes through the ADE20K Dataset.
    """
    root = _root(Path(folder))
    files = set(files_below(root, follow_links))
    images = sorted(path for path in files if path.endswith(".jpg"))
    if not images:
        raise DissectError(f"{root}: expected images as <split>/<...>/<name>.jpg, found none.")
    known, rows = _Known(), []
    for image in images:
        stem = image.removesuffix(".jpg")
        known.add(root / f"{stem}.json", stem, files)
        rows.append(_row(image, stem, files, root))
    scenes = {name: SCENES + n for n, name in enumerate(sorted(set(known.scenes.values())))}
    levels = max(len(row.maps) for row in rows) - 1
    rows = [replace(row, whole=(scenes[name],)) if (name := known.scenes.get(row.image)) else row for row in rows]
    found = LabelSet(
        images=str(root),
        maps=str(root),
        rows=tuple(rows),
        concepts=(*known.concepts(), *(Concept(number, name, "scene") for name, number in scenes.items())),
        categories=("object", *(["part"] if known.parts else []), *(["scene"] if scenes else [])),
        planes=("object", *["part"] * levels),
        decode=decode_ade20k_full,
        label_size=(0, 0),
        parameters={"layout": "ade20k_full"},
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=root)


def decode_ade20k_full(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of a `_seg.png` or `_parts_<level>.png`, by its name."""
    numbers = decode_rg(path)
    if "_parts_" in path.name:
        numbers[numbers > 0] += np.uint16(PARTS)
    return numbers


def decode_rg(path: Path) -> NDArray[np.uint16]:
    """The numbers (row, col) in an RGB label map of ADE20K, as they are in the file."""
    with open_labels(path) as image:
        if image.mode != "RGB":
            raise Fault(
                f"{path}: expected a label map as 8-bit RGB (number = R // 10 * 256 + G), got {image.mode}.",
                f"label map: it is no 8-bit RGB but {image.mode}",
                shared=True,
            )
        pixels = np.asarray(image).astype(np.uint16)
    return pixels[..., 0] // np.uint16(10) * np.uint16(256) + pixels[..., 1]


def _root(folder: Path) -> Path:
    """The folder of the splits."""
    if folder.suffix == ".pkl":
        raise DissectError(
            f"{folder}: is a pickle, which runs what is in it, and is not read. Name the folder ADE20K_2021_17_01: the "
            "JSON files in it say the same."
        )
    root = folder / "images" / "ADE"
    if not root.is_dir():
        raise DissectError(
            f"{folder}: expected ADE20K_2021_17_01 with images/ADE/, found none. For ADEChallengeData2016, the 150 "
            "classes, use `kind: ade20k`."
        )
    return root


def _row(image: str, stem: str, files: set[str], root: Path) -> Row:
    maps, level = [(0, f"{stem}_seg.png")], 1
    if maps[0][1] not in files:
        raise DissectError(f"{root / maps[0][1]}: the label map of {image} is missing. Add it, or remove the image.")
    while (path := f"{stem}_parts_{level}.png") in files:
        maps.append((level, path))
        level += 1
    return Row(image, Path(image).parts[0], tuple(maps), (), None, str(root / image))


@dataclass
class _Known:
    """What the JSON files say."""

    objects: dict[int, str] = field(default_factory=dict)
    """number -> name"""
    parts: dict[int, str] = field(default_factory=dict)
    wholes: dict[int, set[int]] = field(default_factory=dict)
    """number of a part -> concept numbers of what it is a part of"""
    scenes: dict[str, str] = field(default_factory=dict)
    """image -> scene"""
    _first: dict[int, Path] = field(default_factory=dict)

    def add(self, path: Path, stem: str, files: set[str]) -> None:
        """Take over what the JSON file of an image says."""
        if f"{stem}.json" not in files:
            older = " The release of 2016 has _atr.txt files instead; get ADE20K_2021_17_01."
            raise DissectError(
                f"{path}: expected the JSON file of the image, found none."
                + (older if f"{stem}_atr.txt" in files else " Add it, or remove the image.")
            )
        content = _annotation(path)
        if levels := [str(level) for level in _listed(content.get("scene"))]:
            self.scenes[f"{stem}.jpg"] = "/".join(levels)
        found = dict(_entries(content, path))
        for one in found.values():
            first = self._first.setdefault(one.number, path)
            if (known := self.name(one.number)) not in (None, one.name):
                raise DissectError(
                    f"{path}: number {one.number} is '{one.name}', and '{known}' in {first}. Are these files of two "
                    "releases? Use one."
                )
            (self.parts if one.level else self.objects)[one.number] = one.name
            if one.level and (whole := found.get(one.whole)) is not None:
                self.wholes.setdefault(one.number, set()).add(whole.number + (PARTS if whole.level else 0))

    def name(self, number: int) -> str | None:
        """The name of a number, as far as it is known."""
        return self.objects.get(number, self.parts.get(number))

    def concepts(self) -> Iterator[Concept]:
        """Objects and parts; where two numbers have one name, the number stands behind it."""
        for added, category, names in ((0, "object", self.objects), (PARTS, "part", self.parts)):
            counted = list(names.values())
            for number, name in sorted(names.items()):
                wholes = self.wholes.get(number, set()) if added else set()
                yield Concept(
                    number + added,
                    f"{name} ({number})" if counted.count(name) > 1 else name,
                    category,
                    parent=min(wholes) if len(wholes) == 1 else 0,
                )


@dataclass(frozen=True)
class _Entry:
    """One object or part of an image."""

    number: int
    name: str
    level: int
    """0 for objects, then the level of the part"""
    whole: int
    """id of the entry that it is a part of, -1 if there is none"""


def _annotation(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="latin-1"), strict=False)
        annotation = content["annotation"]
        if not isinstance(annotation, dict):
            raise TypeError(f"'annotation' is {type(annotation).__name__}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DissectError(
            f"{path}: expected {{'annotation': {{...}}}} as JSON, got {type(error).__name__}: {error}. Replace it."
        ) from error
    return annotation


def _entries(content: Mapping[str, Any], path: Path) -> Iterator[tuple[int, _Entry]]:
    """(id, entry) of every object and part."""
    for n, one in enumerate(_listed(content.get("object"))):
        try:
            if not one["name_ndx"]:  # 0, or an empty list: it has no class, and no pixels in label maps
                continue
            whole = _listed(one["parts"]["ispartof"])
            number, level = int(one["name_ndx"]), int(one["parts"]["part_level"])
            entry = _Entry(number, str(one["name"]), level, int(whole[0]) if whole else -1)
            identity = int(one["id"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DissectError(
                f"{path}: object {n}: expected id, name, name_ndx and parts (ispartof, part_level), got "
                f"{type(error).__name__}: {error}."
            ) from error
        if not 1 <= number < PARTS:
            raise DissectError(f"{path}: object {n}: name_ndx must lie between 1 and {PARTS - 1}, got {number}.")
        yield identity, entry


def _listed(value: Any) -> Sequence[Any]:
    """A list, also of a single entry."""
    return value if isinstance(value, list) else [] if value is None else [value]
