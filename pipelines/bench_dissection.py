"""What both passes of a dissection cost against the least they could: reading the activations.

Knows: the entry points that `dissect-xr run` runs, stores of any size (synthetic.py), plain NumPy to check counts by.
Does not know: how figures are written down.
"""

import os
import shutil
import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from bench_rows import MIB, Row, median_of, peak_memory, ratio
from synthetic import Size, write_synthetic_activations, write_synthetic_probe

from dissect_xr import store
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection import cut, dissect
from dissect_xr.dissection.cut import Limits
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.passes import (
    LayerThresholds,
    count_blocks,
    count_sizes,
    find_thresholds,
    threshold_blocks,
    threshold_sizes,
)
from dissect_xr.parallel.dask_pool import DaskPool
from dissect_xr.parallel.fold import Fold
from dissect_xr.parallel.pool import Pool, Threads, open_pool, run_tasks

METHOD = Method(anchoring="half_pixel")


def make(folder: Path, size: Size) -> Path:
    """The stores of a size, made once."""
    home = folder / f"{size.images}x{size.units}x{size.cells}-{size.concepts}-{size.planes}"
    if not (home / "made").exists():
        shutil.rmtree(home, ignore_errors=True)
        write_synthetic_probe(str(home / "probe.zarr"), size)
        write_synthetic_activations(str(home / "activations.zarr"), size)
        (home / "made").touch()
    return home


def make_tails(home: Path) -> None:
    """The tails of a store's activations, made once."""
    if not (home / TAILS / "zarr.json").exists():
        dense = store.read(str(home / "activations.zarr"), "synthetic/layer/activation")
        names = store.read(str(home / "probe.zarr"), "image")[:].tolist()
        write_activations(
            str(home / TAILS), {"layer": dense}, images=names, snapshot="synthetic", keep="tail", show=False
        )


TAILS = "tails.zarr"
"""The store that holds the tails of the same activations."""


def layer_of(home: Path) -> Layer:
    """The layer of a benchmark's store."""
    return open_layer(str(home / "activations.zarr"), "synthetic", "layer")


def read_block(task: tuple[Layer, cut.Block]) -> int:
    """Read and decompress one task's activations, and nothing else; the number of values."""
    layer, block = task
    array = store.read(layer.url, f"{layer.path}/activation")
    return sum(array[slice(*images), slice(*block.units)].size for images in block.reads)


def read_seconds(home: Path, pool: Pool) -> float:
    """Time to read the store once, cut as the counting pass cuts it."""
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    cut = count_blocks(layer, labels, 1, Limits.of(pool))
    start = time.perf_counter()
    read = sum(n for _, n in run_tasks(pool, read_block, _read_tasks(layer, cut)))
    assert read == np.prod(layer.shape)
    return time.perf_counter() - start


def _read_tasks(layer: Layer, cut: list[list[cut.Block]]) -> list["ReadTask"]:
    return [ReadTask((layer, block)) for unit_blocks in cut for block in unit_blocks]


class ReadTask(tuple[Layer, cut.Block]):
    """A layer and a block; hashable by identity, since geometry is a dict."""

    __hash__ = object.__hash__


def pass_seconds(
    home: Path, pool: Pool, *, keep: bool = False, activations: str = "activations.zarr"
) -> dict[str, float]:
    """Times of both passes of `dissect`, whose counts are checked; all that is not a search for thresholds is counts.

    However small the layer is, it goes in steps: in the single task of a small one the passes could not be told apart.
    """
    out = home / "dissection.zarr"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(home / "markers" / "dissection.zarr", ignore_errors=True)
    searches: list[float] = []

    def timed(*args: Any) -> Generator[Sequence[Fold], Sequence[Any], LayerThresholds]:
        start = time.perf_counter()
        found = yield from find_thresholds(*args)
        searches.append(time.perf_counter() - start)
        return found

    start = time.perf_counter()
    with patch.object(dissect, "find_thresholds", timed), patch.object(dissect, "is_small", lambda *_: False):
        dissect.dissect(
            str(home / activations), str(home / "probe.zarr"), str(out), method=METHOD, pool=pool, show=False
        )
    total = time.perf_counter() - start
    if activations == TAILS:
        check_same(home)
    else:
        check_counts(home)
        kept = {name: store.read(str(out), f"{layer_of(home).path}/{name}")[:] for name in COUNTED}
        np.savez(home / "counted.npz", **kept)
    if not keep:
        shutil.rmtree(out)
    (thresholds,) = searches
    return {"thresholds": thresholds, "counts": total - thresholds}


COUNTED = ("threshold", "exceedance", "intersection", "unit_area")


def check_same(home: Path) -> None:
    """The numbers found from tails are those found from all cells, bit for bit."""
    with np.load(home / "counted.npz") as counted:
        for name in COUNTED:
            found = store.read(str(home / "dissection.zarr"), f"{layer_of(home).path}/{name}")[:]
            assert found.tobytes() == counted[name].tobytes(), f"{name} differs where it is found from tails"


def check_counts(home: Path) -> None:
    """The counts of one unit, by plain NumPy from all its maps; and bounds that hold for every unit."""
    layer, probe = layer_of(home), str(home / "probe.zarr")
    group = f"{layer.path}/"
    result = {n: store.read(str(home / "dissection.zarr"), group + n)[:] for n in ("threshold", "intersection")}
    unit = int(result["intersection"][0].sum(1).argmax())
    maps = store.read(layer.url, group + "activation")[:, unit].astype(np.float64)
    level = float(np.sort(maps.astype(np.float32).ravel())[::-1][int(0.005 * maps.size)])
    assert level == float(result["threshold"][0, unit]), "the threshold is not the order statistic"
    rows, cols = (_matrix(axis) for axis in layer.axes("half_pixel", open_labels(probe).shape[2:]))
    labels, whole = store.read(probe, "annotation"), store.read(probe, "whole_image")[:]
    numbers = store.read(probe, "concept")[:]
    counted = np.zeros(int(numbers.max()) + 1, np.int64)
    for i in np.flatnonzero(maps.max((1, 2)) > level)[:CHECKED]:
        mask = rows @ maps[i] @ cols.T > level
        counted += np.bincount(labels[int(i)][:, mask].ravel(), minlength=counted.size)
        counted[whole[i]] += mask.sum()
    exact = result["intersection"][0, unit]
    assert (counted[numbers] <= exact).all(), "a concept was counted less often than plain NumPy counts it"
    if np.count_nonzero(maps.max((1, 2)) > level) <= CHECKED:
        # float64 without exact ties may differ from the definition only where S is within rounding of T.
        assert np.abs(counted[numbers] - exact).sum() <= 4, "the counts are not those of plain NumPy"


CHECKED = 400
"""Images of the checked unit that are counted again by plain NumPy."""


def _matrix(axis: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    matrix = np.zeros((axis.first.size, int(axis.second.max()) + 1))
    matrix[np.arange(axis.first.size), axis.first] += 1 - axis.weight
    matrix[np.arange(axis.first.size), axis.second] += axis.weight
    return matrix


def passes_against_reading(
    folder: Path,
    name: str,
    size: Size,
    runs: int,
    *,
    count_target: float | None,
    tail_target: float,
    pool: Pool | None = None,
) -> list[Row]:
    """Each pass over the time to read the same store once."""
    home, pool = make(folder, size), pool or Threads()
    make_tails(home)
    if runs > 1:
        pass_seconds(home, pool)
        pass_seconds(home, pool, activations=TAILS)
    found: dict[str, list[float]] = {"read": [], "thresholds": [], "counts": [], "tails": []}
    for _ in range(runs):
        found["read"].append(read_seconds(home, pool))
        for stage, seconds in pass_seconds(home, pool).items():
            found[stage].append(seconds)
        found["tails"].append(sum(pass_seconds(home, pool, activations=TAILS).values()))
    layer = layer_of(home)
    raw = int(np.prod(layer.shape, dtype=np.int64)) * layer.itemsize
    packed, tails = (
        sum(path.stat().st_size for path in (home / name).rglob("*") if path.is_file())
        for name in ("activations.zarr", TAILS)
    )
    seconds = {stage: statistics.median(times) for stage, times in found.items()}
    figures = found | {"cells": size.cells, "maps": size.images * size.units, "raw": raw, "packed": packed}
    figures |= {"tail_bytes": tails}
    rows = [
        Row(
            f"{name}: one read",
            f"{size.images / seconds['read']:,.0f} images/s, {raw / seconds['read'] / 1e9:.2f} GB/s, "
            f"stored in {packed / raw:.2f} of the bytes",
            "",
            None,
            figures,
        )
    ]
    for stage, target in (("thresholds", 2.0), ("counts", count_target)):
        over = ratio(found, stage, "read")
        rate = f"{size.images / seconds[stage]:,.0f} images/s, {raw / seconds[stage] / 1e9:.2f} GB/s"
        met = None if target is None else over <= target
        rows.append(Row(f"{name}: {stage} over one read", f"{over:.2f} ({rate})", f"≤ {target}" if target else "", met))
    both = statistics.median(
        (t + c) / r for t, c, r in zip(found["thresholds"], found["counts"], found["read"], strict=True)
    )
    rows.append(Row(f"{name}: both passes over one read", f"{both:.2f}", "moonshot ≤ 2.5", None))
    over = ratio(found, "tails", "read")
    measured = f"{over:.2f}, from {tails / raw:.3f} of the bytes"
    what = f"{name}: both passes from tails over one read of all cells"
    return [*rows, Row(what, measured, f"≤ {tail_target}", over <= tail_target)]


def scaling(folder: Path, runs: int, base: Size) -> list[Row]:
    """What more images, concepts and planes cost."""
    larger = {
        "images x4": (replace(base, images=base.images * 4), 4.2),
        "concepts x8": (replace(base, concepts=base.concepts * 8), 1.3),
        "planes x2": (replace(base, planes=base.planes * 2), 1.6),
    }
    homes = {name: make(folder, size) for name, (size, _) in larger.items()}
    small, pool = make(folder, base), Threads()

    def both(home: Path) -> float:
        return sum(pass_seconds(home, pool).values())

    both(small)
    rows = []
    for name, (_, target) in larger.items():
        found = median_of(runs, more=lambda home=homes[name]: both(home), base=lambda: both(small))  # type: ignore[misc]
        over = ratio(found, "more", "base")
        rows.append(Row(f"{name}: time", f"{over:.2f}x", f"≤ {target:.1f}x", over <= target, found))
    peaks = [_worker_memory(home) for home in (small, homes["images x4"])]
    over, text = peaks[1] / peaks[0], " and ".join(f"{peak / MIB:,.0f}" for peak in peaks)
    rows.append(Row("images x4: peak memory of a worker", f"{over:.2f}x ({text} MiB)", "≤ 1.1x", over <= 1.1))
    return rows


def _worker_memory(home: Path) -> int:
    """Peak memory of a fresh process that runs both passes."""
    with open_pool(workers=1) as pool:
        assert isinstance(pool, DaskPool)
        pass_seconds(home, pool)
        return max(pool.client.run(peak_memory).values())


def workers(folder: Path, runs: int, size: Size) -> list[Row]:
    """One worker process against two, each bound to a core: unbound, zarr's threads give one worker both."""
    home = make(folder, size)
    with open_pool(workers=1) as one, open_pool(workers=2) as two:
        for pool in (one, two):
            pass_seconds(home, pool)
        rows = [memory_row("2 workers", home, two)]
        unbound = _one_against_two(home, runs, one, two)
        for pool in (one, two):
            assert isinstance(pool, DaskPool)
            for core, address in enumerate(pool.client.scheduler_info()["workers"]):
                pool.client.run(_bind, core, workers=[address])
        found = _one_against_two(home, runs, one, two)
    over, reading = ratio(found, "one", "two"), ratio(found, "read_one", "read_two")
    measured = f"{over:.2f}x (reading alone {reading:.2f}x; not bound to cores {ratio(unbound, 'one', 'two'):.2f}x)"
    return [Row("2 workers against 1, a core each", measured, "≥ 1.6x", over >= 1.6, found), *rows]


def _one_against_two(home: Path, runs: int, one: Pool, two: Pool) -> dict[str, list[float]]:
    return median_of(
        runs,
        one=lambda: sum(pass_seconds(home, one).values()),
        two=lambda: sum(pass_seconds(home, two).values()),
        read_one=lambda: read_seconds(home, one),
        read_two=lambda: read_seconds(home, two),
    )


def _bind(core: int) -> None:
    """Let all threads of this process run on one core."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def projection(home: Path, pool: Pool) -> int:
    """Bytes that a worker needs at most: the process itself and its largest task."""
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    counts = cut.projected(
        layer, count_blocks(layer, labels, 1, Limits.of(pool))[0][0], **count_sizes(labels, 1, pool.memory)
    )
    thresholds = cut.projected(
        layer, threshold_blocks(layer, Limits.of(pool))[0][0], **threshold_sizes(layer, pool.memory)
    )
    return cut.RESIDENT + max(counts.total, thresholds.total)


def memory_row(name: str, home: Path, pool: Pool) -> Row:
    """Peak memory of every worker process against the projection of its largest task."""
    assert isinstance(pool, DaskPool)
    peaks, projected = sorted(pool.client.run(peak_memory).values()), projection(home, pool)
    text = " and ".join(f"{peak / MIB:,.0f}" for peak in peaks)
    most = min(1024 * MIB, 1.2 * projected)
    measured = f"{text} MiB, projected {projected / MIB:,.0f} MiB"
    figures = {"peaks": peaks, "projection": projected}
    return Row(
        f"{name}: peak memory of the workers",
        measured,
        "≤ projection + 20 %, ≤ 1,024 MiB",
        max(peaks) <= most,
        figures,
    )


def broden(folder: Path, size: Size) -> list[Row]:
    """The size of Broden, once, on two worker processes; the second reading finds the files in the page cache."""
    home = make(folder, size)
    with open_pool(workers=2) as pool:
        pass_seconds(make(folder, Size(images=512, units=64, cells=7)), pool)
        read_seconds(home, pool)
        rows = passes_against_reading(folder, "Broden size", size, 1, count_target=4.0, tail_target=2.0, pool=pool)
        memory = memory_row("Broden size", home, pool)
    figures = rows[0].figures
    total = figures["thresholds"][0] + figures["counts"][0]
    what = f"{size.images:,} images x {size.units:,} units of 7x7, 2 processes: thresholds + counts"
    return [Row(what, f"{total:.0f} s", "≤ 60 s (moonshot 40 s)", total <= 60), *rows, memory]
