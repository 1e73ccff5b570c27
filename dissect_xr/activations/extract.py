"""The extraction of one snapshot: its layers and image blocks, its memory and size, which blocks are still missing.

Knows: the layers of a model (`sources`, `taps`, `tracing`), the probe's images, the markers of finished blocks.
Does not know: how the activations of a block are computed (`record`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch

from dissect_xr import store
from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.layouts.layout import PLAIN, Layout
from dissect_xr.activations.layouts.positions import Positions
from dissect_xr.activations.placement.empty import empty_model
from dissect_xr.activations.record import ExtractTask, autocast, extract_block
from dissect_xr.activations.references import source_sha256
from dissect_xr.activations.repeats import check_repeats
from dissect_xr.activations.request import ModelSpec, Recording, SnapshotInfo, optional_inputs, request_sha256
from dissect_xr.activations.sources import Loaded, cached, check_pool, device_of, seeded
from dissect_xr.activations.store import (
    LayerShape,
    check_layer_names,
    check_levels,
    create_layer,
    create_root,
    in_one_snapshot,
    snapshot_attrs,
    summary_specs,
)
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks, run_tasks
from dissect_xr.parallel.progress import track
from dissect_xr.parallel.resources import Projection
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.ingest import block_length
from dissect_xr.probe.root import image_folder
from dissect_xr.schema import SCHEMA_VERSION
from dissect_xr.store.seal import SEAL, seal

RESIDENT = 400 * 2**20
"""Bytes of memory of a worker process that has imported torch and runs no task."""


@dataclass(frozen=True)
class Described:
    """The layers, geometry and weights of a snapshot's model, as a worker found them."""

    maps: dict[str, tuple[int, int, int]]
    """selected layers in order of execution: (units, height, width)"""
    geometry: dict[str, Any]
    """attributes of each layer's geometry, or the reason why it has none"""
    weights: str
    """sha256"""
    said: tuple[str, ...] = ()
    """how the weights were found in their file, where that is to be said"""
    layouts: dict[str, Layout] = field(default_factory=dict)
    """of the layers that do not give maps"""
    impulse: dict[str, str] = field(default_factory=dict)
    """of the layers whose layout was tested, what the test said"""
    measured: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """of the layers whose geometry was measured: the tap where it was, and what it may be off by, in pixels"""


def describe(task: tuple[ModelSpec, Recording]) -> Described:
    """The layers of the task's model, which is loaded for this; runs on a worker that can run the model.

    Raises
    ------
    DissectError
        If the model cannot be loaded, fails, has no such layer, or has one that does not repeat (`repeats`).
    """
    spec, recording = task
    if recording.allow_nondeterministic and spec.placement is not None:
        spec.placement.check_draws()
    device = device_of(spec, recording.device)
    loaded = cached(spec, device)
    twin = empty_model(spec, "the geometry of its layers") if loaded.placed else loaded.model
    with seeded(0, device):
        return _described(loaded, twin, recording, device)


def _described(loaded: Loaded, twin: torch.nn.Module, recording: Recording, device: str) -> Described:
    """The layers, their maps, and their geometry, found on a twin that may have no weights."""
    size, model = recording.preprocess.size, loaded.model
    finder = Finder(model, partial(to_input, recording.preprocess, device=device), size, recording.batch, twin)
    known = finder.known()
    found = finder.find(known, recording.layers)
    check_layer_names(found)
    maps = {name: one.shape for name, one in found.items()}
    layouts = {name: one.layout for name, one in found.items() if one.layout != PLAIN}
    if not recording.allow_nondeterministic:
        with autocast(device, recording.autocast):
            check_repeats(model, finder.inputs, size, maps, batch=recording.batch, layouts=layouts)
    places = Positions(finder, known).of(found)
    geometry = {name: place.attrs for name, place in places.items()}
    measured = {name: place.measured for name, place in places.items() if place.measured is not None}
    tested = {name: one.tested for name, one in found.items() if one.tested is not None}
    return Described(maps, geometry, loaded.sha256, loaded.said, layouts, tested, measured)


@dataclass(frozen=True)
class Extraction:
    """Everything that determines the extraction of one snapshot."""

    url: str
    probe: str
    snapshot: SnapshotInfo
    spec: ModelSpec
    recording: Recording
    described: Described
    images: tuple[str, ...]

    @cached_property
    def images_sha256(self) -> str:
        """sha256 of the probe's images."""
        return str(store.read_attrs(self.probe)["images_sha256"])

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers. An image block is as long as the recording's memory allows, but not longer than the probe's."""
        dtype, maps = self.recording.dtype, self.described.maps
        per_image = sum(u * h * w for u, h, w in maps.values()) * (2 if dtype == "float16" else 4)
        fit = 2 ** (max(1, self.recording.memory // per_image).bit_length() - 1)
        block = min(block_length(len(self.images)), fit)
        layouts = self.described.layouts
        return in_one_snapshot(
            LayerShape(name, (len(self.images), *shape), dtype, block, layout=layouts.get(name, PLAIN))
            for name, shape in maps.items()
        )

    @property
    def nbytes(self) -> int:
        """Raw bytes of all layers."""
        return sum(layer.image_bytes for layer in self.layers) * len(self.images)

    @property
    def blocks(self) -> int:
        """Image blocks, each of which is a task."""
        return -(-len(self.images) // self.layers[0].block)

    @property
    def objects(self) -> int:
        """Objects that the snapshot will be: shards, two for what is small of an image block, metadata and markers."""
        layers, images = self.layers, len(self.images)
        shards = sum(-(-images // layer.shard_images) for layer in layers)
        return shards + 3 * self.blocks + 4 * len(layers) + 5

    def check_budget(self) -> None:
        """Raise if the layers take more bytes than the recording's budget, naming the largest layers."""
        if self.nbytes <= self.recording.budget:
            return
        largest = sorted(self.layers, key=lambda layer: -layer.image_bytes)[:5]
        sizes = ", ".join(f"{la.name} {la.image_bytes * len(self.images) / 2**30:.2f} GiB" for la in largest)
        raise DissectError(
            f"snapshot {self.snapshot.name}: {len(self.layers)} layers take {self.nbytes / 2**30:.2f} GiB raw, the "
            f"budget is {self.recording.budget / 2**30:.2f} GiB; the largest are {sizes}. "
            "Choose fewer layers or raise the budget."
        )

    @property
    def memory(self) -> Projection:
        """The memory of one task, without the process itself (`RESIDENT`)."""
        block = min(self.layers[0].block, len(self.images))
        height, width = self.recording.preprocess.size
        return Projection(
            (
                ("maps of a block", block * sum(layer.image_bytes for layer in self.layers)),
                ("shards being packed", 2 * max(layer.shard_images * layer.image_bytes for layer in self.layers)),
                ("images of two batches", 2 * self.recording.batch * height * width * (3 + 12)),
                ("images of a block", block * height * width * (3 + 12) if self._runs_together else 0),
                ("largest maps of a batch", 3 * self.recording.batch * max(la.image_bytes for la in self.layers) * 2),
            )
        )

    @property
    def _runs_together(self) -> bool:
        """Whether all batches of an image block are in memory together."""
        return self.spec.placement is not None and self.spec.placement.mode == "sequential"

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that determines the activations. It is stored, and compared when a run is resumed."""
        found = {
            "factory": self.spec.factory.rpartition("/")[2],
            "kwargs": json.loads(self.spec.kwargs),
            "weights_sha256": self.described.weights,
            "code_sha256": [source_sha256(self.spec.factory), source_sha256(self.recording.preprocess.callable)],
            "preprocess": self.recording.preprocess.parameters,
            "dtype": self.recording.dtype,
            "autocast": self.recording.autocast,
            "images_sha256": self.images_sha256,
            "layers": {layer.name: [*layer.shape[1:], layer.block] for layer in self.layers},
            "geometry": self.described.geometry,
            "schema_version": SCHEMA_VERSION,
        }
        if layouts := {name: layout.parameters for name, layout in self.described.layouts.items()}:
            found["layouts"] = layouts
        return found | optional_inputs(self.spec, self.recording)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of `inputs`."""
        return store.fingerprint(self.inputs)

    def tasks(self) -> list[ExtractTask]:
        """One task per image block."""
        block, folder = self.layers[0].block, image_folder(self.probe)
        return [
            ExtractTask(
                self.url, self.snapshot.name, self.spec, self.recording.preprocess, self.layers,
                folder.of(self.images[i : i + block]), self.images[i : i + block], i, self.recording.batch,
                self.recording.device, self.recording.threads, self.recording.autocast, self.fingerprint,
                self.described.weights, self.recording.allow_nondeterministic,
            )
            for i in range(0, len(self.images), block)
        ]  # fmt: skip


def prepare_extraction(
    url: store.Url,
    probe: store.Url,
    snapshot: SnapshotInfo,
    spec: ModelSpec,
    recording: Recording,
    *,
    described: Described | None = None,
    pool: Pool | None = None,
) -> Extraction:
    """The extraction of a snapshot from a complete probe. Writes nothing.

    Parameters
    ----------
    described
        What `describe` found out about this model; None loads the model.

    Raises
    ------
    DissectError
        If the probe is not complete, the model cannot be loaded or has no such layer, or the layers exceed the budget.
    """
    url, probe = store.as_url(url), store.as_url(probe)
    if store.marker(probe, "done") is None:
        raise DissectError(
            f"{probe}: the probe is not complete. Run `dissect-xr probe RECIPE` first: it continues where it stopped."
        )
    labelled, seen = stored_crop(store.read_attrs(probe)["parameters"]), recording.preprocess.crop
    if labelled != seen:
        raise DissectError(
            f"{probe}: its labels are of {labelled or 'whole images'}, but the preprocessing gives the model "
            f"{seen or 'whole images'}. Write the probe for this preprocessing (`LabelSet.cropped`), or mend `resize`."
        )
    images = tuple(store.read(probe, "image")[:].tolist())
    if described is None:
        check_pool(spec, pool or Threads())
        ((_, described),) = run_tasks(pool or Threads(), describe, [(spec, recording)], gpu=spec.gpus)
    extraction = Extraction(url, probe, snapshot, spec, recording, described, images)
    extraction.check_budget()
    return extraction


def extract(extraction: Extraction, *, pool: Pool | None = None, show: bool = True) -> None:
    """Write the activations of a snapshot; blocks that are finished are kept.

    Raises
    ------
    DissectError
        If the store holds this snapshot with other inputs, an activation is not finite, a layer's maps change their
        size, or all activations of a layer are too small for the dtype.
    """
    pool, tasks, name = pool or Threads(), extraction.tasks(), extraction.snapshot.name
    check_pool(extraction.spec, pool)
    url, fingerprint = extraction.url, extraction.fingerprint
    check_same(extraction)
    create_root(url, extraction.images)
    marked = store.markers(url, name)
    done = store.marker(url, f"{name}/done", fingerprint=fingerprint)
    if done is not None and marked.issuperset(done["depends_on"]):
        return
    if store.marker(url, f"{name}/created", fingerprint=fingerprint) is None:
        for key in marked:
            if key.count("/") < 2 or not key.endswith("/done"):  # those are of derived layers
                store.marker(url, key, fingerprint=fingerprint)
        written = _create(extraction, keep=bool(marked))
        store.mark(url, f"{name}/created", fingerprint=fingerprint, written=written)
    missing = [task for task in tasks if task.key not in marked]
    with track(f"activations {name}", len(missing), show=show and bool(missing)) as bar:
        for task, _ in run_blocks(pool, extract_block, missing, gpu=extraction.spec.gpus):
            bar.advance(len(task.images))
    noted = ((store.marker(url, task.key) or {"note": {}})["note"] for task in tasks)
    check_levels((note.get("faint", {}) for note in noted), extraction.recording.dtype)
    note = {"layers": [layer.name for layer in extraction.layers], SEAL: seal(url, name)}
    depends_on = [f"{name}/created", *(task.key for task in tasks)]
    store.mark(url, f"{name}/done", fingerprint=fingerprint, written={}, note=note, depends_on=depends_on)


def check_same(extraction: Extraction) -> None:
    """Raise if the store holds this snapshot with other inputs, naming every difference."""
    name = extraction.snapshot.name
    if store.marker(extraction.url, f"{name}/created") is None:
        return
    stored, wanted = store.read_attrs(extraction.url, name)["inputs"], json.loads(json.dumps(extraction.inputs))
    keys = dict.fromkeys([*wanted, *stored])
    differing = [key for key in keys if stored.get(key) != wanted.get(key)]
    changed = [f"{key} was {stored.get(key)!r}, is {wanted.get(key)!r}" for key in differing]
    if changed:
        raise DissectError(
            f"{extraction.url}: holds snapshot {name} made from something else: {'; '.join(changed)}. "
            "Use another output directory or snapshot name, or delete this one."
        )


def _create(extraction: Extraction, *, keep: bool) -> store.Written:
    """Create the groups of the snapshot and of its layers; with `keep` the blocks that exist are kept."""
    name, layers, recording = extraction.snapshot.name, extraction.layers, extraction.recording
    write = store.lay_out if keep else store.create
    attrs = snapshot_attrs(extraction.snapshot) | {
        "inputs": extraction.inputs,
        "batch": recording.batch,
        "weights_said": list(extraction.described.said),
        "request_sha256": request_sha256(extraction.spec, recording, extraction.images_sha256),
    }
    units = sum(layer.shape[1] for layer in layers)
    summaries = summary_specs(len(extraction.images), units, layers[0].block, recording.dtype, "all_units")
    written = write(extraction.url, name, summaries, attrs)
    for layer in layers:
        geometry = extraction.described.geometry[layer.name]
        attrs = {
            "images_sha256": extraction.images_sha256,
            "input_size": list(recording.preprocess.size),
            "geometry": None if isinstance(geometry, str) else geometry,
            "geometry_reason": geometry if isinstance(geometry, str) else None,
        }
        if layer.layout != PLAIN:
            attrs["tensor_layout"] = layer.layout.parameters
        if (tested := extraction.described.impulse.get(layer.name)) is not None:
            attrs["impulse_test"] = tested
        if (measured := extraction.described.measured.get(layer.name)) is not None:
            attrs["geometry_measured"] = measured
        written |= create_layer(extraction.url, layer, extraction.snapshot, attrs, keep=keep)
    return written
