"""The commands that read finished stores: what they hold, whether they are intact, and results in other forms.

Knows: options, and what is printed.
Does not know: how stores are read or tables written.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dissect_xr.cli.commands.check import export_probe
from dissect_xr.cli.commands.options import Out, Quiet, RecipeFile, Set
from dissect_xr.cli.console import console, show
from dissect_xr.errors import DissectError


def info(path: Annotated[str, typer.Argument(help="A store: probe, activations or dissection.")]) -> None:
    """Print what a store holds: the concepts of a probe, the layers of a model, or what its units detect."""
    from dissect_xr.cli.summary import describe_store

    show(describe_store(path))


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
