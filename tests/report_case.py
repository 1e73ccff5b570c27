"""A small run whose names try to break out of pages, made without a model: probe, activations, dissection.

Knows: the package's own writers, Pillow.
Does not know: what is tested on it.
"""

from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from PIL import Image

from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.masks import read_masks

SCRIPT = "<script>alert(1)</script>"
NAMES = {
    1: (SCRIPT, "object"),
    2: ('sky & "it\'s" </td>', "object"),
    3: ("wheel\u2028${1}{{ 2 }}", "part"),
    4: ("door", "part"),
    5: ("<img src=x onerror=alert(2)>", "<b>stuff</b>"),
    6: ("wool", "<b>stuff</b>"),
}
SNAPSHOTS = (("early", 0), ("mid <i> &amp; 'way'", 10), ("late", 250))
FRACTIONS = (0.05, 0.2)


def write_run(
    out: Path, *, images: int = 24, units: int = 12, concepts: int = 6, size: int = 24, noise: float = 1
) -> Path:
    """The run directory `out`: three snapshots of `conv1` (6 units) and `conv2`, which the first snapshot lacks.

    Units are after concepts that occur; `noise` 0 makes a detector of every unit but the last, which is dead.
    """
    generator = np.random.default_rng(0)
    labels = _write_images(out, images, concepts, size, generator)
    probe = read_masks(images=out / "images", masks=out / "masks", concepts=out / "concepts.yaml")
    write_probe(probe, str(out / "probe.zarr"), pool=Threads(1), show=False)
    names = [f"{i:03d}.png" for i in range(images)]
    for n, (name, step) in enumerate(SNAPSHOTS):
        layers = {"conv1": _maps(labels, 6, 4, (0.3 * n, noise), generator)}
        if n:
            layers["conv2"] = _maps(labels, units, 8, (0.9 * n, noise), generator)
        info = SnapshotInfo(name, step, {"accuracy": 0.1 + 0.2 * n})
        write_activations(str(out / "activations.zarr"), layers, images=names, snapshot=info)
    dissect(
        str(out / "activations.zarr"),
        str(out / "probe.zarr"),
        str(out / "dissection.zarr"),
        method=Method(FRACTIONS, "half_pixel"),
        pool=Threads(1),
        show=False,
    )
    return out


def results(out: Path, fraction: float = FRACTIONS[0]) -> xr.Dataset:
    """The dissection in memory."""
    return open_dissection(str(out / "dissection.zarr")).sel(fraction=fraction).load()


def _write_images(out: Path, images: int, concepts: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """Images of rectangles of concepts on none, with their masks and the table; returns the masks."""
    table = {n: NAMES.get(n, (f"concept {n}", "object")) for n in range(1, concepts + 1)}
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    labels = np.zeros((images, size, size), np.uint16)
    for image in range(images):
        for _ in range(6):
            row, col = generator.integers(0, size - 6, 2)
            labels[image, row : row + 8, col : col + 8] = generator.integers(1, concepts + 1)
        shade = (labels[image] * 37 % 256).astype(np.uint8)
        Image.fromarray(np.stack([shade, 255 - shade, shade // 2 + 60], axis=-1)).save(out / f"images/{image:03d}.png")
        Image.fromarray(labels[image]).save(out / f"masks/{image:03d}.png")
    rows = {number: {"name": name, "category": category} for number, (name, category) in table.items()}
    (out / "concepts.yaml").write_text(yaml.safe_dump(rows), encoding="utf-8")
    return labels


def _maps(
    labels: np.ndarray, units: int, cells: int, loudness: tuple[float, float], generator: np.random.Generator
) -> np.ndarray:
    """Maps (image, unit, y, x): a signal where the unit's concept lies, and noise, this loud; the last unit is dead."""
    step = labels.shape[1] // cells
    seen = labels[:, step // 2 :: step, step // 2 :: step][:, :cells, :cells]
    wanted = np.resize(np.unique(seen[seen > 0]), units)
    random = generator.standard_normal((len(labels), units, cells, cells), dtype=np.float32)
    maps = loudness[1] * np.maximum(random, 0) + loudness[0] * 3 * (seen[:, None] == wanted[:, None, None])
    maps[:, -1] = 0
    return maps.astype(np.float32)
