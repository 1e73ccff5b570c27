"""The errors that users are meant to read.

Knows: that a message says what was expected, what came, and how to mend it.
Does not know: where it is shown; the command line exits with 2, or 3 for `BlocksFailed`.
"""

from collections.abc import Sequence


class DissectError(ValueError):
    """Something the user gave does not fit: a file, a recipe field, an array. The message says how to mend it."""


class WriteError(DissectError):
    """Something could not be written: a full disk, missing rights. Nothing more is started."""


class BlocksFailed(DissectError):
    """Some blocks failed, the rest is finished and kept."""

    def __init__(self, failures: Sequence[str]) -> None:
        self.failures = list(failures)
        shown = "\n".join(f"  {failure}" for failure in self.failures[:20])
        more = f"\n  and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
        super().__init__(
            f"{len(self.failures)} blocks failed, all others are finished and kept:\n{shown}{more}\n"
            "Mend what is named and give the same command again: it does only these."
        )

    def __reduce__(self) -> tuple[type["BlocksFailed"], tuple[list[str]]]:
        return type(self), (self.failures,)
