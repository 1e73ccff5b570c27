"""A batch of images through a network, again and again from one layer on, each time with other units ablated.

Knows: how a unit is ablated, the two ways to run what follows the layer, and that both give the same bits.
Does not know: which units are worth ablating, where images come from, or what becomes of the scores.

A unit is ablated by giving what follows the layer a copy of the layer's output in which the unit's map is set to its
level (0, or its mean). Nothing of the network is changed: weights never, and hooks are gone after each use.

**From the rest** (`Rest`): the network is cut at the layer (`cut`); the part before it runs once per batch, the rest
once per set of ablated units. Several sets are stacked into one larger batch: rows 0 to 31 are the 32 images with the
first set ablated, rows 32 to 63 the same images with the second, ... So 512 units of the last convolution of a VGG16
cost about five passes through the network, where running it 512 times would cost 512.

**From the whole** (`Whole`): where the network cannot be cut, it runs whole for each set, with a hook that replaces the
layer's output.

**The same bits.** How a sum is rounded depends on its order, and kernels choose their order by the shapes of what they
are given. A set by itself is replayed in the shape of the batch that the whole network would see, so every kernel after
the layer gets the same values in the same shapes as in a whole pass, and gives the same bits. A stack has another
shape. So sets of the first stack of each task are replayed one by one as well and compared, bit by bit: where the
kernels of this machine take other orders for a stack, or the rest mixes the images of a batch, sets are not stacked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dissect_xr.activations.taps import check_layers
from dissect_xr.errors import DissectError
from dissect_xr.experiments.replay.cut import CannotCutError, Cut, NoPathError, cut, runs_more_than_once

ROWS = 256
"""Rows of a stack of replays: matrix products of so many rows no longer wait for the weights to be read."""

STACK = 128 * 2**20
"""Bytes of the layer's output in a stack, at most, beyond one batch of images."""

COMPARED = 8
"""Sets of a stack that are replayed one by one as well, to see whether stacking changes a bit."""

Taken = TypeVar("Taken")

Sets = NDArray[np.bool_]
"""(set, unit) which units are ablated together."""


class Replay(Protocol):
    """Runs a network with units of a layer ablated."""

    def scores(self, batch: Tensor, sets: Sets, levels: Tensor) -> Iterator[Tensor]:
        """The network's output for the batch, with each set ablated in turn, (image, class)."""


@dataclass(frozen=True)
class Whole:
    """Runs the whole network for each set."""

    model: nn.Module
    layer: str

    def scores(self, batch: Tensor, sets: Sets, levels: Tensor) -> Iterator[Tensor]:
        """See `Replay`."""
        for units in sets:
            with replaced(self.model, self.layer, units, levels) as calls:
                found = self.model(batch.clone())  # a network may overwrite what it is given
            if len(calls) != 1:
                raise DissectError(runs_more_than_once(self.layer, len(calls)))
            yield found


@contextmanager
def replaced(model: nn.Module, layer: str, units: NDArray[np.bool_], levels: Tensor) -> Iterator[list[None]]:
    """Ablate units of a layer in the forward passes of this thread inside the `with` block; a list of its calls."""
    check_layers(model, [layer])
    thread, calls = get_ident(), list[None]()

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        if get_ident() != thread:
            return None
        calls.append(None)
        copy = checked(output, layer).clone()
        _ablate(copy, units, levels)
        return copy

    handle = model.get_submodule(layer).register_forward_hook(replace)
    try:
        yield calls
    finally:
        handle.remove()


@dataclass
class Rest:
    """Runs what follows the layer for each set, several sets at a time."""

    parts: Cut
    layer: str
    rows: int = ROWS
    """of a stack, at most"""
    stacks: dict[int, int] = field(default_factory=dict)
    """images of a batch -> sets of a stack, once the first one was compared"""

    @classmethod
    def of(cls, model: nn.Module, layer: str) -> Self:
        """The rest of a network that can be cut."""
        return cls(cut(model, layer), layer)

    def scores(self, batch: Tensor, sets: Sets, levels: Tensor) -> Iterator[Tensor]:
        """See `Replay`."""
        output, *skipping = self.parts.front(batch.clone())
        checked(output, self.layer)
        images, ready = len(output), list[Tensor]()
        if images not in self.stacks:
            ready = self._first_stack(output, skipping, sets, levels)
            self.stacks[images] = max(1, len(ready))
        yield from ready
        length = self.stacks[images]
        for first in range(len(ready), len(sets), length):
            here = sets[first : first + length]
            # All stacks have the shape that was compared: the last one is filled up with sets that nobody asks for.
            filled = np.concatenate([here, np.zeros((length - len(here), here.shape[1]), np.bool_)])
            yield from self._replay(output, skipping, filled, levels)[: len(here)]

    def _first_stack(self, output: Tensor, skipping: Sequence[Any], sets: Sets, levels: Tensor) -> list[Tensor]:
        """The scores for as many sets as fit in a stack; none where sets must not be stacked.

        Of a stack, up to `COMPARED` sets are replayed by themselves as well: the first, the last, some in between.
        """
        images = len(output)
        fit = min(self.rows // images, STACK // (output.numel() * output.element_size()), len(sets))
        if fit < 2:
            return []
        try:
            together = self._replay(output, skipping, sets[:fit], levels)
        except (RuntimeError, ValueError, TypeError, IndexError):  # too large, or written for so many images
            return []
        for n in np.unique(np.linspace(0, fit - 1, COMPARED).astype(int)).tolist():
            if not _equal(self._replay(output, skipping, sets[n : n + 1], levels)[0], together[n]):
                return []
        return together

    def _replay(self, output: Tensor, skipping: Sequence[Any], sets: Sets, levels: Tensor) -> list[Tensor]:
        """The scores for each set of one stack."""
        images, count = len(output), len(sets)
        maps = _stacked(output, images, count)
        for n, units in enumerate(sets):
            _ablate(maps[n * images : (n + 1) * images], units, levels)
        found = self.parts.rest(maps, *(_stacked(value, images, count) for value in skipping))
        if count > 1 and (not isinstance(found, Tensor) or len(found) != images * count):
            raise ValueError("the rest gives no row for each image")
        return list(found.split(images)) if count > 1 else [found]


def why_whole(model: nn.Module, layer: str, batch: Tensor) -> str | None:
    """Why the whole network has to run to ablate units of this layer, None where what follows the layer will do.

    The network is cut at the layer; on this batch, the rest must give what the whole network gives, with nothing
    ablated, everything, half of the units, and nothing again: bit by bit on a CPU, up to rounding elsewhere.

    Raises
    ------
    DissectError
        If the layer is missing, runs more than once, gives no maps or does not lead to the output; or if the network
        does not give the same scores again.
    """
    _, count = tapped(model, layer, batch, lambda output: output.shape[1])
    units = np.zeros((4, count), np.bool_)
    units[1], units[2, ::2] = True, True
    levels, whole = torch.zeros(count, device=batch.device), Whole(model, layer)
    alone = list(whole.scores(batch, units, levels))
    if not _equal(alone[0], alone[-1]):
        raise DissectError(
            f"layer {layer}: the network gives the same images other scores from pass to pass, so what a unit does "
            "cannot be told from what it draws. Mend the model: no random numbers in eval mode."
        )
    try:
        rest = Rest(cut(model, layer), layer, rows=1)
    except CannotCutError as error:
        if isinstance(error, NoPathError) and _equal(alone[0], alone[1]):
            raise DissectError(
                f"layer {layer}: the network's output does not depend on it, so ablating its units changes nothing. "
                "Name another layer."
            ) from error
        return str(error)
    try:
        replayed = list(rest.scores(batch, units, levels))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        return f"what follows the layer does not run by itself: {type(error).__name__}: {first_line}"
    if not all(_equal(a, b) for a, b in zip(alone, replayed, strict=True)):
        return "what follows the layer gives other scores by itself than in the whole network"
    return None


def tapped(model: nn.Module, layer: str, batch: Tensor, take: Callable[[Tensor], Taken]) -> tuple[Any, Taken]:
    """The network's output for a batch, and what `take` makes of the layer's output.

    `take` must reduce or copy what it is given: the next module may overwrite it.

    Raises
    ------
    DissectError
        If the layer does not run exactly once.
    """
    check_layers(model, [layer])
    taken: list[Taken] = []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda _, args, output: taken.append(take(checked(output, layer))))
    try:
        found = model(batch.clone())
    finally:
        handle.remove()
    if len(taken) != 1:
        raise DissectError(runs_more_than_once(layer, len(taken)))
    return found, taken[0]


def checked(output: Any, layer: str) -> Tensor:
    """The output of a layer, if its units can be ablated.

    Raises
    ------
    DissectError
        Unless it is one floating-point tensor (image, unit, y, x) or (image, unit).
    """
    if isinstance(output, Tensor) and output.ndim in (2, 4) and output.is_floating_point():
        return output
    got = f"a {tuple(output.shape)} {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise DissectError(
        f"layer {layer}: expected one floating-point tensor (image, unit, y, x) or (image, unit), got {got}. Name "
        "another layer."
    )


def _ablate(maps: Tensor, units: NDArray[np.bool_], levels: Tensor) -> None:
    """Set the maps of these units to their levels, in place."""
    if units.any():
        chosen = torch.from_numpy(np.flatnonzero(units)).to(maps.device)
        maps[:, chosen] = levels[chosen].to(maps.dtype).reshape(-1, *(1 for _ in range(maps.ndim - 2)))


def _stacked(value: Any, images: int, count: int) -> Any:
    """A copy of what the rest is given, `count` times for every tensor that has a row for each image."""

    def copies(tensor: Tensor) -> Tensor:
        if count > 1 and tensor.ndim and len(tensor) == images:
            return torch.cat([tensor] * count)  # keeps the order of the axes in memory, which kernels choose by
        return tensor.clone()

    return pytree.tree_map_only(Tensor, copies, value)


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape:
        return False
    if one.device.type == "cpu":
        return torch.equal(one, other)
    return torch.allclose(one.float(), other.float(), rtol=1e-4, atol=1e-5 * max(1.0, float(one.abs().max())))
