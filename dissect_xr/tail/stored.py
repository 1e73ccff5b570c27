"""Where the tail of one layer lies in a store, and how it is read, image range by image range.

Knows: which part of the arrays belongs to a layer and its images, and that a second extraction may have lowered bounds.
Does not know: how the arrays are laid out or written (`arrays`), how a bound is chosen, or who reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.floats import codes
from dissect_xr.tail.arrays import tails_path
from dissect_xr.tail.packed import Packed, joined


def again_key(path: str) -> str:
    """The key of the marker of a layer whose tail was extracted again; `path` is that of its group."""
    snapshot, _, layer = path.partition("/")
    return f"{snapshot}/again/{layer}"


@dataclass(frozen=True)
class TailPlace:
    """Where the tail of one layer lies in a store."""

    url: str
    path: str
    """the group of the arrays"""
    number: int
    """of the layer among those recorded together"""
    columns: tuple[int, int]
    """its units among those of all layers"""
    block: int
    """images of a block"""
    cells: tuple[int, int]
    """(y, x) of its maps"""
    fraction: float
    """the largest fraction that the bounds were chosen for"""
    beside: bool = False
    """whether all cells are stored, too"""

    @classmethod
    def of(cls, url: str, path: str, attrs: Mapping[str, Any]) -> "TailPlace | None":
        """The tail of the layer whose group has these attributes, None if it has none."""
        found = attrs.get("tail")
        if found is None:
            return None
        first, stop = attrs["columns"] or (0, found["shape"][1])
        group = path if attrs["columns"] is None else tails_path(path.rpartition("/")[0])
        return cls(
            url, group, found["number"], (first, stop), found["block"], tuple(found["shape"][2:]), found["fraction"],
            found.get("beside", False),
        )  # fmt: skip


def current_tail(url: str, path: str, attrs: Mapping[str, Any]) -> tuple[TailPlace | None, tuple[int, ...]]:
    """Where the tail of the layer with this group lies, and the units whose bounds a second extraction lowered."""
    place = TailPlace.of(url, path, attrs)
    if place is None or place.beside or (marked := store.marker(url, again_key(path))) is None:
        return place, ()
    note = marked["note"]
    group = tails_path(path.partition("/")[0], note["part"])
    return replace(place, path=group, number=note["number"], columns=tuple(note["columns"])), tuple(note["units"])


class StoredTail:
    """The tail of one layer, read image range by image range.

    Parameters
    ----------
    ahead
        Where the ranges follow each other: what is read together and kept. None reads only what is asked for.
    """

    def __init__(self, place: TailPlace, ahead: store.Ahead | None = None) -> None:
        self.place = place
        self._ahead = ahead
        self._arrays: dict[str, store.StoredArray] = {}
        self._kept: tuple[int, Packed] | None = None
        """first image, and the tails of images from there on"""

    def _array(self, name: str) -> store.StoredArray:
        if name not in self._arrays:
            self._arrays[name] = store.read(self.place.url, f"{self.place.path}/{name}")
        return self._arrays[name]

    @cached_property
    def bound(self) -> NDArray[np.float32]:
        """(unit,) the bounds."""
        return np.asarray(self._array("bound")[slice(*self.place.columns)])

    @cached_property
    def lowest(self) -> NDArray[np.int64]:
        """(unit,) the lowest codes (`floats.codes`) that lie above the bounds."""
        return codes(self.bound.astype(self._array("tail").dtype)).astype(np.int64) + 1

    @cached_property
    def equal(self) -> NDArray[np.int64]:
        """(unit,) how many values equal the bound."""
        return np.asarray(self._array("at_bound")[:, slice(*self.place.columns)].sum(axis=0))

    @cached_property
    def largest(self) -> NDArray[np.floating]:
        """(unit,) the largest activations."""
        return np.asarray(self._array("largest")[:, slice(*self.place.columns)].max(axis=0))

    def __call__(self, images: tuple[int, int]) -> Packed:
        """The tails of a half-open range of images."""
        return joined([self._of_block(*part) for part in store.in_blocks(*images, self.place.block)])

    def _of_block(self, first: int, stop: int) -> Packed:
        """The tails of images that lie in one block."""
        if self._kept is not None:
            start, kept = self._kept
            if start <= first and stop <= start + len(kept.span_count):
                return kept.images(first - start, stop - start)
        end = stop if self._ahead is None else self._ahead.reach(first, stop, self.place.block, 1)
        where = self._array("tail_range")[first:end, self.place.number]
        if self._ahead is not None:
            fits = np.searchsorted(self._bytes(where), self._ahead.nbytes, side="right")
            where = where[: max(stop - first, int(fits))]
        found = self._read(first, where)
        if self._ahead is not None:
            self._kept = first, found
        return found.images(0, stop - first)

    def _bytes(self, where: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of the tails of images from the first one to each."""
        span, value = self._array("span").dtype.itemsize, self._array("tail").dtype.itemsize
        units = self.place.columns[1] - self.place.columns[0]
        counts = np.arange(1, len(where) + 1) * units * span
        return np.asarray(counts + 2 * span * (where[:, 1] - where[0, 0]) + value * (where[:, 3] - where[0, 2]))

    def _read(self, first: int, where: NDArray[np.int64]) -> Packed:
        """The tails of images from `first` on, whose rows of `tail_range` these are; they lie in one block."""
        place, block = self.place, first // self.place.block
        spans, values = (int(where[0, 0]), int(where[-1, 1])), (int(where[0, 2]), int(where[-1, 3]))
        return Packed(
            place.cells,
            self._array("span_count")[first : first + len(where), slice(*place.columns)],
            self._array("span")[block, :, slice(*spans)],
            self._array("tail")[block, slice(*values)],
            where[:, 1::2] - np.array([spans[0], values[0]]),
        )
