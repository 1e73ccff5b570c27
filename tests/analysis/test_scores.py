"""Scores, labels and unique detectors against Python loops over docs/method.md, sections 1.6 to 1.8."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect_xr.analysis import scores
from dissect_xr.analysis.detectors import (
    best_concept,
    concept_histogram,
    detected_concepts,
    detectors,
    unique_detectors,
)
from dissect_xr.errors import DissectError

SCORES = [scores.iou, scores.precision, scores.recall, scores.f1, scores.lift, scores.share, scores.ceiling]
ANSWERS = [
    best_concept,
    detectors,
    detected_concepts,
    unique_detectors,
    lambda ds: unique_detectors(ds, count="by_category", over=("snapshot", "unit")),
    lambda ds: best_concept(ds, within="part"),
    concept_histogram,
]
CUTOFF = 0.2  # small counts have large IoUs
CHUNKS = [
    {},
    {"unit": 2},
    {"concept": 3},
    {"unit": 1, "concept": 1, "category": 1, "snapshot": 1, "fraction": 1},
    {"unit": (1, 4, 2), "concept": (5, 1, 2), "category": (1, 3)},
]


def dissection(seed: int = 0, *, missing: bool = False, text: Any = object) -> xr.Dataset:
    """A small dissection, rich in ties and zeros; with `missing`, layer b has no counts in the second snapshot."""
    random = np.random.default_rng(seed)
    snapshots, fractions, units, concepts, categories = 2, 2, 7, 8, ["object", "part", "color", "scene"]
    kinds = random.integers(0, 3, concepts)  # no concept is a scene
    concept_area = random.integers(0, 9, concepts)
    unit_area = random.integers(0, 9, (snapshots, fractions, units, len(categories)))
    unit_area[0, 0, 0] = 0
    largest = np.minimum(unit_area[..., kinds], concept_area)
    counts: dict[str, Any] = {
        "intersection": np.floor(largest * random.random(largest.shape) * 1.2).clip(max=largest).astype(np.int64),
        "unit_area": unit_area,
        "dead": (unit_area == 0).all(axis=-1) | (random.random(unit_area.shape[:-1]) < 0.1),
    }
    if missing:
        for name in ("intersection", "unit_area", "dead"):
            counts[name] = counts[name].astype(np.float64)
            counts[name][1, :, 4:] = np.nan
    layer = np.array(["a"] * 4 + ["b"] * 3, dtype=text)
    return xr.Dataset(
        {
            "intersection": (("snapshot", "fraction", "unit", "concept"), counts["intersection"]),
            "unit_area": (("snapshot", "fraction", "unit", "domain"), counts["unit_area"]),
            "dead": (("snapshot", "fraction", "unit"), counts["dead"]),
            "concept_area": ("concept", concept_area),
            "domain_area": ("domain", np.array([30, 20, 40, 0])),
        },
        {
            "snapshot": np.array(["first", "last"], dtype=text),
            "fraction": [0.005, 0.01],
            "layer": ("unit", layer),
            "unit": np.array([f"{name}/{channel}" for channel, name in enumerate(layer)], dtype=text),
            "concept": np.array([2, 3, 7, 11, 12, 40, 41, 65535]),
            "concept_name": ("concept", np.array([f"concept {c}" for c in range(concepts)], dtype=text)),
            "concept_category": ("concept", np.array(categories, dtype=text)[kinds]),
            "concept_domain": ("concept", np.array(categories, dtype=text)[kinds]),
            "category": np.array(categories, dtype=text),
            "domain": np.array(categories, dtype=text),
        },
    )


def pairs(ds: xr.Dataset) -> Iterator[tuple[dict[str, Any], int, int, int, int]]:
    """Each pair with its place and its intersection, unit area, concept area and category area, as Python numbers."""
    for place in np.ndindex(ds["intersection"].shape):
        at = dict(zip(ds["intersection"].dims, place, strict=True))
        concept = ds.isel(concept=at["concept"])
        category = concept["concept_category"].item()
        unit = {dim: index for dim, index in at.items() if dim != "concept"}
        yield (
            at,
            ds["intersection"].isel(at).item(),
            ds["unit_area"].sel(domain=category).isel(unit).item(),
            concept["concept_area"].item(),
            ds["domain_area"].sel(domain=category).item(),
        )


def divide(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def labels(ds: xr.Dataset, at: dict[str, int], within: str | None = None) -> tuple[int, Fraction] | None:
    """Number and IoU of a unit's best concept, or None: the rule of docs/method.md, section 1.7 on exact fractions."""
    unit = ds.isel(at)
    if unit["dead"].item() != 0:
        return None
    best = None
    for number in sorted(ds["concept"].values.tolist()):
        pair = unit.sel(concept=number)
        category = pair["concept_category"].item()
        if within not in (None, category) or math.isnan(pair["intersection"].item()):
            continue
        hit, area = int(pair["intersection"]), int(unit["unit_area"].sel(domain=category))
        union = area + int(pair["concept_area"]) - hit
        iou = Fraction(hit, union) if union else Fraction(0)
        if best is None or iou > best[1]:
            best = (number, iou)
    return best


def reference_unique(ds: xr.Dataset, count: str, cutoff: float) -> int:
    """Unique detectors over everything in `ds`."""
    found = set()
    competitions = [None] if count == "by_unit" else ["object", "part", "color", "scene"]
    for within in competitions:
        for place in np.ndindex(ds["dead"].shape):
            label = labels(ds, dict(zip(ds["dead"].dims, place, strict=True)), within)
            if label is not None and float(label[1]) > cutoff:
                found.add((within, label[0]))
    return len(found)


def chunked(ds: xr.Dataset, chunks: dict[str, Any] | None) -> xr.Dataset:
    """`ds` with its counts in blocks and its coordinates in memory, as `open_dissection` gives it."""
    if chunks is None:
        return ds
    counts = {name: values.variable for name, values in ds.data_vars.items()}
    return ds.assign(
        {
            name: values.chunk({dim: n for dim, n in chunks.items() if dim in values.dims})
            for name, values in counts.items()
        }
    )


@pytest.fixture
def lazy() -> Iterator[None]:
    """Nothing computes."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.mark.parametrize("missing", [False, True])
def test_scores_are_the_ratios_of_the_method(missing: bool) -> None:
    ds = dissection(missing=missing)
    scores = {function.__name__: function(ds) for function in SCORES}
    assert all(values.dtype == np.float64 and values.name == name for name, values in scores.items())
    for at, hit, area, labelled, domain in pairs(ds):
        q, s = divide(area, domain), divide(labelled, domain)
        expected = {
            "iou": divide(hit, area + labelled - hit),
            "precision": divide(hit, area),
            "recall": divide(hit, labelled),
            "f1": divide(2 * hit, area + labelled),
            "share": s,
        }
        for name, value in expected.items():
            got = scores[name].isel({dim: at[dim] for dim in scores[name].dims}).item()
            assert got == value or (math.isnan(got) and math.isnan(hit)), (name, at)
        assert scores["lift"].isel(at).item() == pytest.approx(divide(divide(hit, area), s), nan_ok=missing)
        assert scores["ceiling"].isel(at).item() == pytest.approx(divide(min(q, s), max(q, s)), nan_ok=missing)


@pytest.mark.parametrize("within", [None, "object", "part"])
@pytest.mark.parametrize("missing", [False, True])
def test_best_concept_is_the_highest_iou_and_the_lowest_number(missing: bool, within: str | None) -> None:
    for seed in range(3):
        ds = dissection(seed, missing=missing)
        best = best_concept(ds, within=within)
        assert best["concept"].dtype == np.int64
        for place in np.ndindex(ds["dead"].shape):
            at = dict(zip(ds["dead"].dims, place, strict=True))
            got, expected = best.isel(at), labels(ds, at, within)
            if expected is None:
                assert (got["concept"].item(), got["concept_name"].item(), got["category"].item()) == (0, "", "")
                assert math.isnan(got["iou"].item())
            else:
                concept = ds.sel(concept=expected[0])
                assert (got["concept"].item(), got["iou"].item()) == (expected[0], float(expected[1]))
                assert got["concept_name"].item() == concept["concept_name"].item()
                assert got["category"].item() == concept["concept_category"].item()


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
@pytest.mark.parametrize("missing", [False, True])
def test_unique_detectors_count_distinct_labels(missing: bool, count: Any) -> None:
    ds = dissection(1, missing=missing)
    numbers = unique_detectors(ds, count=count, cutoff=CUTOFF)
    assert numbers.dims == ("snapshot", "fraction")
    assert numbers.dtype == np.int64
    assert numbers.attrs["count"] == count
    assert numbers.attrs["cutoff"] == CUTOFF
    for snapshot, fraction in np.ndindex(2, 2):
        part = ds.isel(snapshot=[snapshot], fraction=[fraction])
        assert numbers.values[snapshot, fraction] == reference_unique(part, count, CUTOFF)
    pooled = unique_detectors(ds, count=count, over=("snapshot", "unit"), cutoff=CUTOFF)
    assert pooled.values.tolist() == [reference_unique(ds.isel(fraction=[f]), count, CUTOFF) for f in range(2)]
    assert pooled.values.tolist() != numbers.sum("snapshot").values.tolist()  # some are detected in both


@pytest.mark.parametrize("count", ["by_unit", "by_category"])
@pytest.mark.parametrize("text", [object, "U", np.dtypes.StringDType()])
@pytest.mark.parametrize("chunks", [None, {"unit": 2}])
def test_unique_detectors_by_layer(chunks: Any, text: Any, count: Any) -> None:
    ds = dissection(1, text=text)
    ds = chunked(ds, chunks)
    numbers = ds.groupby("layer").map(unique_detectors, count=count, cutoff=CUTOFF)
    assert dict(numbers.sizes) == {"snapshot": 2, "fraction": 2, "layer": 2}
    for name in ("a", "b"):
        part = ds.isel(unit=np.flatnonzero(ds["layer"] == name))
        xr.testing.assert_equal(
            numbers.sel(layer=name, drop=True).transpose("snapshot", "fraction"),
            unique_detectors(part, count=count, cutoff=CUTOFF),
        )


def test_concept_histogram_adds_up_to_the_detectors() -> None:
    ds = dissection(2)
    units, found = concept_histogram(ds, cutoff=CUTOFF), detected_concepts(ds, cutoff=CUTOFF)
    assert units.dtype == np.int64
    assert units.dims == ("snapshot", "fraction", "concept")
    assert units.sum().item() == detectors(ds, cutoff=CUTOFF).sum().item() > 0
    xr.testing.assert_equal(found, units > 0)
    best = best_concept(ds)
    for number in ds["concept"].values.tolist():
        expected = ((best["concept"] == number) & (best["iou"] > CUTOFF)).sum("unit")
        assert units.sel(concept=number).values.tolist() == expected.values.tolist()


def test_cutoffs_along_a_dimension_give_a_curve() -> None:
    ds = dissection(3)
    cutoffs = xr.DataArray([0.0, 0.04, 0.2, 0.5], dims="cutoff", coords={"cutoff": [0.0, 0.04, 0.2, 0.5]})
    for function in (detectors, unique_detectors, concept_histogram):
        for data in (ds, ds.chunk(unit=2)):
            curve = function(data, cutoff=cutoffs)
            for cutoff in cutoffs.values.tolist():
                expected = function(ds, cutoff=cutoff)
                xr.testing.assert_equal(curve.sel(cutoff=cutoff, drop=True).transpose(*expected.dims), expected)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("missing", [False, True])
def test_same_for_every_chunking(missing: bool, chunks: dict[str, Any]) -> None:
    ds = dissection(4, missing=missing)
    for function in [*SCORES, *ANSWERS]:
        xr.testing.assert_identical(function(ds.chunk(chunks)).compute(scheduler="synchronous"), function(ds))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.fixed_dictionaries({"unit": st.integers(1, 7), "concept": st.integers(1, 8)}))
def test_same_for_any_chunk_lengths(seed: int, chunks: dict[str, int]) -> None:
    ds = dissection(seed)
    best = best_concept(ds.chunk(chunks)).compute(scheduler="synchronous")
    xr.testing.assert_identical(best, best_concept(ds))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.usefixtures("lazy")
def test_nothing_computes(missing: bool, chunks: dict[str, Any]) -> None:
    ds = chunked(dissection(missing=missing), chunks)
    for function in [*SCORES, *ANSWERS]:
        answer = function(ds)
        arrays = answer.data_vars.values() if isinstance(answer, xr.Dataset) else [answer]
        assert all(array.chunks is not None for array in arrays)


def test_blocks_of_scores_are_the_blocks_of_counts() -> None:
    ds = dissection().chunk(unit=2, concept=3)
    for function in (scores.iou, scores.lift, scores.ceiling):
        assert function(ds).chunks == ds["intersection"].chunks
    assert best_concept(ds)["iou"].chunksizes["unit"] == ds["intersection"].chunksizes["unit"]


def test_selections_that_drop_dimensions() -> None:
    ds = dissection(5)
    one = {"snapshot": 1, "fraction": 0}
    for data in (ds, ds.chunk(unit=3)):
        for function in ANSWERS[:4] + ANSWERS[5:]:
            same(function(data.isel(one)), function(ds).isel(one))
        for function in (best_concept, detectors):
            same(function(data.isel(unit=3)), function(ds).isel(unit=3))
        assert unique_detectors(data.isel(one).isel(unit=3)).compute().item() in (0, 1)
        for function in SCORES:
            for selected in (one, {"unit": 3}, {"concept": 2}, {"unit": [4, 2]}, one | {"unit": 1, "concept": 0}):
                same(function(data.isel(selected)), function(ds).isel(selected, missing_dims="ignore"))


def same(got: Any, expected: Any) -> None:
    """Equal but for the coordinates of dropped dimensions, of which `share` has none to keep."""
    xr.testing.assert_equal(got.reset_coords(drop=True), expected.reset_coords(drop=True))


def test_concepts_of_categories_not_selected_have_no_score() -> None:
    ds = dissection(6)
    inside = ds["concept_category"] == "part"
    for part in (ds.sel(category="part"), ds.sel(category=["part"]), ds.sel(category="part").chunk(concept=3)):
        xr.testing.assert_equal(scores.iou(part).drop_vars("category", errors="ignore"), scores.iou(ds).where(inside))
        xr.testing.assert_equal(best_concept(part), best_concept(ds, within="part"))


def test_dimensions_in_any_order() -> None:
    ds = dissection(7)
    turned = ds.transpose("concept", "category", "domain", "unit", "fraction", "snapshot")
    xr.testing.assert_equal(scores.iou(turned).transpose(*ds["intersection"].dims), scores.iou(ds))
    best = best_concept(turned).transpose("snapshot", "fraction", "unit")
    xr.testing.assert_equal(best, best_concept(ds))


def two_concepts(intersection: list[int], concept_area: list[int], *, unit_area: int = 4) -> xr.Dataset:
    """One unit and two concepts, the first with the higher number."""
    return xr.Dataset(
        {
            "intersection": (("unit", "concept"), [intersection]),
            "unit_area": (("unit", "domain"), [[unit_area]]),
            "concept_area": ("concept", concept_area),
        },
        {
            "concept": [9, 2],
            "concept_name": ("concept", ["nine", "two"]),
            "concept_category": ("concept", ["object", "object"]),
            "concept_domain": ("concept", ["object", "object"]),
            "category": ["object"],
            "domain": ["object"],
        },
    )


@pytest.mark.parametrize("chunks", [None, {"concept": 1}])
def test_equal_ratios_go_to_the_lowest_number(chunks: Any) -> None:
    ds = two_concepts([1, 2], [3, 8])  # 1 / 6 and 2 / 10
    assert best_concept(chunked(ds, chunks))["concept"].compute().item() == 2
    ds = two_concepts([1, 2], [3, 10])  # 1 / 6 and 2 / 12
    assert best_concept(chunked(ds, chunks))["concept"].compute().item() == 2
    ds = two_concepts([1, 2], [3, 11])  # 1 / 6 and 2 / 13
    assert best_concept(chunked(ds, chunks))["concept"].compute().item() == 9


def test_a_unit_at_the_cutoff_is_no_detector() -> None:
    at, above = two_concepts([1, 0], [22, 5]), two_concepts([1, 0], [21, 5])  # 1 / 25 and 1 / 24
    assert (detectors(at).item(), detectors(above).item()) == (False, True)
    assert (unique_detectors(at).item(), unique_detectors(above).item()) == (0, 1)
    assert (concept_histogram(at).sum().item(), concept_histogram(above).sum().item()) == (0, 1)


def test_half_overlap_gives_one_third() -> None:
    assert scores.iou(two_concepts([2, 0], [4, 4])).values.tolist() == [[1 / 3, 0.0]]


def test_nothing_active_and_nothing_labelled_gives_zero() -> None:
    ds = two_concepts([0, 0], [0, 0], unit_area=0).assign(domain_area=("domain", [0]))
    for function in SCORES:
        assert (function(ds) == 0).all(), function.__name__


def test_a_stored_iou_is_not_believed() -> None:
    ds = dissection(8)
    xr.testing.assert_identical(best_concept(ds.assign(iou=xr.zeros_like(ds["intersection"]))), best_concept(ds))


def test_pairs_without_counts_do_not_compete() -> None:
    ds = two_concepts([3, 1], [4, 4]).astype(np.float64)
    ds["intersection"][0, 0] = np.nan
    assert best_concept(ds)["concept_name"].item() == "two"
    ds["intersection"][0, 1] = np.nan
    assert best_concept(ds)["concept_name"].item() == ""
    assert unique_detectors(ds, count="by_category").item() == 0


def test_arguments_are_left_as_they_are() -> None:
    ds = dissection(9)
    before = ds.copy(deep=True)
    for function in [*SCORES, *ANSWERS]:
        function(ds)
    xr.testing.assert_identical(ds, before)


def test_errors_say_what_is_missing() -> None:
    ds = dissection()
    with pytest.raises(DissectError, match="no unit_area: it has"):
        scores.iou(ds.drop_vars("unit_area"))
    with pytest.raises(DissectError, match="no domain_area"):
        scores.lift(ds.drop_vars("domain_area"))
    with pytest.raises(DissectError, match=r"ds.sel\(concept=\[number\]\)"):
        best_concept(ds.isel(concept=0))
    with pytest.raises(DissectError, match="no concept competes in category 'scene': the Dataset has concepts of"):
        best_concept(ds, within="scene")
    with pytest.raises(DissectError, match="over names unti: expected dimensions of the units"):
        unique_detectors(ds, over=["unti"])
    with pytest.raises(DissectError, match="count is 'by_layer': expected one of by_unit, by_category"):
        unique_detectors(ds, count="by_layer")  # type: ignore[arg-type]
