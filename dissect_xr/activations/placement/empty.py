"""A model without its weights: built on torch's device `meta`, where tensors have shapes and no values.

Knows: accelerate, which keeps parameters from being allocated while a model is built.
Does not know: what the model is needed for.
"""

import importlib
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dissect_xr.activations.models.names import missing
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import built, evaluating
from dissect_xr.errors import DissectError


def accelerate(wanted: str) -> Any:
    """The library accelerate; `wanted` says what needs it.

    Raises
    ------
    DissectError
        If it is not installed.
    """
    try:
        return importlib.import_module("accelerate")
    except ModuleNotFoundError:
        raise missing("accelerate", wanted) from None


def empty_model(spec: ModelSpec, wanted: str) -> nn.Module:
    """The model in eval mode, its parameters on `meta` and its buffers, which are small, on the CPU.

    No weights are read or fetched.

    Raises
    ------
    DissectError
        If it cannot be built without its weights.
    """
    unweighted = replace(spec, weights=None, key=None, named=None)
    with accelerate(wanted).init_empty_weights(include_buffers=False):
        try:
            model = evaluating(spec, built(unweighted))
        except DissectError as error:
            raise DissectError(f"{error} (built without weights, for {wanted})") from error
    _fill_buffers(model)
    dtype = None if spec.placement is None else spec.placement.dtype
    return model if dtype is None else model.to(getattr(torch, dtype))


def empty_buffers(model: nn.Module) -> list[str]:
    """Names of the buffers that have no values, since they were computed from parameters."""
    return [name for name, buffer in model.named_buffers() if buffer.is_meta]


def _fill_buffers(model: nn.Module) -> None:
    """Let the modules of timm compute buffers again that they do not save, on the device of their parameters.

    They leave it out, or compute it without values, where parameters have none. So the parameters of one module at a
    time get memory.
    """
    for module in model.modules():
        fill = getattr(module, "init_non_persistent_buffers", None)
        if not callable(fill):
            continue
        held = [
            (owner, name, parameter)
            for owner in module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
        ]
        for owner, name, parameter in held:
            owner._parameters[name] = nn.Parameter(torch.empty_like(parameter, device="cpu"), requires_grad=False)
        try:
            fill()
        finally:
            for owner, name, parameter in held:
                owner._parameters[name] = parameter
