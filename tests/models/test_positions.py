"""Cells of real models lie where their gradient says: within half a pixel of an oracle that is written here.

Of a network without attention, the oracle makes a linear one with the same windows, whose gradient is positive wherever
it looks: weights are constant, maxima are means, and what computes cell by cell does nothing. Of one with attention, it
takes the network as the library initialises it, some times, and the square of the gradient.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vision import library

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.layouts.positions import Place, Positions
from dissect_xr.activations.receptive_field.geometry import Geometry
from dissect_xr.activations.request import Preprocess

torchvision, timm, transformers = library("torchvision"), library("timm"), library("transformers")

Maps = Callable[[Tensor], Tensor]


def tv(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **options)


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, **options)


def plain(raw: Tensor) -> Tensor:
    return raw


def nhwc(raw: Tensor) -> Tensor:
    return raw.permute(0, 3, 1, 2)


def tokens(height: int, width: int, before: int = 0) -> Maps:
    return lambda raw: raw[:, before:].transpose(1, 2).reshape(len(raw), -1, height, width)


def places(model: nn.Module, layers: list[str], size: tuple[int, int]) -> dict[str, Place]:
    finder = Finder(model.eval(), partial(to_input, Preprocess(size, mean=0.5, std=0.25)), size, 2)
    known = finder.known()
    return Positions(finder, known).of(finder.find(known, layers))


def centroids(model: nn.Module, layer: str, maps: Maps, image: Tensor, cells: list[tuple[int, int]], power: int):
    """(cell, 2) the centroids of the gradient of some cells, to a power, along y and x; and the maps' size."""
    heard: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: heard.append(output))
    image = image.requires_grad_()
    model(image)
    hook.remove()
    found = maps(heard[0][0] if isinstance(heard[0], tuple) else heard[0])
    weights = torch.randn(found.shape[1], dtype=found.dtype) if power > 1 else torch.ones_like(found[0, :, 0, 0])
    seen = []
    for row, column in cells:
        (gradient,) = torch.autograd.grad((found[0, :, row, column] * weights).sum(), image, retain_graph=True)
        seen.append(gradient.abs().pow(power).sum((0, 1)))
    return torch.stack(seen)


def along(seen: Tensor, axis: int) -> Tensor:
    """(cell,) centroids along y (0) or x (1)."""
    profile = seen.sum(2 - axis)
    return (profile * (torch.arange(profile.shape[1]) + 0.5)).sum(1) / profile.sum(1)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)])


SILENT = (
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.BatchNorm2d, nn.LayerNorm, nn.Dropout, nn.Sigmoid,
    nn.Hardsigmoid,
)  # fmt: skip


def linear(model: nn.Module) -> nn.Module:
    """A linear network with the windows of this one."""
    model = copy.deepcopy(model).double().eval()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            kind = type(child).__name__
            if isinstance(child, SILENT) or kind.startswith(("BatchNorm", "LayerNorm", "SqueezeExc")):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim > 1 else 0.0)
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "layer_scale")):
            nn.init.ones_(parameter)
    return model


CONVOLUTIONAL: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], list[str]]] = {
    "alexnet": (lambda: torchvision.models.alexnet().features, (227, 240), ["0", "5", "10"]),
    "vgg11": (
        lambda: torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], True), (96, 128), ["3", "11"]
    ),
    "resnet18": (tv("resnet18"), (128, 160), ["maxpool", "layer1", "layer2.0"]),
    "densenet121": (tv("densenet121"), (96, 128), ["features.pool0", "features.denseblock1", "features.transition1"]),
    "inception v3": (tv("inception_v3", init_weights=False), (160, 160), ["Conv2d_2b_3x3", "maxpool2", "Mixed_5b"]),
    "efficientnet b0": (tv("efficientnet_b0"), (96, 128), ["features.2", "features.3"]),
    "convnext, torchvision": (_convnext, (96, 128), ["features.0", "features.1.0", "features.2"]),
    "resnet18, timm": (of_timm("resnet18"), (128, 160), ["layer1", "layer2.0"]),
    "efficientnet b0, timm": (of_timm("efficientnet_b0"), (96, 128), ["blocks.1", "blocks.2"]),
    "convnext, timm": (
        of_timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)), (96, 128),
        ["stem", "stages.0", "stages.1.downsample"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_cells_of_convolutional_networks_lie_where_the_gradient_looks(name: str, monkeypatch: pytest.MonkeyPatch):
    make, size, layers = CONVOLUTIONAL[name]
    model = make()
    found = places(model, layers, size)
    # Functions that modules call: DenseNet and Inception pool and rectify so.
    monkeypatch.setattr(nn.functional, "max_pool2d", nn.functional.avg_pool2d)
    straight = linear(model)
    for layer in layers:
        geometry = found[layer].geometry
        assert isinstance(geometry, Geometry), (layer, geometry)
        assert found[layer].measured is None, "it can be traced"
        shape: list[Any] = []
        hook = straight.get_submodule(layer).register_forward_hook(lambda *given: shape.append(given[2].shape))  # noqa: B023
        image = torch.ones(1, 3, *size, dtype=torch.float64)
        straight(image)
        hook.remove()
        cell = (shape[0][2] // 2, shape[0][3] // 2)
        seen = centroids(straight, layer, plain, image, [cell], 1)
        for axis, line, at in ((0, geometry.y, cell[0]), (1, geometry.x, cell[1])):
            profile = seen[0].sum(1 - axis)
            assert profile[0] == profile[-1] == 0, f"{layer}: the field is cut, so its centroid says nothing"
            assert float(line.start + at * line.jump) == pytest.approx(float(along(seen, axis)[0]), abs=0.5), layer


SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN = {"img_size": (64, 96), "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 24, "window_size": 4}

ATTENTIVE: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], dict[str, tuple[Maps, bool]]]] = {
    # layer -> its maps, and whether it is measured
    "vit, timm": (
        of_timm("vit_tiny_patch16_224", img_size=(64, 96), patch_size=8, **SMALL), (64, 96),
        {"patch_embed.proj": (plain, False), "blocks.0": (tokens(8, 12, 1), False)},
    ),
    "vit, torchvision": (
        lambda: torchvision.models.VisionTransformer(64, 8, 2, 4, 32, 64), (64, 64),
        {"conv_proj": (plain, False), "encoder.layers.encoder_layer_0": (tokens(8, 8, 1), False)},
    ),
    "swin, timm": (
        of_timm("swin_tiny_patch4_window7_224", **SWIN), (64, 96),
        {
            "patch_embed.proj": (plain, False), "layers.0.blocks.1": (nhwc, False),
            "layers.1.downsample": (nhwc, True), "layers.1.blocks.0": (nhwc, True), "layers.1.blocks.1": (nhwc, True),
        },
    ),
    "swin, torchvision": (
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4]), (64, 96),
        {"features.1.1": (nhwc, False), "features.3.0": (nhwc, True), "permute": (plain, True)},
    ),
    "hiera": (
        of_timm("hiera_tiny_224", img_size=(64, 96), stages=(1, 1, 1, 1), embed_dim=24), (64, 96),
        {"blocks.2": (plain, True)},
    ),
    "segformer": (
        lambda: transformers.SegformerModel(
            transformers.SegformerConfig(
                depths=[1, 1], num_encoder_blocks=2, sr_ratios=[4, 2], hidden_sizes=[16, 32], patch_sizes=[7, 3],
                strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
            )
        ),
        (64, 96),
        {"stages.0.blocks.0": (tokens(16, 24), False), "stages.1.blocks.0": (tokens(8, 12), True)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTIVE)
def test_cells_of_transformers_lie_where_the_gradient_looks(name: str):
    """The oracle's gradients are those of four cells in the middle, over some initialisations."""
    make, size, layers = ATTENTIVE[name]
    torch.manual_seed(0)
    models = [make().eval() for _ in range(6)]
    found = places(models[0], list(layers), size)
    for layer, (maps, is_measured) in layers.items():
        place = found[layer]
        assert isinstance(place.geometry, Geometry), (layer, place.geometry)
        assert (place.measured is not None) == is_measured, layer
        seen = []
        for model in models:
            if name == "hiera":
                maps = partial(_rerolled, model)
            image = torch.randn(1, 3, *size)
            with torch.no_grad():
                height, width = grid_of(model, layer, maps, image)
            cells = [(height // 2 - 1 + n // 2, width // 2 - 1 + n % 2) for n in range(4)]
            seen.append(centroids(model, layer, maps, image, cells, 2))
        total = sum(one / one.sum((1, 2), keepdim=True) for one in seen)
        for axis, line, at in ((0, place.geometry.y, height // 2 - 0.5), (1, place.geometry.x, width // 2 - 0.5)):
            assert float(line.start) + at * float(line.jump) == pytest.approx(float(along(total, axis).mean()), abs=0.5)


def _rerolled(model: Any, raw: Tensor) -> Tensor:
    return nhwc(model.reroll(raw, 2))


def grid_of(model: nn.Module, layer: str, maps: Maps, image: Tensor) -> tuple[int, int]:
    heard: list[Any] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda *given: heard.append(given[2]))
    model(image)
    hook.remove()
    height, width = maps(heard[0][0] if isinstance(heard[0], tuple) else heard[0]).shape[2:]
    return height, width


def test_what_is_measured_is_said_with_the_tap_and_the_residual():
    make, size, _ = ATTENTIVE["segformer"]
    found = places(make(), ["stages.1.blocks.0", "stages.1.blocks.0.attention.k_proj", "stages.1"], size)
    block, keys, maps = (found[f"stages.1{rest}"] for rest in (".blocks.0", ".blocks.0.attention.k_proj", ""))
    assert block.measured is not None
    assert block.measured["at"] == "stages.1.patch_embeddings[0]"
    assert set(block.measured["residual"]) == {"y", "x"}
    assert 0 <= max(block.measured["residual"].values()) < 1
    # Patches of 7 every 4 pixels from 1/2, then of 3 every 2 of those from 1/2, then of 2 every 2 from 1/2 + 8 / 2.
    assert [(one.geometry.y.jump, one.geometry.y.start) for one in (block, keys, maps)] == [
        (8, 0.5), (16, 4.5), (8, 0.5)
    ]  # fmt: skip
    assert block.said.startswith("every 8 px from 0.5, measured to 0.")
    assert block.geometry.x.field == keys.geometry.x.field == 96
    assert maps.measured is not None
    assert maps.measured["at"] == "stages.1"


def test_cells_of_hiera_lie_where_its_pooling_leaves_them():
    """Patches of 7 every 4 pixels from 1/2; of 2x2 of them from 1/2 + 4 / 2, of 2x2 of these from 5/2 + 8 / 2."""
    make, size, _ = ATTENTIVE["hiera"]
    found = places(make(), ["blocks.0", "blocks.1", "blocks.2", "blocks.3"], size)
    assert [found[f"blocks.{n}"].geometry.y.start for n in range(3)] == [0.5, 2.5, 6.5]
    assert found["blocks.0"].measured is None
    assert "nor could it be measured: a map of 2x3 cells is too small" in found["blocks.3"].geometry
    assert found["blocks.3"].said == "half_pixel"
