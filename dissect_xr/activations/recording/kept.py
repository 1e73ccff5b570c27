"""Which layers of a snapshot are kept as tails and which dense: decided once, from bounds, and stored.

Knows: what a snapshot's group says of it, and the second extraction of layers whose bounds were too high.
Does not know: how bounds are found (`bounds`), or who notices that one was too high.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dissect_xr import store
from dissect_xr.activations.recording.block import extract_block
from dissect_xr.activations.recording.bounds import Bounds, find_bounds
from dissect_xr.activations.recording.extraction import Extraction
from dissect_xr.activations.request import Keep
from dissect_xr.activations.store import LayerShape, in_one_snapshot, tail_shape
from dissect_xr.errors import DissectError, counted
from dissect_xr.parallel.pool import Pool, Threads, run_blocks, run_tasks
from dissect_xr.parallel.progress import track
from dissect_xr.schema import layer_path
from dissect_xr.store.seal import reseal
from dissect_xr.tail.arrays import tails_path
from dissect_xr.tail.stored import StoredTail, again_key, current_tail


def choose_bounds(extraction: Extraction, pool: Pool, *, show: bool) -> Bounds | None:
    """The bounds of a snapshot whose tails are to be kept, from a sample; None where all cells are.

    Raises
    ------
    DissectError
        If the tails and the layers that are kept dense would take more bytes than the recording's budget.
    """
    recording = extraction.recording
    if recording.keep == "dense":
        return None
    task = (extraction.sample(), recording.sampling)
    with track(f"bounds {extraction.snapshot.name}", 1, show=show) as bar:
        bounds: Bounds
        ((_, bounds),) = run_tasks(pool, find_bounds, [task], gpu=extraction.spec.gpus)
        bar.advance(len(task[0].images))
    images = len(extraction.images)
    sizes = {
        layer.name: layer.image_bytes * images * (layer.has_cells + layer.has_tail * bounds.shares[layer.name])
        for layer in with_bounds(extraction, bounds)
    }
    if sum(sizes.values()) > recording.budget:
        largest = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in _largest(sizes))
        raise DissectError(
            f"snapshot {extraction.snapshot.name}: the tails of {counted(len(sizes), 'layer')} take "
            f"{sum(sizes.values()) / 2**30:.2f} GiB raw, the budget is {recording.budget / 2**30:.2f} GiB; the largest "
            f"are {largest}. Choose fewer layers or raise the budget."
        )
    return bounds


def _largest(sizes: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(sizes.items(), key=lambda item: -item[1])[:5]


def with_bounds(extraction: Extraction, bounds: Bounds | None) -> tuple[LayerShape, ...]:
    """The layers, each with what is to be kept of it."""
    return extraction.layers if bounds is None else _kept(extraction.layers, bounds.dense, extraction.recording.keep)


def _kept(layers: Sequence[LayerShape], dense: Sequence[str], keep: Keep) -> tuple[LayerShape, ...]:
    """Layers with what is kept of them; of those in `dense` all cells, and no tail."""
    return tuple(replace(layer, kept="dense" if layer.name in dense else keep) for layer in layers)


def tail_attrs(extraction: Extraction, bounds: Bounds | None) -> dict[str, Any]:
    """What the snapshot's group says of its tails; nothing where all cells are kept."""
    if bounds is None:
        return {}
    sampling = extraction.recording.sampling
    images = len(sampling.of(len(extraction.images)))
    how = {"fraction": sampling.fraction, "margin": sampling.margin, "sample": images}
    return {"tail": how | {"dense": bounds.dense, "keep": extraction.recording.keep}}


def create_tails(url: str, snapshot: str, layers: Sequence[LayerShape], bounds: Bounds, *, keep: bool) -> store.Written:
    """Create the group of a snapshot's tails, with the bounds."""
    shape, write = tail_shape(layers), store.lay_out if keep else store.create
    return write(url, tails_path(snapshot), shape.specs("all_units"), {}, [shape.bound(bounds.values, "all_units")])


def stored_layers(extraction: Extraction) -> tuple[LayerShape, ...]:
    """The layers of a snapshot whose groups are created, each with what is kept of it."""
    tail = store.read_attrs(extraction.url, extraction.snapshot.name).get("tail")
    return extraction.layers if tail is None else _kept(extraction.layers, tail["dense"], tail.get("keep", "tail"))


def check_kept(extraction: Extraction, stored: Mapping[str, Any]) -> None:
    """Raise where the store holds tails of this snapshot, as its attributes say, that do not serve what is asked."""
    url, name, recording, tail = extraction.url, extraction.snapshot.name, extraction.recording, stored.get("tail")
    if tail is None or tail.get("keep") == "both":  # what they do not serve is read from all cells
        return
    if recording.keep != "tail":
        raise DissectError(
            f"{url}: holds the tails of snapshot {name}, and all cells are asked for (activations.keep: "
            f"{recording.keep}). Go on with keep: tail, use another output directory, or delete the snapshot."
        )
    if (wanted := recording.sampling.fraction) > tail["fraction"]:
        raise DissectError(
            f"{url}: the tails of snapshot {name} serve fractions up to {tail['fraction']:g}, {wanted:g} "
            "is asked for. Use another output directory, or delete the snapshot."
        )


def extract_again(
    extraction: Extraction, layers: Mapping[str, Sequence[int]], *, pool: Pool | None = None, show: bool = True
) -> None:
    """Write the tails of layers some of whose bounds were too high once more; finished blocks are kept.

    The bounds of these units become the lowest number of the dtype, so that all their cells are kept: no bound is too
    high again. Those of the layers' other units stay.

    Parameters
    ----------
    extraction
        That of the snapshot, whose tails are written.
    layers
        Layer -> the numbers of its units with such a bound, as a `BoundTooHighError` has them.
    pool
        Where tasks run; threads of this process by default.
    show
        Whether to draw a progress bar.
    """
    pool = pool or Threads()
    url, name, fingerprint = extraction.url, extraction.snapshot.name, extraction.fingerprint
    chosen = in_one_snapshot(replace(layer, kept="tail") for layer in extraction.layers if layer.name in layers)
    shape, bounds, lowered = tail_shape(chosen), [], {}
    for layer in chosen:
        path = layer_path(name, layer.name)
        place, before = current_tail(url, path, store.read_attrs(url, path))
        if place is None:
            raise DissectError(f"{url}: {path} has no tail that could be extracted again: all its cells are stored.")
        units = lowered[layer.name] = sorted({*before, *layers[layer.name]})
        bounds.append(StoredTail(place).bound.copy())
        bounds[-1][units] = -np.finfo(layer.dtype).max
    part = store.fingerprint(lowered)[:12]
    marked = store.markers(url, name)
    created = f"{name}/again/{part}/created"
    if created not in marked:
        bound = shape.bound(np.concatenate(bounds), "all_units")
        written = store.lay_out(url, tails_path(name, part), shape.specs("all_units"), {}, [bound])
        store.mark(url, created, fingerprint=fingerprint, written=written)
    tasks = extraction.tasks(chosen, again=part)
    missing = [task for task in tasks if task.key not in marked]
    with track(f"activations {name}, again", len(missing), show=show and bool(missing)) as bar:
        for task, _ in run_blocks(pool, extract_block, missing, gpu=extraction.spec.gpus):
            bar.advance(len(task.images))
    depends_on = [created, *(task.key for task in tasks)]
    for number, layer in enumerate(chosen):
        key = again_key(layer_path(name, layer.name))
        note = {"part": part, "number": number, "columns": layer.columns, "units": lowered[layer.name]}
        store.mark(url, key, fingerprint=fingerprint, written={}, note=note, depends_on=depends_on)
    reseal(url, name)
