"""The figure of what classes use: the units of the largest weights of each class, with their images.

Knows: matplotlib Axes, the Dataset of `open_classes`, contact sheets.
Does not know: files, or how weights were found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from dissect_xr.analysis.labels import short_name
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.experiments.classes import class_specific
from dissect_xr.plot.palette import category_colors, in_order, ink
from dissect_xr.plot.units import contact_sheet, sheet_axes

CLASSES = 4
"""Classes that are shown where none is named."""


def class_units(
    ds: xr.Dataset,
    dissection: xr.Dataset,
    stores: Stores,
    *,
    classes: Sequence[str] | None = None,
    most: int = 3,
    k: int = 6,
    size: int = 96,
    show: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Rows of images: the units of the largest weights of some classes, with weight, concept and IoU; computes.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.classes.open_classes`.
    dissection
        The dissection of its run, of one snapshot and fraction.
    stores
        The activations and the probe that it was made from.
    classes
        Classes to show; the best recognised ones if absent, at most `CLASSES` of them.
    most
        Units of each class.
    k, size, show
        As for :func:`dissect_xr.exemplars.top_images.exemplars`.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If there is no such class, or an image file is damaged.

    References
    ----------
    Zhou et al. 2017, figure 8.
    """
    names = ds["class"].values.tolist()
    shown = list(classes) if classes is not None else best_recognised(ds)
    if unknown := [name for name in shown if name not in names]:
        raise DissectError(f"no class '{unknown[0]}'; there are {', '.join(map(str, names[:8]))}, ...")
    top = class_specific(ds, most=most).sel({"class": shown})
    units = top["unit"].values
    wanted = list(dict.fromkeys(units.ravel().tolist()))
    pictures = {
        str(one["unit"].values): one["picture"].values
        for one in exemplars(dissection, stores, wanted, k=k, size=size, show=show)
    }
    sheet = contact_sheet(pictures[unit] for unit in units.ravel().tolist())
    titles = [_title(top.isel({"class": n, "rank": rank})) for n, rank in np.ndindex(units.shape)]
    right = [_accuracy(ds, name) if rank == 0 else "" for name in shown for rank in range(units.shape[1])]
    ax = sheet_axes(k, units.size, titles, [text for text in right if text]) if ax is None else ax
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xticks([])
    step = sheet.shape[0] / units.size
    ax.set_yticks([(n + 0.5) * step for n in range(units.size)], titles)
    kinds = top["concept_category"].values.ravel().tolist()
    colors = category_colors(in_order(list(dict.fromkeys(kind for kind in kinds if kind)))) | {"": "#666666"}
    for label, kind in zip(ax.get_yticklabels(), kinds, strict=True):
        label.set(color=ink(colors[kind]), fontsize=8)
    for n, text in enumerate(right):
        if text:
            at = (1, (n + 0.5) * step)
            ax.annotate(
                text,
                at,
                (6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def best_recognised(ds: xr.Dataset, most: int = CLASSES) -> list[str]:
    """The classes of the highest recall on the last split, at most so many; equal ones in their order."""
    recall = np.nan_to_num(ds["recall"].isel(split=-1).values, nan=-1)
    return [str(ds["class"].values[n]) for n in np.argsort(-recall, kind="stable")[:most]]


def _title(one: xr.Dataset) -> str:
    """Unit, weight, concept and IoU, on two lines."""
    name = str(one["concept_name"].values)
    label = f"{short_name(name, 30)} {float(one['iou']):.3f}" if name else "no label"
    return f"{one['unit'].values}, weight {float(one['weight']):.3g}\n{label}"


def _accuracy(ds: xr.Dataset, name: str) -> str:
    recall = float(ds["recall"].isel(split=-1).sel({"class": name}))
    return f"{short_name(name, 30)}\nrecall {recall:.2f}"
