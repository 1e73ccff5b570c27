"""Reads pickles in which everything but tensors is replaced by objects that do nothing.

Knows: the few functions that rebuild tensors; every other class and function becomes a subclass of `Inert`.
Does not know: which part of the result is wanted (`state_dicts`).

A checkpoint of a training script, an example: ``{"state_dict": {...}, "args": argparse.Namespace(lr=0.1)}``. The pickle
asks for the class `argparse.Namespace`, creates an object of it and gives it the dict ``{"lr": 0.1}``. Here the class
is a new subclass of `Inert`, which nothing is imported for: it takes whatever it is created with, and keeps the dict.

Python's documentation calls this "restricting globals": whatever a pickle calls it has to look up first.
"""

import builtins
import os
import pickle
import types
from collections import OrderedDict
from functools import partial
from typing import IO, Any, NoReturn

import torch

from dissect_xr.errors import DissectError

_OF_PYTHON_2 = {"basestring", "buffer", "long", "unicode", "xrange"}
"""Names of builtin classes that pickles of the protocols 0 to 2 have, also where Python 3 writes them."""

_NO_DATA = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "ctypes", "pty", "webbrowser",
}  # fmt: skip
"""Modules that no value is of: a pickle that asks for them wants to run something. It would not be run here either; the
file is refused so that its user learns of it."""


class Inert(dict[Any, Any]):
    """Stands for an object of a class that was not imported; a dict, since many such classes are."""

    path = "object"
    """module and name of the class"""

    state: Any = None
    """what the pickle gives the object as its attributes"""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def __call__(self, *args: object, **kwargs: object) -> "Inert":
        return Inert()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, item: object) -> None:
        """Nothing."""

    extend = add = append

    # Such objects are keys of dicts, too.
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


def load(file: IO[bytes]) -> tuple[Any, tuple[str, ...]]:
    """What torch.save wrote, with `Inert` objects beside the tensors, and the names of their classes; executes nothing.

    Raises
    ------
    DissectError
        If the pickle asks for a function that no data needs; any other error if the file is damaged.
    """
    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0").lower() in ("1", "y", "yes", "true"):
        raise DissectError("holds more than tensors, and TORCH_FORCE_WEIGHTS_ONLY_LOAD forbids to read that")
    seen: dict[str, type[Inert]] = {}

    rebuilds = _rebuilds()

    # The one written in Python: a damaged number of the memo makes the one in C take up to 64 GB.
    class Unpickler(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return rebuilds[module, name] if (module, name) in rebuilds else _inert(module, name, seen)

    def loaded(file: IO[bytes], **options: Any) -> Any:
        return Unpickler(file, **options).load()

    substitute: Any = types.SimpleNamespace(Unpickler=Unpickler, load=loaded, __name__=__name__)
    # latin1 for texts that Python 2 wrote; those of Python 3 know their encoding.
    content = torch.load(file, map_location="cpu", pickle_module=substitute, weights_only=False, encoding="latin1")
    return content, tuple(seen)


def _rebuilds() -> dict[tuple[str, str], Any]:
    """What pickles of tensors call, in new functions, since a pickle may set attributes of what it looks up."""
    torch_utils: Any = torch._utils  # untyped
    return {
        ("collections", "OrderedDict"): OrderedDict,
        ("builtins", "set"): set,
        ("__builtin__", "set"): set,
        ("torch._utils", "_rebuild_tensor"): lambda *args: torch_utils._rebuild_tensor(*args),
        ("torch._utils", "_rebuild_tensor_v2"): lambda *args: torch_utils._rebuild_tensor_v2(*args),
        # A parameter is its tensor.
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    }


def _inert(module: str, name: str, seen: dict[str, type[Inert]]) -> type[Inert]:
    """The class that stands for another class or function, which is not imported."""
    builtin = module in ("builtins", "__builtin__")
    if module.partition(".")[0] in _NO_DATA:
        raise DissectError(f"asks for {module}.{name}, which no weights need; nothing in it was executed")
    path = name if builtin else f"{module}.{name}"
    content: dict[str, Any] = {"path": path, "dump_patches": False}
    if builtin and name not in _OF_PYTHON_2 and not isinstance(getattr(builtins, name, None), type):
        content["__new__"] = partial(_call, f"{module}.{name}")  # a function does nothing until it is called
    return seen.setdefault(path, type("Inert", (Inert,), content))


def _call(path: str, *_: object, **__: object) -> NoReturn:
    raise DissectError(f"asks to call {path}, which no weights need; nothing in it was executed")
