"""Where in a checkpoint the state dicts are: under the keys of training frameworks, or the key that a recipe names.

Knows: that a state dict is a dict from names to tensors, however deep it lies; whole models that were pickled.
Does not know: which of several state dicts fits a model (`weights`).

A key is written with dots: of ``{"state_dict": {"model.conv.weight": ...}}``, the key ``state_dict`` names all tensors
and the key ``state_dict.model`` those whose names start with ``model.``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from dissect_xr.activations.checkpoints.inert import Inert

DEPTH = 4
"""How many keys deep a state dict may lie."""

StateDict = dict[str, Tensor]


def state_dicts(content: object) -> dict[str, StateDict]:
    """Key -> state dict, of all dicts with tensors in them; the key of the content itself is empty.

    Whatever is no tensor is left out. Of a whole model that was pickled, its parameters and buffers are taken.

    Examples
    --------
    >>> import torch
    >>> checkpoint = {"epoch": 3, "net": {"weight": torch.ones(2)}, "best": torch.ones(())}
    >>> {key: list(found) for key, found in state_dicts(checkpoint).items()}
    {'': ['best'], 'net': ['weight']}
    """
    return dict(_walk(content, "", 0, set()))


def under_key(content: object, key: str) -> dict[str, StateDict]:
    """The state dict at a key, or else those below it, under their own keys; empty where there is none.

    Examples
    --------
    >>> import torch
    >>> checkpoint = {"net": {"model.weight": torch.ones(2), "loss.weight": torch.ones(2)}}
    >>> {key: list(found) for key, found in under_key(checkpoint, "net.model").items()}
    {'net.model': ['weight']}
    """
    found = state_dicts(content)
    if key in found:
        return {key: found[key]}
    if deeper := {path: tensors for path, tensors in found.items() if path.startswith(f"{key}.")}:
        return deeper
    above = [path for path in found if not path or key.startswith(f"{path}.")]
    for path in sorted(above, key=len, reverse=True):
        if below := _below(found[path], key[len(path) :].removeprefix(".")):
            return {key: below}
    return {}


def _walk(node: object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, StateDict]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if module := _module_state(node):
        yield path, module
        return
    if not isinstance(node, Mapping):
        return
    if tensors := _tensors(node):
        yield path, tensors
    for name, inner in node.items() if depth < DEPTH else ():
        if isinstance(name, str):
            yield from _walk(inner, f"{path}.{name}" if path else name, depth + 1, seen)


def _tensors(node: Mapping[Any, Any]) -> StateDict:
    return {name: value for name, value in node.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _below(tensors: StateDict, prefix: str) -> StateDict:
    """The tensors whose names start with `prefix` and a dot, without both."""
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def _module_state(node: object) -> StateDict:
    """What `state_dict()` of a module that was pickled would be; empty for anything else."""
    return dict(_parameters_and_buffers(node, "", set())) if isinstance(node, Inert) else {}


def _parameters_and_buffers(node: object, prefix: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    state = node.state if isinstance(node, Inert) else None
    if not isinstance(state, Mapping) or not isinstance(state.get("_modules"), Mapping) or id(node) in above:
        return
    left_out = state.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        held = state.get(kind)
        for name, tensor in held.items() if isinstance(held, Mapping) else ():
            if isinstance(name, str) and isinstance(tensor, Tensor) and not (kind == "_buffers" and name in left_out):
                yield prefix + name, tensor
    for name, inner in state["_modules"].items():
        if isinstance(name, str):
            yield from _parameters_and_buffers(inner, f"{prefix}{name}.", above | {id(node)})
