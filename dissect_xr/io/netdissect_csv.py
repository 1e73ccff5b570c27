"""Reads the tables of results per unit that Network Dissection published, and writes tables like them.

Knows: the columns of these files, and that they hold one concept per unit and category, so that most pairs are missing.
Does not know: which concept is the label of a unit (`detectors` decides), or where the Dataset to write comes from.

A file holds one layer of one network. Its columns are ``unit`` (from 1), ``category``, ``label`` and ``score`` of the
unit's best concept, and for each category ``<category>-label``, ``-truth``, ``-activation``, ``-intersect`` and
``-iou`` of its best concept there. Rows are ordered by score.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017; tables of http://netdissect.csail.mit.edu.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import xarray as xr

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.select import category_names
from dissect_xr.errors import DissectError

FIELDS = ("label", "truth", "activation", "intersect", "iou")
"""Columns of a unit's best concept in a category: its name, concept_area, unit_area, intersection and IoU."""

STRING = np.dtypes.StringDType()


def read_netdissect_csv(path: str | PathLike[str], *, layer: str | None = None) -> xr.Dataset:
    """The dissection Dataset of one published table, in memory, with NaN for counts that are not in the file.

    ``intersection(unit, concept)`` and ``unit_area(unit, domain)`` are float64 for the NaN; ``concept_area(concept)``
    is int64; ``dead(unit)`` is True for a unit without an active pixel. Units are numbered from 0 and sorted. Concepts
    are the pairs of category and label in the file, numbered from 1 by category in the file's order, then by name.
    Where a label is empty (scene 0 of the 2017 program), counts are missing. Scores are derived from the counts again.

    Parameters
    ----------
    path
        The CSV file.
    layer
        Name of the layer; by default the last part of the file's name, ``conv5`` of ``alexnet_places365_conv5.csv``.

    Raises
    ------
    DissectError
        If the file is no such table or contradicts itself; the message names the file, line and column.

    Examples
    --------
    >>> import tempfile
    >>> header = "unit,object-label,object-truth,object-activation,object-intersect,object-iou"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "net_conv5.csv").write_text(header + "\\n3,road,5,4.0,3,0.5\\n1,car,8,2.0,0,0\\n")
    ...     ds = read_netdissect_csv(Path(folder, "net_conv5.csv"))
    >>> ds.unit.values.tolist(), ds.concept_name.values.tolist(), ds.intersection.values.tolist()
    (['conv5/0', 'conv5/2'], ['car', 'road'], [[0.0, nan], [nan, 3.0]])
    """
    path = Path(path)
    cells = list(_cells(path))
    categories = list(dict.fromkeys(cell.category for cell in cells))
    channels = sorted({cell.channel for cell in cells})
    area = _concept_areas(path, cells)
    concepts = sorted(area, key=lambda concept: (categories.index(concept[0]), concept[1]))

    intersection = np.full((len(channels), len(concepts)), np.nan)
    unit_area = np.full((len(channels), len(categories)), np.nan)
    unit_of = {channel: index for index, channel in enumerate(channels)}
    concept_of = {concept: index for index, concept in enumerate(concepts)}
    for cell in cells:
        if cell.label:
            intersection[unit_of[cell.channel], concept_of[cell.category, cell.label]] = cell.intersect
            unit_area[unit_of[cell.channel], categories.index(cell.category)] = cell.activation

    layer = path.stem.rsplit("_", 1)[-1] if layer is None else layer
    return xr.Dataset(
        {
            "intersection": (("unit", "concept"), intersection),
            "unit_area": (("unit", "domain"), unit_area),
            "concept_area": ("concept", np.array([area[concept] for concept in concepts], dtype=np.int64)),
            "dead": ("unit", ~(unit_area > 0).any(axis=1)),
        },
        {
            "unit": np.array([f"{layer}/{channel}" for channel in channels], dtype=STRING),
            "layer": ("unit", np.array([layer] * len(channels), dtype=STRING)),
            "channel": ("unit", np.array(channels, dtype=np.int64)),
            "concept": np.arange(1, len(concepts) + 1),
            "concept_name": ("concept", np.array([label for _, label in concepts], dtype=STRING)),
            "concept_category": ("concept", np.array([category for category, _ in concepts], dtype=STRING)),
            "concept_domain": ("concept", np.array([category for category, _ in concepts], dtype=STRING)),
            "category": np.array(categories, dtype=STRING),
            "domain": np.array(categories, dtype=STRING),
        },
        attrs={"source": path.name},
    )


def write_netdissect_csv(ds: xr.Dataset, path: str | PathLike[str]) -> None:
    """Write a table like the published ones; computes the counts of one layer, (unit, concept), in memory.

    Rows are ordered by score, highest first. Cells are empty where a unit has no best concept in a category.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot, fraction and layer.
    path
        The file to write; one that exists is replaced.

    Raises
    ------
    DissectError
        If `ds` holds more than one snapshot, fraction or layer, or a unit has no counts.
    """
    ds = _one_layer(ds)
    best = best_concept(ds)
    if (without := (best["concept"] == 0) & (ds["dead"] != 1)).any():
        raise DissectError(
            f"unit {ds['unit'].values[without][0]} has no counts in this snapshot: select a layer that has."
        )
    columns: dict[str, list[str]] = {
        "unit": [str(channel + 1) for channel in ds["channel"].values.tolist()],
        "category": best["category"].values.tolist(),
        "label": best["concept_name"].values.tolist(),
        "score": _texts(best["iou"], ".17g"),
    }
    present = set(ds["concept_category"].values.tolist())
    for category in category_names(ds):
        if category in present:
            columns |= {f"{category}-{field}": texts for field, texts in _best_within(ds, category).items()}
    order = np.argsort(-best["iou"].fillna(-1.0).values, kind="stable")
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([texts[row] for texts in columns.values()] for row in order.tolist())


@dataclass(frozen=True)
class _Cell:
    """The cells of one row for one category."""

    line: int
    channel: int
    category: str
    label: str
    truth: int
    activation: int
    intersect: int


def _cells(path: Path) -> Iterator[_Cell]:
    """The cells of every row and category, checked."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DissectError(
            f"{path}: expected a CSV table of Network Dissection, but it cannot be read: {error}."
        ) from error
    categories = _categories(path, header)
    if not lines:
        raise DissectError(f"{path}: expected a row per unit below the header, and there is none.")
    seen: dict[int, int] = {}
    for line, row in lines:
        if len(row) != len(header):
            raise DissectError(f"{path}, line {line}: expected {len(header)} columns as in the header, got {len(row)}.")
        texts = dict(zip(header, row, strict=True))
        channel = _whole(path, line, "unit", texts["unit"]) - 1
        if channel < 0:
            raise DissectError(f"{path}, line {line}, column unit: expected 1 or more, got {texts['unit']!r}.")
        if channel in seen:
            raise DissectError(f"{path}, line {line}, column unit: {channel + 1} is on line {seen[channel]} already.")
        seen[channel] = line
        for category in categories:
            yield _cell(path, line, channel, category, {field: texts[f"{category}-{field}"] for field in FIELDS})


def _categories(path: Path, header: Sequence[str]) -> list[str]:
    categories = [column.removesuffix("-label") for column in header if column.endswith("-label")]
    expected = ["unit", *(f"{category}-{field}" for category in categories or ["<category>"] for field in FIELDS)]
    if len(set(header)) != len(header):
        twice = sorted({column for column in header if header.count(column) > 1})
        raise DissectError(f"{path}, line 1: column {', '.join(twice)} is there twice. Keep one.")
    if missing := [column for column in expected if column not in header]:
        raise DissectError(f"{path}, line 1: column {', '.join(missing)} is missing. Expected {', '.join(expected)}.")
    return categories


def _cell(path: Path, line: int, channel: int, category: str, texts: dict[str, str]) -> _Cell:
    if not texts["label"]:
        return _Cell(line, channel, category, "", 0, 0, 0)
    truth, activation, intersect = (_whole(path, line, f"{category}-{field}", texts[field]) for field in FIELDS[1:4])
    if not 0 <= intersect <= min(truth, activation):
        raise DissectError(
            f"{path}, line {line}, column {category}-intersect: expected 0 to {min(truth, activation)}, the smaller of "
            f"truth and activation, got {intersect}."
        )
    union = truth + activation - intersect
    iou = intersect / union if union else 0.0
    given = _number(path, line, f"{category}-iou", texts["iou"])
    if not abs(given - iou) <= 1e-6:  # also for NaN
        where = f"{path}, line {line}, column {category}-iou"
        raise DissectError(f"{where}: expected {iou:.6g}, which the counts give, got {given:.6g}.")
    return _Cell(line, channel, category, texts["label"], truth, activation, intersect)


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DissectError(f"{path}, line {line}, column {column}: expected a number, got {text!r}.") from None


def _whole(path: Path, line: int, column: str, text: str) -> int:
    number = _number(path, line, column, text)
    if not (number.is_integer() and abs(number) < 2**53):  # above 2**53 float64 does not hold every integer
        raise DissectError(f"{path}, line {line}, column {column}: expected a whole number, got {text!r}.")
    return int(number)


def _concept_areas(path: Path, cells: Sequence[_Cell]) -> dict[tuple[str, str], int]:
    """The area of each (category, label) in the file, which must be the same in all rows."""
    first: dict[tuple[str, str], _Cell] = {}
    for cell in cells:
        other = first.setdefault((cell.category, cell.label), cell)
        if other.truth != cell.truth:
            raise DissectError(
                f"{path}, line {cell.line}, column {cell.category}-truth: {cell.label} has {cell.truth} pixels here, "
                f"{other.truth} on line {other.line}. A table is of one probe."
            )
    return {concept: cell.truth for concept, cell in first.items() if cell.label}


def _one_layer(ds: xr.Dataset) -> xr.Dataset:
    """The counts of one snapshot, fraction and layer in memory, (unit, concept) and (unit, category)."""
    for dim in ("snapshot", "fraction"):
        if ds.sizes.get(dim, 1) != 1:
            raise DissectError(
                f"a table is of one {dim}, the Dataset has {ds.sizes[dim]}: select with ds.isel({dim}=0)."
            )
    layers = list(dict.fromkeys(np.atleast_1d(ds["layer"].values).tolist()))
    if len(layers) != 1 or not {"unit", "concept", "domain"} <= set(ds.dims):
        raise DissectError(
            f"a table has the dimensions unit, concept and domain of one layer; the Dataset has "
            f"{', '.join(map(str, ds.dims))} of {', '.join(layers)}. Select with ds.isel(unit=ds.layer == name)."
        )
    ds = ds if "dead" in ds else ds.assign(dead=("unit", np.zeros(ds.sizes["unit"], dtype=bool)))
    ds = ds[["intersection", "unit_area", "concept_area", "dead"]]
    return ds.squeeze([dim for dim in ("snapshot", "fraction") if dim in ds.dims]).compute()


def _best_within(ds: xr.Dataset, category: str) -> dict[str, list[str]]:
    """Field -> texts of one category, a text per unit."""
    best = best_concept(ds, within=category)
    found = best["concept"] > 0
    number = best["concept"].where(found, ds["concept"].values[0])
    counts = {
        "truth": _texts(ds["concept_area"].sel(concept=number).where(found), ".0f"),
        "activation": _texts(ds["unit_area"].sel(domain=ds["concept_domain"].sel(concept=number)).where(found), ".1f"),
        "intersect": _texts(ds["intersection"].sel(concept=number).where(found), ".0f"),
    }
    return {"label": best["concept_name"].values.tolist(), **counts, "iou": _texts(best["iou"], ".17g")}


def _texts(values: xr.DataArray, form: str) -> list[str]:
    return ["" if np.isnan(value) else format(value, form) for value in values.values.tolist()]
