"""The calls of a forward pass: which modules run, and which tensors each is given and returns.

Knows: how a pass is watched without keeping tensors; the names of all taps that it has.
Does not know: which of them can be layers (`taps`, `recognise`).
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dissect_xr.activations.closed import closed_modules
from dissect_xr.activations.tapping.hooks import buffers_kept, evaluating
from dissect_xr.activations.tapping.name import Tap
from dissect_xr.activations.tapping.values import Path, arguments, description, tensors_in
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Seen:
    """A tensor that a module was given or returned."""

    tap: Tap
    shape: tuple[int, ...]
    is_floating: bool
    what: str
    """the tensor in a message"""
    same: str | None
    """name of an earlier tap that gave the same tensor, such as the last module of a Sequential"""


@dataclass(frozen=True)
class Call:
    """One call of a module that returned."""

    module: str
    number: int
    """from 1"""
    returned: str
    """in a message"""
    outputs: tuple[tuple[Path, Seen], ...]
    inputs: tuple[tuple[Path, Seen], ...]
    is_tensor: bool
    """whether it returned one tensor, and nothing around it"""


def watch(model: nn.Module, example: Tensor) -> list[Call]:
    """The calls of one forward pass in eval mode, in the order in which they return. The model is not changed.

    Raises
    ------
    DissectError
        If the model fails on this input.
    """
    closed, watching = closed_modules(model), _Watching()
    with evaluating(model), buffers_kept(model), ExitStack() as stack:
        for name, module in model.named_modules():
            if name and name not in closed:
                stack.callback(module.register_forward_pre_hook(watching.enter(name), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(watching.leave(name)).remove)
        try:
            with torch.inference_mode():
                model(example)
        except (Exception, SystemExit) as error:
            shape = "x".join(map(str, example.shape))
            raise DissectError(f"the model fails on an input of {shape}: {type(error).__name__}: {error}") from error
    return watching.calls


def taps_of(calls: Sequence[Call]) -> dict[str, Seen]:
    """Name -> tensor of every tap of a pass: outputs, their elements, and inputs, in the order of the calls.

    Calls are numbered where a module has several.
    """
    counts = Counter(call.module for call in calls)
    found: dict[str, Seen] = {}
    for call in calls:
        number = call.number if counts[call.module] > 1 else None
        for side, seen in (("input", call.inputs), ("output", call.outputs)):
            for path, one in seen:
                tap = Tap(call.module, number, side, path)  # type: ignore[arg-type]
                found[str(tap)] = Seen(tap, one.shape, one.is_floating, one.what, one.same)
    return found


class _Watching:
    """Notes the calls while a pass runs."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.numbers: Counter[str] = Counter()
        self.inputs: dict[str, list[tuple[tuple[Path, Seen], ...]]] = {}
        self.known: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def enter(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            given = arguments(args, kwargs)
            first = next(iter(given), None)
            # The first argument needs no key.
            seen = ((path if path != (first,) else (), one) for path, one in self._seen(name, "input", given))
            self.inputs.setdefault(name, []).append(tuple(seen))

        return hook

    def leave(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            self.numbers[name] += 1
            inputs = self.inputs[name].pop() if self.inputs.get(name) else ()
            outputs = tuple(self._seen(name, "output", output))
            is_tensor = isinstance(output, Tensor)
            self.calls.append(Call(name, self.numbers[name], description(output), outputs, inputs, is_tensor))

        return hook

    def _seen(self, module: str, side: str, value: object) -> Iterator[tuple[Path, Seen]]:
        for path, tensor in tensors_in(value):
            tap = Tap(module, None, side, path)  # type: ignore[arg-type]
            known = self.known.get(id(tensor))
            same = known[1] if known is not None and known[0]() is tensor else None
            if side == "output":
                self.known[id(tensor)] = weakref.ref(tensor), str(tap)
            yield path, Seen(tap, tuple(tensor.shape), tensor.is_floating_point(), description(tensor), same)
