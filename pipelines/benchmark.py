"""Measures what a dissection costs against the least it could cost: reading the activations.

    python pipelines/benchmark.py --folder DIR [--short] [--only NAME ...]

Runs the entry points that `dissect-xr run` runs, on stores with the statistics of real ones (synthetic.py). Everything
that is compared is measured in one run, in turn, and medians are quoted; every counted result is checked. Writes
benchmarks.json into DIR and prints the table.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from synthetic import Size, image_names, write_synthetic_activations, write_synthetic_probe

from dissect_xr import storage
from dissect_xr.cluster import DaskPool, Pool, Threads, open_pool, run_tasks
from dissect_xr.dissection import blocks, dissect, kernels
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.dissection.passes import tally_blocks, tally_sizes
from dissect_xr.progress import track

HERE = Path(__file__).resolve().parent
METHOD = dissect.Method(anchoring="half_pixel")
MIB = 2**20


@dataclass
class Row:
    """One line of the table."""

    what: str
    measured: str
    target: str
    met: bool | None
    """None: nothing was asked for"""
    figures: dict[str, Any] = field(default_factory=dict)


# What is measured


def make(folder: Path, size: Size) -> Path:
    """The stores of a size, made once."""
    home = folder / f"{size.images}x{size.units}x{size.cells}-{size.concepts}-{size.planes}"
    if not (home / "made").exists():
        shutil.rmtree(home, ignore_errors=True)
        write_synthetic_probe(str(home / "probe.zarr"), size)
        write_synthetic_activations(str(home / "activations.zarr"), size)
        (home / "made").touch()
    return home


def layer_of(home: Path) -> Layer:
    """The layer of a benchmark's store."""
    return open_layer(str(home / "activations.zarr"), "synthetic", "layer")


def read_block(task: tuple[Layer, blocks.Block]) -> int:
    """Read and decompress one task's activations, and nothing else; the number of values."""
    layer, block = task
    array = storage.read(layer.url, f"{layer.path}/activation")
    return sum(array[slice(*images), slice(*block.units)].size for images in block.reads)


def read_seconds(home: Path, pool: Pool) -> float:
    """Time to read the store once, cut as the counting pass cuts it."""
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    cut = tally_blocks(layer, labels, 1, (pool.memory, pool.workers))
    start = time.perf_counter()
    read = sum(n for _, n in run_tasks(pool, read_block, _read_tasks(layer, cut)))
    assert read == np.prod(layer.shape)
    return time.perf_counter() - start


def _read_tasks(layer: Layer, cut: list[list[blocks.Block]]) -> list["ReadTask"]:
    return [ReadTask((layer, block)) for unit_blocks in cut for block in unit_blocks]


class ReadTask(tuple[Layer, blocks.Block]):
    """A layer and a block; hashable by identity, since geometry is a dict."""

    __hash__ = object.__hash__


def pass_seconds(home: Path, pool: Pool, *, keep: bool = False) -> dict[str, float]:
    """Times of both passes of `dissect`, checked against the labels' own totals."""
    out = home / "dissection.zarr"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(home / "markers" / "dissection.zarr", ignore_errors=True)
    times: dict[str, float] = {}

    @contextmanager
    def timed(stage: str, *args: Any, **options: Any) -> Iterator[Any]:
        start = time.perf_counter()
        with track(stage, *args, **options) as bar:
            yield bar
        times[stage.split()[0]] = time.perf_counter() - start

    with patch.object(dissect, "track", timed):
        dissect.dissect(
            str(home / "activations.zarr"), str(home / "probe.zarr"), str(out), method=METHOD, pool=pool, show=False
        )
    check_counts(home)
    if not keep:
        shutil.rmtree(out)
    return times


def check_counts(home: Path) -> None:
    """The counts of one unit, by plain NumPy from all its maps; and bounds that hold for every unit."""
    layer, probe = layer_of(home), str(home / "probe.zarr")
    group = f"{layer.path}/"
    result = {n: storage.read(str(home / "dissection.zarr"), group + n)[:] for n in ("threshold", "intersection")}
    unit = int(result["intersection"][0].sum(1).argmax())
    maps = storage.read(layer.url, group + "activation")[:, unit].astype(np.float64)
    level = float(np.sort(maps.astype(np.float32).ravel())[::-1][int(0.005 * maps.size)])
    assert level == float(result["threshold"][0, unit]), "the threshold is not the order statistic"
    rows, cols = (_matrix(axis) for axis in layer.axes("half_pixel", open_labels(probe).shape[2:]))
    labels, whole = storage.read(probe, "annotation"), storage.read(probe, "whole_image")[:]
    numbers = storage.read(probe, "concept")[:]
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


def median_of(runs: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Every measure `runs` times, in turn."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(runs):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratio(found: dict[str, list[float]], above: str, below: str) -> float:
    """Median of the ratios of measures taken side by side."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


# The table's parts


def passes_against_reading(folder: Path, name: str, size: Size, runs: int, *, tally_target: float) -> list[Row]:
    """Each pass over the time to read the same store once."""
    home, pool = make(folder, size), Threads()
    pass_seconds(home, pool)
    found: dict[str, list[float]] = {"read": [], "thresholds": [], "counts": []}
    for _ in range(runs):
        found["read"].append(read_seconds(home, pool))
        for stage, seconds in pass_seconds(home, pool).items():
            found[stage].append(seconds)
    layer = layer_of(home)
    raw = np.prod(layer.shape, dtype=np.int64) * layer.itemsize
    rows = []
    for stage, target in (("thresholds", 2.0), ("counts", tally_target)):
        seconds, over = statistics.median(found[stage]), ratio(found, stage, "read")
        rate = f"{size.images / seconds:,.0f} images/s, {raw / seconds / 1e9:.2f} GB/s"
        rows.append(
            Row(f"{name}: {stage} over one read", f"{over:.2f} ({rate})", f"≤ {target:.1f}", over <= target, found)
        )
    both = statistics.median(
        (t + c) / r for t, c, r in zip(found["thresholds"], found["counts"], found["read"], strict=True)
    )
    rows.append(Row(f"{name}: both passes over one read", f"{both:.2f}", "moonshot ≤ 2.5", None))
    return rows


def scaling(folder: Path, runs: int, base: Size) -> list[Row]:
    """What more images, concepts and planes cost."""
    larger = {
        "images x4": (replace(base, images=base.images * 4), 4.2),
        "concepts x8": (replace(base, concepts=base.concepts * 8), 1.3),
        "planes x2": (replace(base, planes=base.planes * 2), 1.6),
    }
    homes = {name: make(folder, size) for name, (size, _) in larger.items()}
    small, pool = make(folder, base), Threads()
    both = lambda home: sum(pass_seconds(home, pool).values())  # noqa: E731
    both(small)
    rows = []
    for name, (_, target) in larger.items():
        measures = {"more": lambda name=name: both(homes[name]), "base": lambda: both(small)}
        found = median_of(runs, **measures)
        over = ratio(found, "more", "base")
        rows.append(Row(f"{name}: time", f"{over:.2f}x", f"≤ {target:.1f}x", over <= target, found))
    return rows


def workers(folder: Path, runs: int, size: Size) -> list[Row]:
    """One worker process against two."""
    home = make(folder, size)
    with open_pool(workers=1) as one, open_pool(workers=2) as two:
        for pool in (one, two):
            pass_seconds(home, pool)
        found = median_of(
            runs,
            one=lambda: sum(pass_seconds(home, one).values()),
            two=lambda: sum(pass_seconds(home, two).values()),
        )
    over = ratio(found, "one", "two")
    return [Row("2 workers against 1", f"{over:.2f}x", "≥ 1.6x", over >= 1.6, found)]


def dense_baseline(folder: Path, runs: int) -> list[Row]:
    """Against interpolating, comparing and a one-hot product in torch, on a slice that this can hold."""
    import torch

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


def broden(folder: Path) -> list[Row]:
    """The size of Broden, once, on two worker processes."""
    size = Size(images=63_305, units=2_048, cells=7)
    home = make(folder, size)
    with open_pool(workers=2) as pool:
        assert isinstance(pool, DaskPool)
        pass_seconds(make(folder, Size(images=512, units=64, cells=7)), pool)
        read = read_seconds(home, pool)
        times = pass_seconds(home, pool, keep=True)
        peaks = list(pool.client.run(_peak_memory).values())
    total = sum(times.values())
    layer, labels = layer_of(home), open_labels(str(home / "probe.zarr"))
    block = tally_blocks(layer, labels, 1, (pool.memory, 2))[0][0]
    plan = blocks.projected(layer, block, **tally_sizes(labels, 1, pool.memory))
    projection = plan.total + blocks.RESIDENT
    figures = {"read": read, **times, "peaks": peaks, "projection": projection}
    return [
        Row("Broden size, 2 processes: thresholds + counts", f"{total:.0f} s", "≤ 60 s", total <= 60, figures),
        Row("Broden size: thresholds over one read", f"{times['thresholds'] / read:.2f}", "≤ 2.0", None),
        Row("Broden size: counts over one read", f"{times['counts'] / read:.2f}", "≤ 4.0", None),
        Row(
            "Broden size: peak memory of a worker",
            f"{max(peaks) / MIB:,.0f} MiB (projected {projection / MIB:,.0f} MiB)",
            "≤ 1,024 MiB",
            max(peaks) <= 1024 * MIB,
        ),
    ]


def _peak_memory() -> int:
    # Not ru_maxrss: that is inherited from the process this one was forked from.
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))


def extraction(folder: Path, runs: int, *, width: int = 64, images: int = 64) -> list[Row]:
    """The five stages of a ResNet-50-shaped network at 224 px against its bare forward pass over decoded images."""
    import torch
    from PIL import Image

    from dissect_xr.activations.images import Preprocess, read_image, to_input
    from dissect_xr.activations.models import ModelSpec, cached_model
    from dissect_xr.activations.stage import Recording, extract, plan_extraction
    from dissect_xr.activations.store import SnapshotInfo

    home, size = folder / f"extraction-{images}", Size(images=images, units=1, cells=1, concepts=16)
    names = image_names(images)
    if not (home / "made").exists():
        shutil.rmtree(home, ignore_errors=True)
        write_synthetic_probe(str(home / "probe.zarr"), size)
        storage.update_attrs(str(home / "probe.zarr"), {"root": "images"})
        rng = np.random.default_rng(0)
        (home / "images" / "synthetic").mkdir(parents=True)
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            coarse.resize((224, 224), Image.Resampling.BICUBIC).save(home / "images" / name, quality=90)
        (home / "made").touch()
    spec = ModelSpec.of(f"{HERE.parent}/tests/networks.py:resnet50_shaped", {"width": width})
    preprocess = Preprocess((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    stages = ("relu", "layer1", "layer2", "layer3", "layer4")
    model = cached_model(spec, "cpu")
    stages = tuple(name for name in stages if name in dict(model.named_modules()))
    pixels = np.stack([read_image(home / "images" / name, (224, 224)) for name in names])
    batch = 16

    def bare() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, images, batch):
                model(to_input(preprocess, pixels[first : first + batch]))
        return time.perf_counter() - start

    def recorded() -> float:
        for path in (home / "activations.zarr", home / "markers" / "activations.zarr"):
            shutil.rmtree(path, ignore_errors=True)
        recording = Recording(preprocess, stages, batch=batch)
        url = str(home / "activations.zarr")
        plan = plan_extraction(url, str(home / "probe.zarr"), SnapshotInfo("s"), spec, recording)
        start = time.perf_counter()
        extract(plan, show=False)
        return time.perf_counter() - start

    bare()
    found = median_of(runs, recorded=recorded, bare=bare)
    written = sum(path.stat().st_size for path in (home / "activations.zarr").rglob("*") if path.is_file())
    over = ratio(found, "recorded", "bare")
    rate = f"{images / statistics.median(found['recorded']):.1f} images/s, {written / images / 1e6:.2f} MB/image"
    what = f"extraction of {len(stages)} stages of a ResNet-50 (224 px) over its bare forward pass"
    return [Row(what, f"{over:.2f} ({rate})", "≤ 1.25", over <= 1.25, found | {"bytes": written})]


def scheduling(tasks: int) -> list[Row]:
    """Overhead of small tasks on local processes."""
    with open_pool(workers=2) as pool:
        list(run_tasks(pool, _nothing, range(100)))
        start = time.perf_counter()
        done = sum(1 for _ in run_tasks(pool, _nothing, range(tasks)))
        each = (time.perf_counter() - start) / tasks
    assert done == tasks
    return [Row(f"{tasks:,} small tasks on 2 processes, each", f"{each * 1e3:.2f} ms", "≤ 5 ms", each <= 5e-3)]


def _nothing(task: int) -> int:
    return task


def compile_seconds() -> list[Row]:
    """Time to load or compile the kernels, in a process of its own."""
    import subprocess
    import sys

    code = "import time; t = time.perf_counter(); import benchmark; benchmark.warm(); print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    seconds = float(run.stdout)
    return [Row("imports and cached kernels of a new process", f"{seconds:.1f} s", "", None)]


def warm() -> None:
    """Call the small kernel once."""
    kernels.run_table(np.zeros((1, 2, 2), np.uint16), np.full(1 << 16, -1, np.int32), np.zeros((1, 2, 2), np.uint32))


# The script


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "load before": load,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": __import__("zarr").__version__,
    }


def table(found: list[Row], about: dict[str, str]) -> str:
    """The figures as Markdown."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    mark = {True: "met", False: "**missed**", None: ""}
    lines += [f"| {row.what} | {row.measured} | {row.target} | {mark[row.met]} |" for row in found]
    return "\n".join([*(f"- {name}: {value}" for name, value in about.items()), "", *lines])


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where stores are made; 5 GB for Broden's size")
    parser.add_argument("--short", action="store_true", help="small sizes, one run each, two minutes")
    parser.add_argument("--only", nargs="*", help="parts to run")
    arguments = parser.parse_args()
    folder, runs = arguments.folder, 1 if arguments.short else 5
    n = 1024 if arguments.short else 8192
    parts: dict[str, Callable[[], list[Row]]] = {
        "7x7": lambda: passes_against_reading(folder, "512 units of 7x7", Size(n, 512, 7), runs, tally_target=4.0),
        "28x28": lambda: passes_against_reading(
            folder, "256 units of 28x28", Size(n // 4, 256, 28), runs, tally_target=2.0
        ),
        "112x112": lambda: passes_against_reading(
            folder, "64 units of 112x112", Size(n // 16, 64, 112), runs, tally_target=2.0
        ),
        "dense": lambda: dense_baseline(folder, runs),
        "scaling": lambda: scaling(folder, runs, Size(n // 2, 256, 7)),
        "workers": lambda: workers(folder, runs, Size(n, 512, 7)),
        "scheduling": lambda: scheduling(500 if arguments.short else 10_000),
        "extraction": lambda: extraction(
            folder, runs, width=8 if arguments.short else 64, images=32 if arguments.short else 64
        ),
        "compile": compile_seconds,
    }
    if not arguments.short:
        parts["broden"] = lambda: broden(folder)
    about, found = machine(), []
    for name, part in parts.items():
        if not arguments.only or name in arguments.only:
            for row in part():
                print(f"{row.what}: {row.measured}  {row.target}  {'' if row.met is None else row.met}", flush=True)
                found.append(row)
    text = table(found, about)
    result = {"machine": about, "rows": [vars(row) for row in found]}
    (folder / "benchmarks.json").write_text(json.dumps(result, indent=1))
    print(text)


if __name__ == "__main__":
    main()
