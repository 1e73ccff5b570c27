"""Train a small network on the digits probe and keep snapshots of it from its first step to its last.

    python pipelines/train_digits.py --probe work/digits --out work/digitnet

Knows: `DigitNet`, what it is trained for, and at which steps its weights are kept.
Does not know: dissection. A recipe names this file as the model factory and the snapshots as its weights; images go in
as RGB resized to 96 pixels, scaled to 0..1, minus 0.5, divided by 0.25.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dissect_xr.probe.digits.write import CONCEPTS, write_digits

STEPS = (0, 3, 10, 30, 90, 250, 700)
"""Training steps whose weights are kept, about three times apart."""

MEAN, STD = 0.5, 0.25
BATCH = 32
LEARNING_RATE = 4e-3

GRID = 24
"""Cells along a side of the dense predictions."""

SEEN_BY = {"color": "layer2", "texture": "layer3", "part": "layer3", "object": "layer5"}
"""The layer that names each kind of concept: colours need a few pixels, digits a view of 40."""

# Most cells hold no digit and no texture; at full weight the cheapest answer is "none" everywhere.
NONE_WEIGHT = {"color": 1.0, "texture": 0.3, "part": 0.1, "object": 0.1}

# L1 on the classifiers lets a concept rest on few units. One run each of 700 steps: 40 distinct concepts detected
# instead of 33, for a held-out accuracy on digits of 0.64 instead of 0.71.
SPARSITY = {"color": 2e-3, "texture": 2e-3, "part": 2e-3, "object": 2e-3, "scene": 4e-4}


class DigitNet(nn.Module):
    """A scene classifier of five convolutions, with dense classifiers on the way that name what each cell shows.

    Maps of a 96-pixel image: `layer1` 48x48, `layer2` and `layer3` 24x24, `layer4` and `layer5` 12x12, all after ReLU.

    Parameters
    ----------
    units : sequence of five ints
        Units of each layer.
    """

    def __init__(self, units: Sequence[int] = (32, 48, 64, 64, 64)) -> None:
        super().__init__()
        self.layer1 = _block(3, units[0], kernel=5, stride=2)
        self.pool1 = nn.MaxPool2d(2)
        self.layer2 = _block(units[0], units[1])
        self.layer3 = _block(units[1], units[2])
        self.pool3 = nn.MaxPool2d(2)
        self.layer4 = _block(units[2], units[3])
        self.layer5 = _block(units[3], units[4])
        width = {f"layer{place}": count for place, count in enumerate(units, 1)}
        self.heads = nn.ModuleDict(
            {kind: nn.Conv2d(width[layer], len(CONCEPTS[kind]) + 1, 1) for kind, layer in SEEN_BY.items()}
        )
        self.heads["scene"] = nn.Linear(units[4], len(CONCEPTS["scene"]))

    def forward(self, image: Tensor) -> Tensor:
        """Scores of the scenes, `(image, scene)`."""
        scores: Tensor = self.heads["scene"](self._maps(image)["layer5"].mean(dim=(2, 3)))
        return scores

    def predictions(self, image: Tensor) -> dict[str, Tensor]:
        """Scores by kind: `(image, concept, GRID, GRID)` where concept 0 is none, and `(image, scene)`."""
        maps = self._maps(image)
        scores = {"scene": self.heads["scene"](maps["layer5"].mean(dim=(2, 3)))}
        for kind, layer in SEEN_BY.items():
            dense = self.heads[kind](maps[layer])
            scores[kind] = F.interpolate(dense, size=(GRID, GRID), mode="bilinear", align_corners=False)
        return scores

    def _maps(self, image: Tensor) -> dict[str, Tensor]:
        maps = {"layer1": self.layer1(image)}
        maps["layer2"] = self.layer2(self.pool1(maps["layer1"]))
        maps["layer3"] = self.layer3(maps["layer2"])
        maps["layer4"] = self.layer4(self.pool3(maps["layer3"]))
        maps["layer5"] = self.layer5(maps["layer4"])
        return maps


@dataclass(frozen=True)
class Examples:
    """Images of one split with their labels; -1 marks what is not annotated."""

    images: Tensor
    """`(image, 3, row, col) uint8`."""
    labels: dict[str, Tensor]
    """`(image, GRID, GRID) int64` by kind, and `(image) int64` for scenes."""


def read_examples(probe: Path, *, split: str) -> Examples:
    """The images of one split of a digits probe, and their labels sampled to GRID cells."""
    index_of: dict[str, dict[int, int]] = {"scene": {0: -1}, **{kind: {0: 0} for kind in SEEN_BY}}
    for kind, names in CONCEPTS.items():
        for row in _rows(probe / f"c_{kind}.csv"):
            index_of[kind][int(row["number"])] = names.index(row["name"]) + (kind != "scene")
    images = []
    labels: dict[str, list[NDArray[np.int64]]] = {kind: [] for kind in CONCEPTS}
    for row in _rows(probe / "index.csv"):
        if row["split"] != split:
            continue
        images.append(np.asarray(Image.open(probe / "images" / row["image"])).transpose(2, 0, 1))
        labels["scene"].append(np.asarray(index_of["scene"][int(row["scene"] or 0)]))
        for kind in SEEN_BY:
            path = probe / "images" / row[kind]
            labels[kind].append(_cells(path, index_of[kind]) if row[kind] else np.full((GRID, GRID), -1))
    return Examples(torch.from_numpy(np.stack(images)), {k: torch.from_numpy(np.stack(v)) for k, v in labels.items()})


def prepared(images: Tensor) -> Tensor:
    """Images as the network takes them; channels last, which takes three quarters of the time on a CPU."""
    return (images.to(torch.float32, memory_format=torch.channels_last) / 255 - MEAN) / STD


def loss_of(scores: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """The sum over kinds of their mean cross-entropy; what is not annotated does not count."""
    total = torch.zeros(())
    for kind, score in scores.items():
        weight = torch.ones(score.shape[1])
        weight[0] = NONE_WEIGHT.get(kind, 1.0)
        if (labels[kind] >= 0).any():
            total = total + F.cross_entropy(score, labels[kind], weight, ignore_index=-1)
    return total


@torch.no_grad()
def held_out(net: DigitNet, examples: Examples) -> dict[str, float]:
    """How well held-out images are named: `loss`, `accuracy_<kind>` where one is labelled, `accuracy` for objects."""
    right, labelled, losses = dict.fromkeys(CONCEPTS, 0), dict.fromkeys(CONCEPTS, 0), []
    net.eval()
    for start in range(0, len(examples.images), 120):
        block = slice(start, start + 120)
        labels = {kind: values[block] for kind, values in examples.labels.items()}
        scores = net.predictions(prepared(examples.images[block]))
        losses.append(float(loss_of(scores, labels)))
        for kind, score in scores.items():
            named = labels[kind] >= (kind != "scene")
            right[kind] += int((score.argmax(1) == labels[kind])[named].sum())
            labelled[kind] += int(named.sum())
    net.train()
    accuracy = {f"accuracy_{kind}": right[kind] / max(labelled[kind], 1) for kind in CONCEPTS}
    return {"accuracy": accuracy["accuracy_object"], "loss": float(np.mean(losses)), **accuracy}


def train(probe: Path, out: Path, *, steps: Sequence[int], seed: int) -> None:
    """Train a DigitNet and write its weights at each of the steps, and last of all the log; takes about a minute."""
    torch.manual_seed(seed)
    examples, others = read_examples(probe, split="train"), read_examples(probe, split="val")
    net = DigitNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps[-1] + 1, pct_start=0.2)
    log: list[dict[str, float]] = []
    began = told = time.monotonic()
    for step in range(steps[-1] + 1):
        if step in steps:
            log.append({"step": step, "seed": seed, **held_out(net, others)})
            weights = {name: value.contiguous() for name, value in net.state_dict().items()}
            save_file(weights, out / f"step_{step:06d}.safetensors")
        if step in steps or time.monotonic() > told + 5:
            told = time.monotonic()
            print(
                f"step {step:4d} of {steps[-1]}, {told - began:3.0f} s, accuracy {log[-1]['accuracy']:.2f}", flush=True
            )
        batch = torch.randint(len(examples.images), (BATCH,))
        labels = {kind: values[batch] for kind, values in examples.labels.items()}
        loss = loss_of(net.predictions(prepared(examples.images[batch])), labels)
        for kind, strength in SPARSITY.items():
            loss = loss + strength * net.heads[kind].weight.abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    (out / "training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def is_done(out: Path, *, steps: Sequence[int], seed: int) -> bool:
    """Whether a finished training with these steps and this seed lies in the folder."""
    log = out / "training_log.json"
    if not log.is_file() or not all((out / f"step_{step:06d}.safetensors").is_file() for step in steps):
        return False
    return [(entry["step"], entry["seed"]) for entry in json.loads(log.read_text())] == [(step, seed) for step in steps]


def main() -> None:
    """Compose the probe and train on it, each only where it is missing; writes files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--probe", type=Path, required=True, help="folder of the digits probe; composed if it is not there"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the snapshots and training_log.json")
    parser.add_argument("--steps", type=int, default=STEPS[-1], help="training steps; %(default)s unless given")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps = (*(step for step in STEPS if step < arguments.steps), arguments.steps)
    # Another number of threads adds in another order and so gives other weights.
    torch.set_num_threads(2)
    if not (arguments.probe / "index.csv").is_file():
        print(f"composing the digits probe in {arguments.probe}", flush=True)
        write_digits(arguments.probe)
    if is_done(arguments.out, steps=steps, seed=arguments.seed):
        print(f"{arguments.out} holds all {len(steps)} snapshots already")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.probe, arguments.out, steps=steps, seed=arguments.seed)


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _cells(path: Path, index_of: dict[int, int]) -> NDArray[np.int64]:
    """A label map as indices into its kind's concepts, sampled at the half-pixel centres of GRID cells."""
    table = np.zeros(max(index_of) + 1, dtype=np.int64)
    table[list(index_of)] = list(index_of.values())
    rgb = np.asarray(Image.open(path)).astype(np.int64)
    pick = ((np.arange(GRID) + 0.5) * len(rgb) / GRID).astype(int)
    cells: NDArray[np.int64] = table[rgb[..., 0] + 256 * rgb[..., 1]][np.ix_(pick, pick)]
    return cells


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="ascii") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
