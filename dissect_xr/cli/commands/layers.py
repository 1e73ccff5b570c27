"""`dissect-xr layers`: what a recipe's model offers to be dissected.

Knows: the columns of the list, and what is shown of taps that are no layers.
Does not know: how layers are found and tested (`activations.layouts`).
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from dissect_xr.cli.commands.options import Out, RecipeFile, Set
from dissect_xr.errors import DissectError

if TYPE_CHECKING:
    from dissect_xr.activations.layouts.listing import Listed, Listing

console = Console(width=None if Console().is_terminal else 160)


def layers(
    recipe: RecipeFile,
    out: Out = "out",
    overrides: Set = None,
    snapshot: Annotated[str | None, typer.Option(help="One snapshot of the recipe; the first if absent.")] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="List what modules are given, too.")] = False,
) -> None:
    """List all that can be a layer of the recipe's model, as what it is taken, and the reasons why the rest cannot."""
    from dissect_xr.activations.layouts.listing import list_layers
    from dissect_xr.cli.recipe import load_recipe
    from dissect_xr.cli.run import Run
    from dissect_xr.parallel.pool import Threads

    run = Run(load_recipe(recipe, out=out, overrides=overrides or ()), out, Threads(1), show=False)
    specs = {info.name: spec for info, spec in run.snapshots}
    if snapshot is not None and snapshot not in specs:
        raise DissectError(f"--snapshot {snapshot}: the recipe has {', '.join(specs)}. Name one of them.")
    spec = specs[snapshot] if snapshot is not None else next(iter(specs.values()))
    for part in shown(list_layers(spec, run.recording, inputs=inputs)):
        console.print(part)


def shown(listing: "Listing") -> Iterator[RenderableType]:
    """The tables of a list."""
    table = Table(title=f"layers ({len(listing.layers)})", title_justify="left")
    for column in ("layer", "tensor", "maps", "layout", "KiB an image", "taken for", "cells", "impulse test"):
        table.add_column(column, justify="right" if column.startswith("KiB") else "left", overflow="fold")
    for one in listing.layers:
        table.add_row(*map(escape, _row(one)))
    yield table
    if listing.short:
        names = Table(title="short names", title_justify="left")
        names.add_column("name")
        names.add_column("layers")
        for short, found in listing.short.items():
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            names.add_row(escape(short), escape(", ".join(found[:3]) + more))
        yield names
    if listing.others:
        rest = Table(title=f"no layers ({len(listing.others)})", title_justify="left")
        rest.add_column("name", overflow="fold")
        rest.add_column("it", overflow="fold")
        for name, why in listing.others.items():
            rest.add_row(escape(name), escape(why))
        yield rest


def _row(one: "Listed") -> tuple[str, ...]:
    tensor, maps = ("x".join(map(str, shape)) for shape in (one.tensor, one.maps))
    return (
        one.name,
        tensor,
        maps,
        one.layout,
        f"{one.image_bytes / 1024:.1f}",
        one.taken_for,
        one.place,
        _shortly(one.tested),
    )


def _shortly(tested: str | None) -> str:
    r"""What the impulse test said, without the places.

    >>> _shortly("undecided: 2 of 6 places answered in their own cell: the change at (0, 3) answered most at (0, 5); \
    ... blocks.0 of the same layout agrees: 6 of 6 places answered in their own cell")
    'undecided (2 of 6); blocks.0 of the same layout agrees (6 of 6)'
    """
    if tested is None:
        return "not needed"
    return "; ".join(re.sub(r": (\d+ of \d+) places answered.*", r" (\1)", part) for part in tested.split("; "))
