"""What a client does when much is finished already: start a run that finds all done, open many snapshots.

    python pipelines/bench_history.py --folder FOLDER          # a quarter of an hour, 330,000 small files
    python pipelines/bench_history.py --folder FOLDER --short  # a minute

One snapshot is really extracted and dissected. The others are that one again under other names: its objects linked, its
markers written anew, which is what a run of the same model would leave.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

import dissect_xr as dx
from dissect_xr import store
from dissect_xr.store import objects
from dissect_xr.store.seal import SEAL, seal

RUNS = 3


class Chain(nn.Module):
    """So many small layers, one after the other."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(layers - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


def write_recipe(folder: Path, layers: int, images: int, snapshots: int) -> Path:
    """A recipe whose image blocks are as small as can be: one image, of 132 layers."""
    recipe = {
        "probe": {"kind": "digits", "folder": str(folder / "digits"), "count": images, "size": 64},
        "model": {
            "factory": f"{Path(__file__).resolve()}:Chain",
            "kwargs": {"layers": layers},
            "input_size": 32,
            "snapshots": [{"name": f"s{n:04d}", "step": n} for n in range(snapshots)],
        },
        "layers": ["first", "rest.*"],
        "activations": {"memory": 2**20},  # of one image: 132 layers x 2 units x 32 x 32 cells are 0.5 MiB
    }
    path = folder / f"recipe-{snapshots}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


PROGRAM = """
import sys
from dissect_xr.cli.main import main
from bench_rows import peak_memory
try:
    main(sys.argv[1:])
finally:
    print(peak_memory(), file=sys.stderr)
"""


def call(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory in MiB of the command, in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"dissect-xr {' '.join(arguments)} failed: {done.stderr}")
    return time.perf_counter() - before, int(done.stderr.split()[-1]) / 2**20


def clone(url: str, snapshots: int, *, data: bool) -> None:
    """The first snapshot again under the names of the others; without `data`, its markers alone."""
    keys = store.markers(url, "s0000")
    contents = {key: store.marker(url, key) for key in keys}
    for n in range(1, snapshots):
        name, step = f"s{n:04d}", n
        if data:
            shutil.copytree(Path(url, "s0000"), Path(url, name), copy_function=os.link)
            attrs = store.read_attrs(url, "s0000") | {"step": step}
            Path(url, name, "zarr.json").unlink()
            group = store.write_group(url, name, attrs)
        for key in sorted(keys, key=lambda key: key == "s0000/done"):
            content = contents[key]
            assert content is not None
            written = {other.replace("s0000", name, 1): tuple(pair) for other, pair in content["objects"].items()}
            written |= {} if not data else {k: group[k] for k in written.keys() & group.keys()}
            note = content["note"] | ({"step": step} if "step" in content["note"] else {})
            if SEAL in note:
                note[SEAL] = seal(url, name)
            store.mark(
                url, key.replace("s0000", name, 1), fingerprint=content["fingerprint"], written=written, note=note,
                depends_on=[other.replace("s0000", name, 1) for other in content["depends_on"]],
            )  # fmt: skip


def starting(folder: Path, layers: int, images: int, snapshots: int) -> list[str]:
    """Rows about a run over `snapshots` finished snapshots."""
    out = str(folder / "run")
    first, _ = call("run", str(write_recipe(folder, layers, images, 1)), "--out", out, "--quiet")
    for name in ("activations.zarr", "dissection.zarr"):
        clone(f"{out}/{name}", snapshots, data=True)
    recipe = str(write_recipe(folder, layers, images, snapshots))
    call("run", recipe, "--out", out, "--quiet")  # counts nothing, draws the figures of all snapshots once
    files = len(objects.sizes(out))
    before = (Path(out) / "summary.json").read_bytes()
    found = [call("run", recipe, "--out", out, "--quiet") for _ in range(RUNS)]
    assert (Path(out) / "summary.json").read_bytes() == before
    seconds, memory = (statistics.median(values) for values in zip(*found, strict=True))
    return [
        f"| one snapshot of {layers} layers, {images} images, {images} image blocks: the whole run | {first:.1f} s, "
        f"{first / layers:.3f} s a layer | |",
        f"| {files:,} objects finished, {layers} layers x {snapshots} snapshots: a run that finds all done | "
        f"{seconds:.1f} s, {memory:.0f} MiB | 5 s, 250 MiB |",
    ]


def opening(folder: Path, layers: int, snapshots: int) -> list[str]:
    """Rows about opening many snapshots."""
    home = folder / "open"
    call("run", str(write_recipe(folder, layers, 16, 1)), "--out", str(home), "--quiet")
    url = str(home / "dissection.zarr")
    wanted = dx.open_dissection(url)["intersection"].isel(snapshot=0).values
    clone(url, snapshots, data=False)
    times = []
    for _ in range(RUNS):
        before = time.perf_counter()
        ds = dx.open_dissection(url)
        times.append(time.perf_counter() - before)
    assert ds.sizes["snapshot"] == snapshots
    assert len(set(ds["layer"].values)) == layers
    np.testing.assert_array_equal(ds["intersection"].isel(snapshot=0).values, wanted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"| `open_dissection`, {snapshots:,} snapshots x {layers} layers | {statistics.median(times):.1f} s, "
        f"{peak:.0f} MiB with torch | 5 s |"
    ]


def main() -> None:
    """Print the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    sizes = (12, 16, 3, 5, 20) if given.short else (132, 104, 20, 50, 1000)
    layers, images, snapshots, few, many = sizes
    rows = [*starting(given.folder, layers, images, snapshots), *opening(given.folder, few, many)]
    print("| what | measured | target |", "|---|---|---|", *rows, sep="\n")
    shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
