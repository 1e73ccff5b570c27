"""What each torch function does to the positions of the cells it passes on.

Knows: torch's functions by name and their arguments, for maps whose last two dims are y and x.
Does not know: models, layers, or how the calls were recorded. A function without a rule has no geometry; nothing is
guessed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from dissect_xr.activations.geometry import AxisGeometry, Geometry

Position = Geometry | str | None
"""Of a tensor's cells: a geometry, the reason why there is none, or None where there is no position to have
(parameters, and what was computed from them or from a pooled vector alone)."""


class NoGeometryError(Exception):
    """Raised by a rule; the message is the reason."""


@dataclass(frozen=True)
class Call:
    """One call of a torch function."""

    position: Callable[[Tensor], Position]
    """Of any tensor seen so far."""
    output: Tensor
    """First tensor it returned; only its shape counts."""


Rule = Callable[..., Position]
"""Takes a `Call` and the function's own arguments."""


def tensors(value: object) -> Iterator[Tensor]:
    """Tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def pointwise(call: Call, *args: object, **kwargs: object) -> Position:
    """Where maps meet cell by cell, the one with the largest receptive field counts; pooled ones do not."""
    maps = [(tensor, p) for tensor in tensors([args, kwargs]) if isinstance(p := call.position(tensor), Geometry)]
    y = _widest([(tensor.shape[-2], p.y) for tensor, p in maps], call.output.shape[-2])
    x = _widest([(tensor.shape[-1], p.x) for tensor, p in maps], call.output.shape[-1])
    if y is None and x is None:
        return None
    if y is None or x is None:
        raise NoGeometryError("pools one axis only and spreads it again")
    return Geometry(y, x)


def _widest(axes: list[tuple[int, AxisGeometry]], length: int) -> AxisGeometry | None:
    meeting = [axis for n, axis in axes if n == length]
    if length > 1 and len({axis.jump for axis in meeting}) > 1:
        raise NoGeometryError(f"joins maps of jump {' and '.join(sorted(str(axis.jump) for axis in meeting))}")
    return max(meeting, key=lambda axis: axis.field, default=None)


def _joined(call: Call, tensors: Sequence[Tensor], dim: int = 0) -> Position:
    _check_leading(dim, call.output.ndim)
    return pointwise(call, *tensors)


def _along(position: int, default: int) -> Rule:
    """Rule of a function that works along one dim, named `dim` or its argument of this position."""

    def rule(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Position:
        dim = kwargs.get("dim", args[position - 1] if len(args) >= position else default)
        _check_leading(default if dim is None else dim, input.ndim)
        return call.position(input)

    return rule


def _check_leading(dim: int, ndim: int) -> None:
    if dim % ndim >= ndim - 2:
        raise NoGeometryError("works along y or x")


def _axes(call: Call, tensor: Tensor) -> tuple[AxisGeometry, AxisGeometry]:
    position = call.position(tensor)
    if not isinstance(position, Geometry):
        raise NoGeometryError("is given no map")
    return position.y, position.x


def _pair(value: Any) -> tuple[Any, Any]:
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _windows(call: Call, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Geometry:
    kernels, strides, dilations = _pair(kernel), _pair(stride), _pair(dilation)
    if padding == "same":
        # torch pads the odd cell at the end.
        paddings = tuple(d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True))
    else:
        paddings = _pair(0 if padding == "valid" else padding)
    windows = zip(_axes(call, input), kernels, strides, paddings, dilations, strict=True)
    return Geometry(*(axis.window(k, stride=s, padding=p, dilation=d) for axis, k, s, p, d in windows))


def _conv2d(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: object = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Position:
    return _windows(call, input, weight.shape[2:], stride, padding, dilation)


def _conv_transpose2d(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: object = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Position:
    spreads = zip(_axes(call, input), weight.shape[2:], _pair(stride), _pair(padding), _pair(dilation), strict=True)
    return Geometry(*(axis.spread(k, stride=s, padding=p, dilation=d) for axis, k, s, p, d in spreads))


def _max_pool2d(
    call: Call,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Position:
    return _windows(call, input, kernel_size, stride or kernel_size, padding, dilation)


def _avg_pool2d(
    call: Call, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *args: Any, **kwargs: Any
) -> Position:
    return _windows(call, input, kernel_size, stride or kernel_size, padding, 1)


def _lp_pool2d(
    call: Call, input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Position:
    return _windows(call, input, kernel_size, stride or kernel_size, 0, 1)


def _adaptive_pool2d(call: Call, input: Tensor, output_size: Any, return_indices: bool = False) -> Position:
    lengths = list(zip(input.shape[-2:], call.output.shape[-2:], strict=True))
    if any(old % new for old, new in lengths):
        raise NoGeometryError(f"pools {tuple(input.shape[-2:])} to {tuple(call.output.shape[-2:])}, unequal windows")
    factors = [old // new for old, new in lengths]
    return _windows(call, input, factors, factors, 0, 1)


def _pad(call: Call, input: Tensor, pad: Sequence[int], mode: str = "constant", value: object = None) -> Position:
    y, x = _axes(call, input)
    return Geometry(y.at(1, -pad[2] if len(pad) > 2 else 0), x.at(1, -pad[0]))


def _interpolate(
    call: Call,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Position:
    if tuple(input.shape[-2:]) == (1, 1):
        return None
    if antialias:
        raise NoGeometryError("resamples with antialiasing")
    factors = _pair(None if recompute_scale_factor else scale_factor)
    lengths = zip(input.shape[-2:], call.output.shape[-2:], strict=True)
    steps = [Fraction(n, m) if f is None else 1 / Fraction(f) for f, (n, m) in zip(factors, lengths, strict=True)]
    if mode == "bilinear" and align_corners:
        lengths = zip(input.shape[-2:], call.output.shape[-2:], strict=True)
        corners = [Fraction(n - 1, max(m - 1, 1)) for n, m in lengths]
        return Geometry(*(axis.at(step, 0, 1) for axis, step in zip(_axes(call, input), corners, strict=True)))
    if mode == "bilinear":
        return Geometry(*(axis.resampled(step, 1) for axis, step in zip(_axes(call, input), steps, strict=True)))
    if mode in ("nearest", "nearest-exact") and all(step.numerator == 1 for step in steps):
        return Geometry(*(axis.resampled(step) for axis, step in zip(_axes(call, input), steps, strict=True)))
    raise NoGeometryError(f"resamples ({mode}) by {' and '.join(str(1 / step) for step in steps)}")


def _pixel_shuffle(call: Call, input: Tensor, upscale_factor: int) -> Position:
    return Geometry(*(axis.split(upscale_factor) for axis in _axes(call, input)))


def _pixel_unshuffle(call: Call, input: Tensor, downscale_factor: int) -> Position:
    return _windows(call, input, downscale_factor, downscale_factor, 0, 1)


def _reduced(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False, dtype: object = None) -> Position:
    """Mean, sum, max ... over units (positions stay), or over y and x (a pooled map, or a vector)."""
    if isinstance(dim, Tensor):  # torch.max(a, b) compares
        return pointwise(call, input, dim)
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    pooled = {d % input.ndim - input.ndim for d in dims} & {-2, -1}
    if not pooled:
        return call.position(input)
    if call.output.ndim == input.ndim:
        kernel = [input.shape[d] if d in pooled else 1 for d in (-2, -1)]
        return _windows(call, input, kernel, kernel, 0, 1)
    if len(pooled) == 2:
        return None
    raise NoGeometryError("pools one axis only")


def _reshaped(call: Call, input: Tensor, *args: object, **kwargs: object) -> Position:
    """Memory order is kept, so the positions are where the last two dims are."""
    if call.output.shape[-2:] == input.shape[-2:]:
        return call.position(input)
    if tuple(input.shape[-2:]) == (1, 1):
        return None
    raise NoGeometryError(f"turns a map of shape {tuple(input.shape)} into {tuple(call.output.shape)}")


def _permuted(call: Call, input: Tensor, *dims: Any) -> Position:
    order = [d % input.ndim for d in (dims[0] if len(dims) == 1 else dims)]
    return _reordered(call, input, order)


def _transposed(call: Call, input: Tensor, dim0: int, dim1: int) -> Position:
    order = list(range(input.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _reordered(call, input, order)


def _reordered(call: Call, input: Tensor, order: list[int]) -> Position:
    if order[-2:] == [input.ndim - 2, input.ndim - 1]:
        return call.position(input)
    if tuple(input.shape[-2:]) == (1, 1):
        return None
    raise NoGeometryError("moves y and x to other dims")


def _indexed(call: Call, input: Tensor, index: Any) -> Position:
    """A slice along y or x starts later and may step; anything may happen to the dims before."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        used = sum(part is not None and part is not Ellipsis for part in parts)
        parts[at : at + 1] = [slice(None)] * (input.ndim - used)
    if any(not isinstance(part, (int, slice, type(None))) or isinstance(part, bool) for part in parts):
        raise NoGeometryError("is indexed by a list or tensor")
    parts = [part for part in parts if part is not None]
    parts += [slice(None)] * (input.ndim - len(parts))
    if not all(isinstance(part, slice) for part in parts[-2:]) or call.output.shape[-2:].numel() == 0:
        raise NoGeometryError("takes single rows or columns")
    slices = [part.indices(n) for part, n in zip(parts[-2:], input.shape[-2:], strict=True)]
    return Geometry(*(axis.at(s[2], s[0]) for axis, s in zip(_axes(call, input), slices, strict=True)))


def _nowhere(call: Call, *args: object, **kwargs: object) -> Position:
    return None


_POINTWISE = """
    abs add addcdiv addcmul alpha_dropout atan batch_norm bernoulli ceil celu clamp clamp_max clamp_min clip clone
    contiguous cos detach div dropout dropout1d dropout2d dropout3d elu eq erf exp exp2 expm1 feature_alpha_dropout
    feature_dropout float floor ge gelu group_norm gt half bfloat16 double hardshrink hardsigmoid hardswish hardtanh
    iadd idiv imul instance_norm isub itruediv layer_norm le leaky_relu lerp local_response_norm log log10 log1p log2
    logical_and logical_not logical_or logit logsigmoid lt masked_fill maximum minimum mish mul multiply native_batch_norm
    ne neg negative pow prelu radd rdiv reciprocal relu relu6 requires_grad rms_norm rmul round rpow rrelu rsqrt rsub
    rtruediv selu sigmoid sign silu sin softplus softshrink softsign sqrt square sub subtract swish tanh tanhshrink
    threshold to true_divide truediv type type_as where
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    **dict.fromkeys(("softmax", "log_softmax"), _along(1, -1)),
    **dict.fromkeys(("chunk", "split", "tensor_split"), _along(2, 0)),
    "unbind": _along(1, 0),
    "glu": _along(1, -1),
    "normalize": _along(2, 1),
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _max_pool2d),
    "avg_pool2d": _avg_pool2d,
    "lp_pool2d": _lp_pool2d,
    **dict.fromkeys(
        ("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"), _adaptive_pool2d
    ),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "interpolate": _interpolate,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "logsumexp"), _reduced),
    **dict.fromkeys(
        "broadcast_to expand expand_as flatten repeat reshape reshape_as squeeze unflatten unsqueeze view view_as".split(),
        _reshaped,
    ),
    "channel_shuffle": pointwise,
    "permute": _permuted,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transposed),
    "getitem": _indexed,
    **dict.fromkeys(
        "empty_like full_like ones_like rand_like randn_like zeros_like new_empty new_full new_ones new_zeros".split(),
        _nowhere,
    ),
}
"""Rule of every function understood, by its name without leading or trailing underscores (`relu_` is `relu`)."""
