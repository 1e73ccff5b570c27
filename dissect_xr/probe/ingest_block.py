"""Writes the labels of one image block, which is a task of an ingest.

Knows: what a task writes, and what it counts meanwhile.
Does not know: which tasks there are (`ingest`), or how files are read (`block`, `readers`).
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dissect_xr import store
from dissect_xr.probe.block import Block, read_maps
from dissect_xr.probe.label_maps.labels import label_image
from dissect_xr.probe.label_maps.runs import Runs, joined, runs_of, write_runs
from dissect_xr.probe.sources.concept_table import ConceptTable


@dataclass(frozen=True)
class IngestTask:
    """One image block."""

    url: str
    block: Block
    start: int
    length: int
    """images of every block but the last"""
    slots: int
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the block's marker."""
        return f"blocks/{self.start}-{self.start + len(self.block.rows)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        rows = self.block.rows
        return f"labels, images {rows[0].image} to {rows[-1].image} ({len(rows)})"


def ingest_block(task: IngestTask) -> None:
    """Write the labels of one image block, and its marker with counts and digests, unless the marker exists."""
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    block, concepts = task.block, _stored_concepts(task.url, task.fingerprint)
    tables = concepts.tables(block)
    n, size = len(block.rows), block.label_size
    planes = np.zeros((n, max(1, block.planes), *size), np.uint16)
    whole = np.zeros((n, task.slots), np.uint16)
    hidden = np.zeros((n, *size), np.bool_)
    annotated = np.zeros((n, len(concepts.domains)), np.bool_)
    domains = np.zeros(len(concepts.domains), np.int64)
    images, areas = np.zeros((2, concepts.numbers.size), np.int64)
    pixels_digest, labels_digest = hashlib.sha256(), hashlib.sha256()
    turned: dict[str, int] = {}
    runs: list[Runs] = []
    for i, row in enumerate(block.rows):
        maps = read_maps(block, row, pixels_digest, labels_digest)
        turned |= {row.image: maps.orientation} if maps.orientation != 1 else {}
        planes[i, : len(maps.planes)] = maps.planes
        whole[i, : len(row.whole)] = row.whole
        found = label_image(planes[i], whole[i], tables, maps.shares)
        areas += found.area
        images += found.area > 0
        hidden[i] = found.ignored
        annotated[i, found.domains] = True
        domains[found.domains] += hidden[i].size - int(hidden[i].sum())
        runs.append(runs_of(planes[i : i + 1]))
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, note):
        writer.write("annotation", (task.start, 0, 0, 0), planes)
        write_runs(writer, task.start, task.length, found_runs := joined(runs))
        writer.write("whole_image", (task.start, 0), whole)
        writer.write("annotated", (task.start, 0), annotated)
        if block.void.mask.any():
            writer.write("ignored", (task.start, 0, 0), hidden)
        note["pixels_sha256"], note["labels_sha256"] = pixels_digest.hexdigest(), labels_digest.hexdigest()
        seen = np.flatnonzero(images)
        note["concepts"] = [[int(c), int(images[c]), int(areas[c])] for c in seen]
        note["domains"] = [[int(d), int(domains[d])] for d in np.flatnonzero(domains)]
        note["turned"] = turned
        note["most_runs"] = found_runs.most


@lru_cache(maxsize=4)
def _stored_concepts(url: str, fingerprint: str) -> ConceptTable:
    """The concepts of the probe at `url`, which this process keeps: a task does not carry tables of 65,000 concepts.

    They are written before the first block; `fingerprint` tells them from those of another probe at the same `url`.
    """
    columns = ("concept", "concept_category", "concept_domain", "category", "domain")
    return ConceptTable.of(*(store.read(url, name)[:].tolist() for name in columns))
