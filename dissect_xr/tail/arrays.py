"""The arrays that hold the tails of layers: how they are laid out, and written block by block.

Knows: the arrays of a snapshot, or of a layer that stands alone.
Does not know: how a bound is chosen, models, or how tails are read (`stored`).

All layers that are recorded together share their arrays, so an image block is a few objects however many layers it is
of. Inside a block the layers follow each other, and the images inside a layer. `tail_range` says where the maps of an
image and layer lie, so that the maps of some images of one layer are read without the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.schema import TAIL
from dissect_xr.tail.packed import Packed, joined, pack, span_dtype

CHUNK = 1 << 17
"""Values of a chunk of `tail` and `span`."""

TAILS = "tails"
"""Group of a snapshot that holds the tails of its layers."""

UNIT_CHUNK = 64
"""Units at least of a chunk of the arrays that have one number for each image and unit."""

CHUNK_BYTES = 64 * 2**10
"""Bytes at least of a chunk of such arrays, but for the units that there are: each costs half a millisecond."""


def units_of_chunk(units: int, images: int, dtype: str) -> int:
    """Units of a chunk of an array (image, unit) whose chunks have so many images.

    >>> units_of_chunk(2048, 16, "float16"), units_of_chunk(2048, 256, "float16"), units_of_chunk(20, 16, "float16")
    (2048, 128, 20)
    """
    wide = max(UNIT_CHUNK, CHUNK_BYTES // (images * np.dtype(dtype).itemsize))
    return min(units, wide)


def tails_path(snapshot: str, again: str | None = None) -> str:
    """The group of the tails of a snapshot, or of those that were extracted again (`again` says which)."""
    return f"{snapshot}/{TAILS}" if again is None else f"{snapshot}/{TAILS}/again/{again}"


@dataclass(frozen=True)
class TailShape:
    """The tails of layers that are recorded together."""

    images: int
    block: int
    """images of a block"""
    dtype: str
    layers: tuple[tuple[int, int], ...]
    """(units, cells) of each layer; no cells where the layer is kept dense"""

    @property
    def units(self) -> int:
        """Units of all layers."""
        return sum(units for units, _ in self.layers)

    @property
    def span_dtype(self) -> str:
        """The dtype of gaps, lengths and numbers of spans."""
        return span_dtype(max((cells for _, cells in self.layers), default=1))

    def specs(self, dim: str) -> list[store.ArraySpec]:
        """The arrays but for `bound`, with `dim` as the name of the dim of units."""
        blocks, deep = -(-self.images // self.block), min(self.block, self.images)
        values = max(1, sum(deep * units * cells for units, cells in self.layers))
        spans = max(1, sum(deep * units * (cells // 2 + 1) for units, cells in self.layers if cells))
        wide = units_of_chunk(self.units, deep, self.span_dtype)
        whole = -(-self.units // wide) * wide
        shapes: dict[str, tuple[tuple[int, ...], str, tuple[int, ...], tuple[int, ...]]] = {
            "tail": ((blocks, values), self.dtype, *_row(values)),
            "span": ((blocks, 2, spans), self.span_dtype, *_row(spans, 2)),
            "span_count": ((self.images, self.units), self.span_dtype, (deep, wide), (deep, whole)),
            "tail_range": ((self.images, len(self.layers), 4), "int64", (deep, 1, 4), (deep, len(self.layers), 4)),
            "at_bound": ((blocks, self.units), "int64", (1, self.units), (1, self.units)),
            "largest": ((blocks, self.units), self.dtype, (1, self.units), (1, self.units)),
        }
        return [
            store.ArraySpec(
                name,
                tuple(dim if one == "unit" else one for one in TAIL[name].dims),
                shape,
                dtype,
                chunks,
                shards if shards != chunks else None,
                TAIL[name].attrs,
            )
            for name, (shape, dtype, chunks, shards) in shapes.items()
        ]

    def bound(self, values: NDArray[np.float32], dim: str) -> tuple[store.ArraySpec, NDArray[np.float32]]:
        """The array `bound` with its values."""
        wide = max(1, values.size)
        return store.ArraySpec("bound", (dim,), values.shape, "float32", (wide,), attrs=TAIL["bound"].attrs), values

    def writes(
        self,
        writer: store.Writer,
        path: str,
        start: int,
        parts: Sequence[Sequence[Packed]],
        equal: NDArray[np.int64],
        largest: NDArray[np.floating],
    ) -> list[Callable[[], None]]:
        """What writes an image block, in any order or on several threads.

        Parameters
        ----------
        path
            The group of the arrays.
        start
            The block's first image.
        parts
            Of each layer, the tails of its successive images; none where it is kept dense.
        equal, largest : (unit of all layers,)
            Values of the block that equal the bound, and the largest of all.
        """
        images = min(self.block, self.images - start)
        found = [joined(mine) if mine else self._nothing(images, n) for n, mine in enumerate(parts)]
        where = np.zeros((images, len(found), 4), np.int64)
        first = np.zeros(2, np.int64)
        for n, mine in enumerate(found):
            edges = np.concatenate([[first], mine.ends + first])
            where[:, n] = np.stack([edges[:-1, 0], edges[1:, 0], edges[:-1, 1], edges[1:, 1]], axis=1)
            first = edges[-1]
        spans = np.concatenate([mine.spans for mine in found], axis=1)
        values = np.concatenate([mine.values for mine in found])
        block = start // self.block
        span_count = np.concatenate([mine.span_count for mine in found], axis=1)
        return [
            partial(writer.write_beginning, f"{path}/tail", (block, 0), values[None]),
            partial(writer.write_beginning, f"{path}/span", (block, 0, 0), spans[None]),
            partial(writer.write, f"{path}/span_count", (start, 0), span_count),
            partial(writer.write, f"{path}/tail_range", (start, 0, 0), where),
            partial(writer.write, f"{path}/at_bound", (block, 0), equal[None]),
            partial(writer.write, f"{path}/largest", (block, 0), largest[None]),
        ]

    def _nothing(self, images: int, layer: int) -> Packed:
        units = self.layers[layer][0]
        return Packed(
            (0, 0), np.zeros((images, units), self.span_dtype), np.zeros((2, 0), self.span_dtype),
            np.zeros(0, self.dtype), np.zeros((images, 2), np.int64),
        )  # fmt: skip


class TailBlocks:
    """Writes the tail of a layer that stands alone, block by block, from maps of successive images."""

    def __init__(self, writer: store.Writer, path: str, shape: TailShape, bound: NDArray[np.float32]) -> None:
        self._writer, self._path, self._shape, self._bound = writer, path, shape, bound
        self._parts: list[Packed] = []
        self._equal, self._largest = self._nothing()
        self._images = 0

    def _nothing(self) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Of a block without images: values equal to the bound, and the largest."""
        return np.zeros(self._bound.size, np.int64), np.full(self._bound.size, -np.inf, self._shape.dtype)

    def add(self, maps: NDArray[np.floating]) -> None:
        """Add maps as stored, of images that do not reach beyond the block."""
        packed, equal = pack(maps, self._bound, self._shape.span_dtype)
        self._parts.append(packed)
        self._equal += equal
        np.maximum(self._largest, maps.max(axis=(0, 2, 3)), out=self._largest)
        self._images += len(maps)
        if self._images % self._shape.block == 0 or self._images == self._shape.images:
            start = (self._images - 1) // self._shape.block * self._shape.block
            block = self._writer, self._path, start, [self._parts], self._equal, self._largest
            for write in self._shape.writes(*block):
                write()
            self._parts, (self._equal, self._largest) = [], self._nothing()


def _row(length: int, *before: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks and shards of rows of so many values at most: a row is a shard, whose chunks are written as needed."""
    chunk = min(length, CHUNK)
    ones = [1 for _ in before]
    return (1, *ones, chunk), (1, *before, -(-length // chunk) * chunk)
