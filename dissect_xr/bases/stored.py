"""Derived layers as they are stored in `activations.zarr`: a matrix and a bias each, beside the recorded layers.

Knows: how a derived layer is laid out, what is finished, and that a snapshot's seal covers it.
Does not know: which matrix belongs to a basis (`basis`, `principal_axes`), or how maps are computed (`derived.maps`).
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.bases.basis import Basis, Linear
from dissect_xr.dissection.layers import Layer, Snapshot
from dissect_xr.errors import DissectError
from dissect_xr.schema import DERIVED, SCHEMA_VERSION, layer_path
from dissect_xr.store.seal import reseal

MATRIX_CHUNK = 2 * 2**20
"""Bytes of a chunk of a matrix at most."""

MEND = "Use another name, or delete the store."


def derived_name(layer: str, basis: Basis) -> str:
    """The name of the layer that is derived from `layer`; raises `DissectError` where it is too long for a folder.

    >>> from dissect_xr.bases.basis import RandomBasis
    >>> derived_name("conv5", RandomBasis(seed=1))
    'conv5@random-s1'
    """
    name = f"{layer}@{basis.label}"
    store.check_name("derived layer", layer_path("", name)[1:])
    return name


def is_there(url: str, snapshot: Snapshot, source: Layer, basis: Basis) -> bool:
    """Whether the layer is there, derived from these activations in this basis.

    Raises
    ------
    DissectError
        Where something else has its name.
    """
    name = derived_name(source.name, basis)
    if name in snapshot.layers:
        raise DissectError(f"{url}: a recorded layer of {snapshot.name} has the name {name} already. {MEND}")
    done = store.marker(url, f"{layer_path(snapshot.name, name)}/done")
    if done is None:
        return False
    was, asked = done["note"]["basis"], basis.parameters
    if was != asked:
        changed = [f"{key} was {was.get(key)!r}, is {asked[key]!r}" for key in asked if was.get(key) != asked[key]]
        raise DissectError(f"{url}: holds {snapshot.name}/{name} in another basis: {'; '.join(changed)}. {MEND}")
    return True


def write(url: str, source: Layer, basis: Basis, linear: Linear) -> None:
    """Write one derived layer, and its marker last."""
    matrix, bias = np.ascontiguousarray(linear.matrix, np.float32), linear.bias.astype(np.float32)
    name = derived_name(source.name, basis)
    path, dtype = layer_path(source.snapshot, name), basis.dtype or source.dtype
    digest = matrix_sha256(matrix, bias)
    attrs = {
        "schema_version": SCHEMA_VERSION,
        "source": source.name,
        "source_sha256": source.fingerprint,
        "basis": basis.parameters,
        "relu": basis.rectified,
        "dtype": dtype,
        "matrix_sha256": digest,
    }
    note = {key: attrs[key] for key in ("source", "source_sha256", "basis", "dtype", "matrix_sha256")}
    arrays, values = _arrays(source, matrix, bias, linear.variance)
    units = store.coordinate("unit", "unit", [f"{name}/{row}" for row in range(len(matrix))])
    created = store.create(url, path, arrays, attrs, [units])
    fingerprint = derived_fingerprint(source.fingerprint, basis.parameters, digest, dtype)
    with store.marked(url, f"{path}/done", fingerprint=fingerprint) as (writer, marked):
        writer.add(created)
        for array, data in zip(arrays, values, strict=True):
            for first in range(0, len(data), array.chunks[0]):
                part = data[first : first + array.chunks[0]]
                writer.write(f"{path}/{array.name}", (first, 0)[: part.ndim], part)
        marked |= note


def _arrays(
    source: Layer, matrix: NDArray[np.float32], bias: NDArray[np.float32], variance: NDArray[np.float64] | None
) -> tuple[list[store.ArraySpec], list[NDArray[Any]]]:
    """The arrays of a derived layer, and their values."""
    given: dict[str, NDArray[Any]] = {"matrix": matrix, "bias": bias}
    if variance is not None:
        given["variance"] = variance
    specs = []
    for name, values in given.items():
        variable = DERIVED[name]
        length = len(values) if values.ndim == 1 else chunk_rows(len(values), source.shape[1])
        chunks = (length, *values.shape[1:])
        specs.append(store.ArraySpec(name, variable.dims, values.shape, variable.dtype, chunks, attrs=variable.attrs))
    return specs, list(given.values())


def chunk_rows(rows: int, units: int) -> int:
    """Rows of a chunk of a matrix."""
    return max(1, min(rows, MATRIX_CHUNK // (4 * units)))


def objects_of(rows: int, units: int, *, variance: bool) -> int:
    """Objects of a derived layer: the group, its arrays with their chunks (names, bias, matrix), and a marker."""
    return 2 + 2 * (2 + variance) + 1 + -(-rows // chunk_rows(rows, units))


def matrix_sha256(matrix: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
    """sha256 of a matrix and its bias as little-endian float32, row by row."""
    digest = hashlib.sha256(repr(matrix.shape).encode())
    for values in (matrix, bias):
        digest.update(np.ascontiguousarray(values, "<f4").data)
    return digest.hexdigest()


def derived_fingerprint(source: str, basis: dict[str, Any], matrix_sha256: str, dtype: str) -> str:
    """sha256 of all that makes a derived layer's activations."""
    return store.fingerprint({"source": source, "basis": basis, "matrix_sha256": matrix_sha256, "dtype": dtype})


def seal_derived(url: str, snapshot: str) -> None:
    """Let the seal and the marker of a finished snapshot cover its derived layers, unless they do already."""
    done = store.marker(url, f"{snapshot}/done")
    derived = {key for key in store.markers(url, snapshot) if key.endswith("/done")} - {f"{snapshot}/done"}
    if done is not None and not derived <= set(done["depends_on"]):
        reseal(url, snapshot, derived)
