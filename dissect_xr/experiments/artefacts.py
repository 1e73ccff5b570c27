"""Which units fire on artefact tokens: the few cells of a layer that stand out by the norm of all its units.

Large transformers without registers put what concerns the whole image into some tokens of the background, whose norm is
far above that of all others (Darcet et al. 2024). What a unit does there says nothing of the patch, so a label that it
gets from such cells is none of the unit's.

Knows: the stored activations and thresholds of a layer.
Does not know: models, labels, or why a norm is high.

References
----------
Darcet, Oquab, Mairal, Bojanowski: Vision Transformers Need Registers, ICLR 2024, section 2.
"""

from collections.abc import Iterator
from math import floor

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.layers import Layer, check_dense, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.experiments.unit_concepts import RunStores, fraction_of

TOP = 0.02
"""Share of all cells whose norm is called high."""

BLOCK = 64 * 2**20
"""About the bytes of maps that are read at a time."""


def artefact_share(
    run: RunStores, snapshot: str, layer: str, *, fraction: float | None = None, top: float = TOP
) -> xr.Dataset:
    """What share of each unit's active cells have a high norm, (unit), in memory; reads the layer twice.

    The norm of a cell is the square root of the sum, over all units of the layer, of the squares of their activations
    there, as stored. It is high where it lies strictly above the order statistic at ``floor(top * n)`` of all n norms
    of all images, as thresholds are taken (docs/method.md, section 1.1). A cell of a unit is active where its
    activation is strictly above the unit's threshold; nothing is upsampled.

    Parameters
    ----------
    run
        The stores; the activations of the layer must have been kept.
    fraction
        One of the dissection's fractions; None takes the first.
    top
        Share of all cells whose norm is called high.

    Returns
    -------
    xr.Dataset
        ``active_cells(unit) int64``, ``high_cells(unit) int64``: those of them whose norm is high, and
        ``artefact_share(unit) float64``: their ratio, NaN where no cell is active. A unit that does not care for norms
        has a share of about `top`. Memory: 8 bytes for every cell of all images.

    Raises
    ------
    DissectError
        If the layer's activations are not there, or are not those that were dissected.
    """
    if not 0 < top < 1:
        raise DissectError(f"top {top:g}: expected a share between 0 and 1, such as {TOP:g}.")
    opened, thresholds, chosen = _opened(run, snapshot, layer, fraction)
    squares = np.concatenate([_squares(maps) for maps in _blocks(opened)])
    place = floor(top * squares.size)
    level = np.partition(squares.reshape(-1), squares.size - 1 - place)[squares.size - 1 - place]
    active, high = (np.zeros(opened.shape[1], np.int64) for _ in range(2))
    first = 0
    for maps in _blocks(opened):
        is_active = maps > thresholds[:, None, None]
        is_high = squares[first : first + len(maps)] > level
        active += is_active.sum((0, 2, 3))
        high += (is_active & is_high[:, None]).sum((0, 2, 3))
        first += len(maps)
    share = np.divide(high, active, out=np.full(active.shape, np.nan), where=active > 0)
    return xr.Dataset(
        {"active_cells": ("unit", active), "high_cells": ("unit", high), "artefact_share": ("unit", share)},
        coords={"unit": [f"{layer}/{channel}" for channel in range(active.size)]},
        attrs={"snapshot": snapshot, "layer": layer, "fraction": chosen, "top": top, "norm_level": float(level) ** 0.5},
    )


def _opened(
    run: RunStores, snapshot: str, layer: str, fraction: float | None
) -> tuple[Layer, NDArray[np.float32], float]:
    """The layer, the thresholds of its units, and the fraction that these are of."""
    if not store.exists(run.activations):
        raise DissectError(
            f"{run.activations}: has no activations, whose norms are asked for. Run the recipe with "
            "activations.keep: dense."
        )
    opened = open_layer(run.activations, snapshot, layer)
    check_dense(opened, "norms are taken of all cells")
    if opened.derivation is not None:
        raise DissectError(
            f"{opened.path}: is a derived layer, whose units are none of the network's. Name "
            f"{opened.derivation.source.name}."
        )
    done = store.marker(run.dissection, f"{opened.path}/done")
    if done is None:
        raise DissectError(f"{run.dissection}: {opened.path} is not dissected. Run the recipe with it first.")
    if store.read_attrs(run.dissection, opened.path)["activations_sha256"] != opened.fingerprint:
        raise DissectError(
            f"{run.dissection}: {opened.path} was dissected from other activations than those in {run.activations}. "
            "Dissect it again."
        )
    ds = open_dissection(run.dissection)
    chosen = fraction_of(ds, fraction)
    mine = ds.sel(snapshot=snapshot, fraction=chosen).isel(unit=np.flatnonzero(ds["layer"].values == layer))
    return opened, np.asarray(mine["threshold"].values, np.float32), chosen


def _blocks(layer: Layer) -> Iterator[NDArray[np.floating]]:
    """The maps of the layer, some images at a time, in whole chunks."""
    array = store.read(layer.url, f"{layer.path}/activation")
    image_bytes = layer.shape[1] * layer.cells * layer.itemsize
    length = layer.chunk[0] * max(1, BLOCK // (image_bytes * layer.chunk[0]))
    for first in range(0, layer.shape[0], length):
        yield np.asarray(array[first : first + length])


def _squares(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """(image, y, x) sums of the squares over the units, which are added up in their order."""
    total = np.zeros((maps.shape[0], *maps.shape[2:]))
    for unit in range(maps.shape[1]):
        total += np.square(maps[:, unit], dtype=np.float64)
    return total
