"""The labels of one image: duplicates and ignored pixels are removed, and the pixels of every concept are counted.

Knows: planes, whole-image labels, concepts and their domains, as arrays.
Does not know: files or stores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tables:
    """Concept tables as arrays."""

    index: NDArray[np.int64]
    """(65536,) concept number -> index of the concept, -1 for other numbers"""
    domain: NDArray[np.int64]
    """(concept,) index of the domain"""
    own: NDArray[np.bool_]
    """(concept,) whether the concept is a domain of its own"""
    void: NDArray[np.bool_]
    """(65536,) whether a number means an ignored pixel"""

    @classmethod
    def of(
        cls,
        numbers: NDArray[np.int64],
        domain: NDArray[np.int64],
        own: NDArray[np.bool_],
        ignored: NDArray[np.int64],
        void: NDArray[np.bool_],
    ) -> "Tables":
        """The tables of concepts with these numbers and domains; `ignored` numbers mean no label."""
        index = np.full(1 << 16, -1, np.int64)
        index[numbers] = np.arange(numbers.size)
        index[ignored] = -1
        return cls(index, domain, own, void)


@dataclass(frozen=True)
class ImageLabels:
    """What was found in one image."""

    area: NDArray[np.int64]
    """(concept,) pixels"""
    domains: NDArray[np.int64]
    """indices of the domains that the image is annotated for"""
    ignored: NDArray[np.bool_]
    """(row, col)"""


def label_image(
    planes: NDArray[np.uint16], whole: NDArray[np.uint16], tables: Tables, verified: Sequence[int] = ()
) -> ImageLabels:
    """Remove what does not count from the labels of one image, in place, and count the pixels of each concept.

    Numbers without a concept become 0, ignored pixels lose their labels in all planes, and a concept with a domain of
    its own counts only in images that are verified for it. A label counts once per pixel: it is removed from a plane if
    an earlier plane has it at the same pixel, or the whole image has it (docs/method.md, section 1.5).

    Parameters
    ----------
    planes : (plane, row, col) concept numbers, changed in place
    whole : (slot,) concept numbers of the whole image, changed in place
    verified
        Numbers of the concepts with a domain of their own that the image is verified for.
    """
    ignored: NDArray[np.bool_] = np.logical_or.reduce(tables.void[planes], axis=0)
    planes[:, ignored] = 0
    index = tables.index
    if tables.own.any():
        index = index.copy()
        known = index[np.asarray(verified, np.int64)]
        unverified = tables.own.copy()
        unverified[known[known >= 0]] = False
        index[np.isin(index, np.flatnonzero(unverified))] = -1
    planes[index[planes] < 0] = 0
    whole[index[whole] < 0] = 0
    present = whole[whole > 0]
    planes[np.isin(planes, present)] = 0
    for later in range(1, len(planes)):
        for earlier in range(later):
            planes[later][planes[later] == planes[earlier]] = 0
    found = np.bincount(planes.ravel(), minlength=1 << 16)
    found[0] = 0
    numbers = np.flatnonzero(found)
    area = np.zeros(tables.domain.size, np.int64)
    area[index[numbers]] = found[numbers]
    area[index[present]] = ignored.size - int(ignored.sum())
    looked_for = index[np.asarray(verified, np.int64)]
    mine = np.concatenate([np.flatnonzero(area), looked_for[looked_for >= 0]])
    return ImageLabels(area, np.unique(tables.domain[mine]), ignored)
