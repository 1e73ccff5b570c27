"""One line of the benchmarks' table, and how figures that are compared are taken.

Knows: medians, ratios.
Does not know: what is measured.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 2**20


@dataclass
class Row:
    """One line of the table."""

    what: str
    measured: str
    target: str
    met: bool | None
    """None: nothing was asked for"""
    figures: dict[str, Any] = field(default_factory=dict)


def median_of(runs: int, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Every measure `runs` times, in turn."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(runs):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def ratio(found: dict[str, list[float]], above: str, below: str) -> float:
    """Median of the ratios of measures taken side by side."""
    return statistics.median(a / b for a, b in zip(found[above], found[below], strict=True))


def peak_memory() -> int:
    """Bytes that this process held at most. Not ru_maxrss: that is inherited from the process it was forked from."""
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
