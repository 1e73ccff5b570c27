"""Reads CSV tables; every error names the file and the line.

Knows: csv, the dialects that spreadsheets write, text encodings.
Does not know: what the columns mean.

A dialect is read where only one meaning is possible. A file with the header `number;name` has semicolons between its
cells, since otherwise it had no column `number`; but whether the row `1,door, double door,` has a cell too many or a
comma in a name, nobody can say.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.encoding import decoded

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

DELIMITERS = (",", ";", "\t")
"""What may stand between cells; the first with which the header has all columns that are needed is taken."""

_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0+)?")
LONGEST = 40
"""Digits of a number at most, so that none is refused by Python itself."""

_SEPARATOR = re.compile(r"sep=(.)\r?\n", flags=re.IGNORECASE)

_Rows = list[tuple[int, list[str]]]
"""(line, cells) of each row"""


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    cells: dict[str, str]
    where: str
    """file and line"""

    def number(self, column: str) -> int:
        """The cell as a whole number; 1.0 is 1, as programs write it that know no whole numbers with gaps."""
        text = self.cells[column]
        found = _WHOLE.fullmatch(text)
        if found is None or len(found[1]) > LONGEST:
            raise DissectError(f"{self.where}, column '{column}': expected a whole number, got '{text[:LONGEST]}'.")
        return int(found[1])

    def real(self, column: str) -> float | None:
        """The cell as a number, None if it is empty or the column is missing."""
        text = self.cells.get(column, "").strip()
        if not text:
            return None
        try:
            value = float(text if "_" not in text else "")  # Python would read 1_0 as 10
        except ValueError as error:
            raise DissectError(f"{self.where}, column '{column}': expected a number, got '{text}'.") from error
        if not isfinite(value):
            raise DissectError(f"{self.where}, column '{column}': expected a finite number, got '{text}'.")
        return value


@dataclass(frozen=True)
class Table:
    """A CSV file."""

    header: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    """what a person should be told of how the file was read"""


def read_table(path: Path, required: Sequence[str]) -> Table:
    """The rows of a CSV file with a header; every row must have as many cells as the header.

    Spaces around cells are taken off. Rows in which nothing stands are left out, and so are empty cells at the ends of
    all rows.

    Raises
    ------
    DissectError
        If the file or a column is missing, or a row is malformed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected a CSV file with columns {', '.join(required)}, found none.") from error
    except OSError as error:
        raise DissectError(f"{path}: not readable as CSV: {error}.") from error
    text, notes = decoded(content, path)
    try:
        (first, header), rows = _rows(text, required)
    except csv.Error as error:
        raise DissectError(f"{path}: not readable as CSV: {error}.") from error
    if missing := [name for name in required if name not in header]:
        raise DissectError(
            f"{path}, line {first}: columns {', '.join(missing)} are missing; there are {', '.join(header)}."
        )
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise DissectError(
            f"{path}, line {first}: columns {', '.join(repeated)} occur more than once. Rename or remove them."
        )
    if "" in header:
        raise DissectError(f"{path}, line {first}: column {header.index('') + 1} has no name. Name or remove it.")
    for number, cells in rows:
        if len(cells) != len(header):
            raise DissectError(
                f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}. A cell with a comma in it "
                'needs quotes, as in "door, double door".'
            )
    lines = (Line(dict(zip(header, cells, strict=True)), f"{path}, line {number}") for number, cells in rows)
    return Table(tuple(header), tuple(lines), notes)


def _rows(text: str, required: Sequence[str]) -> tuple[tuple[int, list[str]], _Rows]:
    """(line, cells) of the header, and of the other rows."""
    stated = _SEPARATOR.match(text)  # a first line by which spreadsheets say what stands between cells
    body = text[stated.end() :] if stated else text
    reader = _reader(body, stated[1] if stated else _delimiter(body, required))
    rows = [(reader.line_num + bool(stated), [cell.strip() for cell in cells]) for cells in reader]
    filled = [(number, cells) for number, cells in rows if any(cells)]
    first, header = filled[0] if filled else (1, list[str]())
    below = filled[1:]
    width, cut = _widths(header, [cells for _, cells in below])
    # Programs write the number of a row into a first column without a name.
    start = int(len(header) > 1 and not header[0] and all(len(cells) == len(header) for _, cells in below))
    return (first, header[start:width]), [(number, cells[start:cut]) for number, cells in below]


def _delimiter(text: str, required: Sequence[str]) -> str:
    """What stands between the cells, as the header shows."""
    for delimiter in DELIMITERS:
        try:
            header = next(_reader(text, delimiter), [])
        except csv.Error:  # quotes that end elsewhere than at this delimiter
            continue
        if set(required) <= {cell.strip() for cell in header}:
            return delimiter
    return DELIMITERS[0]


def _reader(text: str, delimiter: str) -> "CsvReader":
    return csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[int | None, int | None]:
    """Number of cells to keep of the header, and of each row; None keeps all.

    Commas at the ends of lines are left out where the header has them, too, or where several rows have equally many
    and nothing ever stands behind them. In a single row the cell that is too many may be another one than the last.

    >>> _widths(["number", "name", ""], [["1", "sky", ""], ["2", "car", ""]])
    (2, 2)
    >>> _widths(["number", "name"], [["1", "sky", ""], ["2", "car", ""]])
    (None, 2)
    >>> _widths(["number", "name"], [["1", "sky", ""], ["2", "car"]])
    (None, None)
    """
    named = max((n for n, name in enumerate(header, 1) if name), default=0)
    lengths = {len(cells) for cells in rows} or {len(header)}
    if len(lengths) > 1 or any(any(cells[named:]) for cells in rows):
        return None, None
    if named < len(header):
        return (named, named) if lengths == {len(header)} else (None, None)
    return (None, named) if len(rows) > 1 and min(lengths) > named else (None, None)
