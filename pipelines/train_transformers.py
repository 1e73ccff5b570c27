"""Train a small vision transformer, and one of windows, on the digits probe; keep snapshots of each.

    python pipelines/train_transformers.py --probe demo/digits --out demo/transformers

Knows: `TinyViT`, `TinyWindows`, what they are taught, and at which steps their weights are kept.
Does not know: dissection. `pipelines/vit.yaml` and `pipelines/windows.yaml` name the snapshots.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_digits import BATCH, GRID, Examples, loss_of, prepared, read_examples

from dissect_xr.probe.digits.write import CONCEPTS

SIDE, PATCH, WIDTH, HEADS = 96, 8, 96, 4
"""Pixels along an image and a patch; units of a token; heads of attention."""

KINDS = ("object", "texture", "color")
"""What every token is taught to name; the whole image is taught its scene."""

STEPS = 600
KEPT = (0, 3, 10, 30, 100, 300)
LEARNING_RATE = 1e-3


class Block(nn.Module):
    """Attention and an MLP, each added to what came in; tokens (image, token, unit)."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens after this block."""
        tokens = tokens + self.attended(self.norm1(tokens))
        return tokens + self.fc2(self.act(self.fc1(self.norm2(tokens))))

    def attended(self, tokens: Tensor) -> Tensor:
        """What attention adds."""
        images, number, width = tokens.shape
        parts = self.qkv(tokens).reshape(images, number, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts)
        return self.proj(mixed.transpose(1, 2).reshape(images, number, width))


class _Named(nn.Module):
    """A network whose last map (image, unit, y, x) names concepts in every cell, and the scene of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({kind: nn.Conv2d(WIDTH, len(CONCEPTS[kind]) + 1, 1) for kind in KINDS})
        self.heads["scene"] = nn.Linear(WIDTH, len(CONCEPTS["scene"]))

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The last map, and what stands for the whole image, `(image, unit)`."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Scores of the scenes, `(image, scene)`."""
        scores: Tensor = self.heads["scene"](self.maps(image)[1])
        return scores

    def predictions(self, image: Tensor) -> dict[str, Tensor]:
        """Scores by kind: `(image, concept, GRID, GRID)` where concept 0 is none, and `(image, scene)`."""
        maps, whole = self.maps(image)
        scores = {"scene": self.heads["scene"](whole)}
        for kind in KINDS:
            scores[kind] = F.interpolate(self.heads[kind](maps), (GRID, GRID), mode="bilinear", align_corners=False)
        return scores


class TinyViT(_Named):
    """A vision transformer: 12 x 12 patches and a class token, four blocks."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        cells = SIDE // PATCH
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + cells * cells, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `_Named`."""
        patches = self.patch_embed(image)
        tokens = torch.cat([self.cls_token.expand(len(image), 1, WIDTH), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, 1:].transpose(1, 2).reshape(patches.shape), tokens[:, 0]


class WindowBlock(nn.Module):
    """A block whose attention stays within windows of `window` x `window` cells; maps (image, y, x, unit)."""

    def __init__(self, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift, self.block = window, shift, Block()

    def forward(self, maps: Tensor) -> Tensor:
        """The maps after this block."""
        images, height, width, units = maps.shape
        side = self.window
        maps = torch.roll(maps, (-self.shift, -self.shift), (1, 2))
        windows = maps.reshape(images, height // side, side, width // side, side, units).transpose(2, 3)
        mixed = self.block(windows.reshape(-1, side * side, units))
        back = mixed.reshape(images, height // side, width // side, side, side, units).transpose(2, 3)
        return torch.roll(back.reshape(maps.shape), (self.shift, self.shift), (1, 2))


class TinyWindows(_Named):
    """A transformer of windows, channels last, as Swin is: 24 x 24 cells in two stages, the second of 12 x 12."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, 4, 4)
        self.stage1 = nn.Sequential(WindowBlock(6, 0), WindowBlock(6, 3))
        self.merge = nn.Conv2d(WIDTH, WIDTH, 2, 2)
        self.stage2 = nn.Sequential(WindowBlock(6, 0), WindowBlock(6, 3))
        self.norm = nn.LayerNorm(WIDTH)

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `_Named`."""
        maps = self.stage1(self.patch_embed(image).permute(0, 2, 3, 1))
        maps = self.stage2(self.merge(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        maps = self.norm(maps).permute(0, 3, 1, 2)
        return maps, maps.mean((2, 3))


NETWORKS: Mapping[str, type[_Named]] = {"vit": TinyViT, "windows": TinyWindows}


@torch.no_grad()
def accuracies(net: _Named, examples: Examples) -> dict[str, float]:
    """Share of the held-out cells with a label that are named right, by kind; and of images with their scene."""
    net.eval()
    right, labelled = dict.fromkeys((*KINDS, "scene"), 0), dict.fromkeys((*KINDS, "scene"), 0)
    for start in range(0, len(examples.images), 120):
        block = slice(start, start + 120)
        for kind, score in net.predictions(prepared(examples.images[block])).items():
            labels = examples.labels[kind][block]
            named = labels >= (kind != "scene")
            right[kind] += int((score.argmax(1) == labels)[named].sum())
            labelled[kind] += int(named.sum())
    net.train()
    return {f"accuracy_{kind}": right[kind] / max(labelled[kind], 1) for kind in right}


def train(name: str, probe: Path, out: Path, *, steps: int, seed: int = 0) -> None:
    """Train one of the networks, and write its weights at some steps, and last of all the log."""
    torch.manual_seed(seed)
    examples, others = read_examples(probe, split="train"), read_examples(probe, split="val")
    net = NETWORKS[name]()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=0.1)
    kept, log, began = {*(step for step in KEPT if step < steps), steps}, list[dict[str, float]](), time.monotonic()
    for step in range(steps + 1):
        if step in kept:
            log.append({"step": step, **accuracies(net, others)})
            save_file(
                {key: one.contiguous() for key, one in net.state_dict().items()}, out / f"step_{step:06d}.safetensors"
            )
            print(f"{name}: step {step:4d}, {time.monotonic() - began:3.0f} s, {log[-1]}", flush=True)
        batch = torch.randint(len(examples.images), (BATCH,))
        scores = net.predictions(prepared(examples.images[batch]))
        loss = loss_of(scores, {kind: examples.labels[kind][batch] for kind in scores})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    (out / "training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def main() -> None:
    """Train the networks whose log is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, default=Path("demo/digits"))
    parser.add_argument("--out", type=Path, default=Path("demo/transformers"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    given = parser.parse_args()
    torch.set_num_threads(2)
    for name in given.only:
        if not (given.out / name / "training_log.json").is_file():
            (given.out / name).mkdir(parents=True, exist_ok=True)
            train(name, given.probe, given.out / name, steps=given.steps)


if __name__ == "__main__":
    main()
