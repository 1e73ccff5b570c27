"""Composes one image of handwritten digits together with its label maps.

Knows: layouts of digits, families of backgrounds, and how digits, patches of texture and colours are painted on a
canvas.
Does not know: label numbers, files, which categories an image is annotated for, or where the handwriting comes from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.probe.colors import COLOR_NAMES, PROTOTYPES
from dissect_xr.probe.digits.textures import TEXTURES, texture

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The objects in the order of their labels, which start at 1."""

_LOW, _HIGH = 0.14, 0.86
LAYOUTS: dict[str, tuple[tuple[float, float], ...]] = {
    "single": ((0.5, 0.5),),
    "pair": ((0.5, 0.28), (0.5, 0.72)),
    "row": ((0.5, _LOW), (0.5, 0.38), (0.5, 0.62), (0.5, _HIGH)),
    "column": ((_LOW, 0.5), (0.38, 0.5), (0.62, 0.5), (_HIGH, 0.5)),
    "diagonal": ((_LOW, _LOW), (0.38, 0.38), (0.62, 0.62), (_HIGH, _HIGH)),
    "cross": ((0.5, 0.5), (0.2, 0.5), (0.8, 0.5), (0.5, 0.2), (0.5, 0.8)),
    "corner": ((_LOW, _LOW), (0.4, _LOW), (_LOW, 0.4)),
    "ring": ((0.17, 0.5), (0.34, 0.8), (0.66, 0.8), (0.83, 0.5), (0.66, 0.2), (0.34, 0.2)),
    "grid": tuple((y, x) for y in (0.18, 0.5, 0.82) for x in (0.18, 0.5, 0.82)),
    "frame": ((0.18, 0.18), (0.18, 0.82), (0.82, 0.18), (0.82, 0.82)),
    "triangle": ((0.25, 0.5), (0.75, 0.25), (0.75, 0.75)),
    "scatter": (),
}
"""Centres of the digits as shares of the image's height and width; those of scatter are random."""

# Digits are larger in layouts with few digits, so that all layouts have about the same amount of ink.
_DIGIT_SIDE = {"single": 0.42, "pair": 0.36, "triangle": 0.34, "corner": 0.3, "frame": 0.32}
_USUAL_SIDE = 0.28
_SCATTERED = 5

BACKGROUNDS: dict[str, str] = {"paper": "white", "slate": "black", "lawn": "green", "water": "blue"}
"""The colour of each family of backgrounds."""

# No background has one of these colours, so each covers few pixels and can be detected at a fraction of 0.005.
_INKS = ("brown", "grey", "orange", "pink", "purple", "red", "yellow")

SCENES = tuple(f"{layout}-on-{background}" for layout in LAYOUTS for background in BACKGROUNDS)
"""The scenes: a layout on a background."""


@dataclass(frozen=True)
class Handwriting:
    """Enlarged digits to draw from, all `(digit, row, col)`."""

    ink: NDArray[np.float32]
    """Opacity of the ink, 0 to 1."""
    parts: NDArray[np.uint8]
    """Label of the part at each pixel, 0 = none."""
    digit: NDArray[np.int64]
    """Which digit it is, 0 to 9, `(digit)`."""


@dataclass(frozen=True)
class Canvas:
    """An image while it is painted, with one label map per category; labels are 1-based, 0 = none."""

    rgb: NDArray[np.float32]
    """Levels from 0 to 255, `(row, col, 3)`."""
    color: NDArray[np.uint8]
    object: NDArray[np.uint8]
    part: NDArray[np.uint8]
    texture: NDArray[np.uint8]


def compose(
    handwriting: Handwriting, *, scene: str, size: int, patches: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
    """An image of the given scene and its label maps by category, `(size, size, 3) uint8` and `(size, size) uint8`.

    Parameters
    ----------
    handwriting : Handwriting
        The digits to draw from.
    scene : str
        One of `SCENES`.
    size : int
        Side of the image in pixels.
    patches : int
        How many patches of texture lie on the background, under the digits.
    rng : numpy.random.Generator
        Draws all other properties; the same state gives the same image.
    """
    layout, background = scene.split("-on-")
    canvas = _background(background, size, rng)
    for _ in range(patches):
        _paint_patch(canvas, rng)
    centres = LAYOUTS[layout] or _scattered(rng)
    for centre in centres:
        side = _DIGIT_SIDE.get(layout, _USUAL_SIDE) * rng.uniform(0.85, 1.1)
        position = np.asarray(centre) + rng.normal(0, 0.012, 2)
        _paint_digit(canvas, handwriting, position * size, max(16, round(side * size)), rng)
    light = 1 + 0.12 * _clouds((size, size), 2, rng)[..., None]
    levels = canvas.rgb * light + rng.normal(0, 5, canvas.rgb.shape)
    maps = {"object": canvas.object, "part": canvas.part, "texture": canvas.texture, "color": canvas.color}
    return np.clip(levels, 0, 255).astype(np.uint8), maps


def _background(name: str, size: int, rng: np.random.Generator) -> Canvas:
    """A canvas covered by one family of background and no other label."""
    label, paint = _paint(BACKGROUNDS[name], rng)
    rows = np.arange(size)[:, None] / size
    relief: NDArray[np.floating]
    if name == "paper":  # ruled
        relief = -35.0 * ((rows * rng.uniform(9, 12) + rng.uniform()) % 1 < 0.15) * np.ones((1, size))
    elif name == "slate":  # wiped chalk
        relief = 14 * _clouds((size, size), 4, rng)
    elif name == "lawn":  # blades
        relief = 22 * _clouds((size, size), size // 2, rng)
    else:  # ripples
        bend = 3 * _clouds((size, size), 3, rng)
        relief = 14 * np.sin(2 * np.pi * rows * rng.uniform(6, 8) + bend)
    empty = np.zeros((4, size, size), dtype=np.uint8)
    empty[0] = label
    return Canvas((paint + relief[..., None]).astype(np.float32), *empty)


def _paint_patch(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint a rectangle or an ellipse of a random texture in two random colours; writes into the canvas."""
    size = len(canvas.color)
    height, width = (int(side) for side in rng.integers(size // 4, size * 9 // 20, 2))
    top, left = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    window = np.s_[top : top + height, left : left + width]
    label = int(rng.integers(len(TEXTURES)))
    tones = texture(list(TEXTURES)[label], shape=(height, width), period=rng.uniform(6, 9), rng=rng)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (y**2 + x**2 <= 1) | (rng.uniform() < 0.5)
    usual, rare = rng.choice(list(BACKGROUNDS.values())), rng.choice(_INKS)
    for region, name in ((inside & tones, usual), (inside & ~tones, rare)):
        color, paint = _paint(str(name), rng)
        canvas.rgb[window][region] = paint
        canvas.color[window][region] = color
    canvas.texture[window][inside] = label + 1


def _paint_digit(
    canvas: Canvas, handwriting: Handwriting, centre: NDArray[np.float64], side: int, rng: np.random.Generator
) -> None:
    """Paint a random digit in a random ink, moved inside where it would cross the border; writes into the canvas."""
    index = int(rng.integers(len(handwriting.digit)))
    top, left = np.clip(np.round(centre - side / 2), 0, len(canvas.color) - side).astype(int)
    window = np.s_[top : top + side, left : left + side]
    ink = _resized(handwriting.ink[index], side, Image.Resampling.BOX)
    parts = _resized(handwriting.parts[index], side, Image.Resampling.NEAREST)
    color, paint = _paint(str(rng.choice(_INKS)), rng)
    canvas.rgb[window] += ink[..., None] * (paint - canvas.rgb[window])
    solid = ink > 0.5
    canvas.color[window][solid] = color
    canvas.texture[window][solid] = 0
    # The label of a digit includes the holes that it encloses, so that every part lies on its object, although the
    # background is visible there.
    whole = solid | (parts > 0)
    canvas.object[window][whole] = handwriting.digit[index] + 1
    canvas.part[window][whole] = parts[whole]


def _scattered(rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres in different cells of a 3 by 3 grid, so that digits seldom overlap."""
    cells = rng.choice(9, _SCATTERED, replace=False)
    return (np.stack(np.divmod(cells, 3), axis=1) + rng.uniform(0.3, 0.7, (_SCATTERED, 2))) / 3


def _paint(name: str, rng: np.random.Generator) -> tuple[int, NDArray[np.float32]]:
    """The label of a colour and one shade of it, close enough to the prototype to keep its name."""
    label = COLOR_NAMES.index(name)
    return label + 1, (PROTOTYPES[label] + rng.normal(0, 7) + rng.normal(0, 4, 3)).astype(np.float32)


def _clouds(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise with a standard deviation of about 1, interpolated from `cells` + 1 knots along each side."""
    knots = Image.fromarray(rng.normal(0, 1, (cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(knots.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _resized(
    field: NDArray[np.float32] | NDArray[np.uint8], side: int, method: Image.Resampling
) -> NDArray[np.float32]:
    """A square field at another size; use `NEAREST` for labels."""
    return np.asarray(Image.fromarray(field).resize((side, side), method))
