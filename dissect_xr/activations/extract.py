"""The extraction of one snapshot: its layers and image blocks, its memory and size, which blocks are still missing.

Knows: the layers of a model (`sources`, `taps`, `tracing`), the probe's images, the markers of finished blocks.
Does not know: how the activations of a block are computed (`recording`).
"""

import json
from collections.abc import Mapping
from functools import partial
from itertools import tee
from typing import Any

import torch

from dissect_xr import store
from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder, Found
from dissect_xr.activations.layouts.layout import PLAIN
from dissect_xr.activations.layouts.positions import Place, Positions
from dissect_xr.activations.placement.empty import empty_model
from dissect_xr.activations.recording.block import extract_block
from dissect_xr.activations.recording.bounds import Bounds
from dissect_xr.activations.recording.extraction import Described, Extraction
from dissect_xr.activations.recording.kept import (
    check_kept,
    choose_bounds,
    create_tails,
    stored_layers,
    tail_attrs,
    with_bounds,
)
from dissect_xr.activations.recording.levels import check_coarse, check_levels
from dissect_xr.activations.recording.threads import autocast
from dissect_xr.activations.references import source_sha256
from dissect_xr.activations.repeats import check_repeats
from dissect_xr.activations.request import ModelSpec, Recording, SnapshotInfo, request_sha256
from dissect_xr.activations.sources import Loaded, cached, check_pool, device_of, seeded
from dissect_xr.activations.store import (
    check_layer_names,
    create_layer,
    create_root,
    snapshot_attrs,
    summary_specs,
)
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks, run_tasks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.crop import stored_crop
from dissect_xr.store.seal import SEAL, seal

KEPT_PLACES = 16
"""Architectures of which a process keeps where the cells of their layers lie."""

_KNOWN_PLACES: dict[tuple[Any, ...], dict[str, Place]] = {}


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
        return _described(spec, loaded, twin, recording, device)


def _described(spec: ModelSpec, loaded: Loaded, twin: torch.nn.Module, recording: Recording, device: str) -> Described:
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
    places = _places(spec, Positions(finder, known), found)
    geometry = {name: place.attrs for name, place in places.items()}
    measured = {name: place.measured for name, place in places.items() if place.measured is not None}
    tested = {name: one.tested for name, one in found.items() if one.tested is not None}
    return Described(maps, geometry, loaded.sha256, loaded.said, layouts, tested, measured)


def _places(spec: ModelSpec, positions: Positions, found: Mapping[str, Found]) -> dict[str, Place]:
    """Where the cells of the layers lie, which belongs to the architecture: found once in a process, for all weights.

    To measure them takes a minute of a core for a model of windows that cannot be traced.
    """
    if spec.live is not None:
        return positions.of(found)
    model = spec.factory, spec.kwargs, str(source_sha256(spec.factory)), positions.finder.size
    key = *model, *((name, one.shape, repr(one.layout)) for name, one in found.items())
    if key not in _KNOWN_PLACES:
        while len(_KNOWN_PLACES) >= KEPT_PLACES:
            _KNOWN_PLACES.pop(next(iter(_KNOWN_PLACES)))
        _KNOWN_PLACES[key] = positions.of(found)
    return _KNOWN_PLACES[key]


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
        size, or all activations of a layer are too small or too close together for the dtype.
    """
    pool, name = pool or Threads(), extraction.snapshot.name
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
        written = _create(extraction, choose_bounds(extraction, pool, show=show), keep=bool(marked))
        store.mark(url, f"{name}/created", fingerprint=fingerprint, written=written)
    tasks = extraction.tasks(stored_layers(extraction))
    missing = [task for task in tasks if task.key not in marked]
    with track(f"activations {name}", len(missing), show=show and bool(missing)) as bar:
        for task, _ in run_blocks(pool, extract_block, missing, gpu=extraction.spec.gpus):
            bar.advance(len(task.images))
    noted = ((store.marker(url, task.key) or {"note": {}})["note"] for task in tasks)
    faint, coarse = tee(noted)
    check_levels((note.get("faint", {}) for note in faint), extraction.recording.dtype)
    check_coarse((note.get("coarse", {}) for note in coarse), extraction.recording.dtype)
    note = {"layers": [layer.name for layer in extraction.layers], SEAL: seal(url, name)}
    depends_on = [f"{name}/created", *(task.key for task in tasks)]
    store.mark(url, f"{name}/done", fingerprint=fingerprint, written={}, note=note, depends_on=depends_on)


def check_same(extraction: Extraction) -> None:
    """Raise if the store holds this snapshot with other inputs, naming every difference."""
    name = extraction.snapshot.name
    if store.marker(extraction.url, f"{name}/created") is None:
        return
    attrs, wanted = store.read_attrs(extraction.url, name), json.loads(json.dumps(extraction.inputs))
    stored = attrs["inputs"]
    keys = dict.fromkeys([*wanted, *stored])
    differing = [key for key in keys if stored.get(key) != wanted.get(key)]
    changed = [f"{key} was {stored.get(key)!r}, is {wanted.get(key)!r}" for key in differing]
    if changed:
        raise DissectError(
            f"{extraction.url}: holds snapshot {name} made from something else: {'; '.join(changed)}. "
            "Use another output directory or snapshot name, or delete this one."
        )
    check_kept(extraction, attrs)


def _create(extraction: Extraction, bounds: Bounds | None, *, keep: bool) -> store.Written:
    """Create the groups of the snapshot and of its layers; with `keep` the blocks that exist are kept."""
    name, layers, recording = extraction.snapshot.name, with_bounds(extraction, bounds), extraction.recording
    write = store.lay_out if keep else store.create
    attrs = snapshot_attrs(extraction.snapshot) | {
        "inputs": extraction.inputs,
        "batch": recording.batch,
        "weights_said": list(extraction.described.said),
        "request_sha256": request_sha256(extraction.spec, recording, extraction.images_sha256),
    }
    attrs |= tail_attrs(extraction, bounds)
    units = sum(layer.shape[1] for layer in layers)
    summaries = summary_specs(len(extraction.images), units, layers[0].block, recording.dtype, "all_units")
    written = write(extraction.url, name, summaries, attrs)
    if bounds is not None:
        written |= create_tails(extraction.url, name, layers, bounds, keep=keep)
    for number, layer in enumerate(layers):
        geometry = extraction.described.geometry[layer.name]
        attrs = {
            "images_sha256": extraction.images_sha256,
            "input_size": list(recording.preprocess.size),
            "geometry": None if isinstance(geometry, str) else geometry,
            "geometry_reason": geometry if isinstance(geometry, str) else None,
        }
        if layer.has_tail:
            attrs["tail"] = layer.tail(number, recording.sampling.fraction)
        if layer.layout != PLAIN:
            attrs["tensor_layout"] = layer.layout.parameters
        if (tested := extraction.described.impulse.get(layer.name)) is not None:
            attrs["impulse_test"] = tested
        if (measured := extraction.described.measured.get(layer.name)) is not None:
            attrs["geometry_measured"] = measured
        written |= create_layer(extraction.url, layer, extraction.snapshot, attrs, keep=keep)
    return written
