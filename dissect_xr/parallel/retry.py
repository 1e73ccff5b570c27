"""Retries of tasks: a failing task is tried up to three times, and then returns a `Failed` instead of its result.

Knows: which errors of a task are worth another try, and how a `Failed` passes through a tree of merges.
Does not know: what a task computes, or where it runs.

Three tasks, an example. The first reads from an object store and raises a ConnectionError: it is tried again after 0.2
s and, if it fails again, after another 0.4 s. The third error becomes `Failed("...: failed 3 times, ConnectionError:
...")`; all other tasks go on, and `BlocksFailed` lists the failures at the end. The second raises a DissectError,
"image 3 is damaged": the user has to mend it, so it becomes a `Failed` at once. The third raises a WriteError, "No
space left on device": it becomes a `Failed` with `stop`, which `check` raises as soon as it arrives, so the run ends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from dissect_xr.errors import BlocksFailed, DamagedError, DissectError, Failed, WriteError
from dissect_xr.parallel.guard import contained

ATTEMPTS = 3
"""How often a task is tried. A `DissectError` is not retried: the user has to mend its cause."""

PAUSE = 0.2
"""Seconds before the second try; the wait before the third is twice as long."""


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`, or a `Failed`; runs on a worker.

    If one of `args` is a `Failed`, it is the result: a merge with a failed task fails like that task.
    """
    failed = next((arg for arg in args if isinstance(arg, Failed)), None)
    if failed is not None:
        return failed
    name = _task_name(function, args)
    for n in range(ATTEMPTS):
        try:
            return contained(function, *args)
        except WriteError as error:
            return Failed(str(error), name, stop=True)
        except DissectError as error:
            return Failed(f"{name}: {error}", name, damaged=_damaged(error))
        except Exception as error:
            last = error
            if n + 1 < ATTEMPTS:
                time.sleep(PAUSE * 2**n)
    return Failed(f"{name}: failed {ATTEMPTS} times, {type(last).__name__}: {last}", name)


def retried(is_transient: Callable[[Exception], bool], function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`, tried up to `ATTEMPTS` times while it raises errors that `is_transient`.

    For what is not part of a task, such as a marker or a lock that the client writes. The last error is raised.
    """
    for n in range(ATTEMPTS - 1):
        try:
            return function(*args)
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(PAUSE * 2**n)
    return function(*args)


def _damaged(error: DissectError) -> tuple[str, str] | None:
    """The store and the key of the damaged object, if a `DamagedError` made the task fail."""
    return (error.url, error.key) if isinstance(error, DamagedError) else None


def _task_name(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """The attribute `what` of the task or of the function, else the function's name."""
    names = [getattr(owner, "what", None) for owner in (*args[:1], function)]
    return str(next((name for name in names if name), getattr(function, "__name__", "task")))


def named(result: Any, name: str) -> Any:
    """The result, of which a `Failed` without a name gets one."""
    if not isinstance(result, Failed) or result.what:
        return result
    return replace(result, message=f"{name}: {result.message}", what=name)


def check(result: Any, failures: list[Failed]) -> bool:
    """Whether the task succeeded. A `Failed` is appended to `failures`, or raised if no other task could succeed.

    Raises
    ------
    WriteError
        For a `Failed` with `stop`.
    """
    if not isinstance(result, Failed):
        return True
    if result.stop:
        raise WriteError(result.message)
    failures.append(result)
    return False


@contextmanager
def kept_failures(failures: list[Failed]) -> Iterator[None]:
    """Add the failures of a `BlocksFailed` raised in the `with` block to `failures`, and continue after the block."""
    try:
        yield
    except BlocksFailed as error:
        failures += error.failures
