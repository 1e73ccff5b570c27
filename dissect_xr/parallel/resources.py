"""What this machine or a worker has, and what a task needs of it.

Knows: cores and memory as an affinity mask or a cgroup limits them; that a task's memory is a sum of named parts.
Does not know: what a task computes, or where it runs.
"""

from dataclasses import dataclass

from dissect_xr.errors import DissectError

MEMORY = 512 * 2**20
"""Bytes a task may use by default."""


def cores() -> int:
    """Cores that this process may use: those of the machine, of its affinity mask (`taskset`) or of its cgroup."""
    from dask.system import cpu_count

    return int(cpu_count())


def memory_limit() -> int:
    """Bytes of memory that this process may use: those of the machine, or of its cgroup where that is less."""
    from distributed.system import memory_limit

    return int(memory_limit())


@dataclass(frozen=True)
class Projection:
    """The memory a task needs at most, as a sum of named parts in bytes."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.parts)

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in self.parts)

    def check(self, limit: int | None, stage: str) -> None:
        """Raise if the task needs more than `limit` bytes, naming the parts; None means no limit."""
        if limit is not None and self.total > limit:
            raise DissectError(
                f"{stage}: a task needs {self.total / 2**20:,.0f} MiB ({self}) and may use "
                f"{limit / 2**20:,.0f} MiB. Let it use more (--memory), or make its largest part smaller with fewer "
                "fractions or concepts, or a smaller label_size."
            )


@dataclass(frozen=True)
class Host:
    """Memory that tasks share which run side by side: this machine's, or what a Dask worker may use."""

    name: str
    """in messages"""
    memory: int
    """bytes"""
    tasks: int
    """how many tasks run at once"""
    gpu: bool = False
    """whether it offers a GPU"""

    def check(self, needs: Projection, stage: str) -> None:
        """Raise if so many tasks do not fit, naming the parts of one."""
        needed = needs.total * self.tasks
        if needed > self.memory:
            raise DissectError(
                f"{stage}: {self.tasks} tasks at once need {needed / 2**30:.1f} GiB ({needs}), {self.name} has "
                f"{self.memory / 2**30:.1f} GiB. Use fewer workers, threads of a worker or layers, or a smaller "
                "activations.memory or batch."
            )
