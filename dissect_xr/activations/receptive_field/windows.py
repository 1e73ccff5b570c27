"""How torch functions that compute one map from another change its geometry: windows, padding, resampling, pooling.

Knows: the arguments of these functions, with torch's names and in torch's order, and which of them move cells.
Does not know: how calls are recorded (`tracing`), or how several maps are combined (`rules`).

Every rule takes the input's geometry, the output (for its shape) and then the arguments of the torch function, of which
the input is the first. Arguments that move no cell are ignored: torch has already accepted them.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor

from dissect_xr.activations.receptive_field.geometry import Geometry, NoGeometryError


def conv2d(
    of: Geometry, output: Tensor, input: Tensor, weight: Tensor, bias: object = None, *rest: Any, **named: Any
) -> Geometry:
    """Geometry after a convolution, which may be dilated, grouped, or padded "same"."""
    stride, padding, dilation, _ = _arguments(rest, named, stride=1, padding=0, dilation=1, groups=1)
    return _windows(of, weight.shape[2:], stride, padding, dilation)


def conv_transpose2d(
    of: Geometry, output: Tensor, input: Tensor, weight: Tensor, bias: object = None, *rest: Any, **named: Any
) -> Geometry:
    """Geometry after a transposed convolution, see `AxisGeometry.spread`."""
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    stride, padding, _, _, dilation = _arguments(rest, named, **defaults)
    kernels = weight.shape[2:]
    parts = zip((of.y, of.x), kernels, _pair(stride), _pair(padding), _pair(dilation), strict=True)
    return Geometry(*(axis.spread(k, stride=s, padding=p, dilation=d) for axis, k, s, p, d in parts))


def max_pool2d(
    of: Geometry, output: Tensor, input: Tensor, kernel_size: Any, stride: Any = None, *rest: Any, **named: Any
) -> Geometry:
    """Geometry after max pooling; rounding the size up (`ceil_mode`) moves no cell."""
    padding, dilation, *_ = _arguments(rest, named, padding=0, dilation=1, ceil_mode=False, return_indices=False)
    return _windows(of, kernel_size, stride or kernel_size, padding, dilation)


def avg_pool2d(
    of: Geometry,
    output: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *_: Any,
    **__: Any,
) -> Geometry:
    """Geometry after average pooling."""
    return _windows(of, kernel_size, stride or kernel_size, padding, 1)


def lp_pool2d(
    of: Geometry,
    output: Tensor,
    input: Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    *_: Any,
    **__: Any,
) -> Geometry:
    """Geometry after power-average pooling."""
    return _windows(of, kernel_size, stride or kernel_size, 0, 1)


def adaptive_pool2d(of: Geometry, output: Tensor, input: Tensor, *_: Any, **__: Any) -> Geometry:
    """Geometry after adaptive pooling, if all its windows have the same size."""
    old, new = tuple(input.shape[-2:]), tuple(output.shape[-2:])
    if any(n % m for n, m in zip(old, new, strict=True)):
        raise NoGeometryError(f"pools {old} to {new}, by windows of unequal size")
    factors = [n // m for n, m in zip(old, new, strict=True)]
    return _windows(of, factors, factors, 0, 1)


def reduced(
    of: Geometry, output: Tensor, input: Tensor, dim: Any = None, keepdim: bool = False, dtype: object = None
) -> Geometry | None:
    """Geometry after a mean, sum or maximum over units (unchanged) or over y and x (one cell, or a vector)."""
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    pooled = {d % input.ndim - input.ndim for d in dims} & {-2, -1}
    if not pooled:
        return of
    if output.ndim == input.ndim:
        kernel = [input.shape[d] if d in pooled else 1 for d in (-2, -1)]
        return _windows(of, kernel, kernel, 0, 1)
    if len(pooled) == 2:
        return None
    raise NoGeometryError("pools one axis and drops it")


def pad(of: Geometry, output: Tensor, input: Tensor, pad: Sequence[int], *_: Any, **__: Any) -> Geometry:
    """Geometry after padding, or cropping where negative; `pad` counts from the last dim: left, right, top, bottom."""
    return Geometry(of.y.at(1, -pad[2] if len(pad) > 2 else 0), of.x.at(1, -pad[0] if pad else 0))


def pixel_shuffle(of: Geometry, output: Tensor, input: Tensor, upscale_factor: int) -> Geometry:
    """Geometry after a pixel shuffle, which turns units into cells."""
    return Geometry(of.y.resampled(Fraction(1, upscale_factor)), of.x.resampled(Fraction(1, upscale_factor)))


def pixel_unshuffle(of: Geometry, output: Tensor, input: Tensor, downscale_factor: int) -> Geometry:
    """Geometry after the inverse of a pixel shuffle, which turns cells into units."""
    return _windows(of, downscale_factor, downscale_factor, 0, 1)


def interpolate(
    of: Geometry, output: Tensor, input: Tensor, size: Any = None, scale_factor: Any = None, **named: Any
) -> Geometry | None:
    """Geometry after bilinear resampling, or nearest upsampling by a whole number."""
    old, new = tuple(input.shape[-2:]), tuple(output.shape[-2:])
    mode = named.get("mode", "nearest")
    if old == (1, 1):
        return None
    if named.get("antialias"):
        raise NoGeometryError("resamples with antialiasing")
    if mode == "bilinear" and named.get("align_corners"):
        corners = [Fraction(n - 1, max(m - 1, 1)) for n, m in zip(old, new, strict=True)]
        return Geometry(of.y.at(corners[0], 0, 1), of.x.at(corners[1], 0, 1))
    # torch uses the given factor, which differs from the ratio of the sizes if the new size was rounded.
    factors = _pair(None if named.get("recompute_scale_factor") else scale_factor)
    steps = [Fraction(n, m) if f is None else 1 / Fraction(f) for f, n, m in zip(factors, old, new, strict=True)]
    if mode == "bilinear":
        return Geometry(of.y.resampled(steps[0], 1), of.x.resampled(steps[1], 1))
    if mode in ("nearest", "nearest-exact") and all(step.numerator == 1 for step in steps):
        return Geometry(of.y.resampled(steps[0]), of.x.resampled(steps[1]))
    raise NoGeometryError(f"resamples {old} to {new} ({mode})")


def _windows(of: Geometry, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Geometry:
    kernels, strides, dilations = _pair(kernel), _pair(stride), _pair(dilation)
    if padding == "same":
        # If the padding is odd, torch adds the extra cell at the end.
        padding = [d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True)]
    paddings = _pair(0 if padding == "valid" else padding)
    parts = zip((of.y, of.x), kernels, strides, paddings, dilations, strict=True)
    return Geometry(*(axis.window(k, stride=s, padding=p, dilation=d) for axis, k, s, p, d in parts))


def _arguments(rest: tuple[Any, ...], named: dict[str, Any], **defaults: Any) -> list[Any]:
    """The values of the arguments that `defaults` lists in torch's order, given by position or by name."""
    by_position = dict(zip(defaults, rest, strict=False))
    return [{**defaults, **named, **by_position}[name] for name in defaults]


def _pair(value: Any) -> tuple[Any, Any]:
    values = tuple(value) if isinstance(value, Iterable) else (value,)
    return (values[0], values[-1])
