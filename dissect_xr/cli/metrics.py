"""Metrics of snapshots, from the file that a training program wrote.

Knows: JSON lists, JSON Lines and CSV, and what counts as a missing value.
Does not know: which metrics there are: a recipe names the columns.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.tables import read_table

Record = tuple[str, Mapping[str, Any]]
"""Where a record stands, for errors, and its columns."""


def read_metrics(path: str | Path, *, step: str, columns: Mapping[str, str]) -> dict[int, dict[str, float]]:
    """Step -> metric -> value, from a JSON list of records, JSON Lines, or CSV (a suffix `.csv`).

    A value that is null, empty or absent is missing. Training programs write the metrics of one step in several records
    (the loss in one, the accuracy in another): they are joined, and a later value replaces an earlier one. Records
    without a step, such as a final one of totals, are not of a snapshot and are passed over.

    Parameters
    ----------
    step
        Column that holds the step.
    columns
        Metric -> column that holds it.

    Raises
    ------
    DissectError
        If the file cannot be read, a column exists in no record, or a value is not a number.
    """
    path = Path(path).expanduser()
    records = _table(path, step) if path.suffix.lower() == ".csv" else _json(path)
    there = list(dict.fromkeys(str(name) for _, record in records for name in record))
    if lacking := [name for name in (step, *columns.values()) if name not in there]:
        raise DissectError(
            f"{path}: no record has the column '{lacking[0]}'; there are {', '.join(there) or 'none'}. Name "
            "the columns in the recipe: model.metrics.step and model.metrics.columns."
        )
    found: dict[int, dict[str, float]] = {}
    for where, record in records:
        if (at := _number(record, step, where)) is None:
            continue
        if not math.isfinite(at) or at != int(at):
            raise DissectError(f"{where}, '{step}': expected a whole number, got {record[step]!r}.")
        values = {name: _number(record, column, where) for name, column in columns.items()}
        found.setdefault(int(at), {}).update(known(values))
    return found


def known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that have a value.

    >>> known({"accuracy": 0.5, "loss": None})
    {'accuracy': 0.5}
    """
    return {name: value for name, value in metrics.items() if value is not None}


def _number(record: Mapping[str, Any], column: str, where: str) -> float | None:
    """The value of a column, None where it is missing; NaN and infinities are values."""
    value = record.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, (bool, list, dict)) or (isinstance(value, str) and "_" in value):  # Python reads 1_0 as 10
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DissectError(f"{where}, '{column}': expected a number, got {value!r}.") from error


def _table(path: Path, step: str) -> list[Record]:
    return [(line.where, line.cells) for line in read_table(path, [step]).lines]


def _json(path: Path) -> list[Record]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DissectError(
            f"model.metrics.file: expected a file of records, but {path} does not exist. Correct the path."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DissectError(f"{path}: cannot be read as text ({error}). Expected JSON, JSON Lines or CSV.") from error
    try:
        json.loads(text)
    except ValueError:
        return list(_lines(path, text))
    content = _loaded(text, str(path))
    if not isinstance(content, list):
        content = [content]  # JSON Lines with a single line
    return [(f"{path}, record {n}", _checked(record, f"{path}, record {n}")) for n, record in enumerate(content, 1)]


def _loaded(text: str, where: str) -> Any:
    """What a JSON text says; a key that stands twice in a record is refused, of which Python takes the last."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise DissectError(f"{where}: '{name}' is given twice in one record. Keep one of the two.")
            found[name] = value
        return found

    return json.loads(text, object_pairs_hook=once)


def _lines(path: Path, text: str) -> Iterable[Record]:
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = _loaded(line, where)
        except json.JSONDecodeError as error:
            raise DissectError(
                f"{where}: neither JSON nor JSON Lines: {error}. Expected a list of records, or a record on each line."
            ) from error
        yield where, _checked(record, where)


def _checked(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise DissectError(f'{where}: expected a record such as {{"step": 10, "loss": 0.5}}, got {record!r}.')
    return record
