"""From the output of a network to a label map: values by hand, every form, every meaning of nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr.activations.request import ModelSpec, Preprocess
from dissect_xr.errors import DissectError
from dissect_xr.segmenters import outputs
from dissect_xr.segmenters.outputs import Output, check_classes, label_map, output_of
from dissect_xr.segmenters.segmenter import Segmenter, numbered


def segmenter(**fields):
    given = {"classes": numbered({0: "road", 1: "sky", 2: "car"})} | fields
    return Segmenter(ModelSpec("network.py:make"), Preprocess((2, 2)), **given)


def scores(*classes):
    """(1, class, row, col)"""
    return torch.tensor([classes], dtype=torch.float32)


def test_the_class_of_the_largest_score_wins_and_the_first_of_equals():
    found = output_of(scores([[1, 5]], [[3, 5]], [[2, 0]]), 1)
    assert label_map(found, 0, segmenter(), (1, 2)).tolist() == [[2, 1]]


def test_a_class_that_means_nothing_is_no_label():
    found = Output(scores([[1, 5]], [[3, 5]], [[2, 0]]), None)
    quiet = segmenter(classes=numbered({1: "sky", 2: "car"}), nothing=(0,))
    assert label_map(found, 0, quiet, (1, 2)).tolist() == [[2, 0]]


def test_confidence_is_the_probability_over_all_classes():
    # exp(2) / (exp(2) + 2) = 0.787; equal scores have 1 / 3.
    found = Output(scores([[2, 0]], [[0, 0]], [[0, 0]]), None)
    assert label_map(found, 0, segmenter(confidence=0.78), (1, 2)).tolist() == [[1, 0]]
    assert label_map(found, 0, segmenter(confidence=0.79), (1, 2)).tolist() == [[0, 0]]
    assert label_map(found, 0, segmenter(confidence=0.33), (1, 2)).tolist() == [[1, 1]]


def test_one_channel_is_a_class_against_nothing():
    found, one = Output(scores([[0.1, -0.1, 2.0]]), None), numbered({0: "road"})
    assert label_map(found, 0, segmenter(classes=one), (1, 3)).tolist() == [[1, 0, 1]]
    assert label_map(found, 0, segmenter(classes=one, confidence=0.8), (1, 3)).tolist() == [[0, 0, 1]]


def test_labels_are_taken_as_they_are_with_their_codes_for_nothing():
    found = output_of(torch.tensor([[[0, 2], [-1, 255]]]), 1)
    assert label_map(found, 0, segmenter(nothing=(255,)), (2, 2)).tolist() == [[1, 3], [0, 0]]
    assert label_map(found, 0, segmenter(nothing=(255,)), (2, 4))[0].tolist() == [1, 1, 3, 3]
    with pytest.raises(DissectError, match=r"it gives class 255, which has no name.*`nothing: \[255\]`"):
        label_map(found, 0, segmenter(), (2, 2))


def test_a_query_counts_as_its_class_times_its_mask():
    # Two queries: the first is a road to 0.8 (and "no object" to 0.2) on the left, the second a car everywhere to 0.5.
    classes = torch.tensor([[[0.8, 1e-9, 1e-9, 0.2], [1e-9, 1e-9, 0.5, 0.5]]]).log()
    masks = torch.tensor([[[[9.0, -9.0]], [[9.0, 9.0]]]])
    for names in outputs.QUERIES:
        found = output_of(dict(zip(names, (classes, masks), strict=True)), 1)
        assert found.probabilities
        assert label_map(found, 0, segmenter(), (1, 2)).tolist() == [[1, 3]]
        assert label_map(found, 0, segmenter(confidence=0.6), (1, 2)).tolist() == [[1, 0]]


@pytest.mark.parametrize("name", outputs.SCORES)
def test_scores_lie_where_libraries_put_them(name):
    both = {name: scores([[1]], [[2]], [[0]]), "aux": scores([[5]], [[0]], [[0]])}
    assert label_map(output_of(both, 1), 0, segmenter(), (1, 1)).tolist() == [[2]]


@pytest.mark.parametrize(
    ("returned", "described"),
    [
        (torch.zeros(1, 3), "a 1x3 tensor of float32"),
        (torch.zeros(2, 3, 4, 4), "a 2x3x4x4 tensor"),
        (torch.zeros(1, 4, 4), "a 1x4x4 tensor of float32"),
        ({"features": 1}, "a mapping with features"),
        (None, "a NoneType"),
    ],
)
def test_other_outputs_are_named(returned, described):
    with pytest.raises(DissectError, match=rf"segmenter: expected scores \(1, class, y, x\).*got {described}"):
        output_of(returned, 1)


def test_a_table_of_another_model_is_refused():
    three = Output(scores([[1]], [[2]], [[0]]), None)
    check_classes(three, segmenter())
    with pytest.raises(DissectError, match=r"classes 0 to 2; 0 are neither in `classes` nor in `nothing`; 3 are not"):
        check_classes(three, segmenter(classes=numbered({1: "road", 2: "sky", 3: "car"})))
    with pytest.raises(DissectError, match=r"returns labels, not scores: leave out `confidence`"):
        check_classes(Output(None, torch.zeros(1, 2, 2, dtype=torch.int64)), segmenter(confidence=0.5))


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(DissectError, match="a score is NaN or infinite"):
        label_map(Output(scores([[1]], [[float("nan")]], [[0]]), None), 0, segmenter(), (1, 1))


@given(st.data())
def test_parts_of_the_classes_give_what_all_at_once_give(data):
    classes = data.draw(st.integers(2, 40))
    rows, cols = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    size = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    numbers = st.integers(-3, 3)
    values = data.draw(st.lists(numbers, min_size=classes * rows * cols, max_size=classes * rows * cols))
    given_scores = torch.tensor(values, dtype=torch.float32).reshape(1, classes, rows, cols)
    enlarged = torch.nn.functional.interpolate(given_scores, size, mode="bilinear", align_corners=False)[0]
    table = numbered({n: f"class {n}" for n in range(classes)})
    found = label_map(Output(given_scores, None), 0, segmenter(classes=table), size)
    assert np.array_equal(found, enlarged.argmax(0).numpy() + 1)
    sure = label_map(Output(given_scores, None), 0, segmenter(classes=table, confidence=0.4), size)
    probability = enlarged.softmax(0).amax(0).numpy()
    clear = np.abs(probability - 0.4) > 1e-5
    assert np.array_equal(sure[clear], np.where(probability >= 0.4, found, 0)[clear])
