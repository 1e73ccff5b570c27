"""Progress bars, one per stage: blocks, images per second, time left.

Knows: rich.
Does not know: which stages there are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int], None]
"""Called with the images of each finished block."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        images = task.fields.get("images", 0)
        return Text(f"{images / elapsed:,.0f} images/s" if elapsed and images else "")


@contextmanager
def track(stage: str, blocks: int, *, show: bool = True, console: Console | None = None) -> Iterator[Advance]:
    """A bar for a stage of `blocks` blocks; call what it yields with the images of each finished block."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        _Rate(),
        TimeRemainingColumn(),
    )
    console = console or Console(stderr=True)
    with Progress(*columns, console=console, disable=not show or blocks == 0) as progress:
        task = progress.add_task(stage, total=blocks, images=0)

        def advance(images: int) -> None:
            progress.update(task, advance=1, images=progress.tasks[task].fields["images"] + images)

        yield advance
