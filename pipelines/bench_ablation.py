"""What it costs to ablate every unit of a VGG16's last convolution, in passes through the whole network.

    python pipelines/bench_ablation.py [--images 32] [--units 512] [--threads N] [--device cuda] [--record FILE]

The network has random weights: times do not depend on them. Scores of a few units are compared, bit by bit on a CPU,
with the whole network run with the unit's map set to zero by a hook of torch's own.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_rows import Row, writable, write_section
from torch import Tensor, nn

from dissect_xr.experiments.replay.replays import Rest, why_whole

SECTION = "## Ablation"
LAYER = "features.28"
"""conv5_3 of a VGG16, before its ReLU; torchvision's name."""

TARGET = 8.0
"""Passes through the whole network that all units may cost."""

COMPARED = (0, 7, 255, 511)
"""Units whose scores are compared with the whole network's."""


class VGG16(nn.Module):
    """Configuration D of Simonyan and Zisserman 2014, 224 px, with the module names of torchvision."""

    def __init__(self, classes: int = 365) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for units, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, units, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = units
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Scores (image, class)."""
        return self.classifier(torch.flatten(self.avgpool(self.features(image)), 1))


def without(model: nn.Module, batch: Tensor, unit: int) -> Tensor:
    """Scores of the whole network with one unit's map set to zero, by torch alone."""

    def zero(module: nn.Module, args: object, output: Tensor) -> Tensor:
        copy = output.clone()
        copy[:, unit] = 0
        return copy

    handle = model.get_submodule(LAYER).register_forward_hook(zero)
    try:
        return model(batch)
    finally:
        handle.remove()


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ablated(images: int, units: int, device: str, *, runs: int = 3) -> list[Row]:
    """The cost of nothing ablated and each of so many units, over a pass; passes are timed before and after."""
    torch.manual_seed(0)
    model = VGG16().eval().to(device)
    batch = torch.randn(images, 3, 224, 224, device=device)
    sets = np.concatenate([np.zeros((1, 512), np.bool_), np.eye(512, dtype=np.bool_)])[: units + 1]
    levels = torch.zeros(512, device=device)
    with torch.inference_mode():
        assert why_whole(model, LAYER, batch[:2]) is None
        model(batch)
        before = [timed(lambda: model(batch), device) for _ in range(runs)]
        rest, found = Rest.of(model, LAYER), list[Tensor]()
        seconds = timed(lambda: found.extend(rest.scores(batch, sets, levels)), device)
        after = [timed(lambda: model(batch), device) for _ in range(runs)]
        for unit in (unit for unit in COMPARED if unit < units):
            whole = without(model, batch, unit)
            same = torch.equal(found[unit + 1], whole) if device == "cpu" else torch.allclose(found[unit + 1], whole)
            assert same, f"unit {unit} has other scores than in the whole network"
    one = statistics.median(before + after)
    passes = seconds / one
    exact = "bit by bit" if device == "cpu" else "up to rounding"
    what = f"all {units} units of a VGG16's conv5_3, {images} images at once on {device}"
    return [
        Row(f"{what}: a pass through the whole network", f"{one:.2f} s, {images / one:.1f} images/s", "", None),
        Row(
            f"{what}: each unit ablated, scores equal {exact}",
            f"{passes:.2f} passes ({seconds:.1f} s, stacks of {rest.stacks[images]} units)",
            f"≤ {TARGET:g} passes" if units == 512 else "",
            passes <= TARGET if units == 512 else None,
        ),
    ]


def main() -> None:
    """Measure, print, and write down where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="images of a batch")
    parser.add_argument("--units", type=int, default=512, help="units to ablate, the first ones")
    parser.add_argument("--threads", type=int, help="torch threads; torch's own choice if absent")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--record", type=writable, help="Markdown file whose section on ablation is replaced")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    rows = ablated(given.images, given.units, given.device)
    mark = {True: "met", False: "**missed**", None: ""}
    about = torch.cuda.get_device_name() if given.device != "cpu" else f"{torch.get_num_threads()} threads"
    lines = [
        f"`python pipelines/bench_ablation.py --images {given.images} --units {given.units}`: random weights, torch "
        f"{torch.__version__}, {about}; load before: {load}.",
        "",
        "| what | measured | target | |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.measured} | {row.target} | {mark[row.met]} |" for row in rows),
    ]
    print("\n".join(lines))
    if given.record:
        write_section(given.record, SECTION, "\n".join(lines))


if __name__ == "__main__":
    main()
