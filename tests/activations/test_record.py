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
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.store import check_levels
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
