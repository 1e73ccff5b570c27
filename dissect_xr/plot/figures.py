"""The figures that a run writes to its folder.

Knows: which figures these are, and their file names.
Does not know: how they are drawn (`concepts`, `bases`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import xarray as xr
from matplotlib.axes import Axes

from dissect_xr.analysis.bases import basis_detectors, derived_layers, present, recorded
from dissect_xr.plot.bases import ROTATIONS, rotation_curve
from dissect_xr.plot.concepts import concept_bars, emergence


def save_figures(ds: xr.Dataset, folder: Path) -> Iterator[Path]:
    """Write PNG files into `folder` and yield their paths; computes.

    For each fraction these are the concepts of the last snapshot and, where there are several snapshots, the unique
    detectors over training steps, by layer and by category: all of recorded layers. Of each layer that is rotated there
    is a curve over alpha, of the last snapshot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = str(ds["snapshot"].values[-1])
    for fraction in ds["fraction"].values:
        one = present(ds.sel(fraction=fraction, snapshot=last))
        there, derived = set(one["layer"].values.tolist()), derived_layers(ds)
        turned = {d["layer"] for name, d in derived.items() if name in there and d["basis"]["kind"] in ROTATIONS}
        for layer in sorted(turned & there):
            curve = rotation_curve(basis_detectors(one, layer))
            yield _save(curve, folder, f"rotation-{layer}-{last}-{fraction:g}")
        at = recorded(ds.sel(fraction=fraction))
        yield _save(concept_bars(at.sel(snapshot=last)), folder, f"concepts-{last}-{fraction:g}")
        if ds.sizes["snapshot"] > 1:
            yield _save(emergence(at), folder, f"emergence-layers-{fraction:g}")
            yield _save(emergence(at, per="category"), folder, f"emergence-categories-{fraction:g}")


def _save(axes: Axes, folder: Path, name: str) -> Path:
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.png"
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=120)
    return path
