"""A task tried up to three times, whose failure is a value: the rest goes on, and all failures are reported at the end.

Knows: which errors are worth another try, how a failure travels through a tree of merges.
Does not know: what a task computes, or where it runs.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dissect_xr.errors import BlocksFailed, DamagedError, DissectError, Failed, WriteError

ATTEMPTS = 3
"""Times a task is tried, where the error may pass: not for a `DissectError`, which says what the user can mend."""

PAUSE = 0.2
"""Seconds before the second try; twice as long before the third."""


def attempt(function: Callable[..., Any], *args: Any) -> Any:
    """The result of `function(*args)`, or `Failed`; runs on a worker."""
    failed = next((arg for arg in args if isinstance(arg, Failed)), None)
    if failed is not None:
        return failed
    what = _what(function, args)
    for n in range(ATTEMPTS):
        try:
            return function(*args)
        except WriteError as error:
            return Failed(str(error), what, stop=True)
        except DissectError as error:
            return Failed(f"{what}: {error}", what, damaged=_damaged(error))
        except Exception as error:
            last = error
            if n + 1 < ATTEMPTS:
                time.sleep(PAUSE * 2**n)
    return Failed(f"{what}: failed {ATTEMPTS} times, {type(last).__name__}: {last}", what)


def _damaged(error: DissectError) -> tuple[str, str] | None:
    """The store and the key that were damaged, where that is why."""
    return (error.url, error.key) if isinstance(error, DamagedError) else None


def _what(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """What the task says it is, else what the function says."""
    named = [getattr(thing, "what", None) for thing in (*args[:1], function)]
    return str(next((name for name in named if name), getattr(function, "__name__", "task")))


def check(result: Any, failures: list[Failed]) -> bool:
    """Whether `result` is one; a failure is noted, or raised where nothing more can succeed.

    Raises
    ------
    WriteError
    """
    if not isinstance(result, Failed):
        return True
    if result.stop:
        raise WriteError(result.message)
    failures.append(result)
    return False


@contextmanager
def kept_failures(failures: list[Failed]) -> Iterator[None]:
    """Failures of blocks inside are added to `failures`, and what follows goes on."""
    try:
        yield
    except BlocksFailed as error:
        failures += error.failures
