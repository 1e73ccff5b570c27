"""`ds.dissect.plot`: the figures of `concepts`, `units` and `compare` as methods of a dissection Dataset.

Knows: which function draws which figure.
Does not know: how it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

from dissect_xr.exemplars.masks import Stores
from dissect_xr.plot import compare, concepts
from dissect_xr.plot import units as of_units


class PlotAccessor:
    """Figures of a dissection. Each method takes the options of the function of the same name and returns the Axes."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        figures = [name for name in dir(type(self)) if not name.startswith("_")]
        return f"figures of a dissection: {', '.join(f'{name}()' for name in figures)}"

    def concept_bars(self, **options: Any) -> Axes:
        """Units per concept, grouped by category: :func:`dissect_xr.plot.concepts.concept_bars`."""
        return concepts.concept_bars(self._ds, **options)

    def emergence(self, **options: Any) -> Axes:
        """Unique detectors over training steps: :func:`dissect_xr.plot.concepts.emergence`."""
        return concepts.emergence(self._ds, **options)

    def evolution(self, units: str | Sequence[str], **options: Any) -> Axes:
        """IoU and concepts of units over training steps: :func:`dissect_xr.plot.units.evolution`."""
        return of_units.evolution(self._ds, units, **options)

    def iou_histogram(self, **options: Any) -> Axes:
        """Best IoUs and the cutoff: :func:`dissect_xr.plot.units.iou_histogram`."""
        return of_units.iou_histogram(self._ds, **options)

    def cutoff_curve(self, **options: Any) -> Axes:
        """Unique detectors at every cutoff: :func:`dissect_xr.plot.units.cutoff_curve`."""
        return of_units.cutoff_curve(self._ds, **options)

    def gallery(self, stores: Stores, units: Sequence[str], **options: Any) -> Axes:
        """Top images of units: :func:`dissect_xr.plot.units.gallery`."""
        return of_units.gallery(self._ds, stores, units, **options)

    def layers_compared(self, **options: Any) -> Axes:
        """Unique detectors of each layer by category: :func:`dissect_xr.plot.compare.layers_compared`."""
        return compare.layers_compared(self._ds, **options)

    def fine_tuning(self, **options: Any) -> Axes:
        """Units that changed since the first snapshot: :func:`dissect_xr.plot.compare.fine_tuning`."""
        return compare.fine_tuning(self._ds, **options)

    def before_after(self, stores: Stores, snapshots: tuple[str, str], **options: Any) -> Axes:
        """Images of units that changed: :func:`dissect_xr.plot.compare.before_after`."""
        return compare.before_after(self._ds, stores, snapshots, **options)
