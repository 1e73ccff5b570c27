"""Memory: what a task needs at most, and how much it may use.

Knows: that the memory of a task is a sum of named parts.
Does not know: what a task computes, or where it runs.
"""

from dataclasses import dataclass

from dissect_xr.errors import DissectError

MEMORY = 512 * 2**20
"""Bytes a task may use, unless the caller says otherwise."""


@dataclass(frozen=True)
class Projection:
    """The memory a task needs at most, as a sum of named parts in bytes."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.parts)

    def check(self, limit: int | None, stage: str) -> None:
        """Raise when the task cannot fit in `limit` bytes."""
        if limit is not None and self.total > limit:
            parts = ", ".join(f"{what} {size / 2**20:,.0f} MiB" for what, size in self.parts)
            raise DissectError(
                f"{stage}: a task needs {self.total / 2**20:,.0f} MiB ({parts}) and may use "
                f"{limit / 2**20:,.0f} MiB. Give it more (--memory), or make what is largest smaller: fewer fractions "
                "or concepts, a smaller label_size."
            )
