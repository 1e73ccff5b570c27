"""Boxes of maps and of objects, against drawings of a few cells."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from dissect_xr.experiments.localisation.boxes import NO_BOX, enclosing, high_box, peak_inside
from dissect_xr.experiments.localisation.maps import class_map
from dissect_xr.experiments.localisation.scores import box_iou


def drawn(*rows: str) -> np.ndarray:
    return np.array([[float(cell) for cell in row] for row in rows], np.float32)


@pytest.mark.parametrize(
    ("values", "box"),
    [
        (drawn("900", "010", "000"), (0, 0, 1, 1)),  # 1 is not above 20 % of 9
        (drawn("500", "100", "000"), (0, 0, 1, 1)),  # nor is 1 above 20 % of 5: exactly 20 %
        (drawn("900", "090", "099"), (1, 1, 3, 3)),  # corners do not connect
        (drawn("909", "909", "000"), (0, 0, 2, 1)),  # of equal parts the first
        (drawn("900", "099", "000"), (1, 1, 2, 3)),  # the largest part, not the highest
        (drawn("202", "222", "902"), (0, 0, 3, 3)),  # not solid
        (drawn("00", "00"), NO_BOX),
        (-drawn("12", "34"), NO_BOX),
        (drawn("22", "22"), (0, 0, 2, 2)),
    ],
)
def test_the_box_holds_the_largest_part_above_a_fifth(values: np.ndarray, box: tuple[int, ...]) -> None:
    assert high_box(values, 0.2) == box


@given(st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_box_is_that_of_a_search_by_hand(cells: list[list[int]]) -> None:
    values = np.array(cells, np.float32)
    left = {(y, x) for y, x in np.argwhere(5 * values.astype(int) > values.max()).tolist()}
    parts = []
    while left:
        part, edge = set(), [min(left)]
        while edge:
            y, x = edge.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                edge += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        parts.append(part)
    wanted = NO_BOX
    if parts and values.max() > 0:
        rows, cols = zip(*max(parts, key=len), strict=True)  # the first of equals: parts are in the order of rows
        wanted = min(rows), min(cols), max(rows) + 1, max(cols) + 1
    assert high_box(values, 0.2) == wanted


def test_an_object_may_have_several_parts() -> None:
    assert enclosing(drawn("0000", "1000", "0010") > 0) == (1, 0, 3, 3)


def test_the_maximum_is_the_first_of_equals() -> None:
    values = drawn("070", "070")
    assert peak_inside(values, drawn("010", "000") > 0)
    assert not peak_inside(values, drawn("000", "010") > 0)


def test_iou_of_boxes() -> None:
    pairs = [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # they touch
        ((0, 0, 2, 2), (5, 5, 6, 6), 0.0),  # apart along both sides: no product of two negative lengths
        (NO_BOX, (0, 0, 2, 2), 0.0),
    ]
    first, second = (xr.DataArray([pair[n] for pair in pairs], dims=("image", "side")) for n in (0, 1))
    assert box_iou(first, second).values.tolist() == [iou for _, _, iou in pairs]
    nothing = xr.DataArray([NO_BOX], dims=("image", "side"))
    assert np.isnan(box_iou(first[:1], nothing).values).all()


def test_a_class_map_adds_units_with_their_weights() -> None:
    values = np.array([[[1, 2]], [[3, 0]], [[0, 10]]], np.float16)
    assert class_map(values, np.array([2.0, 1.0, -0.5])).tolist() == [[5.0, -1.0]]
