"""Commands on a finished probe: `check` looks through it and writes a page, `export --format broden` writes its files.

Knows: options, rich, where the page goes.
Does not know: what is looked for, what the page shows, or how files are laid out.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.schema import FRACTION
from dissect_xr.store import objects

if TYPE_CHECKING:
    from dissect_xr.probe.check.findings import ProbeCheck

SHOWN = 10
"""Findings of a kind that are printed; all are on the page."""


def check(
    path: Annotated[str, typer.Argument(help="A probe, or the output directory of a run.")],
    to: Annotated[Path | None, typer.Option(help="Folder to write; `check` beside the probe if absent.")] = None,
    fraction: Annotated[float, typer.Option(help="For which concepts are called too rare or too common.")] = FRACTION,
    edges: Annotated[int, typer.Option(min=0, help="Images whose label maps are compared with their edges.")] = 500,
    pictures: Annotated[int, typer.Option(min=0, help="Concepts that are shown with a picture.")] = 500,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local worker processes; threads of one process if absent.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Look through a probe: shares of concepts, conflicts, names, displaced label maps, images in two splits."""
    from dissect_xr.cli.console import console
    from dissect_xr.parallel.pool import open_pool
    from dissect_xr.probe.check.findings import check_probe
    from dissect_xr.report.check_page import write_check

    if not 0 < fraction < 1:
        raise DissectError(f"--fraction {fraction:g}: expected a share between 0 and 1, such as 0.005.")
    url = probe_of(path)
    if to is None and not objects.is_local(url):
        raise DissectError(f"{url}: the page is written to a local folder. Name one: --to FOLDER.")
    with open_pool(workers=workers) as pool:
        found = check_probe(url, fraction=fraction, edges=edges, pool=pool, show=not quiet)
    page = write_check(found, to or Path(url).parent / "check", pictures=pictures, show=not quiet)
    for part in shown(found):
        console.print(part)
    console.print(f"page: {escape(str(page))}", soft_wrap=True)


def export_probe(path: str, to: Path, chosen: Sequence[object], *, show: bool) -> None:
    """Write a probe in the Broden layout, and print what reads it; `chosen` are options of other formats."""
    from dissect_xr.cli.console import console
    from dissect_xr.io.broden import write_broden

    if any(one is not None for one in chosen):
        raise DissectError("--format broden writes a probe: it has no --snapshot, --layer or --fraction.")
    fields = write_broden(probe_of(path), to, show=show)
    given = ", ".join(f"{name}: {value}" for name, value in fields.items())
    console.print(f"written: {escape(str(to))}", soft_wrap=True)
    console.print(escape(f"read it with `probe: {{{given}}}`"), soft_wrap=True)


def probe_of(path: str) -> str:
    """The URL of the probe that a path names, by itself or by the run that it is of."""
    inside = store.join(store.as_url(path), "probe.zarr")
    return inside if store.exists(inside) else store.as_url(path)


def shown(found: "ProbeCheck") -> "list[RenderableType]":
    """What is printed: the probe in two lines, a table of what was found, and the first findings of each kind."""
    from dissect_xr.probe.check.findings import KINDS

    splits = ", ".join(f"{name} {count}" for name, count in found.splits.items())
    parts: list[RenderableType] = [
        f"probe: {len(found.images)} images ({escape(splits)}) of {len(found.sizes)} sizes, {len(found.concepts)} "
        f"concepts in {len(found.categories)} categories",
        f"pixels: {found.unlabelled:.2%} unlabelled, {found.ignored:.2%} ignored",
    ]
    counts = Counter(one.kind for one in found.findings)
    if not counts:
        return [*parts, "Nothing looks wrong."]
    table = Table(title="what to look at", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for kind, title in KINDS.items():
        if counts[kind]:
            table.add_row(title, str(counts[kind]))
    parts.append(table)
    for kind in KINDS:
        mine = [one for one in found.findings if one.kind == kind]
        parts += [f"- {escape(one.message)}" for one in mine[:SHOWN]]
        parts += [f"  and {len(mine) - SHOWN} more like this, in findings.csv"] if len(mine) > SHOWN else []
    return parts
