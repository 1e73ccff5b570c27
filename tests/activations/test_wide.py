"""A square input hides which axis is y; one that is twice as wide tells, and a model that takes none is believed."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder, Found
from dissect_xr.activations.layouts.impulse import Verdict
from dissect_xr.activations.layouts.wide import together
from dissect_xr.activations.request import Preprocess, Recording
from dissect_xr.errors import DissectError


class Rows(nn.Module):
    """Returns maps with units last, whose rows and columns may be exchanged, from which little can be told."""

    def __init__(self, *, exchanged: bool = False, mixed: bool = True, fixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.rows, self.tokens = nn.Conv2d(3, 6, 4, 4), nn.Identity(), nn.Identity()
        self.exchanged, self.mixed, self.fixed, self.sizes = exchanged, mixed, fixed, list[tuple[int, ...]]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape))
        if self.fixed and x.shape[2] != x.shape[3]:
            raise AssertionError("expected a square image")
        maps = self.conv(x)
        if self.mixed:  # every cell changes alike
            maps = maps.mean((2, 3), keepdim=True).expand_as(maps) * torch.ones_like(maps)
        if self.exchanged:
            maps = maps.transpose(2, 3)
        self.tokens(maps.flatten(2).transpose(1, 2))
        return self.rows(maps.permute(0, 2, 3, 1))


def found(model: nn.Module, *layers: object, size: tuple[int, int] = (32, 32)) -> dict[str, Found]:
    recording = Recording(Preprocess(size, mean=0.5, std=0.25), tuple(layers))  # type: ignore[arg-type]
    finder = Finder(model.eval(), partial(to_input, recording.preprocess), size, 8)
    return finder.find(finder.known(), recording.layers)


def test_exchanged_axes_that_no_cell_tells_are_refused():
    """On the square input, all cells answer alike: only the axes of a wider tensor tell."""
    layer = {"layer": "rows", "layout": "nhwc"}
    assert found(Rows(), layer)["rows"].tested.startswith("undecided")
    message = r"layer rows: .*on an input twice as wide: maps of 8x8 cells become 16x8: rows are columns"
    with pytest.raises(DissectError, match=message):
        found(Rows(exchanged=True), layer)
    turned = {"layer": "rows", "layout": {"kind": "nhwc", "axes": ["image", "x", "y", "unit"]}}
    assert found(Rows(exchanged=True), turned)["rows"].layout.axes == ("image", "x", "y", "unit")


def test_both_inputs_are_said():
    one = found(Rows(mixed=False), {"layer": "rows", "layout": "nhwc"}, "tokens")
    said = "6 of 6 places answered in their own cell"
    assert one["rows"].tested == f"agrees: {said}; on an input twice as wide: {said}"
    assert one["tokens"].tested == one["rows"].tested


def test_exchanged_tokens_are_refused():
    with pytest.raises(DissectError, match=r"layer tokens: .*it was not its own cell"):
        found(Rows(exchanged=True, mixed=False), "tokens")


def test_a_model_that_takes_no_other_size_is_tested_on_a_square_alone():
    model = Rows(mixed=False, fixed=True)
    one = found(model, {"layer": "rows", "layout": "nhwc"})["rows"]
    assert one.tested == (
        "agrees: 6 of 6 places answered in their own cell; "
        "tested on a square input alone, since the model takes none twice as wide"
    )
    assert model.sizes[-1] == (1, 3, 32, 64)


def test_a_model_that_brings_images_to_its_own_size_says_nothing():
    class Resized(Rows):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.interpolate(x, (32, 32)))

    one = found(Resized(mixed=False), {"layer": "rows", "layout": "nhwc"})["rows"]
    assert one.tested == "agrees: 6 of 6 places answered in their own cell"


@pytest.mark.parametrize("size", [(32, 48), (32, 32)])
def test_an_input_that_is_not_square_needs_no_other_one_nor_do_convolutions(size: tuple[int, int]):
    model = Rows(mixed=False)
    found(model, *(["conv"] if size == (32, 32) else ["conv", {"layer": "rows", "layout": "nhwc"}]), size=size)
    assert {one[2:] for one in model.sizes} == {size}


@pytest.mark.parametrize(
    ("square", "wide", "outcome"),
    [
        ("agrees", "agrees", "agrees"),
        ("agrees", "undecided", "agrees"),
        ("undecided", "agrees", "agrees"),
        ("undecided", "undecided", "undecided"),
        ("agrees", "disagrees", "disagrees"),
        ("undecided", "disagrees", "disagrees"),
        ("disagrees", "agrees", "disagrees"),
    ],
)
def test_one_that_disagrees_decides(square: str, wide: str, outcome: str):
    assert together(Verdict(square, "a"), Verdict(wide, "b")).outcome == outcome  # type: ignore[arg-type]
    assert together(Verdict(square, "a"), None) == Verdict(square, "a")  # type: ignore[arg-type]


def test_what_grows_with_the_image_is_no_unit():
    """6 units of 8x8 tokens may also be read as 64 units of 2x2 tokens after 2 others, of which no cell tells."""
    layout = {"kind": "tokens", "axes": ["image", "unit", "token"], "prefix": 2, "grid": [2, 2]}
    message = "on an input twice as wide: what it takes for 64 units become 128: they are cells"
    with pytest.raises(DissectError, match=message):
        found(Rows(), {"layer": "tokens", "layout": layout})
