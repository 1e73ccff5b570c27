"""An image block as a task carries it, and how the label maps of its images are read.

Knows: which files a block has, and how an image lies below its label maps.
Does not know: what numbers in label maps mean (`sources`), duplicates (`labels`), or stores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.colors import color_labels
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_maps.labels import Share
from dissect_xr.probe.label_set import LabelSet, Row
from dissect_xr.probe.orientation import Size, orientation_of
from dissect_xr.probe.pixels import WHOLE, nearest, stored_rgb, turned
from dissect_xr.probe.sources.numbers import Numbers
from dissect_xr.probe.sources.source import Map, Source, source_maps, sources_of


@dataclass(frozen=True)
class Block:
    """The images of one task, and what it takes to read them."""

    images: Folder
    """the image paths are relative to it"""
    rows: tuple[Row, ...]
    sources: tuple[Source, ...]
    """where labels come from"""
    planes: int
    """label maps that an image can have, with that of colours"""
    label_size: tuple[int, int]
    """(rows, columns) of the probe's label grid"""
    crop: Crop | None
    ignored: Numbers
    """numbers of the probe that mean no label"""
    void: Numbers
    """numbers of the probe that mean an ignored pixel"""
    first_color: int | None
    """number of the first colour concept; None if the probe has no plane of colours"""


def image_blocks(label_set: LabelSet, length: int) -> list[Block]:
    """The label set as blocks of `length` images, the last of which may be shorter."""
    color = next((c.number for c in label_set.concepts if c.category == "color"), None)
    empty = Block(
        images=label_set.folder,
        rows=(),
        sources=sources_of(label_set),
        planes=len(label_set.planes),
        label_size=label_set.label_size,
        crop=label_set.crop,
        ignored=Numbers.of(label_set.ignored),
        void=Numbers.of(label_set.void),
        first_color=color if label_set.colors else None,
    )
    rows = label_set.rows
    return [replace(empty, rows=rows[start : start + length]) for start in range(0, len(rows), length)]


@dataclass(frozen=True)
class ImageMaps:
    """The label maps of one image on the grid."""

    planes: NDArray[np.uint16]
    """(plane, row, col) concept numbers"""
    shares: tuple[Share, ...]
    """which of the labels come from which source"""
    orientation: int
    """the EXIF orientation that the image is turned by"""


def read_maps(block: Block, row: Row, pixels_digest: Any, labels_digest: Any) -> ImageMaps:
    """The label maps of a row on the grid.

    Decodes all files of the row, and adds them to the digests.

    Raises
    ------
    Fault
        If one of them cannot be used.
    """
    path = block.images.path(row.image, row.where)
    stored, found = stored_rgb(path)
    pixels_digest.update(path.read_bytes())
    shares = _shares(block, row)
    maps = [source_maps(block.sources[share.source], one, labels_digest) for share, one in shares]
    asked = [(block.sources[share.source], read) for (share, _), read in zip(shares, maps, strict=True)]
    orientation = _orientation(path, found, (stored.height, stored.width), asked)
    image = turned(stored, orientation)
    part = block.crop.part(image.height, image.width, path) if block.crop else WHOLE
    planes = np.zeros((block.planes, *block.label_size), np.uint16)
    for (share, _), read in zip(shares, maps, strict=True):
        for plane, _, labels in read:
            planes[share.planes[0] + plane] = nearest(labels, block.label_size, part)
    colors = list[Share]()
    if block.first_color is not None:
        rgb = nearest(np.asarray(image), block.label_size, part)
        planes[-1] = color_labels(rgb).astype(np.uint16) - 1 + block.first_color
        colors = [Share((block.planes - 1, block.planes))]
    return ImageMaps(planes, (*(share for share, _ in shares), *colors), orientation)


def _shares(block: Block, row: Row) -> list[tuple[Share, Row]]:
    """What each source has to say about an image, and its row there; their planes follow each other."""
    shares, first = list[tuple[Share, Row]](), 0
    for number, one in row.parts or ((0, row),):
        source = block.sources[number]
        planes = (first, first + source.planes)
        shares.append((Share(planes, source.in_probe(one.whole), source.in_probe(one.verified), number), one))
        first = planes[1]
    return shares


def _orientation(path: Path, found: int, stored: Size, asked: Sequence[tuple[Source, Sequence[Map]]]) -> int:
    """The EXIF orientation that an image is turned by, on which all its sources agree."""
    sizes = [(source, [(name, (map_.shape[0], map_.shape[1])) for _, name, map_ in maps]) for source, maps in asked]
    heard = [(source, of_maps) for source, of_maps in sizes if of_maps or source.orientation] or sizes[:1]
    answers = [orientation_of(path, found, stored, of_maps, source.orientation) for source, of_maps in heard]
    if len(set(answers)) > 1:
        raise Fault(
            f"{path}: has the EXIF orientation {found}. Of the label sets that are merged, one follows the image as it "
            "is stored and another one as viewers display it. Leave the image out of one of them.",
            "its label sets follow different forms of it",
        )
    return answers[0]
