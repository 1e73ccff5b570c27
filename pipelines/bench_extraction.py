"""What recording activations costs against the bare forward pass, and what a large network on Broden would cost.

Knows: a ResNet-50-shaped network of random weights, the shapes of a ResNet-152's convolutions.
Does not know: any GPU.
"""

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_rows import Row, median_of, ratio
from PIL import Image
from synthetic import Size, image_names, write_synthetic_probe

from dissect_xr import store
from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.activations.sources import load_model

NETWORKS = Path(__file__).resolve().parents[1] / "tests" / "networks.py"

BRODEN = 63_305
"""Images."""

STAGES = ((3, 64, 56), (8, 128, 28), (36, 256, 14), (3, 512, 7))
"""ResNet-152 at 224 px: blocks, width and cells of each stage; a block has width, width and 4 x width units."""

FLOPS = 11.5 / 4.1
"""Multiply-adds of a ResNet-152 over those of a ResNet-50 (He et al. 2015, Deep residual learning, table 1: 11.3 and
3.8 without the shortcuts)."""


def extraction(folder: Path, runs: int, *, width: int = 64, images: int = 64) -> list[Row]:
    """The five stages of a ResNet-50-shaped network at 224 px against its bare forward pass over decoded images."""
    home, size = folder / f"extraction-{images}", Size(images=images, units=1, cells=1, concepts=16)
    names = image_names(images)
    if not (home / "made").exists():
        shutil.rmtree(home, ignore_errors=True)
        write_synthetic_probe(str(home / "probe.zarr"), size)
        store.update_attrs(str(home / "probe.zarr"), {"root": "images"})
        rng = np.random.default_rng(0)
        (home / "images" / "synthetic").mkdir(parents=True)
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            coarse.resize((224, 224), Image.Resampling.BICUBIC).save(home / "images" / name, quality=90)
        (home / "made").touch()
    spec = ModelSpec.of(f"{NETWORKS}:resnet50_shaped", {"width": width})
    preprocess = Preprocess((224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    stages = ("relu", "layer1", "layer2", "layer3", "layer4")
    model = load_model(spec).eval()
    stages = tuple(name for name in stages if name in dict(model.named_modules()))
    pixels = np.stack([read_image(home / "images" / name, (224, 224)) for name in names])
    batch = 16

    recording = Recording(preprocess, stages, batch=batch)

    def bare() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, images, batch):
                model(to_input(preprocess, pixels[first : first + batch]))
        return time.perf_counter() - start

    def recorded() -> float:
        for path in (home / "activations.zarr", home / "markers" / "activations.zarr"):
            shutil.rmtree(path, ignore_errors=True)
        url = str(home / "activations.zarr")
        extraction = prepare_extraction(url, str(home / "probe.zarr"), SnapshotInfo("s"), spec, recording)
        start = time.perf_counter()
        extract(extraction, show=False)
        return time.perf_counter() - start

    tails = str(home / "tails.zarr")
    wanted = prepare_extraction(
        tails, str(home / "probe.zarr"), SnapshotInfo("s"), spec, replace(recording, keep="tail")
    )
    shutil.rmtree(tails, ignore_errors=True)
    shutil.rmtree(home / "markers" / "tails.zarr", ignore_errors=True)
    extract(wanted, show=False)

    def recorded_tails() -> float:
        """Without the sample, which of many images is a small part: the bounds are stored already."""
        for key in store.markers(tails, "s") - {"s/created"}:
            store.unmark(tails, key)
        start = time.perf_counter()
        extract(wanted, show=False)
        return time.perf_counter() - start

    bare()
    found = median_of(runs, recorded=recorded, recorded_tails=recorded_tails, bare=bare)
    tail_bytes = sum(path.stat().st_size for path in Path(tails).rglob("*") if path.is_file())
    written = sum(path.stat().st_size for path in (home / "activations.zarr").rglob("*") if path.is_file())
    extraction = prepare_extraction(
        str(home / "activations.zarr"), str(home / "probe.zarr"), SnapshotInfo("s"), spec, recording
    )
    raw_image = sum(layer.image_bytes for layer in extraction.layers)
    over = ratio(found, "recorded", "bare")
    seconds = {name: statistics.median(times) for name, times in found.items()}
    rate = f"{images / seconds['recorded']:.1f} images/s, {written / images / 1e6:.2f} MB/image"
    what = f"extraction of {len(stages)} stages of a ResNet-50 (224 px) over its bare forward pass"
    return [
        Row(
            what,
            f"{over:.2f} ({rate})",
            "≤ 1.25",
            over <= 1.25,
            found | {"bytes": written, "images": images, "width": width, "raw_image": raw_image},
        ),
        Row(
            f"{what}, with keep: tail, bounds known",
            f"{ratio(found, 'recorded_tails', 'bare'):.2f}, {tail_bytes / images / raw_image:.3f} of the raw bytes",
            "≤ 1.12",
            ratio(found, "recorded_tails", "bare") <= 1.12,
        ),
    ]


def resnet152() -> dict[int, int]:
    """Units of all convolutions of a ResNet-152 at 224 px, by cells of a row of their maps."""
    units: dict[int, int] = {112: 64}
    for number, (blocks, width, cells) in enumerate(STAGES):
        units[cells] = units.get(cells, 0) + blocks * 6 * width + 4 * width
        if number:
            # The first block's first convolution still has the maps of the stage before.
            units[cells] -= width
            units[2 * cells] += width
    return units


def estimate(found: list[Row]) -> list[Row]:
    """What all convolutions of a ResNet-152 on Broden would take, from rates measured in this run.

    `found` are rows of `passes_against_reading` for every size of maps, two cores each, and of `extraction`.
    """
    rates = {row.figures["cells"]: row.figures for row in found if "maps" in row.figures}
    units = resnet152()
    assert sum(units.values()) == 75_712
    if missing := set(units) - set(rates):
        return [Row("ResNet-152 on Broden", f"not estimated: no rates for maps of {sorted(missing)} cells", "", None)]

    def hours(stage: str) -> float:
        seconds = (statistics.median(rates[c][stage]) / rates[c]["maps"] * n for c, n in units.items())
        return 2 * BRODEN * sum(seconds) / 3600

    raw = 2 * BRODEN * sum(n * cells**2 for cells, n in units.items())
    packed = 2 * BRODEN * sum(n * c**2 * rates[c]["packed"] / rates[c]["raw"] for c, n in units.items())
    tails = 2 * BRODEN * sum(n * c**2 * rates[c]["tail_bytes"] / rates[c]["raw"] for c, n in units.items())
    passes = {stage: hours(stage) for stage in ("read", "thresholds", "counts", "tails")}
    over = passes["tails"] / passes["read"]
    both = passes["thresholds"] + passes["counts"]
    name = "ResNet-152, all 75,712 units of convolutions, on Broden (estimate)"
    rows = [
        Row(f"{name}: bytes", f"{raw / 1e12:.2f} TB raw, {packed / 1e12:.2f} TB stored", "", None),
        Row(
            f"{name}: thresholds + counts",
            f"{both:.1f} core-hours ({both / 64 * 60:.0f} min on 64 cores), of them {2 * passes['read']:.1f} reading",
            "",
            None,
        ),
        Row(f"{name}: bytes of tails", f"{tails / 1e12:.2f} TB", "≤ 0.2 TB", tails <= 0.2e12),
        Row(
            f"{name}: thresholds + counts from tails, over one read of all cells",
            f"{over:.2f} ({passes['tails']:.1f} core-hours)",
            "≤ 1.2",
            over <= 1.2,
        ),
    ]
    for row in found:
        if "recorded" in row.figures and row.figures["width"] == 64:
            bare, recorded = (statistics.median(row.figures[k]) / row.figures["images"] for k in ("bare", "recorded"))
            forward = 2 * BRODEN * FLOPS * bare / 3600
            # Bytes, not units, are what recording adds to the forward pass.
            per_byte = (recorded - bare) / row.figures["raw_image"]
            storing = 2 * max(0.0, per_byte) * raw / 3600
            rows.append(
                Row(
                    f"{name}: store, or recompute for the second pass",
                    f"storing {storing:.0f} core-hours and {2 * passes['read']:.0f} to read twice; "
                    f"a second forward pass {forward:.0f} core-hours on these cores",
                    "",
                    None,
                )
            )
    return rows
