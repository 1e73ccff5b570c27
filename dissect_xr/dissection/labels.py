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
    category: NDArray[np.int64]
    """(concept,) index of the concept's primary category in `categories`"""
    categories: tuple[str, ...]
    fingerprint: str
    images_sha256: str
    names_sha256: str
    """of the images' names, in order"""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """Workers open the probe themselves, once: a task does not carry tables of 65,000 concepts."""
        return _labels_of, (self.url, self.fingerprint)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image's labels."""
        planes = int(np.prod(self.shape[1:]))
        return 2 * planes + 2 * self.slots + len(self.categories)

    def unit_bytes(self, fractions: int) -> int:
        """Bytes of one unit's counts."""
        return 8 * fractions * (self.concepts.size + len(self.categories) + 1)

    @property
    def lookup(self) -> NDArray[np.int32]:
        """(65536,) concept number -> index along `concept`, -1 where no concept has the number."""
        table = np.full(1 << 16, -1, np.int32)
        table[self.concepts] = np.arange(self.concepts.size)
        return table


LabelBlock = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_]]
"""Planes (image, plane, row, col), whole-image labels (image, slot), annotated (image, category)."""


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
    categories = tuple(store.read(url, "category")[:].tolist())
    names = store.read(url, "concept_category")[:].tolist()
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
        category=np.array([categories.index(name) for name in names], np.int64),
        categories=categories,
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
    """The labels of a half-open range of images."""
    annotation, whole_image, annotated = _arrays_of(labels.url, labels.fingerprint)
    span = slice(*images)
    return annotation[span], whole_image[span], annotated[span]


@lru_cache(maxsize=4)
def _arrays_of(url: str, fingerprint: str) -> tuple[store.StoredArray, ...]:
    """The arrays of a probe, opened once in this process; `fingerprint` tells them from those of one made again."""
    return tuple(store.read(url, name) for name in ("annotation", "whole_image", "annotated"))
