"""The concepts of a probe as arrays of indices, and the tables that the labels of a block are read by.

Knows: which index a category and a domain have.
Does not know: where concepts stand (a store or a label set).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.block import Block, read_maps
from dissect_xr.probe.label_maps.labels import ImageLabels, Tables, label_image
from dissect_xr.probe.label_set import LabelSet, Row


@dataclass(frozen=True)
class ConceptTable:
    """The concepts of a probe."""

    numbers: NDArray[np.int64]
    """(concept,)"""
    category: NDArray[np.int64]
    """(concept,) index of the category"""
    domain: NDArray[np.int64]
    """(concept,) index of the domain"""
    categories: dict[str, int]
    """name -> index"""
    domains: dict[str, int]

    @classmethod
    def of(
        cls,
        numbers: Sequence[int],
        categories: Sequence[str],
        domains: Sequence[str],
        all_categories: Sequence[str],
        all_domains: Sequence[str],
    ) -> "ConceptTable":
        """The table of concepts with these numbers, categories and domains."""
        of_categories, of_domains = (
            {name: n for n, name in enumerate(names)} for names in (all_categories, all_domains)
        )
        return cls(
            numbers=np.array(numbers, np.int64),
            category=np.array([of_categories[name] for name in categories], np.int64),
            domain=np.array([of_domains[name] for name in domains], np.int64),
            categories=of_categories,
            domains=of_domains,
        )

    @classmethod
    def of_label_set(cls, label_set: LabelSet) -> "ConceptTable":
        """The table that the probe of a label set will have."""
        concepts = label_set.concepts
        return cls.of(
            [one.number for one in concepts],
            [one.category for one in concepts],
            [one.domain for one in concepts],
            label_set.categories,
            label_set.domains,
        )

    def tables(self, block: Block) -> Tables:
        """The concept tables for the labels of a block."""
        reach = np.zeros((len(block.sources), len(self.categories), len(self.domains)), np.bool_)
        for n, source in enumerate(block.sources):
            for category, domains in source.reach.items():
                reach[n, self.categories[category], [self.domains[name] for name in domains]] = True
        return Tables(
            index=Tables.index_of(self.numbers, np.flatnonzero(block.ignored.mask)),
            void=block.void.mask,
            category=self.category,
            domain=self.domain,
            own=np.array([source.own.mask[self.numbers] for source in block.sources]),
            reach=reach,
        )


@dataclass(frozen=True)
class GridLabels:
    """The labels of one image on the grid, as a probe would hold them."""

    planes: NDArray[np.uint16]
    """(plane, row, col)"""
    whole: NDArray[np.uint16]
    """(slot,)"""
    found: ImageLabels
    orientation: int
    """the EXIF orientation that the image is turned by"""


def labels_on_grid(block: Block, row: Row, tables: Tables) -> GridLabels:
    """The labels of a row of a block, for those who count before there is a probe; decodes its files."""
    maps = read_maps(block, row, hashlib.sha256(), hashlib.sha256())
    planes = np.zeros((max(1, block.planes), *block.label_size), np.uint16)
    planes[: len(maps.planes)] = maps.planes
    whole = np.array(row.whole or (0,), np.uint16)
    return GridLabels(planes, whole, label_image(planes, whole, tables, maps.shares), maps.orientation)
