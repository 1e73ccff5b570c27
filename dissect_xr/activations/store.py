"""`activations.zarr`: how it is laid out, and how it is opened.

Knows: what stands at the root, in a snapshot and in a layer; shards and chunks; what is refused as an activation.
Does not know: models or torch: `extract` and `record` fill this layout from a model, `write` from arrays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations.layouts.layout import PLAIN, Layout
from dissect_xr.activations.request import Keep, SnapshotInfo
from dissect_xr.errors import DissectError
from dissect_xr.schema import ACTIVATIONS, SCHEMA_VERSION, TAIL, layer_of, layer_path, to_json
from dissect_xr.tail.arrays import TAILS, TailShape, units_of_chunk
from dissect_xr.tail.stored import StoredTail, TailPlace, current_tail
from dissect_xr.tail.view import tail_variable

UNIT_CHUNK = 64
"""Largest number of units in a chunk."""

CHUNK = 2 * 2**20
"""Largest size of a chunk in raw bytes."""

SHARD = 128 * 2**20
"""Largest size of a shard in raw bytes."""


TAKEN = ("peak", "mean", TAILS, "zarr.json")
"""Names that no layer can have: those of what lies beside the layers of a snapshot."""

LONGEST_NAME = 240
"""Bytes of a layer's name in paths at most; file systems allow 255, and files being written have longer names."""

ROOT_OBJECTS = 4
"""Objects at the root: its metadata, the names of the images with theirs, a marker."""


@dataclass(frozen=True)
class LayerShape:
    """The shape of one layer's maps, and the chunks and shards they are stored in."""

    name: str
    shape: tuple[int, int, int, int]
    """(image, unit, y, x)"""
    dtype: str
    block: int
    """images of one task"""
    columns: tuple[int, int] | None = None
    """its units among those of all layers of the snapshot; None where it stands alone"""
    layout: Layout = PLAIN
    """what the axes of the model's own tensor are; what is stored is (image, unit, y, x) in any case"""
    kept: Keep = "dense"
    """whether all cells are stored, or the tail, or both"""

    @property
    def has_cells(self) -> bool:
        """Whether all cells are stored."""
        return self.kept != "tail"

    @property
    def has_tail(self) -> bool:
        """Whether the tail is stored."""
        return self.kept != "dense"

    @property
    def image_bytes(self) -> int:
        """Raw bytes of one image's maps."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def shard_images(self) -> int:
        """Images of a shard: a power of two that divides the image block."""
        return power_of_two(SHARD // self.image_bytes, self.block)

    def tail(self, number: int, fraction: float) -> dict[str, Any]:
        """What the group of a layer says of its tail.

        Parameters
        ----------
        number
            Of the layer, among those recorded with it.
        fraction
            The largest that its bounds were chosen for.
        """
        return {
            "number": number,
            "fraction": fraction,
            "block": self.block,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "chunk": list(self.spec.chunks[:2]),
            "beside": self.has_cells,
        }

    @property
    def spec(self) -> store.ArraySpec:
        """The array of its maps."""
        units, variable = self.shape[1], ACTIVATIONS["activation"]
        wide = min(units, UNIT_CHUNK)
        whole = -(-units // wide) * wide
        deep = power_of_two(CHUNK * units // (wide * self.image_bytes), self.shard_images)
        chunks, shards = (deep, wide, *self.shape[2:]), (self.shard_images, whole, *self.shape[2:])
        # A shard of one chunk would be an index beside it, and twice the calls to read or write it.
        sharded = shards if shards != chunks else None
        return store.ArraySpec("activation", variable.dims, self.shape, self.dtype, chunks, sharded, variable.attrs)


def tail_shape(layers: Sequence[LayerShape]) -> TailShape:
    """The arrays of the tails of layers that are recorded together."""
    cells = [layer.shape[2] * layer.shape[3] if layer.has_tail else 0 for layer in layers]
    units = [layer.shape[1] for layer in layers]
    first = layers[0]
    return TailShape(first.shape[0], first.block, first.dtype, tuple(zip(units, cells, strict=True)))


def power_of_two(wanted: int, most: int) -> int:
    """The largest power of two that is at most `wanted` and at most `most`, and at least 1."""
    return int(2 ** (max(1, min(wanted, most)).bit_length() - 1))


def in_one_snapshot(layers: Iterable[LayerShape]) -> tuple[LayerShape, ...]:
    """The layers of a snapshot that are recorded together, each with its `columns`."""
    placed, first = [], 0
    for layer in layers:
        placed.append(replace(layer, columns=(first, first + layer.shape[1])))
        first += layer.shape[1]
    return tuple(placed)


def summary_specs(images: int, units: int, block: int, dtype: str, dim: str = "unit") -> list[store.ArraySpec]:
    """The arrays `peak` and `mean` of so many units: an image block is one object each, however many layers it is of.

    Chunks of a shard hold some of the units, so that those of one layer are read without most of the others.
    """
    deep, found = min(block, images), []
    for name, kind in (("peak", dtype), ("mean", "float32")):
        wide = units_of_chunk(units, deep, kind)
        shard = (deep, -(-units // wide) * wide) if units > wide else None
        attrs = ACTIVATIONS[name].attrs
        found.append(store.ArraySpec(name, ("image", dim), (images, units), kind, (deep, wide), shard, attrs=attrs))
    return found


def create_root(url: str, images: Sequence[str]) -> None:
    """Create the store with the names of the images, which all its layers share, unless it is there.

    Raises
    ------
    DissectError
        Where the store is of other images, or `url` holds something else.
    """
    names = store.fingerprint({"images": list(images)})
    if (created := store.marker(url, "created")) is not None:
        if created["fingerprint"] != names:
            raise DissectError(
                f"{url}: holds activations of other images, or in another order, than the {len(images)} given. "
                "Use another path."
            )
        return
    if store.exists(url) and "names_sha256" not in store.read_attrs(url):
        raise DissectError(f"{url}: holds something that this package did not make. Use another path.")
    attrs = {"schema_version": SCHEMA_VERSION, "names_sha256": names}
    lay_out = store.lay_out if store.exists(url) or store.markers(url) else store.create
    written = lay_out(url, "", [], attrs, [store.coordinate("image", "image", list(images))])
    store.mark(url, "created", fingerprint=names, written=written)


def create_layer(
    url: str,
    layer: LayerShape,
    snapshot: SnapshotInfo,
    attrs: Mapping[str, Any],
    *,
    keep: bool = False,
    bound: NDArray[np.float32] | None = None,
) -> store.Written:
    """Create the group of one layer, and return the objects written.

    `bound` (unit,) is that of the tail of a layer that stands alone.

    `attrs` may hold `images_sha256`, `input_size` and `geometry`. With `keep` the blocks that exist are kept.
    """
    units = layer.shape[1]
    path = layer_path(snapshot.name, layer.name)
    if layer.columns is None and path != f"{snapshot.name}/{layer.name}":
        raise DissectError(f"layer {layer.name!r}: expected a name without '%', backslashes and control characters.")
    unit = store.coordinate("unit", "unit", [f"{layer.name}/{channel}" for channel in range(units)])
    columns = None if layer.columns is None else list(layer.columns)
    stored = {"schema_version": SCHEMA_VERSION, "layout": "image, unit, y, x", "columns": columns}
    arrays = [layer.spec] if layer.has_cells else []
    if layer.columns is None:
        arrays += summary_specs(layer.shape[0], units, layer.block, layer.dtype)
    coordinates = [unit]
    if bound is not None:
        tail = tail_shape([layer])
        arrays += tail.specs("unit")
        coordinates.append(tail.bound(bound, "unit"))
    write = store.lay_out if keep else store.create
    return write(url, path, arrays, stored | dict(attrs), coordinates)


def check_layer_names(names: Iterable[str]) -> None:
    """Raise if a layer's name is one that the snapshot's own arrays have, or is too long for a folder.

    Raises
    ------
    DissectError
        Naming the layer.
    """
    for name in names:
        if name in TAKEN:
            raise DissectError(
                f"layer {name}: the store has a {name} of all layers at this place. Name the other layers in `layers`, "
                "or rename the module."
            )
        if len(layer_path("", name).encode()) > LONGEST_NAME:
            raise DissectError(
                f"layer {name[:60]}...: its name has {len(name)} characters, too many for the name of a folder. Name "
                "the other layers in `layers`, or rename the module."
            )


def snapshot_attrs(snapshot: SnapshotInfo) -> dict[str, Any]:
    """What is stored with a snapshot, however its activations were made."""
    return {"schema_version": SCHEMA_VERSION, "step": snapshot.step, "metrics": to_json(snapshot.metrics or {})}


def check_finite(values: NDArray[Any], layer: str, images: Sequence[str], dtype: str) -> None:
    """Raise if `values` (image, ...), as stored, contain NaN or infinity.

    Raises
    ------
    DissectError
        Naming the layer, the image and the value.
    """
    finite = np.isfinite(values.reshape(len(values), -1))
    if finite.all():
        return
    image, cell = np.argwhere(~finite)[0]
    value = values.reshape(len(values), -1)[image, cell]
    mend = "store float32 (dtype: float32)" if np.isinf(value) and dtype == "float16" else "mend the model or the input"
    raise DissectError(
        f"layer {layer}, image {images[image]}: activation {value} as {dtype}, expected a finite number: {mend}."
    )


def open_activations(url: store.Url) -> xr.DataTree:
    """All complete layers as a lazy tree `/<snapshot>/<layer>` of Datasets (`schema.ACTIVATIONS`).

    The names of the images stand once, at the root, and are inherited. Derived layers are left out, as their maps are
    not stored. A layer of which the tail is stored has `tail_maps` in place of `activation`, with the unit's `bound` in
    all cells that are not stored.
    """
    url = store.as_url(url)
    if not store.exists(url):
        raise DissectError(f"{url}: expected a store of activations, found none.")
    keys = store.markers(url)
    groups: dict[str, xr.Dataset] = {"/": store.open_lazy(url)}
    for snapshot in sorted({key.split("/")[0] for key in keys if key.endswith("/done")}):
        whole = store.marker(url, f"{snapshot}/done") if f"{snapshot}/done" in keys else None
        alone = sorted(key for key in keys if key.startswith(f"{snapshot}/") and key.endswith("/done"))
        names = whole["note"]["layers"] if whole is not None else [layer_of(key) for key in _recorded(url, alone)]
        shared = store.open_lazy(url, snapshot)
        groups[snapshot] = xr.Dataset(attrs=shared.attrs)
        groups |= {path: _open_layer(url, path, shared) for path in (layer_path(snapshot, name) for name in names)}
    return xr.DataTree.from_dict(groups)


def _recorded(url: str, keys: Iterable[str]) -> Iterator[str]:
    """Those markers of layers that are not of derived ones."""
    for key in keys:
        if "source" not in (store.marker(url, key) or {"note": {"source"}})["note"]:
            yield key


def _open_tail(place: TailPlace, path: str, stored: Mapping[str, Any]) -> xr.Dataset:
    """A layer of which the tail is stored: its maps as far as they are, under the name `tail_maps`, and its bounds."""
    found = store.open_lazy(place.url, path)
    found = found.drop_vars([name for name in TAIL if name in found])
    maps = tail_variable(place, tuple(stored["shape"]), stored["dtype"], place.block)
    bound = xr.Variable("unit", StoredTail(place).bound, TAIL["bound"].attrs)
    return found.assign(tail_maps=maps, bound=bound)


def _open_layer(url: str, path: str, shared: xr.Dataset) -> xr.Dataset:
    """One layer; `shared` holds `peak` and `mean` of all layers that were recorded together."""
    attrs = store.read_attrs(url, path)
    place, _ = current_tail(url, path, attrs)
    if place is not None and not place.beside:
        found = _open_tail(place, path, attrs["tail"])
    else:
        array = store.read(url, f"{path}/activation")
        # One Dask chunk per shard: an inner chunk each would make millions of tasks.
        found = store.open_lazy(url, path, chunks={"image": (array.shards or array.chunks)[0], "unit": -1})
        found = found.drop_vars([name for name in TAIL if name in found])
    channels = np.arange(found.sizes["unit"])
    found = found.assign_coords(layer=("unit", np.full(channels.size, layer_of(path))), channel=("unit", channels))
    if (columns := found.attrs["columns"]) is None:
        return found
    summaries = shared[["peak", "mean"]].isel(all_units=slice(*columns)).rename(all_units="unit")
    return found.assign(summaries.drop_vars("image", errors="ignore").data_vars)
