"""The plan of a snapshot's derived layers: which there will be, and what writing their matrices takes.

Knows: which bases need tasks, and that all matrices are made in the process of the run.
Does not know: how a derived layer is dissected, or other stages (`dry_run`).
"""

from collections.abc import Sequence

from dissect_xr.bases.basis import PcaBasis
from dissect_xr.bases.principal_axes import projected, sum_tasks
from dissect_xr.bases.stored import objects_of
from dissect_xr.cli.fields.derived import Wanted
from dissect_xr.cli.plan.stage_plan import StagePlan
from dissect_xr.cli.run import Run
from dissect_xr.dissection.cut import RESIDENT, Limits
from dissect_xr.dissection.layers import Derivation, Layer, derived_layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.resources import Projection

MATRICES = 6
"""Matrices in memory at once while one is made: drawn, decomposed into two, turned, rounded, and written."""


def planned_layers(run: Run, snapshot: str, layers: Sequence[Layer]) -> list[tuple[Wanted, Layer]]:
    """The derived layers of a snapshot, as they will be.

    Raises
    ------
    DissectError
        Where a layer is not among those that will be recorded, or has not the number of units that a basis needs.
    """
    recorded = {layer.name: layer for layer in layers}
    found = []
    for one in run.derived_of(snapshot):
        if one.layer not in recorded:
            raise DissectError(
                f"derived: {one.layer} is not recorded in {snapshot}; recorded are {', '.join(recorded)}. Add it to "
                "`layers`, or name one of these."
            )
        source = recorded[one.layer]
        derivation = Derivation(source, one.basis.parameters, "", one.basis.rectified)
        units, dtype = one.basis.rows(source.shape[1]), one.basis.dtype or source.dtype
        found.append((one, derived_layer(one.name, derivation, units=units, dtype=dtype, fingerprint="")))
    return found


def bases_stage(run: Run, snapshot: str, derived: Sequence[tuple[Wanted, Layer]]) -> StagePlan:
    """The plan of writing a snapshot's derived layers."""
    limits = Limits.of(run.pool)
    sizes = [(layer.shape[1], source_of(layer).shape[1], isinstance(one.basis, PcaBasis)) for one, layer in derived]
    summed = {source_of(layer).name: source_of(layer) for one, layer in derived if isinstance(one.basis, PcaBasis)}
    here = Projection((("process", RESIDENT), ("matrices", MATRICES * 8 * max(r * u for r, u, _ in sizes))))
    tasks = [Projection((("process", RESIDENT), *projected(layer, limits).parts)) for layer in summed.values()]
    return StagePlan(
        f"bases {snapshot}",
        sum(sum_tasks(layer, limits) for layer in summed.values()),
        sum(4 * rows * (units + 1) + 8 * rows * pca for rows, units, pca in sizes),
        sum(objects_of(rows, units, variance=pca) for rows, units, pca in sizes),
        max([here, *tasks], key=lambda projection: projection.total),
        run.pool.workers if summed else 1,
    )


def source_of(layer: Layer) -> Layer:
    """The layer that a derived one is derived from."""
    assert layer.derivation is not None
    return layer.derivation.source
