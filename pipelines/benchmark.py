"""Measures what a dissection costs against the least it could cost: reading the activations.

    python pipelines/benchmark.py --folder DIR [--data DIR] [--short] [--only NAME ...] [--record FILE]

Runs the entry points that `dissect-xr run` runs, on stores with the statistics of real ones (synthetic.py). Everything
that is compared is measured in one run, in turn, and medians are quoted; every counted result is checked. Writes
benchmarks.json into DIR and prints the table; --record puts it under "Figures" in a Markdown file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_dissection import broden, passes_against_reading, scaling, workers
from bench_rows import Row, median_of, ratio, writable, write_section
from synthetic import Size

from dissect_xr.dissection import kernels
from dissect_xr.parallel.dask_pool import DaskPool
from dissect_xr.parallel.pool import open_pool, run_tasks

HERE = Path(__file__).resolve().parent
SECTION = "## Figures"


def scheduling(tasks: int) -> list[Row]:
    """Overhead of small tasks on local processes, beside that of Dask's own client."""
    with open_pool(workers=2) as pool:
        assert isinstance(pool, DaskPool)

        def ours() -> float:
            start = time.perf_counter()
            assert sum(1 for _ in run_tasks(pool, _nothing, range(tasks))) == tasks
            return time.perf_counter() - start

        def bare() -> float:
            start = time.perf_counter()
            futures = [pool.client.submit(_nothing, task, pure=False) for task in range(tasks)]
            assert sum(1 for future in futures if future.result() is not None) == tasks
            return time.perf_counter() - start

        list(run_tasks(pool, _nothing, range(100)))
        found = median_of(3, ours=ours, bare=bare)
    each, over = statistics.median(found["ours"]) / tasks, ratio(found, "ours", "bare")
    what = f"{tasks:,} small tasks on 2 processes, each"
    return [
        Row(what, f"{each * 1e3:.2f} ms", "≤ 5 ms", each <= 5e-3),
        Row(f"{what}, over a bare client.submit", f"{over:.2f}", "≤ 1.5", over <= 1.5),
    ]


def _nothing(task: int) -> int:
    return task


def compile_seconds() -> list[Row]:
    """Time to load or compile the kernels, in a process of its own."""
    code = "import time; t = time.perf_counter(); import benchmark; benchmark.warm(); print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    seconds = float(run.stdout)
    return [Row("imports and cached kernels of a new process", f"{seconds:.1f} s", "", None)]


def warm() -> None:
    """Call the small kernel once."""
    count, run = np.ones((1, 2), np.uint16), np.array([[2, 2], [0, 0]], np.uint16)
    index, at, labelled = np.empty(2, np.int32), np.empty((1, 2, 1), np.int64), np.empty((2, 2), np.int64)
    kernels.index_runs(count, run, 0, np.full(1 << 16, -1, np.int32), index, at, labelled)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "load before": load,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": __import__("zarr").__version__,
    }


def table(found: list[Row], about: dict[str, str]) -> str:
    """The figures as Markdown."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    mark = {True: "met", False: "**missed**", None: ""}
    lines += [f"| {row.what} | {row.measured} | {row.target} | {mark[row.met]} |" for row in found]
    return "\n".join([*(f"- {name}: {value}" for name, value in about.items()), "", *lines])


def together(earlier: list[Row], found: list[Row]) -> list[Row]:
    """Rows of an earlier run in the same folder, and those found now in their place or after them."""
    rows = {row.what: row for row in earlier} | {row.what: row for row in found}
    return list(rows.values())


def parts(folder: Path, data: Path | None, *, short: bool) -> dict[str, Callable[[], list[Row]]]:
    """What can be measured, by name."""
    # Not above: worker processes import this file again, and torch would be counted as their memory.
    from bench_camvid import camvid
    from bench_extraction import extraction
    from bench_others import dense_baseline, gathering

    runs, n = (1, 1024) if short else (5, 8192)

    def passes(
        units: int, cells: int, images: int, target: float | None, tails: float = 1.5
    ) -> Callable[[], list[Row]]:
        size = Size(images, units, cells)
        return lambda: passes_against_reading(
            folder, f"{units} units of {cells}x{cells}", size, runs, count_target=target, tail_target=tails
        )

    found: dict[str, Callable[[], list[Row]]] = {
        "2048x7x7": passes(2048, 7, n, 4.0, 2.5),
        "7x7": passes(512, 7, 2 * n, 4.0, 3.5),
        "14x14": passes(512, 14, n // 2, None),
        "28x28": passes(256, 28, n // 4, 2.0),
        "56x56": passes(128, 56, n // 8, 2.0),
        "112x112": passes(64, 112, n // 16, 2.0),
        "dense": lambda: dense_baseline(folder, runs),
        "scaling": lambda: scaling(folder, runs, Size(n // 2, 512, 7)),
        "workers": lambda: workers(folder, runs, Size(n, 512 if short else 2048, 7)),
        "gathering": lambda: [
            row
            for size, block in (
                (Size(n // 4, 512, 7), 1024),
                (Size(n // 8, 256, 28), 1024),
                (Size(n // 8, 256, 28), 64),
            )
            for row in gathering(folder, runs, size, block)
        ],
        "scheduling": lambda: scheduling(500 if short else 10_000),
        "extraction": lambda: extraction(folder, runs, width=8 if short else 64, images=32 if short else 64),
        "compile": compile_seconds,
    }
    if not short:
        found["broden"] = lambda: broden(folder, Size(images=63_305, units=2_048, cells=7))
    if data is not None:
        found["camvid"] = lambda: camvid(folder, data)
    return found


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where stores are made; 15 GB, with --short 0.5 GB")
    parser.add_argument("--data", type=Path, help="the folder with CamVid, for the part camvid")
    parser.add_argument("--short", action="store_true", help="small sizes, one run each, two minutes")
    parser.add_argument(
        "--only", nargs="*", help="parts to run; the others' figures stay those of the folder's last run"
    )
    parser.add_argument("--record", type=writable, help="Markdown file whose section of figures is replaced")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    chosen = {
        k: part
        for k, part in parts(given.folder, given.data, short=given.short).items()
        if not given.only or k in given.only
    }
    about, results = machine(), given.folder / "benchmarks.json"
    earlier = json.loads(results.read_text())["rows"] if given.only and results.exists() else []
    found = [Row(**row) for row in earlier]
    for part in chosen.values():
        rows = part()
        for row in rows:
            print(f"{row.what}: {row.measured}  {row.target}  {'' if row.met is None else row.met}", flush=True)
        found = together(found, rows)
        results.write_text(json.dumps({"machine": about, "rows": [vars(row) for row in found]}, indent=1))
    from bench_extraction import estimate

    text = table(together(found, estimate(found)), about)
    print(text)
    if given.record:
        write_section(given.record, SECTION, text)


if __name__ == "__main__":
    main()
