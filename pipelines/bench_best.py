"""Times `best()` on a synthetic dissection of 100,000 units, 1,197 concepts and 5 snapshots, and measures its memory.

Knows: the layout of `dissection.zarr`, as `dissect` writes it.
Does not know: any real activation; counts are random and heavy-tailed, as real ones are.

    python pipelines/bench_best.py --store FOLDER [--units 100000] [--layers 50] [--snapshots 5]

The store (about 1 GB at full size) is written once and read by a fresh process, whose peak resident memory is reported.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dissect_xr import storage
from dissect_xr.schema import DISSECTION

CONCEPTS, CATEGORIES, CHUNK = 1197, ("object", "part", "scene", "material", "texture", "color"), 64


def write(url: str, units: int, layers: int, snapshots: int) -> None:
    """Write the dissection, layer by layer."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, len(CATEGORIES), CONCEPTS)
    area = random.integers(1_000, 10_000_000, CONCEPTS)
    storage.create(url, "", [], {"schema_version": 1})
    per_layer = units // layers
    for step in range(snapshots):
        for position in range(layers):
            _write_layer(url, (f"step{step}", f"layer{position}", step, position), per_layer, kinds, area, random)


def _write_layer(url, name, units, kinds, area, random):  # type: ignore[no-untyped-def]
    snapshot, layer, step, position = name
    path = f"{snapshot}/{layer}"
    sizes = {"fraction": (1, 1), "unit": (units, CHUNK), "concept": (CONCEPTS,) * 2, "category": (len(CATEGORIES),) * 2}
    specs = []
    for variable in DISSECTION.values():
        shape, chunks = zip(*(sizes[dim] for dim in variable.dims), strict=True)
        specs.append(storage.ArraySpec(variable.name, variable.dims, shape, variable.dtype, chunks))
    coordinates = [
        storage.coordinate("fraction", "fraction", [0.005]),
        storage.coordinate("unit", "unit", [f"{layer}/{channel}" for channel in range(units)]),
        storage.coordinate("layer", "unit", [layer] * units),
        storage.coordinate("channel", "unit", np.arange(units)),
        storage.coordinate("concept", "concept", np.arange(1, CONCEPTS + 1)),
        storage.coordinate("concept_name", "concept", [f"concept {n}" for n in range(CONCEPTS)]),
        storage.coordinate("concept_category", "concept", np.array(CATEGORIES)[kinds]),
        storage.coordinate("category", "category", CATEGORIES),
    ]
    attrs = {
        "step": step, "position": position, "metrics": {}, "probe_sha256": "", "fractions": [0.005],
        "anchoring": "half_pixel", "anchoring_used": "half_pixel", "domain": "annotated", "schema_version": 1,
        "coordinates": "layer channel concept_name concept_category",
    }  # fmt: skip
    storage.create(url, path, [*specs, *(spec for spec, _ in coordinates)], attrs)
    active = random.integers(100_000, 5_000_000, (1, units, len(CATEGORIES)))
    most = np.minimum(active[..., kinds], area)
    hits = (most * random.random(most.shape) ** 40).astype(np.int64)  # half are 0, the mean is 2 % of what can be
    writer = storage.Writer(url)
    values = {
        "intersection": hits, "unit_area": active, "dead": np.zeros((1, units), np.bool_), "concept_area": area,
        "category_area": np.full(len(CATEGORIES), 10**9), "threshold": np.ones((1, units), np.float32),
        "exceedance": np.ones((1, units), np.int64),
    }  # fmt: skip
    for name, data in [*values.items(), *((spec.name, data) for spec, data in coordinates)]:
        writer.write(f"{path}/{name}", (0,) * data.ndim, data)
    for key in ("created", "done"):
        storage.mark(url, f"{path}/{key}", made_by="", objects={})


def measure(url: str) -> None:
    """Open, compute, report. Run in a process of its own: peak memory is per process."""
    import dissect_xr as dx

    began = time.perf_counter()
    ds = dx.open_dissection(url)
    opened = time.perf_counter()
    before = time.process_time()
    best = ds.dissect.best().compute(num_workers=2)
    done, cpu = time.perf_counter(), time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{ds.sizes['unit']:,} units x {ds.sizes['concept']:,} concepts x {ds.sizes['snapshot']} snapshots: open "
        f"{opened - began:.1f} s, best() {done - opened:.1f} s ({cpu:.1f} s of processors), peak {peak:.2f} GiB; "
        f"{int((best['iou'] > 0.04).sum()):,} detectors"
    )


def main() -> None:
    """Write the store where it is missing, then measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="folder for the synthetic store")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help="read only; what the fresh process does")
    given = parser.parse_args()
    url = str(given.store / f"best-{given.units}-{given.layers}-{given.snapshots}.zarr")
    if given.measure:
        measure(url)
        return
    if storage.marker(url, f"step{given.snapshots - 1}/layer{given.layers - 1}/done") is None:
        write(url, given.units, given.layers, given.snapshots)
    subprocess.run([sys.executable, *sys.argv, "--measure"], check=True)


if __name__ == "__main__":
    main()
