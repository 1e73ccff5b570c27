"""The share of a unit's active cells that stand out by their norm, against a loop over all cells."""

from pathlib import Path

import numpy as np
import pytest

from dissect_xr.activations.write import write_activations
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.errors import DissectError
from dissect_xr.experiments import artefacts
from dissect_xr.experiments.artefacts import artefact_share
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.readers.broden import read_broden

IMAGES, UNITS, CELLS = 20, 5, 6
METHOD = Method((0.02, 0.1), anchoring="half_pixel")


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Whole numbers; in cell (1, 2) of images 0 to 4 all units but the last are far above the rest."""
    values = np.random.default_rng(0).integers(0, 20, (IMAGES, UNITS, CELLS, CELLS)).astype(np.float32)
    values[:5, :4, 1, 2] = 100
    values[:, 4] = 0
    return values


@pytest.fixture(scope="module")
def run(maps: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> RunStores:
    out = tmp_path_factory.mktemp("artefacts")
    write_digits(out / "digits", images=IMAGES, size=64)
    stores = RunStores.of(out)
    write_probe(read_broden(out / "digits"), stores.probe, show=False)
    names = open_probe(stores.probe)["image"].values.tolist()
    write_activations(stores.activations, {"block": maps}, images=names, snapshot="one", dtype="float32", show=False)
    dissect(stores.activations, stores.probe, stores.dissection, method=METHOD, show=False)
    return stores


def by_hand(maps: np.ndarray, fraction: float, top: float) -> tuple[list[int], list[int]]:
    cells = list(np.ndindex(IMAGES, CELLS, CELLS))
    norms = sorted((float(np.sqrt((maps[i, :, y, x] ** 2).sum())) for i, y, x in cells), reverse=True)
    level = norms[int(top * len(norms))]
    active, high = [0] * UNITS, [0] * UNITS
    for unit in range(UNITS):
        values = sorted(maps[:, unit].ravel().tolist(), reverse=True)
        threshold = values[int(fraction * len(values))]
        for i, y, x in cells:
            if maps[i, unit, y, x] > threshold:
                active[unit] += 1
                high[unit] += float(np.sqrt((maps[i, :, y, x] ** 2).sum())) > level
    return active, high


@pytest.mark.parametrize(("fraction", "top"), [(None, 0.02), (0.1, 0.02), (0.02, 0.3)])
@pytest.mark.parametrize("block", [1, 10**9])
def test_shares_are_those_of_a_loop_over_all_cells(run, maps, monkeypatch, fraction, top, block):
    monkeypatch.setattr(artefacts, "BLOCK", block)
    found = artefact_share(run, "one", "block", fraction=fraction, top=top)
    active, high = by_hand(maps, fraction or 0.02, top)
    assert found["active_cells"].values.tolist() == active
    assert found["high_cells"].values.tolist() == high
    assert found["unit"].values.tolist() == [f"block/{n}" for n in range(UNITS)]
    np.testing.assert_array_equal(found["artefact_share"].values[:4], np.array(high[:4]) / active[:4])
    assert np.isnan(found["artefact_share"].values[4]), "a unit that is silent has no active cell"


def test_units_that_fire_on_five_planted_tokens_have_a_large_share(run):
    found = artefact_share(run, "one", "block")
    assert (found["high_cells"].values[:4] == 5).all()
    assert (found["artefact_share"].values[:4] > 0.3).all()
    assert found.attrs["top"] == 0.02


def test_what_cannot_be_answered_is_refused(run, tmp_path: Path):
    with pytest.raises(DissectError, match="top 1: expected a share between 0 and 1"):
        artefact_share(run, "one", "block", top=1)
    with pytest.raises(DissectError, match="has no activations, whose norms are asked for"):
        artefact_share(RunStores(run.probe, str(tmp_path / "none.zarr"), run.dissection), "one", "block")
    with pytest.raises(DissectError, match="one/block is not dissected"):
        artefact_share(RunStores(run.probe, run.activations, str(tmp_path / "none.zarr")), "one", "block")
