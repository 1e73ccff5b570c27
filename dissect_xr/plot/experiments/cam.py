"""The figure of where a class is seen: images with their class activation maps and boxes, in rows by their outcome.

Knows: matplotlib Axes, the Dataset of `open_cam`, contact sheets.
Does not know: files, or how maps and boxes were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.labels import short_name
from dissect_xr.errors import DissectError
from dissect_xr.experiments.localisation.pictures import located_pictures
from dissect_xr.experiments.localisation.scores import OUTCOMES, outcomes
from dissect_xr.plot.units import contact_sheet, sheet_axes

GAP = 36
"""Pixels between rows of pictures, for two lines of text."""


def located_images(
    ds: xr.Dataset,
    probe: store.Url,
    *,
    images: Sequence[str] | None = None,
    most: int = 5,
    size: int = 96,
    ax: Axes | None = None,
) -> Axes:
    """Rows of images with their maps, one for each outcome: recognised or not, found or not; computes.

    The yellow box is the map's, the blue one the object's. Under each image stand its class, what it is taken for where
    that is another one, and the IoU of the boxes.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.cam.open_cam`.
    probe
        The probe of its run.
    images
        Names of the images to show; None takes the first ones of each class in turn.
    most
        Images of a row at most.
    size
        Side of a picture in pixels.
    ax
        Axes to draw on.

    Raises
    ------
    DissectError
        If no image that shows an object is to be drawn, or an image file is missing or damaged.
    """
    ds = ds.drop_vars("map").load().assign(map=ds["map"])
    rows, kinds = shown_images(ds, images, most), outcomes(ds).values
    titles = [f"{kinds[row[0]].replace(', ', chr(10))}\n{(kinds == kinds[row[0]]).sum()} images" for row in rows]
    sheet = contact_sheet((np.stack(list(located_pictures(ds.isel(image=row), probe, size=size))) for row in rows), GAP)
    columns, step = max(map(len, rows)), size + GAP
    ax = sheet_axes(round(columns * 1.32), round(len(rows) * 1.32), titles) if ax is None else ax
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([(n + 0.5) * step for n in range(len(rows))], titles, fontsize=8)
    for y, row in enumerate(rows):
        for x, n in enumerate(row.tolist()):
            at = ((x + 0.5) * step, y * step + GAP / 2 + size)
            ax.annotate(_caption(ds, n), at, (0, -2), textcoords="offset points", ha="center", va="top", fontsize=6)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def shown_images(ds: xr.Dataset, images: Sequence[str] | None, most: int) -> list[NDArray[np.int64]]:
    """Places of the images of each row, in the order of the outcomes; outcomes of no image have no row."""
    kinds, label = outcomes(ds).values, ds["label"].values
    names = ds["image"].values.tolist()
    if images is not None and (unknown := [name for name in images if name not in names]):
        raise DissectError(f"no image '{unknown[0]}' in this experiment. Name images of it, such as {names[0]}.")
    every = np.arange(len(names)) if images is None else np.array([names.index(name) for name in images])
    found = []
    for kind in OUTCOMES:
        mine = every[kinds[every] == kind]
        if images is None:
            seen, turn = Counter[int](), np.empty(mine.size, np.int64)
            for n, one in enumerate(label[mine].tolist()):
                turn[n] = seen[one]
                seen[one] += 1
            mine = mine[np.argsort(turn, kind="stable")]
        found.append(mine[:most].astype(np.int64))
    if not any(row.size for row in found):
        raise DissectError("expected images that show an object of their class, none were given. Name others.")
    return [row for row in found if row.size]


def _caption(ds: xr.Dataset, n: int) -> str:
    """The class, what it is taken for, and IoU, on two lines."""
    names, one = ds["class"].values, ds.isel(image=n)
    label, prediction = (short_name(str(names[int(one[part])]), 12) for part in ("label", "prediction"))
    taken = "" if int(one["label"]) == int(one["prediction"]) else f" → {prediction}"
    return f"{label}{taken}\nIoU {float(one['box_iou']):.2f}"
