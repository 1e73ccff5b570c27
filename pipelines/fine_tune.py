"""Train a network on digits, fine-tune it to textures, and back to digits; keep snapshots on the way.

    python pipelines/fine_tune.py --probe demo/digits --out demo/fine_tuned

Knows: `TaskNet`, the three stages, and at which steps weights are kept.
Does not know: dissection. `pipelines/fine_tuning.yaml` names the snapshots.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_digits import BATCH, GRID, LEARNING_RATE, NONE_WEIGHT, SPARSITY, DigitNet, Examples, prepared, read_examples

from dissect_xr.probe.digits.write import CONCEPTS

STAGES = ("object", "texture", "object")
"""What the network is taught: digits, textures, digits again."""

STEPS = 300
"""Steps of a stage."""

KEPT = (0, 3, 10, 30, 100)
"""Steps within a stage whose weights are kept, beside its last one."""


class TaskNet(DigitNet):
    """`DigitNet` whose last layer names digits or textures in every cell, with a head for each."""

    def __init__(self) -> None:
        super().__init__()
        units = self.layer5[0].out_channels
        self.tasks = nn.ModuleDict({kind: nn.Conv2d(units, len(CONCEPTS[kind]) + 1, 1) for kind in set(STAGES)})

    def named(self, image: Tensor, kind: str) -> Tensor:
        """Scores (image, concept, GRID, GRID) of what each cell shows; concept 0 is none."""
        dense = self.tasks[kind](self._maps(image)["layer5"])
        return F.interpolate(dense, size=(GRID, GRID), mode="bilinear", align_corners=False)


def steps_of(stages: int, steps: int) -> list[int]:
    """The training steps whose weights are kept.

    >>> steps_of(2, 30)
    [0, 3, 10, 30, 33, 40, 60]
    """
    kept = {n * steps + step for n in range(stages) for step in (*KEPT, steps) if step <= steps}
    return sorted(kept)


def loss_of(net: TaskNet, examples: Examples, batch: Tensor, kind: str) -> Tensor:
    """The loss of a batch; images without the kind of label do not count."""
    weight = torch.ones(len(CONCEPTS[kind]) + 1)
    weight[0] = NONE_WEIGHT[kind]
    scores = net.named(prepared(examples.images[batch]), kind)
    loss = F.cross_entropy(scores, examples.labels[kind][batch], weight, ignore_index=-1)
    return loss + SPARSITY[kind] * net.tasks[kind].weight.abs().sum()


@torch.no_grad()
def accuracy(net: TaskNet, examples: Examples, kind: str) -> float:
    """Share of the labelled cells of held-out images that are named right."""
    net.eval()
    right = labelled = 0
    for start in range(0, len(examples.images), 120):
        labels = examples.labels[kind][start : start + 120]
        found = net.named(prepared(examples.images[start : start + 120]), kind).argmax(1)
        right += int((found == labels)[labels > 0].sum())
        labelled += int((labels > 0).sum())
    net.train()
    return right / max(labelled, 1)


def train(probe: Path, out: Path, *, steps: int, seed: int = 0) -> None:
    """All stages, one after another; writes weights and the log."""
    torch.manual_seed(seed)
    examples, others = read_examples(probe, split="train"), read_examples(probe, split="val")
    net = TaskNet().to(memory_format=torch.channels_last)
    kept, log, began = steps_of(len(STAGES), steps), list[dict[str, float]](), time.monotonic()
    for stage, kind in enumerate(STAGES):
        images = torch.nonzero((examples.labels[kind] > 0).flatten(1).any(1)).flatten()
        optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE / (1 if stage == 0 else 2))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.param_groups[0]["lr"], total_steps=steps + 1, pct_start=0.2
        )
        for step in range(stage * steps, (stage + 1) * steps + (stage == len(STAGES) - 1)):
            if step in kept:
                named = {f"accuracy_{one}": accuracy(net, others, one) for one in sorted(set(STAGES))}
                log.append({"step": step, "stage": stage, **named})
                weights = {name: value.contiguous() for name, value in net.state_dict().items()}
                save_file(weights, out / f"step_{step:06d}.safetensors")
                print(f"step {step:4d}, {kind}, {time.monotonic() - began:3.0f} s, {named}", flush=True)
            batch = images[torch.randint(len(images), (BATCH,))]
            optimizer.zero_grad()
            loss_of(net, examples, batch, kind).backward()
            optimizer.step()
            schedule.step()
    (out / "training_log.json").write_text(json.dumps(log, indent=1) + "\n")


def main() -> None:
    """Train where the log is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, default=Path("demo/digits"))
    parser.add_argument("--out", type=Path, default=Path("demo/fine_tuned"))
    parser.add_argument("--steps", type=int, default=STEPS, help="of each stage; %(default)s unless given")
    given = parser.parse_args()
    torch.set_num_threads(2)
    if (given.out / "training_log.json").is_file():
        print(f"{given.out} holds all snapshots already")
        return
    given.out.mkdir(parents=True, exist_ok=True)
    train(given.probe, given.out, steps=given.steps)


if __name__ == "__main__":
    main()
