"""Figures of an ablation: how well classes are recognised without units, and whether units with a concept matter more.

Knows: matplotlib Axes, and the Dataset of `open_ablation`.
Does not know: files, or how a unit is ablated.

Every function draws on the Axes given or on those of a new Figure, and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import important_classes
from dissect_xr.plot.axes import new_axes
from dissect_xr.plot.label_positions import step_ticks
from dissect_xr.plot.palette import category_colors, in_order
from dissect_xr.schema import CUTOFF

LINES = {
    ("ranked", "top"): ("the most important units", "#D55E00", "-"),
    ("greedy", "top"): ("chosen greedily", "#D55E00", ":"),
    ("ranked", "all_but_top"): ("all but the most important units", "#0072B2", "-"),
    ("greedy", "all_but_top"): ("all but those chosen greedily", "#0072B2", ":"),
}
"""(order, what is ablated) -> name, color and style of the line."""


def ablation_curves(ds: xr.Dataset, *, classes: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Lines of balanced accuracy over the number of most important units, ablated or left; computes.

    A line is the mean over classes, each with its own units; its band is the standard error of that mean. The dashed
    line is the whole network.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.ablation.open_ablation`.
    classes
        Classes to show; all that have curves if absent.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If none of the classes has curves.

    References
    ----------
    Bau et al. 2020, figure 3.
    """
    shown = ds if classes is None else ds.sel({"class": list(classes)})
    curve = shown["curve"].load()
    have = curve.notnull().any(["order", "ablated", "size"]).values
    if not have.any():
        raise DissectError("none of these classes has curves: ask for them (curves: all), or name others.")
    curve, whole = curve.isel({"class": have}), shown["balanced_accuracy"].isel(split=1).values[have]
    ax = new_axes(6.0, 4.2) if ax is None else ax
    sizes = curve["size"].values
    for (order, ablated), (name, color, style) in LINES.items():
        line = curve.sel(order=order, ablated=ablated).transpose("size", "class").values
        there = ~np.isnan(line).all(axis=1)
        if not there.any():
            continue
        middle = np.nanmean(line[there], axis=1)
        if have.sum() > 1:
            error = np.nanstd(line[there], axis=1, ddof=1) / np.sqrt(have.sum())
            ax.fill_between(sizes[there], middle - error, middle + error, color=color, alpha=0.12, linewidth=0)
        ax.plot(sizes[there], middle, color=color, linestyle=style, marker="o", markersize=4, label=name)
    ax.axhline(float(np.mean(whole)), color="black", linestyle="--", linewidth=0.8, label="nothing ablated")
    ax.axhline(0.5, color="0.6", linewidth=0.8, zorder=0)
    ax.annotate("chance", (1, 0.5), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", fontsize=7, color="0.4")  # fmt: skip
    ax.set_ylim(top=1)
    ax.set_xscale("log")
    step_ticks(ax, sizes)
    ax.set_xlabel("number of units")
    ax.set_ylabel("balanced accuracy")
    count = int(have.sum())
    named = str(curve["class"].values[0]) if count == 1 else f"mean of {count} classes"
    ax.set_title(f"{ds.attrs['layer']}: {named}", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def importance_and_iou(ds: xr.Dataset, *, most: int = 4, ax: Axes | None = None) -> Axes:
    """Points of the units: the classes that each matters to, and its IoU with its concept; computes.

    Units are colored by the category of their label. The black line is the mean IoU of the units that matter to so many
    classes.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.ablation.open_ablation`, of a layer that is dissected.
    most
        A unit matters to a class if it is among so many of the most important ones.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If the layer is not dissected.

    References
    ----------
    Bau et al. 2020, figure 4.
    """
    iou = ds["iou"].values
    if np.isnan(iou).all():
        raise DissectError(f"layer {ds.attrs['layer']} is not dissected: its units have no IoU. Add it to the recipe.")
    count = important_classes(ds, most=most).values
    ax = new_axes(5.0, 4.2) if ax is None else ax
    kinds = ds["concept_category"].values
    categories = in_order(list(dict.fromkeys(kind for kind in kinds.tolist() if kind)))
    colors = category_colors(categories)
    for category in categories:
        mine = kinds == category
        ax.scatter(count[mine], iou[mine], s=16, color=colors[category], alpha=0.8, label=category)
    steps = np.unique(count[~np.isnan(iou)])
    means = [float(np.nanmean(iou[count == step])) for step in steps]
    ax.plot(steps, means, color="black", marker="_", markersize=12, linewidth=1, label="mean")
    ax.axhline(CUTOFF, color="black", linestyle="--", linewidth=0.8, zorder=0)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"classes for which the unit is among the {most} most important")
    ax.set_ylabel("IoU with its label")
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
