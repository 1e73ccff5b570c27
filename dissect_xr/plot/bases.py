"""The figure of unique detectors in several bases of a layer.

Knows: matplotlib Axes, the colors of `palette`.
Does not know: files, or how a detector is found.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from dissect_xr.analysis.bases import RECORDED, over_alpha
from dissect_xr.analysis.detectors import Count
from dissect_xr.errors import DissectError
from dissect_xr.plot.axes import new_axes
from dissect_xr.plot.palette import category_colors, in_order

ROTATIONS = {"rotation": "-", "rotation_2017": "--"}
"""Kinds that have a curve over alpha, and how it is drawn."""

TOTAL = "all categories"


def rotation_curve(
    found: xr.Dataset,
    *,
    count: Count = "by_unit",
    per: Literal["total", "category"] = "total",
    ax: Axes | None = None,
) -> Axes:
    """Unique detectors against alpha, the share of the way to a random rotation, with a band over seeds.

    A line is the mean over seeds, its band reaches from the lowest to the highest. Dotted lines are the layer itself.
    Other bases stand to the right of the curve, a bar from the lowest to the highest where there are several seeds.

    Parameters
    ----------
    found
        What :func:`dissect_xr.basis_detectors` gives.
    count
        How detected concepts are counted, see :func:`dissect_xr.unique_detectors`.
    per
        Whether there is one line for all categories together, or a line per category.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `found` holds no rotation.

    References
    ----------
    Bau et al. 2017, figure 4.
    """
    if per not in ("total", "category"):
        raise DissectError(f"per is {per!r}: expected total or category.")
    kinds = found["kind"].values
    curves = {kind: over_alpha(found, kind=kind)[count] for kind in ROTATIONS if (kinds == kind).any()}
    if not curves:
        over_alpha(found)  # raises, naming what there is
    categories = in_order(found["category"].values.tolist())
    colors = category_colors(categories) if per == "category" else {TOTAL: "black"}
    ax = new_axes(7.0, 4.2) if ax is None else ax
    for place, (name, color) in enumerate(colors.items()):
        of = found[count].sum("category") if per == "total" else found[count].sel(category=name)
        ax.axhline(float(of.values[kinds == RECORDED][0]), color=color, linestyle=":", linewidth=1)
        for kind, style in ROTATIONS.items():
            if kind in curves:
                curve = curves[kind]
                curve = curve.sum("category", skipna=False) if per == "total" else curve.sel(category=name)
                _band(ax, curve, color, style, name if kind == "rotation" else f"{name}, as in 2017")
        for n, values in enumerate(_others(found, of).values()):
            # Side by side, since categories often have the same number.
            _range(ax, _beside(n) + 0.015 * (place - (len(colors) - 1) / 2), values, color)
    _labels(ax, found, curves, count)
    return ax


def _band(ax: Axes, curve: xr.DataArray, color: str, style: str, label: str) -> None:
    """The mean over seeds, and the range."""
    alpha, mean = curve["alpha"].values, curve.mean("seed")
    ax.fill_between(alpha, curve.min("seed").values, curve.max("seed").values, color=color, alpha=0.15, linewidth=0)
    ax.plot(alpha, mean.values, color=color, linestyle=style, marker="o", markersize=4, label=label)


def _beside(n: int) -> float:
    """Where the n-th basis that is no rotation stands."""
    return 1.14 + 0.14 * n


def _range(ax: Axes, x: float, values: NDArray[np.int64], color: str) -> None:
    """A mark at the mean, and a bar from the lowest to the highest."""
    mean = values.mean()
    spread = [[mean - values.min()], [values.max() - mean]]
    ax.errorbar([x], [mean], yerr=spread, color=color, marker="s", markersize=5, capsize=3, linestyle="none")


def _others(found: xr.Dataset, of: xr.DataArray) -> dict[str, NDArray[np.int64]]:
    """Name -> values of every basis that is no rotation, those of all seeds together."""
    groups: dict[str, list[int]] = {}
    for n, kind in enumerate(found["kind"].values.tolist()):
        if kind not in (RECORDED, *ROTATIONS):
            label = str(found["basis"].values[n]).partition("@")[2]
            groups.setdefault(re.sub(r"-s\d+(?=-|$)", "", label), []).append(n)
    return {label: of.values[members] for label, members in groups.items()}


def _labels(ax: Axes, found: xr.Dataset, curves: dict[str, xr.DataArray], count: Count) -> None:
    others = list(_others(found, found[count].sum("category")))
    alphas = np.unique(np.concatenate([curve["alpha"].values for curve in curves.values()]))
    ticks = [*alphas.tolist(), *map(_beside, range(len(others)))]
    names = [*(f"{alpha:g}" for alpha in alphas), *(name.replace("-", "\n") for name in others)]
    ax.set_xticks(ticks, names, fontsize=8)
    if others:
        ax.axvline(1.06, color="0.8", linewidth=0.8)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"unique detectors ({count.replace('_', ' ')}, IoU > {found.attrs['cutoff']:g})")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    seeds = max(curve.sizes["seed"] for curve in curves.values())
    ax.set_xlabel(f"alpha: share of the way from the units of {found.attrs['layer']} to a rotation ({seeds} seeds)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8)
