"""Train eight variants of the digits network, to compare what emerges in them.

    python pipelines/train_variants.py --probe demo/digits --out demo/variants

Knows: `VariantNet`, and in what each variant differs from the first: its seed, its architecture, or what it is taught.
Does not know: dissection. `pipelines/variants.yaml` names the variants as snapshots, each with its own arguments.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_digits import BATCH, LEARNING_RATE, SPARSITY, DigitNet, Examples, loss_of, prepared, read_examples

STEPS = 300

WIDTHS = (32, 48, 64, 64, 64)

VARIANTS: dict[str, dict[str, object]] = {
    "base": {},
    "seed": {"seed": 1},
    "no batch norm": {"norm": False},
    "dropout": {"dropout": 0.5},
    "wide": {"width": 2.0},
    "deep": {"convolutions": 2},
    "random labels": {"labels": "random"},
    "self-supervised": {"labels": "rotation"},
}
"""Name -> in what it differs. `seed` and `labels` are of the training, the others arguments of the network."""


class VariantNet(DigitNet):
    """`DigitNet` with another width, depth or regularisation; the same names of layers and sizes of maps.

    Parameters
    ----------
    width
        Times the units of every layer.
    norm
        Whether a batch norm follows every convolution.
    dropout
        Share of the units of layer5 that are dropped in training, whole maps.
    convolutions
        Convolutions of each of the layers 2 to 5.
    """

    def __init__(self, width: float = 1.0, *, norm: bool = True, dropout: float = 0.0, convolutions: int = 1) -> None:
        super().__init__([round(units * width) for units in WIDTHS])
        for place in range(1, 6):
            block = getattr(self, f"layer{place}")
            inputs, outputs, kernel, stride = block[0].in_channels, block[0].out_channels, *(
                block[0].kernel_size[0], block[0].stride[0],
            )  # fmt: skip
            layers: list[nn.Module] = []
            for n in range(convolutions if place > 1 else 1):
                first = n == 0
                conv = nn.Conv2d(
                    inputs if first else outputs, outputs, kernel, stride if first else 1, kernel // 2, bias=not norm
                )
                layers += [conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]
            if dropout and place == 5:
                layers.append(nn.Dropout2d(dropout))
            setattr(self, f"layer{place}", nn.Sequential(*layers))
        self.heads["rotation"] = nn.Linear(round(WIDTHS[-1] * width), 4)

    def rotation(self, image: Tensor) -> Tensor:
        """Scores of the four quarter turns that an image may be turned by, `(image, 4)`."""
        scores: Tensor = self.heads["rotation"](self._maps(image)["layer5"].mean(dim=(2, 3)))
        return scores


def shuffled(labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """The labels of other images: as frequent as the true ones, and without a relation to what is seen."""
    order = torch.randperm(len(labels["scene"]))
    return {kind: values[order] for kind, values in labels.items()}


def taught(net: VariantNet, examples: Examples, batch: Tensor, labels: dict[str, Tensor] | None) -> Tensor:
    """The loss of a batch: of the labels, or, without any, of telling by which quarter turns images were turned."""
    images = prepared(examples.images[batch])
    if labels is None:
        turns = torch.randint(4, (len(images),))
        turned = torch.stack([torch.rot90(one, int(n), (1, 2)) for one, n in zip(images, turns, strict=True)])
        return F.cross_entropy(net.rotation(turned), turns)
    loss = loss_of(net.predictions(images), {kind: values[batch] for kind, values in labels.items()})
    for kind, strength in SPARSITY.items():
        loss = loss + strength * net.heads[kind].weight.abs().sum()
    return loss


def train(examples: Examples, *, steps: int, seed: int = 0, labels: str = "true", **network: object) -> VariantNet:
    """A variant after so many steps."""
    torch.manual_seed(seed)
    net = VariantNet(**network).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    known = None if labels == "rotation" else shuffled(examples.labels) if labels == "random" else examples.labels
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        loss = taught(net, examples, torch.randint(len(examples.images), (BATCH,)), known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def main() -> None:
    """Train the variants that are missing, and write their weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, default=Path("demo/digits"))
    parser.add_argument("--out", type=Path, default=Path("demo/variants"))
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(2)
    examples = read_examples(given.probe, split="train")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, what in VARIANTS.items():
        file = given.out / f"{name.replace(' ', '_')}.safetensors"
        if file.is_file():
            continue
        start = time.monotonic()
        net = train(examples, steps=given.steps, **what)  # type: ignore[arg-type]
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, file)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
