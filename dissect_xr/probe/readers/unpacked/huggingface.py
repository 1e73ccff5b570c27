"""Reads datasets of Hugging Face that are on disk: images with a column of label maps, or of tags.

Knows: columns of images, label maps and tags, and the features that say what they hold.
Does not know: how rows are stored (`rows`), or the Hub. Nothing is downloaded, and no code of a dataset runs.

Traps
-----
- Images are bytes in a table; the model, exemplars and reports read files. They are written to a folder, as they are:
  nothing is encoded anew.
- A label map is an image whose numbers nobody explains: `scene_parse_150` counts from 1 with 0 for none, others from 0
  with 255 for none. The table of concepts, `offset`, `unlabelled` and `void` say it, as for masks.
- The names of a ClassLabel are in the features, and its numbers count from 0; -1 and null mean none.
- A path without bytes leads to a file of whoever made the dataset. It is read only below the dataset's own folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import inside
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed, kept_categories
from dissect_xr.probe.readers.masks import MaskFormat, decode_mask, read_masks
from dissect_xr.probe.readers.unpacked.files import keep_bytes
from dissect_xr.probe.readers.unpacked.rows import batches, dataset_files, features_of

if TYPE_CHECKING:
    from pyarrow import Schema


@dataclass(frozen=True)
class Columns:
    """Which columns of a dataset are read."""

    image: str = "image"
    mask: str | None = None
    """label maps; None where there are only tags"""
    tags: Mapping[str, str] = field(default_factory=dict)
    """column of tags of the whole image -> category of these concepts"""


def read_huggingface(
    source: str | Path,
    *,
    folder: str | Path,
    columns: Columns,
    concepts: str | Path | None = None,
    format: MaskFormat | None = None,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
) -> LabelSet:
    """The label set of a dataset on disk, whose images and label maps are written to `folder`. Reads all of it.

    Parameters
    ----------
    source
        A folder that `save_to_disk` wrote, a folder with the Parquet files of the Hub, or one Parquet file. The splits
        are those of the dataset.
    folder
        Where images and label maps are written; files that are there already must hold the same.
    concepts
        Table of the concepts in label maps, as for `read_masks`.
    format
        What the numbers in label maps mean: `offset`, `unlabelled` and `void`.

    Raises
    ------
    DissectError
        If pyarrow is not installed, a column is missing, or a row lacks an image or a label map.
    """
    if columns.mask is None and not columns.tags:
        raise DissectError("columns: expected a column of masks or of tags, got neither.")
    if (columns.mask is None) != (concepts is None):
        raise DissectError("concepts: expected a table of concepts with a column of masks, and only with one.")
    source, folder = Path(source), Path(folder)
    unpacked = _Unpacked(source, folder, columns)
    for split, file in dataset_files(source):
        unpacked.add(split, file)
    if not unpacked.rows:
        raise DissectError(f"{source}: expected images, found no row.")
    if concepts is None:
        found = unpacked.tagged(unpacked.empty())
        return completed(found, categories=categories, label_size=label_size, where=source)
    images, masks = folder / "images", folder / "masks"
    of_maps = read_masks(images=images, masks=masks, concepts=concepts, format=format, label_size=label_size)
    if stale := sorted({row.image for row in of_maps.rows} - unpacked.rows.keys()):
        raise DissectError(f"{images / stale[0]}: is no image of {source}. Name another folder.")
    found = unpacked.tagged(of_maps)
    kept = kept_categories(found.categories, categories, source)
    if in_maps := [category for category in of_maps.categories if category in kept]:
        found = replace(found, planes=(in_maps[0],))
    return completed(found, categories=kept, label_size=label_size, where=source)


@dataclass
class _Unpacked:
    """What was read of a dataset so far."""

    source: Path
    folder: Path
    columns: Columns
    rows: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=dict)
    """image -> its split, and the (category, name) of its tags"""
    names: dict[tuple[str, str], None] = field(default_factory=dict)
    """(category, name) of all tags, also of those that do not occur"""
    counts: dict[str, int] = field(default_factory=dict)
    """split -> rows"""

    def add(self, split: str, file: Path) -> None:
        """Write the images and label maps of one file of a split."""
        for schema, rows in batches(file, self._wanted):
            labels = self._class_names(schema, file)
            for row in rows:
                n = self.counts.get(split, 0)
                self.counts[split] = n + 1
                where = f"{file}, row {n} of {split}"
                content = self._bytes(row[self.columns.image], f"{where}, '{self.columns.image}'")
                stem = f"{split}/{n:06d}"
                image = f"{stem}.{_suffix(content, where)}"
                keep_bytes(self.folder / "images", image, content)
                if self.columns.mask is not None:
                    mask = self._bytes(row[self.columns.mask], f"{where}, '{self.columns.mask}'")
                    keep_bytes(self.folder / "masks", f"{stem}.png", mask)
                self.rows[image] = split, tuple(_tags(row, self.columns.tags, labels, where))
                self.names |= dict.fromkeys(self.rows[image][1])

    @property
    def _wanted(self) -> list[str]:
        mask = [] if self.columns.mask is None else [self.columns.mask]
        return [self.columns.image, *mask, *self.columns.tags]

    def _class_names(self, schema: "Schema", file: Path) -> dict[str, list[str]]:
        """Column -> names of its classes, for columns of a ClassLabel."""
        features = features_of(schema, file)
        found = {}
        for column, category in self.columns.tags.items():
            feature = features.get(column, {})
            inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
                found[column] = [str(name) for name in inner["names"]]
                self.names |= dict.fromkeys((category, name) for name in found[column])
        return found

    def _bytes(self, value: Any, where: str) -> bytes:
        """The file in a cell of images."""
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(value, dict) and content is None and value.get("path"):
            root = self.source if self.source.is_dir() else self.source.parent
            content = _read(inside(str(root), str(value["path"]), where), where)
        if not isinstance(content, bytes) or not content:
            raise DissectError(f"{where}: expected an image, got {type(content).__name__}. Is it a column of images?")
        return content

    def empty(self) -> LabelSet:
        """The label set without tags, of a dataset without label maps."""
        rows = tuple(
            Row(image, split, (), (), None, f"{self.source}, {image}") for image, (split, _) in self.rows.items()
        )
        images = str(self.folder / "images")
        return LabelSet(images, images, rows, (), (), (), decode_mask, (0, 0))

    def tagged(self, found: LabelSet) -> LabelSet:
        """The label set with the tags, numbered after the concepts of label maps."""
        first = max((c.number for c in found.concepts), default=0) + 1
        if found.void or found.ignored:
            first = max(first, *(number + 1 for number in found.void | found.ignored))
        if first + len(self.names) - 1 > LARGEST:
            raise DissectError(f"{self.source}: {len(self.names)} tags after number {first - 1}, above {LARGEST}.")
        numbers = {tag: first + n for n, tag in enumerate(self.names)}
        tags = tuple(Concept(number, name, category) for (category, name), number in numbers.items())
        rows = (replace(row, whole=tuple(numbers[tag] for tag in self.rows[row.image][1])) for row in found.rows)
        return replace(
            found,
            rows=tuple(rows),
            concepts=found.concepts + tags,
            categories=tuple(dict.fromkeys([*found.categories, *(c.category for c in tags)])),
            parameters=found.parameters | {"layout": "huggingface", "tags": dict(self.columns.tags)},
        )


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DissectError(f"{where}: expected the file {path}, cannot read it: {error.strerror}.") from error


def _tags(
    row: Mapping[str, Any], tags: Mapping[str, str], labels: Mapping[str, list[str]], where: str
) -> Iterator[tuple[str, str]]:
    """(category, name) of each tag of a row, once."""
    seen = set()
    for column, category in tags.items():
        values = row[column]
        for value in values if isinstance(values, list) else [values]:
            if value is None or value == "" or (column in labels and value == -1):
                continue
            name = _name(value, labels.get(column), f"{where}, '{column}'")
            if (category, name) not in seen:
                seen.add((category, name))
                yield category, name


def _name(value: Any, names: list[str] | None, where: str) -> str:
    if names is None:
        if isinstance(value, str):
            return value
        raise DissectError(f"{where}: expected the name of a tag, got {value!r}, and the column is no ClassLabel.")
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DissectError(f"{where}: expected a class from 0 to {len(names) - 1}, got {value!r}.")
    return names[value]


def _suffix(content: bytes, where: str) -> str:
    """The suffix of an image file."""
    try:
        with Image.open(BytesIO(content)) as image:
            kind = (image.format or "").lower()
    except Exception as error:  # damaged files raise almost anything
        raise DissectError(f"{where}: no image that can be read: {error}. Is it a column of images?") from error
    return {"jpeg": "jpg", "tiff": "tif", "jpeg2000": "jp2"}.get(kind, kind)
