"""The figure that a run leaves of each experiment.

Knows: which functions draw it, and what they need of the run.
Does not know: how it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dissect_xr.analysis.results import open_dissection
from dissect_xr.exemplars.masks import Stores
from dissect_xr.experiments.ablation import open_ablation
from dissect_xr.experiments.cam import open_cam
from dissect_xr.experiments.classes import open_classes
from dissect_xr.experiments.explanation import open_explanation
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.plot.experiments.ablation import ablation_curves, importance_and_iou
from dissect_xr.plot.experiments.cam import located_images
from dissect_xr.plot.experiments.classes import class_units
from dissect_xr.plot.experiments.explanation import explained_images


def save_figure(url: str, kind: str, run: RunStores, path: Path, *, dpi: int = 120) -> None:
    """Draw the figure of a finished experiment of this kind, and write it as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = FIGURES[kind](url, run).get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=dpi)


def _ablation(url: str, run: RunStores) -> Axes:
    """What there is of both: curves may not have been asked for, and IoU is that of dissected layers."""
    ds = open_ablation(url).load()
    has_curves, has_iou = bool(ds["curve"].notnull().any()), bool(np.isfinite(ds["iou"].values).any())
    axes = Figure(figsize=(5.5 * max(1, has_curves + has_iou), 4.2), layout="constrained").subplots(
        1, max(1, has_curves + has_iou), squeeze=False
    )[0]
    if has_curves:
        ablation_curves(ds, ax=axes[0])
    if has_iou:
        importance_and_iou(ds, ax=axes[-1])
    first: Axes = axes[0]
    return first


def _classes(url: str, run: RunStores) -> Axes:
    ds = open_classes(url).load()
    dissection = open_dissection(run.dissection).sel(
        snapshot=ds.attrs["snapshot"], fraction=ds.attrs["joined_fraction"]
    )
    return class_units(ds, dissection, Stores(run.activations, run.probe), show=False)


def _explanation(url: str, run: RunStores) -> Axes:
    return explained_images(open_explanation(url), run.probe)


def _cam(url: str, run: RunStores) -> Axes:
    return located_images(open_cam(url), run.probe)


FIGURES: dict[str, Callable[[str, RunStores], Axes]] = {
    "ablation": _ablation,
    "classes": _classes,
    "explanation": _explanation,
    "cam": _cam,
}
"""Kind of experiment -> what draws its figure."""
