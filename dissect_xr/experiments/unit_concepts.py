"""What the units of a layer detect, as an experiment joins it: each unit's label and IoU, from a run's dissection.

Knows: where the stores of a run lie, and which fingerprint a layer's dissection has.
Does not know: any experiment.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.results import open_dissection
from dissect_xr.errors import DissectError
from dissect_xr.schema import Variable, layer_path

UNIT_VARIABLES = {
    "unit": Variable("unit", ("unit",), "string", "1", "ids `<layer>/<channel>`"),
    "concept": Variable("concept", ("unit",), "int64", "1", "number of the unit's label, 0 where it has none"),
    "concept_name": Variable("concept_name", ("unit",), "string", "1", "name of the unit's label"),
    "concept_category": Variable("concept_category", ("unit",), "string", "1", "category of the unit's label"),
    "iou": Variable("iou", ("unit",), "float64", "1", "IoU of the unit with its label, NaN where it has none"),
}
"""What `unit_concepts` joins, and the ids of units."""


@dataclass(frozen=True)
class RunStores:
    """The three stores of a run."""

    probe: str
    activations: str
    dissection: str

    def __post_init__(self) -> None:
        for name in ("probe", "activations", "dissection"):
            object.__setattr__(self, name, store.as_url(getattr(self, name)))

    @classmethod
    def of(cls, out: store.Url) -> Self:
        """Those of the run directory `out`."""
        urls = [store.join(store.as_url(out), f"{name}.zarr") for name in ("probe", "activations", "dissection")]
        return cls(*urls)


def dissection_fingerprint_of(run: RunStores, snapshot: str, layer: str) -> str | None:
    """Fingerprint of the layer's dissection, None where there is none."""
    done = store.marker(run.dissection, f"{layer_path(snapshot, layer)}/done")
    return None if done is None else str(done["fingerprint"])


def unit_concepts(
    run: RunStores, snapshot: str, layer: str, units: int, *, fraction: float | None = None
) -> tuple[xr.Dataset, float | None]:
    """The label and IoU of each unit of a layer, (unit), in memory, and the fraction; computes.

    Where the layer is not dissected, or has units without counts, they have no label: 0, "", "" and NaN.

    Parameters
    ----------
    units
        How many the layer has.
    fraction
        One of the dissection's fractions; None takes the first.

    Raises
    ------
    DissectError
        If the fraction was not dissected, or the dissected layer has another number of units.
    """
    names = np.array([f"{layer}/{n}" for n in range(units)])
    if dissection_fingerprint_of(run, snapshot, layer) is None:
        none = np.full(units, "", dtype=np.str_)
        return _labels(names, np.zeros(units, np.int64), none, none, np.full(units, np.nan)), None
    ds = open_dissection(run.dissection)
    chosen = fraction_of(ds, fraction)
    ds = ds.sel(snapshot=snapshot, fraction=chosen).isel(unit=np.flatnonzero(ds["layer"].values == layer))
    best = best_concept(ds).compute()
    best = best.isel(unit=np.isin(best["unit"].values, names))
    if best.sizes["unit"] != units:
        raise DissectError(
            f"{run.dissection}: {snapshot}/{layer} has {best.sizes['unit']} dissected units, the network has {units}. "
            "Was it dissected from another network? Run its recipe again, in another folder."
        )
    found = (best[name].values for name in ("concept", "concept_name", "category", "iou"))
    return _labels(names, *found), chosen


def fraction_of(ds: xr.Dataset, fraction: float | None) -> float:
    """One of the fractions of a dissection; None takes the first.

    Raises
    ------
    DissectError
        If it was not dissected; the fractions are listed.
    """
    fractions = np.atleast_1d(ds["fraction"].values).tolist()
    if fraction is not None and fraction not in fractions:
        known = ", ".join(f"{one:g}" for one in fractions)
        raise DissectError(f"fraction {fraction:g} was not dissected; there are {known}. Choose one.")
    return float(fractions[0] if fraction is None else fraction)


def _labels(
    names: np.ndarray, concept: np.ndarray, name: np.ndarray, category: np.ndarray, iou: np.ndarray
) -> xr.Dataset:
    return xr.Dataset(
        {"iou": ("unit", iou.astype(np.float64))},
        {
            "unit": names,
            "concept": ("unit", concept.astype(np.int64)),
            "concept_name": ("unit", name),
            "concept_category": ("unit", category),
        },
    )
