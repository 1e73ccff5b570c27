"""What follows a layer gives, bit by bit, what the whole network gives with a hook that replaces the layer's output."""

import threading
from collections.abc import Callable, Iterator

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.recording.threads import torch_threads
from dissect_xr.activations.taps import map_layers
from dissect_xr.errors import DissectError
from dissect_xr.experiments.replay import replays
from dissect_xr.experiments.replay.cut import CannotCutError, cut
from dissect_xr.experiments.replay.replays import Rest, Whole, replaced, tapped, why_whole


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on several threads take a hundred times as long where others use the same cores."""
    with torch_threads(1):
        yield


def random_sets(units: int, count: int = 5) -> np.ndarray:
    generator = np.random.default_rng(units)
    sets = generator.random((count, units)) < 0.3
    sets[0] = False
    return sets


def both(model: nn.Module, layer: str, batch: Tensor) -> tuple[list[Tensor], list[Tensor], Rest]:
    """Scores of the whole network and of the rest, for random sets and levels."""
    with torch.inference_mode():
        _, units = tapped(model, layer, batch, lambda output: output.shape[1])
        sets, levels = random_sets(units), torch.linspace(-0.5, 1, units)
        rest = Rest.of(model, layer)
        whole = list(Whole(model, layer).scores(batch, sets, levels))
        return whole, list(rest.scores(batch, sets, levels)), rest


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (networks.tiny, 8),
        (networks.CamVidNet, 64),
        (networks.small_resnet, 32),
        (networks.Inception, 32),
        (networks.Dense, 32),
        (networks.Functional, 32),
        (networks.Branching, 16),
    ],
)
def test_every_layer_gives_the_bits_of_the_whole_network(make: Callable[[], nn.Module], size: int, images: int) -> None:
    torch.manual_seed(0)
    model = make().eval()
    batch = torch.randn(images, 3, size, size)
    layers = list(map_layers(model, batch).maps)
    for layer in layers:
        with torch.inference_mode():
            assert why_whole(model, layer, batch) is None, layer
        whole, rest, _ = both(model, layer, batch)
        assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True)), layer
    assert layers


def test_channels_last_stays_channels_last() -> None:
    torch.manual_seed(0)
    model = networks.small_resnet().eval().to(memory_format=torch.channels_last)
    batch = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    whole, rest, _ = both(model, "layer1.0.conv2", batch)
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))
    stack = replays._stacked(batch, images=4, count=3)
    assert stack.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(stack, torch.cat([batch] * 3))


def test_the_network_is_left_as_it_was() -> None:
    model = networks.small_resnet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [*vars(model)]
    both(model.eval(), "layer2", torch.randn(2, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [*vars(model)] == names
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_hooks_of_the_user_are_called() -> None:
    model = networks.tiny().eval()
    for layer in ("1", "2", "3"):
        model.get_submodule(layer).register_forward_hook(lambda module, args, output: output * 2)
    whole, rest, _ = both(model, "2", torch.randn(2, 3, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))


class Mixing(nn.Module):
    """Subtracts the mean over the images of a batch: a larger batch gives other scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.head(x - x.mean(0))


class Counted(Mixing):
    """Uses the number of images, taken before the layer."""

    def forward(self, x: Tensor) -> Tensor:
        images = x.shape[0]
        return self.head(self.conv(x).mean((2, 3)).reshape(images, -1))


class Divided(Mixing):
    """Divides by the number of images: a larger batch runs, and gives other scores."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.head(x) / x.shape[0]


@pytest.mark.parametrize("make", [Mixing, Counted, Divided])
def test_what_depends_on_the_number_of_images_is_not_stacked(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    whole, rest, replay = both(make().eval(), "conv", torch.randn(4, 3, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))
    assert replay.stacks == {4: 1}


def test_a_linear_rest_is_stacked() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 64), nn.Linear(64, 16)).eval()
    whole, rest, replay = both(model, "0", torch.randn(16, 3, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))
    assert replay.stacks[16] in (1, 5), "5 sets in 80 rows, or none where this machine's kernels differ by the rows"


class Aliased(Mixing):
    """What skips past the layer is changed in place through another name."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        view = x[:, :, 1:-1, 1:-1]
        view += self.conv(x).mean(1, keepdim=True)
        return self.head(nn.functional.pad(x.mean((2, 3)), (0, 1)))


class Remembering(Mixing):
    """Adds up what it saw in a constant that is made when the code is followed."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        total += self.conv(x).mean((0, 2, 3))
        return self.head(total.expand(x.shape[0], 4))


class Hidden(Aliased):
    """As above, with a second path on which the layer is seen."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        view, maps = x[:, :, 1:-1, 1:-1], self.conv(x)
        view += maps.mean(1, keepdim=True)
        return self.head(nn.functional.pad(x.mean((2, 3)), (0, 1)) + maps.mean((2, 3)))


OTHERWISE = "what follows the layer gives other scores by itself than in the whole network"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Aliased, "no call leads from the layer to the network's output"),
        (Hidden, OTHERWISE),
        (Remembering, OTHERWISE),
    ],
)
def test_a_rest_that_would_say_something_else_is_found_out(make: Callable[[], nn.Module], reason: str) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        assert why_whole(make().eval(), "conv", torch.randn(4, 3, 8, 8)) == reason


def test_code_that_looks_at_values_runs_whole() -> None:
    model = networks.ByValue().eval()
    batch = torch.randn(2, 3, 16, 16)
    with pytest.raises(CannotCutError, match="cannot be followed: TraceError"):
        cut(model, "first")
    with torch.inference_mode():
        assert "symbolically traced variables" in str(why_whole(model, "first", batch))
        sets = np.array([[False] * 4, [True, False, False, False]])
        plain, ablated = Whole(model, "first").scores(batch, sets, torch.zeros(4))
        assert torch.equal(plain, model(batch))
        with replaced(model, "first", sets[1], torch.zeros(4)):
            assert torch.equal(ablated, model(batch))


def test_data_dependent_code_beside_the_layer_is_called_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), networks.ByValue()).eval()
    with torch.inference_mode():
        assert why_whole(model, "0", torch.randn(2, 3, 16, 16)) is None


@pytest.mark.parametrize(
    ("make", "layer", "message"),
    [
        (networks.Shared, "conv", "runs 2 times"),
        (networks.Shared, "unused", "runs 0 times"),
        (networks.tiny, "9", "no module '9'"),
    ],
)
def test_a_layer_that_is_none_is_refused(make: Callable[[], nn.Module], layer: str, message: str) -> None:
    with torch.inference_mode(), pytest.raises(DissectError, match=message):
        why_whole(make().eval(), layer, torch.randn(2, 3, 8, 8))


def test_a_layer_that_does_not_lead_to_the_output_is_refused() -> None:
    class Side(Mixing):
        def forward(self, x: Tensor) -> Tensor:
            self.conv(x)
            return self.head(nn.functional.pad(x.mean((2, 3)), (0, 1)))

    with torch.inference_mode(), pytest.raises(DissectError, match="output does not depend on it"):
        why_whole(Side().eval(), "conv", torch.randn(2, 3, 8, 8))


def test_tokens_are_refused() -> None:
    class Tokens(Mixing):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.flat(self.conv(x)).mean(2))

    with torch.inference_mode(), pytest.raises(DissectError, match=r"\(image, unit\), got a \(2, 4, 36\)"):
        why_whole(Tokens().eval(), "flat", torch.randn(2, 3, 8, 8))


class Overwriting(Mixing):
    """Changes its input."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        return self.head(self.conv(x).mean((2, 3)))


def test_the_images_stay_as_they_are() -> None:
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 8, 8)
    kept = batch.clone()
    with torch.inference_mode():
        assert why_whole(Overwriting().eval(), "conv", batch) is None
    whole, rest, _ = both(Overwriting().eval(), "conv", batch)
    assert torch.equal(batch, kept)
    assert len(whole) == len(rest) == 5


class Drawing(Mixing):
    """Drops out in eval mode, too, as `F.dropout` does without ``training=``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.conv(x).mean((2, 3)), 0.5))


class Watching(Drawing):
    """The same, by code that cannot be followed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > -10 else x


@pytest.mark.parametrize("make", [Drawing, Watching])
def test_a_network_that_draws_random_numbers_is_refused(make: Callable[[], nn.Module]) -> None:
    with torch.inference_mode(), pytest.raises(DissectError, match="the same images other scores from pass to pass"):
        why_whole(make().eval(), "conv", torch.randn(16, 3, 8, 8))


def test_a_vector_of_units_can_be_ablated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).eval()
    whole, rest, _ = both(model, "1", torch.randn(5, 3, 2, 2))
    assert all(torch.equal(a, b) for a, b in zip(whole, rest, strict=True))
    assert not torch.equal(whole[0], whole[1])


def test_other_threads_see_the_network_as_it_is() -> None:
    model, batch = networks.tiny().eval(), torch.randn(2, 3, 8, 8)
    plain, found = model(batch), []
    with replaced(model, "0", np.ones(4, np.bool_), torch.zeros(4)) as calls:
        thread = threading.Thread(target=lambda: found.append(model(batch)))
        thread.start()
        thread.join()
        assert not calls
        assert not torch.equal(model(batch), plain)
    assert torch.equal(found[0], plain)
    assert torch.equal(model(batch), plain)
