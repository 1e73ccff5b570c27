"""The commands that start a run, whole or stage by stage, from a recipe.

Knows: options, and what is printed before and after the stages.
Does not know: how anything is computed. Only stages that run a model import torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape

from dissect_xr.cli.commands.options import (
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
from dissect_xr.cli.console import console, errors, show
from dissect_xr.cli.safety import Safety
from dissect_xr.errors import BlocksFailed, DissectError

if TYPE_CHECKING:
    from dissect_xr.cli.run import Run


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
    from dissect_xr.cli.experiments import check_experiments, run_experiments, shown
    from dissect_xr.cli.outcome import results
    from dissect_xr.cli.plan.dry_run import check_fits, plan_run, show_model
    from dissect_xr.cli.plan.times import reading_rate
    from dissect_xr.store.repair import mended

    pool = _pool(workers, gpus, scheduler, memory)
    safety = None if dry_run else Safety(verify, break_lock)
    with _start(recipe, out, overrides, pool, quiet=quiet, safety=safety) as started:
        check_experiments(started)
        if dry_run:
            show(show_model(started))
        plans = plan_run(started, rate=reading_rate() if dry_run else None)
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

        show(mended(all_stages, _print_damage))


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
        show(results(out, started.dissection_url))


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
        show(mended(lambda: list(shown(out, run_experiments(started, only or ()))), _print_damage))


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
    for note in (plan.note for plan in plans if plan.note):
        console.print(escape(note), soft_wrap=True)


def _say(started: "Run") -> None:
    from dissect_xr.cli.plan.dry_run import said_of_weights

    for line in said_of_weights(started):
        errors.print(escape(line), soft_wrap=True)
