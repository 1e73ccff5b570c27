"""Stores twenty times larger than what a task may use: measured memory stays by the projection."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import PIPELINES

MEMORY = 32 * 2**20
"""Bytes a task may use."""

DISSECT = """
import sys
sys.path.insert(0, sys.argv[3])
from bench_rows import peak_memory
from dissect_xr.parallel.pool import Threads
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.dissect import dissect

home, memory = sys.argv[1], int(sys.argv[2])
before = peak_memory()
dissect(
    home + "/activations.zarr", home + "/probe.zarr", home + f"/{memory}.zarr",
    method=Method(anchoring="half_pixel"), pool=Threads(1, memory=memory), show=False,
)
print(before, peak_memory())
"""


@pytest.mark.slow
def test_memory_stays_by_the_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    from synthetic import Size, write_synthetic_activations, write_synthetic_probe

    from dissect_xr.dissection import cut
    from dissect_xr.dissection.labels import open_labels
    from dissect_xr.dissection.layers import open_layer
    from dissect_xr.dissection.passes import count_blocks, count_sizes

    size = Size(images=13_500, units=512, cells=7, concepts=300, planes=2, labels=56)
    write_synthetic_probe(str(tmp_path / "probe.zarr"), size)
    write_synthetic_activations(str(tmp_path / "activations.zarr"), size)
    layer = open_layer(str(tmp_path / "activations.zarr"), "synthetic", "layer")
    labels = open_labels(str(tmp_path / "probe.zarr"))
    assert np.prod(layer.shape) * 2 >= 20 * MEMORY

    command = [sys.executable, "-c", DISSECT, str(tmp_path)]
    run = subprocess.run([*command, str(MEMORY), str(PIPELINES)], capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    block = count_blocks(layer, labels, 1, cut.Limits(MEMORY, 2))[0][0]
    projection = cut.projected(layer, block, **count_sizes(labels, 1, MEMORY)).total
    assert projection <= MEMORY
    # What the process has before it reads anything, kernels and zarr's threads included, is RESIDENT.
    assert peak <= 1.2 * (max(before, cut.RESIDENT) + projection), (before, peak, projection)


@pytest.mark.slow
def test_workers_of_512_mib_stay_by_the_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    from bench_dissection import layer_of, projection
    from bench_rows import peak_memory
    from synthetic import Size, activation_blocks, image_names, write_synthetic_probe

    from dissect_xr.activations.write import write_activations
    from dissect_xr.dissection.dissect import dissect
    from dissect_xr.dissection.method import Method
    from dissect_xr.parallel.dask_pool import DaskPool
    from dissect_xr.parallel.pool import open_pool

    memory, size = 512 * 2**20, Size(images=54_000, units=2_048, cells=7, labels=28)
    maps = next(activation_blocks(size, 0))
    maps[np.random.default_rng(0).random(maps.shape[:2]) > 0.02] = 0  # most are blank: quick to store and to read
    blocks = (maps[: min(len(maps), size.images - first)] for first in range(0, size.images, len(maps)))
    write_synthetic_probe(str(tmp_path / "probe.zarr"), size)
    names = image_names(size.images)
    write_activations(str(tmp_path / "activations.zarr"), {"layer": blocks}, images=names, snapshot="synthetic")
    assert np.prod(layer_of(tmp_path).shape) * 2 >= 20 * memory

    stores = [str(tmp_path / name) for name in ("activations.zarr", "probe.zarr", "dissection.zarr")]
    with open_pool(workers=2, memory=memory) as pool:
        assert isinstance(pool, DaskPool)
        dissect(*stores, method=Method(anchoring="half_pixel"), pool=pool, show=False)
        peaks = list(pool.client.run(peak_memory).values())
        projected = projection(tmp_path, pool)
    print(f"peaks {[peak >> 20 for peak in peaks]} MiB, projected {projected >> 20} MiB")
    assert len(peaks) == 2
    assert max(peaks) <= 1.2 * projected, (peaks, projected)
