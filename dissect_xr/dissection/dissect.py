"""The dissection of a whole store: runs both passes on the activations and the probe and writes `dissection.zarr`.

Knows: what is finished already, which parameters make a result, what is written when.
Does not know: how activations were made, or any score: scores are derived when the store is opened.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dissect_xr import store
from dissect_xr.dissection.counts import DOMAINS, Counts, Domain
from dissect_xr.dissection.cut import count_chunk_units
from dissect_xr.dissection.interpolation import Anchoring
from dissect_xr.dissection.labels import ProbeLabels, open_labels
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.dissection.passes import LayerToCount, count, count_blocks, find_thresholds
from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.parallel.progress import track
from dissect_xr.parallel.retry import kept_failures
from dissect_xr.schema import DISSECTION, FRACTION, SCHEMA_VERSION

CONCEPT_CHUNK = 2048
"""Concepts in a chunk of `intersection` at most."""


@dataclass(frozen=True)
class Method:
    """The parameters of a dissection (docs/method.md, sections 1 and 2)."""

    fractions: tuple[float, ...] = (FRACTION,)
    """shares of a unit's activations above its threshold, each in the open interval (0, 1)"""
    anchoring: Anchoring = "receptive_field"
    """where the cells of a map lie on the image; layers of unknown geometry are anchored `half_pixel`"""
    domain: Domain = "annotated"
    """the images whose active pixels are counted into `unit_area`"""

    def __post_init__(self) -> None:
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise DissectError(f"fraction {fraction} is not between 0 and 1; the usual one is {FRACTION}.")
        if not self.fractions or len(set(self.fractions)) < len(self.fractions):
            raise DissectError(f"fractions must be distinct and at least one, got {list(self.fractions)}.")
        if self.anchoring not in ("receptive_field", "half_pixel"):
            raise DissectError(f"anchoring '{self.anchoring}': expected receptive_field or half_pixel.")
        if self.domain not in DOMAINS:
            raise DissectError(f"domain '{self.domain}': expected one of {', '.join(DOMAINS)}.")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters, as they are stored in attributes."""
        return asdict(self) | {"fractions": list(self.fractions), "schema_version": SCHEMA_VERSION}

    def inputs(self, activations: str, probe: str) -> dict[str, Any]:
        """All that makes one layer's dissection, as stored: the fingerprints of both inputs and the parameters."""
        return {"activations_sha256": activations, "probe_sha256": probe} | self.parameters


@dataclass(frozen=True)
class _LayerToDissect:
    """A layer whose dissection is not finished."""

    layer: Layer
    attrs: dict[str, Any]
    """attributes of its group, parameters and inputs among them"""
    fingerprint: str


def dissect(
    activations: str,
    probe: str,
    out: str,
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
        Whether to draw a progress bar per stage.

    Raises
    ------
    DissectError
        Where the stores do not belong together or are incomplete, or `out` holds a dissection of something else.

    References
    ----------
    Bau et al. 2017, Network Dissection, section 2.2 and 2.3.
    """
    method, pool = method or Method(), pool or Threads()
    labels = open_labels(probe)
    pairs = list(only) if only is not None else complete_pairs(activations)
    if not pairs:
        raise DissectError(f"{activations}: holds no complete layer. Run `dissect-xr extract` first.")
    failures: list[Failed] = []
    for snapshot in dict.fromkeys(name for name, _ in pairs):
        layers = [open_layer(activations, snapshot, name) for s, name in pairs if s == snapshot]
        jobs = [job for layer in layers if (job := _prepare(layer, labels, out, method)) is not None]
        with kept_failures(failures):
            _thresholds(jobs, out, method, pool, show)
        ready = [job for job in jobs if store.marker(out, f"{job.layer.path}/threshold") is not None]
        with kept_failures(failures):
            _counts(ready, out, labels, method, pool, show)
        for job in ready:
            _finish(job, out)
    if failures:
        raise BlocksFailed(failures)


def _finish(job: _LayerToDissect, out: str) -> None:
    """Mark the layer as done if all its units are counted."""
    path, units = job.layer.path, job.layer.shape[1]
    if _done_units(out, job).issuperset(range(units)):
        depends_on = store.markers(out, path) - {f"{path}/done"}
        store.mark(out, f"{path}/done", fingerprint=job.fingerprint, written={}, depends_on=depends_on)


def complete_pairs(url: str) -> list[tuple[str, str]]:
    """The (snapshot, layer) pairs that a store of activations or results holds completely, by step and position."""
    pairs = [tuple(key.split("/")[:2]) for key in store.markers(url) if key.endswith("/done") and key.count("/") == 2]
    order = {}
    for snapshot, layer in pairs:
        attrs = store.read_attrs(url, f"{snapshot}/{layer}")
        order[snapshot, layer] = (attrs["step"], snapshot, attrs["position"])
    return sorted(order, key=lambda pair: order[pair])


def _prepare(layer: Layer, labels: ProbeLabels, out: str, method: Method) -> _LayerToDissect | None:
    """What is to be done for the layer, whose group in `out` is created where it is missing; None where it is done."""
    source = store.read_attrs(layer.url, layer.path)
    _check_images(layer, labels, source["images_sha256"])
    anchoring, reason = layer.anchored(method.anchoring)
    inputs = method.inputs(layer.fingerprint, labels.fingerprint)
    if is_dissected(out, layer.path, inputs):
        return None
    attrs = {name: source[name] for name in ("step", "position", "metrics")} | inputs
    attrs |= {"anchoring_used": anchoring, "anchoring_reason": reason}
    attrs["coordinates"] = "layer channel concept_name concept_category"
    job = _LayerToDissect(layer, attrs, store.fingerprint(inputs))
    if store.marker(out, f"{layer.path}/created", fingerprint=job.fingerprint) is None:
        _create(job, labels, out)
    return job


def is_dissected(out: str, path: str, inputs: dict[str, Any]) -> bool:
    """Whether `out` holds the finished dissection of layer `path` made from `inputs` (`Method.inputs`).

    Raises
    ------
    DissectError
        Where it holds a dissection from other inputs; the message lists every difference.
    """
    if store.marker(out, f"{path}/created") is None:
        return False
    stored = store.read_attrs(out, path)
    changed = [f"{key} was {stored.get(key)!r}, is {new!r}" for key, new in inputs.items() if stored.get(key) != new]
    if changed:
        raise DissectError(
            f"{out}: holds {path} dissected from other inputs or parameters: {'; '.join(changed)}. "
            "Use another output directory, or delete this one."
        )
    return store.marker(out, f"{path}/done", fingerprint=store.fingerprint(inputs)) is not None


def _check_images(layer: Layer, labels: ProbeLabels, images_sha256: str | None) -> None:
    """Raise unless the activations are of the probe's images: names must agree, and pixels where both are known."""
    mend = f"Extract them again for {labels.url}, or dissect with the probe they were made for."
    if layer.shape[0] != labels.shape[0]:
        raise DissectError(
            f"{layer.path}: its activations are of {layer.shape[0]} images, the probe has {labels.shape[0]}. {mend}"
        )
    names, probe_names = store.read(layer.url, f"{layer.path}/image")[:], store.read(labels.url, "image")[:]
    if len(differ := np.flatnonzero(names != probe_names)):
        n = differ[0]
        raise DissectError(
            f"{layer.path}: its activations are of other images than the probe's: number {n} is '{names[n]}', "
            f"in the probe '{probe_names[n]}', {len(differ)} differ in all. {mend}"
        )
    if images_sha256 not in (None, labels.images_sha256):
        raise DissectError(f"{layer.path}: its images have the probe's names, but other pixels. {mend}")


def _create(job: _LayerToDissect, labels: ProbeLabels, out: str) -> None:
    """Create the group of one layer with its coordinates and the concepts' areas, and mark it as created."""
    layer, units = job.layer, job.layer.shape[1]
    sizes = {
        "fraction": (len(job.attrs["fractions"]),) * 2,
        "unit": (units, min(units, count_chunk_units(layer, labels.unit_bytes(len(job.attrs["fractions"]))))),
        "concept": (labels.concepts.size, min(labels.concepts.size, CONCEPT_CHUNK)),
        "category": (len(labels.categories),) * 2,
    }
    arrays = []
    for variable in DISSECTION.values():
        shape, chunks = zip(*(sizes[dim] for dim in variable.dims), strict=True)
        arrays.append(
            store.ArraySpec(variable.name, variable.dims, shape, variable.dtype, chunks, attrs=variable.attrs)
        )
    coordinates = [
        store.coordinate("fraction", "fraction", np.array(job.attrs["fractions"])),
        store.coordinate("unit", "unit", [f"{layer.name}/{channel}" for channel in range(units)]),
        store.coordinate("layer", "unit", [layer.name] * units),
        store.coordinate("channel", "unit", np.arange(units)),
    ]
    for name, dim in (("concept",) * 2, ("concept_name", "concept"), ("concept_category", "concept")):
        coordinates.append(store.coordinate(name, dim, store.read(labels.url, name)[:]))
    coordinates.append(store.coordinate("category", "category", labels.categories))
    write = store.lay_out if store.markers(out, layer.path) else store.create
    objects = write(out, layer.path, arrays, job.attrs, coordinates)
    with store.marked(out, f"{layer.path}/created", fingerprint=job.fingerprint) as (writer, _):
        for name in ("concept_area", "category_area"):
            values = store.read(labels.url, name)[:]
            step = sizes[DISSECTION[name].dims[0]][1]
            for first in range(0, values.size, step):
                writer.write(f"{layer.path}/{name}", (first,), values[first : first + step])
        writer.add(objects)


def _thresholds(jobs: Sequence[_LayerToDissect], out: str, method: Method, pool: Pool, show: bool) -> None:
    """Run pass 1 for the layers that lack thresholds; each layer is written and marked by itself."""
    todo = [j for j in jobs if store.marker(out, f"{j.layer.path}/threshold", fingerprint=j.fingerprint) is None]
    if not todo:
        return
    layers = [job.layer for job in todo]
    with track(f"thresholds {layers[0].snapshot}", show=show) as bar:
        failures: list[Failed] = []
        try:
            levels = find_thresholds(pool, layers, method.fractions, bar)
        except BlocksFailed:
            # Layer by layer, so that the layers without a failing block finish.
            levels = {}
            for layer in layers:
                with kept_failures(failures):
                    levels |= find_thresholds(pool, [layer], method.fractions, bar)
    for job in (job for job in todo if job.layer.name in levels):
        level, path = levels[job.layer.name], job.layer.path
        with store.marked(out, f"{path}/threshold", fingerprint=job.fingerprint) as (writer, _):
            writer.write(f"{path}/threshold", (0, 0), level.threshold)
            writer.write(f"{path}/exceedance", (0, 0), level.exceedance)
    if failures:
        raise BlocksFailed(failures)


def _counts(
    jobs: Sequence[_LayerToDissect], out: str, labels: ProbeLabels, method: Method, pool: Pool, show: bool
) -> None:
    """Run pass 2 for the unit blocks that lack counts; each is written by the task that merges its last counts."""
    counting = []
    for job in jobs:
        done = _done_units(out, job)
        blocks = count_blocks(job.layer, labels, len(method.fractions), pool)
        todo = [b for b in blocks if not done.issuperset(range(*b[0].units))]
        threshold = store.read(out, f"{job.layer.path}/threshold")[:]
        counting.append(LayerToCount(job.layer, threshold, job.attrs["anchoring_used"], method.domain, todo))
    tasks = sum(len(blocks) for job in counting for blocks in job.blocks)
    if not tasks:
        return
    fingerprints = {job.layer.path: job.fingerprint for job in jobs}
    with track(f"counts {jobs[0].layer.snapshot}", tasks, show=show) as bar:
        count(
            pool,
            counting,
            labels,
            lambda job: StoreCounts(out, job.layer.path, fingerprints[job.layer.path]),
            bar,
        )


def _done_units(out: str, job: _LayerToDissect) -> set[int]:
    """Units whose counts are stored, whichever unit blocks they were counted in."""
    prefix = f"{job.layer.path}/counts/"
    done = set[int]()
    for key in store.markers(out, prefix):
        store.marker(out, key, fingerprint=job.fingerprint)
        first, last = key[len(prefix) :].split("-")
        done |= set(range(int(first), int(last)))
    return done


@dataclass(frozen=True)
class StoreCounts:
    """What pass 2 does with the merged counts of a unit block (`Fold.finish`): writes and marks them."""

    out: str
    path: str
    fingerprint: str

    @property
    def what(self) -> str:
        """What it does, for messages."""
        return f"counts of {self.path}"

    def __call__(self, units: tuple[int, int], counts: Counts) -> None:
        """Write the counts of units [first, last), unless another worker, lost since, has done so already."""
        intersection, unit_area = counts
        first = units[0]
        key = f"{self.path}/counts/{first}-{units[1]}"
        if store.marker(self.out, key, fingerprint=self.fingerprint) is not None:
            return
        with store.marked(self.out, key, fingerprint=self.fingerprint) as (writer, _):
            writer.write(f"{self.path}/intersection", (0, first, 0), intersection)
            writer.write(f"{self.path}/unit_area", (0, first, 0), unit_area[:, :, :-1])
            writer.write(f"{self.path}/dead", (0, first), unit_area[:, :, -1] == 0)
