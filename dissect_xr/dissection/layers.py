"""One layer's activations as both passes see them: where they are stored, their shape, and how maps lie on the image.

Knows: how `activations.zarr` is laid out, read through the room `store`; which layer a derived one is derived from.
Does not know: thresholds, labels, which pass reads, or how the maps of a derived layer are computed (`derived`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection import interpolation
from dissect_xr.errors import DissectError
from dissect_xr.schema import check_version, from_json, layer_of, layer_path
from dissect_xr.tail.stored import TailPlace, current_tail

Item = TypeVar("Item")
Result = TypeVar("Result")

TILE = 512
"""Cells of derived maps that are computed together, so that their sums stay in a core's cache."""

DERIVED_UNITS = 64
"""Units of a derived layer in a unit block are a multiple of this, as those of a recorded layer are of its chunk."""


@dataclass(frozen=True)
class Layer:
    """One layer of one snapshot in an activation store."""

    url: str
    snapshot: str
    name: str
    shape: tuple[int, int, int, int]
    """(image, unit, y, x)"""
    dtype: str
    """float16 or float32"""
    chunk: tuple[int, int]
    """images and units in an inner chunk"""
    fingerprint: str
    input_size: tuple[int, int] | None
    """(height, width) of the model's input in pixels"""
    geometry: Any
    """``{"y": {"start": "35/2", "jump": "16"}, "x": ...}``, or the reason why it is not known"""

    images_sha256: str | None = None
    """of the images' names and pixels; None where the activations were made elsewhere"""
    columns: tuple[int, int] | None = None
    """its units' columns in the snapshot's `peak` and `mean`; None where the layer has arrays of its own"""
    tail: TailPlace | None = None
    """where its tail lies, where that is what is read; None where all cells are"""
    beside: TailPlace | None = None
    """where its tail lies besides all cells; None where it does not"""
    too_high: int | None = None
    """units whose bounds were too high: the tail is that of a second extraction, or all cells beside it are read"""
    derivation: "Derivation | None" = None
    """how its maps are computed from those of a recorded layer; None where they are stored"""

    @property
    def path(self) -> str:
        """Its group, of the same name in `activations.zarr` and in `dissection.zarr`."""
        return layer_path(self.snapshot, self.name)

    def by_tail(self, fraction: float) -> "Layer":
        """The layer as it is read for fractions up to this: by the tail beside all cells, where that serves them."""
        serves = self.beside is not None and fraction <= self.beside.fraction
        return replace(self, tail=self.beside) if serves else self

    def by_cells(self, too_high: int) -> "Layer":
        """The same layer read by all its cells, since the bounds of so many units are too high."""
        return replace(self, tail=None, beside=None, too_high=too_high)

    @property
    def cells(self) -> int:
        """Number of cells in a map."""
        return self.shape[2] * self.shape[3]

    @property
    def itemsize(self) -> int:
        """Bytes of a stored value."""
        return np.dtype(self.dtype).itemsize

    @property
    def source_bytes(self) -> int:
        """Bytes of one image that are read besides its own maps: those of the layer that it is derived from."""
        return 0 if self.derivation is None else self.derivation.source.shape[1] * self.cells * self.derivation.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes that deriving a unit takes besides its maps: its row of the matrix, and its sums in a tile."""
        return 0 if self.derivation is None else 4 * (self.derivation.source.shape[1] + TILE)

    def axes(self, anchoring: str, labels: tuple[int, int]) -> tuple[interpolation.Axis, interpolation.Axis]:
        """How the rows and the columns of a label grid of (height, width) pixels sample a map."""
        tables = []
        for n, name in enumerate(("y", "x")):
            cells = self.shape[2 + n]
            if anchoring == "half_pixel":
                tables.append(interpolation.half_pixel(cells, labels[n]))
                continue
            if self.input_size is None:
                raise DissectError(
                    f"{self.path}: receptive_field anchoring needs the model's input size, which is not "
                    "stored. Dissect with anchoring: half_pixel, or extract the activations again."
                )
            start, jump = Fraction(self.geometry[name]["start"]), Fraction(self.geometry[name]["jump"])
            tables.append(interpolation.receptive_field(cells, labels[n], start, jump, self.input_size[n]))
        interpolation.check_exact(tables[0], tables[1], self.path)
        return tables[0], tables[1]

    def anchored(self, wanted: str) -> tuple[str, str | None]:
        """The anchoring that is used, and why where it is not the one wanted."""
        if wanted == "half_pixel" or isinstance(self.geometry, dict):
            return wanted, None
        return "half_pixel", str(self.geometry or "the activations come without geometry")


@dataclass(frozen=True)
class Derivation:
    """How a derived layer comes from a recorded one: a linear map over its units, applied at every cell."""

    source: Layer
    basis: Mapping[str, Any]
    """the parameters of the basis, as they are stored"""
    matrix_sha256: str
    """of the matrix and the bias"""
    relu: bool
    """whether negative values become 0"""

    @property
    def itemsize(self) -> int:
        """Bytes of a stored value of the source."""
        return self.source.itemsize

    @property
    def stored(self) -> dict[str, Any]:
        """What a dissection keeps of it."""
        return {"layer": self.source.name, "basis": dict(self.basis), "matrix_sha256": self.matrix_sha256}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot whose activations are complete, or some of whose layers are."""

    name: str
    step: int
    metrics: Mapping[str, float]
    layers: Mapping[str, str]
    """recorded layer -> fingerprint of its activations, in the order of the model"""
    request_sha256: str | None
    """of what was asked for, where the model was not looked at (`activations.request`)"""
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """derived layer -> the recorded layer that it is derived from, and its fingerprint"""

    @property
    def every_layer(self) -> list[tuple[int, str, str]]:
        """(position, layer, fingerprint); a derived layer has the position of its source, and follows it by name."""
        positions = {layer: n for n, layer in enumerate(self.layers)}
        found = [(positions[layer], layer, fingerprint) for layer, fingerprint in self.layers.items()]
        found += [(positions[source], layer, fingerprint) for layer, (source, fingerprint) in self.derived.items()]
        return sorted(found)


def complete_snapshots(url: str, names: Iterable[str] | None = None) -> list[Snapshot]:
    """The snapshots of a store of activations that have complete layers, ordered by step and name.

    Only those of `names` are looked at, or all of them.
    """
    found = (open_snapshot(url, name) for name in (store.marked_groups(url) if names is None else names))
    return sorted((one for one in found if one.layers), key=lambda snapshot: (snapshot.step, snapshot.name))


def open_snapshot(url: str, name: str) -> Snapshot:
    """The snapshot `name` with its complete layers, which may be none; derived ones only where their source is there.

    Raises
    ------
    DissectError
        Where a layer was derived from other activations than those that are there.
    """
    keys = [key for key in store.markers(url, name) if key.endswith("/done")]
    attrs = store.read_attrs(url, name) if keys else {}
    done = [(key, marker) for key in keys if (marker := store.marker(url, key)) is not None]
    recorded = [row for key, marker in done if "source" not in marker["note"] for row in _recorded(name, key, marker)]
    layers = {layer: fingerprint for _, layer, fingerprint in sorted(recorded)}
    derived = {}
    for key, marker in sorted(done):
        note = marker["note"]
        if "source" not in note or note["source"] not in layers:
            continue
        if note["source_sha256"] != layers[note["source"]]:
            raise DissectError(
                f"{url}: {key.removesuffix('/done')} was derived from other activations of {note['source']} than those "
                "that are there. Delete the snapshot, and make its activations and what is derived from them again."
            )
        derived[layer_of(key)] = note["source"], marker["fingerprint"]
    metrics = from_json(attrs.get("metrics", {}))
    return Snapshot(name, attrs.get("step", 0), metrics, layers, attrs.get("request_sha256"), derived)


def _recorded(snapshot: str, key: str, done: Mapping[str, Any]) -> list[tuple[int, str, str]]:
    """(position, layer, fingerprint) of the layers that a marker `done` is of: all of a snapshot, or one."""
    if key == f"{snapshot}/done":
        names = done["note"]["layers"]
        return [(n, layer, layer_fingerprint(done["fingerprint"], layer)) for n, layer in enumerate(names)]
    return [(done["note"]["position"], layer_of(key), done["fingerprint"])]


def layer_fingerprint(inputs: str, layer: str) -> str:
    """Fingerprint of one layer's activations, from the fingerprint of all that makes a snapshot's."""
    return store.fingerprint({"inputs": inputs, "layer": layer})


def open_layer(url: str, snapshot: str, name: str, *, fingerprint: str | None = None) -> Layer:
    """The layer `name` of `snapshot`; its `fingerprint` is looked up where it is not given.

    Raises
    ------
    DissectError
        Where its activations are not complete, or another version of this package wrote them.
    """
    path = layer_path(snapshot, name)
    if fingerprint is None:
        found = open_snapshot(url, snapshot)
        fingerprint = found.layers.get(name) or found.derived.get(name, ("", None))[1]
    if fingerprint is None:
        raise DissectError(f"{url}: the activations of {path} are not complete. Run the extraction again: it resumes.")
    attrs = store.read_attrs(url, path)
    check_version(attrs, f"{url}, {path}")
    if "source" in attrs:
        return _derived_layer(url, snapshot, name, fingerprint, attrs)
    size, stored = attrs.get("input_size"), attrs.get("tail")
    if stored is None:
        array = store.read(url, f"{path}/activation")
        stored = {"shape": array.shape, "dtype": str(array.dtype), "chunk": array.chunks}
    (tail, lowered), beside = current_tail(url, path, attrs), None
    if tail is not None and tail.beside:
        tail, beside = None, tail
    images, units, height, width = stored["shape"]
    return Layer(
        url=url,
        snapshot=snapshot,
        name=name,
        shape=(images, units, height, width),
        dtype=stored["dtype"],
        chunk=(stored["chunk"][0], stored["chunk"][1]),
        fingerprint=fingerprint,
        input_size=tuple(size) if size else None,
        geometry=attrs.get("geometry") or attrs.get("geometry_reason"),
        images_sha256=attrs.get("images_sha256"),
        columns=tuple(attrs["columns"]) if attrs.get("columns") else None,
        tail=tail,
        beside=beside,
        too_high=len(lowered) or None,
    )


def _derived_layer(url: str, snapshot: str, name: str, fingerprint: str, attrs: Mapping[str, Any]) -> Layer:
    """A derived layer, from the attributes of its group."""
    source = open_layer(url, snapshot, attrs["source"], fingerprint=attrs["source_sha256"])
    units = int(store.read(url, f"{layer_path(snapshot, name)}/bias").shape[0])
    derivation = Derivation(source, attrs["basis"], attrs["matrix_sha256"], attrs["relu"])
    return derived_layer(name, derivation, units=units, dtype=attrs["dtype"], fingerprint=fingerprint)


def derived_layer(name: str, derivation: Derivation, *, units: int, dtype: str, fingerprint: str) -> Layer:
    """The layer of so many units that is derived from another one: its maps lie as those of its source."""
    source = derivation.source
    return replace(
        source,
        name=name,
        shape=(source.shape[0], units, *source.shape[2:]),
        dtype=dtype,
        chunk=(source.chunk[0], min(units, DERIVED_UNITS)),
        fingerprint=fingerprint,
        columns=None,
        beside=None,
        derivation=derivation,
    )


def check_dense(layer: Layer, why: str) -> None:
    """Raise where not all cells of a layer are stored, with `why` they are needed."""
    if layer.tail is not None:
        raise DissectError(
            f"{layer.url}: of {layer.path} only the tail is stored (keep: tail), and {why}. Extract its activations "
            "with keep: dense, in another output directory."
        )


class Peaks:
    """`peak[images, units]` of a layer, which stands in its own group or among those of all layers of the snapshot."""

    def __init__(self, layer: Layer) -> None:
        self._first = 0 if layer.columns is None else layer.columns[0]
        path = layer.path if layer.columns is None else layer.snapshot
        self._array = store.read(layer.url, f"{path}/peak")
        self.chunk = self._array.chunks[0]
        """images of a chunk"""

    def in_order(self, units: tuple[int, int], ahead: store.Ahead | None) -> store.Rows:
        """The peaks of some units, to be read image range after image range."""
        return store.Rows(self._array, slice(self._first + units[0], self._first + units[1]), ahead)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.floating]:
        images, units = key
        return np.asarray(self._array[images, self._first + (units.start or 0) : self._first + units.stop])


def prefetch(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`map`, but the next result is computed on another thread while the caller works on this one."""
    if len(items) < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(function, items[0])
        for item in items[1:]:
            following = executor.submit(function, item)
            yield waiting.result()
            waiting = following
        yield waiting.result()
