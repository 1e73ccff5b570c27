"""Label maps as runs of equal labels, which the counting loop reads in place of pixels.

Knows: how a row of labels becomes runs, and the arrays of `probe.zarr` that hold them.
Does not know: concepts, files of images, or how runs are counted.

An example: the row of labels 2 2 2 2 5 5 0 0, of which 0 is none, has three runs. A run is the column behind it and its
label: (4, 2), (6, 5) and (8, 0). Label maps of four planes with 112 rows are 100 KB an image as pixels, and 13 KB as
runs where a row has seven of them on average.

>>> found = runs_of(np.array([2, 2, 2, 2, 5, 5, 0, 0], np.uint16).reshape(1, 1, 1, 8))
>>> found.count.tolist(), found.run.T.tolist()
([[[3]]], [[4, 2], [6, 5], [8, 0]])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.schema import RUNS

CHUNK = 1 << 17
"""Runs of a chunk of `run`."""


@dataclass(frozen=True)
class Runs:
    """The runs of some images' label maps."""

    count: NDArray[np.uint16]
    """(image, plane, row) runs of each row"""
    run: NDArray[np.uint16]
    """(2, run) the column behind each run, and its concept number, 0 for none"""

    def __getitem__(self, images: slice) -> "Runs":
        first, stop, _ = images.indices(len(self.count))
        return Runs(self.count[first:stop], self.run[:, self.ends[first] : self.ends[max(first, stop)]])

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """(image + 1,) runs before each image, and all."""
        return np.concatenate([[0], np.cumsum(self.count.sum(axis=(1, 2), dtype=np.int64))])

    @property
    def most(self) -> int:
        """Runs of the image that has most."""
        return int(np.diff(self.ends).max(initial=0))


def runs_of(planes: NDArray[np.uint16]) -> Runs:
    """The runs of label maps (image, plane, row, col)."""
    last = np.ones(planes.shape, np.bool_)
    np.not_equal(planes[..., 1:], planes[..., :-1], out=last[..., :-1])
    at = np.flatnonzero(last)
    stop = (at % planes.shape[-1] + 1).astype(np.uint16)
    return Runs(last.sum(axis=-1, dtype=np.uint16), np.stack([stop, planes.reshape(-1)[at]]))


def joined(parts: Sequence[Runs]) -> Runs:
    """The runs of successive images together."""
    return Runs(np.concatenate([part.count for part in parts]), np.concatenate([part.run for part in parts], axis=1))


def run_arrays(shape: Sequence[int], block: int) -> list[store.ArraySpec]:
    """The arrays that hold the runs of label maps of this shape (image, plane, row, col), in blocks of images."""
    images, *rows, cols = shape
    deep = min(block, images)
    most = deep * int(np.prod(rows)) * cols
    chunk = min(most, CHUNK)
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
        "run_count": ((images, *rows), (deep, *rows), (deep, *rows)),
        "run": ((-(-images // deep), 2, most), (1, 1, chunk), (1, 2, -(-most // chunk) * chunk)),
    }
    return [
        store.ArraySpec(
            name, RUNS[name].dims, size, RUNS[name].dtype, chunks, shards if shards != chunks else None,
            RUNS[name].attrs,
        )
        for name, (size, chunks, shards) in sizes.items()
    ]  # fmt: skip


def write_runs(writer: store.Writer, start: int, block: int, runs: Runs) -> None:
    """Write the runs of a block of `block` images that begins at the image `start`."""
    writer.write("run_count", (start, 0, 0), runs.count)
    writer.write_beginning("run", (start // block, 0, 0), runs.run[None])


class StoredRuns:
    """The runs of a probe, read image range by image range: called with a slice of images, it gives their `Runs`."""

    def __init__(self, url: str) -> None:
        self._count, self._run = store.read(url, "run_count"), store.read(url, "run")
        self._block = self._count.chunks[0]

    def __getitem__(self, images: slice) -> Runs:
        """The runs of a half-open range of images."""
        return joined([self._of_block(*part) for part in store.in_blocks(images.start, images.stop, self._block)])

    def _of_block(self, first: int, stop: int) -> Runs:
        """The runs of images that lie in one block: those before them are counted, to know where they begin."""
        start = first // self._block * self._block
        counts: NDArray[Any] = self._count[start:stop]
        begin = int(counts[: first - start].sum(dtype=np.int64))
        mine = counts[first - start :]
        return Runs(mine, self._run[first // self._block, :, begin : begin + int(mine.sum(dtype=np.int64))])
