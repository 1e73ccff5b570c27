"""Networks whose units do what is planted in them, and images of single colours: effects known without running them.

Knows: torch, Pillow, the package's specs of models.
Does not know: what is tested.

Images are of one colour each, half red, green or blue. The layer `seen` has a unit for each of `SEEN`: its map is the
brightness of that channel, 0.5 on its colour and 0 on others. The head adds up means of maps, with the weights of
`HEAD`, and a bias of 0.1 for blue: what is not seen is called blue.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.masks import read_masks

CLASSES = ("red", "green", "blue")

SEEN = (0, 1, 2, 0)
"""Channel that each unit sees: units 0 and 3 both see red."""

HERE = Path(__file__)


class Planted(nn.Module):
    """Red rests on unit 0 (weight 1), or with `twice` on units 0 and 3 alike."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.seen, self.relu, self.head = nn.Conv2d(3, len(SEEN), 1), nn.ReLU(), nn.Linear(len(SEEN), 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            for unit, channel in enumerate(SEEN):
                self.seen.weight[unit, channel] = 1
                if unit < 3 or twice:
                    self.head.weight[channel, unit] = 1
            self.head.bias[2] = 0.1

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu(self.seen(image)).mean((2, 3)))


class Watching(Planted):
    """The same, by code that looks at a value."""

    def forward(self, image: Tensor) -> Tensor:
        maps = self.seen(image)
        return super().forward(image) if maps.sum() < 0 else self.head(self.relu(maps).mean((2, 3)))


class Squared(Planted):
    """The head takes squares."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu(self.seen(image)).mean((2, 3)) ** 2)


class Slashed(Planted):
    """The same, with a layer whose name no path can hold as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a/relu", nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.get_submodule("a/relu")(self.seen(image)).mean((2, 3)))


class Broken(Planted):
    """Divides by what it sees of red and green: 0 / 0 for blue images."""

    def forward(self, image: Tensor) -> Tensor:
        seen = self.relu(self.seen(image)).mean((2, 3))
        return self.head(seen) / (seen[:, :1] + seen[:, 1:2])


def write_colors(folder: Path, *, each: Sequence[int] = (4, 3, 2), splits: Sequence[str] = ("train", "val")) -> Path:
    """The images, so many of each class and split, and a table `labels.csv` of them; returns the table."""
    rows = ["image,class,split"]
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        for n, (name, count) in enumerate(zip(CLASSES, each, strict=True)):
            for i in range(count):
                color = [0, 0, 0]
                color[n] = 128
                Image.new("RGB", (8, 8), tuple(color)).save(folder / f"{split}-{name}-{i}.png")
                rows.append(f"{split}-{name}-{i}.png,{name},{split}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def write_run(
    folder: Path, *, each: Sequence[int] = (4, 3, 2), layers: tuple[str, ...] = ("seen", "relu"), **kwargs: object
) -> tuple[RunStores, Path]:
    """A dissected run on these images, whose whole area is labelled with their color, and their table of classes.

    At a fraction of 0.5 every unit has the threshold 0, and so is active on all of its color and nowhere else.
    """
    table = write_colors(folder / "images", each=each)
    (folder / "masks").mkdir()
    for path in (folder / "images").glob("*.png"):
        number = 1 + CLASSES.index(path.name.split("-")[1])
        Image.new("L", (8, 8), number).save(folder / "masks" / path.name)
    (folder / "concepts.yaml").write_text("\n".join(f"{n}: {name}" for n, name in enumerate(CLASSES, 1)))
    table.rename(folder / "labels.csv")
    probe = read_masks(images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml")
    run, net = RunStores.of(folder), network(**kwargs)
    write_probe(probe, run.probe, pool=Threads(1), show=False)
    recording = replace(net.recording, layers=layers)
    extraction = prepare_extraction(run.activations, run.probe, SnapshotInfo("s"), net.spec, recording)
    extract(extraction, pool=Threads(1), show=False)
    method = Method((0.5,), "half_pixel")
    dissect(run.activations, run.probe, run.dissection, method=method, pool=Threads(1), show=False)
    return run, folder / "labels.csv"


def network(factory: str = "Planted", *, batch: int = 4, size: int = 8, seed: int = 0, **kwargs: object) -> Network:
    """A network of this file or of `networks`, with the images as they are, 0 to 1."""
    file = HERE if factory in globals() else HERE.with_name("networks.py")
    recording = Recording(Preprocess((size, size), scale=256.0), batch=batch, device="cpu", threads=1)
    return Network(ModelSpec.of(f"{file}:{factory}", kwargs, seed=seed), recording)
