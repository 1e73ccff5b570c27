"""What all figures share: new Axes, the scale of training steps, and the order and colors of layers and categories.

Knows: matplotlib Axes and Figures, and the coordinates of a dissection Dataset.
Does not know: pyplot or any other global state, or what a figure shows.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dissect_xr.analysis.select import category_names, only, with_units
from dissect_xr.plot.label_positions import step_ticks
from dissect_xr.plot.palette import in_order


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new Figure, whose width and height are in inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def of_one(ds: xr.Dataset, *dims: str) -> xr.Dataset:
    """`ds` with the dimension ``unit`` and without `dims`, along which it must hold one value; coordinates loaded."""
    ds = with_units(only(ds, *dims))
    return ds.assign_coords({name: values.compute() for name, values in ds.coords.items()})


def log_steps(ax: Axes, steps: NDArray[np.int64]) -> None:
    """Give the x axis a logarithmic scale, linear up to the first step after 0, with ticks at the snapshots' steps."""
    if (steps > 0).any():
        ax.set_xscale("symlog", linthresh=steps[steps > 0].min(), linscale=0.5)
    step_ticks(ax, np.unique(steps))


def categories_of(ds: xr.Dataset) -> list[str]:
    """The Dataset's categories in the order of figures."""
    return in_order(category_names(ds))


def ordered_layers(ds: xr.Dataset) -> list[str]:
    """The layers in the order of their units, which usually is from the input of the model to its output."""
    return list(dict.fromkeys(ds["layer"].values.tolist()))


def layer_colors(ds: xr.Dataset) -> dict[str, str]:
    """Color of each layer, from dark to light: viridis, which color-blind readers see in order, without yellow."""
    layers = ordered_layers(ds)
    return {layer: to_hex(colormaps["viridis"](0.85 * index / len(layers))) for index, layer in enumerate(layers)}
