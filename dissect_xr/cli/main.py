"""`dissect-xr`: a recipe's stages from the command line.

Knows: commands, options, exit codes (2: the user can mend it, 3: some blocks failed), and what is printed.
Does not know: how anything is computed. Only the commands that run a model import torch.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape

from dissect_xr.cli.check import check, export_probe
from dissect_xr.cli.options import (
    BreakLock,
    Gpus,
    Memory,
    Out,
    Quiet,
    RecipeFile,
    Scheduler,
    Set,
    Verify,
    Workers,
    parse_bytes,
)
from dissect_xr.cli.safety import Safety
from dissect_xr.cli.survey import survey
from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.store import objects

if TYPE_CHECKING:
    from dissect_xr.cli.run import Run

app = typer.Typer(
    help="Network Dissection out of core: what does each unit of a vision network detect?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# A file or a pipe has no width, and rich's default of 80 would cut off the last column of the summary.
console, errors = (
    Console(stderr=stderr, width=None if Console(stderr=stderr).is_terminal else 120) for stderr in (False, True)
)


@contextmanager
def _start(
    recipe: Path, out: str, overrides: list[str] | None, pool: dict[str, Any], *, quiet: bool, safety: Safety | None
) -> Iterator["Run"]:
    from dissect_xr.cli.outcome import unfinished
    from dissect_xr.cli.start import open_run

    with open_run(recipe, out, overrides or (), pool, show=not quiet, safety=safety) as (started, damages):
        for damage in damages:
            _print_damage(damage)
        try:
            yield started
        except BlocksFailed as error:
            errors.print(unfinished(started, error.failures))
            raise


def _print_damage(damage: object) -> None:
    errors.print(f"damaged, will be done again: {escape(str(damage))}", soft_wrap=True)


def _pool(workers: int | None, gpus: int, scheduler: str | None, memory: str) -> dict[str, Any]:
    if scheduler is not None:  # nothing is started: the numbers say what the cluster will have
        return {"scheduler": scheduler, "expect": workers, "expect_gpus": gpus, "memory": parse_bytes(memory)}
    return {"workers": workers, "gpus": gpus, "memory": parse_bytes(memory)}


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
    verify: Verify = False,
    break_lock: BreakLock = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan and check whether it fits.")] = False,
) -> None:
    """Run all stages for every snapshot, continuing after finished blocks; then print tables and draw figures."""
    from dissect_xr.cli.dry_run import check_fits, plan_run, show_model
    from dissect_xr.cli.experiments import check_experiments, run_experiments, shown
    from dissect_xr.cli.outcome import results
    from dissect_xr.store.repair import mended

    pool = _pool(workers, gpus, scheduler, memory)
    safety = None if dry_run else Safety(verify, break_lock)
    with _start(recipe, out, overrides, pool, quiet=quiet, safety=safety) as started:
        check_experiments(started)
        if dry_run:
            _show(show_model(started))
        plans = plan_run(started)
        _say(started)
        if dry_run:
            _show_plans(plans)
        check_fits(started, plans)
        if dry_run:
            return

        def all_stages() -> list[RenderableType]:
            started.run()
            experiments = run_experiments(started)
            return [*results(out, started.dissection_url), *shown(out, experiments)]

        _show(mended(all_stages, _print_damage))


@app.command()
def probe(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    break_lock: BreakLock = False,
) -> None:
    """Only read the images and labels into probe.zarr."""
    with _start(
        recipe,
        out,
        overrides,
        _pool(workers, 0, scheduler, "512MiB"),
        quiet=quiet,
        safety=Safety(break_lock=break_lock),
    ) as started:
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
    break_lock: BreakLock = False,
) -> None:
    """Only record the activations of every snapshot into activations.zarr."""
    with _start(
        recipe,
        out,
        overrides,
        _pool(workers, gpus, scheduler, "512MiB"),
        quiet=quiet,
        safety=Safety(break_lock=break_lock),
    ) as started:
        started.extract()
        _say(started)
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
    break_lock: BreakLock = False,
) -> None:
    """Only compute thresholds and counts of the recorded activations into dissection.zarr."""
    from dissect_xr.cli.outcome import results

    with _start(
        recipe, out, overrides, _pool(workers, 0, scheduler, memory), quiet=quiet, safety=Safety(break_lock=break_lock)
    ) as started:
        started.dissect()
        _show(results(out, started.dissection_url))


@app.command()
def experiment(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    only: Annotated[list[str] | None, typer.Option(help="Name of one experiment; repeatable; all if absent.")] = None,
    workers: Workers = None,
    gpus: Gpus = 0,
    scheduler: Scheduler = None,
    memory: Memory = "512MiB",
    quiet: Quiet = False,
    break_lock: BreakLock = False,
) -> None:
    """Only do the recipe's experiments, on the results of an earlier run; continues after finished blocks."""
    from dissect_xr.cli.experiments import check_experiments, run_experiments, shown
    from dissect_xr.store.repair import mended

    pool = _pool(workers, gpus, scheduler, memory)
    with _start(recipe, out, overrides, pool, quiet=quiet, safety=Safety(break_lock=break_lock)) as started:
        check_experiments(started)
        if not started.recipe.experiments:
            raise DissectError(f"{recipe}: has no experiments. Add them: experiments: [{{kind: ablation, ...}}].")
        _show(mended(lambda: list(shown(out, run_experiments(started, only or ()))), _print_damage))


@app.command()
def info(path: Annotated[str, typer.Argument(help="A store: probe, activations or dissection.")]) -> None:
    """Print what a store holds: the concepts of a probe, the layers of a model, or what its units detect."""
    from dissect_xr.cli.summary import describe_store

    _show(describe_store(path))


@app.command()
def verify(
    path: Annotated[str, typer.Argument(help="A store, or the output directory of a run.")], quiet: Quiet = False
) -> None:
    """Read every finished object and list those that are damaged or missing; exit code 2 if there are any."""
    from dissect_xr.store.verify import verify as verify_stores

    damages, objects = verify_stores(path, show=not quiet)
    for damage in damages:
        console.print(escape(str(damage)), soft_wrap=True)
    if damages:
        raise DissectError(
            f"{path}: {len(damages)} of {objects} objects are damaged or missing. "
            "Give the `run` command again with --verify: it computes the blocks concerned again."
        )
    console.print(f"all {objects} objects are intact: {escape(path)}")


@app.command()
def export(
    path: Annotated[str, typer.Argument(help="A dissection store; for broden a probe, or the output of a run.")],
    to: Annotated[Path, typer.Option(help="File to write; for broden a folder.")],
    format: Annotated[
        str,
        typer.Option(
            help="csv or parquet (a row per unit), parquet-pairs (unit x concept), netdissect-csv; broden (a probe)."
        ),
    ] = "csv",
    snapshot: Annotated[str | None, typer.Option(help="One snapshot; all if absent.")] = None,
    layer: Annotated[str | None, typer.Option(help="One layer; all if absent.")] = None,
    fraction: Annotated[float | None, typer.Option(help="One fraction; all if absent.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write what the units detect to a file, or a probe to a folder in the Broden layout."""
    if format == "broden":
        export_probe(path, to, (snapshot, layer, fraction), show=not quiet)
        return
    from dissect_xr.analysis.results import open_dissection
    from dissect_xr.io.export import select, write_table

    wanted = select(open_dissection(path), snapshot=snapshot, layer=layer, fraction=fraction)
    write_table(wanted, to, format, show=not quiet)
    console.print(f"written: {escape(str(to))}")


@app.command()
def report(
    recipe: RecipeFile,
    out: Out,
    overrides: Set = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write; OUT/report if absent.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="One of the dissection's fractions; the first if absent.")
    ] = None,
    exemplars: Annotated[int, typer.Option(min=0, max=24, help="Images shown per unit; 0 for none.")] = 6,
    quiet: Quiet = False,
) -> None:
    """Write the results as a folder of pages that open from disk, without a network."""
    from dissect_xr.cli.recipe import load_recipe
    from dissect_xr.report.write import write_report

    load_recipe(recipe, out=out, overrides=overrides or ())
    if to is None and "://" in out:
        raise DissectError(f"{out}: a report is written to a local folder. Name one: --to FOLDER.")
    page = write_report(out, to or Path(out) / "report", fraction=fraction, exemplars=exemplars, show=not quiet)
    console.print(f"report: {escape(str(page))}")


app.command()(survey)
app.command()(check)


def _show_plans(plans: Any) -> None:
    from rich.table import Table

    table = Table(title="plan", title_justify="left")
    table.add_column("stage")
    for name in ("tasks", "on disk, at most", "objects", "memory of a task"):
        table.add_column(name, justify="right")
    for plan in plans:
        disk, memory = f"{plan.disk / 2**20:,.1f} MiB", f"{plan.memory.total / 2**20:,.0f} MiB"
        table.add_row(escape(plan.name), str(plan.tasks), disk, f"{plan.objects:,}", memory)
    console.print(table)


def _say(started: "Run") -> None:
    from dissect_xr.cli.dry_run import said_of_weights

    for line in said_of_weights(started):
        errors.print(escape(line), soft_wrap=True)


def _show(parts: Iterable[RenderableType]) -> None:
    for part in parts:
        console.print(part)


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
