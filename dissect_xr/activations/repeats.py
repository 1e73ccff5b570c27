"""Whether a model repeats: an image gives the same activations every time, and beside whatever other images.

Knows: the passes that tell, how far rounding may go, and which layer differs first.
Does not know: why a model does not repeat; the images of a probe, since images of noise tell more.

Activations are recorded batch by batch, a resumed run may use batches of another size, and a block may be done twice.
So no layer may draw random numbers, as `F.dropout` without ``training=`` does, or take the mean of the images in the
batch, as batch normalisation without running statistics does.

Two images are looked at, a dark and a bright one, in these passes: both; both again; the dark one alone; the bright one
alone. Again, every bit must be the same on a CPU. Alone, a convolution may be computed by another kernel, which adds up
in another order, so rounding is allowed: with the root mean squares ``d`` of the difference, ``u`` of the unit's map
and ``a`` of all maps of the layer, ``d`` may be at most ``16 e u + 8 e a``. For float32 on a CPU, ``e`` is 1/4096, so
that is 0.4 % of the unit, or 0.2 % of the layer for units near 0. The maps of a ResNet-152 differed by at most 1/60 of
this, those of ten other networks by 1/200; with the statistics of the batch, those of the first layer by 240 times as
much. On a GPU, where float32 may be computed as TF32, and in half precision, ``e`` is 1/64: a quarter of the unit.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr.activations.layouts.layout import PLAIN, Layout
from dissect_xr.activations.tapping.hooks import buffers_kept
from dissect_xr.activations.taps import Tapped, as_tapped, forward
from dissect_xr.errors import DissectError

FINE, COARSE = 1 / 4096, 1 / 64
"""The `e` of the module's docstring."""

PASSES = 16
"""Passes instead of two where random numbers were drawn: stochastic depth often leaves two passes equal."""

Inputs = Callable[[NDArray[np.uint8]], Tensor]
"""Pixels (n, H, W, 3) -> the model's input on its device."""

_Maps = Mapping[str, tuple[int, int, int]]

_MEND = (
    "Mend the model, or set activations.allow_nondeterministic: true, which seeds every image block and ties the "
    "results to the batch size."
)


def check_repeats(
    model: nn.Module,
    inputs: Inputs,
    size: tuple[int, int],
    maps: _Maps,
    *,
    batch: int,
    layouts: Mapping[str, Layout] | None = None,
) -> None:
    """Raise unless layers repeat; the random generators of the process go on from where the passes leave them.

    Parameters
    ----------
    inputs
        The preprocessing, which must repeat, too.
    size
        (H, W) of the images.
    maps
        Layer -> (units, height, width), as found with another image.
    batch
        Images of a forward pass; with 1, no image is ever beside another.
    layouts
        Layer -> its layout, of those that do not give maps.

    Raises
    ------
    DissectError
        Naming the first layer whose maps differ, or have another size.
    """
    pixels, tapped = _noise(size)[: min(batch, 2)], _Layers(maps, layouts or {})
    with buffers_kept(model):
        try:
            _check(model, inputs, pixels, tapped)
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            _check(model, inputs, pixels[:1], tapped)  # where two images do not fit, every batch is one image


@dataclass(frozen=True)
class _Layers:
    maps: _Maps
    layouts: Mapping[str, Layout]

    @property
    def tapped(self) -> list[str | Tapped]:
        return [as_tapped(layer, self.layouts.get(layer, PLAIN)) for layer in self.maps]


def _check(model: nn.Module, inputs: Inputs, pixels: NDArray[np.uint8], maps: _Layers) -> None:
    given = inputs(pixels)
    _check_again("the preprocessing", given, inputs(pixels))
    before = _generators(given.device)
    kept: dict[str, Tensor] = {}
    _pass(model, given, maps, lambda layer, output: kept.update({layer: output.detach().clone()}))
    again = PASSES - 1 if _generators(given.device) != before else 1
    for _ in range(again):
        _pass(model, given, maps, lambda layer, output: _check_again(f"layer {layer}", kept[layer], output))
    for n in range(len(pixels)) if len(pixels) > 1 else ():
        alone, mine = inputs(pixels[n : n + 1]), slice(n, n + 1)
        _check_alone("the preprocessing", given[mine], alone)
        _pass(model, alone, maps, lambda la, output: _check_alone(f"layer {la}", kept[la][mine], output))  # noqa: B023


def _pass(model: nn.Module, batch: Tensor, maps: _Layers, take: Callable[[str, Tensor], None]) -> None:
    """One forward pass; every layer's output is passed to `take` before the next is computed."""

    def measured(layer: str, output: Tensor) -> None:
        check_size(layer, output, len(batch), maps.maps[layer], "for a blank image")
        take(layer, output)

    try:
        forward(model, batch, maps.tapped, measured)
    except (DissectError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        shape = "x".join(map(str, batch.shape))
        raise DissectError(
            f"the model fails on an input of {shape}, though not on a blank image: {type(error).__name__}: {error}"
        ) from error


def _check_again(what: str, first: Tensor, second: Tensor) -> None:
    same = _same_bits(first, second) if first.device.type == "cpu" else _excess(first, second) <= 1
    if not same:
        raise DissectError(
            f"{what} does not repeat: the same image gave other values the second time. Random numbers are drawn in it "
            f"or before it, as F.dropout does without training=self.training. {_MEND}"
        )


def _check_alone(what: str, beside: Tensor, alone: Tensor) -> None:
    if (excess := _excess(beside, alone)) > 1:
        raise DissectError(
            f"{what} gives an image other values beside another image than alone, {excess:.3g} times what rounding may "
            "do: results would depend on which images share a batch. Statistics of the batch are taken in it or before "
            f"it, as BatchNorm does with track_running_stats=False. {_MEND}"
        )


def check_size(layer: str, output: Tensor, images: int, expected: tuple[int, ...], when: str) -> None:
    """Raise unless a layer returns maps of the expected (units, height, width) for each image.

    Raises
    ------
    DissectError
        With both sizes; `when` says what the expected one was found with.
    """
    if tuple(output.shape) != (images, *expected):
        got = "x".join(map(str, output.shape[1:])) if len(output) == images else f"{len(output)} maps"
        raise DissectError(
            f"layer {layer}: its maps change from image to image: {'x'.join(map(str, expected))} {when}, {got} for "
            f"{images} other images. Expected maps of one size: leave this layer out of `layers`."
        )


def _same_bits(first: Tensor, second: Tensor) -> bool:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[first.element_size()]
    a, b = (tensor.detach().contiguous().flatten() for tensor in (first, second))
    return first.shape == second.shape and torch.equal(a.view(integers), b.view(integers))


def _excess(first: Tensor, second: Tensor) -> float:
    """The largest difference between maps (image, unit, y, x), over what rounding may do."""
    e = FINE if _is_fine(first) else COARSE
    a, b = (tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (first, second))
    if not 1e-12 < float(torch.linalg.vector_norm(a)) < 1e12:  # the squares of float32 would underflow or overflow
        a, b = (tensor.to(torch.float64).nan_to_num(0, 0, 0) for tensor in (a, b))
    difference, unit = torch.linalg.vector_norm(a - b, dim=(2, 3)), torch.linalg.vector_norm(a, dim=(2, 3))
    # Sums of squares over the cells of a map; the layer's is the mean over its units.
    layer = unit.square().mean(1, keepdim=True).sqrt()
    allowed = 16 * e * unit + 8 * e * layer
    # 0 / 0 is no difference; the smallest number keeps a difference from 0 infinite.
    return float((difference / allowed.clamp(min=torch.finfo(allowed.dtype).tiny)).nan_to_num(math.inf).max())


def _is_fine(values: Tensor) -> bool:
    """Whether values were computed with the precision of float32."""
    whole = values.device.type == "cpu" and torch.finfo(values.dtype).bits >= 32
    return whole and not torch.is_autocast_enabled("cpu") and torch.get_float32_matmul_precision() == "highest"


def _generators(device: torch.device) -> tuple[object, ...]:
    """The states of the random generators of the process."""
    gpu = torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # models draw from it
    numpy_state = legacy["state"]["key"].tobytes(), legacy["state"]["pos"]
    return torch.get_rng_state().numpy().tobytes(), gpu, random.getstate(), numpy_state


def _noise(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A dark and a bright image of noise, always the same: uint8 (2, H, W, 3)."""
    generator = np.random.default_rng(0)
    return np.stack([generator.integers(0, most, (*size, 3), np.uint8) for most in (64, 256)])
