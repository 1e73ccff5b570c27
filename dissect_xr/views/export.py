"""Writes results for other programs.

Knows: file formats.
Does not know: how results were computed.
"""

from pathlib import Path

import xarray as xr

from dissect_xr.errors import DissectError
from dissect_xr.views.netdissect_csv import write_netdissect_csv
from dissect_xr.views.tables import unit_table

FORMATS = ("csv", "netdissect-csv")


def select(
    ds: xr.Dataset, *, snapshot: str | None = None, layer: str | None = None, fraction: float | None = None
) -> xr.Dataset:
    """The part of a dissection Dataset that is wanted; dims stay.

    Raises
    ------
    DissectError
        Where there is no such snapshot, layer or fraction, saying what there is.
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


def write_table(ds: xr.Dataset, path: Path, format: str) -> None:
    """Compute and write the units' labels to `path`.

    Raises
    ------
    DissectError
        For an unknown format, or where it holds one layer and there are several.
    """
    if format not in FORMATS:
        raise DissectError(f"--format {format}: expected one of {', '.join(FORMATS)}.")
    if format == "csv":
        unit_table(ds).to_csv(path, index=False)
        return
    layers = list(dict.fromkeys(ds["layer"].values.tolist()))
    for name, there in (("snapshot", ds["snapshot"].values), ("fraction", ds["fraction"].values), ("layer", layers)):
        if len(there) > 1:
            raise DissectError(f"netdissect-csv holds one {name}; give --{name}, one of {', '.join(map(str, there))}.")
    write_netdissect_csv(ds.squeeze(["snapshot", "fraction"]), path)
