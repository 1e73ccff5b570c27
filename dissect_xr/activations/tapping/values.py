"""What modules are given and return: nested tuples, lists, dicts and objects of tensors, and paths into them.

Knows: how a path leads to a tensor, which tensors there are, and how a value is described in a message.
Does not know: hooks, or names of layers.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError

Path = tuple[str, ...]


def tensors_in(value: object, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """(path, tensor) of all tensors in a value, in order.

    >>> import torch
    >>> [path for path, _ in tensors_in((torch.zeros(1), {"states": [torch.zeros(2)]}))]
    [('0',), ('1', 'states', '0')]
    """
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, part in _parts(value).items():
        yield from tensors_in(part, (*path, key))


def element(value: object, path: Sequence[str], layer: str) -> object:
    """The part of a value that a path leads to.

    Raises
    ------
    DissectError
        If there is no such part; the message names those that there are.
    """
    for step, key in enumerate(path):
        parts = _parts(value)
        if key not in parts:
            where = "".join(f"[{name}]" for name in path[:step])
            raise DissectError(
                f"layer {layer}: [{key}] is no element of {description(value)}{' at ' + where if where else ''}: it "
                f"has {shortlist(f'[{name}]' for name in parts)}. Name one of them."
            )
        value = parts[key]
    return value


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a module is given, by position and by name."""
    return {str(n): value for n, value in enumerate(args)} | dict(kwargs)


def description(value: object) -> str:
    """A value in a message: the shape and type of a tensor, or the kind and length of what holds some."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a {'x'.join(map(str, value.shape)) or 'scalar'} {kind} tensor"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _parts(value: object) -> dict[str, Any]:
    """Key -> part of what holds several values; nothing for what holds none."""
    if isinstance(value, Mapping):  # a ModelOutput is one
        return {str(key): part for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return {str(n): part for n, part in enumerate(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}
