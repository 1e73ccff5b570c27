"""Code of users that would end or confuse this program: scripts without a main guard, and calls of sys.exit.

Knows: that a worker process imports the script that started it, and how a call of `sys.exit` shows.
Does not know: which tasks run (`retry`), or how worker processes are started (`dask_pool`).

A worker process is a new Python, which imports the script that started it under the name ``__mp_main__``, so that tasks
find what the script defines. If the script opens a pool whenever it is imported, every worker tries to open one, too.
Python's own error for that is printed by every process and names no line of the script.
"""

import ast
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from dissect_xr.errors import DissectError

_GUARD = (
    "worker processes import this script, and it would open a pool in each of them. Put what it runs below a guard:\n"
    '    if __name__ == "__main__":\n'
    "        with dx.open_pool(workers=2) as pool:\n"
    "            ...\n"
    "or leave out `workers` and `gpus`, and tasks run on threads of this process."
)


def check_main_guard() -> None:
    """Raise if the script that is running would open a pool again in every worker process.

    Raises
    ------
    DissectError
        Naming the script and the line.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise DissectError(f"{getattr(sys.modules['__main__'], '__file__', 'this program')}: {_GUARD}")
    frame, main = _main_frame(), sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # `python -m package` is not imported again.
    if frame is None or not hasattr(main, "__file__") or (spec is not None and spec.name.endswith("__main__")):
        return
    path = frame.f_code.co_filename
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # typed in, or out of an archive
    for statement in tree.body:
        if statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0) and not _asks_for_name(statement):
            raise DissectError(f"{path}, line {frame.f_lineno}: {_GUARD}")


def contained(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`; a call of `sys.exit` in it is an error of the task, and does not end a worker.

    Raises
    ------
    DissectError
        If code that the function calls tried to end the program.
    """
    try:
        return function(*args)
    except SystemExit as error:
        raise DissectError(
            f"code that a task ran tried to end the program (exit code {error.code!r}). Call sys.exit() and "
            "parse_args() only below `if __name__ == '__main__':`."
        ) from error


def _main_frame() -> FrameType | None:
    """The frame of the script that is running, if this thread was started by it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return frame
        frame = frame.f_back
    return None


def _asks_for_name(statement: ast.stmt) -> bool:
    """Whether a statement has a condition that looks at `__name__`."""
    conditions: list[ast.expr] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            conditions.append(node.test)
        elif isinstance(node, ast.BoolOp):
            conditions.append(node)
        elif isinstance(node, ast.Match):
            conditions.append(node.subject)
    names = (node for condition in conditions for node in ast.walk(condition))
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in names)
