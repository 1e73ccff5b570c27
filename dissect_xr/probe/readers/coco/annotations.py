"""Reads the JSON files of COCO and of the sets that are written as COCO is: images, categories and annotations by id.

Knows: the three lists, how their entries refer to each other, and what is missing or doubled in them.
Does not know: which categories are concepts, what a segmentation holds (`rasters`), or label sets.

Ids are names, not positions: those of COCO's 80 categories go from 1 to 90, with gaps, and no list is sorted.

A file of 100,000 images holds a hundred million numbers in polygons, which would fill 4 GB as Python objects. So every
segmentation becomes text again as soon as it is parsed, and is parsed once more where it is drawn.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.pixels import MAX_PIXELS

Id = int | str
"""of an image"""

LISTS = ("images", "annotations", "categories")
"""What every file of this kind holds."""

KEPT = ("id", "image_id", "category_id", "iscrowd", "segmentation")
"""What is kept of an annotation with a segmentation."""


@dataclass(frozen=True)
class ImageEntry:
    """One image as the file lists it."""

    id: Id
    size: tuple[int, int]
    """(rows, columns)"""
    fields: Mapping[str, Any]
    where: str
    """file and id, for errors"""

    @property
    def name(self) -> str:
        """The field `file_name`, or the end of `coco_url` where there is none: train2017/000000391895.jpg.

        Raises
        ------
        DissectError
            If the entry has neither.
        """
        for field, parts in (("file_name", 0), ("coco_url", 2)):
            if isinstance(found := self.fields.get(field), str) and found:
                return "/".join(found.split("/")[-parts:])
        raise DissectError(f"{self.where}: expected a file_name, or a coco_url, found neither. Add one.")

    def numbers(self, field: str) -> tuple[int, ...]:
        """A list of whole numbers, such as `neg_category_ids`.

        Raises
        ------
        DissectError
            If the field is missing, or is no such list.
        """
        found = self.fields.get(field)
        if not isinstance(found, list) or not all(type(one) is int for one in found):
            raise DissectError(
                f"{self.where}: expected {field} as a list of category ids, got {str(found)[:60]}. Only in sets whose "
                "images are verified for single categories, such as LVIS, is it there."
            )
        return tuple(found)


@dataclass(frozen=True)
class Mark:
    """One annotation of a part of an image."""

    id: Id
    category: int
    crowd: bool
    segmentation: str | None
    """as JSON; None where the annotation has no mask, only a box"""


@dataclass(frozen=True)
class Annotations:
    """The content of one file."""

    path: Path
    images: tuple[ImageEntry, ...]
    """in the order of the file"""
    categories: Mapping[int, Mapping[str, Any]]
    """id -> fields, ascending"""
    entries: Mapping[Id, Sequence[Mapping[str, Any]]]
    """image -> its annotations, in the order of the file"""

    def marks(self, image: ImageEntry) -> tuple[Mark, ...]:
        """The annotations of an image with their segmentations.

        Raises
        ------
        DissectError
            If an annotation has an unknown category, or `iscrowd` is neither 0 nor 1.
        """
        return tuple(self._mark(entry) for entry in self.entries.get(image.id, ()))

    def with_segmentations(self) -> "Annotations":
        """The content without the annotations that have a box only."""
        entries = {image: [one for one in listed if _segmentation(one)] for image, listed in self.entries.items()}
        return replace(self, entries=entries)

    def _mark(self, entry: Mapping[str, Any]) -> Mark:
        where, crowd = f"{self.path}, annotation {entry.get('id')}", entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DissectError(f"{where}: expected iscrowd as 0 or 1, got {crowd!r}.")
        category = category_of(entry, self.categories, where)
        return Mark(entry.get("id", "without id"), category, bool(crowd), _segmentation(entry))


def _segmentation(entry: Mapping[str, Any]) -> str | None:
    """The segmentation of an annotation as JSON, None where it is empty."""
    text = entry.get("segmentation")
    return None if text in (None, "null", "[]", "{}", '""') else str(text)


def category_of(entry: Mapping[str, Any], categories: Mapping[int, Any], where: str) -> int:
    """The category id of an annotation or a segment.

    Raises
    ------
    DissectError
        If it is missing, or none of the categories; the message begins with `where`.
    """
    found = entry.get("category_id")
    if type(found) is not int or found not in categories:
        raise DissectError(
            f"{where}: category_id {found!r} is none of `categories`, which has ids from {min(categories)} to "
            f"{max(categories)}. Add it there, or correct the annotation."
        )
    return found


def read_annotations(path: Path) -> Annotations:
    """The content of a JSON file of COCO's kind. No image is read.

    Raises
    ------
    DissectError
        If the file is missing or no JSON, has not the three lists, or an id is missing, doubled or refers to nothing;
        it names the entry.
    """
    content = _parsed(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in LISTS):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DissectError(
            f"{path}: expected the lists {', '.join(LISTS)}, found {found or 'nothing'}. Files of test sets have no "
            "annotations, and results of models no images and categories."
        )
    images: dict[Id, ImageEntry] = {}
    for n, entry in enumerate(content["images"]):
        image = _image(entry, path, n)
        if image.id in images:
            raise DissectError(f"{image.where}: is listed twice in `images`. Remove one of the two.")
        images[image.id] = image
    entries: dict[Id, list[Mapping[str, Any]]] = {}
    for n, entry in enumerate(content["annotations"]):
        wanted = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(wanted, (int, str)) or wanted not in images:
            named = f"annotation {entry['id']}" if isinstance(entry, dict) and "id" in entry else f"entry {n}"
            raise DissectError(f"{path}, {named} of `annotations`: image {wanted!r} is not in `images`. Add it there.")
        entries.setdefault(wanted, []).append(entry)
    return Annotations(path, tuple(images.values()), _categories(content["categories"], path), entries)


def _parsed(path: Path) -> Any:
    """The content of a JSON file in which no key is given twice and no number is NaN."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected a JSON file as COCO has them, found none.") from error
    except (OSError, ValueError) as error:
        raise DissectError(f"{path}: expected a JSON file as COCO has them, cannot read it: {error}.") from error
    try:
        return json.loads(text, object_pairs_hook=_compacted, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise DissectError(f"{path}: not readable as JSON: {error}. Fetch the file again.") from error


def _compacted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file; of an annotation with a segmentation only what is needed, the segmentation as text."""
    entry = dict(pairs)
    if len(entry) != len(pairs):
        repeated = [key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n])]
        raise ValueError(f"the key '{repeated[0]}' is given twice in one object")
    if "segmentation" in entry and "image_id" in entry:
        entry = {key: entry[key] for key in KEPT if key in entry}
        entry["segmentation"] = json.dumps(entry["segmentation"], separators=(",", ":"))
    return entry


def _refused(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which is no number of JSON")


def _image(entry: Any, path: Path, n: int) -> ImageEntry:
    """An entry of `images`, checked."""
    if not isinstance(entry, dict) or type(entry.get("id")) not in (int, str):
        raise DissectError(f"{path}, entry {n} of `images` (the first is 0): expected an image with an id.")
    where = f"{path}, image {entry['id']}"
    rows, cols = entry.get("height"), entry.get("width")
    if type(rows) is not int or type(cols) is not int or min(rows, cols) < 1 or rows * cols > MAX_PIXELS:
        raise DissectError(
            f"{where}: expected height and width in pixels, at most {MAX_PIXELS:,} in all, got {str(rows)[:20]} and "
            f"{str(cols)[:20]}."
        )
    return ImageEntry(entry["id"], (rows, cols), entry, where)


def _categories(listed: Sequence[Any], path: Path) -> dict[int, Mapping[str, Any]]:
    """The categories by id, ascending."""
    found: dict[int, Mapping[str, Any]] = {}
    for n, entry in enumerate(listed):
        where = f"{path}, entry {n} of `categories` (the first is 0)"
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or entry["id"] < 0:
            raise DissectError(f"{where}: expected a category with an id of 0 or more, got {str(entry)[:60]}.")
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            raise DissectError(f"{where}: category {entry['id']} has no name. Give it one.")
        if entry["id"] in found:
            raise DissectError(f"{where}: id {entry['id']} is that of '{found[entry['id']]['name']}', too.")
        found[entry["id"]] = entry
    if not found:
        raise DissectError(f"{path}: `categories` is empty: expected at least one.")
    return {number: found[number] for number in sorted(found)}
