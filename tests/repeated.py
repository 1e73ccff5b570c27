"""Stores of many images that are quickly made: one shard of activations, which stands in the store again and again.

Knows: how a layer is laid out and marked as finished.
Does not know: what is tested on it.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import image_names

from dissect_xr import store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.activations.store import LayerShape, create_layer, create_root, snapshot_attrs
from dissect_xr.activations.write import summarise

SNAPSHOT, LAYER = "synthetic", "layer"


def write_repeated(url: str, block: NDArray[np.float16], times: int) -> None:
    """Write activations of `times` as many images as `block` has, which fill a shard, as `write_activations` does.

    The shards are hard links of the first one: those of 10 GiB would take a minute to be packed.
    """
    names, snapshot = image_names(times * len(block)), SnapshotInfo(SNAPSHOT)
    shape = LayerShape(LAYER, (len(names), *block.shape[1:]), str(block.dtype), block=1024)
    assert shape.spec.block[0] == len(block)
    create_root(url, names)
    store.lay_out(url, SNAPSHOT, [], snapshot_attrs(snapshot))
    written, writer, path = create_layer(url, shape, snapshot, {}), store.Writer(url), f"{SNAPSHOT}/{LAYER}"
    writer.write(f"{path}/activation", (0, 0, 0, 0), block)
    ((first, pair),) = writer.written.items()
    for n in range(1, times):
        key = first.replace("/c.0.", f"/c.{n}.")
        os.link(Path(url, first), Path(url, key))
        writer.add({key: pair})
    for name, values in zip(("peak", "mean"), summarise(block), strict=True):
        _write_summary(writer, f"{path}/{name}", values, len(names), shape.block)
    print_ = store.fingerprint({"first": first, "pair": list(pair), "times": times})
    store.mark(url, f"{path}/done", fingerprint=print_, written=written | writer.written, note={"position": 0})


def _write_summary(writer: store.Writer, path: str, values: NDArray[Any], images: int, length: int) -> None:
    for start in range(0, images, length):
        numbers = np.arange(start, min(start + length, images)) % len(values)
        writer.write(path, (start, 0), values[numbers])
