"""Figures of units: their IoUs and the cutoff, how their concepts change during training, their top images.

Knows: matplotlib Axes, the colors of `palette`.
Does not know: files, or how a detector or a top image is found.

Every function computes the few numbers that it draws, draws on the Axes given or on those of a new Figure, and returns
the Axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from dissect_xr.analysis.cutoffs import cutoff_curve as curve_of
from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.labels import short_name
from dissect_xr.analysis.select import unit_index
from dissect_xr.analysis.snapshots import trajectories
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import TOP, exemplars
from dissect_xr.plot.axes import categories_of, layer_colors, log_steps, new_axes, of_one, ordered_layers
from dissect_xr.plot.label_positions import spread
from dissect_xr.plot.palette import category_colors, ink
from dissect_xr.schema import CUTOFF


def iou_histogram(ds: xr.Dataset, *, cutoff: float = CUTOFF, ax: Axes | None = None) -> Axes:
    """Histogram of the units' best IoUs, stacked by category, with the cutoff; computes one snapshot's labels.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot and fraction, of one layer or several.
    cutoff
        IoU that a detector exceeds: a dashed line.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions.
    """
    best = best_concept(of_one(ds, "snapshot", "fraction")).compute()
    categories = categories_of(ds)
    values = [best["iou"].values[(best["category"] == category).values] for category in categories]
    ax = new_axes(7.0, 3.6) if ax is None else ax
    highest = max([cutoff, *(part.max() for part in values if part.size)])
    # Bins end at the cutoff, so that bars right of the line are the detectors.
    width = max(cutoff, highest / 40) / max(1, round(cutoff / (highest / 40)))
    colors = category_colors(categories)
    edges = np.arange(0, highest + 2 * width, width)
    ax.hist(values, edges.tolist(), stacked=True, color=[colors[c] for c in categories], label=categories, rwidth=0.9)
    ax.axvline(cutoff, color="black", linestyle="--", linewidth=1)
    number = int((best["iou"] > cutoff).sum())
    ax.set_title(f"{number} of {best.sizes.get('unit', 1)} units above the cutoff of {cutoff:g}", fontsize=10)
    ax.set_xlabel("IoU with the best concept")
    ax.set_ylabel("units")
    ax.set_xlim(0, edges[-1])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return ax


def cutoff_curve(ds: xr.Dataset, *, cutoff: float = CUTOFF, ax: Axes | None = None) -> Axes:
    """Lines of the unique detectors of each layer at every cutoff, by both counts; computes one snapshot's labels.

    Solid lines count ``by_unit``, dotted ones ``by_category``; the dashed line is the cutoff.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions.
    """
    ds = of_one(ds, "snapshot", "fraction")
    ax = new_axes(7.0, 4.2) if ax is None else ax
    colors, end = layer_colors(ds), 2 * cutoff
    for layer in ordered_layers(ds):
        curve = curve_of(ds.isel(unit=np.flatnonzero(ds["layer"].values == layer)))
        ax.plot(curve["cutoff"], curve["unique_by_unit"], color=colors[layer], label=layer)
        ax.plot(curve["cutoff"], curve["unique_by_category"], color=colors[layer], linestyle=":")
        end = max([end, *curve["cutoff"].values[curve["unique_by_category"].values > 0]])
    ax.axvline(cutoff, color="black", linestyle="--", linewidth=1)
    ax.set_xlim(0, end + 0.01)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("cutoff (IoU)")
    ax.set_ylabel("unique detectors")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, title="solid by unit, dotted by category", title_fontsize=8)
    return ax


def evolution(ds: xr.Dataset, units: str | Sequence[str], *, cutoff: float = CUTOFF, ax: Axes | None = None) -> Axes:
    """Lines of the best IoU of some units over training steps, with the name of each new concept; computes.

    A marker has the color of the concept's category, and is hollow where the unit is no detector in the snapshot.

    Parameters
    ----------
    ds
        A dissection Dataset of one fraction with the dimension ``snapshot`` and its ``step``.
    units
        Unit ids; more than four make a crowded figure.
    cutoff
        IoU that a detector exceeds: a dashed line.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `ds` has no snapshots with steps, holds several fractions, or lacks a unit; similar ids are listed.

    References
    ----------
    Zhou et al. 2019, figure on the evolution of units during training.
    """
    wanted = [units] if isinstance(units, str) else list(units)
    ds = of_one(ds, "fraction")
    path = trajectories(ds.isel(unit=[unit_index(ds, unit) for unit in wanted]), cutoff=cutoff).compute()
    ax = new_axes(8.0, 1.2 + 2.4 * min(3, len(wanted)) ** 0.5) if ax is None else ax
    colors = category_colors(categories_of(ds)) | {"": "#999999"}
    steps, names, ends = path["step"].values, [], []
    for n, unit in enumerate(wanted):
        mine = path.isel(unit=n).transpose("snapshot", ...)
        values = mine["iou"].values
        line = ax.plot(steps, values, color=f"{0.35 + 0.4 * n / len(wanted):.2f}", linewidth=1.2, zorder=1)[0]
        shades = [colors[category] for category in mine["category"].values.tolist()]
        fill = [c if found else "white" for c, found in zip(shades, mine["detector"].values, strict=True)]
        ax.scatter(steps, values, c=fill, edgecolors=shades, s=28, zorder=2)
        names += _name_changes(ax, mine, steps, shades)
        if np.isfinite(values).any():
            end = (steps[np.isfinite(values)][-1], values[np.isfinite(values)][-1])
            ends.append(ax.annotate(unit, end, (7, 0), textcoords="offset points", va="center", fontsize=8))
        line.set_label(unit)
    ax.axhline(cutoff, color="black", linestyle="--", linewidth=0.8, zorder=0)
    log_steps(ax, steps)
    ax.margins(x=0.12, y=0.18)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("training step")
    ax.set_ylabel("IoU with the best concept")
    ax.spines[["top", "right"]].set_visible(False)
    spread(names, ends)
    return ax


def gallery(
    ds: xr.Dataset,
    stores: Stores,
    units: Sequence[str],
    *,
    k: int = TOP,
    size: int = 96,
    crop: float | None = None,
    show: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A row of images per unit: its id, concept and IoU, and its top images with its mask drawn in them; computes.

    Parameters are those of :func:`dissect_xr.exemplars.top_images.exemplars`.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions, a unit is not in it, or an image file is damaged.
    """
    if not units:
        raise DissectError("expected the units to show, such as ['layer5/12']; none were given.")
    best = best_concept(ds.isel(unit=[unit_index(ds, unit) for unit in units])).compute()
    best = best.squeeze([dim for dim in best.dims if dim != "unit"])
    rows = {
        str(shown["unit"].values): shown for shown in exemplars(ds, stores, units, k=k, size=size, crop=crop, show=show)
    }
    sheet = contact_sheet(rows[unit]["picture"].values for unit in units)
    titles = [_title(best.isel(unit=n)) for n in range(len(units))]
    ax = sheet_axes(k, len(units), titles) if ax is None else ax
    ax.imshow(sheet, interpolation="nearest")
    colors = category_colors(categories_of(ds)) | {"": "#666666"}
    ax.set_xticks([])
    step = sheet.shape[0] / len(units)
    ax.set_yticks([(n + 0.5) * step for n in range(len(units))], titles)
    for label, category in zip(ax.get_yticklabels(), best["category"].values.tolist(), strict=True):
        label.set(color=ink(colors[category]), fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def contact_sheet(rows: Iterable[np.ndarray], gap: int = 4) -> np.ndarray:
    """One image of several rows of pictures (picture, row, col, 3), with white between them and after short rows.

    >>> contact_sheet([np.zeros((2, 3, 3, 3), np.uint8), np.zeros((1, 3, 3, 3), np.uint8)], gap=1).shape
    (8, 8, 3)
    """
    rows = list(rows)
    size, most = rows[0].shape[1], max(map(len, rows))
    sheet = np.full((len(rows) * (size + gap), most * (size + gap), 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (size + gap) + gap // 2, x * (size + gap) + gap // 2
            sheet[top : top + size, left : left + size] = picture
    return sheet


def sheet_axes(columns: int, rows: int, left: Sequence[str], right: Sequence[str] = ()) -> Axes:
    """Axes of a new Figure for a contact sheet, with room for labels of 8 points on both sides and a line above."""
    # Not by constrained layout: it measures before Axes of a fixed aspect get their size, and their labels are cut off.
    before, after = (0.1 + max([0.0, *map(_inches, labels)]) for labels in (left, right))
    wide, tall = 0.85 * columns, 0.87 * rows
    width, height = before + wide + after, tall + 0.35
    figure = Figure(figsize=(width, height))
    return figure.add_axes((before / width, 0.1 / height, wide / width, tall / height))


def _inches(label: str) -> float:
    """Width of a label of 8 points, with the space beside it."""
    return 0.08 + max(float(TextPath((0, 0), line, size=8).get_extents().width) for line in label.split("\n")) / 72


def _name_changes(ax: Axes, mine: xr.Dataset, steps: np.ndarray, shades: Sequence[str]) -> list[Annotation]:
    """Write the name of each new concept at the step where it appears; the annotations."""
    before, made = "", []
    for n, name in enumerate(mine["concept_name"].values.tolist()):
        if name and name != before:
            point = (steps[n], float(mine["iou"].values[n]))
            box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
            text = ax.annotate(
                short_name(name), point, textcoords="offset points", ha="center", fontsize=7, xytext=(0, -7), bbox=box
            )
            text.set_color(ink(shades[n]))
            made.append(text)
            before = name
    return made


def _title(best: xr.Dataset) -> str:
    """Unit, concept and IoU, on two lines."""
    name = str(best["concept_name"].values)
    return f"{best['unit'].values}\n" + (f"{short_name(name)} {float(best['iou']):.3f}" if name else "no active pixel")
