"""A library's preprocessing gives the same pixels here as in the library, bit for bit, or is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vision import library

from dissect_xr.activations.images import read_image, to_input
from dissect_xr.activations.models.names import library_model
from dissect_xr.activations.models.preprocessing import library_preprocess
from dissect_xr.activations.request import Preprocess
from dissect_xr.cli.fields.model import ModelPart
from dissect_xr.errors import DissectError

torchvision, timm, transformers = library("torchvision"), library("timm"), library("transformers")

SIZES = [(97, 140), (141, 90), (64, 64), (300, 301)]
"""(height, width) of pictures: wide, high, square, with an odd and an even number of pixels around the crop."""


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def picture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph as far as resizing is concerned: waves of many lengths, an edge, and noise."""
    height, width = request.param
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(x / 3 + (y / 9) ** 1.5)[..., None] * np.array([1, 0.5, -1]) + 40 * (x > y)[..., None]
    noisy = waves + np.random.default_rng(height).normal(0, 12, (height, width, 3))
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return path


def asked(reference: str, kwargs: dict[str, Any] | None = None, named: str | None = None, **given: Any) -> Preprocess:
    model = library_model(reference)
    assert model is not None
    return library_preprocess(model, kwargs or {}, named, given)


def mine(preprocess: Preprocess, picture: Path) -> torch.Tensor:
    pixels = read_image(picture, preprocess.size, crop=preprocess.crop, interpolation=preprocess.interpolation)
    return to_input(preprocess, pixels[None])[0]


def opened(picture: Path) -> Image.Image:
    with Image.open(picture) as image:
        return image.convert("RGB")


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet50", "IMAGENET1K_V2"), ("swin_v2_t", "IMAGENET1K_V1"), ("inception_v3", "DEFAULT")]
)
def test_torchvision_bit_for_bit(name: str, weights: str, picture: Path):
    transform = torchvision.models.get_model_weights(name)[weights].transforms()
    assert torch.equal(mine(asked(f"torchvision:{name}", named=weights), picture), transform(opened(picture)))


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch14_dinov2.lvd142m",  # bicubic, the whole shorter side
        "resnet18.a1_in1k",  # bicubic, crop_pct 0.95
        "convnext_tiny.fb_in22k",  # 0.875
        "vit_base_patch16_siglip_224.webli",  # squash
        "tf_efficientnet_b0.ns_jft_in1k",
    ],
)
def test_timm_bit_for_bit(name: str, picture: Path):
    data = timm.data.resolve_data_config({}, pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**data, is_training=False)
    assert torch.equal(mine(asked(f"timm:{name}"), picture), transform(opened(picture)))


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_timm_squashed_and_cropped_bit_for_bit(share: float, picture: Path, monkeypatch: pytest.MonkeyPatch):
    config = timm.models.get_pretrained_cfg("vit_tiny_patch16_224")
    changed = timm.models.PretrainedCfg(**config.to_dict() | {"crop_mode": "squash", "crop_pct": share})
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: changed)
    data = timm.data.resolve_data_config({}, pretrained_cfg=changed.to_dict())
    found = asked("timm:vit_tiny_patch16_224")
    assert found.resize == (None if share == 1 else (280, 280))
    assert torch.equal(mine(found, picture), timm.data.create_transform(**data)(opened(picture)))


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "cropped": ("BitImageProcessor", {"size": {"shortest_edge": 61}, "crop_size": {"height": 56, "width": 56}}),
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}),
    "whole": ("ViTImageProcessor", {"size": {"height": 56, "width": 56}}),
    "segformer": ("SegformerImageProcessor", {"size": {"height": 48, "width": 48}}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}),
    "plain": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False, "resample": 3}),
}


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder that holds an image processor, and its two forms."""
    kind, fields = PROCESSORS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    whole = getattr(transformers, kind)(**fields)
    whole.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "vit"}')
    return folder, whole, getattr(transformers, f"{kind}Pil")(**fields)


def test_transformers_up_to_rounding_and_its_tensor_form_to_a_level(processor: tuple[Path, Any, Any], picture: Path):
    folder, tensors, pillow = processor
    preprocess = asked(f"transformers:{folder}")
    found = mine(preprocess, picture).numpy()
    theirs = pillow(opened(picture), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-6)
    theirs = tensors(opened(picture), return_tensors="np")["pixel_values"][0]
    assert np.abs(found - theirs).max() <= 1.001 / 255 / min(preprocess.std)


def test_floor_and_nearest_differ_by_a_pixel_where_margins_are_odd():
    nearest, floor = (Preprocess(5, resize=8, centre=centre).crop.part(8, 8) for centre in ("nearest", "floor"))
    assert nearest == ((2, 5, 8), (2, 5, 8))  # 1.5 is rounded to the even 2
    assert floor == ((1, 5, 8), (1, 5, 8))


def test_a_processor_that_computes_something_else_than_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    original = transformers.ViTImageProcessorPil.__call__

    def other(self: Any, image: Any, **kwargs: Any) -> Any:
        return original(self, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), **kwargs)

    monkeypatch.setattr(transformers.ViTImageProcessorPil, "__call__", other)
    with pytest.raises(DissectError, match=r"computes something else than its fields say: expected .* differences up"):
        asked(f"transformers:{tmp_path}")
    given = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert asked(f"transformers:{tmp_path}", **given) == Preprocess(**given)


def test_what_has_no_one_size_is_refused_and_taken_with_a_size_of_ones_own():
    with pytest.raises(DissectError, match=r"resizes the shorter side to 520 and crops nothing.*model\.input_size"):
        asked("torchvision:fcn_resnet50")
    found = asked("torchvision:fcn_resnet50", size=(64, 96))
    assert (found.size, found.resize, found.mean) == ((64, 96), None, (0.485, 0.456, 0.406))
    with pytest.raises(DissectError, match="has no preprocessing of one size, but ObjectDetection"):
        asked("torchvision:fasterrcnn_resnet50_fpn")
    given = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert asked("torchvision:fasterrcnn_resnet50_fpn", size=64, **given) == Preprocess(64, **given)


def test_a_border_around_images_is_refused(monkeypatch: pytest.MonkeyPatch):
    config = timm.models.get_pretrained_cfg("vit_tiny_patch16_224")
    changed = timm.models.PretrainedCfg(**config.to_dict() | {"crop_mode": "border"})
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: changed)
    with pytest.raises(DissectError, match=r"pads images to a square .*preprocess\.resize: null resizes the"):
        asked("timm:vit_tiny_patch16_224")
    assert asked("timm:vit_tiny_patch16_224", resize=None).crop is None


def test_fields_override_one_by_one():
    theirs = asked("timm:resnet18.a1_in1k")
    assert theirs.parameters["interpolation"] == "bicubic"
    assert (theirs.size, theirs.resize) == ((224, 224), 235)
    assert asked("timm:resnet18.a1_in1k", interpolation="bilinear") == Preprocess(
        224, theirs.mean, theirs.std, resize=235
    )
    small = asked("timm:resnet18.a1_in1k", size=64)
    assert (small.size, small.resize) == ((64, 64), 67)  # 64 / 0.95
    assert asked("timm:resnet18.a1_in1k", {"img_size": 64}).size == (64, 64)
    assert asked("timm:resnet18.a1_in1k", resize=None, size=(32, 48)).crop is None
    with pytest.raises(DissectError, match=r"timm fits images to \(32, 48\) before it crops"):
        asked("timm:resnet18.a1_in1k", size=(32, 48))
    with pytest.raises(DissectError, match="has mean and std for RGB"):
        asked("timm:resnet18.a1_in1k", channels="BGR")


RECIPE = {"factory": "torchvision:resnet50", "snapshots": [{"name": "a", "weights": "IMAGENET1K_V1"}]}


def test_a_recipe_takes_the_librarys_fields_and_its_own():
    part = ModelPart.model_validate(RECIPE | {"preprocess": {"std": [0.5, 0.5, 0.5]}})
    assert part.preprocessing() == Preprocess(224, (0.485, 0.456, 0.406), (0.5,) * 3, resize=256)


def test_snapshots_whose_weights_want_other_images_are_refused():
    both = [{"name": "a", "weights": "IMAGENET1K_V1"}, {"name": "b", "weights": "IMAGENET1K_V2"}]
    with pytest.raises(DissectError, match="IMAGENET1K_V1, IMAGENET1K_V2 of its snapshots come with different"):
        ModelPart.model_validate(RECIPE | {"snapshots": both}).preprocessing()
    given = {"input_size": 224, "preprocess": {"resize": 256}}
    assert ModelPart.model_validate(RECIPE | {"snapshots": both} | given).preprocessing().resize == 256
