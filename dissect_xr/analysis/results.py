"""Opens a dissection store as one lazy Dataset.

Knows: how layers are joined along `unit` and snapshots along `snapshot`, and what is missing.
Does not know: how the counts were made, or how a score is derived from them (`scores`).

What a finished snapshot holds stands in its marker, so 1,000 snapshots of 50 layers are opened by reading 1,000 small
objects, not 50,000 groups. Nothing else is read before a count is asked for.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.scores import iou, label_iou
from dissect_xr.errors import DissectError
from dissect_xr.parallel.blocks import array_of_blocks
from dissect_xr.schema import COORDINATES, DISSECTION, PER_UNIT, check_version, from_json, layer_of, layer_path

BLOCK = 32 * 2**20
"""Bytes of intersections in one lazy block: several stored chunks, so that there are ten times fewer tasks."""

SAME = ("probe_sha256", "fractions", "anchoring", "domain", "schema_version")
"""Attributes of the root, which all layers share."""


@dataclass(frozen=True)
class _Snapshot:
    """A snapshot, and what its markers say of its finished layers."""

    name: str
    step: int
    metrics: Mapping[str, float]
    layers: Mapping[str, Mapping[str, Any]]
    unfinished: Sequence[str] = ()


def open_dissection(url: store.Url) -> xr.Dataset:
    """All complete layers of all snapshots as one Dataset (snapshot, fraction, unit, concept, domain).

    Counts stay on disk until they are computed; coordinates are in memory. `iou` is derived, in float64. Where a
    snapshot lacks a layer that another one has, its counts are NaN, and `complete(snapshot, layer)` says so.

    Warns
    -----
    UserWarning
        For layers whose dissection is not finished; they are left out.

    Raises
    ------
    DissectError
        Where there is nothing complete, or another version of this package wrote the store.
    """
    url = store.as_url(url)
    found = [_snapshot(url, name) for name in store.marked_groups(url)] if store.exists(url) else []
    if unfinished := [f"{one.name}/{layer}" for one in found for layer in one.unfinished]:
        names = ", ".join(sorted(unfinished))
        warnings.warn(f"{url}: left out, not finished: {names}. Run the recipe again: it resumes.", stacklevel=2)
    snapshots = sorted((one for one in found if one.layers), key=lambda one: (one.step, one.name))
    if not snapshots:
        raise DissectError(f"{url}: expected a dissection, found no finished layer. Run `dissect-xr run RECIPE`.")
    layers = {layer_path(one.name, name): layer for one in snapshots for name, layer in one.layers.items()}
    shared = store.open_lazy(url)
    check_version(shared.attrs, url)
    root = (store.marker(url, "created") or {"fingerprint": None})["fingerprint"]
    for path, layer in layers.items():
        if layer["root_sha256"] != root:
            raise DissectError(
                f"{url}: {path} was dissected with another probe or by other parameters than the store says. "
                "Was it copied here from another store? Delete it, or dissect it again."
            )
    joined = _joined(url, snapshots, shared)
    joined["iou"] = iou(joined)
    if "label_source" in joined.coords:
        joined = joined.assign_coords(label_iou=label_iou(joined))
    wanted = shared.attrs["anchoring"]
    other = {path: layer for path, layer in sorted(layers.items()) if layer["anchoring_used"] != wanted}
    joined.attrs = {key: shared.attrs[key] for key in SAME} | {
        "anchoring_fallbacks": json.dumps({path: layer["anchoring_used"] for path, layer in other.items()}),
        "anchoring_reasons": json.dumps({_shown(path): layer["anchoring_reason"] for path, layer in other.items()}),
    }
    derived = {name: layer["derived"] for one in snapshots for name, layer in one.layers.items() if "derived" in layer}
    if derived:  # the matrix may be another one in each snapshot, the basis is the same
        kept = {name: {key: one[key] for key in ("layer", "basis")} for name, one in derived.items()}
        joined.attrs["derived"] = json.dumps(kept)
    return _ordered(joined)


def few_in_memory(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset with its counts in memory, read once, where they take at most `BLOCK` bytes; else as it is. Computes.

    For what asks several questions: to plan a task for each block of a small dissection, question by question, takes
    ten times as long as the answers. The derived `iou` stays lazy.
    """
    counts = ds.drop_vars("iou", errors="ignore")
    return ds if counts.nbytes > BLOCK else ds.assign(counts.compute().data_vars)


def _shown(path: str) -> str:
    """The path of a layer with the name that it has in the model."""
    return f"{path.partition('/')[0]}/{layer_of(path)}"


def _snapshot(url: str, name: str) -> _Snapshot:
    """One snapshot: from its own marker where it is finished, else from those of its layers."""
    if (done := store.marker(url, f"{name}/done")) is not None:
        note = done["note"]
        return _Snapshot(name, note["step"], from_json(note["metrics"]), note["layers"])
    keys = [key for key in store.markers(url, name) if key.count("/") == 2]
    finished = {layer_of(key): store.marker(url, key) for key in keys if key.endswith("/done")}
    layers = {layer: marker["note"] for layer, marker in finished.items() if marker is not None}
    created = store.marker(url, f"{name}/created")
    begun = set(created["note"]["layers"]) if created is not None else set()
    attrs: Mapping[str, Any] = store.read_attrs(url, name) if layers else {"step": 0, "metrics": {}}
    return _Snapshot(name, attrs["step"], from_json(attrs["metrics"]), layers, sorted(begun - set(layers)))


def _ordered(ds: xr.Dataset) -> xr.Dataset:
    """`ds` with its variables in the order of the schema, and others after them: a store lists them in any order."""
    coords, found = (
        sorted(names, key=lambda name, known=list(known): known.index(name) if name in known else len(known))
        for names, known in ((ds.coords, COORDINATES), (ds.data_vars, DISSECTION))
    )
    return ds.drop_vars(coords)[found].assign_coords({name: ds.coords[name].variable for name in coords})


@dataclass(frozen=True)
class _Units:
    """The units of one block along `unit`: some of one layer."""

    layer: str
    first: int
    stop: int


@dataclass(frozen=True)
class _Counts:
    """The blocks of one variable: called with a block's index, it reads some units of one layer of one snapshot."""

    url: str
    variable: str
    snapshots: tuple[str, ...]
    units: tuple[_Units, ...]
    fractions: int
    rest: tuple[int, ...]
    """lengths of the blocks along `concept` or `domain`; empty for a variable without either"""
    lacking: Mapping[tuple[str, str], int]
    """(snapshot, layer) -> how many of the layer's units the snapshot has, where it has not all"""
    dtype: np.dtype[Any]

    def __call__(self, index: tuple[int, ...]) -> NDArray[Any]:
        """Values (snapshot, fraction, unit, ...) of one block; NaN where the snapshot lacks the units."""
        snapshot, units = self.snapshots[index[0]], self.units[index[2]]
        stop = min(units.stop, self.lacking.get((snapshot, units.layer), units.stop))
        last = (self.rest[index[3]],) if self.rest else ()
        values = np.full(
            (1, self.fractions, units.stop - units.first, *last), np.nan if self.lacking else 0, self.dtype
        )
        if stop > units.first:
            array = store.read(self.url, f"{layer_path(snapshot, units.layer)}/{self.variable}")
            key = slice(None), slice(units.first, stop), *([_part(self.rest, index[3])] if self.rest else [])
            values[0, :, : stop - units.first] = array[key]
        return values


def _part(lengths: Sequence[int], n: int) -> slice:
    """The n-th of blocks of these lengths; all but the last are equal."""
    return slice(n * lengths[0], n * lengths[0] + lengths[n])


def _joined(url: str, snapshots: Sequence[_Snapshot], shared: xr.Dataset) -> xr.Dataset:
    """All snapshots and layers as one Dataset, without what is derived."""
    sizes = _layers(snapshots)
    unit_blocks = tuple(block for name, size in sizes.items() for block in _unit_blocks(name, size, snapshots, shared))
    lacking = {
        (one.name, layer): int(one.layers[layer]["units"]) if layer in one.layers else 0
        for one in snapshots
        for layer, size in sizes.items()
        if layer not in one.layers or one.layers[layer]["units"] < size
    }
    concept = next(iter(snapshots[0].layers.values()))["chunks"][1]
    lengths = {
        "snapshot": (1,) * len(snapshots),
        "fraction": (shared.sizes["fraction"],),
        "unit": tuple(block.stop - block.first for block in unit_blocks),
        "concept": _lengths(shared.sizes["concept"], concept),
        "domain": (shared.sizes["domain"],),
    }
    variables = {}
    for name in PER_UNIT:
        variable = DISSECTION[name]
        dims = ("snapshot", *variable.dims)
        dtype = np.dtype(variable.dtype)
        if lacking:  # a float that can say that something is missing
            dtype = np.dtype(np.float32 if dtype == np.bool_ else np.result_type(dtype, np.float32))
        counts = _Counts(
            url,
            name,
            tuple(one.name for one in snapshots),
            unit_blocks,
            shared.sizes["fraction"],
            lengths[dims[3]] if len(dims) > 3 else (),
            lacking,
            dtype,
        )
        # What is opened again gets another name: another store may lie there by then, of which a cluster must not give
        # what it kept of the first.
        data = array_of_blocks(counts, [lengths[dim] for dim in dims], dtype, f"{name}-{uuid4().hex}")
        variables[name] = xr.Variable(dims, data, variable.attrs)
    joined = xr.Dataset(variables, _coordinates(snapshots, sizes)).assign_coords(shared.coords).assign(shared.data_vars)
    if lacking:
        complete = [[layer in one.layers for layer in sizes] for one in snapshots]
        joined["complete"] = xr.DataArray(complete, dims=("snapshot", "layer_name"), coords={"layer_name": [*sizes]})
    return joined


def _layers(snapshots: Sequence[_Snapshot]) -> dict[str, int]:
    """Layer -> its units, in the order of the model: that of the snapshot with most units, then what others have."""
    sizes: dict[str, int] = {}
    for one in sorted(snapshots, key=lambda one: -sum(layer["units"] for layer in one.layers.values())):
        for name, layer in sorted(one.layers.items(), key=lambda item: (item[1]["position"], item[0])):
            sizes[name] = max(sizes.get(name, 0), int(layer["units"]))
    return sizes


def _unit_blocks(name: str, size: int, snapshots: Sequence[_Snapshot], shared: xr.Dataset) -> list[_Units]:
    """The lazy blocks of a layer: whole chunks of counts, several where they are small."""
    units, concepts = next(one.layers[name]["chunks"] for one in snapshots if name in one.layers)
    length = units * max(1, BLOCK // (units * concepts * shared.sizes["fraction"] * np.dtype(np.int64).itemsize))
    return [_Units(name, first, min(first + length, size)) for first in range(0, size, length)]


def _lengths(total: int, length: int) -> tuple[int, ...]:
    return tuple(min(length, total - first) for first in range(0, total, length))


def _coordinates(snapshots: Sequence[_Snapshot], sizes: Mapping[str, int]) -> dict[str, Any]:
    layer = np.repeat(np.array([*sizes]), [*sizes.values()])
    channel = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes.values()])
    names = dict.fromkeys(metric for one in snapshots for metric in one.metrics)
    metrics = {
        name: ("snapshot", np.array([one.metrics.get(name, np.nan) for one in snapshots], np.float64)) for name in names
    }
    return {
        "snapshot": np.array([one.name for one in snapshots]),
        "step": ("snapshot", np.array([one.step for one in snapshots], np.int64)),
        "unit": np.array([f"{name}/{n}" for name, size in sizes.items() for n in range(size)]),
        "layer": ("unit", layer),
        "channel": ("unit", channel),
        **metrics,
    }
