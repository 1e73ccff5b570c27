"""Other ways to the same counts: a dense product instead of our kernels, histograms gathered while writing.

Knows: how both are measured beside what we do.
Does not know: how figures are written down.
"""

import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from bench_dissection import layer_of, make, pass_seconds
from bench_rows import Row, median_of, ratio
from numcodecs import Zstd
from numpy.typing import NDArray
from synthetic import Size, image_names

from dissect_xr import store
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.levels.histograms import histogram
from dissect_xr.dissection.thresholds import rank, top_code
from dissect_xr.floats import bits
from dissect_xr.parallel.pool import Threads


def dense_baseline(folder: Path, runs: int) -> list[Row]:
    """Against interpolating, comparing and a one-hot product in torch, on a slice that this can hold."""
    size = Size(images=64, units=128, cells=13, concepts=64)
    home = make(folder, size)
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    maps = torch.from_numpy(store.read(layer.url, f"{layer.path}/activation")[:].astype(np.float32))
    level = torch.quantile(maps.movedim(1, 0).reshape(size.units, -1), 0.995, dim=1)
    planes = torch.from_numpy(store.read(labels.url, "annotation")[:].astype(np.int64))

    def dense() -> float:
        start = time.perf_counter()
        counted = torch.zeros(size.units, size.concepts + 1)
        for image, labels in zip(maps, planes, strict=True):
            up = torch.nn.functional.interpolate(image[None], (112, 112), mode="bilinear", align_corners=False)[0]
            mask = (up > level[:, None, None]).flatten(1).float()
            for plane in labels:
                onehot = torch.nn.functional.one_hot(plane.flatten(), size.concepts + 1).float()
                counted += mask @ onehot
        assert counted[:, 1:].sum() > 0
        return time.perf_counter() - start

    pool = Threads(1)
    pass_seconds(home, pool)
    found = median_of(runs, dense=dense, ours=lambda: sum(pass_seconds(home, pool).values()))
    over = ratio(found, "dense", "ours")
    rate = f"{size.images / statistics.median(found['dense']):.0f} images/s dense"
    return [Row("dense torch baseline over both passes, 128 units of 13x13", f"{over:.1f}x ({rate})", "", None, found)]


def gathering(folder: Path, runs: int, size: Size, block: int) -> list[Row]:
    """Whether histograms would be better gathered while activations are written, a block of images at a time.

    What a block gathers must survive a restart, so it is stored beside its maps: codes and counts of all its positive
    values, since a bound is not known before the last block is. All blocks' are read and merged at the end.
    """
    home = make(folder, size)
    layer, scratch, codec = layer_of(home), str(home / "scratch.zarr"), Zstd(level=1)
    values = store.read(layer.url, f"{layer.path}/activation")[:]
    flat = bits(values.reshape(*values.shape[:2], -1), "i")
    peak, lowest = flat.max(2), np.ones(size.units, np.int64)
    top = np.full(size.units, top_code(layer.itemsize))
    width, stored = int(top[0]), list[list[tuple[bytes, bytes]]]()
    offsets = np.arange(size.units + 1) * width

    def gather() -> float:
        start = time.perf_counter()
        stored.clear()
        for first in range(0, size.images, block):
            counts = np.zeros(offsets[-1], np.int32)
            histogram(flat[first : first + block], peak[first : first + block], lowest, 0, counts, offsets, top)
            stored.append([_packed(codec, mine) for mine in counts.reshape(size.units, width)])
        return time.perf_counter() - start

    def merge() -> float:
        start = time.perf_counter()
        counts = np.zeros((size.units, width), np.int64)
        for part in stored:
            for mine, (codes, numbers) in zip(counts, part, strict=True):
                mine[_unpacked(codec, codes, np.uint16)] += _unpacked(codec, numbers, np.uint32)
        above = counts[:, ::-1].cumsum(axis=1)
        found = width - (above <= rank(FRACTION, flat[:, 0].size)).sum(axis=1)
        seconds = time.perf_counter() - start
        exact = store.read(str(home / "dissection.zarr"), f"{layer.path}/threshold")[0]
        assert (found.astype(np.uint16).view(np.float16).astype(np.float32) == exact).all()
        return seconds

    def written() -> float:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(home / "markers" / "scratch.zarr", ignore_errors=True)
        start = time.perf_counter()
        names = image_names(size.images)
        write_activations(scratch, {"layer": iter([values])}, images=names, snapshot="synthetic", show=False)
        return time.perf_counter() - start

    pool = Threads(1)
    found = median_of(
        runs,
        written=written,
        thresholds=lambda: pass_seconds(home, pool, keep=True)["thresholds"],
        gather=gather,
        merge=merge,
    )
    maps = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
    shutil.rmtree(scratch)
    adds, saves, merging = (ratio(found, part, "written") for part in ("gather", "thresholds", "merge"))
    packed = sum(len(codes) + len(numbers) for part in stored for codes, numbers in part)
    what = (
        f"histograms of {size.units} units of {size.cells}x{size.cells} gathered while writing, {block} images a block"
    )
    told = f"adds {adds:.0%} to writing and {packed / maps:.0%} to the bytes, merging is {merging:.0%} of it; "
    return [Row(what, f"{told}the pass it would save is {saves:.0%} of it", "", None, found)]


FRACTION = 0.005
"""As `dissect.Method` has it."""


def _packed(codec: Zstd, counts: NDArray[np.int32]) -> tuple[bytes, bytes]:
    codes = np.flatnonzero(counts)
    return codec.encode(np.diff(codes, prepend=0).astype(np.uint16)), codec.encode(counts[codes].astype(np.uint32))


def _unpacked(codec: Zstd, packed: bytes, dtype: type) -> NDArray[np.integer]:
    values = np.frombuffer(codec.decode(packed), dtype)
    return values.cumsum(dtype=np.int64) if dtype is np.uint16 else values
