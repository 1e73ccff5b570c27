"""A block's maps keep their levels and their size, and random numbers are the same in every process that draws them."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import stores
import torch
from test_extract import IMAGES, RECORDING, Small, forwards, recorded, run
from torch import Tensor, nn
from torch.nn import functional

from dissect_xr import store
from dissect_xr.activations.recording import batches
from dissect_xr.activations.recording.levels import Levels, check_coarse, check_levels, some_of
from dissect_xr.activations.request import ModelSpec
from dissect_xr.errors import BlocksFailed, DissectError


class Red(nn.Module):
    """Two layers: red times `scale`, and red itself; red is 255 in one pixel of one image, and below 100 elsewhere."""

    def __init__(self, scale: float = 1.0, kind: str = "plain") -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 1, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
        self.kind = kind
        with torch.no_grad():
            for layer, red in ((self.first, scale), (self.second, 1.0)):
                layer.weight.copy_(torch.tensor([red, 0, 0]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        bright = bool((x[:, 0, 0, 0] == 255).any())
        match self.kind:
            case "noisy":
                x = functional.dropout(x, 0.5)
            case "smaller" if bright:
                x = x[:, :, ::2]
            case "one cell" if bright:
                x = x.amax((2, 3), keepdim=True)
        return self.first(x) + self.second(x)


def red(scale: float = 1.0, kind: str = "plain") -> ModelSpec:
    return ModelSpec.of(f"{__name__}:Red", {"scale": scale, "kind": kind})


# --- levels ---


@pytest.mark.parametrize("scale", [1e-9, -1e-9, 2.0**-22])
def test_activations_that_vanish_as_float16_are_an_error_that_names_float32(url, probe, scale):
    """The largest number is 255 times the scale, and 255 * 2**-22 lies just below the smallest normal one, 2**-14."""
    largest = rf"{255 * abs(scale):.3g}".replace("+", r"\+")
    message = rf"layer first: its largest activation of all images is {largest}, but as float16 .*dtype: float32"
    with pytest.raises(DissectError, match=message):
        run(url, probe, spec=red(scale))
    assert store.marker(url, "s/done") is None
    counts, spy = forwards()
    with spy, pytest.raises(DissectError, match=message):
        run(url, probe, spec=red(scale))
    assert counts == [], "what is known is not computed again"
    single = url.replace("activations", "single")
    run(single, probe, spec=red(scale), recording=replace(RECORDING, dtype="float32"))
    values = recorded(single, "first")
    np.testing.assert_array_equal(values, recorded(single, "second") * np.float32(scale))


@pytest.mark.parametrize("scale", [2.0**-21, 0.0, 1.0])
def test_layers_that_are_faint_in_some_blocks_or_silent_in_all_are_stored(url, probe, scale):
    """255 * 2**-21 is above 2**-14, in one block of three; the 99 * 2**-21 of the other blocks are below it."""
    run(url, probe, spec=red(scale))
    faint = [store.marker(url, f"s/blocks/{span}")["note"].get("faint", {}) for span in ("0-16", "16-32", "32-40")]
    expected = {0.0: [{"first"}] * 3, 1.0: [set()] * 3}.get(scale, [{"first"}, set(), {"first"}])
    assert [set(layers) for layers in faint] == expected
    np.testing.assert_array_equal(recorded(url, "first"), (recorded(url, "second") * np.float32(scale)).astype("f2"))


def test_every_block_counts_and_none_is_read_in_vain():
    check_levels([], "float16")
    check_levels([{}, {"a": 1e-9}], "float16")
    check_levels([{"a": 0.0}, {"a": 0.0}], "float16")
    with pytest.raises(
        DissectError, match=r"layer b: its largest activation of all images is 2e-09.* Such layers: b\.$"
    ):
        check_levels([{"a": 1e-9, "b": 1e-9}, {"b": 2e-9, "c": 1e-9}], "float16")
    read = []

    def blocks():
        for n in range(9):
            read.append(n)
            yield {"a": 1e-9} if n < 2 else {}

    check_levels(blocks(), "float16")
    assert read == [0, 1, 2]


class Near(nn.Module):
    """Two layers: red / 10,000 and as much again, from 1000 on; and red itself."""

    def __init__(self, offset: float = 1000.0, scale: float = 1e-4) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[scale, 0, 0], [2 * scale, 0, 0]]).reshape(2, 3, 1, 1))
            self.first.bias.fill_(offset)
            self.second.weight.copy_(torch.tensor([[1.0, 0, 0], [2, 0, 0]]).reshape(2, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


def near(offset: float, scale: float) -> ModelSpec:
    return ModelSpec.of(f"{__name__}:Near", {"offset": offset, "scale": scale})


def test_activations_that_float16_cannot_tell_apart_are_an_error_that_names_float32(url, probe):
    """Red is 0 to 99, so values lie between 1000 and 1000.02, where float16 has one number: its steps are 0.5."""
    message = r"layer first: as float16, most of its units lose most of their levels.*dtype: float32.*layers: first\.$"
    with pytest.raises(DissectError, match=message):
        run(url, probe, spec=near(1000.0, 1e-4))
    assert store.marker(url, "s/done") is None
    counts, spy = forwards()
    with spy, pytest.raises(DissectError, match=message):
        run(url, probe, spec=near(1000.0, 1e-4))
    assert counts == [], "what is known is not computed again"
    single = url.replace("activations", "single")
    run(single, probe, spec=near(1000.0, 1e-4), recording=replace(RECORDING, dtype="float32"))
    assert np.unique(recorded(single, "first")).size > 50


def test_so_are_their_tails(url, probe):
    with pytest.raises(DissectError, match="layer first: as float16, most of its units lose most of their levels"):
        run(url, probe, spec=near(1000.0, 1e-4), recording=replace(RECORDING, keep="tail"))


@pytest.mark.parametrize(("offset", "scale"), [(1000.0, 1.0), (0.0, 1e-4), (-3.0, 1.0), (1000.0, 0.0)])
def test_layers_that_keep_their_levels_are_stored(url, probe, offset, scale):
    run(url, probe, spec=near(offset, scale))
    assert recorded(url, "first").dtype == np.float16


def levels(*units: np.ndarray, dtype: str = "float16"):
    """What is found of a layer with these units, 1,024 values each."""
    sample = Levels()
    sample.add(some_of(np.stack(units).astype(np.float32).reshape(1, len(units), 32, 32)))
    return sample.coarse(dtype)


LINE = np.arange(1024)
"""1,024 different values."""


def test_which_layers_are_coarse():
    fine, coarse = LINE * 1.0, 1 + LINE / 2**23  # below 1 + 2**-13, the next number of float16 is 1 + 2**-10
    assert levels(coarse) == (64, 1)  # the sample of one image is 64 values
    assert levels(coarse, coarse, fine) == (192, 66)
    assert levels(coarse, fine) is None, "half of the units are not most of them"
    assert levels(coarse, np.zeros(1024), np.ones(1024)) == (64, 1), "dead and constant units do not count"
    assert levels(np.zeros(1024), np.ones(1024)) is None
    assert levels(LINE % 2, 1000 + LINE % 2, LINE % 3 - 1) is None, "few values as computed, all of them kept"
    assert levels(1000 + LINE % 7 / 1024) is None, "seven values, of which one is left: too few to tell"
    assert levels(np.maximum(LINE - 900, 0) * 1e-7, np.maximum(LINE - 900, 0), fine) is None, "one weak unit of three"
    assert levels(coarse, dtype="float32") is None
    vanishing = np.where(LINE < 900, LINE * 1e-12, LINE)
    assert levels(vanishing) is None, "the largest values, among which a threshold lies, are kept apart"


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 3, 7, 7), (32, 64, 13, 13), (256, 999, 1, 1), (1, 70, 224, 224), (5, 2, 1, 197), (64, 8, 3, 99)],
)
def test_a_sample_is_small_and_spread(shape):
    maps = np.broadcast_to(np.float32(0), shape)
    chosen = some_of(maps)
    values, whole = chosen.shape[0] * chosen.shape[2] * chosen.shape[3], shape[0] * shape[2] * shape[3]
    assert chosen.shape[1] <= 64
    assert values <= 1100
    assert values >= min(whole, 32 * min(shape[0], 16))
    assert len(chosen) >= min(shape[0], 16) // 2


def test_a_sample_is_made_of_several_batches():
    sample = Levels()
    while not sample.complete:
        sample.add(some_of(np.zeros((16, 5, 1, 1), np.float32), sample.values))
    assert sample.values == 512


def test_a_layer_is_coarse_if_it_is_in_every_block():
    check_coarse([], "float16")
    check_coarse([{"a": (100, 1)}, {}], "float16")
    with pytest.raises(DissectError, match=r"layer b: as float16.* 300 distinct values become 3, .* Such layers: b\.$"):
        check_coarse([{"a": (100, 1), "b": [100, 1]}, {"b": [200, 2]}], "float16")


# --- sizes ---


@pytest.mark.parametrize(("kind", "got"), [("smaller", "1x6x10"), ("one cell", "1x1x1")])
def test_a_layer_whose_maps_change_their_size_is_named_at_once(url, probe, kind, got):
    """One cell would be copied into all cells of the map without an error."""
    passes, spy = forwards()
    with spy, pytest.raises(BlocksFailed) as caught:
        run(url, probe, spec=red(kind=kind))
    (failure,) = caught.value.failures
    assert failure.what == "activations of s, images 16.png to 31.png (16)"
    assert (
        f"layer first: its maps change from image to image: 1x12x10 for a blank image, {got} for 8" in failure.message
    )
    assert "failed 3 times" not in failure.message
    assert len(passes) == 4, "two batches of each of the blocks that succeed, but for the last, and one that fails"


# --- random numbers ---

ALLOWED = replace(RECORDING, allow_nondeterministic=True)


def test_random_numbers_are_refused_unless_the_recipe_allows_them(url, probe):
    with pytest.raises(DissectError, match=r"layer first does not repeat: .*allow_nondeterministic: true"):
        run(url, probe, spec=red(kind="noisy"))
    assert not Path(url).exists()
    run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    values = recorded(url, "second")
    assert 0.3 < (values == 0).mean() < 0.6, "dropout leaves half of the pixels"


def test_a_block_draws_the_same_numbers_whenever_and_wherever_it_is_done(url, probe, processes, tmp_path):
    run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    before = stores.digest(Path(url))
    (Path(url).parent / "markers/activations.zarr/s/blocks/16-32.json").unlink()
    torch.rand(7)
    run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    assert stores.digest(Path(url)) == before
    other = str(tmp_path / "other" / "activations.zarr")
    run(other, probe, spec=red(kind="noisy"), recording=ALLOWED, pool=processes)
    assert stores.digest(Path(other)) == before
    values = recorded(url, "second")
    assert (values[:8] == 0).tolist() != (values[16:24] == 0).tolist(), "each block has numbers of its own"


def test_generators_of_the_process_go_on_as_if_nothing_was_drawn(url, probe):
    torch.manual_seed(3)
    expected = torch.rand(4).tolist()
    torch.manual_seed(3)
    run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    assert torch.rand(4).tolist() == expected


def test_the_batch_belongs_to_what_was_drawn(url, probe):
    run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    with pytest.raises(DissectError, match="made from something else: batch was 8, is 5"):
        run(url, probe, spec=red(kind="noisy"), recording=replace(ALLOWED, batch=5))
    run(url, probe, spec=red(), snapshot="plain", recording=ALLOWED)
    with pytest.raises(DissectError, match="allow_nondeterministic was True, is None; batch was 8, is None"):
        run(url, probe, spec=red(), snapshot="plain")


def test_a_smaller_batch_is_not_chosen_where_it_would_change_the_numbers(url, probe):
    with (
        patch.object(batches, "forward", Small(4)),
        pytest.raises(DissectError, match=r"a batch of 8 images does not fit into the memory of cpu.*smaller batch"),
    ):
        run(url, probe, spec=red(kind="noisy"), recording=ALLOWED)
    run(url, probe, spec=red(kind="noisy"), recording=replace(ALLOWED, batch=4), snapshot="again")
    assert recorded(url, "first", "again").shape[0] == IMAGES
