"""Rules that give the geometry of a torch function's result from the geometries of its arguments.

Knows: torch's functions by name; how maps are combined, sliced and reshaped. y and x are the last two dims, but for
the few functions in `TURNED`.
Does not know: models, layers, or how calls are recorded (`tracing`). A function without a rule has no geometry: nothing
is guessed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dissect_xr.activations.receptive_field import turned, windows
from dissect_xr.activations.receptive_field.geometry import AxisGeometry, Geometry, NoGeometryError
from dissect_xr.activations.receptive_field.turned import Turned

Position = Geometry | Turned | str | None
"""Positions of a tensor's cells: a geometry, that of a turned map, the reason why it cannot be found, or None if the
tensor's cells have no positions (parameters, and what is computed from parameters or pooled vectors alone)."""


@dataclass(frozen=True)
class Call:
    """One call of a torch function."""

    position: Callable[[Tensor], Position]
    """Gives the positions of any tensor seen so far."""
    output: Tensor
    """First tensor that the function returned; rules use only its shape."""


Rule = Callable[..., Position]
"""A function of a `Call` and then the arguments of the torch function; gives the positions of the result."""


def tensors(value: object) -> Iterator[Tensor]:
    """Tensors in nested arguments, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def pointwise(call: Call, *args: object, **kwargs: object) -> Position:
    """Positions where maps are combined cell by cell: those of the map with the largest receptive field.

    A map that was pooled to one cell along an axis does not count along that axis.
    """
    maps = [(tensor, p) for tensor in tensors([args, kwargs]) if isinstance(p := call.position(tensor), Geometry)]
    height, width = call.output.shape[-2:]
    y = _widest([(tensor.shape[-2], p.y) for tensor, p in maps], height)
    x = _widest([(tensor.shape[-1], p.x) for tensor, p in maps], width)
    if y is None and x is None:
        return None
    if y is None or x is None:
        raise NoGeometryError("spreads a map that was pooled along one axis")
    return Geometry(y, x)


def _widest(axes: list[tuple[int, AxisGeometry]], length: int) -> AxisGeometry | None:
    # A map of length 1 in a longer result was pooled: its one cell is combined with every cell of the others.
    combined = [axis for n, axis in axes if n == length]
    jumps = sorted({axis.jump for axis in combined})
    if length > 1 and len(jumps) > 1:
        raise NoGeometryError(f"joins maps whose cells lie {' and '.join(map(str, jumps))} pixels apart")
    return max(combined, key=lambda axis: axis.field, default=None)


def _on_one_map(rule: Callable[..., Position]) -> Rule:
    """Rule made from a function of one map's geometry, that of the torch function's first argument."""

    def with_geometry(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Position:
        return rule(_geometry(call, input), call.output, input, *args, **kwargs)

    return with_geometry


def _geometry(call: Call, input: Tensor) -> Geometry:
    position = call.position(input)
    if not isinstance(position, Geometry):
        raise NoGeometryError("takes a map as a parameter")
    return position


def _reduced(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Position:
    # torch.max(a, b) compares two maps.
    rule = pointwise if len(list(tensors([args, kwargs]))) else _on_one_map(windows.reduced)
    return rule(call, input, *args, **kwargs)


def _joined(call: Call, tensors: Sequence[Tensor], dim: int = 0) -> Position:
    _check_leading(dim, call.output.ndim)
    return pointwise(call, *tensors)


def _along(position: int, default: int) -> Rule:
    """Rule of a function that works along one dim, given as its argument `dim` or at this position."""

    def rule(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Position:
        dim = kwargs.get("dim", args[position - 1] if len(args) >= position else default)
        _check_leading(default if dim is None else dim, input.ndim)
        return call.position(input)

    return rule


def _check_leading(dim: int, ndim: int) -> None:
    if dim % ndim >= ndim - 2:
        raise NoGeometryError("works along y or x")


def _reshaped(call: Call, input: Tensor, *args: object, **kwargs: object) -> Position:
    # Reshaping keeps the order in memory, so y and x are still the last two dims if these have the same lengths.
    if call.output.shape[-2:] == input.shape[-2:]:
        return call.position(input)
    if input.shape[-2:].numel() == 1:
        return None
    raise NoGeometryError(f"turns {tuple(input.shape)} into {tuple(call.output.shape)}")


def _permuted(call: Call, input: Tensor, *dims: Any) -> Position:
    order = dims[0] if isinstance(dims[0], Sequence) else dims
    return _reordered(call, input, [d % input.ndim for d in order])


def _transposed(call: Call, input: Tensor, dim0: int, dim1: int) -> Position:
    order = list(range(input.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _reordered(call, input, order)


def _reordered(call: Call, input: Tensor, order: list[int]) -> Position:
    position = call.position(input)
    if not isinstance(position, (Geometry, Turned)):
        return position
    is_kept = order[-2:] == [input.ndim - 2, input.ndim - 1]
    if isinstance(position, Geometry) and not is_kept and input.shape[-2:].numel() == 1:
        return None
    return turned.reordered(position, order)


def _turned_pointwise(call: Call, *args: object, **kwargs: object) -> Position:
    given = [(tensor, call.position(tensor)) for tensor in tensors([args, kwargs])]
    if any(isinstance(position, Geometry) for _, position in given):
        raise NoGeometryError("joins a turned map and another one")
    return turned.combined([(tensor, p) for tensor, p in given if isinstance(p, Turned)], call.output)


def _turned_linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Position:
    position = call.position(input)
    if not isinstance(position, Turned):
        raise NoGeometryError("takes a map as a parameter")
    return turned.linear(position, input)


def _indexed(call: Call, input: Tensor, index: Any) -> Position:
    """A slice along y or x moves the first cell and may change the step; other dims may be indexed in any way."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(part, (int, slice, type(...), type(None))) or isinstance(part, bool) for part in parts):
        raise NoGeometryError("picks cells by a list or tensor")
    whole = [slice(None)] * (input.ndim - sum(isinstance(part, (int, slice)) for part in parts))
    at = parts.index(...) if ... in parts else len(parts)
    y, x = [*parts[:at], *whole, *parts[at + 1 :]][-2:]
    if not isinstance(y, slice) or not isinstance(x, slice):
        raise NoGeometryError("takes single rows or columns")
    of = _geometry(call, input)
    (top, _, down), (left, _, right) = y.indices(input.shape[-2]), x.indices(input.shape[-1])
    return Geometry(of.y.at(down, top), of.x.at(right, left))


def _no_position(call: Call, *args: object, **kwargs: object) -> Position:
    return None


_POINTWISE = """
    abs add addcdiv addcmul alpha_dropout batch_norm bfloat16 channel_shuffle clamp clamp_max clamp_min clip clone
    contiguous cos detach div divide double dropout dropout1d dropout2d elu eq erf exp expm1 feature_alpha_dropout float
    ge gelu group_norm gt half hardshrink hardsigmoid hardswish hardtanh instance_norm layer_norm le leaky_relu lerp
    local_response_norm log log1p logical_and logical_not logical_or logsigmoid lt masked_fill maximum minimum mish mul
    multiply ne neg negative pow prelu rdiv reciprocal relu relu6 rms_norm round rpow rrelu rsqrt rsub selu sigmoid
    sign silu sin softplus softshrink softsign sqrt square sub subtract tanh tanhshrink threshold to true_divide type
    type_as where
"""
_RESHAPING = "broadcast_to expand expand_as flatten repeat reshape reshape_as squeeze unflatten unsqueeze view view_as"
_FILLED = "empty_like full_like ones_like rand_like randn_like zeros_like new_empty new_full new_ones new_zeros"
_ON_ONE_MAP: dict[Callable[..., Position], str] = {
    windows.conv2d: "conv2d",
    windows.conv_transpose2d: "conv_transpose2d",
    windows.max_pool2d: "max_pool2d max_pool2d_with_indices",
    windows.avg_pool2d: "avg_pool2d",
    windows.lp_pool2d: "lp_pool2d",
    windows.adaptive_pool2d: "adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool2d_with_indices",
    windows.pad: "pad constant_pad_nd",
    windows.interpolate: "interpolate",
    windows.pixel_shuffle: "pixel_shuffle",
    windows.pixel_unshuffle: "pixel_unshuffle",
}

RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(_RESHAPING.split(), _reshaped),
    **dict.fromkeys(_FILLED.split(), _no_position),
    **{name: _on_one_map(rule) for rule, names in _ON_ONE_MAP.items() for name in names.split()},
    **dict.fromkeys(["mean", "sum", "amax", "amin", "max", "min"], _reduced),
    **dict.fromkeys(["cat", "concat", "concatenate", "stack"], _joined),
    **dict.fromkeys(["softmax", "log_softmax"], _along(1, -1)),
    **dict.fromkeys(["chunk", "split", "tensor_split"], _along(2, 0)),
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], _transposed),
    "glu": _along(1, -1),
    "normalize": _along(2, 1),
    "unbind": _along(1, 0),
    "permute": _permuted,
    "getitem": _indexed,
}
"""Name of a torch function, without leading and trailing underscores (`relu` for `relu_`) -> its rule."""

TURNED: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), _turned_pointwise),
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], _transposed),
    "permute": _permuted,
    "linear": _turned_linear,
}
"""As `RULES`, where a function is given a turned map. Nothing else is done to one without losing its positions."""
