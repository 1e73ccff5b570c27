"""Figures that compare layers, networks, and units before and after fine-tuning.

Knows: matplotlib Axes, the colors of `palette`.
Does not know: files, or how a detector is found.

Every function computes the few numbers that it draws, draws on the Axes given or on those of a new Figure, and returns
the Axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dissect_xr.analysis.detectors import Count, detected_concepts
from dissect_xr.analysis.select import category_names
from dissect_xr.analysis.snapshots import by_step, changed
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.plot.axes import categories_of, log_steps, new_axes, of_one, ordered_layers
from dissect_xr.plot.palette import category_colors, in_order, ink, on
from dissect_xr.plot.units import contact_sheet, sheet_axes
from dissect_xr.schema import CUTOFF

KINDS = {"birth": "#009E73", "switch": "#E69F00", "death": "#D55E00", "same": "#0072B2"}
"""Color of each kind of change of a unit (Okabe and Ito)."""


def layers_compared(
    ds: xr.Dataset, *, count: Count = "by_unit", cutoff: float = CUTOFF, ax: Axes | None = None
) -> Axes:
    """Stacked bars of unique detectors by category, a bar per layer; computes the labels of one snapshot.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot and fraction.
    count
        How detected concepts are counted, see :func:`dissect_xr.unique_detectors`.
    cutoff
        IoU that a detector exceeds.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions.
    """
    ds = of_one(ds, "snapshot", "fraction")
    parts = {layer: ds.isel(unit=np.flatnonzero(ds["layer"].values == layer)) for layer in ordered_layers(ds)}
    return networks_compared(parts, count=count, cutoff=cutoff, ax=ax)


def networks_compared(
    networks: Mapping[str, xr.Dataset], *, count: Count = "by_unit", cutoff: float = CUTOFF, ax: Axes | None = None
) -> Axes:
    """Stacked bars of unique detectors by category, a bar per network; computes the labels of each.

    Parameters
    ----------
    networks
        Name -> dissection Dataset of one snapshot and fraction.
    count
        How detected concepts are counted, see :func:`dissect_xr.unique_detectors`.
    cutoff
        IoU that a detector exceeds.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If there is nothing to compare, or one holds several snapshots or fractions.

    References
    ----------
    Bau et al. 2017, section 3.4.
    """
    if not networks:
        raise DissectError("expected networks to compare, as a dict of name and Dataset; none were given.")
    numbers = {name: _by_category(ds, count, cutoff) for name, ds in networks.items()}
    categories = in_order(list(dict.fromkeys(category for found in numbers.values() for category in found)))
    colors = category_colors(categories)
    ax = new_axes(7.0, 1.1 + 0.42 * len(networks)) if ax is None else ax
    left, longest = np.zeros(len(networks)), max(1, *(sum(found.values()) for found in numbers.values()))
    for category in categories:
        widths = np.array([found.get(category, 0) for found in numbers.values()])
        bars = ax.barh(range(len(networks)), widths, left=left, color=colors[category], label=category, height=0.7)
        labels = [str(width) if width > (0.005 + 0.012 * len(str(width))) * longest else "" for width in widths]
        ax.bar_label(bars, labels, label_type="center", fontsize=7, color=on(colors[category]))
        left = left + widths
    ax.set_yticks(range(len(networks)), list(networks), fontsize=8)
    ax.invert_yaxis()
    for row, total in enumerate(left.astype(int).tolist()):
        ax.annotate(
            str(total), (total, row), (4, 0), textcoords="offset points", va="center", weight="bold", fontsize=8
        )
    ax.set_xlim(0, longest * 1.06)
    ax.set_xlabel(f"unique detectors ({count.replace('_', ' ')}, IoU > {cutoff:g})")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(6, len(categories)), frameon=False, fontsize=8)
    return ax


def fine_tuning(ds: xr.Dataset, *, cutoff: float = CUTOFF, ax: Axes | None = None) -> Axes:
    """Lines over steps: how many units keep, change, lose and gain a concept against the first snapshot; computes.

    Parameters
    ----------
    ds
        A dissection Dataset of one fraction with the dimension ``snapshot`` and its ``step``; the first snapshot is the
        network before fine-tuning.
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
    Zhou et al. 2019, figure on fine-tuning.
    """
    ds = by_step(of_one(ds, "fraction"))
    names = ds["snapshot"].values.tolist()
    kinds = [changed(ds, names[0], name, cutoff=cutoff)["kind"].values for name in names]
    ax = new_axes(7.0, 4.0) if ax is None else ax
    for kind, color in KINDS.items():
        label = {"birth": "new detector", "switch": "other concept", "death": "lost", "same": "same concept"}[kind]
        ax.plot(
            ds["step"].values, [(k == kind).sum() for k in kinds], color=color, marker="o", markersize=4, label=label
        )
    log_steps(ax, ds["step"].values)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("training step")
    ax.set_ylabel(f"units, against {names[0]}")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8)
    return ax


def before_after(
    ds: xr.Dataset,
    stores: Stores,
    snapshots: tuple[str, str],
    *,
    units: Sequence[str] | None = None,
    k: int = 4,
    cutoff: float = CUTOFF,
    show: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Top images of units whose concept changed, before on the left, after on the right; computes.

    Parameters
    ----------
    ds
        A dissection Dataset of one fraction with the dimension ``snapshot``.
    stores
        The activations and the probe that `ds` was made from.
    snapshots
        (before, after)
    units
        Unit ids; by default, of the units whose concept changed, the six with the highest IoU afterwards.
    k
        Images of each side.
    cutoff
        IoU that a detector exceeds.
    show
        Whether to draw a progress bar.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If a snapshot or unit is not in `ds`, `ds` holds several fractions, or no unit's concept changed.

    References
    ----------
    Zhou et al. 2019, figure on fine-tuning.
    """
    ds = of_one(ds, "fraction")
    table = changed(ds, *snapshots, cutoff=cutoff)
    moved = table.isel(unit=np.flatnonzero(table["kind"].values == "switch")).sortby("to_iou", ascending=False)
    chosen = moved["unit"].values.tolist()[:6] if units is None else list(units)
    if not chosen:
        raise DissectError(
            f"no unit changed its concept between {snapshots[0]} and {snapshots[1]}: name the units to show."
        )
    sides = [
        {
            str(s["unit"].values): s["picture"].values
            for s in exemplars(ds.sel(snapshot=name), stores, chosen, k=k, show=show)
        }
        for name in snapshots
    ]
    rows = [np.concatenate([side[unit] for side in sides]) for unit in chosen]
    sheet = contact_sheet(rows)
    labels = [[_side(table.sel(unit=unit), side) for unit in chosen] for side in ("from", "to")]
    ax = sheet_axes(2 * k, len(chosen), *labels) if ax is None else ax
    ax.imshow(sheet, interpolation="nearest")
    _frame(ax, labels, sheet.shape, snapshots)
    colors = category_colors(categories_of(ds)) | {"": "#666666"}
    for n, unit in enumerate(chosen):
        ax.get_yticklabels()[n].set_color(ink(colors[str(table["from_category"].sel(unit=unit).values)]))
        ax.texts[n].set_color(ink(colors[str(table["to_category"].sel(unit=unit).values)]))
    return ax


def _by_category(ds: xr.Dataset, count: Count, cutoff: float) -> dict[str, int]:
    """Category -> number of unique detectors."""
    found = detected_concepts(of_one(ds, "snapshot", "fraction"), count=count, cutoff=cutoff).compute()
    category_of = found["concept_category"].values
    return {category: int(found.values[category_of == category].sum()) for category in category_names(ds)}


def _frame(ax: Axes, labels: list[list[str]], shape: tuple[int, ...], snapshots: tuple[str, str]) -> None:
    """Write the labels on both sides and draw a line between before and after."""
    height, width, units = shape[0], shape[1], len(labels[0])
    positions = [(n + 0.5) * height / units for n in range(units)]
    ax.axvline(width / 2 - 0.5, color="black", linewidth=2)
    ax.set_yticks(positions, labels[0], fontsize=8)
    ax.set_xticks([width / 4, 3 * width / 4], [f"before: {snapshots[0]}", f"after: {snapshots[1]}"], fontsize=8)
    ax.xaxis.tick_top()
    for label, position in zip(labels[1], positions, strict=True):
        text: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        ax.annotate(label, (width, position), annotation_clip=False, **text)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _side(unit: xr.Dataset, side: str) -> str:
    """The label of one side: the unit on the left, and the concept with its IoU."""
    name = str(unit[f"{side}_name"].values) or "no detector"
    head = f"{unit['unit'].values}\n" if side == "from" else ""
    return f"{head}{name} {float(unit[f'{side}_iou']):.3f}"
