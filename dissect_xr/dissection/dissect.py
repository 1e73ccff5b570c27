"""The one place that composes the passes: activations + probe -> `dissection.zarr`.

Knows: which layers are finished, that a small layer is one task and a large one steps of many, what is written when.
Does not know: how activations were made, or any score: those are derived when the store is opened.

A layer whose activations are at most one read (`cut.READ_BYTES`, 24 MiB) is one task, which finds its thresholds,
counts and writes both. A larger one goes in steps, each of as many tasks as there is work for: its thresholds are
written as soon as they are found, its counts unit block by unit block. Layers are under way side by side, so a run that
is killed has lost the tasks that were in flight and nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dissect_xr import store
from dissect_xr.dissection.cut import Limits
from dissect_xr.dissection.labels import ProbeLabels, open_labels
from dissect_xr.dissection.layers import Layer, Snapshot, complete_snapshots, open_layer
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.passes import (
    LayerToCount,
    count_blocks,
    count_folds,
    find_thresholds,
    tasks_of,
)
from dissect_xr.dissection.small import SmallLayer, dissect_small, is_small
from dissect_xr.dissection.store import (
    LayerToDissect,
    StoreCounts,
    begin_snapshot,
    create_root,
    done_units,
    finish_snapshot,
    is_dissected,
    threshold_arrays,
)
from dissect_xr.errors import BlocksFailed, BoundTooHighError, DissectError, Failed
from dissect_xr.parallel.fold import Fold, Steps, run_steps
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.parallel.progress import track
from dissect_xr.parallel.retry import kept_failures
from dissect_xr.schema import layer_path

TooHigh = dict[str, tuple[int, ...]]
"""Layer -> units whose bounds were too high."""


def dissect(
    activations: store.Url,
    probe: store.Url,
    out: store.Url,
    *,
    method: Method | None = None,
    only: Sequence[tuple[str, str]] | None = None,
    pool: Pool | None = None,
    show: bool = True,
) -> None:
    """Compute thresholds and counts of every layer of every snapshot and write them to `out`.

    What is finished from the same inputs and parameters is kept, and only the rest is computed. Counts are exact, and
    the same for every pool and block size.

    Parameters
    ----------
    activations, probe, out
        Paths or URLs of the three stores.
    only
        (snapshot, layer) pairs to dissect; None for all that `activations` holds completely.
    pool
        Where tasks run, and the memory each may use; threads of this process by default.
    show
        Whether to draw a progress bar per snapshot.

    Raises
    ------
    DissectError
        Where the stores do not belong together or are incomplete, or `out` holds a dissection of something else.

    References
    ----------
    Bau et al. 2017, Network Dissection, section 2.2 and 2.3.
    """
    method, pool = method or Method(), pool or Threads()
    activations, probe, out = store.as_url(activations), store.as_url(probe), store.as_url(out)
    labels = open_labels(probe)
    found = complete_snapshots(activations, {snapshot for snapshot, _ in only} if only else None)
    pairs = {(snapshot.name, layer) for snapshot in found for _, layer, _ in snapshot.every_layer}
    if missing := sorted(set(only or ()) - pairs):
        names = ", ".join("/".join(pair) for pair in missing)
        raise DissectError(
            f"{activations}: the activations of {names} are not complete. Extract them first: it resumes."
        )
    if not pairs:
        raise DissectError(f"{activations}: holds no complete layer. Run `dissect-xr extract` first.")
    check_images(activations, labels)
    store.drop_if_gone(out)
    create_root(out, labels, method)
    failures: list[Failed] = []
    for snapshot in found:
        layers = [name for _, name, _ in snapshot.every_layer if only is None or (snapshot.name, name) in only]
        if layers:
            with kept_failures(failures):
                _dissect_snapshot(activations, out, snapshot, layers, labels, method, pool, show)
    if failures:
        raise BlocksFailed(failures)


def finish(probe: str, out: str, snapshot: Snapshot, method: Method) -> None:
    """Write again what the layers of a dissected snapshot share, and its end, where a run was killed or it is damaged.

    Needs no activations: they may have been removed.
    """
    create_root(out, open_labels(probe), method)
    if store.marker(out, f"{snapshot.name}/done") is None:
        begin_snapshot(out, snapshot, ())
        finish_snapshot(out, snapshot)


def _dissect_snapshot(
    activations: str,
    out: str,
    snapshot: Snapshot,
    layers: Sequence[str],
    labels: ProbeLabels,
    method: Method,
    pool: Pool,
    show: bool,
) -> None:
    """Dissect those of the layers that are not finished, and mark the snapshot."""
    keys = store.markers(out, snapshot.name)
    unfinished = [
        (position, name, fingerprint)
        for position, name, fingerprint in snapshot.every_layer
        if name in layers
        and not is_dissected(out, layer_path(snapshot.name, name), fingerprint, labels.fingerprint, method, keys)
    ]
    if not unfinished and f"{snapshot.name}/done" in keys:
        return
    begin_snapshot(out, snapshot, [name for _, name, _ in unfinished])
    limits = Limits.of(pool)
    too_high: TooHigh = {}
    with track(f"dissection {snapshot.name}", show=show and bool(unfinished)) as bar:

        def works() -> Iterator[Steps]:
            for position, name, fingerprint in unfinished:
                layer = open_layer(activations, snapshot.name, name, fingerprint=fingerprint)
                layer = layer.by_tail(max(method.fractions))
                _check_pixels(layer, labels)
                _check_fractions(layer, method)
                wanted = LayerToDissect(out, layer, labels, method, position)
                if is_small(wanted, pool.memory) and f"{wanted.path}/created" not in keys:
                    bar.expect(1)
                    yield _one_task(SmallLayer(wanted, pool.memory), too_high)
                else:
                    bar.expect(tasks_of(layer, labels, len(method.fractions), limits))
                    yield _layer_in_steps(wanted, limits, too_high)

        for _ in run_steps(pool, works(), on_task=lambda task: bar.advance(_images(task))):
            pass
    if too_high:
        raise BoundTooHighError(snapshot.name, dict(sorted(too_high.items())))
    finish_snapshot(out, snapshot)


def check_images(activations: str, labels: ProbeLabels) -> None:
    """Raise unless a store of activations is of the probe's images, in their order; digests of names are compared."""
    if store.read_attrs(activations).get("names_sha256") == labels.names_sha256:
        return
    mend = f"Extract them again for {labels.url}, or dissect with the probe they were made for."
    names, probe_names = store.read(activations, "image")[:], store.read(labels.url, "image")[:]
    if len(names) != len(probe_names):
        raise DissectError(
            f"{activations}: its activations are of {len(names)} images, the probe has {len(probe_names)}. {mend}"
        )
    differ = np.flatnonzero(names != probe_names)
    if not differ.size:
        return
    n = differ[0]
    raise DissectError(
        f"{activations}: its activations are of other images than the probe's: number {n} is '{names[n]}', "
        f"in the probe '{probe_names[n]}', {len(differ)} differ in all. {mend}"
    )


def _check_pixels(layer: Layer, labels: ProbeLabels) -> None:
    """Raise where the layer's images have the probe's names, but other pixels; those written elsewhere do not say."""
    if layer.images_sha256 not in (None, labels.images_sha256):
        raise DissectError(
            f"{layer.path}: its images have the probe's names, but other pixels. Extract them again for {labels.url}, "
            "or dissect with the probe they were made for."
        )


def _check_fractions(layer: Layer, method: Method) -> None:
    """Raise where the tail of a layer was not made for fractions as large as those of the method."""
    if layer.tail is not None and max(method.fractions) > layer.tail.fraction:
        raise DissectError(
            f"{layer.path}: its tail serves fractions up to {layer.tail.fraction:g}, {max(method.fractions):g} is "
            "asked for. Dissect by smaller fractions, or extract the activations again elsewhere for this one."
        )


def _images(task: Any) -> int:
    """Images that a task has read, for the rate that the bar shows."""
    block = getattr(task, "block", None)
    return 0 if block is None else int(block.images[1] - block.images[0])


def _layer_in_steps(wanted: LayerToDissect, limits: Limits, too_high: TooHigh) -> Steps:
    """The dissection of a large layer: thresholds, which are written once found, then counts by unit block.

    Where the bounds of a tail were too high, all cells beside it are read instead. Where there are none, nothing is
    written, and `too_high` gets these units.
    """
    path, method, labels = wanted.path, wanted.method, wanted.labels
    out, fingerprint = wanted.out, wanted.fingerprint
    if store.marker(out, f"{path}/created", fingerprint=fingerprint) is None:
        store.mark(out, f"{path}/created", fingerprint=fingerprint, written=wanted.create())
    if (known := store.marker(out, f"{path}/threshold", fingerprint=fingerprint)) is not None:
        if (units := known["note"].get("bounds_too_high")) and wanted.layer.beside is not None:
            wanted = wanted.by_cells(units)
    else:
        found = yield from find_thresholds(wanted.layer, method.fractions, limits)
        if found.too_high and wanted.layer.beside is not None:
            wanted = wanted.by_cells(len(found.too_high))
            found = yield from find_thresholds(wanted.layer, method.fractions, limits)
        if found.too_high:
            too_high[wanted.layer.name] = found.too_high
            return
        with store.marked(out, f"{path}/threshold", fingerprint=fingerprint) as (writer, note):
            note["bounds_too_high"] = wanted.layer.too_high or 0
            for name, values in threshold_arrays(found).items():
                writer.write(f"{path}/{name}", (0, 0), values)
    counted, blocks = done_units(wanted), count_blocks(wanted.layer, labels, len(method.fractions), limits)
    missing = [row for row in blocks if not counted.issuperset(range(*row[0].units))]
    levels = store.read(out, f"{path}/threshold")[:]
    to_count = LayerToCount(wanted.layer, labels, levels, wanted.anchoring, method.domain)
    yield count_folds(to_count, missing, limits.memory, StoreCounts(out, path, fingerprint))
    depends_on = store.markers(out, path) - {f"{path}/done"}
    store.mark(out, f"{path}/done", fingerprint=fingerprint, written={}, note=wanted.summary, depends_on=depends_on)


def _one_task(task: SmallLayer, too_high: TooHigh) -> Steps:
    """The dissection of a small layer."""
    (units,) = yield [Fold(task.wanted.path, [task], dissect_small)]
    if units:
        too_high[task.wanted.layer.name] = units
