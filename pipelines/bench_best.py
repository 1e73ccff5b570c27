"""Times `best()` on a synthetic dissection of 100,000 units, 1,197 concepts and 5 snapshots, and measures its memory.

Knows: the functions that lay out and fill `dissection.zarr` for `dissect`.
Does not know: any real activation; counts are random and heavy-tailed, as real ones are.

    python pipelines/bench_best.py --store FOLDER [--units 100000] [--layers 50] [--snapshots 5] [--record FILE]

The store (about 1 GB at full size) is written once and read by a fresh process, whose peak resident memory is reported.
"""

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from bench_rows import peak_memory, writable, write_section
from numpy.typing import NDArray
from synthetic import Size, write_synthetic_probe

from dissect_xr import store
from dissect_xr.dissection.labels import open_labels
from dissect_xr.dissection.layers import Layer, Snapshot
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.store import (
    LayerToDissect,
    begin_snapshot,
    count_arrays,
    create_root,
    finish_snapshot,
    threshold_arrays,
)
from dissect_xr.dissection.thresholds import LayerThresholds

SECTION, WORKERS = "## Answers", 2
METHOD, IMAGES = Method(anchoring="half_pixel"), 1024


def write(url: str, units: int, layers: int, snapshots: int) -> None:
    """Write the dissection, layer by layer."""
    random = np.random.default_rng(0)
    probe = f"{url.removesuffix('.zarr')}-probe.zarr"
    write_synthetic_probe(probe, Size(images=IMAGES, units=units // layers, cells=7))
    labels = open_labels(probe)
    area = store.read(probe, "concept_area")[:]
    create_root(url, labels, METHOD)
    for step in range(snapshots):
        snapshot = Snapshot(f"step{step}", step, {}, {f"layer{n}": f"{step}/{n}" for n in range(layers)}, None)
        begin_snapshot(url, snapshot, snapshot.layers)
        for position, (name, fingerprint) in enumerate(snapshot.layers.items()):
            shape = (IMAGES, units // layers, 7, 7)
            layer = Layer("", snapshot.name, name, shape, "float16", (IMAGES, 64), fingerprint, None, None)
            _write_layer(LayerToDissect(url, layer, labels, METHOD, position), area, random)
        finish_snapshot(url, snapshot)


def _write_layer(wanted: LayerToDissect, area: NDArray[np.int64], random: np.random.Generator) -> None:
    units, labels = wanted.layer.shape[1], wanted.labels
    active = random.integers(100_000, 5_000_000, (1, units, labels.domains + 1))  # the last: of all labels
    most = np.minimum(active[..., labels.domain], area)
    hits = (most * random.random(most.shape) ** 40).astype(np.int64)  # half are 0, the mean is 2 % of what can be
    found = LayerThresholds(np.ones((1, units), np.float32), np.ones((1, units), np.int64))
    written = wanted.create(threshold_arrays(found) | count_arrays(hits, active))
    key = f"{wanted.path}/done"
    store.mark(wanted.out, key, fingerprint=wanted.fingerprint, written=written, note=wanted.summary)


def measure(url: str) -> str:
    """Open, compute, report a table row each. Run in a process of its own: peak memory is per process."""
    import dissect_xr as dx

    began = time.perf_counter()
    ds = dx.open_dissection(url)
    opened = time.perf_counter()
    best = ds.dissect.best().compute(num_workers=WORKERS)
    done = time.perf_counter()
    peak = peak_memory() / 2**30
    paths = [f"{snapshot}/{layer}" for snapshot in store.groups(url) for layer in store.groups(url, snapshot)]
    with ThreadPoolExecutor(WORKERS) as threads:
        shapes = list(threads.map(lambda path: store.read(url, f"{path}/intersection")[:].shape, paths))
    read = time.perf_counter() - done
    pairs = sum(map(np.prod, shapes))
    units, concepts, snapshots = (ds.sizes[dim] for dim in ("unit", "concept", "snapshot"))
    rows = (
        (f"`open_dissection`, {len(paths)} layers", f"{opened - began:.1f} s", ""),
        (
            f"`best()`, {units:,} units x {concepts:,} concepts x {snapshots} snapshots",
            f"{done - opened:.1f} s",
            "≤ 15",
        ),
        ("its peak memory, process and all", f"{peak:.2f} GiB", "≤ 2"),
        (f"reading and unpacking the {pairs * 8 / 1e9:.1f} GB of intersections alone", f"{read:.1f} s", "no less"),
    )
    print(f"{int((best['iou'] > 0.04).sum()):,} detectors")
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def record(rows: str, file: Path) -> None:
    """Put the rows into the file's section of that name."""
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    how = f"a synthetic dissection, read by a fresh process with {WORKERS} workers; load before: {load}."
    text = f"`python pipelines/bench_best.py --store DIR --record FILE`: {how}"
    write_section(file, SECTION, f"{text}\n\n| what | measured | target |\n|---|---|---|\n{rows}")


def main() -> None:
    """Write the store where it is missing, then measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="folder for the synthetic store")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--record", type=writable, help="file of benchmarks whose section of answers is replaced")
    given = parser.parse_args()
    url = str(given.store / f"best-{given.units}-{given.layers}-{given.snapshots}.zarr")
    if store.marker(url, f"step{given.snapshots - 1}/done") is None:
        write(url, given.units, given.layers, given.snapshots)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        rows = fresh.submit(measure, url).result()
    print(rows, end="")
    if given.record:
        record(rows, given.record)


if __name__ == "__main__":
    main()
