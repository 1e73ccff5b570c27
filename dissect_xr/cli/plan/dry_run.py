"""The plan of a run, before it starts: tasks, bytes on disk and memory of every stage, and whether they fit.

Knows: how many tasks a stage has and what they need; the memory and disk of this machine.
Does not know: how stages run.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dissect_xr import store
from dissect_xr.cli.plan.drawing import drawing_stages
from dissect_xr.cli.plan.stage_plan import StagePlan
from dissect_xr.cli.plan.times import PassSize, about, seconds
from dissect_xr.cli.run import Run
from dissect_xr.dissection.cut import RESIDENT, Limits, projected
from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import Layer
from dissect_xr.errors import DissectError, counted
from dissect_xr.parallel.resources import Host, Projection, memory_limit
from dissect_xr.probe.ingest import block_length, label_chunks
from dissect_xr.probe.label_set import LabelSet

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dissect_xr.activations.recording.extraction import Extraction
    from dissect_xr.activations.store import LayerShape

PROBE_OBJECTS = 6
"""Objects of an image block of labels: five arrays and a marker."""

PROBE_ROOT = 34
"""Objects of a probe besides: metadata of 18 arrays and the root, 10 coordinates, 3 totals and two markers."""


def plan_run(run: Run, *, rate: float | None = None) -> list[StagePlan]:
    """The plans of all stages of a run; no stage is started. Reads tables but no pixels, and loads the model
    of every snapshot that is not finished once.

    The images of the built-in probe are composed if they are missing, since its tables are written with them.

    Parameters
    ----------
    rate
        Bytes of maps that a core reads in a second (`times.reading_rate`), to say how long the passes will take.
    """
    probe = run.label_set().check()
    return [*drawing_stages(run), _probe_stage(run, probe), *_snapshot_stages(run, probe, rate)]


def show_model(run: Run) -> Iterator["RenderableType"]:
    """What the model turns out to be before any weights are read: its size, what fits, and every tap.

    The plan of a model whose weights would have to be fetched, or do not lie in memory together, is made from this.

    Raises
    ------
    DissectError
        If all weights have to lie in the memory of one process, and there is less.
    """
    finished = run.finished_snapshots()
    unfinished = [spec for snapshot, spec in run.snapshots if snapshot.name not in finished]
    if not unfinished:
        return
    from dissect_xr.activations.placement.outline import outline
    from dissect_xr.activations.recording.extraction import Described
    from dissect_xr.cli.plan.model import check_room, model_lines, tap_table

    spec = unfinished[0]
    try:
        found = outline(spec, run.recording)
    except DissectError as error:
        yield f"model {spec.factory}: nothing is known of it before its weights are read: {error}"
        return
    yield from model_lines(spec, run.recording, found)
    yield tap_table(found, run.recording.dtype)
    check_room(spec, found)
    run.described.update(
        {
            one: Described(found.maps, found.geometry, "")
            for one in unfinished
            if one.named is not None or (one.placement is not None and not one.placement.keeps_whole)
        }
    )


def said_of_weights(run: Run) -> list[str]:
    """How weights were found in their files, where that is to be said: one line for all snapshots of which it is."""
    of: dict[str, list[str]] = {}
    for snapshot, spec in run.snapshots:
        if (found := run.described.get(spec)) is not None and found.said:
            of.setdefault("; ".join(found.said), []).append(snapshot.name)
    more = {said: f" and {len(names) - 1} more snapshots" if len(names) > 1 else "" for said, names in of.items()}
    return [f"weights of {names[0]}{more[said]}: {said}" for said, names in of.items()]


def check_fits(run: Run, plans: Sequence[StagePlan]) -> None:
    """Raise if the memory of this machine, or of a worker with a limit, or the disk is too small for the plans.

    Raises
    ------
    DissectError
        With what is needed, what there is, and what to change.
    """
    for plan in plans:
        for host in _hosts(run, plan):
            host.check(plan.memory, plan.name)
    free = _free(run.out)
    keep_all = run.recipe.activations.keep != "none"
    needed = sum(plan.disk for plan in plans if keep_all or not plan.name.startswith("activations"))
    needed += 0 if keep_all else max((plan.disk for plan in plans if plan.name.startswith("activations")), default=0)
    if free is not None and needed > free:
        raise DissectError(
            f"{run.out}: the run may write {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB free. "
            "Use activations.keep: tail or none, fewer layers or snapshots, or another --out."
        )


def _hosts(run: Run, plan: StagePlan) -> list[Host]:
    """Where tasks of this stage share memory. Workers that a cluster does not have yet are not known."""
    if run.pool.hosts is None:
        return [Host("this machine", memory_limit(), plan.at_once)]
    hosts = [replace(host, tasks=min(host.tasks, plan.at_once)) for host in run.pool.hosts]
    with_gpu = [host for host in hosts if host.gpu]
    return with_gpu if with_gpu and plan.name.startswith(("activations", "labels")) else hosts


def _probe_stage(run: Run, probe: LabelSet) -> StagePlan:
    rows, cols = probe.label_size
    length = block_length(len(probe.rows))
    image_bytes = max(1, len(probe.planes)) * rows * cols * 2
    memory = Projection(
        (
            ("process", RESIDENT),
            ("labels of a block, packed and unpacked, and as runs", 4 * length * image_bytes),
            ("one decoded image and its maps", 64 * 2**20),
        )
    )
    blocks = -(-len(probe.rows) // length)
    disk = len(probe.rows) * image_bytes
    objects = blocks * PROBE_OBJECTS + PROBE_ROOT + (blocks + 1 if probe.void else 0)
    return StagePlan("probe", blocks, disk, objects, memory, run.pool.workers)


def _snapshot_stages(run: Run, probe: LabelSet, rate: float | None) -> Iterator[StagePlan]:
    images = tuple(row.image for row in probe.rows)
    finished = run.finished_snapshots()
    unfinished = [(snapshot, spec) for snapshot, spec in run.snapshots if snapshot.name not in finished]
    if not unfinished:
        return
    from dissect_xr.activations.recording.extraction import RESIDENT as WITH_TORCH
    from dissect_xr.activations.recording.extraction import Extraction
    from dissect_xr.activations.store import ROOT_OBJECTS as ACTIVATIONS_ROOT
    from dissect_xr.cli.plan.derived import bases_stage, planned_layers
    from dissect_xr.dissection.store import ROOT_OBJECTS as DISSECTION_ROOT

    # What all snapshots share is written with the first of them.
    activations_root = 0 if store.marker(run.activations_url, "created") else ACTIVATIONS_ROOT
    dissection_root = 0 if store.marker(run.dissection_url, "created") else DISSECTION_ROOT
    labels, described = _labels(probe), run.describe([spec for _, spec in unfinished])
    for n, (snapshot, spec) in enumerate(unfinished):
        extraction = Extraction(
            run.activations_url, run.probe_url, snapshot, spec, run.recording, described[spec], images
        )
        extraction.check_budget()
        memory = Projection((("process with torch", WITH_TORCH), *extraction.memory.parts))
        keep, layers = extraction.recording.keep, [_layer(extraction, layer) for layer in extraction.layers]
        note = "" if n else _both_ways(extraction) + _how_long(run, layers, labels, rate)
        objects, disk = extraction.objects_of(keep) + (0 if n else activations_root), extraction.bytes_of(keep)
        yield StagePlan(f"activations {snapshot.name}", extraction.blocks, disk, objects, memory, 1, note)
        if run.derived_of(snapshot.name):
            derived = planned_layers(run, snapshot.name, layers)
            yield bases_stage(run, snapshot.name, derived)
            layers += [layer for _, layer in derived]
        yield _dissection_stage(run, snapshot.name, layers, labels, 0 if n else dissection_root)


def _dissection_stage(run: Run, snapshot: str, layers: Sequence[Layer], labels: ProbeLabels, root: int) -> StagePlan:
    """The plan of a snapshot's dissection, which also writes so many objects at the root."""
    from dissect_xr.dissection.passes import count_blocks, count_sizes, tasks_of, threshold_blocks, threshold_sizes
    from dissect_xr.dissection.small import is_small
    from dissect_xr.dissection.store import LayerToDissect

    fractions, memory = len(run.method.fractions), run.pool.memory
    limits = Limits.of(run.pool)
    sizes = count_sizes(labels, fractions, memory)
    needed = [projected(la, count_blocks(la, labels, fractions, limits)[0][0], **sizes) for la in layers]
    needed += [projected(la, threshold_blocks(la, limits)[0][0], **threshold_sizes(la, memory)) for la in layers]
    units = sum(layer.shape[1] for layer in layers)
    wanted = [LayerToDissect(run.dissection_url, layer, labels, run.method, 0) for layer in layers]
    objects = root + 3 + sum(one.objects for one in wanted)  # 3 of the snapshot: its group and two markers
    # A large layer has two markers more, and one for the counts of each unit block.
    large = [one.layer for one in wanted if not is_small(one, memory)]
    objects += sum(2 + len(count_blocks(layer, labels, fractions, limits)) for layer in large)
    return StagePlan(
        f"dissection {snapshot}",
        sum(1 if is_small(one, memory) else tasks_of(one.layer, labels, fractions, limits) for one in wanted),
        (sizes["unit_bytes"] + 12 * fractions) * units,
        objects,
        Projection((("process", RESIDENT), *max(needed, key=lambda projection: projection.total).parts)),
        run.pool.workers,
    )


def _both_ways(extraction: "Extraction") -> str:
    """What the activations of a snapshot take as all cells and as tails, and which is chosen."""
    dense, tail = (
        f"{extraction.bytes_of(keep) / 2**20:,.1f} MiB in {extraction.objects_of(keep):,} objects"
        for keep in ("dense", "tail")
    )
    sampling, images = extraction.recording.sampling, len(extraction.images)
    return (
        f"activations of a snapshot: all cells {dense}; tails at most {tail}, for which {len(sampling.of(images)):,} "
        f"of {images:,} images go through the model twice; as asked for, keep: {extraction.recording.keep}"
    )


def _how_long(run: Run, layers: Sequence[Layer], labels: ProbeLabels, rate: float | None) -> str:
    """How long both passes take, as all cells and as tails, by the rate measured."""
    if rate is None:
        return ""
    size = PassSize.of(layers, run.method.fractions, labels.shape)
    dense, tail = (about(seconds(size, rate, keep) / run.pool.workers) for keep in ("dense", "tail"))
    return (
        f"; at the {rate / 1e9:.2f} GB/s that this machine reads, thresholds and counts of a snapshot take {dense} "
        f"from all cells and {tail} from tails, with {counted(run.pool.workers, 'worker')}"
    )


def _layer(extraction: "Extraction", layer: "LayerShape") -> Layer:
    """A layer as it will be stored, for the plan of its dissection."""
    chunks = layer.spec.chunks
    return Layer(
        url=extraction.url,
        snapshot=extraction.snapshot.name,
        name=layer.name,
        shape=layer.shape,
        dtype=layer.dtype,
        chunk=(chunks[0], chunks[1]),
        fingerprint="",
        input_size=extraction.recording.preprocess.size,
        geometry=extraction.described.geometry[layer.name],
        columns=layer.columns,
    )


def _labels(probe: LabelSet) -> ProbeLabels:
    """The labels as they will be stored, for the plans of the later stages."""
    slots = max(1, max(len(row.whole) for row in probe.rows))
    indices = {name: n for n, name in enumerate(probe.domains)}
    chunk, shard = label_chunks(min(len(probe.rows), block_length(len(probe.rows))))
    return ProbeLabels(
        url="",
        shape=(len(probe.rows), max(1, len(probe.planes)), *probe.label_size),
        slots=slots,
        chunk=chunk,
        shard=shard,
        concepts=np.array([c.number for c in probe.concepts], np.int64),
        domain=np.array([indices[c.domain] for c in probe.concepts], np.int64),
        domains=len(indices),
        most_runs=max(1, len(probe.planes)) * probe.label_size[0] * probe.label_size[1],
        has_ignored=bool(probe.void),
        fingerprint="",
        images_sha256="",
        names_sha256="",
    )


def _free(out: str) -> int | None:
    """Free bytes of the disk that `out` will be on; None for an object store."""
    if "://" in out:
        return None
    folder = Path(out).resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
