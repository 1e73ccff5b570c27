"""Maps whose rows and columns are not their last two axes, from where they are turned until they are turned back.

Knows: what may be done to such a map without moving its cells: what works on each cell by itself, such as the LayerNorm
and the linear maps in the blocks of a ConvNeXt, which has its units last for them.
Does not know: what is done to maps (unit, y, x) (`rules`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dissect_xr.activations.receptive_field.geometry import Geometry, NoGeometryError


@dataclass(frozen=True)
class Turned:
    """Positions of the cells of a turned map."""

    of: Geometry
    y: int
    """the dim of its rows, from 0"""
    x: int
    """the dim of its columns"""
    reason: str = ""
    """why a layer of this tensor has no geometry of its own"""


def reordered(of: Geometry | Turned, order: Sequence[int]) -> Geometry | Turned:
    """Positions after the dims of a map were brought into another order.

    >>> from dissect_xr.activations.receptive_field.geometry import PIXELS
    >>> last = reordered(Geometry(PIXELS, PIXELS), [0, 2, 3, 1])
    >>> last.y, last.x
    (1, 2)
    >>> reordered(last, [0, 3, 1, 2]) == Geometry(PIXELS, PIXELS)
    True
    """
    ndim = len(order)
    y, x = (ndim - 2, ndim - 1) if isinstance(of, Geometry) else (of.y, of.x)
    geometry, reason = (of, "") if isinstance(of, Geometry) else (of.of, of.reason)
    y, x = list(order).index(y), list(order).index(x)
    return geometry if (y, x) == (ndim - 2, ndim - 1) else Turned(geometry, y, x, reason)


def combined(maps: Sequence[tuple[Tensor, Turned]], output: Tensor) -> Turned:
    """Positions where turned maps are combined cell by cell: of the map with the largest receptive field."""
    first = maps[0][1]
    sizes = {(tensor.ndim, one.y, one.x, tensor.shape[one.y], tensor.shape[one.x]) for tensor, one in maps}
    jumps = {(one.of.y.jump, one.of.x.jump) for _, one in maps}
    if len(sizes) > 1 or len(jumps) > 1 or output.shape != maps[0][0].shape:
        raise NoGeometryError("joins maps that are turned in different ways")
    y = max((one.of.y for _, one in maps), key=lambda axis: axis.field)
    x = max((one.of.x for _, one in maps), key=lambda axis: axis.field)
    return Turned(Geometry(y, x), first.y, first.x, first.reason)


def linear(of: Turned, input: Tensor) -> Turned:
    """Positions after a linear map over the last dim."""
    if input.ndim - 1 in (of.y, of.x):
        raise NoGeometryError("mixes rows or columns")
    return of
