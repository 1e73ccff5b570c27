"""A small run for tests of what happens to runs: a recipe, its network and images, and what must come out of it.

Knows: the command line, where a run's stores lie.
Does not know: what is done to the run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from dissect_xr import store
from dissect_xr.cli.main import main
from dissect_xr.dissection import cut, thresholds
from dissect_xr.store import objects
from dissect_xr.store.verify import STORES

NETWORK = """
import os
import time

from torch import nn


class Small(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 2), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW_FORWARD", "0")))
        return self.head(self.second(self.first(x)).mean((2, 3)))
"""

RECIPE = """
probe: {kind: broden, folder: "${data}"}
model:
  factory: ${here}/network.py:Small
  input_size: 24
  snapshots:
    - {name: first, step: 0, seed: 0, metrics: {accuracy: 0.1}}
    - {name: second, step: 5, seed: 1, metrics: {accuracy: 0.5}}
layers: [first, second]
activations: {memory: 1048576, threads: 1}
dissect: {fractions: [0.01, 0.1]}
"""


Size = Literal["small", "large"]

SIZES: tuple[Size, ...] = ("small", "large")
"""What a dissection takes the layers of this network for: small ones are a task each, large ones go in steps."""


@contextmanager
def layers_are(size: Size) -> Iterator[None]:
    """Commands given in this process take all layers for small or for large ones; workers do as they are told.

    Large ones are sampled, too, although they have few chunks.
    """
    if size == "small":
        yield
        return
    with patch.object(cut, "READ_BYTES", 64), patch.object(thresholds, "LEAST_CHUNKS", 1):
        yield


def write_recipe(folder: Path, recipe: str = RECIPE) -> Path:
    """The recipe and its network in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.py").write_text(NETWORK)
    (folder / "recipe.yaml").write_text(recipe)
    return folder / "recipe.yaml"


def call(*arguments: str) -> int:
    """Exit code of the command in this process."""
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def blocks(out: Path) -> dict[str, int]:
    """Marker -> when it was written, but for the `done` that only says that others are all there."""
    found = {}
    for path in Path(out, "markers").rglob("*.json"):
        if path.name != "done.json" or not json.loads(path.read_bytes().rpartition(b"\n")[0])["depends_on"]:
            found[path.relative_to(out / "markers").with_suffix("").as_posix()] = path.stat().st_mtime_ns
    return found


def forget_summary(out: Path) -> None:
    """Remove what a run has kept of what it showed at its end, so that the next one reads the results again."""
    Path(out, "summary.json").unlink(missing_ok=True)


def urls(out: str) -> list[str]:
    """The stores of a run."""
    return [store.join(out, name) for name in STORES]


def contents(out: str) -> dict[str, Any]:
    """Every array, decoded, as bytes and every group's attributes, but the folder that the images lie in."""
    found: dict[str, Any] = {}
    for url in urls(out):
        for key in objects.sizes(url):
            path, _, name = key.rpartition("/")
            if name != "zarr.json" and key != "zarr.json":
                continue
            place = f"{url.rsplit('/', 1)[1]}:{path}"
            metadata = json.loads(objects.read(url, key) or b"")
            if metadata["node_type"] == "group":
                found[place] = {k: v for k, v in store.read_attrs(url, path).items() if k != "root"}
            else:
                values = store.read(url, path)[...]
                text = values.dtype.kind not in "iufb"
                found[place] = (metadata["attributes"], values.shape, values.tolist() if text else values.tobytes())
    return found
