"""Stores twenty times larger than what a task may use: measured memory stays by the projection."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import stores
from checkout import PIPELINES
from numpy.typing import NDArray
from strategies import ProbeCase

from dissect_xr import store

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
    from repeated import write_repeated
    from synthetic import Size, activation_blocks, write_synthetic_probe

    from dissect_xr.dissection import cut
    from dissect_xr.dissection.labels import open_labels
    from dissect_xr.dissection.layers import open_layer
    from dissect_xr.dissection.passes import count_blocks, count_sizes

    shard, times = Size(images=1_024, units=512, cells=7, concepts=300, planes=2, labels=56), 14
    write_synthetic_probe(str(tmp_path / "probe.zarr"), replace(shard, images=times * shard.images))
    maps = np.concatenate(list(activation_blocks(shard, 0)))
    write_repeated(str(tmp_path / "activations.zarr"), maps, times)
    layer = open_layer(str(tmp_path / "activations.zarr"), "synthetic", "layer")
    labels = open_labels(str(tmp_path / "probe.zarr"))
    assert np.prod(layer.shape) * 2 >= 20 * MEMORY

    # Where no kernel was compiled yet, that takes a hundred MiB: a smaller store has them cached.
    warm = tmp_path / "warm"
    write_synthetic_probe(str(warm / "probe.zarr"), shard)
    write_repeated(str(warm / "activations.zarr"), maps, 1)
    for home in (warm, tmp_path):
        command = [sys.executable, "-c", DISSECT, str(home), str(MEMORY), str(PIPELINES)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    block = count_blocks(layer, labels, 1, cut.Limits(MEMORY, 2))[0][0]
    projection = cut.projected(layer, block, **count_sizes(labels, 1, MEMORY)).total
    assert projection <= MEMORY
    # What the process has before it reads anything, kernels and zarr's threads included, is RESIDENT.
    assert peak <= 1.2 * (max(before, cut.RESIDENT) + projection), (before, peak, projection)


AUTOENCODER = """
import sys
sys.path.insert(0, sys.argv[3])
from bench_rows import peak_memory
from dissect_xr.parallel.pool import Threads
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.dissect import dissect

home, memory = sys.argv[1], int(sys.argv[2])
before = peak_memory()
dissect(
    home + "/activations.zarr", home + "/probe.zarr", home + "/out.zarr", only=[("s", "blocks.11@matrix-sae")],
    method=Method((0.01,), "half_pixel"), pool=Threads(2, memory=memory), show=False,
)
print(before, peak_memory())
"""


@pytest.mark.slow
def test_latents_of_an_autoencoder_are_dissected_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16,384 latents of a layer of 768 units, 14 x 14: on two threads, in less memory than their maps would take."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    from synthetic import Size, image_names, write_synthetic_probe

    from dissect_xr.activations.write import write_activations
    from dissect_xr.bases.basis import MatrixBasis
    from dissect_xr.bases.derive import derive
    from dissect_xr.dissection import cut
    from dissect_xr.dissection.labels import open_labels
    from dissect_xr.dissection.layers import open_layer
    from dissect_xr.dissection.passes import count_blocks, count_sizes, threshold_blocks, threshold_sizes

    images, latents, memory = 72, 16_384, 160 * 2**20
    random = np.random.default_rng(0)
    maps = random.normal(size=(images, 768, 14, 14)).astype(np.float16)
    encoder = (random.normal(size=(latents, 768)) / np.sqrt(768)).astype(np.float32)
    bias = np.full(latents, -2, np.float32)
    np.save(tmp_path / "sae.npy", encoder)
    np.save(tmp_path / "bias.npy", bias)
    url, probe = str(tmp_path / "activations.zarr"), str(tmp_path / "probe.zarr")
    write_synthetic_probe(probe, Size(images=images, units=0, cells=14, concepts=60, planes=1, labels=28))
    write_activations(url, {"blocks.11": maps}, images=image_names(images), snapshot="s", show=False)
    sae = MatrixBasis(str(tmp_path / "sae.npy"), bias=str(tmp_path / "bias.npy"), relu=True)
    (name,) = derive(url, "blocks.11", sae, show=False)

    command = [sys.executable, "-c", AUTOENCODER, str(tmp_path)]
    run = subprocess.run([*command, str(memory), str(PIPELINES)], capture_output=True, text=True, check=True)
    before, peak = map(int, run.stdout.split())
    layer, labels, limits = open_layer(url, "s", name), open_labels(probe), cut.Limits(memory, 4)
    sizes = count_sizes(labels, 1, memory)
    needed = [cut.projected(layer, count_blocks(layer, labels, 1, limits)[0][0], **sizes).total]
    needed += [cut.projected(layer, threshold_blocks(layer, limits)[0][0], **threshold_sizes(layer, memory)).total]
    assert max(needed) <= memory
    allowed = 1.2 * (max(before, cut.RESIDENT) + 2 * max(needed))
    dense = images * latents * 14 * 14 * 2
    assert peak <= allowed < cut.RESIDENT + dense, (before, peak, needed)
    check_latents(tmp_path, name, maps, encoder, bias)


def check_latents(
    folder: Path, name: str, maps: NDArray[np.float16], encoder: NDArray[np.float32], bias: NDArray[np.float32]
) -> None:
    """Some latents' thresholds and counts are the oracle's."""
    probe = str(folder / "probe.zarr")
    numbers, kinds = store.read(probe, "concept")[:], store.read(probe, "concept_category")[:].tolist()
    names = tuple(store.read(probe, "category")[:].tolist())
    case = ProbeCase(
        store.read(probe, "annotation")[:],
        store.read(probe, "whole_image")[:],
        numbers.astype(np.uint16),
        np.array([names.index(kind) for kind in kinds]),
        names,
    )
    out = str(folder / "out.zarr")
    assert store.read(out, f"s/{name}/threshold").shape == (1, len(encoder))
    for latent in (0, 5_001, 16_383):
        wanted = stores.expected(
            oracle.derived(maps, encoder[[latent]], bias[[latent]], relu=True), case, [0.01], stores.HALF_PIXEL,
            "annotated",
        )  # fmt: skip
        assert wanted["intersection"].any()
        for variable in ("threshold", "exceedance", "intersection", "dead"):
            got = store.read(out, f"s/{name}/{variable}")[:, latent : latent + 1]
            np.testing.assert_array_equal(got, wanted[variable], err_msg=variable)


@pytest.mark.slow
def test_workers_of_512_mib_stay_by_the_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PIPELINES))
    from bench_dissection import layer_of, projection
    from bench_rows import peak_memory
    from repeated import write_repeated
    from synthetic import Size, activation_blocks, write_synthetic_probe

    from dissect_xr.dissection.dissect import dissect
    from dissect_xr.dissection.method import Method
    from dissect_xr.parallel.dask_pool import DaskPool
    from dissect_xr.parallel.pool import open_pool

    memory, shard, times = 512 * 2**20, Size(images=512, units=2_048, cells=7, labels=28), 105
    maps = np.concatenate(list(activation_blocks(shard, 0)))
    maps[np.random.default_rng(0).random(maps.shape[:2]) > 0.02] = 0  # most are blank: quick to read
    write_synthetic_probe(str(tmp_path / "probe.zarr"), replace(shard, images=times * len(maps)))
    write_repeated(str(tmp_path / "activations.zarr"), maps, times)
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
