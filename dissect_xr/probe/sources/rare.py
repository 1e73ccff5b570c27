"""Removes concepts that few images have from a label set.

Knows: how the images of a concept are counted before there is a probe, and where the count is recorded.
Does not know: how labels are stored (`ingest`). Labels of removed concepts mean no label.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.block import Block, image_blocks
from dissect_xr.probe.ingest import block_length, label_set_fingerprint
from dissect_xr.probe.label_maps.labels import Tables
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.sources.concept_table import labels_on_grid
from dissect_xr.probe.sources.numbers import Numbers

KEY = "rare"
"""Key of the marker that records in how many images each concept is."""

SHOWN = 3
"""How many concepts a note names."""


@dataclass(frozen=True)
class CountTask:
    """One image block."""

    block: Block
    concepts: Numbers

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"count, images {self.block.rows[0].image} to {self.block.rows[-1].image}"


def without_rare_concepts(
    label_set: LabelSet, minimum: int, *, url: str | None = None, pool: Pool | None = None, show: bool = True
) -> LabelSet:
    """The label set without the concepts that fewer than `minimum` images have on its grid; decodes every image once.

    Parameters
    ----------
    url
        The probe that is made of it: the numbers of images are recorded in a marker there, and a resumed run decodes
        nothing.

    Raises
    ------
    DissectError
        If no concept is left.
    BlocksFailed
        If images or label maps cannot be read.
    """
    fingerprint = label_set_fingerprint(label_set.check())
    found = None if url is None else store.marker(url, KEY)
    if found is None or found["fingerprint"] != fingerprint:
        counts = _counts(label_set, pool or Threads(), show)
        if url is not None:
            store.mark(
                url, KEY, fingerprint=fingerprint, written={}, note={KEY: [list(pair) for pair in counts.items()]}
            )
    else:
        counts = dict(found["note"][KEY])
    rare = [concept for concept in label_set.concepts if counts.get(concept.number, 0) < minimum]
    if len(rare) == len(label_set.concepts):
        raise DissectError(f"min_images: no concept is in {minimum} images, the most frequent is in {_most(counts)}.")
    named = ", ".join(concept.name for concept in rare[:SHOWN]) + (", ..." if len(rare) > SHOWN else "")
    note = f"{len(rare)} of {len(label_set.concepts)} concepts are in fewer than {minimum} images: {named}."
    return replace(
        label_set.without({concept.number for concept in rare}),
        parameters=label_set.parameters | {"min_images": minimum},
        notes=(*label_set.notes, *([note] if rare else [])),
    )


def _counts(label_set: LabelSet, pool: Pool, show: bool) -> dict[int, int]:
    """Concept number -> images that have it."""
    concepts = Numbers.of(concept.number for concept in label_set.concepts)
    tasks = [CountTask(block, concepts) for block in image_blocks(label_set, block_length(len(label_set.rows)))]
    counts: dict[int, int] = {}
    with track("counting concepts", len(label_set.rows), show=show) as bar:
        for task, found in run_blocks(pool, count_block, tasks):
            for number, images in found:
                counts[number] = counts.get(number, 0) + images
            bar.advance(len(task.block.rows))
    return dict(sorted(counts.items()))


def count_block(task: CountTask) -> list[tuple[int, int]]:
    """(concept number, images of the block that have it) of every concept that occurs."""
    block, numbers = task.block, np.flatnonzero(task.concepts.mask)
    tables = Tables(
        index=Tables.index_of(numbers, np.flatnonzero(block.ignored.mask)),
        void=block.void.mask,
        category=np.zeros(numbers.size, np.int64),
        domain=np.zeros(numbers.size, np.int64),
        own=np.array([source.own.mask[numbers] for source in block.sources]),
        reach=np.zeros((len(block.sources), 1, 1), np.bool_),
    )
    images = np.zeros(numbers.size, np.int64)
    for row in block.rows:
        images += labels_on_grid(block, row, tables).found.area > 0
    return [(int(numbers[n]), int(images[n])) for n in np.flatnonzero(images)]


def _most(counts: dict[int, Any]) -> int:
    return int(max(counts.values(), default=0))
