"""Tables for the terminal and for files: what a store holds, which units detect what.

Knows: rich, and that names come from data: they are escaped.
Does not know: how anything was computed.
"""

from collections.abc import Iterator

import pandas as pd
import xarray as xr
from rich import box
from rich.markup import escape
from rich.table import Table

from dissect_xr.analysis.detect import best_concept, concept_histogram, detectors, unique_detectors
from dissect_xr.schema import CUTOFF

TOP = 3
"""Concepts named per row of the summary."""


def summary(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> Iterator[Table]:
    """A table per fraction: snapshot x layer with units, detectors, unique detectors and the most frequent concepts.

    Computes the IoUs of a layer at a time.
    """
    for fraction in ds["fraction"].values:
        table = Table(title=f"fraction {fraction:g}, IoU > {cutoff:g}", title_justify="left", box=box.SIMPLE)
        table.add_column("snapshot", no_wrap=True)
        table.add_column("layer", no_wrap=True)
        for name in ("units", "detectors", "unique\nby_unit", "unique\nby_category"):
            table.add_column(name, justify="right", min_width=max(map(len, name.split("\n"))))
        table.add_column("top concepts", no_wrap=True)
        for snapshot in ds["snapshot"].values:
            at = ds.sel(fraction=fraction, snapshot=snapshot)
            for layer in dict.fromkeys(ds["layer"].values):
                row = _row(at.isel(unit=at["layer"].values == layer), cutoff)
                table.add_row(escape(str(snapshot)), escape(str(layer)), *row)
        yield table


def _row(one: xr.Dataset, cutoff: float) -> list[str]:
    one = one[["intersection", "unit_area", "concept_area", "dead"]].load()
    if one["intersection"].isnull().any():
        return ["-", "-", "-", "-", "not in this snapshot"]
    units = concept_histogram(one, cutoff=cutoff)
    order = units.argsort().values[::-1]
    named = [f"{escape(str(one['concept_name'].values[c]))} {int(units[c])}" for c in order[:TOP] if int(units[c])]
    numbers = (
        one.sizes["unit"],
        detectors(one, cutoff=cutoff).sum(),
        unique_detectors(one, count="by_unit", cutoff=cutoff),
        unique_detectors(one, count="by_category", cutoff=cutoff),
    )
    return [*(str(int(number)) for number in numbers), ", ".join(named)]


def concepts(probe: xr.Dataset) -> Iterator[Table]:
    """A table per category of a probe: number, name, images and share of the category's domain."""
    probe = probe[["concept_images", "concept_area", "category_area"]].load()
    for category in probe["category"].values:
        area = int(probe["category_area"].sel(category=category))
        mine = probe.isel(concept=probe["concept_category"].values == category)
        table = Table(title=escape(f"{category}: {mine.sizes['concept']} concepts"), title_justify="left")
        for name, side in (("number", "right"), ("concept", "left"), ("images", "right"), ("share", "right")):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        for n in mine["concept_area"].argsort().values[::-1]:
            one = mine.isel(concept=n)
            share = int(one["concept_area"]) / area if area else 0.0
            name = escape(str(one["concept_name"].values))
            table.add_row(str(int(one["concept"])), name, str(int(one["concept_images"])), f"{share:.3%}")
        yield table


def unit_table(ds: xr.Dataset, *, cutoff: float = CUTOFF) -> pd.DataFrame:
    """A row per unit, in every snapshot and fraction: its label, IoU and whether it is a detector; computes."""
    stored = {name: ds[name] for name in ("threshold", "exceedance", "dead") if name in ds}
    best = best_concept(ds)
    table = best.assign({"detector": best["iou"] > cutoff, **stored}).compute()
    table = table if "unit" in table.dims else table.expand_dims("unit")
    order = [dim for dim in ("snapshot", "fraction", "unit") if dim in table.dims]
    frame = table.to_dataframe(dim_order=order).reset_index()
    first = ["snapshot", "step", "fraction", "unit", "layer", "channel"]
    columns = [*first, "concept", "concept_name", "category", "iou", "detector", *stored]
    return frame[[name for name in columns if name in frame]]
