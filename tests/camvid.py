"""The real test data: where it lies, and activations of the small CNN computed with torch alone.

Knows: the folders of the CamVid test data and the model's own code.
Does not know: dissect_xr.
"""

import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import oracle
import torch
from checkout import DATA
from checkout import needs_data as needs_data
from numpy.typing import NDArray
from PIL import Image

SNAPSHOTS = ("epoch_000", "epoch_001", "epoch_004", "epoch_012", "epoch_030", "epoch_070")
INPUT_SIZE = (224, 224)
BATCH = 32

# (kernel, stride, leading padding, dilation) of what each layer adds to the one before it, as model.py has them.
_ADDED = {
    "layer1": [(7, 2, 3, 1)],
    "layer2": [(3, 2, 1, 1), (3, 1, 1, 1)],
    "layer3": [(3, 2, 1, 1), (3, 1, 1, 1)],
    "layer4": [(3, 2, 0, 1), (3, 1, 1, 1)],
    "layer5": [(3, 1, 1, 1)],
}


def geometry(layer: str) -> tuple[Any, Any]:
    """(start, jump) of `layer` in input pixels, for the receptive_field anchoring."""
    names = list(_ADDED)
    chain = [step for name in names[: names.index(layer) + 1] for step in _ADDED[name]]
    start, jump, _ = oracle.anchors(chain)
    return start, jump


def model_code() -> ModuleType:
    """`camvid_cnn/model.py`, imported."""
    spec = importlib.util.spec_from_file_location("camvid_cnn_model", DATA / "camvid_cnn" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(paths: Sequence[str]) -> NDArray[np.uint8]:
    """(image, 224, 224, 3), of paths relative to `images/`."""
    root = DATA / "camvid_broden" / "images"
    return np.stack([np.asarray(Image.open(root / path).convert("RGB")) for path in paths])


def activations(snapshot: str, layers: Sequence[str], index: str = "index.csv") -> dict[str, NDArray[np.float16]]:
    """Layer -> (image, unit, y, x) of one snapshot ("epoch_070"), images in the order of `index`."""
    code = model_code()
    model = code.load(DATA / "camvid_cnn" / f"{snapshot}.pt")
    rows = (DATA / "camvid_broden" / index).read_text("ascii").splitlines()[1:]
    paths = [row.split(",")[0] for row in rows]
    kept: dict[str, list[NDArray[np.float16]]] = {layer: [] for layer in layers}
    hooks = [
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: kept[layer].append(output.numpy().astype(np.float16))
        )
        for layer in layers
    ]
    with torch.inference_mode():
        for first in range(0, len(paths), BATCH):
            model(code.preprocess(pixels(paths[first : first + BATCH])))
    for hook in hooks:
        hook.remove()
    return {layer: np.concatenate(blocks) for layer, blocks in kept.items()}
