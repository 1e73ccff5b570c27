"""Whether a layout is right on an input twice as wide as high, which tells rows from columns where a square hides them.

Knows: how an image becomes twice as wide, what a layout's tensor is then, what both tests say together.
Does not know: how an impulse test is done (`impulse`), or what follows from a verdict (`find`).

On a square input, rows and columns are told apart only by which cell answers, and where a layer mixes everything no
cell answers more than others. On one twice as wide, the tensor itself tells: of the axes y and x of a map, x has to
grow and y not, and units stay as many. Where that is so, the impulse test is done once more, on the wider map.

A model may take no such input, or bring it to its own size: then this says nothing. A recording whose input is not
square has been tested on that, and needs none of it.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr.activations.layouts.impulse import Asked, Cell, Inputs, Verdict, impulse_test
from dissect_xr.activations.layouts.layout import GRIDDED, Layout
from dissect_xr.activations.receptive_field.geometry import Geometry
from dissect_xr.activations.tapping.calls import Seen, taps_of, watch
from dissect_xr.errors import DissectError

Verdicts = Mapping[tuple[str, Layout], Verdict]

SQUARE_ALONE = "tested on a square input alone, since the model takes none twice as wide"
"""What is said where a model refuses other sizes."""


def wide_test(
    model: nn.Module,
    inputs: Inputs,
    side: int,
    asked: Asked,
    seen: Mapping[str, Seen],
    *,
    batch: int,
    centres: Mapping[Cell, Geometry],
) -> Verdicts | None:
    """The verdict on every layout of which a wide input says something; None if the model takes none.

    Parameters
    ----------
    side
        Pixels along the square images.
    seen
        Tap -> its tensor for one square image.
    centres
        (rows, columns) of maps of square images -> where their cells lie, as far as it is known.
    """

    def doubled(pixels: NDArray[np.uint8]) -> Tensor:
        return torch.cat([inputs(half) for half in np.split(pixels, 2, axis=2)], 3)

    size = (side, 2 * side)
    try:
        now = taps_of(watch(model, doubled(np.zeros((1, *size, 3), np.uint8))))
        turned, wider, lying = _by_axes(asked, seen, now, centres)
        again: Asked = {
            layer: (tap, list(dict.fromkeys(wider[layer, one] for one in layouts if (layer, one) in wider)))
            for layer, (tap, layouts) in asked.items()
        }
        told = impulse_test(model, doubled, size, again, batch=batch, centres=lying)
    except (DissectError, torch.OutOfMemoryError):
        return None
    return turned | {(layer, layout): told[layer, one] for (layer, layout), one in wider.items()}


def together(square: Verdict, wide: Verdict | None) -> Verdict:
    """What both tests say of a layout.

    >>> together(Verdict("agrees", "6 of 6"), Verdict("agrees", "5 of 6")).said
    '6 of 6; on an input twice as wide: 5 of 6'
    """
    if wide is None or square.outcome == "disagrees":
        return square
    said = f"on an input twice as wide: {wide.said}"
    if wide.outcome == "disagrees":
        return Verdict("disagrees", said)
    return Verdict("agrees" if "agrees" in (square.outcome, wide.outcome) else "undecided", f"{square.said}; {said}")


def _by_axes(
    asked: Asked, seen: Mapping[str, Seen], now: Mapping[str, Seen], centres: Mapping[Cell, Geometry]
) -> tuple[dict[tuple[str, Layout], Verdict], dict[tuple[str, Layout], Layout], dict[Cell, Geometry]]:
    """Layouts that the axes refute, the others as they are on the wide input, and where the cells of its maps lie."""
    turned: dict[tuple[str, Layout], Verdict] = {}
    wider: dict[tuple[str, Layout], Layout] = {}
    lying: dict[Cell, Geometry] = {}
    for layer, (tap, layouts) in asked.items():
        shape = now[str(tap)].shape if str(tap) in now else ()
        for layout in layouts if len(shape) == len(seen[str(tap)].shape) else ():
            before, after = (dict(zip(layout.axes, one[str(tap)].shape, strict=True)) for one in (seen, now))
            found = _axes(layout, before, after)
            if isinstance(found, Verdict):
                turned[layer, layout] = found
            elif found is not None:
                wider[layer, layout], old, new = found
                if old in centres:
                    lying[new] = centres[old]
    return turned, wider, lying


Wider = tuple[Layout, Cell, Cell]
"""A layout on the wide input, and the size of its map on the square one and on the wide one."""


def _axes(layout: Layout, before: Mapping[str, int], after: Mapping[str, int]) -> Wider | Verdict | None:
    """What the axes of a tensor say, for one square image and for a wide one; None for nothing."""
    if before["unit"] != after["unit"]:
        grown = f"what it takes for {before['unit']} units become {after['unit']}: they are cells"
        return Verdict("disagrees", grown)
    return _on_grid(layout, after) if layout.kind in GRIDDED else _of_maps(layout, before, after)


def _on_grid(layout: Layout, after: Mapping[str, int]) -> Wider | None:
    assert layout.grid is not None
    rows, columns = layout.grid
    wider = replace(layout, grid=(rows, 2 * columns))
    if wider.tokens != after["token"] * after.get("window", 1):
        return None
    return wider, (rows, columns), (rows, 2 * columns)


def _of_maps(layout: Layout, before: Mapping[str, int], after: Mapping[str, int]) -> Wider | Verdict | None:
    old, new = (before["y"], before["x"]), (after["y"], after["x"])
    if new[0] > old[0] and new[1] == old[1]:
        grown = f"maps of {old[0]}x{old[1]} cells become {new[0]}x{new[1]}: rows are columns"
        return Verdict("disagrees", grown)
    return (layout, old, new) if new[0] == old[0] and new[1] > old[1] else None
