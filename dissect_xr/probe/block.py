"""An image block as a task carries it, and how the label maps of its images are read.

Knows: which files a block has, and which numbers may occur in its label maps.
Does not know: names and categories of concepts, duplicates (`labels`), or stores.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.colors import color_labels
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.label_set import LARGEST, Decode, LabelSet, Row
from dissect_xr.probe.pixels import WHOLE, inside, nearest, open_image


@dataclass(frozen=True)
class Numbers:
    """A set of concept numbers in 8 KiB: 65,000 concepts with their names take 3 MB in every task.

    >>> [bool(Numbers.of([1, 300]).mask[n]) for n in (0, 1, 300)]
    [False, True, True]
    """

    bits: bytes
    """bit n of 65,536 says whether n is in the set, the highest bit of a byte first"""

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Numbers":
        """The set of the numbers given."""
        mask = np.zeros(LARGEST + 1, np.bool_)
        mask[list(numbers)] = True
        return cls(np.packbits(mask).tobytes())

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(65536,) whether each number is in the set."""
        return np.unpackbits(np.frombuffer(self.bits, np.uint8)).view(np.bool_)


@dataclass(frozen=True)
class Block:
    """The images of one task, and what it takes to read them."""

    images: str
    """folder the image paths are relative to"""
    maps: str
    """folder the label map paths are relative to"""
    rows: tuple[Row, ...]
    planes: int
    """label maps that an image can have, with that of colours"""
    decode: Decode
    label_size: tuple[int, int]
    """(rows, columns) of the probe's label grid"""
    crop: Crop | None
    concepts: Numbers
    ignored: Numbers
    """may occur in maps but mean no label"""
    first_color: int | None
    """number of the first colour concept; None if the probe has no plane of colours"""


def image_blocks(label_set: LabelSet, length: int) -> list[Block]:
    """The label set as blocks of `length` images, the last of which may be shorter."""
    color = next((c.number for c in label_set.concepts if c.category == "color"), None)
    empty = Block(
        images=label_set.images,
        maps=label_set.maps,
        rows=(),
        planes=len(label_set.planes),
        decode=label_set.decode,
        label_size=label_set.label_size,
        crop=label_set.crop,
        concepts=Numbers.of(c.number for c in label_set.concepts),
        ignored=Numbers.of(label_set.ignored),
        first_color=color if label_set.colors else None,
    )
    rows = label_set.rows
    return [replace(empty, rows=rows[start : start + length]) for start in range(0, len(rows), length)]


def read_maps(block: Block, row: Row, pixels_digest: Any, labels_digest: Any) -> NDArray[np.uint16]:
    """The label maps of a row on the grid, (plane, row, col); checks all its files and adds them to the digests."""
    planes = np.zeros((block.planes, *block.label_size), np.uint16)
    path = inside(block.images, row.image, row.where)
    with open_image(path) as image:
        part = block.crop.part(image.height, image.width, path) if block.crop else WHOLE
        rgb = np.asarray(image.convert("RGB")) if block.first_color is not None else None
    pixels_digest.update(path.read_bytes())
    allowed = block.concepts.mask | block.ignored.mask
    allowed[0] = True
    for plane, name in row.maps:
        path = inside(block.maps, name, row.where)
        labels = block.decode(path)
        labels_digest.update(path.read_bytes())
        if row.size is not None and labels.shape != row.size:
            raise DissectError(
                f"{path}: expected {row.size[0]} x {row.size[1]} (sh x sw of {row.where}), got "
                f"{labels.shape[0]} x {labels.shape[1]} pixels."
            )
        if not allowed[labels].all():
            raise DissectError(f"{path}: holds label {labels[~allowed[labels]][0]}, which is no concept of the probe.")
        planes[plane] = nearest(labels, block.label_size, part)
    if rgb is not None and block.first_color is not None:
        planes[-1] = color_labels(nearest(rgb, block.label_size, part)).astype(np.uint16) - 1 + block.first_color
    return planes
