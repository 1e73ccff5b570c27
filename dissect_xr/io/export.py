"""Writes results for other programs, one block of units at a time, so that memory stays that of a block.

Knows: the file formats, and how a Dataset is cut so that no stored chunk is read twice.
Does not know: how results were computed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.analysis.scores import domain_indices, iou
from dissect_xr.errors import DissectError, WriteError
from dissect_xr.io.netdissect_csv import write_netdissect_csv
from dissect_xr.io.unit_table import unit_table
from dissect_xr.parallel.progress import track
from dissect_xr.schema import CUTOFF

if TYPE_CHECKING:
    from pyarrow import Table

FORMATS = ("csv", "netdissect-csv", "parquet", "parquet-pairs")
"""A row per unit; the published tables of one layer; a row per unit; a row per unit and concept that share a pixel."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the operating system that only a write can raise: the disk, the quota or the file is full."""


def select(
    ds: xr.Dataset, *, snapshot: str | None = None, layer: str | None = None, fraction: float | None = None
) -> xr.Dataset:
    """The given snapshot, layer and fraction of a dissection Dataset; None takes all, and all dimensions are kept.

    Raises
    ------
    DissectError
        Where there is no such snapshot, layer or fraction; the message lists those there are.
    """
    for dim, wanted in (("snapshot", snapshot), ("fraction", fraction), ("layer", layer)):
        if wanted is None:
            continue
        there = list(dict.fromkeys(ds[dim].values.tolist()))
        if wanted not in there:
            raise DissectError(f"{dim} {wanted}: not in this dissection; there are {', '.join(map(str, there))}.")
        along = "unit" if dim == "layer" else dim
        ds = ds.isel({along: ds[dim].values == wanted})
    return ds


def write_table(ds: xr.Dataset, path: Path, format: str, *, show: bool = True) -> None:
    """Compute and write a dissection Dataset to `path` in one of `FORMATS`.

    Rows of units are those of ``ds.dissect.to_dataframe()``. Rows of pairs hold the three counts and the IoU of every
    unit and concept that share a pixel; the IoU of any other pair is 0. Rows are ordered by snapshot, block of units
    and fraction.
    Memory: one lazy block of `ds` (32 MiB of intersections) and its rows; netdissect-csv: the counts of its layer.

    Raises
    ------
    DissectError
        For an unknown format, for several layers in a format that holds one, or where pyarrow is not installed.
    WriteError
        Where `path` cannot be written; a file that is there already stays as it is.
    """
    if format == "csv":
        _write_csv(ds, path, show)
    elif format == "netdissect-csv":
        _write_netdissect_csv(ds, path)
    elif format in ("parquet", "parquet-pairs"):
        _write_parquet(ds, path, _units if format == "parquet" else _pairs, show)
    else:
        raise DissectError(f"--format {format}: expected one of {', '.join(FORMATS)}, or broden for a probe.")


def _write_csv(ds: xr.Dataset, path: Path, show: bool) -> None:
    with _whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        for n, block in enumerate(_blocks(ds, path, show)):
            unit_table(block).to_csv(file, index=False, header=n == 0)


def _write_netdissect_csv(ds: xr.Dataset, path: Path) -> None:
    layers = list(dict.fromkeys(ds["layer"].values.tolist()))
    for name, there in (("snapshot", ds["snapshot"].values), ("fraction", ds["fraction"].values), ("layer", layers)):
        if len(there) > 1:
            raise DissectError(f"netdissect-csv holds one {name}; give --{name}, one of {', '.join(map(str, there))}.")
    with _whole(path) as partial:
        write_netdissect_csv(ds.squeeze(["snapshot", "fraction"]), partial)


def _write_parquet(ds: xr.Dataset, path: Path, rows: Callable[[xr.Dataset], Table], show: bool) -> None:
    try:
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise DissectError(
            "Parquet needs the package pyarrow, which is not installed: pip install 'dissect-xr[parquet]'."
        ) from error
    parameters = json.dumps({**ds.attrs, "cutoff": CUTOFF}, default=str)
    with _whole(path) as partial, ExitStack() as opened:
        writer = None
        for block in _blocks(ds, path, show):
            table = rows(block).replace_schema_metadata({"dissect_xr": parameters})
            writer = writer or opened.enter_context(ParquetWriter(partial, table.schema, compression="zstd"))
            writer.write_table(table)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary file that is renamed to `path` when all is written, and deleted after an error."""
    if path.is_dir():
        raise WriteError(f"{path}: expected a file to write, found a folder. Choose another --to.")
    partial = path.with_name(f"{path.name}.partial")
    with _writing(path):
        partial.touch()
    try:
        with _writing(path, FULL):  # other errors may come from reading the store
            yield partial
        with _writing(path):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path, reasons: Collection[int] = errno.errorcode) -> Iterator[None]:
    """Errors of the operating system with a number among `reasons` become a WriteError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        reason = error.strerror or error
        raise WriteError(f"{path}: cannot be written: {reason}. Mend this, or choose another --to.") from error


def _blocks(ds: xr.Dataset, path: Path, show: bool) -> Iterator[xr.Dataset]:
    """Every lazy block of units of every snapshot, in memory, without the derived `iou`."""
    ds = ds.drop_vars("iou", errors="ignore")
    lengths = ds["intersection"].chunksizes.get("unit", (ds.sizes["unit"],))
    stops = np.cumsum(lengths).tolist()
    with track(f"write {path.name}", ds.sizes["snapshot"] * len(stops), show=show) as bar:
        for snapshot in range(ds.sizes["snapshot"]):
            for stop, length in zip(stops, lengths, strict=True):
                yield ds.isel(snapshot=[snapshot], unit=slice(stop - length, stop)).load()
                bar.advance(0)


def _units(block: xr.Dataset) -> Table:
    """A row per fraction and unit."""
    import pyarrow as pa

    frame = unit_table(block)
    columns = {name: frame[name].to_numpy() for name in frame}
    return pa.table({name: _names(values) if values.dtype.kind == "O" else values for name, values in columns.items()})


def _pairs(block: xr.Dataset) -> Table:
    """A row per fraction, unit and concept that share a pixel."""
    import pyarrow as pa

    block = block.isel(snapshot=0).transpose("fraction", "unit", "concept", "domain", missing_dims="ignore")
    hits = block["intersection"].values
    fraction, unit, concept = np.nonzero(hits > 0)
    domain = domain_indices(block)[concept]
    columns = {
        "snapshot": _names(np.full(concept.size, block["snapshot"].item())),
        "step": np.full(concept.size, block["step"].item()),
        "fraction": block["fraction"].values[fraction],
        "unit": _names(block["unit"].values, unit),
        "layer": _names(block["layer"].values, unit),
        "channel": block["channel"].values[unit],
        "concept": block["concept"].values[concept],
        "concept_name": _names(block["concept_name"].values, concept),
        "category": _names(block["concept_category"].values, concept),
        "intersection": hits[fraction, unit, concept].astype(np.int64),
        "unit_area": block["unit_area"].values[fraction, unit, domain].astype(np.int64),
        "concept_area": block["concept_area"].values[concept],
        "iou": iou(block).transpose(*block["intersection"].dims).values[fraction, unit, concept],
    }
    return pa.table(columns)


def _names(names: NDArray[Any], indices: Any = slice(None)) -> Any:
    """`names` at `indices` as a dictionary array, whose type does not depend on how many names are distinct."""
    import pyarrow as pa

    distinct, number = np.unique(names.astype(str), return_inverse=True)
    dictionary = pa.array(distinct.tolist(), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(number[indices].astype(np.int32)), dictionary)
