"""Every layout gives the maps that a loop over cells gives, and a wrong one is found out."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.layouts.impulse import judge, places
from dissect_xr.activations.layouts.layout import KINDS, Layout
from dissect_xr.activations.layouts.maps import to_maps
from dissect_xr.activations.layouts.positions import grid_geometry
from dissect_xr.activations.request import LayerChoice, Preprocess, Recording
from dissect_xr.errors import DissectError

MAPS = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
"""(image, unit, y, x)"""


def tokens(maps: Tensor, before: int = 0) -> Tensor:
    """(image, token, unit), row by row, with tokens of -1 before them."""
    rows = [maps[:, :, y, x] for y in range(maps.shape[2]) for x in range(maps.shape[3])]
    return torch.stack([*[torch.full_like(rows[0], -1)] * before, *rows], 1)


def in_windows(maps: Tensor, window: int, shift: int, *, padded_before: bool) -> Tensor:
    """(window, token, unit) as Swin cuts maps, cell by cell; what is filled up is -1."""
    height, width = (-(-n // window) * window for n in maps.shape[2:])
    rolled = -torch.ones(len(maps), maps.shape[1], height, width)
    rows, columns = (height, width) if padded_before else maps.shape[2:]
    for y in range(maps.shape[2]):
        for x in range(maps.shape[3]):
            rolled[:, :, (y - shift) % rows, (x - shift) % columns] = maps[:, :, y, x]
    found = [
        torch.stack([rolled[n, :, y + i, x + j] for i in range(window) for j in range(window)])
        for n in range(len(maps))
        for y in range(0, height, window)
        for x in range(0, width, window)
    ]
    return torch.stack(found)


@pytest.mark.parametrize(
    ("layout", "tensor"),
    [
        (Layout("nchw"), MAPS),
        (Layout("nhwc"), MAPS.movedim(1, 3)),
        (Layout("tokens", grid=(4, 6)), tokens(MAPS)),
        (Layout("tokens", grid=(4, 6), prefix=5), tokens(MAPS, 5)),
        (Layout("tokens", grid=(4, 6), suffix=2), tokens(MAPS.flip(2, 3), 2).flip(1)),
        (Layout("tokens", grid=(4, 6), axes=("token", "image", "unit")), tokens(MAPS).transpose(0, 1)),
        (Layout("tokens", grid=(4, 6), prefix=1, axes=("image", "unit", "token")), tokens(MAPS, 1).transpose(1, 2)),
        (Layout("heads", grid=(4, 6), prefix=1), tokens(MAPS, 1).reshape(2, 25, 3, 1).transpose(1, 2)),
        (Layout("tokens", grid=(4, 6), axes=("image", "token", "head", "unit")), tokens(MAPS).reshape(2, 24, 3, 1)),
        (Layout("windows", grid=(4, 6), window=(2, 2)), in_windows(MAPS, 2, 0, padded_before=False)),
        (Layout("windows", grid=(4, 6), window=(2, 2), shift=(1, 1)), in_windows(MAPS, 2, 1, padded_before=False)),
        (Layout("windows", grid=(4, 6), window=(4, 4), shift=(2, 2)), in_windows(MAPS, 4, 2, padded_before=False)),
        (
            Layout("windows", grid=(4, 6), window=(4, 4), shift=(2, 2), padded="before"),
            in_windows(MAPS, 4, 2, padded_before=True),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Layout) else "",
)
def test_maps_are_those_that_were_put_in(layout: Layout, tensor: Tensor):
    assert torch.equal(to_maps("layer", tensor, layout), MAPS)
    assert Layout.of(layout.parameters) == layout
    assert set(layout.parameters) <= {"kind", "grid", "prefix", "suffix", "axes", "window", "shift", "padded"}


def test_units_of_heads_are_head_by_head():
    tensor = torch.arange(2 * 3 * 6 * 5.0).reshape(2, 3, 6, 5)
    maps = to_maps("layer", tensor, Layout("heads", grid=(2, 3)))
    assert maps.shape == (2, 15, 2, 3)
    assert maps[1, 2 * 5 + 4, 1, 2] == tensor[1, 2, 5, 4]


def test_mask_units_are_pooled_by_a_maximum_over_the_first_tokens():
    """What Hiera does: the maximum over four equal parts of the tokens is the maximum over 2x2 cells."""
    maps = torch.rand(2, 3, 8, 16)
    order = torch.from_numpy(Layout("mask_units", grid=(8, 16), levels=3).order())
    rows = torch.empty(2, 128, 3)
    rows[:, order] = tokens(maps)
    assert torch.equal(to_maps("layer", rows, Layout("mask_units", grid=(8, 16), levels=3)), maps)
    for levels in (2, 1, 0):
        rows, maps = rows.reshape(2, 4, -1, 3).amax(1), nn.functional.max_pool2d(maps, 2)
        layout = Layout("mask_units", grid=tuple(maps.shape[2:]), levels=levels)
        assert torch.equal(to_maps("layer", rows, layout), maps)


def test_one_cell_layouts():
    rows = tokens(MAPS, 1)
    assert to_maps("layer", rows, Layout("token")).tolist() == [[[[-1]]] * 3] * 2
    assert torch.equal(to_maps("layer", rows, Layout("token", index=3))[..., 0, 0], MAPS[:, :, 0, 2])
    assert to_maps("fc", MAPS[:, :, 0, 0], Layout("cell")).shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("maps", "layout 'maps': expected one of nchw"),
        ({"kind": "tokens", "prefixes": 1}, "expected the fields kind, grid.*got 'prefixes'"),
        ({"prefix": 1}, "expected a kind"),
        ({"kind": "tokens", "grid": [14]}, "grid .14.: expected two whole numbers"),
        ({"kind": "tokens", "prefix": -1}, "expected numbers from 0"),
        ({"kind": "nhwc", "grid": [4, 4]}, r"grid \[4, 4\]: expected rows and columns"),
        ({"kind": "windows"}, "expected `window`"),
        ({"kind": "tokens", "axes": ["image", "token"]}, "expected image, token, unit, in any order"),
        ({"kind": "mask_units", "grid": [6, 4], "levels": 2}, "multiples of 2 to the power"),
    ],
)
def test_layouts_that_mean_nothing_are_refused(given: object, message: str):
    with pytest.raises(DissectError, match=message):
        Layout.of(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout("tokens", grid=(4, 5)), "has 24 tokens; a grid of 4x5 with 0 before and 0 after it has 20"),
        (Layout("tokens"), "its grid is not known"),
        (Layout("nhwc"), "expected the axes image, y, x, unit"),
        (Layout("windows", grid=(4, 6), window=(2, 2)), r"expected 2 x 3 windows of 2x2 tokens"),
        (Layout("token", index=30), "has 24 tokens, none with the index 30"),
    ],
)
def test_a_tensor_of_another_layout_is_refused(layout: Layout, message: str):
    with pytest.raises(DissectError, match=message):
        to_maps("layer", tokens(MAPS), layout)


# --- the impulse test ---


def test_places_lie_off_the_diagonal_and_differ():
    for grid in ((2, 2), (3, 3), (4, 6), (8, 8), (14, 14), (16, 7), (64, 64)):
        chosen = places(grid)
        assert len(set(chosen)) == len(chosen) >= 2
        assert all(0 <= y < grid[0] and 0 <= x < grid[1] for y, x in chosen)
        assert all((x, y) not in chosen or (x, y) != (y, x) for y, x in chosen if grid[0] == grid[1])
    assert places((1, 3)) == places((1, 1)) == []


def answers(grid: tuple[int, int], moved: tuple[int, int], blur: float = 0.0) -> np.ndarray:
    found = np.full((len(places(grid)), *grid), blur)
    for n, (y, x) in enumerate(places(grid)):
        found[n, (y + moved[0]) % grid[0], (x + moved[1]) % grid[1]] = 1
    return found


def test_a_verdict_follows_from_where_the_answers_are():
    grid = (8, 12)
    assert judge(answers(grid, (0, 0)), places(grid)).outcome == "agrees"
    for moved in ((0, 1), (0, -1), (1, 0), (0, 4)):
        assert judge(answers(grid, moved), places(grid)).outcome == "disagrees"
        assert judge(answers(grid, moved, blur=0.9), places(grid)).outcome == "undecided"
    assert judge(np.zeros((6, *grid)), places(grid)).outcome == "undecided"
    assert judge(np.zeros((0, 1, 1)), []).outcome == "undecided"
    square = places((8, 8))
    turned = np.stack([answer.T for answer in answers((8, 8), (0, 0))])
    assert judge(turned, square).outcome == judge(turned, square, near=2).outcome == "disagrees"


def test_answers_in_the_next_cell_on_all_sides_agree_and_on_one_side_do_not():
    grid, cells = (8, 12), places((8, 12))
    around, aside = (np.zeros((6, *grid)) for _ in range(2))
    for n, (y, x) in enumerate(cells):
        around[n, y, x + (-1, 1)[n % 2] if 0 < x < 11 else x] = 1
        aside[n, y, (x + (n > 0)) % 12] = 1
    assert judge(around, cells).outcome == "agrees"
    assert judge(aside, cells).outcome == "disagrees"


# --- what is recognised ---

SIZE = (32, 48)
PREPROCESS = Preprocess(SIZE, mean=0.5, std=0.25)  # type: ignore[arg-type]


class Patches(nn.Module):
    """Tokens of 8x8 patches with two tokens before them; a block that mixes nothing, one that mixes all; a head."""

    def __init__(self, patch: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 8, patch, patch)
        self.first, self.mixed, self.attention = nn.Linear(8, 8), nn.Identity(), nn.MultiheadAttention(8, 2)
        self.maps, self.swapped, self.fc = nn.Identity(), nn.Identity(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.embed(x)
        rows = maps.flatten(2).transpose(1, 2)
        rows = self.first(torch.cat([torch.ones(len(x), 2, 8), rows], 1))
        mixed = self.mixed(rows.mean(1, keepdim=True) + 1e-3 * rows.flip(1))
        grid = self.maps(rows[:, 2:].reshape(len(x), *maps.shape[2:], 8))
        self.swapped(rows.transpose(0, 1))
        return self.fc(mixed[:, 0] + grid.mean((1, 2)))


def found(model: nn.Module, *layers: object, size: tuple[int, int] = SIZE):
    recording = Recording(Preprocess(size, mean=0.5, std=0.25), tuple(layers))  # type: ignore[arg-type]
    finder = Finder(model.eval(), partial(to_input, recording.preprocess), size, 8)
    known = finder.known()
    return known, finder.find(known, recording.layers)


def test_layouts_are_recognised_and_agree():
    known, layers = found(
        Patches(), "embed", "first", "maps", "swapped", "first token 1", {"layer": "fc", "layout": "cell"}
    )
    assert {name: one.layout for name, one in layers.items()} == {
        "embed": Layout("nchw"),
        "first": Layout("tokens", grid=(4, 6), prefix=2),
        "first token 1": Layout("token", index=1),
        "maps": Layout("nhwc"),
        "swapped": Layout("tokens", grid=(4, 6), prefix=2, axes=("token", "image", "unit")),
        "fc": Layout("cell"),
    }
    assert {name: one.shape for name, one in layers.items()}["first"] == (8, 4, 6)
    assert layers["embed"].tested is None
    assert all(layers[name].tested.startswith("agrees: 5 of 5") for name in ("first", "maps", "swapped"))
    geometry = grid_geometry(known, layers["first"], SIZE)
    assert geometry.to_attrs() == {
        "y": {"jump": "8", "start": "4", "receptive_field": "32"},
        "x": {"jump": "8", "start": "4", "receptive_field": "48"},
    }
    assert grid_geometry(known, layers["fc"], SIZE) == "its one cell is of the whole image"


@pytest.mark.parametrize(
    "layout",
    [
        {"kind": "tokens", "prefix": 1, "suffix": 1},
        {"kind": "tokens", "prefix": 0, "suffix": 2},
        {"kind": "tokens", "prefix": 2, "grid": [6, 4]},
        {"kind": "tokens", "prefix": 2, "grid": [3, 8]},
    ],
)
def test_a_wrong_layout_is_refused_with_what_answered(layout: dict[str, object]):
    message = r"layer first: a patch of the image was changed, and it was not its own cell.*answered most at \(\d"
    with pytest.raises(DissectError, match=message):
        found(Patches(), {"layer": "first", "layout": layout})


def test_a_layer_that_mixes_everything_is_checked_on_the_first_of_its_layout():
    _, layers = found(Patches(), "mixed")
    said = layers["mixed"].tested
    assert re.match(r"undecided: .*; first of the same layout agrees: 5 of 5", said), said
    shifted = {"layer": "mixed", "layout": {"kind": "tokens", "prefix": 1, "suffix": 1}}
    with pytest.raises(DissectError, match=r"layer mixed: .*at first, which has the same layout: [01] of 5"):
        found(Patches(), shifted)


class Cube(nn.Module):
    """Returns (image, 8, 8, 8) that may be read in two ways, from which nothing can be told where `mix` is set."""

    def __init__(self, mix: bool, last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.cube, self.mix, self.last = nn.Conv2d(3, 8, 4, 4), nn.Identity(), mix, last

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        if self.mix:
            maps = maps.mean((1, 2, 3), keepdim=True).expand(-1, 8, 8, 8) * torch.ones(8, 8, 8)
        return self.cube(maps.permute(0, 2, 3, 1) if self.last else maps.flip(1).roll(1, 1))


@pytest.mark.parametrize("last", [True, False])
def test_a_cube_is_decided_by_the_impulse_test_or_refused(last: bool):
    _, layers = found(Cube(False, last), "cube", size=(32, 32))
    assert layers["cube"].layout.kind == ("nhwc" if last else "nchw")
    assert layers["cube"].tested.startswith("agrees")
    message = r"layer cube: .*may be read as maps \(unit, y, x\) or as maps \(y, x, unit\).*Say which it is"
    with pytest.raises(DissectError, match=message):
        found(Cube(True, last), "cube", size=(32, 32))
    _, layers = found(Cube(True, last), {"layer": "cube", "layout": "nhwc"}, size=(32, 32))
    assert layers["cube"].tested.startswith("undecided")


def test_a_recording_takes_mappings_and_stays_hashable():
    recording = Recording(PREPROCESS, ({"layer": "a", "layout": {"kind": "tokens", "grid": [2, 3]}}, "b"))  # type: ignore[arg-type]
    assert recording.layers == (LayerChoice("a", Layout("tokens", grid=(2, 3))), "b")
    assert hash(recording) == hash(Recording(PREPROCESS, recording.layers))
    with pytest.raises(DissectError, match="expected names, or mappings of `layer` and `layout`"):
        Recording(PREPROCESS, ({"layer": "a"},))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("fc", r"module 'fc' returns a 1x5 float32 tensor"),
        ("first token 2", "2 tokens stand before the grid of first, none with the index 2"),
        ("fc token 0", "fc has no tokens"),
        ("attention.out_proj", "reads its weights and calls none"),
        ("first#2", r"layer 'first#2': module first gives first. Name one of them"),
        ("nothing", "'nothing' matches no module"),
    ],
)
def test_what_selects_nothing_says_why(layer: str, message: str):
    with pytest.raises(DissectError, match=message):
        found(Patches(), layer)


def test_a_pattern_with_a_layout_takes_the_tensors_that_fit():
    _, layers = found(Patches(), {"layer": "*", "layout": {"kind": "tokens", "prefix": 2, "grid": [4, 6]}})
    assert list(layers) == ["first", "mixed"]
    with pytest.raises(DissectError, match="layer embed: is a 1x8x4x6 float32 tensor, expected the axes window"):
        found(Patches(), {"layer": "*", "layout": {"kind": "windows", "window": 7}})


def test_what_is_said_of_one_layer_stands_beside_patterns():
    given = {"layer": "first", "layout": {"kind": "token", "index": 1}}
    for choices in ((given, "*"), ("*", given)):
        _, layers = found(Patches(), *choices)
        assert layers["first"].layout == Layout("token", index=1)
    with pytest.raises(DissectError, match="layer first: is named with two layouts"):
        found(Patches(), given, {"layer": "first", "layout": {"kind": "token", "index": 0}})


class Failing(Patches):
    """Fails on bright images, or runs out of memory with more than `most` of them."""

    def __init__(self, most: int = 9) -> None:
        super().__init__()
        self.most, self.passes = most, []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        if self.most == 0 and x.max() > 1:
            raise KeyError("bright")
        found = super().forward(x)
        if len(x) > self.most > 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found


@pytest.mark.parametrize("most", [3, 2, 1])
def test_a_test_that_does_not_fit_into_memory_is_done_in_smaller_batches(most: int):
    model = Failing(most)
    _, layers = found(model, "first")
    assert layers["first"].tested == found(Patches(), "first")[1]["first"].tested
    assert model.passes[-1] <= most


def test_a_model_that_fails_on_noise_is_an_error_that_says_so():
    with pytest.raises(DissectError, match=r"fails on an input of 1x3x32x48, though not on a blank image: KeyError"):
        found(Failing(0), "first")


def test_patterns_select_taps_too():
    _, layers = found(Patches(), "*i*s* <")
    assert list(layers) == ["first <"]
    assert KINDS[0] == "nchw"
