"""Networks compared: labels, vocabularies and depths, worked out by hand and by sets of Python."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr.analysis.networks import compare_networks
from dissect_xr.errors import DissectError

CONCEPTS = ["car", "sky", "wheel", "red"]
CATEGORIES = ["object", "object", "part", "color"]


def network(labels, layers):
    """A dissection in which the label of each unit is this concept, with IoU 0.5, or none."""
    intersection = np.zeros((len(labels), len(CONCEPTS)), np.int64)
    for unit, label in enumerate(labels):
        if label is not None:
            intersection[unit, CONCEPTS.index(label)] = 4
    domains = list(dict.fromkeys(CATEGORIES))
    return xr.Dataset(
        {
            "intersection": (("unit", "concept"), intersection),
            "unit_area": (("unit", "domain"), np.full((len(labels), len(domains)), 4)),
            "concept_area": ("concept", np.full(len(CONCEPTS), 8)),
        },
        {
            "unit": [f"{layer}/{n}" for n, layer in enumerate(layers)],
            "layer": ("unit", list(layers)),
            "concept": np.arange(1, 5),
            "concept_name": ("concept", CONCEPTS),
            "concept_category": ("concept", CATEGORIES),
            "concept_domain": ("concept", CATEGORIES),
            "category": domains,
            "domain": domains,
        },
    )


ONE = network(["car", "car", "sky", "wheel", None], ["a", "a", "b", "b", "b"])
TWO = network(["sky", "red"], ["first", "first"])
NOTHING = network([None], ["a"])


def test_values_by_hand():
    found = compare_networks({"one": ONE, "two": TWO})
    assert found["units"].values.tolist() == [5, 2]
    assert found["detectors"].values.tolist() == [4, 2]
    labels = found["labels"].to_pandas().T
    assert labels["one"].to_dict() == {"car": 2, "sky": 1, "wheel": 1, "red": 0}
    assert labels["two"].to_dict() == {"car": 0, "sky": 1, "wheel": 0, "red": 1}
    assert found["category"].values.tolist() == ["object", "part", "color"]
    assert found["unique_detectors"].values.tolist() == [[2, 1, 0], [1, 0, 1]]
    assert found["own"].values.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found["overlap"].values.tolist() == [[1, 0.25], [0.25, 1]]
    np.testing.assert_array_equal(found["unique_detectors_of_layer"].values, [[1, 2], [2, np.nan]])
    np.testing.assert_array_equal(found["units_of_layer"].values, [[2, 3], [2, np.nan]])
    assert found["layer_name"].values.tolist() == [["a", "b"], ["first", ""]]


def test_a_network_that_detects_nothing():
    found = compare_networks({"one": ONE, "nothing": NOTHING})
    np.testing.assert_array_equal(found["overlap"].values, [[1, 0], [0, np.nan]])
    assert compare_networks({"nothing": NOTHING}).sizes["concept"] == 0


def test_the_cutoff_counts():
    assert compare_networks({"one": ONE}, cutoff=0.5)["detectors"].values.tolist() == [0]


def test_layers_that_a_snapshot_lacks_do_not_count():
    ds = ONE.assign_coords(layer_name=["a", "b"]).assign(complete=("layer_name", [True, False]))
    found = compare_networks({"part": ds})
    assert (found["units"].item(), found["layers"].item(), found["detectors"].item()) == (2, 1, 2)


def test_derived_layers_do_not_count():
    ds = ONE.assign_attrs(derived='{"b": {"layer": "a", "basis": {"kind": "pca"}}}')
    assert compare_networks({"recorded": ds})["units"].item() == 2


def test_what_cannot_be_compared_is_said():
    with pytest.raises(DissectError, match="expected networks to compare"):
        compare_networks({})
    with pytest.raises(DissectError, match="'many'"):
        compare_networks({"many": xr.concat([ONE, ONE], xr.Variable("snapshot", ["a", "b"]), join="outer",
                                            data_vars="all")})  # fmt: skip


@given(st.lists(st.lists(st.sampled_from([None, *CONCEPTS]), min_size=1, max_size=6), min_size=1, max_size=4))
def test_vocabularies_are_those_of_sets(networks):
    given_networks = {str(n): network(labels, ["a"] * len(labels)) for n, labels in enumerate(networks)}
    found = compare_networks(given_networks)
    sets = [{label for label in labels if label} for labels in networks]
    assert found["unique_detectors"].sum("category").values.tolist() == [len(one) for one in sets]
    for n, mine in enumerate(sets):
        others = set().union(*(one for m, one in enumerate(sets) if m != n))
        assert int(found["own"].values[n].sum()) == len(mine - others)
        for m, other in enumerate(sets):
            wanted = len(mine & other) / len(mine | other) if mine | other else np.nan
            np.testing.assert_equal(float(found["overlap"].values[n, m]), wanted)
