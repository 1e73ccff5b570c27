"""The options that several commands have, and what their texts mean.

Knows: their names, their help, sizes such as 512MiB.
Does not know: what a command does with them.
"""

from pathlib import Path
from typing import Annotated

import typer

from dissect_xr.errors import DissectError

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (YAML).")]
Out = Annotated[str, typer.Option(help="Output directory (path or URL).")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE overrides any recipe field; repeatable.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Local worker processes; threads of one process if absent.")]
Gpus = Annotated[int, typer.Option(min=0, help="Processes that see one GPU each.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Dask scheduler, tcp://host:port; --workers and --gpus then say what it will have.")
]
Memory = Annotated[str, typer.Option(help="Memory a task may use, such as 512MiB.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="First read every finished object; compute damaged blocks again.")
]
BreakLock = Annotated[bool, typer.Option("--break-lock", help="Take the lock from a dead run of another host.")]

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(text: str) -> int:
    """The number of bytes that a text such as 512MiB means.

    >>> parse_bytes("1.5 MiB")
    1572864
    """
    number = text.strip().rstrip("KMGiBkmgb ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError) as error:
        raise DissectError(f"'{text}': expected a size such as 512MiB or 2GB.") from error
    if size < 2**20:
        raise DissectError(f"'{text}': expected at least 1MiB.")
    return size
