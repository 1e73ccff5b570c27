"""A dissection with images worth looking at: the built-in digits, and maps of how red, dark, bright or edged they are.

Knows: the package's own writers, NumPy.
Does not know: a network, what is tested or drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from stores import scratch

from dissect_xr import store
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.exemplars.masks import Stores
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.broden import read_broden

IMAGES = 60
UNITS = ("red", "dark", "bright", "edges")


def _maps(path: Path) -> NDArray[np.float16]:
    """Maps (unit, 12, 12) of one image."""
    pixels = np.asarray(Image.open(path).convert("RGB").resize((48, 48)), np.float64) / 255
    grey = pixels.mean(axis=2)
    edges = np.abs(np.diff(grey, axis=0, append=0)) + np.abs(np.diff(grey, axis=1, append=0))
    fine = np.stack([pixels[..., 0] - pixels[..., 1:].mean(axis=2), 1 - grey, grey, edges])
    return fine.reshape(len(UNITS), 12, 4, 12, 4).mean(axis=(2, 4)).astype(np.float16)


def write(folder: Path) -> tuple[xr.Dataset, Stores]:
    """The stores in `folder`; in the snapshot `tuned` the units have changed places."""
    digits, probe, activations = (
        write_digits(folder / "digits", images=IMAGES, show=False),
        folder / "probe.zarr",
        folder / "a.zarr",
    )
    write_probe(read_broden(digits), str(probe), show=False)
    names = store.read(str(probe), "image")[:].tolist()
    maps = np.stack([_maps(digits / "images" / name) for name in names])
    for step, (name, order) in enumerate({"base": [0, 1, 2, 3], "tuned": [3, 2, 1, 0]}.items()):
        snapshot = SnapshotInfo(name, step=step)
        write_activations(str(activations), {"conv": maps[:, order]}, images=names, snapshot=snapshot)
    out = str(folder / "dissection.zarr")
    dissect(str(activations), str(probe), out, method=Method((0.02,), "half_pixel"), show=False)
    return open_dissection(out).isel(fraction=0), Stores(str(activations), str(probe))


@contextmanager
def pictured() -> Iterator[tuple[xr.Dataset, Stores]]:
    """The same in a folder that is gone afterwards."""
    with scratch() as folder:
        yield write(folder)
