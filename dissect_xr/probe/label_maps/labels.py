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
    """Concept tables as arrays. A source is a label set that labels come from: there are several in a merged one."""

    index: NDArray[np.int64]
    """(65536,) concept number -> index of the concept, -1 for other numbers"""
    void: NDArray[np.bool_]
    """(65536,) whether a number means an ignored pixel"""
    category: NDArray[np.int64]
    """(concept,) index of the primary category"""
    domain: NDArray[np.int64]
    """(concept,) index of the domain"""
    own: NDArray[np.bool_]
    """(source, concept) whether the source verifies images for this concept alone"""
    reach: NDArray[np.bool_]
    """(source, category, domain) whether an image with a label of the category is annotated for the domain"""

    @staticmethod
    def index_of(numbers: NDArray[np.int64], ignored: NDArray[np.int64]) -> NDArray[np.int64]:
        """(65536,) the index of each number among `numbers`; -1 for all others and for `ignored` ones, no labels."""
        index = np.full(1 << 16, -1, np.int64)
        index[numbers] = np.arange(numbers.size)
        index[ignored] = -1
        return index


@dataclass(frozen=True)
class Share:
    """The labels of an image that come from one source."""

    planes: tuple[int, int]
    """the first of its planes, and the first one after them"""
    whole: tuple[int, ...] = ()
    """concept numbers of the whole image"""
    verified: tuple[int, ...] = ()
    """numbers of the concepts that the source has verified this image for, of those it verifies one by one"""
    source: int = 0


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
    planes: NDArray[np.uint16], whole: NDArray[np.uint16], tables: Tables, shares: Sequence[Share]
) -> ImageLabels:
    """Remove what does not count from the labels of one image, in place, and count the pixels of each concept.

    Numbers without a concept become 0, ignored pixels lose their labels in all planes, and a label of a source that
    verifies images for its concept alone counts only where this image is verified. A label counts once per pixel: it is
    removed from a plane if an earlier plane has it at the same pixel, or the whole image has it (docs/method.md,
    section 1.5). Each source says by its own labels which domains the image is annotated for (section 1.4).

    Parameters
    ----------
    planes : (plane, row, col) concept numbers, changed in place
    whole : (slot,) concept numbers of the whole image, changed in place
    shares
        Which of the labels come from which source. Every plane is in a share.
    """
    ignored: NDArray[np.bool_] = np.logical_or.reduce(tables.void[planes], axis=0)
    planes[:, ignored] = 0
    visible = ignored.size - int(ignored.sum())
    annotated = np.zeros(tables.reach.shape[2], np.bool_)
    counted = set[int]()
    for share in shares:
        index = _index_for(share, tables)
        mine = planes[slice(*share.planes)]
        mine[index[mine] < 0] = 0
        present = {number for number in share.whole if index[number] >= 0}
        counted |= present
        seen = np.bincount(mine.ravel(), minlength=1 << 16) > 0
        seen[list(present)] |= visible > 0
        annotated |= _annotated(index[np.flatnonzero(seen)], share, tables)
    whole[~np.isin(whole, list(counted))] = 0
    planes[np.isin(planes, whole[whole > 0])] = 0
    for later in range(1, len(planes)):
        for earlier in range(later):
            planes[later][planes[later] == planes[earlier]] = 0
    found = np.bincount(planes.ravel(), minlength=1 << 16)
    found[0] = 0
    numbers = np.flatnonzero(found)
    area = np.zeros(tables.domain.size, np.int64)
    area[tables.index[numbers]] = found[numbers]
    area[tables.index[whole[whole > 0]]] = visible
    return ImageLabels(area, np.flatnonzero(annotated), ignored)


def _index_for(share: Share, tables: Tables) -> NDArray[np.int64]:
    """(65536,) concept number -> index of the concept, -1 for what does not count in this image."""
    if not tables.own[share.source].any():
        return tables.index
    unverified = tables.own[share.source].copy()
    unverified[_verified(share, tables)] = False
    index = tables.index.copy()
    index[np.isin(index, np.flatnonzero(unverified))] = -1
    return index


def _verified(share: Share, tables: Tables) -> NDArray[np.int64]:
    """Indices of the concepts that the image is verified for."""
    known = tables.index[np.asarray(share.verified, np.int64)]
    return known[known >= 0]


def _annotated(seen: NDArray[np.int64], share: Share, tables: Tables) -> NDArray[np.bool_]:
    """(domain,) whether the image is annotated for it by a source; `seen` are indices of concepts, or -1."""
    own, seen = tables.own[share.source], seen[seen >= 0]
    categories = np.unique(tables.category[seen[~own[seen]]])
    found: NDArray[np.bool_] = tables.reach[share.source, categories].any(axis=0)
    verified = _verified(share, tables)
    found[tables.domain[verified[own[verified]]]] = True
    return found
