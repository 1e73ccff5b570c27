"""An image gives the same activations every time and beside whatever other images, or the first layer is named."""

from functools import partial

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dissect_xr.activations.extract import describe
from dissect_xr.activations.images import to_input
from dissect_xr.activations.repeats import check_repeats
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording
from dissect_xr.activations.taps import map_layers
from dissect_xr.errors import DissectError

SIZE = (16, 12)
LOOK = Recording(Preprocess(SIZE), layers=("all",), device="cpu")


class Between(nn.Module):
    """Two convolutions, and something that is done to the maps between them."""

    def __init__(self, kind: str = "nothing") -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.kind, self.passes = kind, 0

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean() > 0.25
        x, self.passes = self.first(x), self.passes + 1
        match self.kind:
            case "dropout":
                x = functional.dropout(x)
            case "numpy":
                x = x * np.random.random()  # noqa: NPY002
            case "rare":  # stochastic depth: in most passes, nothing happens
                x = x * (torch.rand(()) > 0.1)
            case "counting":
                x = x + self.passes
            case "mean of the batch":
                x = x - x.mean()
            case "largest of the batch":
                x = x / x.amax()
            case "first of the batch":
                x = x + x[:1]
            case "size of the batch":
                x = x * len(x)
            case "size by value":
                x = x[:, :, ::2] if bright else x
        return self.second(x)


RANDOM = ["dropout", "numpy", "rare", "counting"]
BATCH = ["mean of the batch", "largest of the batch", "first of the batch", "size of the batch"]


def look(kind: str, **changes: object):
    recording = Recording(**{**LOOK.__dict__, **changes})
    return describe((ModelSpec.of(f"{__name__}:Between", {"kind": kind}, seed=1), recording))


@pytest.mark.parametrize("kind", RANDOM)
def test_random_numbers_are_refused_where_they_reach_a_layer(kind):
    with pytest.raises(DissectError, match=r"layer second does not repeat: .*allow_nondeterministic: true"):
        look(kind)
    assert list(look(kind, layers=("first",)).maps) == ["first"]


@pytest.mark.parametrize("kind", BATCH)
def test_statistics_of_the_batch_are_refused_where_they_reach_a_layer(kind):
    with pytest.raises(DissectError, match=r"layer second gives an image other values beside another image than alone"):
        look(kind)
    assert list(look(kind, layers=("first",)).maps) == ["first"]
    assert look(kind, batch=1).maps.keys() == {"first", "second"}, "no image is ever beside another"


@pytest.mark.parametrize("kind", [*RANDOM, *BATCH])
def test_what_the_recipe_allows_is_not_refused(kind):
    assert look(kind, allow_nondeterministic=True).maps.keys() == {"first", "second"}


def test_a_layer_whose_maps_change_their_size_is_named():
    with pytest.raises(
        DissectError, match=r"layer second: its maps change from image to image: 4x12x8 for a blank image"
    ):
        look("size by value")


def without_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())


@pytest.mark.parametrize("autocast", [None, "bfloat16"])
def test_batch_norm_needs_running_statistics(autocast):
    spec = ModelSpec.of(f"{__name__}:without_statistics")
    with pytest.raises(DissectError, match=r"layer 1 gives .*BatchNorm does with track_running_stats=False"):
        describe((spec, Recording(Preprocess(SIZE), autocast=autocast, device="cpu")))


class OneImage(nn.Module):
    """Takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.view(1, 3, *SIZE))


def test_a_model_of_one_image_needs_a_batch_of_one():
    spec = ModelSpec.of(f"{__name__}:OneImage")
    with pytest.raises(DissectError, match=r"on an input of 2x3x16x12, though not on a blank image: RuntimeError"):
        describe((spec, LOOK))
    assert list(describe((spec, Recording(LOOK.preprocess, batch=1, device="cpu"))).maps) == ["first"]


class StandardDeviation(nn.Module):
    """What StyleGAN's discriminator appends: a map that holds the standard deviation over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = x.std(0, correction=0).mean()
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)


def discriminator() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 64, 3), StandardDeviation(), nn.Conv2d(65, 8, 3))


def test_one_unit_that_depends_on_the_batch_is_enough():
    with pytest.raises(DissectError, match="layer 1 gives an image other values"):
        describe((ModelSpec.of(f"{__name__}:discriminator"), LOOK))


def flipping(batch: np.ndarray) -> Tensor:
    """A `Preprocess.callable` that augments."""
    x = torch.tensor(batch).permute(0, 3, 1, 2) / 255
    return x.flip(3) if torch.rand(()) < 0.5 else x


def centred(batch: np.ndarray) -> Tensor:
    """A `Preprocess.callable` that subtracts the mean of the batch."""
    x = torch.tensor(batch).permute(0, 3, 1, 2) / 255
    return x - x.mean()


@pytest.mark.parametrize(
    ("function", "message"), [("flipping", "does not repeat"), ("centred", "beside another image")]
)
def test_preprocessing_has_to_repeat_as_well(function, message):
    with pytest.raises(DissectError, match=f"the preprocessing .*{message}|the preprocessing {message}"):
        look("nothing", preprocess=Preprocess(SIZE, callable=f"{__name__}:{function}"))


NETWORKS = {
    "resnet": partial(networks.resnet50_shaped, 4, 5),
    "inception": networks.Inception,
    "dense": networks.Dense,
    "camvid": networks.CamVidNet,
    "gate": lambda: nn.Sequential(networks.conv(3, 8, 3), networks.ConvGate(8), nn.InstanceNorm2d(8)),
    "group norm": lambda: nn.Sequential(networks.conv(3, 8, 3), nn.GroupNorm(2, 8), nn.Dropout(), nn.Conv2d(8, 8, 3)),
    "functional": networks.Functional,
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16 weights", "autocast", "float64"])
@pytest.mark.parametrize("network", NETWORKS)
def test_rounding_is_no_difference(network, precision):
    torch.manual_seed(0)
    model, size = NETWORKS[network]().eval(), (64, 64)
    dtype = {"bfloat16 weights": torch.bfloat16, "float64": torch.float64}.get(precision, torch.float32)
    model = model.to(dtype)

    def inputs(pixels: np.ndarray) -> Tensor:
        return to_input(Preprocess(size, mean=(0.5,) * 3, std=(0.25,) * 3), pixels).to(dtype)

    maps = map_layers(model, inputs(np.zeros((1, *size, 3), np.uint8))).maps
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
        check_repeats(model, inputs, size, maps, batch=8)


def test_two_images_that_do_not_fit_are_looked_at_alone():
    model, seen = Between("mean of the batch"), []
    whole = model.first.forward

    def small(x: Tensor) -> Tensor:
        seen.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(x)

    model.first.forward = small
    check_repeats(model, partial(to_input, LOOK.preprocess), SIZE, {"second": (4, 12, 8)}, batch=8)
    assert seen == [2, 1, 1]


def test_looking_leaves_generators_and_buffers_as_they_were():
    def numbers() -> tuple[float, float]:
        return float(torch.rand(())), np.random.random()  # noqa: NPY002

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = numbers()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    for kind in ("dropout", "numpy"):
        look(kind, layers=("first",))
    assert numbers() == expected
