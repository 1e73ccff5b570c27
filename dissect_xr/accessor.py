"""`ds.dissect`: the functions of the package as methods of a dissection Dataset.

Knows: which function each method calls. Nothing is computed here.
Does not know: how it is computed; matplotlib, pandas and Numba are imported by the methods that need them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dissect_xr.schema import CUTOFF

if TYPE_CHECKING:
    import pandas as pd

    from dissect_xr.analysis.detectors import Count
    from dissect_xr.exemplars.masks import Stores
    from dissect_xr.plot.accessor import PlotAccessor


@xr.register_dataset_accessor("dissect")  # type: ignore[no-untyped-call]
class DissectAccessor:
    """Methods of a dissection: `ds.dissect.best()`, `ds.dissect.concept("dog")`, `ds.dissect.plot.concept_bars()`.

    They work on any selection of :func:`dissect_xr.open_dissection` that keeps the dimension ``concept``. Methods that
    compute say so; the others are lazy.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def best(self, *, within: str | None = None) -> xr.Dataset:
        """Each unit's best concept, its category and IoU, lazy; see :func:`dissect_xr.best_concept`."""
        from dissect_xr.analysis.detectors import best_concept

        return best_concept(self._ds, within=within)

    def detectors(self, cutoff: float | xr.DataArray = CUTOFF) -> xr.DataArray:
        """Whether each unit's best IoU exceeds the cutoff, lazy; see :func:`dissect_xr.detectors`."""
        from dissect_xr.analysis.detectors import detectors

        return detectors(self._ds, cutoff=cutoff)

    def unique_detectors(
        self,
        *,
        count: Count = "by_unit",
        over: str | Sequence[str] = "unit",
        cutoff: float | xr.DataArray = CUTOFF,
    ) -> xr.DataArray:
        """Number of distinct concepts detected, lazy; see :func:`dissect_xr.unique_detectors`."""
        from dissect_xr.analysis.detectors import unique_detectors

        return unique_detectors(self._ds, count=count, over=over, cutoff=cutoff)

    def cutoff_curve(self, cutoffs: Any = None) -> xr.Dataset:
        """Detectors and unique detectors at every cutoff; computes. See :mod:`dissect_xr.analysis.cutoffs`."""
        from dissect_xr.analysis.cutoffs import CUTOFFS, cutoff_curve

        return cutoff_curve(self._ds, CUTOFFS if cutoffs is None else cutoffs)

    def concept(self, concept: str | int, *, cutoff: float = CUTOFF) -> xr.Dataset:
        """Scores of one concept with every unit, lazy; see :func:`dissect_xr.analysis.profiles.of_concept`."""
        from dissect_xr.analysis.profiles import of_concept

        return of_concept(self._ds, concept, cutoff=cutoff)

    def unit(self, unit: str, *, top: int = 5) -> xr.Dataset:
        """The best concepts of one unit with scores; computes. See :func:`dissect_xr.analysis.profiles.of_unit`."""
        from dissect_xr.analysis.profiles import of_unit

        return of_unit(self._ds, unit, top=top)

    def compare(
        self, other: xr.Dataset, *, names: tuple[str, str] = ("this", "other"), cutoff: float = CUTOFF
    ) -> xr.Dataset:
        """Concepts that one or both detect; computes. See :func:`dissect_xr.analysis.compare.compare`."""
        from dissect_xr.analysis.compare import compare

        return compare(self._ds, other, names=names, cutoff=cutoff)

    def trajectories(self, *, cutoff: float = CUTOFF) -> xr.Dataset:
        """Best concept and IoU of each unit by step, lazy; see :func:`dissect_xr.analysis.snapshots.trajectories`."""
        from dissect_xr.analysis.snapshots import trajectories

        return trajectories(self._ds, cutoff=cutoff)

    def events(self, *, cutoff: float = CUTOFF) -> pd.DataFrame:
        """Every change of a unit's concept, a table; computes. See :func:`dissect_xr.analysis.snapshots.events`."""
        from dissect_xr.analysis.snapshots import events

        return events(self._ds, cutoff=cutoff).to_dataframe().reset_index(drop=True)

    def transitions(self, *, cutoff: float = CUTOFF) -> xr.DataArray:
        """Units by category in pairs of snapshots, lazy; see :func:`dissect_xr.analysis.snapshots.transitions`."""
        from dissect_xr.analysis.snapshots import transitions

        return transitions(self._ds, cutoff=cutoff)

    def emergence(self, *, count: Count = "by_unit", cutoff: float = CUTOFF) -> xr.DataArray:
        """Unique detectors per category by step, lazy; see :func:`dissect_xr.analysis.snapshots.emergence`."""
        from dissect_xr.analysis.snapshots import emergence

        return emergence(self._ds, count=count, cutoff=cutoff)

    def changed(self, before: str, after: str, *, cutoff: float = CUTOFF) -> xr.Dataset:
        """What happened to units between two snapshots; computes. See :func:`dissect_xr.analysis.snapshots.changed`."""
        from dissect_xr.analysis.snapshots import changed

        return changed(self._ds, before, after, cutoff=cutoff)

    def convergence(self, *, cutoff: float = CUTOFF) -> xr.Dataset:
        """The step from which on each unit keeps its concept; computes.

        See :func:`dissect_xr.analysis.snapshots.convergence`.
        """
        from dissect_xr.analysis.snapshots import convergence

        return convergence(self._ds, cutoff=cutoff)

    def exemplars(self, stores: Stores, units: Sequence[str], **options: Any) -> Iterator[xr.Dataset]:
        """Top images of units with their masks; computes. See :func:`dissect_xr.exemplars.top_images.exemplars`."""
        from dissect_xr.exemplars.top_images import exemplars

        return exemplars(self._ds, stores, units, **options)

    def to_dataframe(self, *, cutoff: float = CUTOFF) -> pd.DataFrame:
        """A row per unit, in every snapshot and fraction: its label, IoU and whether it is a detector; computes."""
        from dissect_xr.io.unit_table import unit_table

        return unit_table(self._ds, cutoff=cutoff)

    @property
    def plot(self) -> PlotAccessor:
        """Figures: each method draws one and returns its Axes."""
        from dissect_xr.plot.accessor import PlotAccessor

        return PlotAccessor(self._ds)

    def __repr__(self) -> str:
        return "\n".join(f"{name + ':':<11}{text}" if name else text for name, text in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._lines()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> Iterator[tuple[str, str]]:
        """What the Dataset holds, as pairs of a name and a text, read from coordinates alone."""
        ds = self._ds
        if "concept" not in ds.variables or "intersection" not in ds:
            yield "", "no dissection: expected counts of units and concepts, as open_dissection gives them"
            return
        yield "", "dissection"
        if "snapshot" in ds.variables:
            names = np.atleast_1d(ds["snapshot"].values).tolist()
            steps = ""
            if "step" in ds.variables and len(names) > 1:
                steps = f", steps {int(ds['step'].min())} to {int(ds['step'].max())}"
            yield "snapshots", f"{_listed(names)}{steps}"
        if "layer" in ds.variables:
            layers, sizes = np.unique(np.atleast_1d(ds["layer"].values), return_counts=True)
            number = dict(zip(layers.tolist(), sizes.tolist(), strict=True))
            order = dict.fromkeys(np.atleast_1d(ds["layer"].values).tolist())
            sized = [f"{layer} ({number[layer]:,} {'unit' if number[layer] == 1 else 'units'})" for layer in order]
            yield "layers", _listed(sized)
        yield "units", f"{ds.sizes.get('unit', 1):,}"
        kinds = np.atleast_1d(ds["concept_category"].values)
        each = [f"{category} {(kinds == category).sum():,}" for category in dict.fromkeys(kinds.tolist())]
        yield "concepts", f"{len(kinds):,}: {_shortened(each)}" if each else "none"
        if "fraction" in ds.variables:
            yield "fractions", ", ".join(f"{fraction:g}" for fraction in np.atleast_1d(ds["fraction"].values))


def _listed(names: Sequence[str]) -> str:
    """The number of names, and the names."""
    return f"{len(names)}: {_shortened(names)}" if names else "none"


def _shortened(names: Sequence[str], most: int = 8) -> str:
    """The names in one line; of more than `most` those before the last are left out."""
    shown = list(map(str, names))
    return ", ".join(shown if len(shown) <= most else [*shown[: most - 2], "…", shown[-1]])
