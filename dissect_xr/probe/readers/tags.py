"""Reads labels of whole images: tables of image and tag, folders whose names are tags, and DTD.

Knows: `image,tag` rows, torchvision's ImageFolder, and the files of the Describable Textures Dataset.
Does not know: label maps.

Traps
-----
- A tag covers every pixel of its image, so its share is that of its images; a unit's mask is compared with all of them.
- An image is annotated for the category of its tags, and images without a tag for nothing: they are in no union. An
  image that is left out of a table is not in the probe.
- In a folder of folders the first level may be the tags (ImageFolder), or the splits with the tags below (`train/cat`).
  Where both are possible, one has to say which.
- An image of DTD belongs to one class by its folder, and to others by `labels_joint_anno.txt`: 47 textures that are not
  exclusive. All of them count. Each of its ten partitions lists every image once, in train, val or test.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import slashed
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.lists import read_lines
from dissect_xr.probe.readers.masks import decode_mask
from dissect_xr.probe.readers.pairs import SUFFIXES, files_below
from dissect_xr.probe.readers.tables import read_table

TAG = "tag"
"""The category of tags for which no other is given."""

SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"})
"""Folders of these names may be splits."""


@dataclass
class _Tagged:
    """What a source says of an image."""

    split: str
    where: str
    tags: dict[tuple[str, str], None] = field(default_factory=dict)
    """(category, name) of each tag, in the order of the source"""


def read_tags(
    *,
    image_folder: str | Path,
    table: str | Path,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
) -> LabelSet:
    """The label set of a CSV table with the columns image and tag, and optionally category and split.

    An image has a row for each of its tags; one without a tag has a row with an empty one. Concepts are numbered in the
    order of their categories and names.

    Raises
    ------
    DissectError
        If the table is malformed, or an image is in two splits.
    """
    image_folder, path = Path(image_folder), Path(table)
    if not image_folder.is_dir():
        raise DissectError(f"{image_folder}: expected a folder of images, found none.")
    found: dict[str, _Tagged] = {}
    read = read_table(path, ["image", "tag"])
    for line in read.lines:
        split = line.cells.get("split") or "all"
        name = slashed(line.cells["image"], image_folder)
        image = found.setdefault(name, _Tagged(split, line.where))
        if image.split != split:
            raise DissectError(
                f"{line.where}: image '{name}' is in the split '{split}', and in '{image.split}' ({image.where}). An "
                "image belongs to one split; correct one of the two."
            )
        if line.cells["tag"]:
            image.tags[line.cells.get("category") or TAG, line.cells["tag"]] = None
    return _tagged(image_folder, found, "tags", notes=read.notes, categories=categories, label_size=label_size, of=path)


def read_image_folders(
    *,
    image_folder: str | Path,
    category: str = TAG,
    splits: bool | None = None,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of a folder of folders, whose names are the tags of the images in them, at any depth.

    Parameters
    ----------
    category
        Category of the tags.
    splits
        Whether the first level of folders are splits, with the tags below. None takes it for tags, and is refused where
        a folder is called like a split.

    Raises
    ------
    DissectError
        If an image lies in no folder of a tag, or it is not clear which folders are tags.
    """
    folder, depth = Path(image_folder), 2 if splits else 1
    if not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder of images, found none.")
    there = files_below(folder, follow_links)
    images = [path for path in there if PurePosixPath(path).suffix.lower() in SUFFIXES]
    found: dict[str, _Tagged] = {}
    for image in images:
        folders = PurePosixPath(image).parts[:-1]
        if len(folders) < depth:
            wanted = "<split>/<tag>/<image>" if splits else "<tag>/<image>"
            raise DissectError(f"{folder / image}: expected images as {wanted}. Move it, or remove it.")
        if splits is None and folders[0].lower() in SPLIT_NAMES:
            raise DissectError(
                f"{folder / folders[0]}: is it a split, with folders of tags below, or a tag? Give `splits: true` or "
                "`splits: false`."
            )
        tag = (category, folders[depth - 1])
        found[image] = _Tagged(folders[0] if splits else "all", str(folder / image), {tag: None})
    others = len(there) - len(images)
    notes = (f"{folder}: {others} files are not read as images.",) if others else ()
    label_set = _tagged(
        folder, found, "image_folders", notes=notes, categories=categories, label_size=label_size, of=folder
    )
    return label_set.following_links() if follow_links else label_set


def read_dtd(
    folder: str | Path,
    *,
    partition: int = 1,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the Describable Textures Dataset: all textures of an image, and the splits of a partition.

    Parameters
    ----------
    folder
        The folder `dtd`, with `images` and `labels` in it.
    partition
        One of its ten divisions into train, val and test.

    Raises
    ------
    DissectError
        If a file is missing, or the lists of the partition and of the labels name other images.

    References
    ----------
    Cimpoi et al. 2014, Describing Textures in the Wild.
    """
    folder = Path(folder)
    found: dict[str, _Tagged] = {}
    for split in ("train", "val", "test"):
        for entry in read_lines(folder / "labels" / f"{split}{partition}.txt", f"partition {partition} of DTD"):
            if (first := found.setdefault(entry.text, _Tagged(split, entry.where))).where != entry.where:
                raise DissectError(f"{entry.where}: image '{entry.text}' is listed already, {first.where}.")
    labels = folder / "labels" / "labels_joint_anno.txt"
    for entry in read_lines(labels, "the labels of DTD"):
        image, *tags = entry.text.split()
        if image in found:
            found[image].tags |= dict.fromkeys(("texture", tag) for tag in tags)
    if without := [image for image, one in found.items() if not one.tags]:
        raise DissectError(f"{labels}: says nothing of {without[0]}, which {found[without[0]].where} lists.")
    label_set = _tagged(folder / "images", found, "dtd", categories=categories, label_size=label_size, of=folder)
    label_set = replace(label_set, parameters=label_set.parameters | {"partition": partition})
    return label_set.following_links() if follow_links else label_set


def _tagged(
    images: Path,
    found: Mapping[str, _Tagged],
    layout: str,
    *,
    notes: Iterable[str] = (),
    categories: Sequence[str] | None,
    label_size: tuple[int, int] | None,
    of: Path,
) -> LabelSet:
    """The label set of images with tags; `of` names the source in messages."""
    tags = sorted({tag for one in found.values() for tag in one.tags})
    if not tags:
        raise DissectError(f"{of}: expected images with tags, found none.")
    numbers = {tag: n for n, tag in enumerate(tags, 1)}
    label_set = LabelSet(
        images=str(images),
        maps=str(images),
        rows=tuple(
            Row(image, one.split, (), tuple(numbers[tag] for tag in one.tags), None, one.where)
            for image, one in found.items()
        ),
        concepts=tuple(Concept(number, name, category) for (category, name), number in numbers.items()),
        categories=tuple(dict.fromkeys(category for category, _ in tags)),
        planes=(),
        decode=decode_mask,
        label_size=(0, 0),
        parameters={"layout": layout},
        notes=tuple(notes),
    )
    return completed(label_set, categories=categories, label_size=label_size, where=of)
