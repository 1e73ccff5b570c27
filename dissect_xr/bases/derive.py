"""The one place that composes derived layers: a recorded layer and bases -> a matrix of each basis, written beside it.

Knows: which are missing, that principal axes need a pass over the activations, and that others need none.
Does not know: what a basis is, how a matrix is stored (`stored`), or how a derived layer is dissected.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dissect_xr import store
from dissect_xr.bases.basis import Basis, PcaBasis
from dissect_xr.bases.principal_axes import MeanProducts, mean_products, projected, sum_tasks
from dissect_xr.bases.stored import derived_name, is_there, seal_derived, write
from dissect_xr.dissection.cut import Limits
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.dissection.layers import Layer, Snapshot, check_dense, complete_snapshots, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.parallel.fold import Steps, run_steps
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.parallel.progress import Bar, track


def derive(
    activations: store.Url,
    layer: str,
    bases: Sequence[Basis] | Basis,
    *,
    snapshots: Sequence[str] | None = None,
    pool: Pool | None = None,
    show: bool = True,
) -> list[str]:
    """Write the layers derived from a recorded one into its store, and return their names; those there are kept.

    Only a matrix is written of each. `dissect`, `top_images` and the report then take them as any layer, and compute
    their maps where they need them.

    Parameters
    ----------
    activations
        Path or URL of the store.
    layer
        A recorded layer.
    bases
        What is to be derived.
    snapshots
        Names of snapshots; None for all that hold the layer completely.
    pool
        Where the sums for principal axes are made; threads of this process by default. Matrices of other bases are made
        in this process.
    show
        Whether to draw a progress bar per snapshot.

    Raises
    ------
    DissectError
        Where the layer is not there or not complete, a basis does not fit it, or another layer has the name.
    """
    activations, pool = store.as_url(activations), pool or Threads()
    wanted = [bases] if isinstance(bases, Basis) else list(bases)
    names = [derived_name(layer, basis) for basis in wanted]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DissectError(f"derived layers {', '.join(repeated)}: asked for more than once. Ask for each once.")
    found = complete_snapshots(activations, snapshots)
    holding = [snapshot for snapshot in found if layer in snapshot.layers]
    lacking = sorted(set(snapshots or ()) - {snapshot.name for snapshot in holding})
    if lacking or not holding:
        known = ", ".join(dict.fromkeys(name for snapshot in found for name in snapshot.layers)) or "none"
        where = f" in {', '.join(lacking)}" if lacking else ""
        raise DissectError(f"{activations}: expected complete activations of {layer}{where}; complete are {known}.")
    for snapshot in holding:
        _derive(activations, snapshot, layer, wanted, pool, show)
    return names


def _derive(url: str, snapshot: Snapshot, layer: str, bases: Sequence[Basis], pool: Pool, show: bool) -> None:
    """Write those of a snapshot's derived layers that are missing, and seal the snapshot again."""
    source = open_layer(url, snapshot.name, layer, fingerprint=snapshot.layers[layer])
    check_dense(source, "layers are derived from all cells")
    missing = [basis for basis in bases if not is_there(url, snapshot, source, basis)]
    sizes = [basis.rows(source.shape[1]) for basis in missing]
    with track(f"bases {snapshot.name}", len(missing), show=show and bool(missing)) as bar, one_thread():
        products = _products(source, missing, pool, bar)
        for basis, rows in zip(missing, sizes, strict=True):
            if isinstance(basis, PcaBasis):
                linear = products[0].axes(rank=rows, centred=basis.centred)
            else:
                linear = basis.linear(source.shape[1])
            write(url, source, basis, linear)
            bar.advance(0)
    seal_derived(url, snapshot.name)


def _products(source: Layer, bases: Sequence[Basis], pool: Pool, bar: Bar) -> list[MeanProducts]:
    """The mean products that these bases need, in a list; an empty one where none does."""
    kinds = tuple(sorted({basis.centred for basis in bases if isinstance(basis, PcaBasis)}))
    if not kinds:
        return []
    limits, found = Limits.of(pool), list[MeanProducts]()
    projected(source, limits).check(limits.memory, f"principal axes of {source.path}")
    bar.expect(sum_tasks(source, limits))

    def kept() -> Steps:
        found.append((yield from mean_products(source, kinds, limits)))

    for _ in run_steps(pool, [kept()], on_task=lambda task: bar.advance(task.block.images[1] - task.block.images[0])):
        pass
    return found


def one_thread() -> Any:
    """A context in which linear algebra uses one thread of this process.

    A matrix is then the same on machines with other numbers of cores, and processes that share cores do not wait for
    each other: a Schur form of 512 units took 0.9 s with one thread and 30 s with two on a machine at work.
    """
    return threadpool_limits(1, user_api="blas")


def layer_maps(activations: store.Url, snapshot: str, layer: str) -> Iterator[NDArray[np.floating]]:
    """The maps of a layer, recorded or derived, in blocks (image, unit, y, x) of whole stored chunks; computes.

    `write_activations` takes them, where derived maps are wanted as an array of their own.
    """
    opened = open_layer(store.as_url(activations), snapshot, layer)
    check_dense(opened.derivation.source if opened.derivation else opened, "all of them are asked for")
    maps, images, step = Maps(opened), opened.shape[0], opened.chunk[0]
    return (maps.values((first, min(first + step, images))) for first in range(0, images, step))
