"""What an experiment joins is what the dissection says of the layer's units."""

import numpy as np
import pytest
import stores
from dissected import noisy

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import DissectError
from dissect_xr.experiments.unit_concepts import RunStores, dissection_fingerprint_of, unit_concepts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStores:
    folder = tmp_path_factory.mktemp("run")
    case, activation = noisy()
    activation[:, 1] = 0  # dead
    probe = stores.write_probe_case(case, folder)
    stores.write_layers(folder, probe, {"conv": activation})
    found = RunStores.of(folder)
    dissect(found.activations, found.probe, found.dissection, method=stores.method([0.02, 0.1]), show=False)
    return found


@pytest.mark.parametrize("fraction", [None, 0.1])
def test_labels_are_those_of_the_dissection(run: RunStores, fraction: float | None) -> None:
    found, chosen = unit_concepts(run, "s", "conv", 5, fraction=fraction)
    assert chosen == (fraction or 0.02)
    best = best_concept(open_dissection(run.dissection)).sel(snapshot="s", fraction=chosen).compute()
    assert found["unit"].values.tolist() == [f"conv/{n}" for n in range(5)]
    for name, theirs in (("concept", "concept"), ("concept_name", "concept_name"), ("concept_category", "category")):
        assert found[name].values.tolist() == best[theirs].values.tolist()
    np.testing.assert_array_equal(found["iou"].values, best["iou"].values)
    assert found["concept_name"].values[1] == ""
    assert np.isnan(found["iou"].values[1])


def test_a_layer_that_is_not_dissected_has_no_labels(run: RunStores) -> None:
    assert dissection_fingerprint_of(run, "s", "conv") is not None
    assert dissection_fingerprint_of(run, "s", "other") is None
    found, chosen = unit_concepts(run, "s", "other", 2)
    assert chosen is None
    assert found["concept"].values.tolist() == [0, 0]
    assert found["iou"].isnull().all()


def test_what_does_not_fit_is_refused(run: RunStores) -> None:
    with pytest.raises(DissectError, match=r"fraction 0.5 was not dissected; there are 0.02, 0.1"):
        unit_concepts(run, "s", "conv", 5, fraction=0.5)
    with pytest.raises(DissectError, match="has 5 dissected units, the network has 7"):
        unit_concepts(run, "s", "conv", 7)
