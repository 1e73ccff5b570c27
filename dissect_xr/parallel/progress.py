"""Progress bars, one per stage: blocks, images per second, time left.

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
    """A stage's bar."""

    progress: Progress
    task: TaskID

    def advance(self, images: int) -> None:
        """One block of so many images is finished."""
        self.progress.update(self.task, advance=1, images=self._state.fields["images"] + images)

    def expect(self, blocks: int) -> None:
        """So many more blocks will come."""
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
    """A bar for a stage of `blocks` blocks, more of which may be expected later."""
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
    """Standard error, in a terminal or notebook; plain text in a notebook without ipywidgets, where rich only warns."""
    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        return Console(stderr=True, force_jupyter=False)
    return console
