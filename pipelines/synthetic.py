"""Stores of any size with the statistics of real ones, made block by block: what the benchmarks run on.

Activations: ReLU maps, about half of the values zero, strengths of (image, unit) pairs heavy-tailed so that few percent
of the pairs reach a threshold at fraction 0.005. ProbeLabels: piecewise-constant regions in planes of real categories
(a noisy colour plane, objects, sparse parts, materials) and whole-image scenes; frequencies fall off as 1 / rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.activations.write import write_activations
from dissect_xr.probe.label_maps.runs import run_arrays, runs_of, write_runs
from dissect_xr.schema import PROBE, SCHEMA_VERSION

BANK = 1024
"""Distinct map shapes and label layouts that blocks are composed from."""

TAIL = 3.0
"""Standard deviation of the logarithm of strengths: 2 to 3 % of the pairs then reach T."""

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
SHARES = (0.01, 0.45, 0.09, 0.02, 0.39, 0.04)
"""Categories of Broden and the share of its concepts that each has."""


@dataclass(frozen=True)
class Size:
    """A benchmark's size."""

    images: int
    units: int
    cells: int
    """rows and columns of a map"""
    concepts: int = 1197
    planes: int = 4
    labels: int = 112
    """rows and columns of the label grid"""


def image_names(images: int) -> list[str]:
    """Names of synthetic images."""
    return [f"synthetic/{n:06d}.jpg" for n in range(images)]


def write_synthetic_activations(url: str, size: Size, *, seed: int = 0, layer: str = "layer") -> None:
    """Write one layer's activations, a block of images in memory at a time."""
    write_activations(
        url, {layer: activation_blocks(size, seed)}, images=image_names(size.images), snapshot="synthetic", show=False
    )


def activation_blocks(size: Size, seed: int) -> Iterator[NDArray[np.float16]]:
    """Blocks (image, unit, y, x) of about 32 MiB, from at most 512 MiB of distinct images that come again shuffled."""
    rng = np.random.default_rng(seed)
    shapes = _map_bank(size.cells, rng)
    image_bytes = size.units * size.cells**2 * 2
    length = max(1, (32 << 20) // image_bytes)
    distinct = min(size.images, max(length, (512 << 20) // image_bytes))
    base = np.empty((distinct, size.units, size.cells, size.cells), np.float16)
    for first in range(0, distinct, length):
        block = base[first : first + length]
        strength = np.exp(TAIL * rng.standard_normal((len(block), size.units, 1, 1), dtype=np.float32))
        block[:] = np.minimum(shapes[rng.integers(0, BANK, block.shape[:2])] * strength, 6e4)
    for first in range(0, size.images, length):
        yield base[rng.integers(0, distinct, min(length, size.images - first))]


def _map_bank(cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(BANK, y, x) ReLU maps: smooth bumps with noise, about half of the values zero."""
    coarse = max(2, min(cells, 7))
    bumps = rng.standard_normal((BANK, coarse, coarse)).astype(np.float32)
    place = np.linspace(0, coarse - 1, cells)
    low = np.clip(place.astype(int), 0, coarse - 2)
    weight = (place - low).astype(np.float32)
    rows = bumps[:, low] * (1 - weight)[None, :, None] + bumps[:, low + 1] * weight[None, :, None]
    maps = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    return np.maximum(maps + 0.1 * rng.standard_normal(maps.shape).astype(np.float32), 0)


def write_synthetic_probe(url: str, size: Size, *, seed: int = 0) -> None:
    """Write a probe's labels, a block of images in memory at a time."""
    rng = np.random.default_rng(seed)
    layouts = _layout_bank(size.labels, rng)
    noisy = _layout_bank(size.labels, rng, regions=400)
    category = np.repeat(np.arange(len(CATEGORIES)), _split(size.concepts))
    numbers = np.arange(1, size.concepts + 1)
    length = 256
    _create_probe(url, size, category, length)
    most = 0
    areas, images = np.zeros((2, size.concepts), np.int64)
    annotated_images = np.zeros(len(CATEGORIES), np.int64)
    with store.marked(url, "done", fingerprint=store.fingerprint({"seed": seed, "size": str(size)})) as (writer, _):
        for first in range(0, size.images, length):
            n = min(length, size.images - first)
            planes, whole = _labels(n, size, layouts, noisy, category, rng)
            annotated = np.zeros((n, len(CATEGORIES)), np.bool_)
            for i in range(n):
                found = np.bincount(planes[i].ravel(), minlength=size.concepts + 1)[1:]
                found[whole[i, 0] - 1] = size.labels**2
                areas += found
                images += found > 0
                annotated[i, category[found > 0]] = True
            annotated_images += annotated.sum(0)
            writer.write("annotation", (first, 0, 0, 0), planes)
            write_runs(writer, first, length, runs := runs_of(planes))
            most = max(most, runs.most)
            writer.write("whole_image", (first, 0), whole)
            writer.write("annotated", (first, 0), annotated)
        writer.add(store.write_group(url, "", store.read_attrs(url) | {"most_runs": most}))
        writer.write("concept_images", (0,), images)
        writer.write("concept_area", (0,), areas)
        writer.write("domain_area", (0,), annotated_images * size.labels**2)
        for name, values in _coordinates(size, numbers, category):
            writer.write(name, (0,), values)


def _split(concepts: int) -> list[int]:
    counts = [max(1, int(concepts * share)) for share in SHARES]
    counts[1] += concepts - sum(counts)
    return counts


def _layout_bank(labels: int, rng: np.random.Generator, regions: int = 12) -> NDArray[np.uint16]:
    """(64, row, col) maps of region numbers: nearest of `regions` random points."""
    rows, cols = np.mgrid[0:labels, 0:labels].astype(np.float32)
    bank = np.empty((64, labels, labels), np.uint16)
    for n in range(len(bank)):
        best = np.full((labels, labels), np.inf, np.float32)
        for region, (row, col) in enumerate(rng.uniform(0, labels, (regions, 2)).astype(np.float32)):
            distance = (rows - row) ** 2 + (cols - col) ** 2
            closer = distance < best
            best[closer], bank[n][closer] = distance[closer], region
    return bank


def _labels(
    n: int,
    size: Size,
    layouts: NDArray[np.uint16],
    noisy: NDArray[np.uint16],
    category: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Planes (image, plane, row, col) and whole-image labels (image, slot) of a block."""
    planes = np.zeros((n, size.planes, size.labels, size.labels), np.uint16)
    for plane in range(size.planes):
        kind = plane % 4
        mine = np.flatnonzero(category == kind) + 1
        weight = 1 / np.arange(1, mine.size + 1)
        bank = noisy if kind == 0 else layouts
        regions = int(bank.max()) + 1
        chosen = rng.choice(mine, (n, regions), p=weight / weight.sum()).astype(np.uint16)
        # Parts and materials cover a fifth of the picture, objects nearly all of it.
        chosen[rng.random((n, regions)) > {0: 1.0, 1: 0.95}.get(kind, 0.2)] = 0
        picked = rng.integers(0, len(bank), n)
        planes[:, plane] = chosen[np.arange(n)[:, None, None], bank[picked]]
    for later in range(1, size.planes):
        for earlier in range(later):
            planes[:, later][planes[:, later] == planes[:, earlier]] = 0
    scenes = np.flatnonzero(category == 4) + 1
    return planes, rng.choice(scenes, (n, 1)).astype(np.uint16)


def _coordinates(
    size: Size, numbers: NDArray[np.int64], category: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    texts = {
        "image": image_names(size.images),
        "split": ["train"] * size.images,
        "concept_name": [f"concept {n}" for n in numbers],
        "concept_category": [CATEGORIES[c] for c in category],
        "concept_domain": [CATEGORIES[c] for c in category],
        "category": list(CATEGORIES),
        "domain": list(CATEGORIES),
        "plane_category": [CATEGORIES[plane % 4] for plane in range(size.planes)],
    }
    yield "concept", numbers
    yield "parent", np.zeros(size.concepts, np.int64)
    for name, values in texts.items():
        yield name, np.array(values, dtype=object)


def _create_probe(url: str, size: Size, category: NDArray[np.int64], length: int) -> None:
    sizes = {
        "image": size.images, "plane": size.planes, "row": size.labels, "col": size.labels,
        "slot": 1, "domain": len(CATEGORIES), "concept": size.concepts,
    }  # fmt: skip
    arrays = []
    for variable in PROBE.values():
        shape = tuple(sizes[dim] for dim in variable.dims)
        block = tuple(min(length, n) if dim == "image" else n for dim, n in zip(variable.dims, shape, strict=True))
        sharded = variable.name == "annotation" and block[0] % 16 == 0
        chunks = (16, *block[1:]) if sharded else block
        arrays.append(
            store.ArraySpec(
                variable.name, variable.dims, shape, variable.dtype, chunks, block if sharded else None, variable.attrs
            )
        )
    arrays += run_arrays([sizes[dim] for dim in PROBE["annotation"].dims], length)
    dims = {"image": "image", "split": "image", "category": "category", "domain": "domain", "plane_category": "plane"}
    for name, values in _coordinates(size, np.arange(1, size.concepts + 1), category):
        arrays.append(store.coordinate(name, dims.get(name, "concept"), values)[0])
    names = store.fingerprint({"images": image_names(size.images)})
    attrs = {
        "schema_version": SCHEMA_VERSION, "images_sha256": "", "names_sha256": names, "root": "", "parameters": {},
        "label_size": [size.labels] * 2, "has_ignored": False, "turned": {}, "most_runs": 0,
        "coordinates": "split concept_name concept_category concept_domain parent plane_category",
    }  # fmt: skip
    store.create(url, "", arrays, attrs)
