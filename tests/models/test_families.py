"""Taps of real models are what plain hooks hear, their layouts are those of the libraries, wrong ones are found out.

The maps that are expected come from the libraries' own functions where these have any (`window_reverse`, `reroll`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vision import library

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.layouts.positions import grid_geometry
from dissect_xr.activations.request import Preprocess, Recording
from dissect_xr.activations.taps import as_tapped, forward
from dissect_xr.errors import DissectError

torchvision, timm, transformers = library("torchvision"), library("timm"), library("transformers")

Maps = Callable[[nn.Module, Tensor], Tensor]


def plain(model: nn.Module, raw: Tensor) -> Tensor:
    return raw


def nhwc(model: nn.Module, raw: Tensor) -> Tensor:
    return torch.einsum("nyxu->nuyx", raw)


def tokens(height: int, width: int, before: int = 0) -> Maps:
    def maps(model: nn.Module, raw: Tensor) -> Tensor:
        return torch.stack([raw[:, before + y * width : before + (y + 1) * width] for y in range(height)], 1).permute(
            0, 3, 1, 2
        )

    return maps


def heads(height: int, width: int, before: int) -> Maps:
    """(image, head, token, channel), so that all channels of a head come before those of the next."""

    def maps(model: nn.Module, raw: Tensor) -> Tensor:
        rows = torch.cat([raw[:, head] for head in range(raw.shape[1])], -1)
        return tokens(height, width, before)(model, rows)

    return maps


def windows(height: int, width: int, shift: int) -> Maps:
    """As timm puts windows of 4x4 together again."""

    def maps(model: nn.Module, raw: Tensor) -> Tensor:
        from timm.models.swin_transformer import window_reverse

        cut = raw.reshape(-1, 4, 4, raw.shape[-1])
        joined = window_reverse(cut, (4, 4), height, width)
        return nhwc(model, torch.roll(joined, (shift, shift), (1, 2)))

    return maps


def rerolled(block: int) -> Maps:
    """As Hiera itself brings the tokens of a block back."""
    return lambda model, raw: nhwc(model, model.reroll(raw, block))


@dataclass(frozen=True)
class Family:
    make: Callable[[], nn.Module]
    size: tuple[int, int]
    layers: dict[str, Maps] = field(default_factory=dict)
    """layer -> its maps from what the module returns; empty: all modules, as they are"""
    wrong: tuple[dict[str, Any], ...] = ()
    jump: int | None = None
    """pixels between the cells of the first of `layers`"""
    start: float | None = None
    """where its first cell lies; None: the cells divide the image evenly"""


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, **options)


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision.models, name)(weights=None, **options)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)])


def _hugging(config: str, model: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**options))


SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SHIFTED = ({"kind": "tokens", "prefix": 0, "suffix": 1}, {"kind": "tokens", "prefix": 1, "grid": [6, 4]})


def _wrong(layer: str, *layouts: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple({"layer": layer, "layout": layout} for layout in layouts)


FAMILIES: dict[str, Family] = {
    "resnet18": Family(_torchvision("resnet18"), (64, 96)),
    "resnet50": Family(_torchvision("resnet50"), (64, 96)),
    "densenet121": Family(_torchvision("densenet121"), (64, 64)),
    "vgg11": Family(_torchvision("vgg11", num_classes=2), (32, 64)),
    "inception v3": Family(_torchvision("inception_v3", init_weights=False), (75, 96)),
    "mobilenet v3": Family(_torchvision("mobilenet_v3_small"), (64, 96)),
    "efficientnet": Family(_torchvision("efficientnet_b0"), (64, 96)),
    "regnet": Family(_torchvision("regnet_y_400mf"), (64, 96)),
    "convnext, timm": Family(
        _timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
        (64, 96),
        {"stages.0.blocks.0.mlp.act": nhwc, "stages.0.blocks.0": plain, "stages.1.blocks.0.mlp.fc2 <": nhwc},
        _wrong("stages.0.blocks.0.norm", {"kind": "nchw"}),
        4,
    ),
    "convnext, torchvision": Family(
        _convnext, (64, 96), {"features.1.0.block.4": nhwc, "features.1.0": plain}, jump=4,
        wrong=_wrong("features.1.0.block.2", {"kind": "nchw"}),
    ),
    "swin, timm": Family(
        _timm(
            "swin_tiny_patch4_window7_224", img_size=(64, 96), depths=(2, 2), num_heads=(2, 4), embed_dim=24,
            window_size=4,
        ),
        (64, 96),
        {
            "layers.0.blocks.0": nhwc,
            "layers.0.blocks.0.attn.qkv": windows(16, 24, 0),
            "layers.0.blocks.1.attn.qkv": windows(16, 24, 2),
            "layers.0.blocks.1.attn": windows(16, 24, 2),
            "layers.0.blocks.1.mlp.fc2 <": tokens(16, 24),
            "layers.1.blocks.1": nhwc,
        },
        (
            *_wrong("layers.0.blocks.0", {"kind": "nchw"}),
            *_wrong("layers.0.blocks.1.attn", {"kind": "windows", "window": 4, "grid": [16, 24]}),
            *_wrong("layers.0.blocks.1.attn", {"kind": "windows", "window": 4, "grid": [24, 16], "shift": 2}),
        ),
        4,
    ),
    "swin, torchvision": Family(
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4]),
        (64, 96),
        {"features.1.0": nhwc, "features.1.1.mlp.1": nhwc, "features.3.1.attn": nhwc, "permute": plain},
        _wrong("features.1.0", {"kind": "nchw"}),
        4,
    ),
    "swin, transformers": Family(
        _hugging(
            "SwinConfig", "SwinModel", image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
            window_size=4,
        ),
        (64, 96),
        {
            "encoder.layers.0.blocks.0[0]": tokens(16, 24),
            "encoder.layers.0.blocks.1.attention.q_proj": windows(16, 24, 2),
            "encoder.layers.0.blocks.0.attention[0]": windows(16, 24, 0),
        },
        _wrong("encoder.layers.0.blocks.1.attention.q_proj", {"kind": "windows", "window": 4, "grid": [16, 24]}),
        4,
    ),
    "vit, timm": Family(
        _timm("vit_tiny_patch16_224", img_size=(64, 96), **SMALL),
        (64, 96),
        {
            "blocks.0": tokens(4, 6, 1),
            "blocks.1.mlp.fc2 <": tokens(4, 6, 1),
            "blocks.1.attn.k_norm": heads(4, 6, 1),
            "patch_embed": tokens(4, 6),
        },
        (*_wrong("blocks.0", *SHIFTED), *_wrong("blocks.1", *SHIFTED)),
        16,
    ),
    "vit, torchvision": Family(
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64),
        (32, 32),
        {
            "encoder.layers.encoder_layer_1": tokens(4, 4, 1),
            "encoder.layers.encoder_layer_0.self_attention[0]": tokens(4, 4, 1),
        },
        _wrong("encoder.layers.encoder_layer_1", SHIFTED[0]),
        8,
    ),
    "deit, distilled": Family(
        _timm("deit_tiny_distilled_patch16_224", img_size=(64, 96), **SMALL),
        (64, 96),
        {"blocks.1": tokens(4, 6, 2), "blocks.0.attn": tokens(4, 6, 2)},
        _wrong("blocks.1", {"kind": "tokens", "prefix": 1, "suffix": 1}),
        16,
    ),
    "dinov2 with registers, timm": Family(
        _timm("vit_small_patch14_reg4_dinov2", img_size=(56, 70), **SMALL),
        (56, 70),
        {"blocks.1": tokens(4, 5, 5), "blocks.0.attn.q_norm": heads(4, 5, 5)},
        _wrong("blocks.1", {"kind": "tokens", "prefix": 1, "suffix": 4}, {"kind": "tokens", "prefix": 4, "suffix": 1}),
        14,
    ),
    "dinov2 with registers, transformers": Family(
        _hugging(
            "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", hidden_size=32, num_hidden_layers=2,
            num_attention_heads=2, image_size=56, patch_size=14,
        ),
        (56, 70),
        {"encoder.layer.1": tokens(4, 5, 5), "encoder.layer.0.mlp.fc2 <": tokens(4, 5, 5)},
        _wrong("encoder.layer.1", {"kind": "tokens", "prefix": 1, "suffix": 4}),
        14,
    ),
    "hiera": Family(
        _timm("hiera_tiny_224", img_size=(64, 96), stages=(1, 1, 1, 1)),
        (64, 96),
        {"blocks.0": rerolled(0), "blocks.1": rerolled(1), "blocks.2": rerolled(2), "blocks.3": rerolled(3)},
        _wrong("blocks.0", {"kind": "tokens", "grid": [16, 24]}, {"kind": "mask_units", "grid": [16, 24], "levels": 2}),
        4,
        0.5,
    ),
    "clip": Family(
        _hugging("CLIPVisionConfig", "CLIPVisionModel", image_size=64, patch_size=16, **HIDDEN),
        (64, 64),
        {
            "encoder.layers.1": tokens(4, 4, 1),
            "encoder.layers.0.self_attn[0]": tokens(4, 4, 1),
            "encoder[last_hidden_state]": tokens(4, 4, 1),
        },
        _wrong("encoder.layers.1", SHIFTED[0]),
        16,
    ),
    "segformer": Family(
        _hugging(
            "SegformerConfig", "SegformerModel", depths=[1, 1], num_encoder_blocks=2, sr_ratios=[4, 2],
            hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        ),
        (64, 96),
        {
            "stages.0.blocks.0": tokens(16, 24),
            "stages.0.blocks.0.attention.k_proj": tokens(4, 6),
            "stages.1.blocks.0": tokens(8, 12),
            "stages.1": plain,
        },
        _wrong("stages.0.blocks.0", {"kind": "tokens", "grid": [24, 16]}),
    ),
}  # fmt: skip


@functools.cache
def built(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FAMILIES[name].make().eval()


def finder_of(name: str) -> Finder:
    size = FAMILIES[name].size
    return Finder(built(name), partial(to_input, Preprocess(size, mean=0.5, std=0.25)), size, 8)  # type: ignore[arg-type]


def batch_of(name: str) -> Tensor:
    return torch.randn(2, 3, *FAMILIES[name].size, generator=torch.Generator().manual_seed(1))


def heard_by_hooks(model: nn.Module, batch: Tensor, layers: list[str]) -> dict[str, Tensor]:
    """What plain hooks hear, written for the names of these tests alone: an input, or an element, or all."""
    found: dict[str, Tensor] = {}
    handles, modules = [], dict(model.named_modules())
    for layer in layers:
        name, _, key = layer.removesuffix(" <").partition("[")
        key = key.removesuffix("]")

        def hear(module: Any, args: Any, output: Any = None, layer: str = layer, key: str = key) -> None:
            value = args[0] if layer.endswith(" <") else output
            value = value[int(key) if key.isdigit() else key] if key else value
            assert layer not in found
            found[layer] = value.clone()

        module = modules[name]
        register = module.register_forward_pre_hook if layer.endswith(" <") else module.register_forward_hook
        handles.append(register(hear))
    with torch.inference_mode():
        model(batch)
    for handle in handles:
        handle.remove()
    return found


CONVOLUTIONAL = [name for name, family in FAMILIES.items() if not family.layers]
OTHERS = [name for name, family in FAMILIES.items() if family.layers]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_all_layers_of_a_convolutional_network_are_as_plain_hooks_hear_them(name: str):
    """In-place operations follow many of them: torchvision's ReLUs are all in place."""
    model, finder = built(name), finder_of(name)
    found = finder.find(finder.known(), ["*"])
    assert all(one.layout.kind == "nchw" and one.tested is None for one in found.values()), "nothing needs a test"
    maps: dict[str, Tensor] = {}
    batch = batch_of(name)
    forward(model, batch, list(found), lambda layer, output: maps.update({layer: output.clone()}))
    expected = heard_by_hooks(model, batch, list(found))
    assert list(maps) == list(found)
    assert len(maps) > 10
    assert all(torch.equal(maps[layer], expected[layer]) for layer in expected)


def test_every_call_of_a_module_that_runs_three_times_is_a_layer():
    model, finder, batch = built("resnet50"), finder_of("resnet50"), batch_of("resnet50")
    names = [f"layer1.0.relu#{n}" for n in (1, 2, 3)]
    found = finder.find(finder.known(), ["layer1.0.relu#?", "layer1.1.conv3 <"])
    assert list(found) == [*names, "layer1.1.conv3 <"]
    assert all(one.tested is None for one in found.values())
    maps: dict[str, Tensor] = {}
    forward(model, batch, list(found), lambda layer, output: maps.update({layer: output.clone()}))
    heard: list[Tensor] = []
    relu = model.layer1[0].relu.register_forward_hook(lambda module, args, output: heard.append(output.clone()))
    given = model.layer1[1].conv3.register_forward_pre_hook(lambda module, args: heard.append(args[0].clone()))
    with torch.inference_mode():
        model(batch)
    relu.remove()
    given.remove()
    assert len(heard) == 4
    assert all(torch.equal(maps[layer], one) for layer, one in zip(found, heard, strict=True))
    with pytest.raises(DissectError, match=r"module layer1.0.relu gives layer1.0.relu#1, layer1.0.relu#2"):
        finder.find(finder.known(), ["layer1.0.relu"])


@pytest.mark.parametrize("name", OTHERS)
def test_maps_are_those_that_the_library_would_make(name: str):
    family, model, finder = FAMILIES[name], built(name), finder_of(name)
    known = finder.known()
    found = finder.find(known, list(family.layers))
    assert set(found) == set(family.layers)
    for layer, one in found.items():
        assert one.tested is None or not one.tested.startswith("disagrees"), layer
    maps: dict[str, Tensor] = {}
    tapped = [as_tapped(layer, one.layout) for layer, one in found.items()]
    batch = batch_of(name)
    forward(model, batch, tapped, lambda layer, output: maps.update({layer: output.clone()}))
    raw = heard_by_hooks(model, batch, list(family.layers))
    for layer, make in family.layers.items():
        assert torch.equal(maps[layer], make(model, raw[layer])), layer
        assert tuple(maps[layer].shape[1:]) == found[layer].shape, layer
    if family.jump is not None:
        geometry = grid_geometry(known, found[next(iter(family.layers))], family.size)
        assert [(axis.jump, axis.start) for axis in (geometry.y, geometry.x)] == [
            (family.jump, family.start or family.jump / 2)
        ] * 2


AGREE = [name for name in OTHERS if name not in ("segformer",)]
"""Those of whose layers the first agrees; SegFormer's patches overlap, so some are undecided."""


@pytest.mark.parametrize("name", AGREE)
def test_layouts_pass_the_impulse_test(name: str):
    finder, family = finder_of(name), FAMILIES[name]
    found = finder.find(finder.known(), list(family.layers))
    first = found[next(iter(family.layers))]
    assert first.tested is not None
    assert first.tested.startswith("agrees"), first.tested
    for layer, one in found.items():
        assert one.tested is None or "agrees" in one.tested, (layer, one.tested)


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name in OTHERS for wrong in FAMILIES[name].wrong], ids=str
)
def test_a_wrong_layout_fails_the_impulse_test(name: str, wrong: dict[str, Any]):
    finder = finder_of(name)
    choices = Recording(Preprocess(FAMILIES[name].size), (wrong,)).layers  # type: ignore[arg-type]
    with pytest.raises(DissectError, match=r"it was not its own cell that answered most"):
        finder.find(finder.known(), choices)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("vit, timm", "blocks.0.attn.attn_drop", "computes attention in one fused step. Set fused_attn = False"),
        ("vit, torchvision", "encoder.layers.encoder_layer_0.self_attention.out_proj", "calls none of its modules"),
        ("swin, torchvision", "features.1.0.attn.qkv", "reads its weights and calls none of its modules"),
        ("vit, timm", "head", "one number for each unit|returns a 1x1000"),
    ],
)
def test_a_tap_that_never_fires_says_why_and_how_to_get_it(name: str, layer: str, message: str):
    finder = finder_of(name)
    with pytest.raises(DissectError, match=message):
        finder.find(finder.known(), [layer])


@pytest.mark.parametrize(
    ("name", "short", "layers"),
    [
        ("vit, timm", "block", ["blocks.0", "blocks.1"]),
        ("vit, timm", "mlp", ["blocks.0.mlp.fc2 <", "blocks.1.mlp.fc2 <"]),
        ("vit, timm", ":head", ["blocks.0.attn.proj <", "blocks.1.attn.proj <"]),
        ("clip", "keys", ["encoder.layers.0.self_attn.k_proj", "encoder.layers.1.self_attn.k_proj"]),
        ("swin, torchvision", "block", ["features.1.0", "features.1.1", "features.3.0", "features.3.1"]),
        ("resnet18", "block", [f"layer{n}.{m}" for n in (1, 2, 3, 4) for m in (0, 1)]),
    ],
)
def test_short_names_stand_for_layers_of_a_family(name: str, short: str, layers: list[str]):
    finder = finder_of(name)
    assert list(finder.find(finder.known(), [short])) == layers
