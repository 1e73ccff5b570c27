"""The labels of one image: duplicates are removed, and the pixels of every concept are counted.

Knows: planes, whole-image labels, concepts and their categories, as arrays.
Does not know: files or stores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tables:
    """Concept tables as arrays."""

    index: NDArray[np.int64]
    """(65536,) concept number -> index of the concept, -1 for other numbers"""
    category: NDArray[np.int64]
    """(concept,) index of the primary category"""

    @classmethod
    def of(cls, numbers: NDArray[np.int64], category: NDArray[np.int64], ignored: NDArray[np.int64]) -> "Tables":
        """The tables of concepts with these numbers and categories; `ignored` numbers mean no label."""
        index = np.full(1 << 16, -1, np.int64)
        index[numbers] = np.arange(numbers.size)
        index[ignored] = -1
        return cls(index, category)


def label_image(planes: NDArray[np.uint16], whole: NDArray[np.uint16], tables: Tables) -> NDArray[np.int64]:
    """Remove duplicate labels of one image in place, and return the number of pixels of each concept, (concept,).

    Numbers without a concept become 0. A label counts once per pixel: it is removed from a plane if an earlier plane
    has it at the same pixel, or the whole image has it (docs/method.md, section 1.5).

    Parameters
    ----------
    planes : (plane, row, col) concept numbers, changed in place
    whole : (slot,) concept numbers of the whole image
    """
    planes[tables.index[planes] < 0] = 0
    present = whole[whole > 0]
    planes[np.isin(planes, present)] = 0
    for later in range(1, len(planes)):
        for earlier in range(later):
            planes[later][planes[later] == planes[earlier]] = 0
    found = np.bincount(planes.ravel(), minlength=1 << 16)
    found[0] = 0
    numbers = np.flatnonzero(found)
    area = np.zeros(tables.category.size, np.int64)
    area[tables.index[numbers]] = found[numbers]
    area[tables.index[present]] = planes[0].size
    return area
