"""The figure of why images are predicted as they are: each image, and its units' masks in it.

Knows: matplotlib Axes, the Dataset of `open_explanation`, contact sheets.
Does not know: files, or how units were chosen.
"""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from dissect_xr import store
from dissect_xr.analysis.labels import short_name
from dissect_xr.experiments.explained_pictures import explained_pictures
from dissect_xr.plot.palette import category_colors, in_order, ink
from dissect_xr.plot.units import contact_sheet, sheet_axes

GAP = 36
"""Pixels between rows of pictures, for two lines of text."""


def explained_images(ds: xr.Dataset, probe: store.Url, *, size: int = 96, ax: Axes | None = None) -> Axes:
    """Rows of pictures: an image, then the units that contribute most to its class, with concept and contribution.

    Computes. Beside each image stand its class and, where the prediction is another one, that in red.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.explanation.open_explanation`.
    probe
        The probe of its run.
    size
        Side of a picture in pixels.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If an image file is missing or damaged.

    References
    ----------
    Zhou et al. 2017, figure 9.
    """
    ds = ds.load()
    sheet = contact_sheet(explained_pictures(ds, probe, size=size), GAP)
    rows, columns = ds.sizes["image"], 1 + ds.sizes["rank"]
    titles = [_title(ds.isel(image=n)) for n in range(rows)]
    ax = sheet_axes(round(columns * 1.32), round(rows * 1.32), titles) if ax is None else ax
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xticks([])
    step = size + GAP
    ax.set_yticks([(n + 0.5) * step for n in range(rows)], titles)
    for label, right in zip(ax.get_yticklabels(), (ds["label"] == ds["prediction"]).values, strict=True):
        label.set(color="black" if right else ink("#D55E00"), fontsize=8)
    kinds = ds["concept_category"].values
    colors = category_colors(in_order(list(dict.fromkeys(kind for kind in kinds.ravel().tolist() if kind))))
    for n in range(rows):
        for rank in range(columns - 1):
            one = ds.isel(image=n, rank=rank)
            at = ((rank + 1.5) * step, n * step + GAP / 2 + size)
            text = ax.annotate(
                _caption(one), at, (0, -2), textcoords="offset points", ha="center", va="top", fontsize=6
            )
            text.set_color(ink(colors.get(str(one["concept_category"].values), "#666666")))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _title(one: xr.Dataset) -> str:
    label, prediction = (short_name(str(one[name].values), 28) for name in ("label", "prediction"))
    score = f"score {float(one['score']):.2f}"
    return f"{label}\n{score}" if label == prediction else f"{label}\npredicted: {prediction}\n{score}"


def _caption(one: xr.Dataset) -> str:
    """Concept, or unit where it has none, and contribution, on two lines."""
    name = str(one["concept_name"].values) or "no label"
    return f"{short_name(name, 20)}\n{str(one['unit'].values).rpartition('/')[2]}: {float(one['contribution']):+.2f}"
