"""Hooks that pass on what modules are given and return, while a forward pass computes it.

Knows: how hooks are set and removed, how calls of a module are counted, how a model is put into eval mode and back.
Does not know: which taps a model has (`calls`), or what becomes of what is passed on.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from dissect_xr.activations.tapping.name import Tap
from dissect_xr.activations.tapping.values import arguments, element
from dissect_xr.errors import DissectError

Take = Callable[[str, object], None]
"""A function of a tap's name and the value there. It must copy or reduce the value before it returns: the next module
may overwrite a tensor in place."""


@contextmanager
def listening(model: nn.Module, taps: Mapping[str, Tap], take: Take) -> Iterator[None]:
    """Pass the value at each tap to `take` inside the `with` block, where the model is in eval mode.

    Forward passes that other threads run on the same model are ignored: their images are not those of this thread.
    """
    thread, modules = threading.get_ident(), dict(model.named_modules())
    of_module: dict[str, dict[str, Tap]] = defaultdict(dict)
    for name, tap in taps.items():
        of_module[tap.module][name] = tap
    calls: dict[str, int] = {}
    with evaluating(model), ExitStack() as stack:
        if any(tap.call is not None for tap in taps.values()):
            stack.callback(model.register_forward_pre_hook(lambda *_: calls.clear()).remove)
        for module, mine in of_module.items():
            heard = _Heard(module, mine, calls, thread, take)
            if any(tap.call is not None or tap.side == "input" for tap in mine.values()):
                stack.callback(modules[module].register_forward_pre_hook(heard.given, with_kwargs=True).remove)
            if any(tap.side == "output" for tap in mine.values()):
                stack.callback(modules[module].register_forward_hook(heard.returned).remove)
        yield


class _Heard:
    """What one module is given and returns, passed on where a tap asks for it."""

    def __init__(self, module: str, taps: Mapping[str, Tap], calls: dict[str, int], thread: int, take: Take) -> None:
        self.module, self.calls, self.thread, self.take = module, calls, thread, take
        self.inputs = {name: tap for name, tap in taps.items() if tap.side == "input"}
        self.outputs = {name: tap for name, tap in taps.items() if tap.side == "output"}

    def given(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if threading.get_ident() != self.thread:
            return
        self.calls[self.module] = self.calls.get(self.module, 0) + 1
        for name, tap in self.inputs.items():
            if self._is_now(tap):
                named = arguments(args, kwargs)
                if not named:
                    raise DissectError(f"layer {name}: module {self.module} is called without arguments.")
                self.take(name, element(named, tap.path or (next(iter(named)),), name))

    def returned(self, _: nn.Module, args: object, output: object) -> None:
        if threading.get_ident() != self.thread:
            return
        for name, tap in self.outputs.items():
            if self._is_now(tap):
                self.take(name, element(output, tap.path, name))

    def _is_now(self, tap: Tap) -> bool:
        return tap.call is None or tap.call == self.calls[self.module]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in eval mode inside the `with` block; each module has its own flag back afterwards."""
    # Sets each flag rather than calling model.eval(): models override train(), and modules may have different flags.
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Give the model its buffers back after the `with` block, with the values that they had before."""
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.inference_mode():
            for module, name, buffer, value in kept:
                setattr(module, name, buffer)
                buffer.copy_(value)
