"""Times `best()` on a synthetic dissection of 100,000 units, 1,197 concepts and 5 snapshots, and measures its memory.

Knows: the layout of `dissection.zarr`, as `dissect` writes it.
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
from bench_rows import peak_memory

from dissect_xr import store
from dissect_xr.dissection.cut import COUNT_CHUNK_UNITS
from dissect_xr.schema import DISSECTION

SECTION, WORKERS = "## Answers", 2
CONCEPTS, CATEGORIES = 1197, ("object", "part", "scene", "material", "texture", "color")


def write(url: str, units: int, layers: int, snapshots: int) -> None:
    """Write the dissection, layer by layer."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, len(CATEGORIES), CONCEPTS)
    area = random.integers(1_000, 10_000_000, CONCEPTS)
    store.create(url, "", [], {"schema_version": 1})
    per_layer = units // layers
    for step in range(snapshots):
        for position in range(layers):
            _write_layer(url, (f"step{step}", f"layer{position}", step, position), per_layer, kinds, area, random)


def _write_layer(url, name, units, kinds, area, random):  # type: ignore[no-untyped-def]
    snapshot, layer, step, position = name
    path = f"{snapshot}/{layer}"
    whole, kinds_of = (CONCEPTS,) * 2, (len(CATEGORIES),) * 2
    sizes = {"fraction": (1, 1), "unit": (units, min(units, COUNT_CHUNK_UNITS)), "concept": whole, "category": kinds_of}
    specs = []
    for variable in DISSECTION.values():
        shape, chunks = zip(*(sizes[dim] for dim in variable.dims), strict=True)
        specs.append(store.ArraySpec(variable.name, variable.dims, shape, variable.dtype, chunks))
    coordinates = [
        store.coordinate("fraction", "fraction", [0.005]),
        store.coordinate("unit", "unit", [f"{layer}/{channel}" for channel in range(units)]),
        store.coordinate("layer", "unit", [layer] * units),
        store.coordinate("channel", "unit", np.arange(units)),
        store.coordinate("concept", "concept", np.arange(1, CONCEPTS + 1)),
        store.coordinate("concept_name", "concept", [f"concept {n}" for n in range(CONCEPTS)]),
        store.coordinate("concept_category", "concept", np.array(CATEGORIES)[kinds]),
        store.coordinate("category", "category", CATEGORIES),
    ]
    attrs = {
        "step": step, "position": position, "metrics": {}, "probe_sha256": "", "fractions": [0.005],
        "anchoring": "half_pixel", "anchoring_used": "half_pixel", "domain": "annotated", "schema_version": 1,
        "coordinates": "layer channel concept_name concept_category",
    }  # fmt: skip
    objects = store.create(url, path, specs, attrs, coordinates)
    active = random.integers(100_000, 5_000_000, (1, units, len(CATEGORIES)))
    most = np.minimum(active[..., kinds], area)
    hits = (most * random.random(most.shape) ** 40).astype(np.int64)  # half are 0, the mean is 2 % of what can be
    values = {
        "intersection": hits, "unit_area": active, "dead": np.zeros((1, units), np.bool_), "concept_area": area,
        "category_area": np.full(len(CATEGORIES), 10**9), "threshold": np.ones((1, units), np.float32),
        "exceedance": np.ones((1, units), np.int64),
    }  # fmt: skip
    with store.marked(url, f"{path}/created", fingerprint="") as (writer, _):
        writer.add(objects)
        for name, data in values.items():
            writer.write(f"{path}/{name}", (0,) * data.ndim, data)
    store.mark(url, f"{path}/done", fingerprint="", written={}, depends_on=[f"{path}/created"])


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
    """Put the rows in the file's section of that name, the last one."""
    before = file.read_text().split(SECTION)[0].rstrip()
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    how = f"a synthetic dissection, read by a fresh process with {WORKERS} workers; load before: {load}."
    text = f"`python pipelines/bench_best.py --store DIR --record FILE`: {how}"
    file.write_text(f"{before}\n\n{SECTION}\n\n{text}\n\n| what | measured | target |\n|---|---|---|\n{rows}")


def main() -> None:
    """Write the store where it is missing, then measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="folder for the synthetic store")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--record", type=Path, help="file of benchmarks whose last section is replaced")
    given = parser.parse_args()
    url = str(given.store / f"best-{given.units}-{given.layers}-{given.snapshots}.zarr")
    if store.marker(url, f"step{given.snapshots - 1}/layer{given.layers - 1}/done") is None:
        write(url, given.units, given.layers, given.snapshots)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        rows = fresh.submit(measure, url).result()
    print(rows, end="")
    if given.record:
        record(rows, given.record)


if __name__ == "__main__":
    main()
