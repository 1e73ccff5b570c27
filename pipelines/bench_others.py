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
from synthetic import Size, image_names

from dissect_xr import storage
from dissect_xr.activations.store import write_activations
from dissect_xr.cluster import Threads
from dissect_xr.dissection.histograms import histogram
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import bits
from dissect_xr.dissection.threshold import sample_bound, sample_tasks, top_code


def dense_baseline(folder: Path, runs: int) -> list[Row]:
    """Against interpolating, comparing and a one-hot product in torch, on a slice that this can hold."""
    size = Size(images=64, units=128, cells=13, concepts=64)
    home = make(folder, size)
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    maps = torch.from_numpy(storage.read(layer.url, f"{layer.path}/activation")[:].astype(np.float32))
    level = torch.quantile(maps.movedim(1, 0).reshape(size.units, -1), 0.995, dim=1)
    planes = torch.from_numpy(storage.read(labels.url, "annotation")[:].astype(np.int64))

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


def gathering(folder: Path, runs: int, size: Size) -> list[Row]:
    """Whether histograms would be better gathered while activations are written: what that adds, and what it saves."""
    home = make(folder, size)
    layer, scratch = layer_of(home), str(home / "scratch.zarr")
    values = storage.read(layer.url, f"{layer.path}/activation")[:]
    flat = bits(values.reshape(*values.shape[:2], -1), "i")
    peak = flat.max(2)
    bound = np.concatenate([sample_bound(task) for task in sample_tasks(layer, 0.005)])
    top = np.full(size.units, top_code(layer.itemsize))
    offsets = np.concatenate([[0], np.cumsum(top - bound + 1)]).astype(np.int64)

    def gather() -> float:
        counts, start = np.zeros(offsets[-1], np.int32), time.perf_counter()
        histogram(flat, peak, bound, 0, counts, offsets, top)
        seconds = time.perf_counter() - start
        assert counts.sum() == np.count_nonzero(flat >= bound[:, None])
        return seconds

    def written() -> float:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(home / "markers" / "scratch.zarr", ignore_errors=True)
        start = time.perf_counter()
        write_activations(scratch, {"layer": iter([values])}, images=image_names(size.images), snapshot="synthetic")
        return time.perf_counter() - start

    gather()
    pool = Threads(1)
    found = median_of(runs, gather=gather, written=written, thresholds=lambda: pass_seconds(home, pool)["thresholds"])
    shutil.rmtree(scratch)
    adds, saves = ratio(found, "gather", "written"), ratio(found, "thresholds", "written")
    what = f"gathering histograms of {size.units} units of {size.cells}x{size.cells} while writing them"
    return [Row(what, f"adds {adds:.0%} to writing; the pass it would save is {saves:.0%} of it", "", None, found)]
