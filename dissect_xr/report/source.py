"""What a report is made from: the stores of a run directory, at one fraction.

Knows: where the stores lie, the order of snapshots and layers, which of them are finished, and their file names.
Does not know: what the report shows of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xarray as xr

from dissect_xr import store
from dissect_xr.analysis.bases import derived_layers
from dissect_xr.analysis.results import open_dissection
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.experiments.results import finished_experiments
from dissect_xr.plot.axes import ordered_layers
from dissect_xr.report.numbers import COUNTS
from dissect_xr.report.pages import slugs
from dissect_xr.schema import CUTOFF, layer_path


@dataclass(frozen=True)
class Source:
    """What a report is made from."""

    out: str
    """the run directory"""
    fraction: float | None = None
    """None for the dissection's first fraction"""
    exemplars: int = 6
    cutoff: float = CUTOFF

    @property
    def dissection(self) -> str:
        """`dissection.zarr`"""
        return store.join(self.out, "dissection.zarr")

    @property
    def activations(self) -> str:
        """`activations.zarr`"""
        return store.join(self.out, "activations.zarr")

    @property
    def probe(self) -> str:
        """`probe.zarr`"""
        return store.join(self.out, "probe.zarr")

    @property
    def stores(self) -> Stores:
        """The two stores that exemplars are made from."""
        return Stores(self.activations, self.probe)

    @cached_property
    def results(self) -> xr.Dataset:
        """The dissection at this fraction, concepts sorted by number; counts stay on disk."""
        ds = open_dissection(self.dissection)[list(COUNTS)].sortby("concept")
        fractions = ds["fraction"].values.tolist()
        if self.fraction is not None and self.fraction not in fractions:
            known = ", ".join(f"{fraction:g}" for fraction in fractions)
            raise DissectError(f"fraction {self.fraction:g} was not dissected; there are {known}. Choose one.")
        ds = ds.sel(fraction=fractions[0] if self.fraction is None else self.fraction)
        return ds.assign(concept_area=ds["concept_area"].load(), domain_area=ds["domain_area"].load())

    @cached_property
    def snapshots(self) -> list[str]:
        """Names of the snapshots in the order of steps."""
        return [str(name) for name in self.results["snapshot"].values]

    @cached_property
    def layers(self) -> list[str]:
        """Names of the layers in the order of the model."""
        return ordered_layers(self.results)

    @cached_property
    def derived(self) -> dict[str, dict[str, Any]]:
        """Derived layer -> the recorded layer it is derived from, and its basis."""
        return derived_layers(self.results)

    @cached_property
    def slugs(self) -> list[list[str | None]]:
        """File name for every snapshot and layer, None where the snapshot lacks the layer."""
        done = {key.removesuffix("/done") for key in store.markers(self.dissection) if key.endswith("/done")}
        layers = slugs(self.layers)
        return [
            [
                f"{snapshot}--{layers[n]}" if layer_path(name, layer) in done else None
                for n, layer in enumerate(self.layers)
            ]
            for name, snapshot in zip(self.snapshots, slugs(self.snapshots), strict=True)
        ]

    @cached_property
    def experiments(self) -> dict[str, str]:
        """Name -> kind of the finished experiments."""
        return finished_experiments(self.out)

    @property
    def cards(self) -> int:
        """Number of units in all layers of all snapshots: each has a card on a page."""
        units = Counter(self.results["layer"].values.tolist())
        return sum(units[path.partition("/")[2]] for path in self.paths)

    @property
    def paths(self) -> list[str]:
        """``snapshot/layer`` of every finished layer."""
        return [
            f"{snapshot}/{layer}"
            for snapshot, row in zip(self.snapshots, self.slugs, strict=True)
            for layer, slug in zip(self.layers, row, strict=True)
            if slug is not None
        ]

    def layer(self, snapshot: str, layer: str) -> xr.Dataset:
        """The layer's counts in memory."""
        at = self.results.sel(snapshot=snapshot)
        at = at.isel(unit=at["layer"].values == layer).load()
        # Another snapshot's layer of this name may have more units.
        return at.isel(unit=at["intersection"].notnull().all("concept").values)
