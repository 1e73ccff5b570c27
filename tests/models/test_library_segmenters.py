"""Segmentation models of torchvision and transformers, random and tiny: their labels are those of the libraries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from vision import library

from dissect_xr.activations.images import to_input
from dissect_xr.activations.sources import load_model
from dissect_xr.cli.fields.segmented import SegmenterPart
from dissect_xr.parallel.pool import Threads
from dissect_xr.segmenters.label_set import predicted, predicted_url, unlabelled
from dissect_xr.segmenters.predict import predict
from dissect_xr.segmenters.segmenter import Segmenter

SIZES = [(40, 56), (64, 64)]
"""Rows and columns of the images."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for n, size in enumerate(SIZES):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{n}.png")
    return folder


def drawn(segmenter: Segmenter, images: Path, tmp_path: Path) -> list[NDArray[Any]]:
    """The label maps that are written."""
    label_set = unlabelled(images)
    url = predicted_url(str(tmp_path / "out"), "it", label_set, segmenter)
    predict(label_set, segmenter, url, pool=Threads(1), show=False)
    maps = predicted(label_set, segmenter, url).maps
    return [np.asarray(Image.open(f"{maps}/{n}.png.png")) for n in range(len(SIZES))]


def returned(segmenter: Segmenter, images: Path) -> Any:
    """What the model returns for the images, with pixels resized here."""
    height, width = segmenter.preprocess.size
    pixels = [
        np.asarray(Image.open(images / f"{n}.png").resize((width, height), Image.Resampling.BILINEAR))
        for n in range(len(SIZES))
    ]
    with torch.inference_mode():
        return load_model(segmenter.spec)(to_input(segmenter.preprocess, np.stack(pixels)))


def part(factory: str, classes: int, **fields: Any) -> Segmenter:
    named = {n: f"class {n}" for n in range(1, classes)}
    size = {"input_size": 64} | fields
    return SegmenterPart(factory=factory, classes=named, nothing=[0], seed=0, **size).segmenter


def test_torchvision(images: Path, tmp_path: Path) -> None:
    library("torchvision")
    segmenter = part("torchvision:lraspp_mobilenet_v3_large", 5, kwargs={"num_classes": 5})
    assert segmenter.preprocess.mean == (0.485, 0.456, 0.406)  # those of the library
    scores = returned(segmenter, images)["out"]
    for n, found in enumerate(drawn(segmenter, images, tmp_path)):
        enlarged = functional.interpolate(scores[n : n + 1], SIZES[n], mode="bilinear", align_corners=False)
        wanted = enlarged[0].argmax(0).numpy()
        assert np.array_equal(found, np.where(wanted > 0, wanted + 1, 0))


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "segformer": (
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1],
            "decoder_hidden_size": 16, "num_labels": 6,
        },
    ),
    "maskformer": (
        "MaskFormerForInstanceSegmentation",
        {
            "backbone_config": {
                "model_type": "swin", "image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1],
                "num_heads": [1, 1, 1, 1], "window_size": 2, "out_features": ["stage1", "stage2", "stage3", "stage4"],
            },
            "fpn_feature_size": 32, "mask_feature_size": 32, "num_labels": 6,
            "decoder_config": {
                "model_type": "detr", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 8,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16,
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers(images: Path, tmp_path: Path, kind: str) -> None:
    transformers = library("transformers")
    name, fields = CONFIGS[kind]
    config = transformers.AutoConfig.for_model(kind, **fields)
    config.save_pretrained(tmp_path / "model")
    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    segmenter = part(f"transformers:{tmp_path / 'model'}", 6, kwargs={"class": name}, preprocess=normal)
    processor = getattr(transformers, "SegformerImageProcessor" if kind == "segformer" else "MaskFormerImageProcessor")
    found = drawn(segmenter, images, tmp_path)
    wanted = processor().post_process_semantic_segmentation(returned(segmenter, images), target_sizes=SIZES)
    for mine, theirs in zip(found, wanted, strict=True):
        numbers = theirs.numpy()
        assert len(np.unique(numbers)) > 1 or kind == "maskformer"
        assert np.array_equal(mine, np.where(numbers > 0, numbers + 1, 0))
