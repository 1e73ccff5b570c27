"""`activations.zarr`: how a layer is laid out, and activations made elsewhere written into it.

Knows: shards and chunks of a layer, `peak` and `mean`, what is refused as an activation.
Does not know: models or torch; `extract` fills the same layout from a model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.floats import means
from dissect_xr.parallel.progress import Bar, track
from dissect_xr.schema import ACTIVATIONS, RESULT, SCHEMA_VERSION

UNIT_CHUNK = 64
"""Units of an inner chunk."""

CHUNK = 2 * 2**20
"""Raw bytes of an inner chunk at most."""

SHARD = 128 * 2**20
"""Raw bytes of a shard at most."""

DTYPES = ("float16", "float32")
"""What activations may be stored as."""


@dataclass(frozen=True)
class LayerShape:
    """One layer's maps and how they are cut."""

    name: str
    shape: tuple[int, int, int, int]
    """(image, unit, y, x)"""
    dtype: str
    block: int
    """images of one task"""

    @property
    def image_bytes(self) -> int:
        """Raw bytes of one image's maps."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.dtype).itemsize

    @property
    def shard_images(self) -> int:
        """Images of a shard: a power-of-two divisor of the block."""
        return _power_of_two(SHARD // self.image_bytes, self.block)

    def specs(self) -> list[store.ArraySpec]:
        """The arrays of the layer."""
        images, units = self.shape[:2]
        wide = min(units, UNIT_CHUNK)
        whole = -(-units // wide) * wide
        deep = _power_of_two(CHUNK * units // (wide * self.image_bytes), self.shard_images)
        chunks, shards = (deep, wide, *self.shape[2:]), (self.shard_images, whole, *self.shape[2:])
        flat = (min(self.block, images), units)
        dtypes = {"activation": self.dtype, "peak": self.dtype, "mean": "float32"}
        return [
            store.ArraySpec(
                name,
                variable.dims,
                self.shape if name == "activation" else self.shape[:2],
                dtypes[name],
                chunks if name == "activation" else flat,
                shards if name == "activation" else None,
                variable.attrs,
            )
            for name, variable in ACTIVATIONS.items()
        ]


def _power_of_two(wanted: int, most: int) -> int:
    """The largest power of two that is at most `wanted` and at most `most`, and at least 1."""
    return int(2 ** (max(1, min(wanted, most)).bit_length() - 1))


@dataclass(frozen=True)
class SnapshotInfo:
    """What is recorded of a snapshot."""

    name: str
    step: int = 0
    metrics: Mapping[str, float] | None = None
    """accuracy, loss, ...; they become coordinates of the results"""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith((".", "__")):
            raise DissectError(
                f"snapshot '{self.name}': a name must not be empty, hold '/', or start with '.' or '__'."
            )
        if not -(2**63) <= self.step < 2**63:
            raise DissectError(f"snapshot '{self.name}': step {self.step} does not fit 64 bits.")
        if taken := sorted(RESULT.intersection(self.metrics or ())):
            raise DissectError(f"snapshot '{self.name}': the results have a '{taken[0]}' already; rename the metric.")


def create_layer(
    url: str,
    layer: LayerShape,
    snapshot: SnapshotInfo,
    images: Sequence[str],
    attrs: Mapping[str, Any],
    *,
    keep: bool = False,
) -> store.Written:
    """Create the group of one layer with its coordinates; returns the objects written. `keep` leaves its blocks there.

    `attrs` must hold `position` (order of the layer) and may hold `images_sha256`, `input_size`, `geometry`.
    """
    path, units = f"{snapshot.name}/{layer.name}", layer.shape[1]
    coordinates = [
        store.coordinate("image", "image", list(images)),
        store.coordinate("unit", "unit", [f"{layer.name}/{channel}" for channel in range(units)]),
        store.coordinate("layer", "unit", [layer.name] * units),
        store.coordinate("channel", "unit", np.arange(units)),
    ]
    stored = {
        "schema_version": SCHEMA_VERSION,
        "layout": "image, unit, y, x",
        "step": snapshot.step,
        "metrics": dict(snapshot.metrics or {}),
        "coordinates": "layer channel",
    }
    write = store.lay_out if keep else store.create
    return write(url, path, layer.specs(), stored | dict(attrs), coordinates)


def check_finite(values: NDArray[Any], layer: str, images: Sequence[str], dtype: str) -> None:
    """Raise where `values` (image, ...), as stored, hold NaN or infinity.

    Raises
    ------
    DissectError
        Naming layer, image and value.
    """
    finite = np.isfinite(values.reshape(len(values), -1))
    if finite.all():
        return
    row, column = np.argwhere(~finite)[0]
    value = values.reshape(len(values), -1)[row, column]
    mend = "store float32 (dtype: float32)" if np.isinf(value) and dtype == "float16" else "mend the model or the input"
    raise DissectError(
        f"layer {layer}, image {images[row]}: activation {value} as {dtype}, expected a finite number: {mend}."
    )


def summarise(block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """`peak` in the block's dtype and `mean` in float32 of (image, unit, y, x) values as stored, both (image, unit)."""
    flat = block.reshape(*block.shape[:2], -1)
    return flat.max(axis=2), means(block)


def write_activations(
    url: str,
    layers: Mapping[str, NDArray[Any] | Iterable[NDArray[Any]]],
    *,
    images: Sequence[str],
    snapshot: SnapshotInfo | str = "snapshot",
    dtype: str = "float16",
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
    show: bool = True,
) -> None:
    """Write activations made elsewhere (JAX, TensorFlow, saved .npy), so that they can be dissected.

    Parameters
    ----------
    layers
        Layer name -> array (image, unit, y, x), or an iterator of blocks of images of it, of any length. Memory: one
        shard of a layer where blocks come from an iterator.
    images
        Names as in the probe they will be dissected with, in its order.
    snapshot
        Name, or name with step and metrics.
    dtype
        float16 or float32, as stored.
    attrs
        Per layer, `input_size` [height, width] and `geometry` for receptive_field anchoring.
    show
        Whether to draw a progress bar for each layer.

    Raises
    ------
    DissectError
        For NaN, infinity or overflow, maps that are not 4-d, or a number of images that does not match.
    """
    if dtype not in DTYPES:
        raise DissectError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}.")
    info = SnapshotInfo(snapshot) if isinstance(snapshot, str) else snapshot
    if wrong := [name for name in layers if not name or "/" in name or name.startswith((".", "__"))]:
        raise DissectError(f"layer '{wrong[0]}': a name must not be empty, hold '/', or start with '.' or '__'.")
    if len(set(images)) < len(images):
        raise DissectError(f"images: expected distinct names, got {len(images) - len(set(images))} more than once.")
    if not store.exists(url):
        store.create(url, "", [], {"schema_version": SCHEMA_VERSION})
    for position, (name, values) in enumerate(layers.items()):
        if store.marker(url, f"{info.name}/{name}/done") is not None:
            raise DissectError(f"{url}: holds {info.name}/{name} already. Choose another snapshot name, or remove it.")
        extra = {"position": position, "images_sha256": None} | dict((attrs or {}).get(name, {}))
        with track(f"activations {name}", show=show) as bar:
            _write_layer(url, name, _blocks(name, values), images, info, dtype, extra, bar)


def _write_layer(
    url: str,
    name: str,
    blocks: Iterator[NDArray[Any]],
    images: Sequence[str],
    snapshot: SnapshotInfo,
    dtype: str,
    attrs: Mapping[str, Any],
    bar: Bar,
) -> None:
    first = next(blocks, None)
    if first is None:
        raise DissectError(f"layer {name}: no activations came, expected {len(images)} images.")
    if 0 in first.shape[1:]:
        raise DissectError(f"layer {name}: expected maps of at least one unit and one cell, got {first.shape}.")
    shape = LayerShape(name, (len(images), *first.shape[1:]), dtype, block=_power_of_two(2 * len(images) - 1, 1024))
    objects = create_layer(url, shape, snapshot, images, attrs)
    parts: dict[str, list[NDArray[Any]]] = {"peak": [], "mean": []}
    path, start = f"{snapshot.name}/{name}", 0
    made_of = {"layer": name, "shape": list(shape.shape), "dtype": dtype, "images": list(images), "attrs": dict(attrs)}
    content = store.fingerprint(made_of)
    writer = store.Writer(url)
    bar.expect(-(-len(images) // shape.shard_images))
    for block in _rebatched(name, first, blocks, shape.shard_images):
        if block.shape[1:] != first.shape[1:] or start + len(block) > len(images):
            raise DissectError(
                f"layer {name}: expected {len(images)} maps of {first.shape[1:]}, got {start + len(block)} or more, "
                f"the last of {block.shape[1:]}."
            )
        if len(block) < shape.shard_images and start + len(block) != len(images):
            raise DissectError(f"layer {name}: expected {len(images)} images, got {start + len(block)}.")
        with np.errstate(over="ignore"):
            stored = block.astype(dtype)
        check_finite(stored, name, images[start:], dtype)
        writer.write(f"{path}/activation", (start, 0, 0, 0), stored)
        for key, value in zip(parts, summarise(stored), strict=True):
            parts[key].append(value)
        start += len(block)
        bar.advance(len(block))
    if start != len(images):
        raise DissectError(f"layer {name}: expected {len(images)} images, got {start}.")
    for key, values in parts.items():
        whole, step = np.concatenate(values), min(shape.block, len(images))
        for i in range(0, len(whole), step):
            writer.write(f"{path}/{key}", (i, 0), whole[i : i + step])
    content = store.fingerprint({"content": content, "objects": sorted(map(list, writer.written.items()))})
    store.mark(url, f"{path}/done", fingerprint=content, written=objects | writer.written)


def _blocks(name: str, values: NDArray[Any] | Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for block in [values] if isinstance(values, np.ndarray) else values:
        array = np.asarray(block)
        if array.ndim != 4 or array.dtype.kind != "f":
            raise DissectError(
                f"layer {name}: expected floating-point maps (image, unit, y, x), got {array.dtype} {array.shape}."
            )
        yield array


def _rebatched(name: str, first: NDArray[Any], rest: Iterator[NDArray[Any]], length: int) -> Iterator[NDArray[Any]]:
    """The same images in blocks of `length`, the last one shorter."""
    held, count = [first], len(first)
    while True:
        while count < length and (block := next(rest, None)) is not None:
            if block.shape[1:] != first.shape[1:]:
                raise DissectError(f"layer {name}: maps of {block.shape[1:]} after maps of {first.shape[1:]}.")
            held.append(block)
            count += len(block)
        joined = np.concatenate(held) if len(held) > 1 else held[0]
        if not len(joined):
            return
        yield joined[:length]
        held, count = [joined[length:]], max(0, count - length)


def open_activations(url: str) -> xr.DataTree:
    """All complete layers as a lazy tree `/<snapshot>/<layer>` of Datasets (`schema.ACTIVATIONS`)."""
    if not store.exists(url):
        raise DissectError(f"{url}: expected a store of activations, found none.")
    keys = [key for key in store.markers(url) if key.endswith("/done")]
    paths = ["/".join(key.split("/")[:2]) for key in keys]
    return xr.DataTree.from_dict({path: _open_layer(url, path) for path in paths})


def _open_layer(url: str, path: str) -> xr.Dataset:
    array = store.read(url, f"{path}/activation")
    # One Dask chunk per shard: an inner chunk each would make millions of tasks.
    return store.open_lazy(url, path, chunks={"image": (array.shards or array.chunks)[0], "unit": -1})
