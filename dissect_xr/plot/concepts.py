"""Figures of detected concepts: how many units detect each, and how many are detected at each step of training.

Knows: matplotlib Axes.
Does not know: pyplot or any other global state, files, or how a detector is found.

Every function computes the few numbers that it draws, draws on the Axes given or on those of a new Figure, and returns
the Axes. ``axes.figure.savefig(path)`` writes the figure to a file, and a notebook shows ``axes.figure``.
"""

from __future__ import annotations

from typing import Literal

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dissect_xr.analysis.detectors import Count, concept_histogram, unique_detectors
from dissect_xr.analysis.labels import short_name
from dissect_xr.analysis.snapshots import by_step
from dissect_xr.analysis.snapshots import emergence as emergence_of
from dissect_xr.errors import DissectError
from dissect_xr.plot.axes import categories_of, layer_colors, log_steps, new_axes, of_one, ordered_layers
from dissect_xr.plot.palette import category_colors, ink
from dissect_xr.schema import CUTOFF


def concept_bars(ds: xr.Dataset, *, cutoff: float = CUTOFF, ax: Axes | None = None) -> Axes:
    """Bars of the number of units that detect each concept; computes the labels of one snapshot and fraction.

    Concepts are grouped and colored by category, most units first. A new Figure is as tall as the names need.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot and fraction, of one layer or several.
    cutoff
        IoU that a detector exceeds.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions.

    References
    ----------
    Bau et al. 2017, section 3.3.
    """
    units = concept_histogram(of_one(ds, "snapshot", "fraction"), cutoff=cutoff).compute()
    categories = categories_of(ds)
    groups = {category: _descending(units, category) for category in categories}
    groups = {category: group for category, group in groups.items() if group}
    concepts = sum(map(len, groups.values()))
    ax = new_axes(7.0, 1.2 + 0.17 * (concepts + len(groups))) if ax is None else ax
    colors = category_colors(categories)
    ax.set_xlim(0, max(1, int(units.max())) * 1.08)  # room for the number at the end of the longest bar
    position = 0
    positions: list[int] = []
    names: list[str] = []
    for category, group in groups.items():
        header = ax.annotate(_heading(category, group), (0, position), (3, 0), textcoords="offset points", va="center")
        header.set(color=ink(colors[category]), weight="bold", fontsize=8)
        rows = range(position + 1, position + 1 + len(group))
        bars = ax.barh(rows, [number for _, number in group], height=0.8, color=colors[category])
        ax.bar_label(bars, padding=2, fontsize=7)
        positions += rows
        names += [short_name(name) for name, _ in group]
        position = rows.stop
    ax.set_yticks(positions, names, fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(position, 1) - 0.4, -0.6)
    ax.set_xlabel(f"units that detect the concept (best IoU > {cutoff:g})")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"{concepts} concepts, detected by {int(units.sum())} of {ds.sizes.get('unit', 1)} units", fontsize=10)
    return ax


def emergence(
    ds: xr.Dataset,
    *,
    per: Literal["layer", "category"] = "layer",
    count: Count = "by_unit",
    cutoff: float = CUTOFF,
    ax: Axes | None = None,
) -> Axes:
    """Lines of unique detectors over training steps, per layer or category; computes the labels of every snapshot.

    Where the Dataset has ``accuracy(snapshot)``, a dashed line shows it on a second axis. The scale of steps is
    logarithmic, and linear up to the first step after 0. A line has a gap where a snapshot lacks its counts.

    Parameters
    ----------
    ds
        A dissection Dataset of one fraction with the dimension ``snapshot`` and its ``step``.
    per
        Whether there is a line per layer, or a line per category, of the units of all layers together.
    count
        How detected concepts are counted, see :func:`dissect_xr.analysis.detectors.unique_detectors`.
    cutoff
        IoU that a detector exceeds.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, or holds several fractions.

    References
    ----------
    Bau et al. 2017, section 3.5.
    """
    ds = by_step(of_one(ds, "fraction"))
    if per == "layer":
        lines, colors = _per_layer(ds, count, cutoff), layer_colors(ds)
    elif per == "category":
        categories = categories_of(ds)
        lines, colors = (
            emergence_of(ds, count=count, cutoff=cutoff).sel(category=categories),
            category_colors(categories),
        )
    else:
        raise DissectError(f"per is {per!r}: expected layer or category.")
    ax = new_axes(7.0, 4.2) if ax is None else ax
    steps, lines = ds["step"].values, lines.compute()
    for name in lines[per].values.tolist():
        ax.plot(steps, lines.sel({per: name}), color=colors[name], marker="o", markersize=4, clip_on=False, label=name)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"unique detectors ({count.replace('_', ' ')})")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    log_steps(ax, steps)
    ax.set_xlabel("training step")
    handles = [*ax.get_lines()] + (_accuracy(ax, ds) if "accuracy" in ds.variables else [])
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8)
    return ax


def _descending(units: xr.DataArray, category: str) -> list[tuple[str, int]]:
    """Detected concepts of the category and how many units detect each, the largest number first, then by name."""
    found = units[(units["concept_category"] == category).values & (units > 0).values]
    return sorted(
        zip(found["concept_name"].values.tolist(), found.values.tolist(), strict=True), key=lambda c: (-c[1], c[0])
    )


def _heading(category: str, group: list[tuple[str, int]]) -> str:
    numbers = {"concept": len(group), "unit": sum(number for _, number in group)}
    return f"{category}: " + ", ".join(f"{number} {noun}{'s' * (number != 1)}" for noun, number in numbers.items())


def _per_layer(ds: xr.Dataset, count: Count, cutoff: float) -> xr.DataArray:
    """Number of unique detectors, (snapshot, layer) float64 in memory; NaN where the layer has no counts."""
    numbers = ds.groupby("layer").map(lambda part: unique_detectors(part, count=count, cutoff=cutoff).to_dataset())
    return (
        numbers["unique_detectors"].where(_counted(ds).groupby("layer").any()).sel(layer=ordered_layers(ds)).compute()
    )


def _counted(ds: xr.Dataset) -> xr.DataArray:
    return ds["unit_area"].notnull().any("domain")


def _accuracy(ax: Axes, ds: xr.Dataset) -> list[Line2D]:
    """Draw the snapshots' accuracy on a second axis; the lines drawn."""
    second = ax.twinx()
    second.set_ylabel("accuracy")
    lines = second.plot(ds["step"].values, ds["accuracy"].values, color="0.5", linestyle="--", label="accuracy")
    second.set_ylim(bottom=0)
    return lines
