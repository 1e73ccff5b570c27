"""Opens a dissection store as one lazy Dataset.

Knows: how layers are joined along `unit` and snapshots along `snapshot`, and what is missing.
Does not know: how the counts were made, or how a score is derived from them (`scores`).
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.analysis.scores import iou
from dissect_xr.errors import DissectError
from dissect_xr.schema import COORDINATES, DISSECTION, PER_UNIT

BLOCK = 32 * 2**20
"""Bytes of intersections in one lazy block: several stored chunks, so that there are ten times fewer tasks."""

SAME = ("probe_sha256", "fractions", "anchoring", "domain", "schema_version")
"""Attributes in which all layers of a dissection must agree."""


def open_dissection(url: str) -> xr.Dataset:
    """All complete layers of all snapshots as one Dataset (snapshot, fraction, unit, concept, category).

    Counts stay on disk until they are computed; coordinates are in memory. `iou` is derived, in float64. Where a
    snapshot lacks a layer that another one has, the counts are NaN, and `complete(snapshot, layer_name)` is False.

    Warns
    -----
    UserWarning
        For layers whose dissection is not finished; they are left out.

    Raises
    ------
    DissectError
        Where no layer is finished, or the layers do not belong together.
    """
    keys = store.markers(url) if store.exists(url) else set()
    created = {tuple(key.split("/")[:2]) for key in keys if key.endswith("/created")}
    done = {tuple(key.split("/")[:2]) for key in keys if key.endswith("/done")}
    if not done:
        raise DissectError(f"{url}: expected a dissection, found no finished layer. Run `dissect-xr run RECIPE`.")
    if unfinished := sorted(created - done):
        names = ", ".join("/".join(pair) for pair in unfinished)
        warnings.warn(f"{url}: left out, not finished: {names}. Run the recipe again: it resumes.", stacklevel=2)
    opened = {pair: _open(url, "/".join(pair)) for pair in sorted(done)}
    first = next(iter(opened.values()))
    for (snapshot, layer), data in opened.items():
        if differing := [key for key in SAME if data.attrs[key] != first.attrs[key]]:
            raise DissectError(
                f"{url}: {snapshot}/{layer} differs from the other layers in {', '.join(differing)}. "
                "Dissect all layers of one output directory with the same probe and parameters."
            )
    snapshots = sorted({pair[0] for pair in done}, key=lambda name: (_of(opened, name)[0].attrs["step"], name))
    joined = _join(opened, snapshots, _labels(url, "/".join(min(done))))
    joined["iou"] = iou(joined)
    anchorings = {"/".join(pair): data.attrs["anchoring_used"] for pair, data in opened.items()}
    other = {path: used for path, used in sorted(anchorings.items()) if used != first.attrs["anchoring"]}
    joined.attrs = {key: first.attrs[key] for key in SAME} | {"anchoring_fallbacks": json.dumps(other)}
    return _ordered(joined)


def _ordered(ds: xr.Dataset) -> xr.Dataset:
    """`ds` with its variables in the order of the schema, and others after them: a store lists them in any order."""
    coords, found = (
        sorted(names, key=lambda name, known=list(known): known.index(name) if name in known else len(known))
        for names, known in ((ds.coords, COORDINATES), (ds.data_vars, DISSECTION))
    )
    return ds.drop_vars(coords)[found].assign_coords({name: ds.coords[name].variable for name in coords})


def _open(url: str, path: str) -> xr.Dataset:
    """The variables per unit of one layer, in lazy blocks of whole stored chunks; `unit` is their only coordinate."""
    stored = store.read(url, f"{path}/intersection")
    one = int(np.prod(stored.chunks)) * stored.dtype.itemsize
    chunks = {"unit": stored.chunks[1] * max(1, BLOCK // one)}
    return store.open_lazy(url, path, chunks=chunks, coordinates=["unit"])[list(PER_UNIT)]


def _labels(url: str, path: str) -> xr.Dataset:
    """The variables without `unit`. They are the same for all layers, whose parameters and probe are the same."""
    one = store.open_lazy(url, path)
    return one.drop_vars([str(name) for name, variable in one.variables.items() if "unit" in variable.dims])


def _of(opened: dict[Any, xr.Dataset], snapshot: str) -> list[xr.Dataset]:
    """The layers of one snapshot, in the model's order."""
    found = [data for (name, _), data in opened.items() if name == snapshot]
    return sorted(found, key=lambda data: (data.attrs["position"], str(data["unit"].values[0])))


def _join(opened: dict[Any, xr.Dataset], snapshots: Sequence[str], labels: xr.Dataset) -> xr.Dataset:
    parts = {
        name: xr.concat(
            _of(opened, name),
            dim="unit",
            coords="minimal",
            compat="override",
            join="exact",
            combine_attrs="drop",
        )
        for name in snapshots
    }
    longest = max(parts.values(), key=lambda part: part.sizes["unit"])
    units = list(dict.fromkeys([*longest["unit"].values, *(u for part in parts.values() for u in part["unit"].values)]))
    differ = any(list(part["unit"].values) != units for part in parts.values())
    if differ:
        parts = {name: _extended(part, units) for name, part in parts.items()}
    index = xr.DataArray(list(snapshots), dims="snapshot", name="snapshot")
    joined = xr.concat(
        list(parts.values()), dim=index, coords="minimal", compat="override", join="exact", combine_attrs="drop"
    )
    for name, variable in next(iter(opened.values())).variables.items():
        joined[name].attrs = variable.attrs
    layer, channel = zip(*(unit.rpartition("/")[::2] for unit in units), strict=True)
    joined = joined.assign_coords(layer=("unit", np.array(layer)), channel=("unit", np.array(channel, np.int64)))
    joined = joined.assign_coords(labels.coords).assign(labels.data_vars)
    if differ:
        layers = list(dict.fromkeys(layer))
        complete = [[(name, layer) in opened for layer in layers] for name in snapshots]
        joined["complete"] = xr.DataArray(complete, dims=("snapshot", "layer_name"), coords={"layer_name": layers})
    return joined.assign_coords(_snapshot_coords(opened, snapshots))


def _extended(part: xr.Dataset, units: list[str]) -> xr.Dataset:
    """The snapshot with NaN for the units it lacks; `dead` becomes float32, which can be NaN."""
    part = part.assign(dead=part["dead"].astype(np.float32))
    return part.reindex(unit=units)


def _snapshot_coords(opened: dict[Any, xr.Dataset], snapshots: Sequence[str]) -> dict[str, Any]:
    attrs = [_of(opened, name)[0].attrs for name in snapshots]
    names = dict.fromkeys(metric for one in attrs for metric in one["metrics"])
    coords: dict[str, Any] = {
        name: ("snapshot", np.array([one["metrics"].get(name, np.nan) for one in attrs], np.float64)) for name in names
    }
    return coords | {"step": ("snapshot", np.array([one["step"] for one in attrs], np.int64))}
