"""`dissect-xr`: a recipe's stages from the command line.

Knows: commands, options, exit codes (2: the user can mend it), what is printed when.
Does not know: how anything is computed; torch is imported only by the commands that run a model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from dissect_xr.errors import DissectError

if TYPE_CHECKING:
    from dissect_xr.stages import Run

app = typer.Typer(
    help="Network Dissection out of core: what does each unit of a vision network detect?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
if not console.is_terminal:
    # A file or a pipe has no width; 80 would cut the summary's last column.
    console = Console(width=120)
errors = Console(stderr=True)

RecipeFile = Annotated[Path, typer.Argument(help="Recipe (YAML).")]
Out = Annotated[str, typer.Option(help="Output directory (path or URL).")]
Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE overrides any recipe field; repeatable.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Local worker processes; threads of one process if absent.")]
Gpus = Annotated[int, typer.Option(min=0, help="Processes that see one GPU each.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler, tcp://host:port.")]
Memory = Annotated[str, typer.Option(help="Memory a task may plan with, such as 512MiB.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]

UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(text: str) -> int:
    """Bytes of a text such as 512MiB.

    >>> parse_bytes("1.5 KiB")
    1536
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


@contextmanager
def _run(
    recipe: Path,
    out: str,
    overrides: list[str] | None,
    pool: dict[str, Any],
    *,
    quiet: bool,
    write: bool = True,
) -> Iterator["Run"]:
    from dissect_xr.cluster import open_pool
    from dissect_xr.recipe import load_recipe, read_raw
    from dissect_xr.stages import Run, prepare

    loaded = load_recipe(recipe, out=out, overrides=overrides or ())
    if write:
        prepare(out, read_raw(recipe, overrides or ()))
    with open_pool(**pool) as opened:
        yield Run(loaded, out, opened, show=not quiet)


def _pool(workers: int | None, gpus: int, scheduler: str | None, memory: str) -> dict[str, Any]:
    return {"workers": workers, "gpus": gpus, "scheduler": scheduler, "memory": parse_bytes(memory)}


@app.command()
def run(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    workers: Workers = None,
    gpus: Gpus = 0,
    scheduler: Scheduler = None,
    memory: Memory = "512MiB",
    quiet: Quiet = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done and whether it fits.")
    ] = False,
) -> None:
    """Probe, activations and dissection of every snapshot, resuming what is done; then the table and figures."""
    from dissect_xr.plans import check_fits, plan_run

    pool = _pool(workers, gpus, scheduler, memory)
    with _run(recipe, out, overrides, pool, quiet=quiet, write=not dry_run) as started:
        plans = plan_run(started)
        if dry_run:
            _show_plans(plans)
        check_fits(started, plans)
        if dry_run:
            return
        started.run()
    _show_results(out, started.dissection_url)


@app.command()
def probe(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Only read the images and labels into probe.zarr."""
    with _run(recipe, out, overrides, _pool(workers, 0, scheduler, "512MiB"), quiet=quiet) as started:
        started.probe()
        console.print(f"probe: {escape(started.probe_url)}")


@app.command()
def extract(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    workers: Workers = None,
    gpus: Gpus = 0,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Only record the activations of every snapshot into activations.zarr."""
    with _run(recipe, out, overrides, _pool(workers, gpus, scheduler, "512MiB"), quiet=quiet) as started:
        started.extract()
        console.print(f"activations: {escape(started.activations_url)}")


@app.command()
def dissect(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    memory: Memory = "512MiB",
    quiet: Quiet = False,
) -> None:
    """Only compute thresholds and counts of the activations there are, into dissection.zarr."""
    with _run(recipe, out, overrides, _pool(workers, 0, scheduler, memory), quiet=quiet) as started:
        started.dissect()
    _show_results(out, started.dissection_url)


@app.command()
def info(path: Annotated[str, typer.Argument(help="A store: probe, activations or dissection.")]) -> None:
    """What a store holds: a probe's concepts, a model's layers, or what its units detect."""
    from dissect_xr.views.describe import describe_store

    for part in describe_store(path):
        console.print(part)


@app.command()
def export(
    path: Annotated[str, typer.Argument(help="A dissection store.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[str, typer.Option(help="csv (one row per unit) or netdissect-csv (one layer).")] = "csv",
    snapshot: Annotated[str | None, typer.Option(help="One snapshot; all if absent.")] = None,
    layer: Annotated[str | None, typer.Option(help="One layer; all if absent.")] = None,
    fraction: Annotated[float | None, typer.Option(help="One fraction; all if absent.")] = None,
) -> None:
    """Write what the units detect to a file."""
    from dissect_xr.analysis.results import open_dissection
    from dissect_xr.views.export import select, write_table

    write_table(select(open_dissection(path), snapshot=snapshot, layer=layer, fraction=fraction), to, format)
    console.print(f"written: {escape(str(to))}")


def _show_plans(plans: Any) -> None:
    from rich.table import Table

    table = Table(title="plan", title_justify="left")
    table.add_column("stage")
    for name in ("tasks", "on disk, at most", "memory of a task"):
        table.add_column(name, justify="right")
    for plan in plans:
        disk, memory = f"{plan.disk / 2**20:,.1f} MiB", f"{plan.memory.total / 2**20:,.0f} MiB"
        table.add_row(escape(plan.name), str(plan.tasks), disk, memory)
    console.print(table)


def _show_results(out: str, url: str) -> None:
    from dissect_xr.analysis.results import open_dissection
    from dissect_xr.views.describe import anchoring_notes
    from dissect_xr.views.figures import save_figures
    from dissect_xr.views.tables import summary

    results = open_dissection(url)
    for table in summary(results):
        console.print(table)
    for note in anchoring_notes(url):
        console.print(note)
    if "://" not in out:
        for path in save_figures(results, Path(out) / "figures"):
            console.print(f"figure: {escape(str(path))}")
    console.print(f"results: {escape(url)}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one clear message and exit code 2 for what the user can mend, no traceback unless --debug."""
    import sys

    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        app([argument for argument in given if argument != "--debug"], standalone_mode=True)
    except DissectError as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    except Exception as error:
        if debug:
            raise
        errors.print(f"[bold red]internal error:[/] {escape(f'{type(error).__name__}: {error}')}", soft_wrap=True)
        errors.print("What is finished is kept. Please report this with what --debug prints.")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("interrupted: what is finished is kept, the same command goes on from there.")
        raise SystemExit(130) from None
