"""Refuses to compute with weights that are not there.

Knows: every operation of a forward pass, and which of its tensors have values.
Does not know: why weights are away (`place`, `sequential`).

A weight that is away is a tensor on torch's device `meta`. An operation that also gets tensors with values should fail;
on a CPU, the convolutions of torch 2.13 read whatever lies in memory instead, and return it. So every operation is
looked at, which takes some microseconds.
"""

import threading
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dissect_xr.activations.receptive_field.rules import tensors
from dissect_xr.errors import DissectError


class _Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Raises where an operation gets tensors with values and others without."""

    def __init__(self, mode: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode = mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if len({tensor.is_meta for tensor in tensors([args, kwargs or {}])}) == 2:
            raise DissectError(
                f"placement {self._mode}: {func} needs weights that are not there. They are there while their module "
                "is called, and another module uses them without calling it. Name the class of that one in no_split: "
                "then its weights come together."
            )
        return func(*args, **(kwargs or {}))


def guard(model: nn.Module, mode: str) -> None:
    """Let every forward pass of a model fail where it would compute with weights that are not there."""
    entered = threading.local()

    def enter(module: nn.Module, args: object) -> None:
        entered.guard = _Guard(mode)
        entered.guard.__enter__()

    def leave(module: nn.Module, args: object, output: object) -> None:
        found: _Guard | None = entered.__dict__.pop("guard", None)
        if found is not None:
            found.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    model.register_forward_pre_hook(enter, prepend=True)
    model.register_forward_hook(leave, always_call=True)
