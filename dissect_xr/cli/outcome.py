"""The end of a run: its results or, if blocks failed, a table of what is finished in each stage.

Knows: which markers the stages of a run write; rich.
Does not know: why a block failed, or how a result is computed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from dissect_xr import store
from dissect_xr.cli.run import Run
from dissect_xr.errors import Failed
from dissect_xr.probe.ingest import block_length
from dissect_xr.store import objects

NAMED = 3
"""How many failed blocks of a stage the table names; the error message names more."""


SUMMARY = "summary.json"
"""What a run has shown at its end, kept in the output directory with the fingerprint of the results it is of."""


SHOWN = 200
"""Rows of the table at the end of a run; 2,640 of them took two seconds to draw, and nobody read them."""


def results(out: str, url: str) -> list[RenderableType]:
    """The tables of the dissection at `url`, and the paths of its figures; reads all counts and draws the figures.

    A run that finds everything finished shows again what was kept of the last one, and reads no counts.
    """
    from dissect_xr.cli.summary import Row, summary

    fingerprint = _fingerprint(url)
    kept = _kept(out, fingerprint)
    if kept is None:
        kept = _made(out, url) | {"fingerprint": fingerprint}
        objects.write(out, SUMMARY, json.dumps(kept, sort_keys=True).encode())
    rows = {
        float(fraction): [Row(row["snapshot"], row["layer"], tuple(row["cells"])) for row in mine]
        for fraction, mine in kept["rows"].items()
    }
    figures = (f"figure: {escape(str(Path(out, 'figures', name)))}" for name in kept["figures"])
    return [*summary(rows, most=SHOWN), *kept["notes"], *figures, f"results: {escape(url)}"]


def _made(out: str, url: str) -> dict[str, Any]:
    from dissect_xr.analysis.results import few_in_memory, open_dissection
    from dissect_xr.cli.summary import anchoring_notes, label_notes, summary_rows
    from dissect_xr.plot.figures import save_figures

    found = few_in_memory(open_dissection(url))
    rows = {repr(fraction): [asdict(row) for row in mine] for fraction, mine in summary_rows(found).items()}
    figures = save_figures(found, Path(out) / "figures") if objects.is_local(out) else ()
    return {
        "rows": rows,
        "notes": [*anchoring_notes(found), *label_notes(found)],
        "figures": [path.name for path in figures],
    }


def _fingerprint(url: str) -> str | None:
    """sha256 of all results that are finished; None where some are not."""
    done = {name: store.marker(url, f"{name}/done") for name in store.marked_groups(url)}
    fingerprints = {name: marker["fingerprint"] for name, marker in done.items() if marker is not None}
    root = store.marker(url, "created")
    if root is None or len(fingerprints) < len(done):
        return None
    return store.fingerprint({"root": root["fingerprint"], "snapshots": fingerprints, "version": version("dissect-xr")})


def _kept(out: str, fingerprint: str | None) -> dict[str, Any] | None:
    """What was shown of these results before, None where it was not, or a figure is gone."""
    content = objects.read(out, SUMMARY)
    try:
        kept = json.loads(content or b"null")
        figures = [Path(out, "figures", name) for name in kept["figures"]] if kept else []
    except (ValueError, TypeError, KeyError):  # cut short, or written by another program
        return None
    whole = kept and fingerprint is not None and kept.get("fingerprint") == fingerprint
    return dict(kept) if whole and all(figure.is_file() for figure in figures) else None


def unfinished(run: Run, failures: Sequence[Failed]) -> Table:
    """A table with a row for each stage of each snapshot: how much is finished, and which blocks failed.

    A finished snapshot has a single row. A layer has a row of its own if one of its blocks failed.
    """
    failed = {}
    for stage, group in groupby(sorted(failures, key=_stage), key=_stage):
        images = [failure.what.removeprefix(f"{stage}, ") for failure in group]
        more = [f"and {len(images) - NAMED} more"] if len(images) > NAMED else []
        failed[stage] = str(len(images)), "\n".join([*images[:NAMED], *more])
    table = Table(title="what is finished and what is not", title_justify="left", box=box.SIMPLE)
    for name in ("stage", "finished", "blocks failed", "of"):
        table.add_column(name, justify="right" if name == "blocks failed" else "left", no_wrap=name == "stage")
    for stage, finished in _stages(run):
        table.add_row(*map(escape, (stage, finished, *failed.pop(stage, ("", "")))))
        for layer in [key for key in failed if key.startswith(f"{stage}/")]:
            table.add_row(*map(escape, (f"  {layer}", "", *failed.pop(layer))))
    for stage, cells in failed.items():
        table.add_row(*map(escape, (stage, "", *cells)))
    return table


def _stage(failure: Failed) -> str:
    return failure.what.partition(", ")[0]


def _stages(run: Run) -> Iterator[tuple[str, str]]:
    """(stage, how much of it is finished), in the order of the run."""
    created = store.marker(run.probe_url, "created")
    images = created["note"]["images"] if created else 0
    blocks = len(store.markers(run.probe_url, "blocks"))
    yield "labels", _progress(blocks, -(-images // block_length(images)) if images else None, "blocks")
    for snapshot, _ in run.snapshots:
        yield from _snapshot_stages(run, snapshot.name, images)


def _snapshot_stages(run: Run, name: str, images: int) -> Iterator[tuple[str, str]]:
    """(stage, how much of it is finished) of one snapshot."""
    dissected = store.markers(run.dissection_url, name)
    if f"{name}/done" in dissected:
        yield name, "finished"
        return
    if store.marker(run.activations_url, f"{name}/created") is None:
        yield name, "not begun"
        return
    layers = store.read_attrs(run.activations_url, name)["inputs"]["layers"]
    derived = [one.name for one in run.derived_of(name)]
    counted = {key.split("/")[1] for key in dissected if key.count("/") == 2 and key.endswith("/done")}
    counted &= {*layers, *derived}
    searched = counted | {key.split("/")[1] for key in dissected if key.endswith("/threshold")} & {*layers, *derived}
    block = next(iter(layers.values()))[-1]
    extracted = sum(len(store.markers(run.activations_url, f"{name}/{kind}")) for kind in ("blocks", "tails"))
    yield f"activations of {name}", _progress(extracted, -(-images // block), "blocks")
    if derived:
        written = store.markers(run.activations_url, name) & {f"{name}/{layer}/done" for layer in derived}
        yield f"bases of {name}", _progress(len(written), len(derived), "bases")
    total = len(layers) + len(derived)
    yield f"thresholds of {name}", _progress(len(searched), total, "layers")
    yield f"counts of {name}", _progress(len(counted), total, "layers")


def _progress(done: int, total: int | None, noun: str) -> str:
    return "not begun" if total is None else f"{done} of {total} {noun}"
