"""The probe's labels as pass 2 reads them.

Knows: what `probe.zarr` holds, read through the room `store`.
Does not know: where the images came from, or anything of activations.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_maps.runs import StoredRuns
from dissect_xr.schema import LABEL_SIDE, check_version


@dataclass(frozen=True)
class ProbeLabels:
    """A probe's labels: small tables in memory, label maps on disk."""

    url: str
    shape: tuple[int, int, int, int]
    """(image, plane, row, col)"""
    slots: int
    """whole-image labels that an image can have"""
    chunk: int
    """images in a chunk of label maps"""
    shard: int
    """images in a shard of label maps, or in a chunk where there are no shards"""
    concepts: NDArray[np.int64]
    """(concept,) concept numbers, ascending"""
    domain: NDArray[np.int64]
    """(concept,) index of the concept's domain"""
    domains: int
    most_runs: int
    """runs of equal labels of the image that has most"""
    has_ignored: bool
    """whether there are pixels that are neither labelled nor unlabelled"""
    fingerprint: str
    images_sha256: str
    names_sha256: str
    """of the images' names, in order"""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """Workers open the probe themselves, once: a task does not carry tables of 65,000 concepts."""
        return _labels_of, (self.url, self.fingerprint)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image's labels, pixel by pixel."""
        _, planes, rows, cols = self.shape
        return (2 * planes + self.has_ignored) * rows * cols + 2 * self.slots + self.domains

    @property
    def run_bytes(self) -> int:
        """Bytes of one image's labels as the passes read them, as runs, at most."""
        _, planes, rows, cols = self.shape
        runs = 2 * planes * rows + 4 * self.most_runs
        return runs + self.has_ignored * rows * cols + 2 * self.slots + self.domains

    def unit_bytes(self, fractions: int) -> int:
        """Bytes of one unit's counts."""
        return 8 * fractions * (self.concepts.size + self.domains + 1)

    @property
    def lookup(self) -> NDArray[np.int32]:
        """(65536,) concept number -> index along `concept`, -1 where no concept has the number."""
        table = np.full(1 << 16, -1, np.int32)
        table[self.concepts] = np.arange(self.concepts.size)
        return table


CountedLabels = tuple[Any, ...]
"""`Runs` of the planes, and whole, annotated and ignored as in a `LabelBlock`: what counting reads."""

LabelBlock = tuple[NDArray[Any], ...]
"""Planes (image, plane, row, col), whole-image labels (image, slot), annotated (image, domain) and, where the probe has
ignored pixels, ignored (image, row, col)."""


def open_labels(url: str) -> ProbeLabels:
    """The labels of the probe at `url`.

    Raises
    ------
    DissectError
        Where there is no complete probe, another version of this package wrote it, or its label maps are too large.
    """
    done = store.marker(url, "done") if store.exists(url) else None
    if done is None:
        raise DissectError(f"{url}: expected a complete probe, found none. Run `dissect-xr probe RECIPE` first.")
    attrs = store.read_attrs(url)
    check_version(attrs, url)
    domains = {name: n for n, name in enumerate(store.read(url, "domain")[:].tolist())}
    names = store.read(url, "concept_domain")[:].tolist()
    array = store.read(url, "annotation")
    if max(array.shape[2:]) > LABEL_SIDE:
        raise DissectError(
            f"{url}: expected label maps with sides of at most {LABEL_SIDE:,} pixels, got {array.shape[2:]}. "
            "Make the probe again with a smaller label_size."
        )
    return ProbeLabels(
        url=url,
        shape=array.shape,
        slots=store.read(url, "whole_image").shape[1],
        chunk=array.chunks[0],
        shard=(array.shards or array.chunks)[0],
        concepts=np.asarray(store.read(url, "concept")[:], np.int64),
        domain=np.array([domains[name] for name in names], np.int64),
        domains=len(domains),
        most_runs=attrs["most_runs"],
        has_ignored=attrs["has_ignored"],
        fingerprint=done["fingerprint"],
        images_sha256=attrs["images_sha256"],
        names_sha256=attrs["names_sha256"],
    )


@lru_cache(maxsize=4)
def _labels_of(url: str, fingerprint: str) -> ProbeLabels:
    """The labels at `url`, which this process keeps; `fingerprint` tells them from those of a probe made again."""
    labels = open_labels(url)
    if labels.fingerprint != fingerprint:
        raise DissectError(f"{url}: the probe was made again while it was in use. Give the same command again.")
    return labels


def read_labels(labels: ProbeLabels, images: tuple[int, int]) -> LabelBlock:
    """The labels of a half-open range of images, pixel by pixel."""
    planes, _, *others = _arrays_of(labels.url, labels.fingerprint, labels.has_ignored)
    return tuple(array[slice(*images)] for array in (planes, *others))


def read_runs(labels: ProbeLabels, images: tuple[int, int]) -> CountedLabels:
    """The labels of a half-open range of images, their planes as runs."""
    _, *arrays = _arrays_of(labels.url, labels.fingerprint, labels.has_ignored)
    return tuple(array[slice(*images)] for array in arrays)


@lru_cache(maxsize=4)
def _arrays_of(url: str, fingerprint: str, ignored: bool) -> tuple[Any, ...]:
    """The arrays of a probe, opened once in this process; `fingerprint` tells them from those of one made again."""
    names = ["whole_image", "annotated", *(["ignored"] if ignored else [])]
    return store.read(url, "annotation"), StoredRuns(url), *(store.read(url, name) for name in names)
