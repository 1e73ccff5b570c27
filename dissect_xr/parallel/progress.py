"""Progress bars of stages: finished blocks, images per second, time left.

Knows: rich.
Does not know: which stages there are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@dataclass(frozen=True)
class Bar:
    """The progress bar of one stage."""

    progress: Progress
    task: TaskID

    def advance(self, images: int) -> None:
        """Count one more finished block, of `images` images."""
        self.progress.update(self.task, advance=1, images=self._state.fields["images"] + images)

    def expect(self, blocks: int) -> None:
        """Raise the total by `blocks` blocks."""
        self.progress.update(self.task, total=(self._state.total or 0) + blocks)

    @property
    def _state(self) -> Task:
        return self.progress.tasks[self.task]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        images = task.fields.get("images", 0)
        return Text(f"{images / elapsed:,.0f} images/s" if elapsed and images else "")


@contextmanager
def track(stage: str, blocks: int = 0, *, show: bool = True, console: Console | None = None) -> Iterator[Bar]:
    """A bar for a stage of `blocks` blocks; `Bar.expect` adds more."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or _console(), refresh_per_second=4, disable=not show) as progress:
        yield Bar(progress, progress.add_task(stage, total=blocks, images=0))


def _console() -> Console:
    """A console on standard error. In a notebook without ipywidgets it prints plain text: rich would only warn."""
    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        return Console(stderr=True, force_jupyter=False)
    return console
