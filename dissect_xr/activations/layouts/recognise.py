"""Which layouts the tensor of a tap may have, from the model, the module and the shapes of one pass and of another.

Knows: modules of torch that keep units in a known axis, which grids a model's maps have, attributes of model families.
Does not know: values: `impulse` tests what is found here, and decides where there are several.

A tensor is *plain* where it is certainly (image, unit, y, x): its cells were traced to the image, or a convolution,
a pooling or the like returned it. Everything else has candidates, the likeliest first. A grid of tokens has as many
cells as a map that was seen before, perhaps halved along both axes some times, and at most `PREFIXES` tokens more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
from torch import nn

from dissect_xr.activations.layouts.layout import GRIDDED, PLAIN, Layout
from dissect_xr.activations.tapping.calls import Seen
from dissect_xr.errors import DissectError

PREFIXES = 8
"""Tokens before those of the grid, at most: a class token, a distillation token, some registers."""

_CHANNELS_FIRST = (
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.MaxUnpool2d, nn.PixelShuffle,
    nn.PixelUnshuffle, nn.Upsample, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d,
    nn.Dropout2d, nn.GroupNorm, nn.LocalResponseNorm,
)  # fmt: skip
"""Modules whose four axes are image, unit, y and x, by what torch says of them."""


@dataclass(frozen=True)
class Guess:
    """What a tap was taken for."""

    layouts: tuple[Layout, ...]
    """the likeliest first; none where the tap is no layer"""
    why: str
    """what it was taken for, or why it is no layer"""
    is_sure: bool = False
    """whether it needs no test"""
    grid: tuple[int, int] | None = None
    """rows and columns of its map, where that is known"""


@dataclass
class Recogniser:
    """Goes through the taps of a pass in their order, and remembers the grids of maps."""

    model: nn.Module
    images: int
    """of the second pass; 1 where there is none"""
    again: Mapping[str, Seen]
    """the taps of the second pass"""
    traced: Mapping[str, Any]
    """tap -> its geometry, or the reason why there is none"""
    _grids: list[tuple[int, int]] = field(default_factory=list)
    _guesses: dict[str, Guess] = field(default_factory=dict)
    _in_mask_units: bool = False

    def __post_init__(self) -> None:
        self._modules = dict(self.model.named_modules())

    def all(self, taps: Mapping[str, Seen]) -> dict[str, Guess]:
        """What each tap was taken for, in the order of the taps."""
        for name, seen in taps.items():
            self._guesses[name] = guess = self._guess(name, seen)
            if guess.grid is not None and guess.grid not in self._grids[-1:]:
                self._grids.append(guess.grid)
        return self._guesses

    def filled(self, name: str, layout: Layout, seen: Seen) -> Layout:
        """A layout that a recipe gives, with the grid that the model has where none is given.

        Raises
        ------
        DissectError
            If the tensor has other axes, or no grid of the model fits.
        """
        if len(layout.axes) != len(seen.shape):
            raise DissectError(
                f"layer {name}: is {seen.what}, expected the axes {', '.join(layout.axes)} of layout {layout.kind!r}."
            )
        if layout.kind not in GRIDDED:
            return layout
        sizes = dict(zip(layout.axes, seen.shape, strict=True))
        tokens = sizes["token"] * sizes.get("window", 1)
        for grid in reversed(self._known()) if layout.grid is None else [layout.grid]:
            try:
                one = replace(layout, grid=grid)
            except DissectError:
                continue
            if one.tokens == tokens:
                return one
        if layout.grid is not None:
            raise DissectError(
                f"layer {name}: has {tokens} tokens; a grid of {layout.grid[0]}x{layout.grid[1]} with {layout.prefix} "
                f"before and {layout.suffix} after it has {layout.tokens}. Correct its layout."
            )
        raise DissectError(
            f"layer {name}: its {tokens} tokens, less {layout.prefix} before and {layout.suffix} after them, fit no "
            f"grid of the model. Give it: layout: {{kind: {layout.kind}, grid: [ROWS, COLUMNS]}}."
        )

    def _guess(self, name: str, seen: Seen) -> Guess:
        if not seen.is_floating or 0 in seen.shape:
            return _none(f"is {seen.what}, expected floating-point numbers")
        if seen.same in self._guesses:
            return self._guesses[seen.same]
        if self._is_plain(name, seen):
            height, width = seen.shape[2:]
            grid = (height, width) if height * width > 1 else None
            return Guess((PLAIN,), "maps of convolutions", is_sure=True, grid=grid)
        scale = self._scale(name, seen)
        if isinstance(scale, str):
            return _none(scale)
        return self._by_axes(seen, *scale)

    def _is_plain(self, name: str, seen: Seen) -> bool:
        if len(seen.shape) != 4 or seen.shape[0] != 1:
            return False
        if not isinstance(self.traced.get(name, ""), str) or seen.shape[2:] == (1, 1):
            return True
        return isinstance(self._modules[seen.tap.module], _CHANNELS_FIRST)

    def _scale(self, name: str, seen: Seen) -> tuple[int, int] | str:
        """(axis that grows with the images, its rows for one image), or why there is none."""
        if self.images == 1:
            return 0, seen.shape[0]
        other = self.again.get(name)
        if other is None or len(other.shape) != len(seen.shape):
            return "changes with the number of images"
        pairs = list(zip(seen.shape, other.shape, strict=True))
        grown = [n for n, (one, many) in enumerate(pairs) if many == one * self.images]
        same = [n for n, (one, many) in enumerate(pairs) if many == one]
        if not grown:
            return "has no axis of images: it is the same for any number of them"
        if len(grown) > 1 or len(same) != len(pairs) - 1:
            return "changes with the number of images along several axes"
        return grown[0], seen.shape[grown[0]]

    def _by_axes(self, seen: Seen, axis: int, rows: int) -> Guess:
        sizes = [size for n, size in enumerate(seen.shape) if n != axis]
        found: Sequence[Layout] = ()
        if _is_attention(self._modules, seen):
            return _none("is attention weights (image, head, token, token), which have no units")
        if rows > 1 and axis == 0:
            found = self._windows(seen, rows, sizes)
        elif rows == 1 and len(sizes) == 2:
            found = self._tokens(seen, axis, sizes)
        elif rows == 1 and len(sizes) == 3 and axis == 0:
            found = self._four(seen, sizes)
        elif rows == 1 and len(sizes) == 1:
            return _none(f"is {seen.what}, one number for each unit: name it with layout: cell for maps of one cell")
        if not found:
            grids = ", ".join(f"{h}x{w}" for h, w in dict.fromkeys(self._grids[-3:])) or "none"
            return _none(
                f"is {seen.what}, in which no axes fit a grid of the model ({grids}); a `layout` says what they are"
            )
        first = found[0]
        return Guess(tuple(found), said(first), grid=first.grid or _map_of(seen, first))

    def _four(self, seen: Seen, sizes: Sequence[int]) -> list[Layout]:
        """Maps of either order if their size was seen before; else tokens of heads; else maps, as is usual."""
        a, b, c = sizes
        last, seen_before = self._units_are_last(seen), set(self._grids)
        maps = [PLAIN] if (b, c) in seen_before and not last else []
        maps += [Layout("nhwc")] if (a, b) in seen_before else []
        if maps:
            return maps
        heads = [Layout("heads", grid=grid, prefix=prefix) for grid, prefix in self._fits(seen, b)]
        heads += self._gridded(seen, a, ("image", "token", "head", "unit"))
        halved = [Layout("nhwc")] if (a, b) in self._known() or (last and not heads) else []
        return [*halved, *heads] or [PLAIN]

    def _tokens(self, seen: Seen, axis: int, sizes: Sequence[int]) -> list[Layout]:
        first, last = sizes
        levels = self._mask_units(seen, axis, first)
        if levels is not None:
            return [levels]
        if axis == 1:
            return self._gridded(seen, first, ("token", "image", "unit"))
        if axis == 2:
            return []
        straight = self._windows(seen, 1, sizes) or self._gridded(seen, first, ())
        turned = self._gridded(seen, last, ("image", "unit", "token"))
        return straight if self._units_are_last(seen) else [*straight, *turned]

    def _gridded(self, seen: Seen, tokens: int, axes: tuple[str, ...]) -> list[Layout]:
        return [Layout("tokens", grid=grid, prefix=prefix, axes=axes) for grid, prefix in self._fits(seen, tokens)]

    def _windows(self, seen: Seen, rows: int, sizes: Sequence[int]) -> list[Layout]:
        """Windows of all images one after another, whose size and shift a module around this one knows."""
        found: list[Layout] = []
        for module in self._around(seen):
            window, shift = (_pair(getattr(module, name, None)) for name in ("window_size", "shift_size"))
            if window is None or shift is None or window[0] * window[1] != sizes[-2]:
                continue
            axes = ("window", "head", "token", "unit") if len(sizes) == 3 else ()
            for grid, padded in product(reversed(self._known()), ("after", "before")):
                layout = Layout("windows", grid=grid, window=window, shift=shift, axes=axes, padded=padded)  # type: ignore[arg-type]
                if prod(layout.windows) == rows and not any(
                    np.array_equal(layout.order(), other.order()) for other in found
                ):
                    found.append(layout)
        foreign = "transformers." in type(self.model).__module__  # fills up before it rolls
        found.sort(key=lambda layout: (layout.padded == "before") != foreign)
        return found

    def _mask_units(self, seen: Seen, axis: int, tokens: int) -> Layout | None:
        """The layout of Hiera's tokens, from the module that brings them into the order of pooling."""
        for module in self._around(seen):
            unroll = getattr(module, "unroll", None)
            schedule, size = getattr(unroll, "schedule", None), getattr(unroll, "size", None)
            if schedule is None or size is None or axis != 0:
                continue
            self._in_mask_units |= unroll is self._modules.get(seen.tap.module) and seen.tap.side == "output"
            if not self._in_mask_units or any(tuple(stride) != (2, 2) for stride in schedule):
                return None
            for pooled in range(len(schedule) + 1):
                grid = (size[0] >> pooled, size[1] >> pooled)
                if grid[0] * grid[1] == tokens:
                    return Layout("mask_units", grid=grid, levels=len(schedule) - pooled)
        return None

    def _fits(self, seen: Seen, tokens: int) -> list[tuple[tuple[int, int], int]]:
        """(grid, prefix) of which there are so many tokens, those of the grid seen last first."""
        told = [n for module in self._around(seen) if isinstance(n := getattr(module, "num_prefix_tokens", None), int)]
        allowed = {0, *told[:1]} if told else set(range(PREFIXES + 1))
        fits = [(grid, tokens - grid[0] * grid[1]) for grid in reversed(self._known())]
        for tier in ({0}, allowed):  # a grid that fits without other tokens is no chance
            if found := [(grid, prefix) for grid, prefix in fits if prefix in tier and prod(grid) > prefix]:
                return found
        return []

    def _known(self) -> list[tuple[int, int]]:
        """The grids seen so far, the latest last; before them those halved, as blocks that merge patches leave them."""
        seen = list(dict.fromkeys(reversed(self._grids)))[::-1]
        halved = [(-(-h // 2**n), -(-w // 2**n)) for n in (3, 2, 1) for h, w in seen]
        return [*(grid for grid in dict.fromkeys(halved) if grid not in seen and prod(grid) > 1), *seen]

    def _units_are_last(self, seen: Seen) -> bool:
        module = self._modules[seen.tap.module]
        if type(module) is nn.LayerNorm:
            return len(module.normalized_shape) == 1
        return type(module) is nn.Linear

    def _around(self, seen: Seen) -> list[nn.Module]:
        """The module of a tap and those that it is part of, the smallest first."""
        parts = seen.tap.module.split(".")
        names = [".".join(parts[:n]) for n in range(len(parts), -1, -1)]
        return [self._modules[name] for name in names]


def _is_attention(modules: Mapping[str, nn.Module], seen: Seen) -> bool:
    module, name = modules[seen.tap.module], seen.tap.module.rpartition(".")[2]
    weights = (isinstance(module, nn.Softmax) and module.dim in (-1, 3)) or "attn_drop" in name
    return weights and len(seen.shape) == 4 and seen.shape[2] == seen.shape[3]


def _map_of(seen: Seen, layout: Layout) -> tuple[int, int] | None:
    if layout.kind not in ("nchw", "nhwc"):
        return None
    height, width = seen.shape[layout.axes.index("y")], seen.shape[layout.axes.index("x")]
    return (height, width) if height * width > 1 else None


def _none(why: str) -> Guess:
    return Guess((), why)


def _pair(value: object) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, (tuple, list)) and len(value) == 2 else None


def said(layout: Layout) -> str:
    """What a layout means, in a few words.

    >>> said(Layout("tokens", grid=(14, 14), prefix=5))
    'tokens on a grid of 14x14, after 5 others'
    """
    grid = "" if layout.grid is None else f" on a grid of {layout.grid[0]}x{layout.grid[1]}"
    before = f", after {_others(layout.prefix)}" if layout.prefix else ""
    match layout.kind:
        case "nchw":
            return "maps (unit, y, x)"
        case "nhwc":
            return "maps (y, x, unit)"
        case "heads":
            return f"tokens of heads{grid}{before}"
        case "windows":
            shifted = f", shifted by {layout.shift[0]}, {layout.shift[1]}" if any(layout.shift) else ""
            return f"windows of {layout.window[0]}x{layout.window[1]} tokens{grid}{shifted}"
        case "mask_units":
            return f"tokens in mask units{grid}"
        case "token":
            return f"token {layout.index} alone"
        case "cell":
            return "one number for each unit"
    return f"tokens{grid}{before}"


def _others(count: int) -> str:
    return "one other" if count == 1 else f"{count} others"
