"""A table of results as a pandas DataFrame, with a row per unit.

Knows: which columns it has, and their order.
Does not know: how a label is found (`detectors`), or where the table is written.
"""

import pandas as pd
import xarray as xr

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.schema import CUTOFF


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
