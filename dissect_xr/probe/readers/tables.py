"""Reads CSV tables; every error names the file and the line.

Knows: csv and text encodings.
Does not know: what the columns mean.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    cells: dict[str, str]
    where: str
    """file and line"""

    def number(self, column: str) -> int:
        """The cell as a whole number."""
        try:
            return int(self.cells[column])
        except ValueError as error:
            raise DissectError(
                f"{self.where}, column '{column}': expected a whole number, got '{self.cells[column]}'."
            ) from error

    def real(self, column: str) -> float | None:
        """The cell as a number, None if it is empty or the column is missing."""
        text = self.cells.get(column, "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError as error:
            raise DissectError(f"{self.where}, column '{column}': expected a number, got '{text}'.") from error
        if not isfinite(value):
            raise DissectError(f"{self.where}, column '{column}': expected a finite number, got '{text}'.")
        return value


def read_table(path: Path, required: Sequence[str]) -> list[Line]:
    """The rows of a CSV file with a header; every row must have as many cells as the header.

    Raises
    ------
    DissectError
        If the file or a column is missing, or a row is malformed.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected a CSV file with columns {', '.join(required)}, found none.") from error
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DissectError(f"{path}: not readable as CSV: {error}.") from error
    if missing := [name for name in required if name not in header]:
        raise DissectError(f"{path}, line 1: columns {', '.join(missing)} are missing; there are {', '.join(header)}.")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DissectError(
            f"{path}, line 1: columns {', '.join(repeated)} occur more than once. Rename or remove them."
        )
    for number, cells in lines:
        if len(cells) != len(header):
            raise DissectError(f"{path}, line {number}: expected {len(header)} cells, got {len(cells)}.")
    return [Line(dict(zip(header, cells, strict=True)), f"{path}, line {number}") for number, cells in lines]
