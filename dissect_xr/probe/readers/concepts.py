"""Reads a table of concepts, YAML or CSV: the number, name and category of each label.

Knows: the two forms of the table, and which mistakes people make in them.
Does not know: masks, or how a number in a mask becomes the number of a concept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LARGEST, Concept
from dissect_xr.probe.readers.strict_yaml import Document, read_yaml
from dissect_xr.probe.readers.tables import read_table

CATEGORY = "object"
"""The category of a concept for which the table gives none."""

FIELDS = ("name", "category")
"""What a YAML table says of a concept, and a CSV table beside its number."""

_Entry = tuple[int, str, str, str]
"""number as in the table, name, category, file and line"""


def read_concepts(path: Path, *, offset: int = 0) -> tuple[tuple[Concept, ...], tuple[str, ...]]:
    """The concepts of a table, ascending by number, and what a person should be told of the table.

    Parameters
    ----------
    path
        YAML, ``{number: name}`` or ``{number: {name: ..., category: ...}}``; or CSV (``.csv``, ``.tsv``) with the
        columns number, name and optionally category.
    offset
        Is added to each number: 1 for tables that count from 0.

    Raises
    ------
    DissectError
        If the table is malformed, says something that is not understood, or gives a number twice; it names the line.
    """
    notes: tuple[str, ...] = ()
    if path.suffix.lower() in (".csv", ".tsv"):
        entries, notes = _of_csv(path)
    else:
        entries = list(_of_yaml(read_yaml(path, "a table of concepts as YAML or CSV")))
    return _checked(entries, offset), notes


def given_concepts(table: Mapping[int, Any]) -> tuple[Concept, ...]:
    """The concepts of a mapping as a YAML table has them, ascending by number.

    >>> found = given_concepts({2: "sky", 1: {"name": "wheel", "category": "part"}})
    >>> [(one.number, one.name, one.category) for one in found]
    [(1, 'wheel', 'part'), (2, 'sky', 'object')]

    Raises
    ------
    DissectError
        If it says something that is not understood.
    """
    return _checked(_of_yaml(Document("concepts", dict(table), {})), 0)


def _checked(entries: Iterable[_Entry], offset: int) -> tuple[Concept, ...]:
    """The concepts of a table, ascending by number."""
    concepts: dict[int, Concept] = {}
    for number, name, category, where in entries:
        _check_number(number, offset, where)
        if number + offset in concepts:
            raise DissectError(f"{where}: number {number} must be new: it is '{concepts[number + offset].name}', too.")
        for field, text in (("name", name), ("category", category)):
            if not text.strip():
                raise DissectError(f"{where}: the {field} of concept {number} is empty. Give it one.")
        concepts[number + offset] = Concept(number + offset, name, category)
    return tuple(concepts[number] for number in sorted(concepts))


def _check_number(number: int, offset: int, where: str) -> None:
    if 1 <= number + offset <= LARGEST:
        return
    if number == 0 and not offset:
        raise DissectError(
            f"{where}: number 0 means unlabelled, concepts have numbers between 1 and {LARGEST}. If 0 is a concept in "
            "the masks, give `offset: 1`, which is added to all numbers of the masks and of this table, and "
            "`unlabelled: 255` if 255 is what means unlabelled there."
        )
    added = f", with the offset {offset} added" if offset else ""
    raise DissectError(f"{where}: number {number} must be between 1 and {LARGEST}{added}. Renumber the concept.")


def _of_csv(path: Path) -> tuple[list[_Entry], tuple[str, ...]]:
    table = read_table(path, ["number", "name"])
    unknown = [column for column in table.header if column not in ("number", *FIELDS)]
    for column in unknown:
        meant = get_close_matches(column.lower(), [field for field in FIELDS if field not in table.header], cutoff=0.75)
        if meant:
            raise DissectError(f"{path}, line 1: there is no column '{column}'; rename it to '{meant[0]}'.")
    notes = (f"{path}: columns {', '.join(unknown)} are not read.",) if unknown else ()
    entries = [
        (line.number("number"), line.cells["name"], line.cells.get("category") or CATEGORY, line.where)
        for line in table.lines
    ]
    return entries, (*table.notes, *notes)


def _of_yaml(table: Document) -> Iterator[_Entry]:
    if not isinstance(table.value, dict):
        raise DissectError(f"{table.name}: expected {{number: name}}, got {type(table.value).__name__}.")
    for key, value in table.value.items():
        if not isinstance(key, int) or isinstance(key, bool):
            raise DissectError(f"{table.where(key)}: expected a number as key, got '{key}'.")
        name, category = _fields(table, key, value)
        yield key, name, category, table.where(key)


def _fields(table: Document, key: int, value: Any) -> Sequence[str]:
    """Name and category of a concept of a YAML table."""
    if isinstance(value, str):
        return value, CATEGORY
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise DissectError(
            f"{table.where(key)}: concept {key}: expected a name or {{name, category}}, got {value!r}. "
            "A name that YAML takes for something else, such as 5 or no, needs quotes."
        )
    if unknown := [field for field in value if field not in FIELDS]:
        meant = get_close_matches(str(unknown[0]), FIELDS, n=1)
        raise DissectError(
            f"{table.where(key, unknown[0])}: concept {key} has a field '{unknown[0]}'; there are only "
            f"{' and '.join(FIELDS)}. " + (f"Rename it to '{meant[0]}'." if meant else "Remove it.")
        )
    category = value.get("category", CATEGORY)
    if not isinstance(category, str):
        got = "empty" if category is None else repr(category)
        raise DissectError(
            f"{table.where(key, 'category')}: the category of concept {key} is {got}; expected a text. Give it one, or "
            f"leave the field out: then it is '{CATEGORY}'."
        )
    return value["name"], category
