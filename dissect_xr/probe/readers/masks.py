"""Reads a folder of images, integer masks and a table of concept names as a label set.

Knows: what the numbers in masks mean, and which modes of files hold numbers.
Does not know: how files are found (`pairs`), tables (`concepts`), stores, resampling, colours computed from pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import LARGEST, Concept, Decode, LabelSet
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.completed import paired_rows
from dissect_xr.probe.readers.concepts import read_concepts
from dissect_xr.probe.readers.pairs import Names, paired

MODES = {"1", "L", "P", "I", "I;16", "I;16B"}
"""Pillow modes of single-channel integer masks; in mode P the palette index is the concept number."""

GREY_IN_COLORS = {"RGB", "RGBA", "LA"}
"""Modes of masks whose channels must be equal, and opaque where there is transparency."""


@dataclass(frozen=True)
class MaskFormat:
    """How the files of masks are called, and what their numbers mean."""

    image_name: str = "{stem}"
    """the name of an image file; without a suffix, all suffixes of images are taken"""
    mask_name: str = "{stem}.png"
    """the name of the mask that belongs to it, in the folder of the same name"""
    follow_links: bool = False
    """whether links may lead out of the two folders: for folders of one's own"""
    offset: int = 0
    """is added to the numbers in masks and in the table of concepts; 1 where both count from 0"""
    unlabelled: int | Sequence[int] = ()
    """the numbers in masks that mean unlabelled; without an offset, so does 0"""
    void: Sequence[int] = ()
    """the numbers in masks of ignored pixels, which are in no mask of a unit, no concept and no area"""

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= LARGEST:
            raise DissectError(f"offset: expected 0 to {LARGEST}, got {self.offset}.")
        _check_numbers("unlabelled", self.unlabelled_numbers)
        _check_numbers("void", self.void)
        if both := sorted(set(self.void).intersection(self.unlabelled_numbers)):
            raise DissectError(f"void: {both[0]} is among `unlabelled`, too. Leave it out of one of the two.")

    @property
    def unlabelled_numbers(self) -> tuple[int, ...]:
        """The numbers that are said to mean unlabelled."""
        given = (self.unlabelled,) if isinstance(self.unlabelled, int) else self.unlabelled
        return tuple(sorted(set(given)))

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields that are not as usual, as they are stored with a probe."""
        usual = MaskFormat()
        found = {name: getattr(self, name) for name in ("image_name", "mask_name", "offset")}
        found = {name: value for name, value in found.items() if value != getattr(usual, name)}
        found |= {"unlabelled": list(self.unlabelled_numbers)} if self.unlabelled_numbers else {}
        return found | ({"void": sorted(set(self.void))} if self.void else {})


def read_masks(
    *,
    images: str | Path,
    masks: str | Path,
    concepts: str | Path,
    label_size: tuple[int, int] | None = None,
    ignore: Sequence[int] = (),
    categories: Sequence[str] | None = None,
    format: MaskFormat | None = None,
) -> LabelSet:
    """The label set of images and masks with the same names. Only the first mask is read, for its size.

    Parameters
    ----------
    images, masks
        Folders; the mask of `a/b.jpg` is `a/b.png`. The first folder of an image's path is its split.
    concepts
        YAML, ``{number: name}`` or ``{number: {name: ..., category: ...}}``, or CSV with columns number, name and
        optionally category. The category is `object` where none is given.
    label_size
        (rows, columns) of the probe's label grid; None takes the size of the first mask.
    ignore
        Numbers in masks that mean no label, as 0 does; 255 in many data sets.
    categories
        Categories to keep; None keeps all.
    format
        How masks are called and numbered, where it is not as said here.

    Raises
    ------
    DissectError
        If a mask is missing or the table is malformed.
    """
    _check_numbers("ignore", ignore)
    images, masks, format = Path(images), Path(masks), format or MaskFormat()
    table, notes = read_concepts(Path(concepts), offset=format.offset)
    there = list(dict.fromkeys(c.category for c in table))
    kept = [c for c in there if categories is None or c in categories]
    if categories is not None and (unknown := [c for c in categories if c not in there]):
        raise DissectError(f"categories: {', '.join(unknown)} not in {concepts}; there are {there}.")
    if not images.is_dir():
        raise DissectError(f"{images}: expected a folder of images, found none.")
    pairs, passed_over = paired(images, masks, Names(format.image_name, format.mask_name, format.follow_links))
    decode, ignored = _decoder(format, ignore, table, Path(concepts))
    size = label_size or _as_pair(decode(Folder(str(masks), format.follow_links).path(pairs[0][1])).shape)
    selected = tuple(c for c in table if c.category in kept)
    found = LabelSet(
        images=str(images),
        maps=str(masks),
        rows=paired_rows(pairs, images),
        concepts=selected,
        categories=tuple(kept),
        planes=(kept[0],) if kept else (),
        decode=decode,
        label_size=size,
        ignored=ignored | {c.number for c in table if c not in selected},
        void=frozenset(number + format.offset for number in format.void),
        parameters={"layout": "masks", "ignore": sorted(ignore), "categories": kept, "label_size": list(size)}
        | format.parameters,
        notes=notes + passed_over,
    )
    return found.following_links() if format.follow_links else found


def decode_mask(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of a single-channel integer mask."""
    return _numbers(path, 0, ()).astype(np.uint16)


@dataclass(frozen=True)
class OffsetMask:
    """Decodes masks whose numbers are not those of the concepts."""

    offset: int
    void: tuple[int, ...]
    """numbers that mean unlabelled"""
    __name__ = "offset_mask"

    def __call__(self, path: Path) -> NDArray[np.uint16]:
        """Concept numbers (row, col) of a single-channel integer mask: its numbers and the offset, 0 for unlabelled."""
        return _numbers(path, self.offset, self.void).astype(np.uint16)


def _decoder(
    format: MaskFormat, ignore: Sequence[int], table: Sequence[Concept], path: Path
) -> tuple[Decode, frozenset[int]]:
    """The function that decodes masks, and the numbers that may come from it and mean no label."""
    numbers = {c.number - format.offset for c in table}
    for field, given in (("unlabelled", format.unlabelled_numbers), ("void", format.void)):
        if both := sorted(numbers.intersection(given)):
            raise DissectError(f"{field}: {both[0]} is a concept in {path}, too. Leave it out of one of the two.")
    none = frozenset(format.unlabelled_numbers).union(ignore)
    return (OffsetMask(format.offset, tuple(sorted(none))), frozenset()) if format.offset else (decode_mask, none)


def _numbers(path: Path, offset: int, void: Sequence[int]) -> NDArray[np.int64]:
    """The numbers of a mask with `offset` added, (row, col); 0 where a number means unlabelled."""
    with open_labels(path) as image:
        pixels = _channel(image, path).astype(np.int64)
    outside = pixels[(pixels < 0) | (pixels + offset > LARGEST)]
    labels = np.where(np.isin(pixels, void), 0, pixels + offset) if void else pixels + offset
    if outside.size and not np.isin(outside, void).all():
        number = outside[~np.isin(outside, void)][0]
        added = f" with the offset {offset} added" if offset else ""
        raise Fault(
            f"{path}: concept numbers must lie between 0 and {LARGEST}{added}, got {number}.",
            "label map: it holds a number that no concept can have",
            shared=True,
        )
    return labels


def _channel(image: Image.Image, path: Path) -> NDArray[Any]:
    """The channel that holds the numbers of a mask, (row, col)."""
    pixels = np.asarray(image)
    if image.mode in MODES:
        return pixels
    colors = pixels[..., :3] if image.mode.startswith("RGB") else pixels[..., :1]
    reason, mend = "", "Replace each colour by the number of its concept."
    if image.mode not in GREY_IN_COLORS:
        reason, mend = f"Pillow mode {image.mode}", "Save it as grey with 8 or 16 bits."
    elif (colors != colors[..., :1]).any():
        reason = f"Pillow mode {image.mode} with channels that differ"
    elif image.mode.endswith("A") and (pixels[..., -1] != 255).any():
        reason, mend = f"Pillow mode {image.mode} with transparent pixels", "Save it without transparency."
    if reason:
        raise Fault(
            f"{path}: expected a single-channel integer mask, got {reason}. {mend}",
            f"label map: it is no single-channel integer mask but has {reason}",
            shared=True,
        )
    return np.asarray(colors[..., 0])


def _check_numbers(field: str, numbers: Sequence[int]) -> None:
    if wrong := [number for number in numbers if not 0 <= number <= LARGEST]:
        raise DissectError(f"{field}: {wrong[0]} is no number that a mask can hold; expected 0 to {LARGEST}.")


def _as_pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]
