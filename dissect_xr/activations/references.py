"""Functions that a recipe names: "package.module:function" or "path/to/file.py:function".

Knows: how either form is imported, and the error for a name that does not exist.
Does not know: what the function is for: a model factory or preprocessing; which files lie beside it (`neighbours`).
"""

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from dissect_xr.activations.neighbours import LOADING, code_sha256, importable, neighbours
from dissect_xr.errors import DissectError


def resolve(reference: str) -> Callable[..., Any]:
    """The function or class that a reference names.

    A file becomes a module whose name contains a digest of its path and content. So a file is executed once, again only
    after it was edited, and two files with the same name are two modules. It may import the files beside it
    (`neighbours`); its folder is not added to `sys.path`.

    Parameters
    ----------
    reference
        ``"package.module:function"``, or ``"path/to/file.py:function"`` relative to the working directory; ``~`` is the
        home folder.

    Raises
    ------
    DissectError
        If the module, file or function does not exist, or importing it fails or tries to end the program.

    Examples
    --------
    >>> resolve("collections:Counter")("aab")["a"]
    2
    """
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise DissectError(
            f"{reference!r} names no function: expected 'package.module:function' or 'path/to/file.py:function'"
        )
    module = _file_module(Path(source).expanduser()) if source.endswith(".py") else _named_module(source)
    found = getattr(module, name, None)
    if found is None:
        raise DissectError(f"{source} has no {name!r}: there is {shortlist(_public_callables(module))}")
    if not callable(found):
        raise DissectError(f"{reference} is a {type(found).__name__}, expected a function or a class")
    return found  # type: ignore[no-any-return]  # callable() does not narrow Any


def reference_to(found: Callable[..., Any]) -> str:
    """The reference to a class or function, by which a worker imports it.

    >>> from collections import Counter
    >>> reference_to(Counter)
    'collections:Counter'

    Raises
    ------
    DissectError
        If it is an object, a lambda, or defined inside a function or in the program that runs.
    """
    name, module = getattr(found, "__qualname__", None), getattr(found, "__module__", None)
    if name is None or module is None:
        kind = type(found)
        raise DissectError(
            f"the model is an object of {kind.__module__}.{kind.__name__}: workers build it themselves. Give the class "
            "or a function that returns it, or a reference such as 'file.py:make'."
        )
    if "<" in name or "." in name or module == "__main__":
        raise DissectError(
            f"{module}.{name} cannot be imported by a worker: it is defined inside a function, a class or the program "
            "that runs. Put it at the top of a file, and give 'path/to/file.py:name'."
        )
    return f"{module}:{name}"


def imports_of(reference: str) -> AbstractContextManager[None]:
    """Inside the `with` block, imports find the files beside the file that a reference names."""
    file = _file(reference)
    return nullcontext() if file is None else importable(file)


def source_sha256(reference: str | None) -> str | None:
    """sha256 of the file that a reference names, and of the files beside it that it imports.

    None for a function of a module, or if the file does not exist.
    """
    file = _file(reference)
    return None if file is None else code_sha256(file)


def _file(reference: str | None) -> Path | None:
    """The file that a reference names, if it names one that is there."""
    path = Path((reference or "").rpartition(":")[0]).expanduser()
    return path if path.suffix == ".py" and path.is_file() else None


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes, which a process reads again only after the file has changed.

    Raises
    ------
    DissectError
        If it cannot be read.
    """
    try:
        status = os.stat(path)
        return _file_sha256(os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DissectError(f"{path}: cannot be read ({error.strerror}). Correct the path.") from error


@lru_cache(maxsize=4096)
def _file_sha256(path: str, inode: int, size: int, changed: int) -> str:
    """The digest of a file in this state; weights of gigabytes are asked for at several moments of a run."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shortlist(names: Iterable[str], limit: int = 12) -> str:
    """Names for an error message: the first `limit` names and the number of the others.

    Examples
    --------
    >>> shortlist(["a", "b", "c"], 2)
    'a, b and 1 more'
    >>> shortlist([])
    'nothing'
    """
    names = list(names)
    shown = ", ".join(names[:limit]) or "nothing"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _file_module(path: Path) -> ModuleType:
    try:
        path.read_bytes()
    except OSError as error:
        siblings = sorted(other.name for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise DissectError(
            f"{path} cannot be read ({error.strerror}): {path.parent} holds {shortlist(siblings)}"
        ) from error
    digest = hashlib.sha256(f"{path.resolve()} {code_sha256(path)}".encode()).hexdigest()[:16]
    name = f"_dissect_xr_{path.stem}_{digest}"
    with LOADING:
        if name in sys.modules:
            return sys.modules[name]
        # Relative imports need a package: the file itself becomes one, to which the modules of its folder belong.
        relative = any(not other[0] for other in neighbours(path))
        inside = [str(path.parent.resolve())] if relative else None
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
        if spec is None or spec.loader is None:
            raise DissectError(f"{path} is not a Python file: expected a name that ends with .py")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look up a module by its name, during its execution and later.
        sys.modules[name] = module
        try:
            with _contained(str(path)), importable(path):
                spec.loader.exec_module(module)
        except BaseException as error:
            for left in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
                del sys.modules[left]
            if isinstance(error, DissectError) or not isinstance(error, Exception):
                raise
            raise DissectError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        return module


@contextmanager
def _contained(what: str) -> Iterator[None]:
    """Import code of users in the `with` block: it sees no arguments of this program, and cannot end it.

    With the arguments in `sys.argv`, `parse_args()` would take them for its own, or end the program because it does
    not know them; and a worker process has others.
    """
    given, sys.argv = sys.argv, [what]
    try:
        yield
    except SystemExit as error:
        raise DissectError(
            f"{what} ends the program when it is imported (exit code {error.code!r}): expected code that only defines "
            "the model. Put what it runs, such as sys.exit() and parse_args(), below `if __name__ == '__main__':`."
        ) from error
    finally:
        sys.argv = given


def _named_module(name: str) -> ModuleType:
    try:
        with LOADING, _contained(f"module {name}"):
            return importlib.import_module(name)
    except DissectError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise DissectError(f"module {name} cannot be imported: it needs {error.name}. Install that.") from error
        parent = sys.modules.get(error.name.rpartition(".")[0])
        if parent is None:
            hint = "install it, put its directory on PYTHONPATH, or name a file: 'path/to/file.py:function'"
        else:
            hint = f"{parent.__name__} has {shortlist(m.name for m in pkgutil.iter_modules(_search_path(parent)))}"
        raise DissectError(f"there is no module {error.name!r}: {hint}") from error
    except Exception as error:
        raise DissectError(f"module {name} cannot be imported: {type(error).__name__}: {error}") from error


def _search_path(package: ModuleType) -> list[str]:
    return list(getattr(package, "__path__", []))


def _public_callables(module: ModuleType) -> list[str]:
    found = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    own = [name for name, value in found.items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(own or found)
