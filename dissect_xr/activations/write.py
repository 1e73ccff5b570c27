"""Activations made elsewhere, written into `activations.zarr`.

Knows: how blocks of any length become whole shards, and how `peak` and `mean` are taken of them.
Does not know: models or torch; the layout is that of `store`.
"""

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations.arrays import blocks_of, by_name, some_images
from dissect_xr.activations.recording.levels import WrittenLevels
from dissect_xr.activations.request import DTYPES, Keep, SnapshotInfo
from dissect_xr.activations.store import (
    LayerShape,
    check_finite,
    create_layer,
    create_root,
    power_of_two,
    snapshot_attrs,
    tail_shape,
)
from dissect_xr.errors import DissectError
from dissect_xr.floats import means
from dissect_xr.parallel.progress import Bar, track
from dissect_xr.tail.arrays import TailBlocks
from dissect_xr.tail.sampling import MEASURED, SAMPLING, WORTH, Largest, Sampling, share_of


def write_activations(
    url: store.Url,
    layers: Mapping[str, Any],
    *,
    images: Sequence[str | PurePath],
    snapshot: SnapshotInfo | str = "snapshot",
    dtype: str = "float16",
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
    keep: Keep = "dense",
    sampling: Sampling = SAMPLING,
    show: bool = True,
) -> None:
    """Write activations computed elsewhere (JAX, TensorFlow, saved .npy), so that they can be dissected.

    Parameters
    ----------
    layers
        Layer name -> array (image, unit, y, x) of NumPy (also a memory map), xarray (dimensions by name, in any order,
        and images by name, too, where they have a coordinate), Dask, Zarr or torch, or an iterator of such arrays that
        together hold all images, each of any length. Of an array as of an iterator some blocks are in memory at a time,
        of 64 MiB or one chunk each, and one shard.
    images
        Names of the images, or paths, as in the probe of the dissection and in the same order.
    snapshot
        Name of the snapshot, or its name, step and metrics.
    dtype
        Stored dtype, float16 or float32.
    attrs
        Per layer, `input_size` [height, width] and `geometry` for receptive_field anchoring.
    keep
        ``dense`` stores all cells, ``tail`` those that can decide a threshold or a mask (docs/method.md, section 1.10),
        ``both`` the two; of a layer whose tail would be more than half as large only all cells are stored. Bounds are
        taken from some images first, so for tails a layer must be an array, not an iterator.
    sampling
        How the bounds of tails are chosen, and for which fractions.
    show
        Whether to draw a progress bar for each layer.

    Raises
    ------
    DissectError
        If a value is NaN, infinite or too large for the dtype, all values of a layer are too small or too close
        together for it, or masked, maps have not 4 dims, or the number of images differs, or their names do.
    """
    images = _names(images)
    if dtype not in DTYPES:
        raise DissectError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}.")
    url = store.as_url(url)
    info = SnapshotInfo(snapshot) if isinstance(snapshot, str) else snapshot
    for name in layers:
        store.check_name("layer", name)
    if len(set(images)) < len(images):
        raise DissectError(
            f"images: expected distinct names, but {len(images) - len(set(images))} are repeated. Rename them."
        )
    store.drop_if_gone(url)
    create_root(url, images)
    _create_snapshot(url, info)
    for position, (name, values) in enumerate(layers.items()):
        if store.marker(url, f"{info.name}/{name}/done") is not None:
            raise DissectError(
                f"{url}: holds {info.name}/{name} already. Choose another snapshot name, or delete the store's folder."
            )
        extra = dict((attrs or {}).get(name, {}))
        values = by_name(name, values, images)
        with track(f"activations {name}", show=show) as bar:
            bound = None if keep == "dense" else _bound(name, values, len(images), dtype, sampling)
            blocks = blocks_of(name, values)
            kept: Keep = "dense" if bound is None else keep
            _write_layer(url, name, blocks, images, info, dtype, extra, position, bar, kept, bound, sampling.fraction)


def _names(images: Any) -> list[str]:
    """The names of images, which may be given as paths, or as an array of texts."""
    if not isinstance(images, (str, bytes)):
        names = [one.as_posix() if isinstance(one, PurePath) else one for one in np.asarray(images, object).tolist()]
        if all(isinstance(one, str) for one in names):
            return [str(one) for one in names]
    raise DissectError(f"images: expected a list of names, as in the probe, got {reprlib.repr(images)}.")


def _create_snapshot(url: str, snapshot: SnapshotInfo) -> None:
    """Create the snapshot's group, unless it is there."""
    if store.marker(url, f"{snapshot.name}/created") is not None:
        raise DissectError(
            f"{url}: holds the snapshot {snapshot.name} already, extracted from a model. Choose another snapshot name."
        )
    wanted = snapshot_attrs(snapshot)
    if not store.exists(url, snapshot.name):
        store.lay_out(url, snapshot.name, [], wanted)
    elif (stored := store.read_attrs(url, snapshot.name)) != wanted:
        raise DissectError(
            f"{url}: holds the snapshot {snapshot.name} with other attributes already: {stored}, given {wanted}. "
            "Choose another snapshot name."
        )


def _write_layer(
    url: str,
    name: str,
    blocks: Iterator[NDArray[Any]],
    images: Sequence[str],
    snapshot: SnapshotInfo,
    dtype: str,
    attrs: Mapping[str, Any],
    position: int,
    bar: Bar,
    kept: Keep,
    bound: NDArray[np.float32] | None,
    fraction: float,
) -> None:
    first = next(blocks, None)
    if first is None:
        raise DissectError(f"layer {name}: expected activations of {len(images)} images, got none.")
    if 0 in first.shape[1:]:
        raise DissectError(f"layer {name}: expected maps of at least one unit and one cell, got {first.shape}.")
    shape = LayerShape(name, (len(images), *first.shape[1:]), dtype, block=power_of_two(2 * len(images) - 1, 1024))
    shape = replace(shape, kept=kept)
    if shape.has_tail:
        attrs = dict(attrs) | {"tail": shape.tail(0, fraction)}
    written = create_layer(url, shape, snapshot, attrs, bound=bound)
    parts: dict[str, list[NDArray[Any]]] = {"peak": [], "mean": []}
    path, start = f"{snapshot.name}/{name}", 0
    inputs = {
        "layer": name,
        "shape": list(shape.shape),
        "dtype": dtype,
        "images": store.fingerprint({"images": list(images)}),
        "attrs": dict(attrs),
    }
    content = store.fingerprint(inputs)
    writer, levels = store.Writer(url), WrittenLevels(dtype)
    tails = None if bound is None else TailBlocks(writer, path, tail_shape([shape]), bound)
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
        levels.add(block)
        if shape.has_cells:
            writer.write(f"{path}/activation", (start, 0, 0, 0), stored)
        if tails is not None:
            tails.add(stored)
        for key, value in zip(parts, summarise(stored), strict=True):
            parts[key].append(value)
        start += len(block)
        bar.advance(len(block))
    if start != len(images):
        raise DissectError(f"layer {name}: expected {len(images)} images, got {start}.")
    levels.check(name)
    for key, values in parts.items():
        whole, step = np.concatenate(values), min(shape.block, len(images))
        for i in range(0, len(whole), step):
            writer.write(f"{path}/{key}", (i, 0), whole[i : i + step])
    content = store.fingerprint({"content": content, "objects": sorted(map(list, writer.written.items()))})
    note = {"position": position}
    store.mark(url, f"{path}/done", fingerprint=content, written=written | writer.written, note=note)


def _bound(name: str, values: Any, images: int, dtype: str, sampling: Sampling) -> NDArray[np.float32] | None:
    """The bounds of a layer from a sample of its images; None where its tail would not be worth it."""
    with np.errstate(over="ignore"):
        maps = some_images(name, values, sampling.of(images)).astype(dtype)
    check_finite(maps, name, [f"number {n} of those sampled" for n in range(len(maps))], dtype)
    largest = Largest(1 + sampling.index(maps[0, 0].size, images))
    largest.add(maps)
    bound = largest.smallest()
    some = maps[[i * len(maps) // MEASURED for i in range(min(MEASURED, len(maps)))]]
    return bound if share_of(some, bound) <= WORTH else None


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


def summarise(block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """`peak` in the block's dtype and `mean` in float32 of (image, unit, y, x) values as stored, both (image, unit)."""
    flat = block.reshape(*block.shape[:2], -1)
    return flat.max(axis=2), means(block)
