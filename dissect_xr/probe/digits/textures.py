"""Two-tone texture patterns for composed images.

Knows: sixteen named patterns, each a boolean function of the pixel grid that chooses one of two colours for a pixel.
Does not know: colours, images, labels, or where in an image a pattern lies.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Grid: TypeAlias = NDArray[np.float64]
Tones: TypeAlias = NDArray[np.bool_]
Pattern: TypeAlias = Callable[[Grid, Grid, np.random.Generator], Tones]


def texture(name: str, *, shape: tuple[int, int], period: float, rng: np.random.Generator) -> Tones:
    """A patch of the named texture, `(row, col) bool`: True for the second of two colours.

    Parameters
    ----------
    name : str
        One of `TEXTURES`.
    shape : (int, int)
        Rows and columns in pixels.
    period : float
        Pixels after which the pattern repeats; a small network detects periods of about 6 to 10 well.
    rng : numpy.random.Generator
        Draws the phase, and the grains of the irregular textures.

    Examples
    --------
    >>> patch = texture("chequered", shape=(64, 64), period=8.0, rng=np.random.default_rng(0))
    >>> patch.shape, int(patch.sum())
    ((64, 64), 2048)
    """
    phase = rng.uniform(0, 1, 2)
    rows, cols = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    return TEXTURES[name](rows / period + phase[0], cols / period + phase[1], rng)


def _half(coordinate: Grid) -> Tones:
    """True in the second half of each period of 1."""
    return coordinate % 1 >= 0.5


def _line(coordinate: Grid) -> Tones:
    """True in the quarter of each period of 1 that a thin line takes."""
    return coordinate % 1 >= 0.75


def _triangle(coordinate: Grid) -> Grid:
    """A triangular wave of period 1 between 0 and 1."""
    return np.abs(2 * (coordinate % 1) - 1)


def _radius(y: Grid, x: Grid) -> Grid:
    """Distance from the centre of each cell of side 1."""
    return np.hypot(y % 1 - 0.5, x % 1 - 0.5)


def _horizontal_stripes(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(y)


def _vertical_stripes(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(x)


def _rising_stripes(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half((x + y) * 0.75)


def _falling_stripes(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half((x - y) * 0.75)


def _dotted(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _radius(y, x) < 0.3


def _chequered(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(y) ^ _half(x)


def _grid(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _line(y) | _line(x)


def _crosshatched(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _line((x + y) * 0.7) | _line((x - y) * 0.7)


def _zigzagged(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(y + _triangle(x / 1.5))


def _wavy(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(x + 0.4 * np.sin(2 * np.pi * y / 2))


def _ringed(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _half(1.5 * np.hypot(y - y.mean(), x - x.mean()))


def _bricked(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return _line(y * 1.2) | (((x + 0.5 * (np.floor(y * 1.2) % 2)) * 0.6) % 1 >= 0.85)


def _scaly(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    shifted = x + 0.5 * (np.floor(y) % 2)
    return np.abs(np.hypot(y % 1, shifted % 1 - 0.5) - 0.5) < 0.14


def _woven(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return np.where(_half(y) ^ _half(x), _half(4 * y), _half(4 * x))


def _grainy(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    return rng.random(y.shape) < 0.5


def _speckled(y: Grid, x: Grid, rng: np.random.Generator) -> Tones:
    seeds = rng.random(y.shape) < 0.04
    # Each seed is a spot of 2 by 2 pixels, so that it survives a label grid of half the size.
    spots = seeds | np.roll(seeds, 1, axis=0)
    return spots | np.roll(spots, 1, axis=1)


TEXTURES: dict[str, Pattern] = {
    "horizontally-striped": _horizontal_stripes,
    "vertically-striped": _vertical_stripes,
    "rising-striped": _rising_stripes,
    "falling-striped": _falling_stripes,
    "dotted": _dotted,
    "chequered": _chequered,
    "grid": _grid,
    "crosshatched": _crosshatched,
    "zigzagged": _zigzagged,
    "wavy": _wavy,
    "ringed": _ringed,
    "bricked": _bricked,
    "scaly": _scaly,
    "woven": _woven,
    "grainy": _grainy,
    "speckled": _speckled,
}
"""The patterns by name; their arguments are rows and columns in periods, and a generator for irregular ones."""
