"""At which training steps a snapshot is taken.

Knows: the forms in which people say that.
Does not know: training, models, files.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from dissect_xr.errors import DissectError

Schedule = Literal["log"] | int | Iterable[int] | Callable[[int], bool]
"""``"log"``: 0, 1, 3, 10, 30, 100, ...; a number: every so many steps, and 0; steps; or a function of the step."""


def is_due(schedule: Schedule) -> Callable[[int], bool]:
    """A function that says of a step whether it has a snapshot.

    Concepts emerge fast at first and slowly later: steps about three times apart show all of it with few snapshots.

    Raises
    ------
    DissectError
        If the schedule has none of the forms.

    Examples
    --------
    >>> [step for step in range(2000) if is_due("log")(step)]
    [0, 1, 3, 10, 30, 100, 300, 1000]
    >>> [step for step in range(20) if is_due(8)(step)], [step for step in range(20) if is_due([0, 5])(step)]
    ([0, 8, 16], [0, 5])
    """
    if isinstance(schedule, str):
        if schedule != "log":
            raise _wrong(schedule)
        return _is_log
    if isinstance(schedule, bool):
        raise _wrong(schedule)
    if isinstance(schedule, int):
        if schedule < 1:
            raise _wrong(schedule)
        every = schedule
        return lambda step: step % every == 0
    if callable(schedule):
        return schedule
    if not isinstance(schedule, Iterable):
        raise _wrong(schedule)
    steps = frozenset(schedule)
    return lambda step: step in steps


def _is_log(step: int) -> bool:
    """Whether a step is 0, or 1 or 3 followed by zeros."""
    while step >= 10 and step % 10 == 0:
        step //= 10
    return step in (0, 1, 3)


def _wrong(schedule: object) -> DissectError:
    return DissectError(
        f"schedule {schedule!r}: expected 'log', a number of steps of at least 1, a list of steps, or a function."
    )
