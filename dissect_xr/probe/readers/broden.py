"""Reads a folder in the Broden layout (Bau et al. 2017), or a smaller set in the same files, as a label set.

Knows: index.csv, category.csv, label.csv, c_<category>.csv, and how a label map encodes numbers (docs/method.md,
section 3).
Does not know: stores, resampling, colours computed from pixels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import slashed
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.completed import kept_categories, with_wholes
from dissect_xr.probe.readers.tables import Line, read_table

FIXED = ("image", "split", "ih", "iw", "sh", "sw", "verified")
"""Columns of index.csv that are not categories; `verified` is an addition to the layout, for federated sets."""

LARGEST_SIDE = 65_535
"""Largest side of a label map in pixels."""

_NUMBER = re.compile(r"([0-9]+)(?:\.0+)?")
_MEMBER = re.compile(r"^\s*([^();]+?)\s*(?:\(\s*\d*\s*\))?\s*$")


def read_broden(
    folder: str | Path,
    *,
    index: str = "index.csv",
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    void: Sequence[int] = (),
) -> LabelSet:
    """The label set of a probe in the Broden layout. No pixel is read.

    Columns that the layout of 2017 does not have say what other sets know: in label.csv, `parent`, the number of the
    whole of a part, and `own_domain`, 1 for concepts that images are verified for one by one; in index.csv, `verified`,
    the numbers of those that an image was looked through for.

    Parameters
    ----------
    index
        The index file's name.
    categories
        Categories to keep; None keeps all of category.csv. The primary category of a concept is one of these.
    label_size
        (rows, columns) of the probe's label grid; None takes the size of the first row's label maps.
    void
        Numbers in label maps of ignored pixels, which Broden itself does not have.

    Raises
    ------
    DissectError
        If something is missing or malformed; it names the file, line and column.

    References
    ----------
    Bau et al. 2017, Network Dissection, section 2.1.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DissectError(
            f"{folder}: expected a folder in the Broden layout ({index}, category.csv, label.csv, images/), found none."
        )
    there = [line.cells["name"] for line in read_table(folder / "category.csv", ["name"]).lines]
    kept = kept_categories(there, categories, folder / "category.csv")
    members = _members(folder / "label.csv", there)
    concepts = _concepts(members, [name for name in there if name in kept], _coverage(folder, there))
    table = read_table(folder / index, ["image", "split"])
    lines = table.lines
    columns = [name for name in there if name in kept and lines and name in lines[0].cells]
    if lines and (extra := [n for n in lines[0].cells if n not in FIXED and n not in there]):
        raise DissectError(f"{folder / index}, line 1: columns {extra} are no categories of category.csv: {there}.")
    planes = _planes(lines, columns)
    numbers = {one.number for one in members}
    own = _own_domains(concepts, folder / index, has_verified="verified" in table.header and "verified" not in there)
    kept_numbers = frozenset(c.number for c in concepts)
    planned = _Planned(columns, planes, frozenset(numbers), kept_numbers, own, folder / "images")
    rows = tuple(_row(line, planned) for line in lines)
    size = label_size or next((row.size for row in rows if row.size), None)
    if size is None:
        raise DissectError(f"{folder / index}: has no sh and sw; give label_size as [rows, columns].")
    return LabelSet(
        images=str(folder / "images"),
        maps=str(folder / "images"),
        rows=rows,
        concepts=concepts,
        categories=tuple(name for name in there if name in kept),
        planes=tuple(planes) or (columns[0] if columns else kept[0],),
        decode=decode_broden,
        label_size=size,
        ignored=frozenset(numbers - {c.number for c in concepts}),
        void=frozenset(void),
        parameters={"layout": "broden", "index": index, "categories": kept, "label_size": list(size)}
        | ({"void": sorted(set(void))} if void else {}),
        notes=table.notes,
    )


def decode_broden(path: Path) -> NDArray[np.uint16]:
    """Concept numbers (row, col) of an 8-bit RGB label map: R + 256 * G."""
    with open_labels(path) as image:
        if image.mode != "RGB":
            raise Fault(
                f"{path}: expected a label map as 8-bit RGB (number = R + 256 * G), got {image.mode}.",
                f"label map: it is no 8-bit RGB but {image.mode}",
                shared=True,
            )
        pixels = np.asarray(image).astype(np.uint16)
    return pixels[..., 0] + np.uint16(256) * pixels[..., 1]


@dataclass(frozen=True)
class _Member:
    """One label."""

    number: int
    name: str
    categories: list[str]
    """in the listed order"""
    parent: int
    own_domain: bool


def _members(path: Path, categories: Sequence[str]) -> list[_Member]:
    """Every label."""
    found, seen = [], set()
    for line in read_table(path, ["number", "name", "category"]).lines:
        number = line.number("number")
        if not 1 <= number <= LARGEST or number in seen:
            raise DissectError(f"{line.where}: number {number} must be new and between 1 and {LARGEST}.")
        seen.add(number)
        names = [m.group(1) if (m := _MEMBER.match(part)) else part for part in line.cells["category"].split(";")]
        if unknown := [name for name in names if name not in categories]:
            raise DissectError(f"{line.where}: category {unknown} is not in category.csv: {list(categories)}.")
        parent = line.number("parent") if line.cells.get("parent") else 0
        found.append(_Member(number, line.cells["name"], names, parent, line.cells.get("own_domain") == "1"))
    return found


def _coverage(folder: Path, categories: Sequence[str]) -> dict[tuple[str, int], float]:
    """(category, number) -> coverage, for the labels whose c_<category>.csv gives it."""
    stated = {}
    for category in categories:
        path = folder / f"c_{category}.csv"
        if not path.exists():
            continue
        for line in read_table(path, ["number"]).lines:
            if (coverage := line.real("coverage")) is not None:
                stated[category, line.number("number")] = coverage
    return stated


def _concepts(
    members: Sequence[_Member], categories: Sequence[str], coverage: dict[tuple[str, int], float]
) -> tuple[Concept, ...]:
    """Concepts with a category among `categories`; the one of largest coverage is primary, in a tie the later one."""
    concepts = []
    for one in members:
        # If no c_ file gives a coverage, the first category in label.csv is the primary one.
        stated = [(coverage[c, one.number], n, c) for n, c in enumerate(categories) if (c, one.number) in coverage]
        listed = [c for c in one.categories if c in categories]
        if stated or listed:
            primary = max(stated)[2] if stated else listed[0]
            concepts.append(Concept(one.number, one.name, primary, one.own_domain, one.parent))
    return with_wholes(concepts)


def _own_domains(concepts: Sequence[Concept], index: Path, *, has_verified: bool) -> frozenset[int]:
    """Numbers of the concepts that are domains of their own."""
    own = frozenset(c.number for c in concepts if c.own_domain)
    if own and not has_verified:
        raise DissectError(
            f"{index}, line 1: label.csv has labels with own_domain, so the column 'verified' must say which of them "
            "each image was looked through for. Add it."
        )
    return own


def _items(line: Line, column: str) -> tuple[list[str], list[int]]:
    """The paths and the whole-image numbers in a cell; the number 0 means unlabelled and is left out."""
    items = [item.strip() for item in line.cells[column].split(";") if item.strip()]
    numbers = [int(found[1]) for item in items if (found := _NUMBER.fullmatch(item))]
    return [item for item in items if not _NUMBER.fullmatch(item)], [n for n in numbers if n]


def _planes(lines: Sequence[Line], columns: Sequence[str]) -> list[str]:
    """The category of each plane: a category has as many planes as the row with most label maps needs."""
    most = {column: max((len(_items(line, column)[0]) for line in lines), default=0) for column in columns}
    return [column for column in columns for _ in range(most[column])]


@dataclass(frozen=True)
class _Planned:
    """What the rows of an index have in common."""

    columns: Sequence[str]
    """those of categories"""
    planes: Sequence[str]
    listed: frozenset[int]
    """all numbers of label.csv"""
    kept: frozenset[int]
    """those of the kept concepts"""
    own: frozenset[int]
    """those of the kept concepts that are domains of their own"""
    images: Path


def _row(line: Line, planned: _Planned) -> Row:
    """One line of the index."""
    maps: list[tuple[int, str]] = []
    whole: list[int] = []
    for column in planned.columns:
        paths, numbers = _items(line, column)
        first = planned.planes.index(column) if paths else 0
        maps += [(first + n, slashed(path, planned.images)) for n, path in enumerate(paths)]
        if unknown := [n for n in numbers if n not in planned.listed]:
            raise DissectError(
                f"{line.where}, column '{column}': label {unknown[0]} is not in label.csv. Add it there."
            )
        whole += [n for n in dict.fromkeys(numbers) if n in planned.kept and n not in whole]
    stated = [_side(line, name) for name in ("sh", "sw")]
    size = (stated[0], stated[1]) if stated[0] and stated[1] else None
    image = slashed(line.cells["image"], planned.images)
    verified = tuple(n for n in _items(line, "verified")[1] if n in planned.own) if planned.own else ()
    return Row(image, line.cells["split"], tuple(maps), tuple(whole), size, line.where, verified=verified)


def _side(line: Line, column: str) -> int | None:
    """Side of the row's label maps in pixels, None if the cell is empty."""
    value = line.real(column)
    if value is not None and not (1 <= value <= LARGEST_SIDE and value == int(value)):
        raise DissectError(
            f"{line.where}, column '{column}': expected a whole number from 1 to {LARGEST_SIDE}, "
            f"got '{line.cells[column]}'."
        )
    return None if value is None else int(value)
