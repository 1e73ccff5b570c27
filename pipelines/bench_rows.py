"""One line of the benchmarks' table, how figures that are compared are taken, and where they are written down.

Knows: medians, ratios, sections of a Markdown file.
Does not know: what is measured.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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


def writable(path: str) -> Path:
    """The file that `--record` names, which is created where it is missing; refused before anything is measured."""
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {error.strerror}") from error
    return file


def write_section(file: Path, heading: str, text: str) -> None:
    """Put the text under its heading, in place of what stands there, or at the end of a file without the heading."""
    before, _, rest = file.read_text().partition(f"{heading}\n")
    _, following, after = rest.partition("\n## ")
    file.write_text(f"{before.rstrip()}\n\n{heading}\n\n{text.rstrip()}\n{following}{after}".lstrip())


def peak_memory() -> int:
    """Bytes that this process held at most. Not ru_maxrss: that is inherited from the process it was forked from."""
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
