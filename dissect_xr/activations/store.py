"""`activations.zarr`: the arrays of a layer, and how activations computed elsewhere are written into them.

Knows: shards and chunks of a layer, `peak` and `mean`, which values are refused as activations.
Does not know: models or torch. `record` writes the activations of a model into the same arrays.
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
"""Largest number of units in a chunk."""

CHUNK = 2 * 2**20
"""Largest size of a chunk in raw bytes."""

SHARD = 128 * 2**20
"""Largest size of a shard in raw bytes."""

DTYPES = ("float16", "float32")
"""The dtypes that activations may be stored as."""


@dataclass(frozen=True)
class LayerShape:
    """The shape of one layer's maps, and the chunks and shards they are stored in."""

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
        """Images of a shard: a power of two that divides the image block."""
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
    """The name, step and metrics of a snapshot."""

    name: str
    step: int = 0
    metrics: Mapping[str, float] | None = None
    """accuracy, loss, ...; they become coordinates of the results"""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith((".", "__")):
            raise DissectError(
                f"snapshot '{self.name}': a name must not be empty, contain '/', or start with '.' or '__'. Rename it."
            )
        if not -(2**63) <= self.step < 2**63:
            raise DissectError(f"snapshot '{self.name}': step {self.step} does not fit 64 bits. Use a smaller number.")
        if taken := sorted(RESULT.intersection(self.metrics or ())):
            raise DissectError(
                f"snapshot '{self.name}': the results already have a variable '{taken[0]}'. Rename the metric."
            )


def create_layer(
    url: str,
    layer: LayerShape,
    snapshot: SnapshotInfo,
    images: Sequence[str],
    attrs: Mapping[str, Any],
    *,
    keep: bool = False,
) -> store.Written:
    """Create the group of one layer with its coordinates, and return the objects written.

    `attrs` must hold `position` (the index of the layer) and may hold `images_sha256`, `input_size` and `geometry`.
    With `keep` the blocks that exist are kept.
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
    """Write activations computed elsewhere (JAX, TensorFlow, saved .npy), so that they can be dissected.

    Parameters
    ----------
    layers
        Layer name -> array (image, unit, y, x), or an iterator of such arrays that together hold all images, each of
        any length. With an iterator the memory needed is one shard of a layer.
    images
        Names of the images, as in the probe of the dissection and in the same order.
    snapshot
        Name of the snapshot, or its name, step and metrics.
    dtype
        Stored dtype, float16 or float32.
    attrs
        Per layer, `input_size` [height, width] and `geometry` for receptive_field anchoring.
    show
        Whether to draw a progress bar for each layer.

    Raises
    ------
    DissectError
        If a value is NaN, infinite or too large for the dtype, maps have not 4 dims, or the number of images differs.
    """
    if dtype not in DTYPES:
        raise DissectError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}.")
    info = SnapshotInfo(snapshot) if isinstance(snapshot, str) else snapshot
    if wrong := [name for name in layers if not name or "/" in name or name.startswith((".", "__"))]:
        raise DissectError(
            f"layer '{wrong[0]}': a name must not be empty, contain '/', or start with '.' or '__'. Rename it."
        )
    if len(set(images)) < len(images):
        raise DissectError(
            f"images: expected distinct names, but {len(images) - len(set(images))} are repeated. Rename them."
        )
    if not store.exists(url):
        store.create(url, "", [], {"schema_version": SCHEMA_VERSION})
    for position, (name, values) in enumerate(layers.items()):
        if store.marker(url, f"{info.name}/{name}/done") is not None:
            raise DissectError(
                f"{url}: holds {info.name}/{name} already. Choose another snapshot name, or delete the store."
            )
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
        raise DissectError(f"layer {name}: expected activations of {len(images)} images, got none.")
    if 0 in first.shape[1:]:
        raise DissectError(f"layer {name}: expected maps of at least one unit and one cell, got {first.shape}.")
    shape = LayerShape(name, (len(images), *first.shape[1:]), dtype, block=_power_of_two(2 * len(images) - 1, 1024))
    objects = create_layer(url, shape, snapshot, images, attrs)
    parts: dict[str, list[NDArray[Any]]] = {"peak": [], "mean": []}
    path, start = f"{snapshot.name}/{name}", 0
    inputs = {"layer": name, "shape": list(shape.shape), "dtype": dtype, "images": list(images), "attrs": dict(attrs)}
    content = store.fingerprint(inputs)
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
    """The same images in blocks of `length`; the last block may be shorter."""
    held, count = [first], len(first)
    while True:
        while count < length and (block := next(rest, None)) is not None:
            if block.shape[1:] != first.shape[1:]:
                raise DissectError(
                    f"layer {name}: expected maps of {first.shape[1:]} as in the first block, got {block.shape[1:]}."
                )
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
        raise DissectError(
            f"{url}: expected a store of activations, found none. Run `dissect-xr extract RECIPE` first."
        )
    keys = [key for key in store.markers(url) if key.endswith("/done")]
    paths = ["/".join(key.split("/")[:2]) for key in keys]
    return xr.DataTree.from_dict({path: _open_layer(url, path) for path in paths})


def _open_layer(url: str, path: str) -> xr.Dataset:
    array = store.read(url, f"{path}/activation")
    # One Dask chunk per shard: one per stored chunk would make millions of tasks.
    return store.open_lazy(url, path, chunks={"image": (array.shards or array.chunks)[0], "unit": -1})
