"""An image block as a task carries it, and how the label maps of its images are read.

Knows: which files a block has, which numbers may occur in its label maps, and how an image lies below them.
Does not know: names and categories of concepts, duplicates (`labels`), or stores.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.colors import color_labels
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import LARGEST, Decode, Draw, LabelSet, Row
from dissect_xr.probe.orientation import Orientation, orientation_of
from dissect_xr.probe.pixels import WHOLE, nearest, stored_rgb, turned

NAMED = 5
"""How many unknown numbers of a label map a message names."""


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

    images: Folder
    """the image paths are relative to it"""
    maps: Folder
    """the label map paths are relative to it"""
    rows: tuple[Row, ...]
    planes: int
    """label maps that an image can have, with that of colours"""
    decode: Decode
    draw: Draw | None
    label_size: tuple[int, int]
    """(rows, columns) of the probe's label grid"""
    crop: Crop | None
    concepts: Numbers
    ignored: Numbers
    """may occur in maps but mean no label"""
    void: Numbers
    """mean an ignored pixel"""
    first_color: int | None
    """number of the first colour concept; None if the probe has no plane of colours"""
    orientation: Orientation | None
    """which form of an image its label maps follow; None leaves it to their sizes"""
    offset: int
    """what was added to the numbers in the files of label maps"""
    mend: str
    """what a message says to do about a number that is no concept"""


def image_blocks(label_set: LabelSet, length: int) -> list[Block]:
    """The label set as blocks of `length` images, the last of which may be shorter."""
    color = next((c.number for c in label_set.concepts if c.category == "color"), None)
    parameters = label_set.parameters
    empty = Block(
        images=Folder(label_set.images, label_set.follow_links),
        maps=Folder(label_set.maps, label_set.follow_links),
        rows=(),
        planes=len(label_set.planes),
        decode=label_set.decode,
        draw=label_set.draw,
        label_size=label_set.label_size,
        crop=label_set.crop,
        concepts=Numbers.of(c.number for c in label_set.concepts),
        ignored=Numbers.of(label_set.ignored),
        void=Numbers.of(label_set.void),
        first_color=color if label_set.colors else None,
        orientation=label_set.orientation,
        offset=parameters.get("offset", 0),
        mend="Add it to the table of concepts, or, if it means no label, give `ignore: [{numbers}]`."
        if parameters.get("layout") == "masks"
        else "Add it to the table of labels, or correct the label map.",
    )
    rows = label_set.rows
    return [replace(empty, rows=rows[start : start + length]) for start in range(0, len(rows), length)]


def read_maps(block: Block, row: Row, pixels_digest: Any, labels_digest: Any) -> tuple[NDArray[np.uint16], int]:
    """The label maps of a row on the grid, (plane, row, col), and the EXIF orientation that its image is turned by.

    Decodes all files of the row, and adds them to the digests.

    Raises
    ------
    Fault
        If one of them cannot be used.
    """
    path = block.images.path(row.image, row.where)
    stored, found = stored_rgb(path)
    pixels_digest.update(path.read_bytes())
    maps = _decoded_maps(block, row, labels_digest)
    sizes = [(of_map, (labels.shape[0], labels.shape[1])) for _, of_map, labels in maps]
    orientation = orientation_of(path, found, (stored.height, stored.width), sizes, block.orientation)
    image = turned(stored, orientation)
    part = block.crop.part(image.height, image.width, path) if block.crop else WHOLE
    _check_numbers(block, maps)
    planes = np.zeros((block.planes, *block.label_size), np.uint16)
    for plane, _, labels in maps:
        planes[plane] = nearest(labels, block.label_size, part)
    if block.first_color is not None:
        rgb = nearest(np.asarray(image), block.label_size, part)
        planes[-1] = color_labels(rgb).astype(np.uint16) - 1 + block.first_color
    return planes, orientation


_Map = tuple[int, Path, NDArray[np.uint16]]
"""plane, file, labels"""


def _decoded_maps(block: Block, row: Row, digest: Any) -> list[_Map]:
    """The label maps of a row; each has the size that the row says."""
    maps = []
    for plane, name in row.maps:
        path = block.maps.path(name, row.where)
        decoded = block.decode(path)
        digest.update(path.read_bytes())
        for n, labels in enumerate(decoded if decoded.ndim == 3 else decoded[None]):
            if row.size is not None and labels.shape != row.size:
                raise Fault(
                    f"{path}: expected {row.size[0]} x {row.size[1]} (sh x sw of {row.where}), got "
                    f"{labels.shape[0]} x {labels.shape[1]} pixels.",
                    "label map: it has another size than the index says",
                    shared=True,
                )
            maps.append((plane + n, path, labels))
    if row.shapes is not None and block.draw is not None:
        digest.update(row.shapes.encode())
        maps += [(plane, Path(row.where), labels) for plane, labels in block.draw(row.shapes)]
    return maps


def _check_numbers(block: Block, maps: Sequence[_Map]) -> None:
    """Raise if a label map holds a number that is no concept, naming all that do not occur in the table."""
    allowed = block.concepts.mask | block.ignored.mask | block.void.mask
    allowed[0] = True
    unknown = {path: np.unique(labels[~allowed[labels]]) - block.offset for _, path, labels in maps}
    unknown = {path: numbers for path, numbers in unknown.items() if numbers.size}
    if not unknown:
        return
    first = next(iter(unknown))
    numbers = sorted({number for found in unknown.values() for number in found.tolist()})
    shown = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    raise Fault(
        f"{first}: holds label {unknown[first][0]}, which is no concept of the probe. "
        + block.mend.format(numbers=shown),
        "label map: it holds numbers that are no concepts",
        shared=True,
        numbers=numbers,
    )
