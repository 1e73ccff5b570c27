"""One reading of the counts says what detectors and unique detectors of every layer are."""

from collections import Counter

import numpy as np
import pytest
from trained import CUTOFF, dissection

from dissect_xr.analysis.detectors import best_concept, concept_histogram, detectors, unique_detectors
from dissect_xr.analysis.labels import layer_counts, top_concepts, unit_labels


@pytest.mark.parametrize("seed", range(4))
def test_counts_of_layers_are_those_of_the_functions(seed: int) -> None:
    ds = dissection(seed=seed, missing=True)
    labels = unit_labels(ds)
    for snapshot in ds["snapshot"].values:
        at = ds.sel(snapshot=snapshot)
        counts = layer_counts(labels.sel(snapshot=snapshot), cutoff=CUTOFF)
        for n, layer in enumerate(counts["layer_name"].values):
            one = at.isel(unit=at["layer"].values == layer)
            assert counts["units"][n] == one.sizes["unit"]
            assert counts["detectors"][n] == detectors(one, cutoff=CUTOFF).sum()
            for count in ("by_unit", "by_category"):
                assert counts[count][n] == unique_detectors(one, count=count, cutoff=CUTOFF), (snapshot, layer)


def test_the_best_within_a_category_are_those_of_best_concept() -> None:
    ds = dissection(missing=True)
    labels = unit_labels(ds)
    for category in labels["within"].values:
        wanted = best_concept(ds, within=str(category))
        found = labels.sel(within=category)
        np.testing.assert_array_equal(found["concept_within"].transpose(*wanted["concept"].dims), wanted["concept"])
        np.testing.assert_array_equal(found["iou_within"].transpose(*wanted["iou"].dims), wanted["iou"])


@pytest.mark.parametrize("blocks", [None, 1, 3])
def test_the_label_is_that_of_best_concept(blocks: int | None) -> None:
    ds = dissection(missing=True)
    ds["intersection"] = ds["intersection"] // 40  # so that many IoUs are equal, in one category and in several
    ds = ds.isel(concept=slice(None, None, -1))
    if blocks is not None:
        ds = ds.chunk(concept=blocks)
    labels, wanted = unit_labels(ds), best_concept(ds).compute()
    for name in ("concept", "iou"):
        np.testing.assert_array_equal(labels[name].transpose(*wanted[name].dims), wanted[name])
    ties = labels["iou_within"] == labels["iou"]
    assert (ties.sum("within") > 1).any()


def test_the_most_frequent_labels_come_first_and_equal_ones_by_number() -> None:
    ds = dissection().isel(snapshot=-1)
    units = concept_histogram(ds, cutoff=CUTOFF)
    counted = Counter(dict(zip(ds["concept"].values.tolist(), units.values.tolist(), strict=True)))
    wanted = sorted(((c, n) for c, n in counted.items() if n), key=lambda pair: (-pair[1], pair[0]))
    assert wanted
    assert top_concepts(unit_labels(ds), 99, cutoff=CUTOFF) == wanted
    assert top_concepts(unit_labels(ds), 1, cutoff=CUTOFF) == wanted[:1]
