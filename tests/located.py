"""Images with one drawn object each, and maps that are the object's pixels: boxes known by hand.

Knows: Pillow, the package's writers, the network of `planted`.
Does not know: what is tested.

An image of 8 x 8 pixels is black but for a rectangle in the colour of its class, and so are the maps of its colour: 0.5
on the rectangle and 0 elsewhere. Labels have 16 x 16 pixels, in which all rectangles are given. What is labelled may be
another rectangle.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from planted import CLASSES, network

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.request import SnapshotInfo
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.classes import Head, head_classes
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.readers.masks import read_masks

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in label pixels, half-open; even for what is drawn."""

SIDE = 16

DRAWN: dict[str, tuple[str, Box, Box | None]] = {
    # name: class, what is drawn, what is labelled as its concept
    "red-corner": ("red", (0, 0, 8, 8), (0, 0, 8, 8)),
    "green-corner": ("green", (8, 8, 16, 16), (8, 8, 16, 16)),
    "blue-corner": ("blue", (0, 8, 8, 16), (0, 8, 8, 16)),
    "green-small": ("green", (0, 0, 4, 4), (0, 0, 5, 5)),  # a mean of 4/64 * 0.5 is less than the bias of blue
    "red-elsewhere": ("red", (0, 0, 8, 8), (8, 8, 16, 16)),
    "red-unlabelled": ("red", (0, 0, 8, 8), None),
}


def write_drawn(
    folder: Path, drawn: Mapping[str, tuple[str, Box, Box | None]] = DRAWN, *, chunk: int = 4, size: int = 8
) -> tuple[RunStores, Path]:
    """A dissected run of these images, of which the planted head is measured in `<folder>/classes.zarr`.

    The network sees images of `size`, with so many cells along a side of its maps.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["image,class,split"]
    for name, (kind, seen, labelled) in drawn.items():
        pixels, mask = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
        pixels[seen[0] : seen[2], seen[1] : seen[3], CLASSES.index(kind)] = 128
        if labelled is not None:
            mask[labelled[0] : labelled[2], labelled[1] : labelled[3]] = 1 + CLASSES.index(kind)
        Image.fromarray(pixels[::2, ::2].copy()).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        rows.append(f"{name}.png,{kind},val")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "concepts.yaml").write_text("\n".join(f"{n}: {name}" for n, name in enumerate(CLASSES, 1)))
    run, net = RunStores.of(folder), network(batch=chunk, size=size)
    probe = read_masks(images=folder / "images", masks=folder / "masks", concepts=folder / "concepts.yaml")
    write_probe(probe, run.probe, pool=Threads(1), show=False)
    extraction = prepare_extraction(
        run.activations, run.probe, SnapshotInfo("s"), net.spec, replace(net.recording, layers=("relu",))
    )
    extract(extraction, pool=Threads(1), show=False)
    method = Method((0.05,), "half_pixel")
    dissect(run.activations, run.probe, run.dissection, method=method, pool=Threads(1), show=False)
    labelled_images = class_table(folder / "labels.csv", probe=run.probe, outputs=CLASSES)
    url = folder / "classes.zarr"
    head_classes(url, run, labelled_images, net, Head("head", "relu", "s"), pool=Threads(1), show=False)
    return run, url
