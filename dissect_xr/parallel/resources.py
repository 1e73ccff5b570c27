"""Projections of memory: how much a task needs at most, compared with how much it may use.

Knows: that the memory of a task is a sum of named parts.
Does not know: what a task computes, or where it runs.
"""

from dataclasses import dataclass

from dissect_xr.errors import DissectError

MEMORY = 512 * 2**20
"""Bytes a task may use by default."""


@dataclass(frozen=True)
class Projection:
    """The memory a task needs at most, as a sum of named parts in bytes."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.parts)

    def check(self, limit: int | None, stage: str) -> None:
        """Raise if the task needs more than `limit` bytes, naming the parts; None means no limit."""
        if limit is not None and self.total > limit:
            parts = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in self.parts)
            raise DissectError(
                f"{stage}: a task needs {self.total / 2**20:,.0f} MiB ({parts}) and may use "
                f"{limit / 2**20:,.0f} MiB. Let it use more (--memory), or make its largest part smaller with fewer "
                "fractions or concepts, or a smaller label_size."
            )
