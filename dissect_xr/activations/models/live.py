"""A module that lives in this process, handed in as a model.

Knows: what decides its outputs: weights, code, settings and hooks, as far as they can be read.
Does not know: how its activations are recorded. Nothing of the module is changed, and it stays on its device.
"""

import functools
import hashlib
import inspect
import types
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import nn

from dissect_xr.activations.checkpoints.weights import tensors_sha256
from dissect_xr.activations.closed import check_open
from dissect_xr.errors import DissectError

ONLY_HERE = (
    "it is a live module, which exists in this process alone: other processes and machines cannot use it. Use threads "
    "(no pool, or `open_pool` without workers), or give a factory such as 'file.py:make' and a file of weights."
)

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.Size)


class LiveModule:
    """A module of this process; two are equal if they hold the same module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = check_open(module, self.name_of(module))

    @staticmethod
    def name_of(module: nn.Module) -> str:
        """How the model is called in messages and fingerprints."""
        return f"live {type(module).__qualname__}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiveModule) and other.module is self.module

    def __hash__(self) -> int:
        return id(self.module)

    def __reduce__(self) -> NoReturn:
        raise DissectError(f"{self.name_of(self.module)}: {ONLY_HERE}")

    @property
    def weights_sha256(self) -> str:
        """Hex sha256 of all its tensors as they are now."""
        return tensors_sha256(dict(_tensors(self.module)))

    @property
    def code_sha256(self) -> str:
        """Hex sha256 of the classes' source, of the modules' settings, and of hooks."""
        digest = hashlib.sha256()
        kinds = {type(module): None for module in self.module.modules()}
        for line in (*map(_class_code, kinds), *_settings(self.module)):
            digest.update(f"{line}\n".encode())
        return digest.hexdigest()

    @property
    def device(self) -> str:
        """The device of its tensors.

        Raises
        ------
        DissectError
            If they lie on several, or nowhere.
        """
        found = {str(tensor.device) for _, tensor in _tensors(self.module)} or {"cpu"}
        if len(found) > 1 or "meta" in found:
            raise DissectError(
                f"{self.name_of(self.module)}: its tensors lie on {', '.join(sorted(found))}, expected one device with "
                "values. Move the module: module.to('cpu')."
            )
        return found.pop()


def check_device(live: LiveModule, device: str | None) -> str:
    """The device of a live module, if that is the one asked for; None asks for none."""
    found = live.device
    if device is not None and torch.device(device) != torch.device(found):
        raise DissectError(
            f"{live.name_of(live.module)}: lies on {found}, asked for is {device}. A live module is not moved: do "
            f"module.to({device!r}) before, or leave out `device`."
        )
    return found


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers, those that are not saved among them."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _settings(module: nn.Module) -> Iterator[str]:
    """A line for every setting of every module that decides what it computes."""
    yield repr(module)
    for name, child in module.named_modules():
        for key, value in sorted(vars(child).items()):
            if key in ("training", "_parameters", "_buffers", "_modules") or key in _OF_TORCH:
                continue
            yield f"{name}.{key} {_value(value)}"
        for kind in _HOOKS:
            yield from (f"{name} {kind} {_value(hook)}" for hook in getattr(child, kind, {}).values())


_OF_TORCH = frozenset(vars(nn.Module()))
"""Attributes that every module has for torch's own purposes, hooks among them."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _value(value: Any) -> str:
    """A text that differs where a setting differs, as far as that can be read."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return tensors_sha256({"": value})
    if isinstance(value, (list, tuple, set, frozenset)):
        texts = [_value(one) for one in value]
        return f"{type(value).__name__}{sorted(texts) if isinstance(value, (set, frozenset)) else texts}"
    if isinstance(value, dict):
        return f"dict{[(_value(key), _value(one)) for key, one in value.items()]}"
    if isinstance(value, functools.partial):
        return f"partial {_value(value.func)} {_value(value.args)} {_value(value.keywords)}"
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return f"{value.__module__}.{value.__qualname__} {_code(value)}"
    return f"{type(value).__module__}.{type(value).__qualname__} {getattr(value, '__qualname__', '')}"


def _class_code(kind: type) -> str:
    """A class by its name, and by its source where that is not torch's own."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.startswith("torch."):
        return name
    bases = [_class_code(base) for base in kind.__bases__ if issubclass(base, nn.Module)]
    return f"{name} {_code(kind)} {bases}"


def _code(thing: Any) -> str:
    """The source of a class or function, or what it was compiled to where there is no source, as at a prompt."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        functions = vars(thing).values() if isinstance(thing, type) else [thing]
        codes = [getattr(function, "__code__", None) for function in functions]
        return repr([_compiled(code) for code in codes if code is not None])


def _compiled(code: types.CodeType) -> tuple[Any, ...]:
    inside = [_compiled(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    constants = [repr(one) for one in code.co_consts if not isinstance(one, types.CodeType)]
    return code.co_code.hex(), constants, code.co_names, inside
