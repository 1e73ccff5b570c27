"""Summaries of stores, as a few lines and tables.

Knows: how to distinguish the three kinds of stores; rich, and that names from stored data must be escaped.
Does not know: how anything was computed, or which parts of a run are not finished (`outcome`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import xarray as xr
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dissect_xr import store
from dissect_xr.analysis.labels import layer_counts, short_name, top_concepts, unit_labels
from dissect_xr.analysis.results import few_in_memory, open_dissection
from dissect_xr.analysis.scores import label_iou, share
from dissect_xr.analysis.select import category_names
from dissect_xr.dissection.layers import Snapshot, complete_snapshots, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

TOP = 3
"""Number of concepts named in a row of the summary."""


@dataclass(frozen=True)
class Row:
    """A layer of a snapshot in the summary."""

    snapshot: str
    layer: str
    cells: tuple[str, ...]
    """units, detectors, unique detectors by unit and by category, the most frequent labels"""


def summary_rows(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> dict[float, list[Row]]:
    """Fraction -> a row for each snapshot and layer. Reads the counts of a snapshot once."""
    names = dict(zip(ds["concept"].values.tolist(), ds["concept_name"].values.tolist(), strict=True))
    rows: dict[float, list[Row]] = {float(fraction): [] for fraction in ds["fraction"].values}
    for snapshot in ds["snapshot"].values.tolist():
        found = unit_labels(ds.sel(snapshot=[snapshot]))
        lacking = _lacking(ds, snapshot)
        for fraction, mine in rows.items():
            labels = found.sel(fraction=fraction).isel(snapshot=0)
            counts = layer_counts(labels, cutoff=cutoff)
            for n, layer in enumerate(counts["layer_name"].values.tolist()):
                if layer in lacking:
                    mine.append(Row(snapshot, layer, ("-", "-", "-", "-", "not in this snapshot")))
                    continue
                top = top_concepts(labels.isel(unit=labels["layer"].values == layer), TOP, cutoff=cutoff)
                numbers = [str(int(counts[key][n])) for key in ("units", "detectors", "by_unit", "by_category")]
                named = ", ".join(f"{short_name(names[c], 24)} {units}" for c, units in top)
                mine.append(Row(snapshot, layer, (*numbers, named)))
    return rows


def _lacking(ds: xr.Dataset, snapshot: str) -> set[str]:
    """Layers that the snapshot lacks."""
    if "complete" not in ds:
        return set()
    complete = ds["complete"].sel(snapshot=snapshot)
    return set(complete["layer_name"].values[~complete.values].tolist())


def summary(rows: Mapping[float, Sequence[Row]], *, cutoff: float = CUTOFF, most: int | None = None) -> Iterator[Table]:
    """A table per fraction, with units, detectors, unique detectors and frequent labels of each snapshot and layer.

    Of more than `most` rows it shows the last snapshots, at least one, and says how many it leaves out.
    """
    for fraction, every in rows.items():
        mine = every if most is None else _last(every, most)
        table = Table(title=f"fraction {fraction:g}, IoU > {cutoff:g}", title_justify="left", box=box.SIMPLE)
        if len(mine) < len(every):
            left = len({row.snapshot for row in every} - {row.snapshot for row in mine})
            table.caption = f"{left} earlier snapshots are not shown; `dissect-xr info` shows them"
        table.add_column("snapshot")
        table.add_column("layer")
        for name in ("units", "detectors", "unique\nby_unit", "unique\nby_category"):
            table.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, name.split("\n"))))
        table.add_column("top concepts")
        for row in mine:
            *numbers, top = row.cells
            table.add_row(_cut(row.snapshot), _cut(row.layer), *numbers, _cut(top))
        yield table


def _last(rows: Sequence[Row], most: int) -> Sequence[Row]:
    """The rows of the last snapshots, as many whole ones as `most` rows hold, at least one."""
    first = len(rows)
    for _, group in groupby(reversed(rows), key=lambda row: row.snapshot):
        length = len(list(group))
        if first < len(rows) and len(rows) - first + length > most:
            break
        first -= length
    return rows[first:]


def _cut(text: str) -> Text:
    """A cell that gives way to the numbers beside it where the terminal is narrow: it is cut, in one line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def concepts(probe: xr.Dataset) -> Iterator[Table]:
    """A table per category of a probe: number, name, images and share of the domain's pixels of each concept."""
    probe = probe[["concept_images", "concept_area", "domain_area"]].load()
    probe = probe.assign(share=share(probe))
    for category in category_names(probe):
        mine = probe.isel(concept=probe["concept_category"].values == category)
        table = Table(title=escape(f"{category}: {mine.sizes['concept']} concepts"), title_justify="left")
        table.add_column("number", justify="right", no_wrap=True)
        table.add_column("concept")
        drawn = "label_source" in mine.coords
        for name in ("images", "share", *(["labels"] if drawn else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for n in mine["concept_area"].argsort().values[::-1]:
            one = mine.isel(concept=n)
            numbers = str(int(one["concept_images"])), f"{float(one['share']):.3%}"
            labels = [_drawn_by(one)] if drawn else []
            table.add_row(str(int(one["concept"])), _cut(str(one["concept_name"].values)), *numbers, *labels)
        yield table


def _drawn_by(concept: xr.Dataset) -> str:
    """Who drew a concept's labels, and the IoU of predicted ones with people's."""
    source, agreement = str(concept["label_source"].values), float(label_iou(concept))
    return source if np.isnan(agreement) else f"{source}, {agreement:.3f}"


def label_notes(ds: xr.Dataset) -> list[str]:
    """A line on predicted labels: of how many concepts, and how well they agree with people's."""
    if "label_source" not in ds.coords:
        return []
    drawn = ds["label_source"].values != "human"
    known = ds["label_iou"].values[drawn & ~np.isnan(ds["label_iou"].values)]
    agreement = f", IoU with people's labels {known.min():.3f} to {known.max():.3f}" if known.size else ""
    return [f"labels of {int(drawn.sum())} of {drawn.size} concepts are predicted{agreement}"]


def describe_store(url: str) -> Iterator[str | Table]:
    """Lines and tables about the store at `url`.

    Raises
    ------
    DissectError
        If there is no store of this package.
    """
    if not store.exists(url):
        raise DissectError(f"{url}: expected a store (probe.zarr, activations.zarr or dissection.zarr), found none.")
    attrs = store.read_attrs(url)
    if "label_size" in attrs:
        yield from _probe(url)
    elif "fractions" in attrs:
        found = few_in_memory(open_dissection(url))
        yield from summary(summary_rows(found))
        yield from anchoring_notes(found)
        yield from label_notes(found)
    elif snapshots := complete_snapshots(url):
        yield _activations(url, snapshots)
    else:
        raise DissectError(f"{url}: expected a store with a finished part, found none. Run its recipe again.")


def anchoring_notes(ds: xr.Dataset) -> list[str]:
    """A line for each reason why layers have another anchoring than the recipe asks for."""
    reasons: dict[str, list[str]] = {}
    for path, reason in json.loads(ds.attrs["anchoring_reasons"]).items():
        reasons.setdefault(reason, []).append(path)
    return [
        f"anchoring half_pixel instead of receptive_field for {escape(', '.join(paths))}: {escape(reason)}"
        for reason, paths in reasons.items()
    ]


def _probe(url: str) -> Iterator[str | Table]:
    if store.marker(url, "done") is None:
        raise DissectError(f"{url}: the probe is not complete. Run the recipe again: it continues where it stopped.")
    data = store.open_lazy(url)
    sizes = data.sizes
    yield (
        f"probe: {sizes['image']} images, {sizes['plane']} planes of {sizes['row']} x {sizes['col']}, "
        f"{sizes['concept']} concepts in {sizes['category']} categories"
    )
    if skipped := data.attrs["parameters"].get("skipped"):
        yield f"{len(skipped)} images skipped: {escape(', '.join(image for image, _ in skipped[:10]))}"
    yield from concepts(data)


def _activations(url: str, snapshots: Sequence[Snapshot]) -> Table:
    table = Table(title="activations", title_justify="left")
    for name in ("snapshot", "layer"):
        table.add_column(name)
    for name in ("images", "units", "map", "dtype"):
        table.add_column(name, justify="right")
    for snapshot in snapshots:
        for _, name, fingerprint in snapshot.every_layer:
            layer = open_layer(url, snapshot.name, name, fingerprint=fingerprint)
            images, units, height, width = layer.shape
            row = snapshot.name, name, images, units, f"{height} x {width}", layer.dtype
            table.add_row(*(escape(str(cell)) for cell in row))
    return table
