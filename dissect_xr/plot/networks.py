"""Figures of several networks: how much their vocabularies share, and at which depth concepts are detected.

Knows: matplotlib Axes.
Does not know: how networks are compared (`analysis.networks`), files.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dissect_xr.plot.axes import new_axes
from dissect_xr.plot.palette import on

DARK = 0.5
"""Overlap from which a cell is written on in white."""


def shared_vocabularies(found: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """The overlap of the concepts that each pair of networks detects, as a table of cells.

    On the diagonal stands how many concepts a network detects, and how many of these no other one does.

    Parameters
    ----------
    found
        What :func:`dissect_xr.compare_networks` gives.
    ax
        Axes to draw on.
    """
    names = found["network"].values.tolist()
    overlap = found["overlap"].values
    side = 1.6 + 0.62 * len(names)
    ax = new_axes(side, side) if ax is None else ax
    shown = np.where(np.eye(len(names), dtype=bool), np.nan, overlap)
    ax.imshow(shown, cmap="Blues", vmin=0, vmax=1)
    unique, own = found["unique_detectors"].sum("category").values, found["own"].sum("category").values
    for row in range(len(names)):
        for col in range(len(names)):
            value = overlap[row, col]
            text = f"{unique[row]}\n({own[row]} own)" if row == col else "" if np.isnan(value) else f"{value:.2f}"
            color = "black" if row == col or not value >= DARK else on("#08306b")
            ax.annotate(text, (col, row), ha="center", va="center", fontsize=7, color=color)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title("concepts that both detect, of those that either does", fontsize=8)
    return ax


def over_depth(found: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Unique detectors of each layer over its depth, a line per network.

    Parameters
    ----------
    found
        What :func:`dissect_xr.compare_networks` gives.
    ax
        Axes to draw on.
    """
    ax = new_axes(7.0, 3.6) if ax is None else ax
    for n, name in enumerate(found["network"].values.tolist()):
        values = found["unique_detectors_of_layer"].values[n]
        there = np.flatnonzero(~np.isnan(values))
        ax.plot(there, values[there], marker="o", markersize=4, color=f"C{n % 10}",
                linestyle="-" if n < 10 else "--", label=name)  # fmt: skip
    names = found["layer_name"].values
    same = all(len({name for name in names[:, depth] if name}) == 1 for depth in range(names.shape[1]))
    depths = np.arange(found.sizes["depth"])
    ax.set_xticks(depths, [next(n for n in names[:, depth] if n) for depth in depths] if same else depths, fontsize=8)
    ax.set_xlabel("layer" if same else "depth of the layer")
    ax.set_ylabel(f"unique detectors (by unit, IoU > {found.attrs['cutoff']:g})")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return ax
