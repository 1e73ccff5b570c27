"""What it costs to write a probe of many images or concepts, against decoding its files.

    python pipelines/bench_ingest.py [--folder bench/ingest] [--images 100000] [--concepts 1200] [--record FILE]

Images and label maps are links to a few hundred files, so that a set of any size is there in seconds; every link is
decoded. Areas are counted from the label maps of these files by themselves, and compared with the probe's. The peak of
memory is that of the process that writes the probe, with one thread; that of a probe of a tenth stands beside it.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bench_rows import MIB, Row, peak_memory, writable, write_section
from numpy.typing import NDArray
from PIL import Image

import dissect_xr as dx
from dissect_xr.parallel.pool import Threads

SECTION = "## Ingest"

DIFFERENT = 256
"""Files that links lead to."""

SIDE = 112
"""Pixels along a side of a label map; images have twice as many."""

OF_IMAGE = 24
"""Concepts of an image."""


def files(folder: Path, concepts: int) -> NDArray[np.int64]:
    """Images and label maps in Broden's numbers (R + 256 G); (file, concept) pixels of each concept."""
    drawn, areas = np.random.default_rng(0), np.zeros((DIFFERENT, concepts + 1), np.int64)
    for n in range(DIFFERENT):
        cells = drawn.choice(np.arange(1, concepts + 1), (OF_IMAGE // 6, 6), replace=concepts < OF_IMAGE)
        labels = np.kron(cells, np.ones((SIDE // (OF_IMAGE // 6), -(-SIDE // 6)), np.int64))[:, :SIDE]
        areas[n] = np.bincount(labels.ravel(), minlength=concepts + 1)
        rgb = np.stack([labels % 256, labels // 256, np.zeros_like(labels)], axis=-1).astype(np.uint8)
        Image.fromarray(rgb).save(folder / f"{n}.png")
        pixels = np.kron(drawn.integers(0, 256, (28, 28, 3)), np.ones((8, 8, 1), np.int64)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.jpg", quality=90)
    return areas[:, 1:]


def broden(folder: Path, images: int, concepts: int) -> NDArray[np.int64]:
    """A set in the Broden layout, and the area of each of its concepts."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    kept = folder / "files"
    kept.mkdir()
    areas = files(kept, concepts)
    with (folder / "index.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "split", "ih", "iw", "sh", "sw", "object"))
        for n in range(images):
            for suffix in ("jpg", "png"):
                os.link(kept / f"{n % DIFFERENT}.{suffix}", folder / "images" / f"{n}.{suffix}")
            rows.writerow((f"{n}.jpg", "train", 2 * SIDE, 2 * SIDE, SIDE, SIDE, f"{n}.png"))
    with (folder / "label.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("number", "name", "category", "frequency", "coverage"))
        rows.writerows((n, f"concept {n}", "object(1)", 1, 1.0) for n in range(1, concepts + 1))
    with (folder / "category.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("name", "first", "last", "count", "frequency"), ("object", 1, concepts, concepts, 1)]
        )
    times = np.bincount(np.arange(images) % DIFFERENT, minlength=DIFFERENT)
    return times @ areas


def decoded(folder: Path, images: int) -> float:
    """Seconds to decode every image and label map, and to do nothing with them."""
    start = time.perf_counter()
    for n in range(images):
        for suffix in ("jpg", "png"):
            with Image.open(folder / "images" / f"{n}.{suffix}") as image:
                image.load()
    return time.perf_counter() - start


def written(folder: Path, images: int, concepts: int) -> tuple[float, int]:
    """Seconds to write the probe, and the peak of memory, in a process of its own; its areas are compared."""
    areas = broden(folder, images, concepts)
    np.save(folder / "areas.npy", areas)
    run = subprocess.run([sys.executable, __file__, "--write", str(folder)], capture_output=True, text=True, check=True)
    seconds, peak = run.stdout.split()
    return float(seconds), int(peak)


def write(folder: Path) -> None:
    """Write the probe of a set, and print seconds and bytes."""
    start = time.perf_counter()
    dx.write_probe(dx.read_broden(folder), folder / "probe.zarr", pool=Threads(1), show=False)
    seconds = time.perf_counter() - start
    found = dx.open_probe(folder / "probe.zarr")["concept_area"].values
    assert np.array_equal(found, np.load(folder / "areas.npy")), "areas differ from those of the files"
    print(seconds, peak_memory())


def measured(folder: Path, images: int, concepts: int) -> list[Row]:
    """The rows of one size."""
    _, small = written(folder, max(DIFFERENT, images // 10), concepts)
    seconds, peak = written(folder, images, concepts)
    some = min(images, 5000)
    each = decoded(folder, some) / some
    over = seconds / images / each
    shutil.rmtree(folder)
    what = f"{images:,} images, {concepts:,} concepts"
    return [
        Row(
            f"{what}: writing the probe over decoding its files",
            f"{over:.2f} ({images / seconds:.0f} images/s, {1 / each:.0f} decoded)",
            "",
            None,
        ),
        Row(
            f"{what}: peak of memory, over that of a tenth of the images",
            f"{peak / small:.2f} ({peak / MIB:.0f} MiB)",
            "≤ 1.5",
            peak <= 1.5 * small,
        ),
    ]


def main() -> None:
    """Measure, print, and write down where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench/ingest"))
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 20_000])
    parser.add_argument("--concepts", type=int, nargs="+", default=[1_200, 65_000])
    parser.add_argument("--record", type=writable, help="Markdown file whose section on ingest is replaced")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.write)
        return
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    rows = [
        row
        for images, concepts in zip(given.images, given.concepts, strict=True)
        for row in measured(given.folder, images, concepts)
    ]
    mark = {True: "met", False: "**missed**", None: ""}
    lines = [
        f"`python pipelines/bench_ingest.py`, one thread; load before: {load}.",
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.measured} | {row.target} | {mark[row.met]} |" for row in rows),
    ]
    print("\n".join(lines))
    if given.record:
        write_section(given.record, SECTION, "\n".join(lines))


if __name__ == "__main__":
    main()
