"""Masks are those of the COCO API, pixel for pixel: stored codes of its own, and the API itself where it is there."""

import coco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect_xr.probe.faults import Fault
from dissect_xr.probe.readers.coco.rasters import box, mask, runs, stacked

SIZE = (8, 10)

POLYGONS = {
    "on the borders of pixels": ([[2, 1, 6, 1, 6, 4, 2, 4]], "a03500000o0", 12),
    "half a pixel further": ([[2.5, 1.5, 6.5, 1.5, 6.5, 4.5, 2.5, 4.5]], "j03500000f0", 12),
    "a triangle": ([[0, 0, 9, 0, 0, 7]], "071O1O1O1O100O1Oa0", 31),
    "a triangle with decimals": ([[0.7, 0.2, 9.31, 3.3, 2.6, 7.49]], "8363L01N100O2N105", 28),
    "the same, the other way round": ([[0.7, 0.2, 2.6, 7.49, 9.31, 3.3]], "8363L01N100O2N105", 28),
    "a bow tie, which crosses itself": ([[1, 1, 8, 6, 8, 1, 1, 6]], "954N2N90G2N2>", 18),
    "one inside another, which is no hole": (
        [[1, 1, 9, 1, 9, 7, 1, 7], [3, 3, 6, 3, 6, 5, 3, 5]],
        "96200000000000007",
        48,
    ),
    "one line around and inside, which is a hole": (
        [[1, 1, 9, 1, 9, 7, 1, 7, 1, 1, 3, 3, 3, 5, 6, 5, 6, 3, 3, 3]],
        "96200L00000000000400007",
        42,
    ),
    "beyond every edge": ([[-3, -2.5, 13, -2.5, 13, 11, -3, 11]], "0`2", 80),
    "left of the image": ([[-4, 1, -1.2, 1, -1.2, 6]], "`2", 0),
    "narrower than a pixel": ([[4.1, 1, 4.3, 1, 4.3, 6, 4.1, 6]], "`2", 0),
    "a point given twice": ([[2, 1, 2, 1, 6, 1, 6, 4, 6, 4, 2, 4]], "a03500000o0", 12),
    "back and forth": ([[1, 1, 7, 5, 1, 1, 7, 5]], "`2", 0),
}
"""Polygons, with the code and the area that pycocotools 2.0.11 gives for them on 8 rows and 10 columns."""


@pytest.mark.parametrize("case", POLYGONS)
def test_polygons_are_those_of_the_coco_api(case):
    polygons, code, area = POLYGONS[case]
    found = mask(polygons, SIZE)
    assert found.sum() == area
    assert np.array_equal(found, mask({"counts": code, "size": [8, 10]}, SIZE))


def test_a_polygon_on_the_borders_of_pixels_covers_them_and_no_others():
    assert np.array_equal(mask(coco.rectangle(1, 2, 4, 6), SIZE), coco.filled(SIZE, 1, 2, 4, 6))


def test_runs_go_down_the_columns_and_begin_with_zeros():
    wanted = [[0, 1, 0], [1, 1, 0]]  # the first column is 0, 1; then 1, 1; then 0, 0
    for counts in ([1, 3, 2], "132"):
        assert mask({"counts": counts, "size": [2, 3]}, (2, 3)).astype(int).tolist() == wanted
    assert mask({"counts": [0, 6], "size": [2, 3]}, (2, 3)).all()


def test_a_long_code_with_negative_differences_is_that_of_the_coco_api():
    wanted = coco.filled((300, 20), 10, 3, 290, 9)
    wanted[::7, 15] = True
    code = "^l0h8d0000000000ng1YGdWN" + "0" * 83 + "_U1"
    assert coco.compressed(coco.runs_of(wanted)) == code
    assert np.array_equal(mask({"counts": code, "size": [300, 20]}, (300, 20)), wanted)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=12))
def test_every_list_of_runs_comes_back_from_its_text(numbers):
    assert runs(coco.compressed(numbers)).tolist() == numbers


BAD = {
    "another size": ({"counts": [6], "size": [3, 2]}, r"of an image of \[3, 2\] .*given as \[2, 3\]"),
    "no size": ({"counts": [6]}, r"of an image of None"),
    "too short": ({"counts": [5], "size": [2, 3]}, r"5 pixels long, the image has 2 x 3"),
    "too long": ({"counts": "7", "size": [2, 3]}, r"7 pixels long"),
    "no runs": ({"counts": [], "size": [2, 3]}, r"0 pixels long"),
    "below 0": ({"counts": [-1, 7], "size": [2, 3]}, r"neither text nor a list"),
    "below 0 as text": ({"counts": "O7", "size": [2, 3]}, r"below 0"),
    "a fraction": ({"counts": [1.5, 4.5], "size": [2, 3]}, r"neither text nor a list"),
    "another character": ({"counts": "1 5", "size": [2, 3]}, r"hold ' ', which is no character"),
    "no ASCII": ({"counts": "1é5", "size": [2, 3]}, r"hold 'é'"),
    "cut off": ({"counts": "1d", "size": [2, 3]}, r"cut off"),
    "endless": ({"counts": "o" * 11 + "0", "size": [2, 3]}, r"too long"),
    "one list of numbers": ([1, 1, 2, 1, 2, 2], r"neither a list of polygons"),
    "text": ("1 1 2 1 2 2", r"neither a list of polygons"),
    "an odd number of values": ([[1, 1, 2, 1, 2, 2, 1]], r"a polygon of 7 values"),
    "text in a polygon": ([[1, 1, 2, 1, 2, "2"]], r"a polygon of 6 values"),
    "a truth value": ([[1, 1, 2, 1, 2, True]], r"a polygon of 6 values"),
    "maybe a box": ([[0, 0, 2, 1]], r"takes for a box"),
    "far outside": ([[0, 0, 900, 0, 2, 2]], r"a point at x = 900, y = 0, far outside the image of 2 x 3"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("function", [mask, box])
def test_what_is_malformed_is_said(case, function):
    segmentation, message = BAD[case]
    with pytest.raises(Fault, match=message):
        function(segmentation, (2, 3))


def test_points_and_lines_enclose_nothing():
    assert not mask([[1, 1], [0, 0, 2, 2]], (2, 3)).any()
    assert mask([[1, 1], [0, 0, 2, 0, 2, 2, 0, 2]], (2, 3)).sum() == 4


polygons = st.lists(
    st.lists(
        st.tuples(
            st.integers(-10, 40).map(lambda n: n / 2) | st.floats(-5, 20), st.integers(-10, 40).map(lambda n: n / 2)
        ),
        min_size=3,
        max_size=8,
    ).map(lambda points: [number for point in points for number in point]),
    min_size=1,
    max_size=3,
)

sizes = st.tuples(st.integers(10, 15), st.integers(10, 15))


@given(polygons, sizes)
def test_no_pixel_of_a_polygon_lies_outside_its_box(shapes, size):
    top, left, bottom, right = box(shapes, size)
    outside = mask(shapes, size).copy()
    outside[top:bottom, left:right] = False
    assert not outside.any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 0.05, 0.5, 1]), st.integers(1, 6), st.integers(1, 6))
def test_codes_of_any_mask_give_it_back_in_its_box(seed, share, rows, cols):
    wanted = np.random.default_rng(seed).random((rows, cols)) < share
    for text in (True, False):
        code = coco.rle(wanted, text=text)
        assert np.array_equal(mask(code, (rows, cols)), wanted)
        top, left, bottom, right = box(code, (rows, cols))
        outside = wanted.copy()
        outside[top:bottom, left:right] = False
        assert not outside.any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools itself
@settings(max_examples=500)
@given(polygons, sizes)
def test_any_polygons_are_those_of_pycocotools(shapes, size):
    api = pytest.importorskip("pycocotools.mask")
    wanted = api.decode(api.merge(api.frPyObjects(shapes, *size))).astype(bool)
    assert np.array_equal(mask(shapes, size), wanted)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_any_code_is_that_of_pycocotools(seed, rows, cols):
    api = pytest.importorskip("pycocotools.mask")
    wanted = np.random.default_rng(seed).random((rows, cols)) < 0.3
    code = api.encode(np.asfortranarray(wanted.astype(np.uint8)))["counts"].decode()
    assert coco.compressed(coco.runs_of(wanted)) == code
    assert np.array_equal(mask({"counts": code, "size": [rows, cols]}, (rows, cols)), wanted)


def test_as_many_planes_as_masks_lie_on_one_pixel():
    masks = [(5, [[1, 1, 0]]), (7, [[0, 1, 0]]), (9, [[1, 0, 1]])]
    planes = stacked([(number, np.array(pixels, bool)) for number, pixels in masks], (1, 3))
    assert [plane.tolist() for plane in planes] == [[[5, 5, 9]], [[9, 7, 0]]]
    assert [plane.tolist() for plane in stacked([], (1, 2))] == [[[0, 0]]]
