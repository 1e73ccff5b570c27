"""A segmenter whose labels are known: it names the colours of pixels, on images that people labelled by hand.

Knows: images of 4 x 6 pixels, what the network says of each, what people say.
Does not know: dissect_xr, but for the names of its probes.
"""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4, 6)

NETWORK = '''
import torch
from torch import nn


class Colours(nn.Module):
    """Scores of nothing (0), red (1) and green (2): how much of the colour a pixel has. Nothing has half of both."""

    def __init__(self, form="tensor", large=1.0):
        super().__init__()
        self.form, self.large = form, large
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image):
        red, green = image[:, 0], image[:, 1]
        scores = self.large * self.scale * torch.stack([torch.full_like(red, 0.5), red, green], 1)
        if self.form == "labels":
            return scores.argmax(1)
        return {"out": scores, "aux": scores * 0} if self.form == "out" else scores
'''

RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)

CLASSES = {1: "red", 2: "green"}


def picture(*rectangles: tuple[tuple[int, int, int], int, int, int, int]) -> Image.Image:
    """A black image with rectangles: colour, first row, first column, last row and column (excluded)."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    for color, top, left, bottom, right in rectangles:
        pixels[top:bottom, left:right] = color
    return Image.fromarray(pixels)


PICTURES = {
    "a.png": picture((RED, 0, 0, 2, 3), (GREEN, 3, 0, 4, 6)),
    "b.png": picture((GREEN, 0, 0, 4, 2)),
    "c.png": picture(),
}
"""Red has 6 pixels, green 6 + 8."""

PEOPLE = {
    # Red as it is but for a column; a border that is ignored lies in what is green.
    "a.png": ((1, 0, 0, 2, 2), (2, 3, 0, 4, 6), (255, 3, 0, 4, 1)),
    # Green in one half only, and red where there is none.
    "b.png": ((2, 0, 0, 2, 2), (1, 0, 5, 1, 6)),
}
"""Image -> (number, first row, first column, last row and column) of what people drew; `c.png` has no labels."""

AGREEMENT = {"red": (4, 4 + 3), "green": (5 + 4, 5 + 8)}
"""Of `red`: 4 pixels have both labels, 2 are predicted only, 1 is drawn by people only. Of `green`, without the ignored
pixel: 5 and 4 have both, 4 are predicted only."""


def write(folder: Path) -> Path:
    """Images, people's label maps of two of them, tables and the network."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for name, image in PICTURES.items():
        image.save(folder / "images" / name)
        labels = np.zeros(SIZE, np.uint8)
        for number, top, left, bottom, right in PEOPLE.get(name, ()):
            labels[top:bottom, left:right] = number
        Image.fromarray(labels).save(folder / "masks" / name)
    (folder / "colours.py").write_text(NETWORK)
    (folder / "concepts.yaml").write_text("1: red\n2: green\n")
    (folder / "classes.yaml").write_text("1: red\n2: green\n")
    return folder
