"""`dissect-xr survey`: writes the page of a survey, and prints the table of its answers.

Knows: options, rich, and that names and phrases from data must be escaped.
Does not know: what is asked, or how agreement is counted.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from dissect_xr.errors import DissectError, counted

if TYPE_CHECKING:
    import xarray as xr

UNDEFINED = "-"
"""A number that the answers do not define."""

UNDEFINED_BECAUSE = {
    "kappa": "no question has two answers, or all answers are the same",
    "consistency": "most of the other raters say yes to nothing there",
}


def survey(
    context: typer.Context,
    out: Annotated[str, typer.Argument(metavar="RUN", help="The output directory of a run.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Answers, for --read and --descriptions.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Print the table of the answers in FILES.")] = False,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Ask about people's descriptions, from the answers in FILES, too.")
    ] = False,
    ask: Annotated[str, typer.Option(help="phrase (does it describe the pictures?) or description.")] = "phrase",
    snapshot: Annotated[str | None, typer.Option(help="One snapshot; the last if absent.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="A layer; repeatable. All if absent.")] = None,
    fraction: Annotated[float | None, typer.Option(help="One of the fractions; the first if absent.")] = None,
    units: Annotated[int, typer.Option(help="Units of each layer.")] = 20,
    decoys: Annotated[int, typer.Option(help="Questions of each layer with another unit's label.")] = 4,
    images: Annotated[int, typer.Option(help="Pictures of each unit.")] = 15,
    crop: Annotated[
        float | None, typer.Option(help="Show a square around the peak, this share of the image's shorter side.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws of units and decoys, and of the order.")] = 0,
    to: Annotated[Path | None, typer.Option(help="File to write; OUT/survey/survey-....html if absent.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Ask people: write a page of questions about units, or read what several people answered."""
    from dissect_xr.cli.console import console
    from dissect_xr.survey.answers import read_survey
    from dissect_xr.survey.questions import Survey
    from dissect_xr.survey.table import survey_table
    from dissect_xr.survey.write import plan_survey, write_planned

    _check_files(context, files or [], read=read, descriptions=descriptions)
    if read:
        for part in shown(survey_table(answers := read_survey(out, files or [])), answers.sizes["question"]):
            console.print(part)
        return
    wanted = Survey(ask, snapshot, layer, fraction, units, decoys, images, crop, seed)  # type: ignore[arg-type]
    described = read_survey(out, files or []) if descriptions else None
    plan = plan_survey(out, wanted, descriptions=described, to=to)
    page = write_planned(out, plan, show=not quiet)
    key = plan.key
    console.print(
        f"survey: {escape(str(page))} ({counted(len(key.questions), 'question')} about "
        f"{counted(len(key.layers), 'layer')} of "
        f"{escape(key.snapshot)}, {page.stat().st_size / 2**20:.1f} MiB)",
        soft_wrap=True,
    )
    console.print(
        f"Send it to the raters, and read their answers: dissect-xr survey {escape(out)} --read FILES", soft_wrap=True
    )


def _check_files(context: typer.Context, files: Sequence[Path], *, read: bool, descriptions: bool) -> None:
    """Refuse files that nothing is done with, and options that `--read` would not follow."""
    if read and descriptions:
        raise DissectError("--read prints a table and --descriptions makes a survey: give one of the two.")
    if files and not read and not descriptions:
        raise DissectError(f"{files[0]}: what is to be done with it? Give --read or --descriptions.")
    if (read or descriptions) and not files:
        raise DissectError("name the files of answers: dissect-xr survey RUN --read answers/*.json")
    if read:
        given = [
            name
            for name in context.params
            if name not in ("out", "files", "read", "quiet")
            and (source := context.get_parameter_source(name)) is not None
            and source.name == "COMMANDLINE"
        ]
        if given:
            raise DissectError(f"--{given[0]} is of a new survey: the answers say themselves of which survey they are.")


def shown(table: "xr.Dataset", questions: int) -> Iterator[RenderableType]:
    """The table of the layers, that of the raters, and a sentence for whatever is missing."""
    attrs = table.attrs
    yield f"survey {attrs['survey_sha256'][:12]} of {escape(str(attrs['snapshot']))}, fraction {attrs['fraction']:g}"
    yield _layers(table)
    if "units_of_kind" in table:
        yield _kinds(table)
    yield _raters(table, questions)
    yield from _notes(table, questions)


def _layers(table: "xr.Dataset") -> Table:
    rich = Table(title="what people say of each layer", title_justify="left", box=box.SIMPLE)
    rich.add_column("layer")
    columns = [column for column in COLUMNS if column[1] in table]
    for head, *_ in columns:
        rich.add_column(head, justify="right", no_wrap=True)
    for n, layer in enumerate(table["layer_name"].values.tolist()):
        one = table.isel(layer_name=n)
        rich.add_row(escape(layer), *(_cell(one, part, whole) for _, part, whole in columns))
    return rich


COLUMNS = (
    ("units", "units", None),
    ("interpretable", "interpretable", "answered"),
    ("label fits", "agree", "answered"),
    ("of interpretable", "agree_interpretable", "interpretable"),
    ("consistency", "consistency", None),
    ("kappa", "kappa", None),
    ("decoys passed", "decoys_passed", "decoy_answers"),
)
"""Head of a column, its variable, and what that is a share of."""


def _cell(one: "xr.Dataset", part: str, whole: str | None) -> str:
    value = one[part].item()
    if whole is None:
        if isinstance(value, int):
            return str(value)
        if np.isnan(value):
            return UNDEFINED
        return f"{value:.0%}" if part == "consistency" else f"{value:.2f}"
    of = one[whole].item()
    return f"{value}/{of} {value / of:>4.0%}" if of else UNDEFINED


def _kinds(table: "xr.Dataset") -> Table:
    rich = Table(title="interpretable units by kind", title_justify="left", box=box.SIMPLE)
    rich.add_column("layer")
    for kind in table["kind"].values.tolist():
        rich.add_column(kind, justify="right")
    for layer, row in zip(table["layer_name"].values.tolist(), table["units_of_kind"].values.tolist(), strict=True):
        rich.add_row(escape(layer), *map(str, row))
    return rich


def _raters(table: "xr.Dataset", questions: int) -> Table:
    rich = Table(title="raters", title_justify="left", box=box.SIMPLE)
    rich.add_column("rater")
    rich.add_column("answers", justify="right")
    if "rater_decoys_passed" in table:
        rich.add_column("decoys passed", justify="right")
    for n, rater in enumerate(table["rater"].values.tolist()):
        one = table.isel(rater=n)
        cells = [f"{one['rater_answers'].item()}/{questions}"]
        if "rater_decoys_passed" in table:
            cells.append(_cell(one, "rater_decoys_passed", "rater_decoy_answers"))
        rich.add_row(escape(rater), *cells)
    return rich


def _notes(table: "xr.Dataset", questions: int) -> Iterator[str]:
    """A sentence for each thing that is missing."""
    for rater, answers in zip(table["rater"].values.tolist(), table["rater_answers"].values.tolist(), strict=True):
        if answers < questions:
            yield f"{escape(rater)} answered {answers} of {questions} questions; the others are in no number."
    for layer, units, answered in zip(
        *(table[name].values.tolist() for name in ("layer_name", "units", "answered")), strict=True
    ):
        if answered < units:
            yield f"{escape(layer)}: {units - answered} of {units} units have no answer; rates are over the others."
    if table.sizes["rater"] == 1:
        yield "One rater: consistency and kappa need two."
        return
    for name, reason in UNDEFINED_BECAUSE.items():
        if layers := table["layer_name"].values[np.isnan(table[name].values)].tolist():
            yield f"No {name} for {escape(', '.join(layers))}: {reason}."
