"""What a run does about derived layers: it writes their matrices, and tells which are dissected already.

Knows: that a matrix is written beside activations that are complete, and what a dissection keeps of it.
Does not know: the other stages of a run (`run`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dissect_xr import store
from dissect_xr.bases.stored import derived_fingerprint
from dissect_xr.schema import layer_path

if TYPE_CHECKING:
    from dissect_xr.cli.run import Run


def write_derived(run: "Run", snapshot: str) -> None:
    """Write the matrices of a snapshot's derived layers that are missing."""
    from dissect_xr.bases.derive import derive

    mine = run.derived_of(snapshot)
    for layer in dict.fromkeys(one.layer for one in mine):
        bases = [one.basis for one in mine if one.layer == layer]
        derive(run.activations_url, layer, bases, snapshots=[snapshot], pool=run.pool, show=run.show)


def derived_as_asked(run: "Run", snapshot: str, layers: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether `layers`, as the marker of a finished snapshot lists them, hold all that the recipe derives.

    A matrix is not compared but for its basis: of principal axes it is not known without the activations.
    """
    return all(
        layers.get(one.name, {}).get("derived", {}).get("basis") == one.basis.parameters
        for one in run.derived_of(snapshot)
    )


def dissected_fingerprints(run: "Run", snapshot: str, recorded: Mapping[str, str]) -> dict[str, str] | None:
    """Derived layer -> the fingerprint that it must have, with the matrix that was dissected; None where one was not.

    Parameters
    ----------
    recorded
        Recorded layer -> fingerprint of its activations.
    """
    found = {}
    for one in run.derived_of(snapshot):
        done = store.marker(run.dissection_url, f"{layer_path(snapshot, one.name)}/done")
        if done is None or one.layer not in recorded:
            return None
        derived = done["note"]["derived"]
        found[one.name] = derived_fingerprint(
            recorded[one.layer], one.basis.parameters, derived["matrix_sha256"], derived["dtype"]
        )
    return found
