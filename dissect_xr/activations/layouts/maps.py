"""The maps (image, unit, y, x) in a tensor of a given layout.

Knows: how axes are moved, joined and cut; what a tensor's shape must be for a layout.
Does not know: which layout a tap has (`recognise`), or whether it is right (`impulse`).
"""

import functools

import torch
from torch import Tensor

from dissect_xr.activations.layouts.layout import GRIDDED, Layout
from dissect_xr.activations.tapping.values import description
from dissect_xr.errors import DissectError


def to_maps(layer: str, tensor: Tensor, layout: Layout) -> Tensor:
    """The maps (image, unit, y, x) in a tensor: a view of it, or a copy where the order of tokens is another one.

    Raises
    ------
    DissectError
        If the tensor has not the axes or the number of tokens of the layout.

    Examples
    --------
    >>> tokens = torch.arange(7.0).reshape(1, 7, 1)
    >>> to_maps("block", tokens, Layout("tokens", grid=(2, 3), prefix=1))[0, 0].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    if layout.is_plain and tensor.ndim == 4:
        return tensor
    if tensor.ndim != len(layout.axes):
        raise DissectError(
            f"layer {layer} returns {description(tensor)}, expected the axes {', '.join(layout.axes)} of a tensor "
            f"of layout {layout.kind!r}."
        )
    if layout.kind in ("nchw", "nhwc"):
        return tensor.permute([layout.axes.index(name) for name in ("image", "unit", "y", "x")])
    if layout.kind == "cell":
        return tensor.permute([layout.axes.index(name) for name in ("image", "unit")])[:, :, None, None]
    rows = _by_token(layer, tensor, layout)
    if layout.kind == "token":
        if layout.index >= rows.shape[1]:
            raise DissectError(f"layer {layer}: has {rows.shape[1]} tokens, none with the index {layout.index}.")
        return rows[:, layout.index, :, None, None]
    return _on_grid(layer, rows, layout)


def _by_token(layer: str, tensor: Tensor, layout: Layout) -> Tensor:
    """(image, token, unit), where units are head x channel and the tokens of an image those of all its windows."""
    first = "window" if "window" in layout.axes else "image"
    order = [first, "token", *(["head"] if "head" in layout.axes else []), "unit"]
    rows = tensor.permute([layout.axes.index(name) for name in order]).flatten(2)
    if first == "image":
        return rows
    down, along = layout.windows
    if rows.shape[1] != layout.window[0] * layout.window[1] or rows.shape[0] % (down * along):
        raise DissectError(
            f"layer {layer} returns {description(tensor)}: expected {down} x {along} windows of "
            f"{layout.window[0]}x{layout.window[1]} tokens for each image."
        )
    return rows.reshape(-1, layout.tokens, rows.shape[2])


def _on_grid(layer: str, rows: Tensor, layout: Layout) -> Tensor:
    assert layout.kind in GRIDDED
    cells = layout.order()  # raises where the grid is not known
    height, width = layout.grid or (0, 0)
    if rows.shape[1] != layout.tokens:
        raise DissectError(
            f"layer {layer}: has {rows.shape[1]} tokens; a grid of {height}x{width} with {layout.prefix} before and "
            f"{layout.suffix} after it has {layout.tokens}. Give the layout that fits (`layout:`)."
        )
    if layout.kind in ("tokens", "heads"):
        chosen = rows[:, layout.prefix : layout.prefix + cells.size]
    else:
        chosen = rows.index_select(1, _order_on(layout, rows.device))
    return chosen.transpose(1, 2).reshape(len(rows), rows.shape[2], height, width)


@functools.lru_cache(maxsize=64)
def _order_on(layout: Layout, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it is kept, and may be needed for a gradient later
        return torch.from_numpy(layout.order().copy()).to(device)
