"""The figures that are compared with `tests/baseline/`, drawn from a seed. `python tests/figures.py` draws them anew.

Knows: which figure is drawn of what.
Does not know: what is tested on them. Look at new ones before they are committed.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from checkout import TESTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictured import pictured
from questions import ablated, classified, explained, found_at
from rotated import rotated
from trained import CUTOFF, dissection

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.networks import compare_networks
from dissect_xr.plot import bases, compare, concepts, networks, units
from dissect_xr.plot.experiments.ablation import ablation_curves, importance_and_iou
from dissect_xr.plot.experiments.cam import located_images
from dissect_xr.plot.experiments.classes import class_units
from dissect_xr.plot.experiments.explanation import explained_images
from dissect_xr.probe.ingest import open_probe

BASELINE = TESTS / "baseline"
DPI = 60


def _of_one(function: Callable[..., Axes]) -> Axes:
    return function(dissection(units=40).isel(snapshot=3), cutoff=CUTOFF)


def _fainter(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(intersection=ds["intersection"] // 3)


def _networks() -> Axes:
    networks = {f"network {n}": _fainter(dissection(n, units=40).isel(snapshot=n)) for n in range(4)}
    return compare.networks_compared(networks, cutoff=0.17)


def _gallery() -> Axes:
    with pictured() as (ds, stores):
        base = ds.isel(snapshot=0)
        return units.gallery(base, stores, ["conv/0", "conv/2", "conv/3"], k=3, size=72, show=False)


def _before_after() -> Axes:
    with pictured() as (ds, stores):
        return compare.before_after(ds, stores, ("base", "tuned"), units=["conv/0", "conv/3"], k=2, show=False)


def _class_units() -> Axes:
    with pictured() as (ds, stores):
        base = ds.isel(snapshot=0)
        result = classified(base["unit"].values.tolist(), best_concept(base).compute())
        return class_units(result, base, stores, classes=["ski resort"], k=3, size=72, show=False)


def _explained_images() -> Axes:
    with pictured() as (_, stores):
        probe = open_probe(stores.probe)
        result = explained(probe["image"].values[[3, 5]].tolist(), (probe.sizes["row"], probe.sizes["col"]))
        return explained_images(result, stores.probe, size=72)


def _located_images() -> Axes:
    with pictured() as (_, stores):
        probe = open_probe(stores.probe)
        result = found_at(probe["image"].values[:10].tolist(), (probe.sizes["row"], probe.sizes["col"]))
        return located_images(result, stores.probe, most=3, size=72)


def _several() -> xr.Dataset:
    """Four networks: the snapshots of one, the last of which has a layer less."""
    ds = dissection(units=40)
    parts = {str(ds["snapshot"].values[n]): ds.isel(snapshot=n) for n in range(4)}
    last = list(parts)[-1]
    parts[last] = parts[last].isel(unit=np.flatnonzero(parts[last]["layer"].values == "late"))
    return compare_networks(parts, cutoff=CUTOFF)


FIGURES: dict[str, Callable[[], Axes]] = {
    "concept_bars": lambda: _of_one(concepts.concept_bars),
    "emergence": lambda: concepts.emergence(dissection(units=40), per="category", cutoff=CUTOFF),
    "iou_histogram": lambda: _of_one(units.iou_histogram),
    "cutoff_curve": lambda: units.cutoff_curve(_fainter(dissection(units=40).isel(snapshot=3))),
    "evolution": lambda: units.evolution(dissection(), ["early/1", "late/6"], cutoff=CUTOFF),
    "layers_compared": lambda: _of_one(compare.layers_compared),
    "networks_compared": _networks,
    "shared_vocabularies": lambda: networks.shared_vocabularies(_several()),
    "over_depth": lambda: networks.over_depth(_several()),
    "fine_tuning": lambda: compare.fine_tuning(dissection(units=40), cutoff=CUTOFF),
    "gallery": _gallery,
    "before_after": _before_after,
    "ablation_curves": lambda: ablation_curves(ablated()),
    "importance_and_iou": lambda: importance_and_iou(ablated()),
    "class_units": _class_units,
    "explained_images": _explained_images,
    "located_images": _located_images,
    "rotation_curve": lambda: bases.rotation_curve(rotated()),
    "rotation_curve_categories": lambda: bases.rotation_curve(rotated(), per="category", count="by_category"),
}


def save(name: str, path: Path) -> None:
    """Draw one figure with matplotlib's own settings and font, whatever is configured on this machine."""
    with mpl.rc_context():
        mpl.rcdefaults()
        axes = FIGURES[name]()
        assert isinstance(axes.figure, Figure)
        axes.figure.savefig(path, dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    for figure in FIGURES:
        save(figure, BASELINE / f"{figure}.png")
