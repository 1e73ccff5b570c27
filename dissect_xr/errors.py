"""The errors that users are meant to read.

Knows: that a message says what was expected, what came, and how to mend it.
Does not know: where it is shown; the command line exits with 2, or 3 for `BlocksFailed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class DissectError(ValueError):
    """Something the user gave does not fit: a file, a recipe field, an array. The message says how to mend it."""


class WriteError(DissectError):
    """Something could not be written: a full disk, missing rights. Nothing more is started."""


class DamagedError(DissectError):
    """What is stored is not what was written; `run --verify` makes it again."""

    def __init__(self, message: str, url: str, below: str) -> None:
        super().__init__(message)
        self.url = url
        """the store"""
        self.below = below
        """the key of the object, or of the group or array that it belongs to"""

    def __reduce__(self) -> tuple[type["DamagedError"], tuple[str, str, str]]:
        return type(self), (str(self), self.url, self.below)


@dataclass(frozen=True)
class Failed:
    """Stands for the result of a task that failed."""

    message: str
    what: str = ""
    """the stage and, after a comma, which images of it"""
    stop: bool = False
    """whether nothing more can succeed"""
    damaged: tuple[str, str] | None = None
    """`url` and `below` of the `DamagedError`, where that is why"""


class BlocksFailed(DissectError):
    """Some blocks failed, the rest is finished and kept."""

    def __init__(self, failures: Sequence[Failed]) -> None:
        self.failures = list(failures)
        shown = "\n".join(f"  {failure.message}" for failure in self.failures[:20])
        more = f"\n  and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
        super().__init__(
            f"{len(self.failures)} blocks failed, all others are finished and kept:\n{shown}{more}\n"
            "Mend what is named and give the same command again: it does only these."
        )

    def __reduce__(self) -> tuple[type["BlocksFailed"], tuple[list[Failed]]]:
        return type(self), (self.failures,)
