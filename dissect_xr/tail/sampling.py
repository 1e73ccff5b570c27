"""Which images bounds are taken from, and which of a sample's values is the bound.

Knows: numbers of images and values.
Does not know: models, files, or what a tail is used for: a bound that turns out too high is noticed where thresholds
are proven.

A worked example. A layer of 7x7 cells, 63,305 images, the fraction 0.005 and the margin 2. The sample is 1,024 images,
which are 50,176 values of a unit. Its bound is the value that 2 * 0.005 of them exceed, and those of four images more,
since a unit may be bright all over a few images, and the sample may by chance have more of them than its share: the one
with the index 694 in descending order. In all images about one value in seventy then lies above it, and T, which one
value in two hundred exceeds, almost certainly does too.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.floats import codes, decode
from dissect_xr.schema import FRACTION
from dissect_xr.tail.packed import pack

LEAST, PART = 64, 4
"""A sample is a quarter of the images, but at least 64, where that is less than it may have at most."""

BRIGHT = 4
"""So many images of a sample may by chance be bright all over."""

MEASURED = 8
"""Images of the sample whose tails are made, to see how large tails are."""

WORTH = 0.5
"""A layer whose tail would be larger than this share of it is kept dense."""


@dataclass(frozen=True)
class Sampling:
    """How bounds are chosen."""

    fraction: float = FRACTION
    """the largest fraction that thresholds are wanted for"""
    margin: float = 2.0
    """times the fraction: the share of a sample's values above the bound"""
    images: int = 1024
    """images of a sample at most; a quarter of all, but at least 64, where that is fewer"""

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or not 1 <= self.margin < inf or self.images < 1:
            raise DissectError(
                f"fraction {self.fraction}, margin {self.margin}, sample {self.images}: expected a fraction between 0 "
                "and 1, a margin of at least 1, and a sample of at least one image."
            )

    def of(self, images: int) -> list[int]:
        """Indices of the sample among so many images, spread evenly.

        >>> Sampling(images=4).of(10)
        [0, 2, 5, 7]
        """
        size = min(images, self.images, max(LEAST, images // PART))
        return [i * images // size for i in range(size)]

    def share(self, images: int) -> Fraction:
        """The share of a sample's values that lie above the bound, with so many images in all.

        A unit may be bright all over a few images. Where the sample is not of all images it may hold more of these
        than its share, so `BRIGHT` images more are let through, in proportion to what was not sampled.
        """
        sampled = len(self.of(images))
        wanted = Fraction(repr(self.fraction)) * Fraction(repr(self.margin))
        return wanted + Fraction(BRIGHT, sampled) * (1 - Fraction(sampled, images))

    def index(self, cells: int, images: int) -> int:
        """Index of the bound among a sample's values in descending order, for maps of so many cells.

        Parameters
        ----------
        images
            All images.

        Examples
        --------
        >>> Sampling(0.005, 2).index(49, 63305)  # floor((0.01 + 4 / 1024 * (1 - 1024 / 63305)) * 1024 * 49)
        694
        """
        values = len(self.of(images)) * cells
        return min(values - 1, floor(self.share(images) * values))


SAMPLING = Sampling()
"""How bounds are chosen where nothing else is said."""


class Largest:
    """The largest values of each unit, of all that were added."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._kept: list[NDArray[np.signedinteger]] = []
        """(unit, value) codes"""

    def add(self, maps: NDArray[np.floating]) -> None:
        """Add the values of maps (image, unit, y, x)."""
        self._kept.append(codes(np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1)))
        if sum(part.shape[1] for part in self._kept) > 2 * self._wanted:
            self._cut()

    def _cut(self) -> None:
        joined = np.concatenate(self._kept, axis=1)
        if (spare := joined.shape[1] - self._wanted) > 0:
            joined = np.partition(joined, spare, axis=1)[:, spare:].copy()
        self._kept = [joined]

    def smallest(self) -> NDArray[np.float32]:
        """(unit,) the smallest of the largest values; -0.0 as 0.0."""
        self._cut()
        found = self._kept[0].min(axis=1)
        return decode(found.astype(np.int64), found.dtype.itemsize)


def share_of(maps: NDArray[np.floating], bound: NDArray[np.float32]) -> float:
    """Bytes of the tails of maps (image, unit, y, x) over theirs, before compression."""
    return pack(maps, bound)[0].nbytes / maps.nbytes
