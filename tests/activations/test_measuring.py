"""Where a model cannot be traced, the gradient says where cells look, exactly; and nothing where it is unsure."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.receptive_field import measuring
from dissect_xr.activations.receptive_field.geometry import NoGeometryError
from dissect_xr.activations.receptive_field.lines import UnsureError, line_of
from dissect_xr.activations.receptive_field.measuring import Measured, Meter, Spot
from dissect_xr.activations.tapping.name import Tap


def noise(size: tuple[int, int], number: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(number)) + 1 - 2 * (number % 2)


def measured(model: nn.Module, size: tuple[int, int], layer: str = "last", grid: tuple[int, int] | None = None):
    shapes = [grid] if grid is not None else []
    if not shapes:
        hook = model.get_submodule(layer).register_forward_hook(lambda *given: shapes.append(tuple(given[2].shape[2:])))
        model(noise(size, 0))
        hook.remove()
    (found,) = Meter(model, partial(noise, size)).measure([Spot(Tap(layer), lambda maps: maps, shapes[0])])
    return found


def named(*modules: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*modules[:-1])
    model.add_module("last", modules[-1])
    return model


class Joined(nn.Module):
    """A small UNet: what was halved twice comes back up and is joined to what was not."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = networks.conv(3, 8, 3, padding=1), networks.conv(8, 8, 3, padding=1)
        self.bottom, self.up = networks.conv(8, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2)
        self.last = networks.conv(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.down1(x), 2)
        low = self.bottom(nn.functional.max_pool2d(self.down2(x), 2))
        return self.last(torch.cat([x, self.up(low)], 1))


class Rolled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.roll(x, 2, 3))


KNOWN: dict[str, tuple[nn.Module, tuple[int, int], tuple[str, str], tuple[str, str]]] = {
    # After a window: start + (dilation * (kernel - 1) / 2 - padding) * jump, jump * stride; (jump, start) of y and x.
    "strides": (named(nn.Conv2d(3, 8, 7, 2, 3), nn.Conv2d(8, 8, 3, 2, 1)), (64, 72), ("4", "1/2"), ("4", "1/2")),
    "no padding": (named(nn.Conv2d(3, 8, (5, 3), (2, 3))), (41, 40), ("2", "5/2"), ("3", "3/2")),
    "dilated": (
        named(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, dilation=3)), (64, 64), ("2", "13/2"), ("2", "13/2")
    ),
    "grouped": (named(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, groups=8)), (64, 64), ("4", "6"), ("4", "6")),
    "ceil mode": (
        named(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)), (40, 43), ("2", "5/2"), ("2", "5/2")
    ),
    # Twice as many cells as before: the jump is halved, the map still lies in the middle: start 2 of jump 4 becomes 1.
    "transposed 2": (named(nn.Conv2d(3, 8, 4, 4), nn.ConvTranspose2d(8, 8, 2, 2)), (64, 64), ("2", "1"), ("2", "1")),
    "transposed 4": (
        named(nn.Conv2d(3, 8, 4, 4), nn.ConvTranspose2d(8, 8, 4, 2, 1)), (64, 64), ("2", "1"), ("2", "1")
    ),
    "nearest": (
        named(nn.Conv2d(3, 8, 4, 4), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1)), (64, 64),
        ("2", "1"), ("2", "1"),
    ),
    # 40 cells 2 pixels apart from 1/2 to 78 1/2 become 97 between the same ends: (78 1/2 - 1/2) / 96 = 13/16.
    "corners": (
        named(
            nn.Conv2d(3, 8, 3, 2, 1), nn.Upsample(size=(97, 97), mode="bilinear", align_corners=True), nn.Identity()
        ),
        (80, 80), ("13/16", "1/2"), ("13/16", "1/2"),
    ),
    "joined": (Joined(), (64, 48), ("2", "1"), ("2", "1")),
    # What goes out at one border comes in at the other, so cells there see both.
    "rolled": (Rolled(), (32, 32), ("1", "1/2"), ("1", "-3/2")),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_jump_and_start_are_exact(name: str):
    model, size, y, x = KNOWN[name]
    found = measured(model.eval(), size)
    assert isinstance(found, Measured), found
    assert [(str(axis.jump), str(axis.start)) for axis in (found.geometry.y, found.geometry.x)] == [y, x]
    assert max(found.residual) < float(found.geometry.y.jump)
    assert name != "rolled" or (found.geometry.y.field, found.geometry.x.field) == (3, 3)


def test_the_field_is_what_the_gradient_reaches():
    found = measured(named(nn.Conv2d(3, 8, (5, 3)), nn.Conv2d(8, 8, 3, 2)), (40, 40))
    assert isinstance(found, Measured)
    assert (found.geometry.y.field, found.geometry.x.field) == (7, 5)


def test_weights_do_not_matter():
    """All snapshots of a model have one geometry, whatever their kernels look at."""
    one, other = Joined().eval(), Joined().eval()
    with torch.no_grad():
        other.down1.get_parameter("0.weight").zero_()
        other.down1.get_parameter("0.weight")[..., 0, 0] = 5  # only ever looks to the upper left
    assert measured(one, (64, 48)) == measured(other, (64, 48))


def test_other_layers_do_not_matter():
    model = named(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).eval()
    spots = [Spot(Tap("0"), lambda maps: maps, (20, 20)), Spot(Tap("last"), lambda maps: maps, (10, 10))]
    meter = Meter(model, partial(noise, (40, 40)))
    together = meter.measure(spots)
    assert all(isinstance(one, Measured) for one in together)
    assert together == [*meter.measure(spots[:1]), *meter.measure(spots[1:])]


def test_the_model_is_not_touched():
    model = Joined().train()
    before, state = {name: one.clone() for name, one in model.state_dict().items()}, torch.get_rng_state()
    assert isinstance(measured(model, (32, 32), grid=(16, 16)), Measured)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


class Mixing(nn.Module):
    """Tokens of 8x8 pixels, brought together in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.embed, self.last = way, nn.Conv2d(3, 16, 8, 8), nn.Identity()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.embed(x)
        tokens = maps.flatten(2).transpose(1, 2)
        ways: dict[str, Callable[[], Tensor]] = {
            "block": lambda: tokens + self.attention(tokens, tokens, tokens)[0],
            "attention": lambda: self.attention(tokens, tokens, tokens)[0],
            "shuffled": lambda: tokens[:, torch.randperm(48, generator=torch.Generator().manual_seed(0))],
            "mirrored": lambda: tokens.flip(1),
            "detached": lambda: tokens.detach(),
            "by value": lambda: tokens if x.mean() > 0 else tokens.roll(8, 1),
        }
        return self.last(ways[self.way]().transpose(1, 2).reshape(maps.shape))


def test_a_token_keeps_its_place_in_a_block():
    found = measured(Mixing("block").eval(), (48, 64))
    assert isinstance(found, Measured)
    assert [(axis.jump, axis.start, axis.field) for axis in (found.geometry.y, found.geometry.x)] == [
        (8, 4, 48), (8, 4, 64)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("attention", "fewer than two of its 6 cells see no border"),
        ("shuffled", "cannot be told apart"),
        ("mirrored", "mirrored: they lie -8 pixels apart"),
        ("detached", "no gradient reaches the image"),
        ("by value", "uncertain by"),
    ],
)
def test_what_looks_nowhere_in_particular_is_a_reason(way: str, reason: str):
    found = measured(Mixing(way).eval(), (48, 64))
    assert isinstance(found, str)
    assert reason in found


def test_maps_of_another_size_or_too_small_or_out_of_reach_are_reasons():
    model = named(nn.Conv2d(3, 4, 3)).eval()
    assert "another size" in measured(model, (32, 32), grid=(8, 8))
    assert measured(model, (5, 32)) == "a map of 3x30 cells is too small"
    meter = Meter(model, partial(noise, (32, 16)))
    with torch.no_grad():
        found = meter.measure([Spot(Tap("last"), lambda maps: maps[:, :, 40], (30, 14))])
    assert "the model fails with weights that are drawn anew: IndexError" in found[0]


def test_models_that_cannot_be_copied_are_reasons(monkeypatch: pytest.MonkeyPatch):
    model = named(nn.Conv2d(3, 4, 3))
    model.last.register_buffer("scale", torch.ones(1, device="meta"))
    with pytest.raises(NoGeometryError, match="computes buffers from weights"):
        Meter(model, partial(noise, (8, 8)))
    monkeypatch.setattr(measuring, "PARAMETERS", 100)
    with pytest.raises(NoGeometryError, match=r"has 112 parameters, and is not measured above 100"):
        Meter(named(nn.Conv2d(3, 4, 3)), partial(noise, (8, 8)))


def test_parameters_without_values_are_enough():
    with torch.device("meta"):
        empty = named(nn.Conv2d(3, 8, 7, 2, 3), nn.Conv2d(8, 8, 3, 2, 1))
    whole = KNOWN["strides"][0]
    spot = Spot(Tap("last"), lambda maps: maps, (16, 18))
    assert Meter(empty, partial(noise, (64, 72))).measure([spot]) == Meter(whole, partial(noise, (64, 72))).measure(
        [spot]
    )


# --- lines ---


def boxes(centres: list[float], length: int, half: int = 1) -> np.ndarray:
    """(cell, pixel): each cell sees so many pixels on each side of its centre."""
    pixels = np.arange(length) + 0.5
    return (np.abs(pixels - np.array(centres)[:, None]) < half).astype(float)


def test_cells_at_a_border_do_not_count():
    seen = boxes([1, 3, 5, 7, 9, 11], 12)
    seen[0, 1] = seen[5, 10] = 0  # cut fields, whose centroids lie further out
    found = line_of(np.arange(6), seen[None])
    assert (found.jump, found.start, found.field, found.residual, found.error) == (2, 1, 2, 0, 0)


def test_noise_is_rounded_away():
    """Centroids that are off by up to 0.2 pixels, by turns to both sides."""
    centres = [4 + 8 * n for n in range(8)]
    seen = np.stack([boxes(centres, 64, 3)] * 2)
    for n in range(8):
        seen[:, n, round(centres[n]) + (2 if n % 2 else -3)] *= 1.4
    found = line_of(np.arange(8), seen)
    assert (found.jump, found.start) == (8, 4)
    assert 0.1 < found.residual < 0.25


def test_a_jump_that_is_the_ratio_of_sizes():
    """A map of 5 cells over 64 pixels: 12.8 apart, from 6.4."""
    centres = [6.4 + 12.8 * n for n in range(5)]
    pixels = np.arange(64) + 0.5
    seen = np.exp(-((pixels - np.array(centres)[:, None]) ** 2) / 8)
    found = line_of(np.arange(5), seen[None])
    assert (found.jump, found.start) == (Fraction(64, 5), Fraction(32, 5))


def test_a_little_that_is_seen_of_everything_does_not_shorten_the_jump():
    """28 cells 8 pixels apart, each of which also sees 1/400 of the image evenly: the jump is 7.98."""
    centres = [2.5 + 8 * n for n in range(28)]
    seen = boxes(centres, 224, 4) / 8 + 1 / 400 / 224
    found = line_of(np.arange(28), seen[None])
    assert (found.jump, found.start) == (8, Fraction(5, 2))
    assert 0.1 < found.residual < 0.4


def test_draws_that_do_not_agree_are_unsure():
    one, other = (boxes([shift + 4 * n for n in range(1, 6)], 40) for shift in (3, 8))
    with pytest.raises(UnsureError, match="uncertain by 5 pixels"):
        line_of(np.arange(1, 6), np.stack([one, other]), count=7)


def test_cells_that_lie_on_no_line_are_refused():
    with pytest.raises(NoGeometryError, match="uncertain by"):
        line_of(np.arange(6), boxes([6, 9, 24, 27, 42, 57], 64)[None])
