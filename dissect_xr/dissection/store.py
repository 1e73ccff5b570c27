"""`dissection.zarr`: how it is laid out, what is finished in it, and how counts are written into it.

Knows: which arrays stand at the root, in a snapshot and in a layer, which markers say what is finished.
Does not know: how a threshold or a count is computed.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection.cut import count_chunk_units
from dissect_xr.dissection.labels import ProbeLabels
from dissect_xr.dissection.layers import Layer, Snapshot
from dissect_xr.dissection.method import Method
from dissect_xr.dissection.thresholds import LayerThresholds
from dissect_xr.errors import DissectError
from dissect_xr.schema import DISSECTION, DRAWN_BY, PER_UNIT, SCHEMA_VERSION, layer_of, to_json
from dissect_xr.store.seal import SEAL, seal

CONCEPT_CHUNK = 2048
"""Concepts in a chunk of `intersection` at most."""

CONCEPT_COORDINATES = ("concept", "concept_name", "concept_category", "concept_domain", "parent")

ROOT_COORDINATES = ("category", "domain")

ROOT_OBJECTS = 2 + 2 * (len(CONCEPT_COORDINATES) + 1 + len(ROOT_COORDINATES) + len(DISSECTION) - len(PER_UNIT))
"""Objects at the root: its metadata and marker, and each array with its metadata."""

MEND = "Use another output directory, or delete this one."


def check_root(out: str, probe: str, method: Method) -> bool:
    """Whether the store is there, made with the probe of this fingerprint by this method.

    Raises
    ------
    DissectError
        Where it was made with another probe or by other parameters; the message lists every difference.
    """
    inputs = method.inputs(probe)
    created = store.marker(out, "created")
    if created is not None and created["fingerprint"] != store.fingerprint(inputs):
        stored = store.read_attrs(out)
        changed = [
            f"{key} was {stored.get(key)!r}, is {inputs[key]!r}" for key in inputs if stored.get(key) != inputs[key]
        ]
        raise DissectError(f"{out}: holds a dissection from other inputs or parameters: {'; '.join(changed)}. {MEND}")
    return created is not None


def create_root(out: str, labels: ProbeLabels, method: Method) -> None:
    """Create the store with what all layers share, unless it is there; raises as `check_root` does."""
    inputs = method.inputs(labels.fingerprint)
    if check_root(out, labels.fingerprint, method):
        return
    there = store.read_attrs(labels.url)["coordinates"].split()
    drawn_by = [name for name in DRAWN_BY if name in there]
    of_concepts = (*CONCEPT_COORDINATES, *drawn_by)
    coordinates = [
        store.coordinate("fraction", "fraction", np.array(method.fractions)),
        *(store.coordinate(name, "concept", store.read(labels.url, name)[:]) for name in of_concepts),
        *(store.coordinate(name, name, store.read(labels.url, name)[:]) for name in ROOT_COORDINATES),
    ]
    arrays = []
    for name in sorted(set(DISSECTION) - set(PER_UNIT)):
        variable, values = DISSECTION[name], store.read(labels.url, name)[:]
        arrays.append(
            (
                store.ArraySpec(name, variable.dims, values.shape, variable.dtype, values.shape, attrs=variable.attrs),
                values,
            )
        )
    lay_out = store.lay_out if store.markers(out) else store.create
    attrs = inputs | {"coordinates": " ".join(of_concepts[1:])}
    fingerprint = store.fingerprint(inputs)
    store.mark(out, "created", fingerprint=fingerprint, written=lay_out(out, "", [], attrs, [*arrays, *coordinates]))


@dataclass(frozen=True)
class LayerToDissect:
    """A layer whose dissection is not finished."""

    out: str
    layer: Layer
    labels: ProbeLabels
    method: Method
    position: int
    """in the model"""

    def by_cells(self, too_high: int) -> "LayerToDissect":
        """The same, read by all its cells, since the bounds of so many units are too high."""
        return replace(self, layer=self.layer.by_cells(too_high))

    @property
    def path(self) -> str:
        """Path of its group, in the store of activations and in that of the dissection."""
        return self.layer.path

    @property
    def fingerprint(self) -> str:
        """sha256 of all that makes its dissection."""
        return dissection_fingerprint(self.layer.fingerprint, self.labels.fingerprint, self.method)

    @property
    def anchoring(self) -> str:
        """The anchoring that is used."""
        return self.layer.anchored(self.method.anchoring)[0]

    @property
    def summary(self) -> dict[str, Any]:
        """What the marker of the finished layer says about it, so that opening a store reads few objects."""
        units, concepts = self.layer.shape[1], self.labels.concepts.size
        anchoring, reason = self.layer.anchored(self.method.anchoring)
        more: dict[str, Any] = {}
        if (derivation := self.layer.derivation) is not None:
            more["derived"] = derivation.stored | {"dtype": self.layer.dtype}
        if self.layer.too_high is not None:
            more["bounds_too_high"] = self.layer.too_high
        return {
            "activations_sha256": self.layer.fingerprint,
            "anchoring_reason": reason,
            "anchoring_used": anchoring,
            "chunks": [min(units, self.unit_chunk), min(concepts, CONCEPT_CHUNK)],
            "position": self.position,
            "root_sha256": store.fingerprint(self.method.inputs(self.labels.fingerprint)),
            "units": units,
        } | more

    @property
    def unit_chunk(self) -> int:
        """Units of a chunk of counts."""
        return count_chunk_units(self.layer, self.labels.unit_bytes(len(self.method.fractions)))

    @property
    def objects(self) -> int:
        """Objects that the dissection of a small layer will be; a large one has a few markers more."""
        chunks = -(-self.layer.shape[1] // self.unit_chunk)
        concepts = -(-self.labels.concepts.size // CONCEPT_CHUNK)
        return 1 + len(PER_UNIT) + 2 + chunks * (len(PER_UNIT) - 1 + concepts) + 1

    def create(self, values: Mapping[str, NDArray[Any]] | None = None) -> store.Written:
        """Create the layer's group with its arrays, keeping counts that are there; the objects of the group.

        `values` of arrays that are known already are written with them, which takes a third of the time.
        """
        units = self.layer.shape[1]
        sizes = {
            "fraction": (len(self.method.fractions),) * 2,
            "unit": (units, min(units, self.unit_chunk)),
            "concept": (self.labels.concepts.size, min(self.labels.concepts.size, CONCEPT_CHUNK)),
            "domain": (self.labels.domains,) * 2,
        }
        arrays = []
        for variable in (DISSECTION[name] for name in PER_UNIT):
            shape, chunks = zip(*(sizes[dim] for dim in variable.dims), strict=True)
            arrays.append(
                store.ArraySpec(variable.name, variable.dims, shape, variable.dtype, chunks, attrs=variable.attrs)
            )
        names = [f"{self.layer.name}/{channel}" for channel in range(units)]
        lay_out = store.lay_out if store.markers(self.out, self.path) else store.create
        attrs = {name: value for name, value in self.summary.items() if name not in ("chunks", "root_sha256", "units")}
        attrs["schema_version"] = SCHEMA_VERSION
        known = values or {}
        given = [(spec, known[spec.name]) for spec in arrays if spec.name in known]
        missing = [spec for spec in arrays if spec.name not in known]
        coordinates = [store.coordinate("unit", "unit", names), *given]
        return _below(self.path, lay_out(self.out, self.path, missing, attrs, coordinates))


def _below(path: str, written: store.Written) -> store.Written:
    """The objects of a group; those above it have markers of their own, and damage of theirs must not cost it."""
    return {key: pair for key, pair in written.items() if key.startswith(f"{path}/")}


def dissection_fingerprint(activations: str, probe: str, method: Method) -> str:
    """sha256 of all that makes a layer's dissection: fingerprints of its activations and of the probe, parameters."""
    return store.fingerprint(method.inputs(probe) | {"activations_sha256": activations})


def is_dissected(out: str, path: str, activations: str, probe: str, method: Method, keys: Collection[str]) -> bool:
    """Whether the layer `path` is dissected from activations and a probe of these fingerprints.

    `keys` are those of the snapshot's markers.

    Raises
    ------
    DissectError
        Where it was dissected, or begun, from other activations.
    """
    wanted = dissection_fingerprint(activations, probe, method)
    for kind in ("done", "created"):
        if f"{path}/{kind}" in keys and (marker := store.marker(out, f"{path}/{kind}")) is not None:
            if marker["fingerprint"] != wanted:
                was = store.read_attrs(out, path).get("activations_sha256")
                raise DissectError(
                    f"{out}: holds {path} dissected from other inputs: activations_sha256 was {was!r}, is "
                    f"{activations!r}. {MEND}"
                )
            return kind == "done"
    return False


def begin_snapshot(out: str, snapshot: Snapshot, layers: Iterable[str]) -> None:
    """Create a snapshot's group unless it is there, and note that these layers are being dissected."""
    key = f"{snapshot.name}/created"
    created = store.marker(out, key)
    begun = set(created["note"]["layers"] if created else ())
    if created is None or not begun.issuperset(layers):
        attrs = {"step": snapshot.step, "metrics": to_json(snapshot.metrics), "schema_version": SCHEMA_VERSION}
        written = _below(snapshot.name, store.lay_out(out, snapshot.name, [], attrs))
        fingerprint = store.fingerprint({"snapshot": snapshot.name})
        store.mark(out, key, fingerprint=fingerprint, written=written, note={"layers": sorted(begun | set(layers))})
    store.unmark(out, f"{snapshot.name}/done")


def finish_snapshot(out: str, snapshot: Snapshot) -> None:
    """Mark a snapshot whose layers are dissected; the marker says what opening the store needs to know of them."""
    keys = store.markers(out, snapshot.name) - {f"{snapshot.name}/done"}
    layers = {layer_of(key): store.marker(out, key) for key in keys if key.endswith("/done")}
    summaries = {name: done["note"] for name, done in layers.items() if done is not None}
    store.mark(
        out,
        f"{snapshot.name}/done",
        fingerprint=store.fingerprint({name: done["fingerprint"] for name, done in layers.items() if done is not None}),
        written={},
        note={
            "layers": dict(sorted(summaries.items(), key=lambda item: (item[1]["position"], item[0]))),
            "metrics": to_json(snapshot.metrics),
            "request_sha256": snapshot.request_sha256 if summaries.keys() >= snapshot.layers.keys() else None,
            SEAL: seal(out, snapshot.name),
            "step": snapshot.step,
        },
        depends_on=keys,
    )


def done_units(wanted: LayerToDissect) -> set[int]:
    """Units of a layer whose counts are marked, whatever the unit blocks they were counted in."""
    prefix = f"{wanted.path}/counts/"
    done = set[int]()
    for key in store.markers(wanted.out, prefix):
        store.marker(wanted.out, key, fingerprint=wanted.fingerprint)
        first, last = key[len(prefix) :].split("-")
        done |= set(range(int(first), int(last)))
    return done


def threshold_arrays(found: LayerThresholds) -> dict[str, NDArray[Any]]:
    """Thresholds under the names that they are stored by, each (fraction, unit)."""
    return {"threshold": found.threshold, "exceedance": found.exceedance}


def count_arrays(intersection: NDArray[np.int64], unit_area: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Counts (fraction, unit, concept) and (fraction, unit, domain + 1) under the names that they are stored by."""
    return {
        "intersection": intersection,
        "unit_area": unit_area[:, :, :-1],
        "dead": unit_area[:, :, -1] == 0,
    }


@dataclass(frozen=True)
class StoreCounts:
    """`Fold.finish` of a count: writes the counts of a unit block, and marks them."""

    out: str
    path: str
    fingerprint: str

    @property
    def what(self) -> str:
        """What the task does, for messages."""
        return f"counts of {self.path}"

    def __call__(self, units: tuple[int, int], counts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
        """Write the merged counts of units [first, last), unless a worker that died since has done so."""
        key = f"{self.path}/counts/{units[0]}-{units[1]}"
        if store.marker(self.out, key, fingerprint=self.fingerprint) is not None:
            return
        with store.marked(self.out, key, fingerprint=self.fingerprint) as (writer, _):
            for name, values in count_arrays(*counts).items():
                writer.write(f"{self.path}/{name}", (0, units[0], 0)[: values.ndim], values)
