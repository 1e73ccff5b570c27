"""Reads a folder of images, single-channel integer PNG masks and a table of concept names as a label set.

Knows: file names, mask modes, YAML and CSV tables.
Does not know: stores, resampling, colours computed from pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.pixels import open_image
from dissect_xr.probe.readers.tables import read_table

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
"""Suffixes of the image files that are read from the folder."""

MODES = {"1", "L", "P", "I", "I;16", "I;16B"}
"""Pillow modes of single-channel integer masks; in mode P the palette index is the concept number."""


def read_masks(
    *,
    images: str | Path,
    masks: str | Path,
    concepts: str | Path,
    label_size: tuple[int, int] | None = None,
    ignore: Sequence[int] = (),
    categories: Sequence[str] | None = None,
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

    Raises
    ------
    DissectError
        If a mask is missing or the table is malformed.
    """
    if wrong := [number for number in ignore if not 0 <= number <= LARGEST]:
        raise DissectError(f"ignore: {wrong[0]} is no number that a mask can hold; expected 0 to {LARGEST}.")
    images, masks = Path(images), Path(masks)
    table = _concepts(Path(concepts))
    there = list(dict.fromkeys(c.category for c in table))
    kept = [c for c in there if categories is None or c in categories]
    if categories is not None and (unknown := [c for c in categories if c not in there]):
        raise DissectError(f"categories: {', '.join(unknown)} not in {concepts}; there are {there}.")
    if not images.is_dir():
        raise DissectError(f"{images}: expected a folder of images, found none.")
    paths = sorted(p.relative_to(images) for p in images.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DissectError(f"{images}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    missing = [p for p in paths if not (masks / p.with_suffix(".png")).is_file()]
    if missing:
        raise DissectError(
            f"{masks / missing[0].with_suffix('.png')}: the mask of {missing[0]} is missing, "
            f"{len(missing)} of {len(paths)} in all. Add the masks, or move the images out of the folder."
        )
    size = label_size or _as_pair(decode_mask(masks / paths[0].with_suffix(".png")).shape)
    rows = tuple(
        Row(
            image=path.as_posix(),
            split=path.parts[0] if len(path.parts) > 1 else "all",
            maps=((0, path.with_suffix(".png").as_posix()),),
            whole=(),
            size=None,
            where=str(images / path),
        )
        for path in paths
    )
    selected = tuple(c for c in table if c.category in kept)
    return LabelSet(
        images=str(images),
        maps=str(masks),
        rows=rows,
        concepts=selected,
        categories=tuple(kept),
        planes=(kept[0],) if kept else (),
        decode=decode_mask,
        label_size=size,
        ignored=frozenset(ignore) | {c.number for c in table if c not in selected},
        parameters={"layout": "masks", "ignore": sorted(ignore), "categories": kept, "label_size": list(size)},
    )


def decode_mask(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of a single-channel integer mask."""
    with open_image(path) as image:
        if image.mode not in MODES:
            raise DissectError(f"{path}: expected a single-channel integer mask, got Pillow mode {image.mode}.")
        pixels = np.asarray(image)
    if pixels.size and (pixels.min() < 0 or pixels.max() > LARGEST):
        raise DissectError(f"{path}: concept numbers must lie between 0 and {LARGEST}, got {pixels.max()}.")
    return pixels.astype(np.uint16)


def _as_pair(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]


def _concepts(path: Path) -> tuple[Concept, ...]:
    if path.suffix.lower() == ".csv":
        lines = read_table(path, ["number", "name"])
        raw = [(ln.number("number"), ln.cells["name"], ln.cells.get("category") or "object", ln.where) for ln in lines]
    else:
        raw = [(*_entry(path, key, value), f"{path}: {key}") for key, value in _mapping(path).items()]
    concepts: dict[int, Concept] = {}
    for number, name, category, where in raw:
        if not 1 <= number <= LARGEST or number in concepts:
            raise DissectError(f"{where}: number {number} must be new and between 1 and {LARGEST}.")
        concepts[number] = Concept(number, name, category)
    return tuple(concepts[number] for number in sorted(concepts))


def _mapping(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DissectError(f"{path}: expected a table of concepts as YAML or CSV: {error}.") from error
    if not isinstance(content, dict):
        raise DissectError(f"{path}: expected {{number: name}}, got {type(content).__name__}.")
    return content


def _entry(path: Path, key: Any, value: Any) -> tuple[int, str, str]:
    if not isinstance(key, int) or isinstance(key, bool):
        raise DissectError(f"{path}: expected a number as key, got '{key}'.")
    if isinstance(value, str):
        return key, value, "object"
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return key, value["name"], str(value.get("category", "object"))
    raise DissectError(f"{path}: concept {key}: expected a name or {{name, category}}, got {value!r}.")
