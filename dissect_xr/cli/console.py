"""Where commands print: results to stdout, warnings and errors to stderr.

Knows: rich, and how wide a file is.
Does not know: what is printed.
"""

from collections.abc import Iterable

from rich.console import Console, RenderableType

# A file or a pipe has no width, and rich's default of 80 would cut off the last column of the summary.
console, errors = (
    Console(stderr=stderr, width=None if Console(stderr=stderr).is_terminal else 120) for stderr in (False, True)
)


def show(parts: Iterable[RenderableType]) -> None:
    """Print each part to stdout."""
    for part in parts:
        console.print(part)
