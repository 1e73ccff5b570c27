"""A store twenty times larger than what a task may plan with: measured memory stays by the projection."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"

MEMORY = 32 * 2**20
"""Bytes a task may plan with."""

DISSECT = """
import resource, sys
from dissect_xr.cluster import Threads
from dissect_xr.dissection.dissect import Method, dissect

home, memory = sys.argv[1], int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
dissect(
    home + "/activations.zarr", home + "/probe.zarr", home + f"/{memory}.zarr",
    method=Method(anchoring="half_pixel"), pool=Threads(1, memory=memory), show=False,
)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_stays_by_the_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    from synthetic import Size, write_synthetic_activations, write_synthetic_probe

    from dissect_xr.dissection import blocks
    from dissect_xr.dissection.labels import open_labels
    from dissect_xr.dissection.layers import open_layer
    from dissect_xr.dissection.passes import tally_blocks, tally_sizes

    size = Size(images=13_500, units=512, cells=7, concepts=300, planes=2, labels=56)
    write_synthetic_probe(str(tmp_path / "probe.zarr"), size)
    write_synthetic_activations(str(tmp_path / "activations.zarr"), size)
    layer = open_layer(str(tmp_path / "activations.zarr"), "synthetic", "layer")
    labels = open_labels(str(tmp_path / "probe.zarr"))
    assert np.prod(layer.shape) * 2 >= 20 * MEMORY

    command = [sys.executable, "-c", DISSECT, str(tmp_path)]
    run = subprocess.run([*command, str(MEMORY)], capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    block = tally_blocks(layer, labels, 1, (MEMORY, 1))[0][0]
    projection = blocks.projected(layer, block, **tally_sizes(labels, 1, MEMORY)).total
    assert projection <= MEMORY
    # What the process has before it does anything, kernels and zarr's threads included, is RESIDENT.
    assert peak <= 1.2 * (max(before, blocks.RESIDENT) + projection), (before, peak, projection)
