"""About how long both passes over the activations of a snapshot will take, as all cells and as tails.

Knows: how fast this machine reads a store, which it measures, and what the parts of the passes cost beside that.
Does not know: stages, models, or how long a forward pass takes.

The parts were measured on one core of a machine of which `reading_rate` is `REFERENCE` (`pipelines/benchmarks.md`). A
machine that reads twice as fast is taken to do all else twice as fast. An example of
1,000 images of 2,048 units of 7x7 at the fraction 0.005, with four planes of 112x112 labels: all cells are 201 MB, read
twice in 0.9 s; the values take 0.15 s, the masks of 61,000 maps that reach T 0.6 s, labels 0.05 s. As tails, maps and
values take 0.2 s, masks and labels the same.

>>> size = PassSize(images=1000, maps=2048, values=2048 * 49, reached=61, labels=4 * 112 * 112)
>>> round(seconds(size, REFERENCE, "dense"), 1), round(seconds(size, REFERENCE, "tail"), 1)
(1.7, 0.8)
"""

import math
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dissect_xr import store
from dissect_xr.dissection.layers import Layer

REFERENCE = 0.6e9
"""What `reading_rate` finds on the machine on which the costs that follow were measured."""

READ = 2.2e-9
"""Seconds to read a byte of a layer's maps."""

VALUE = 1.5e-9
"""Seconds to search a value for thresholds where all cells are stored."""

TAIL_MAP, TAIL_VALUE = 5e-8, 1e-9
"""Seconds to read, search and unpack a map as a tail: a part for each, and one for each value that it would have."""

MASK = 9.5e-6
"""Seconds to follow a mask through label maps of 112x112 pixels, and to count it."""

LABEL = 1e-9
"""Seconds to read a label, a pixel of a plane, as runs."""

CELLS = 6
"""Maps that reach T are about so many times the fraction of cells that do, unless a map has fewer cells."""

_SIDE = 112
_TIMED = (256, 128, 14, 14)
"""Maps that are written and read to measure the rate: 12 MiB."""


@dataclass(frozen=True)
class PassSize:
    """What both passes over the layers of a snapshot have to do, of one image but for `images`."""

    images: int
    maps: int
    values: int
    """of all cells, in float16"""
    reached: float
    """maps that reach the threshold, by rule of thumb"""
    labels: int
    """pixels of all planes"""

    @classmethod
    def of(cls, layers: Iterable[Layer], fractions: Iterable[float], labels: tuple[int, ...]) -> "PassSize":
        """That of recorded layers, with label maps of (image, plane, row, col)."""
        found, shares = list(layers), list(fractions)
        return cls(
            labels[0],
            sum(layer.shape[1] for layer in found),
            sum(layer.shape[1] * layer.cells * layer.itemsize // 2 for layer in found),
            sum(layer.shape[1] * min(1.0, share * min(CELLS, layer.cells)) for layer in found for share in shares),
            labels[1] * labels[2] * labels[3],
        )


def seconds(size: PassSize, rate: float, keep: str) -> float:
    """Seconds of one core for both passes, on a machine that reads `rate` bytes of maps a second.

    Parameters
    ----------
    keep
        "dense" or "tail".
    """
    side = math.sqrt(size.labels / 4)  # of maps of four planes, as MASK was measured with
    spent = size.reached * MASK * max(0.1, side / _SIDE) + size.labels * LABEL
    if keep == "dense":
        spent += size.values * (2 * 2 * READ + VALUE)  # two bytes, read twice
    else:
        spent += size.maps * TAIL_MAP + size.values * TAIL_VALUE
    return size.images * spent * REFERENCE / rate


def reading_rate() -> float:
    """Bytes of maps that a core of this machine reads from a store in a second; takes about half of one."""
    maps = np.maximum(np.random.default_rng(0).standard_normal(_TIMED, np.float32), 0).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        url = str(Path(folder) / "rate.zarr")
        spec = store.ArraySpec("maps", ("image", "unit", "y", "x"), _TIMED, "float16", (64, 64, *_TIMED[2:]))
        store.create(url, "", [spec], {})
        with store.marked(url, "done", fingerprint="") as (writer, _):
            writer.write("maps", (0, 0, 0, 0), maps)
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            store.read(url, "maps")[:]
            best = min(best, time.process_time() - start)
    return maps.nbytes / best


def about(spent: float) -> str:
    """A time in words, to one or two digits.

    >>> [about(spent) for spent in (0.3, 42, 200, 5000)]
    ['under a second', '42 s', '3 min', '1.4 h']
    """
    if spent < 1:
        return "under a second"
    if spent < 120:
        return f"{spent:.0f} s"
    return f"{spent / 60:.0f} min" if spent < 5400 * 0.9 else f"{spent / 3600:.1f} h"
