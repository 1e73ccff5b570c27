"""The files beside a file of code that it imports: which they are, and how imports find them.

Knows: the import statements in a file, and which of them a file in its folder answers.
Does not know: what a file is for (`references`), or imports whose names are computed when they run.

A model in `models/net.py` imports `blocks`, from `models/blocks.py`. Another project has a `blocks.py` of its own, and
both are dissected from one notebook, or on one cluster. Python keeps one module of a name, so the second model would
silently be built from the first one's blocks. Here the modules of a folder are in `sys.modules` only while code of this
folder is imported, or called to build a model; what was there under the same names before comes back afterwards. After
an edit of any of these files, all of them are imported anew.
"""

import ast
import hashlib
import importlib
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

LOADING = threading.RLock()
"""Held while code of users is imported: a thread must not use a module while another one is still executing it."""

_NEVER = sys.stdlib_module_names | {"dissect_xr", "numpy", "torch"}
"""Modules that a file beside the code does not replace, whatever its name."""

_imported: dict[str, dict[str, ModuleType]] = {}
"""Path and digest of a file and its neighbours -> the modules imported for it, by their names."""

Name = tuple[str, ...]
"""Parts of a module's name; the first is empty where it is relative to the folder: ("", "blocks") is ``.blocks``."""


def neighbours(path: Path) -> dict[Name, Path]:
    """Name -> file of all modules in the file's folder that it imports, directly or through others."""
    found: dict[Name, Path] = {}
    waiting: list[tuple[Path, Name]] = [(path, ("",))]
    while waiting:
        file, package = waiting.pop()
        for name in _imports(file, package):
            lies_at = _file_of(path.parent, name)
            if lies_at is not None and name not in found:
                found[name] = lies_at
                waiting.append((lies_at, name if lies_at.name == "__init__.py" else name[:-1]))
    return found


def code_sha256(path: Path) -> str:
    """Hex sha256 of a file of code; over the digests of its neighbours as well, if it imports any."""
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    others = {file: ".".join(name) for name, file in neighbours(path).items()}
    if not others:
        return own
    lines = sorted(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file, name in others.items())
    return hashlib.sha256("".join([f"{own}\n", *lines]).encode()).hexdigest()


@contextmanager
def importable(path: Path) -> Iterator[None]:
    """Inside the `with` block, imports find the neighbours of a file; other threads that import code of users wait."""
    names = {name[0] for name in neighbours(path) if name[0]}
    with LOADING:
        kept = _imported.setdefault(f"{path.resolve()} {code_sha256(path)}", {})
        hidden = _taken_out(names)
        sys.modules.update(kept)
        finder, write_nothing = _Finder(names, path.parent), sys.dont_write_bytecode
        sys.meta_path.insert(0, finder)
        # A file edited twice in a second would be taken for what was compiled of it before.
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.dont_write_bytecode = write_nothing
            sys.meta_path.remove(finder)
            kept |= _taken_out(names)
            sys.modules.update(hidden)


class _Finder:
    """Finds modules of these names in a folder, and no others."""

    def __init__(self, names: Collection[str], folder: Path) -> None:
        self._names, self._folder = names, str(folder.resolve())

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        return PathFinder.find_spec(name, [self._folder], target) if name in self._names else None


def _taken_out(names: Collection[str]) -> dict[str, ModuleType]:
    """The modules of these names and all below them, which are in `sys.modules` no more."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}


def _imports(file: Path, package: Name) -> Iterator[Name]:
    """Names of the modules that a file in this package may import, wherever the statement stands."""
    for level, module, names in _statements(file.read_bytes()):
        # One dot is the package itself, each further dot the one above it.
        base = package[: max(0, len(package) - (level - 1))] if level else ()
        if level and not base:
            continue
        start = (*base, *module.split(".")) if module else base
        for whole in (start, *((*start, name) for name in names)):
            for n in range(1, len(whole) + 1):
                yield whole[:n]


@lru_cache(maxsize=1024)
def _statements(content: bytes) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """(level, module, names) of every import statement; empty for what is no Python, which importing it will tell."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return tuple(found)


def _file_of(folder: Path, name: Name) -> Path | None:
    """The file in a folder that is the module of this name."""
    if name[0] in _NEVER or not any(name):
        return None
    base = folder.joinpath(*name)
    candidates = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((file for file in candidates if file.is_file()), None)
