"""Train a small segmentation network on the digits probe: which digit each pixel belongs to, or none.

    python pipelines/train_segmenter.py --probe demo/run/probe.zarr --out demo/segmenter.safetensors

Knows: `Segmenter`, and that only images of the split `train` are learnt from.
Does not know: dissection. `pipelines/segmented.yaml` lets it label the split `val`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import dissect_xr as dx

SIZE = 96
"""Pixels along a side of the input; the output has a cell for every four of them."""

MEAN, STD = 0.5, 0.25
STEPS, BATCH, LEARNING_RATE = 400, 24, 6e-3

NONE_WEIGHT = 0.3
"""Most pixels show no digit; at full weight the cheapest answer is "none" everywhere."""


class Segmenter(nn.Module):
    """Scores (image, class, 24, 24) of no digit (0) and the ten digits, from images of 96 pixels."""

    def __init__(self, classes: int = 11, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 8, stride=4, padding=2), nn.BatchNorm2d(width), nn.ReLU()]
        for dilation in (1, 2, 4, 2, 1):
            layers += [
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores (image, class, y, x)."""
        return self.head(self.body(image))


def examples(probe: str, split: str) -> tuple[Tensor, Tensor]:
    """Pixels (image, 3, 96, 96) and classes (image, 48, 48) of the split; class n is the n-th digit of the probe."""
    data = dx.open_probe(probe)
    data = data.isel(image=data["split"].values == split)
    root = Path(probe).parent / data.attrs["root"]
    pixels = np.stack([_pixels(root / name) for name in data["image"].values.tolist()])
    plane = data["plane_category"].values.tolist().index("object")
    numbers = data["concept"].values[data["concept_category"].values == "object"]
    table = np.zeros(1 << 16, np.int64)
    table[numbers] = 1 + np.arange(numbers.size)
    classes = table[data["annotation"].isel(plane=plane).values]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return (images / 255 - MEAN) / STD, torch.from_numpy(classes)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def train(images: Tensor, classes: Tensor, *, steps: int = STEPS, seed: int = 0) -> Segmenter:
    """A segmenter that has learnt from these examples."""
    torch.manual_seed(seed)
    model = Segmenter(int(classes.max()) + 1).train()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    weight = torch.ones(model.head.out_channels)
    weight[0] = NONE_WEIGHT
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        some = torch.randint(len(images), (BATCH,), generator=drawn)
        scores = F.interpolate(model(images[some]), classes.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(scores, classes[some], weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    """Train, print how many pixels it gets right, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", default="demo/run/probe.zarr")
    parser.add_argument("--out", type=Path, default=Path("demo/segmenter.safetensors"))
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    start = time.perf_counter()
    model = train(*examples(given.probe, "train"), steps=given.steps)
    images, classes = examples(given.probe, "val")
    with torch.inference_mode():
        scores = torch.cat([model(part) for part in images.split(BATCH)])
        found = F.interpolate(scores, classes.shape[1:], mode="bilinear", align_corners=False).argmax(1)
    digit = classes > 0
    right = float((found == classes)[digit].float().mean())
    save_file(model.state_dict(), given.out)
    print(f"{time.perf_counter() - start:.0f} s; of the pixels of digits in val, {right:.2f} are named right")


if __name__ == "__main__":
    main()
