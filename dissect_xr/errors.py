"""The errors that users are meant to read.

Knows: that a message says what was expected, what came, and how to mend it.
Does not know: who shows it. The command line exits with 2, or with 3 for `BlocksFailed`.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any


class DissectError(ValueError):
    """A file, a recipe field or an array from the user is wrong. The message says how to mend it."""


def whole_number(what: str, given: Any) -> int:
    """A whole number of Python or NumPy that a user gave.

    Raises
    ------
    DissectError
        Naming `what` it was given for, if it is anything else.
    """
    try:
        return operator.index(given)
    except TypeError:
        raise DissectError(f"{what}: expected a whole number, got {_shown(given)}.") from None


def numbers_of(what: str, given: Any) -> tuple[float, ...]:
    """The numbers that a user gave, one or several, of Python or NumPy.

    Raises
    ------
    DissectError
        Naming `what` they were given for, if they are anything else.
    """
    if getattr(given, "ndim", None) == 0:  # of NumPy
        given = given.item()
    try:
        several = (given,) if isinstance(given, (str, bytes, Mapping)) else tuple(given)
    except TypeError:
        several = (given,)
    for one in several:
        if not isinstance(one, Real):
            raise DissectError(f"{what}: expected a number or a list of numbers, got {_shown(given)}.")
    return tuple(one if isinstance(one, (int, float)) else float(one) for one in several)


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "layer"), counted(2, "layer")
    ('1 layer', '2 layers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shown(given: Any) -> str:
    kind = "text" if isinstance(given, str) else type(given).__name__
    return f"{given!r}, a {kind}"


class WriteError(DissectError):
    """An object could not be written: the disk is full, or rights are missing. No further task is started."""


class BoundTooHighError(DissectError):
    """The tails of some layers do not hold the thresholds of all units; everything else is finished and kept."""

    def __init__(self, snapshot: str, layers: Mapping[str, Sequence[int]]) -> None:
        self.snapshot = snapshot
        self.layers = {layer: tuple(units) for layer, units in layers.items()}
        """layer -> the numbers of its units whose bounds were too high"""
        units = ", ".join(f"{len(units)} of {layer}" for layer, units in layers.items())
        super().__init__(
            f"{snapshot}: the tails that were kept do not hold the thresholds of some units: {units}. `dissect-xr run` "
            "extracts these layers again, with lower bounds, and `extract_again(extraction, error.layers)` does from "
            "Python. "
            "Activations that come from arrays: write them with keep='dense', or a larger margin."
        )

    def __reduce__(self) -> tuple[type["BoundTooHighError"], tuple[str, dict[str, tuple[int, ...]]]]:
        return type(self), (self.snapshot, self.layers)


class DamagedError(DissectError):
    """A stored object differs from what was written, or is missing; `run --verify` computes it again."""

    def __init__(self, message: str, url: str, key: str) -> None:
        super().__init__(message)
        self.url = url
        """the store"""
        self.key = key
        """the key of the damaged object, or the path of the group or array that the object belongs to"""

    def __reduce__(self) -> tuple[type["DamagedError"], tuple[str, str, str]]:
        return type(self), (str(self), self.url, self.key)


@dataclass(frozen=True)
class Failed:
    """What a task returns instead of its result when it failed."""

    message: str
    what: str = ""
    """the stage and, after a comma, the images of the task"""
    stop: bool = False
    """whether all other tasks would fail as well, so that the run must stop"""
    damaged: tuple[str, str] | None = None
    """`url` and `key` of the `DamagedError` that made the task fail, if one did"""
    lost: bool = False
    """whether a partial result that was there is gone with the workers that held it, so what made it must run again"""


class BlocksFailed(DissectError):
    """Some blocks failed; all other blocks are finished and kept."""

    def __init__(self, failures: Sequence[Failed]) -> None:
        self.failures = list(failures)
        shown = "\n".join(f"  {failure.message}" for failure in self.failures[:20])
        more = f"\n  and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
        super().__init__(
            f"{len(self.failures)} blocks failed, all others are finished and kept:\n{shown}{more}\n"
            "Mend what the messages name and give the same command again: it computes only the failed blocks."
        )

    def __reduce__(self) -> tuple[type["BlocksFailed"], tuple[list[Failed]]]:
        return type(self), (self.failures,)
