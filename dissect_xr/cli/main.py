"""`dissect-xr`: a recipe's stages from the command line.

Knows: which commands there are, and exit codes (2: the user can mend it, 3: some blocks failed).
Does not know: what a command does (`commands`). Only the commands that run a model import torch.
"""

import sys
import warnings
from typing import Any

import typer
from rich.markup import escape

from dissect_xr.cli.commands import stages, stores
from dissect_xr.cli.commands.check import check
from dissect_xr.cli.commands.layers import layers
from dissect_xr.cli.commands.survey import survey
from dissect_xr.cli.console import errors
from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.store import objects

app = typer.Typer(
    help="Network Dissection out of core: what does each unit of a vision network detect?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    stages.run,
    stages.probe,
    stages.extract,
    stages.dissect,
    stages.experiment,
    stores.info,
    stores.verify,
    stores.export,
    stores.report,
    survey,
    check,
    layers,
):
    app.command()(command)


def _print_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """A warning as one line of its own, without the place in the code that it came from."""
    errors.print(f"[bold yellow]warning:[/] {escape(str(message))}", soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. An error is one message and an exit code; a traceback is printed only with --debug."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            app([argument for argument in given if argument != "--debug"], standalone_mode=True)
    except DissectError as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(3 if isinstance(error, BlocksFailed) else 2) from None
    except Exception as error:
        if debug:
            raise
        if objects.is_transport(error):
            errors.print(f"[bold red]error:[/] a store did not answer: {escape(str(error))}", soft_wrap=True)
            errors.print("Finished blocks are kept: give the same command again.")
            raise SystemExit(2) from None
        errors.print(f"[bold red]internal error:[/] {escape(f'{type(error).__name__}: {error}')}", soft_wrap=True)
        errors.print("Finished blocks are kept. Please report this error with the output of --debug.")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted: finished blocks are kept, and the same command continues from there.")
        raise SystemExit(130) from None
