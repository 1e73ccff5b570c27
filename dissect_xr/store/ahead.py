"""Rows of an array that are read in order, few at a time, where a chunk holds many.

Knows: that a chunk is decompressed whole, so that the rows after those asked for are kept.
Does not know: what the rows are.

An example: an array of 4,096 rows in chunks of 1,024, of which a task reads the rows 0 to 2,047, 64 at a time. Read as
they are asked for, each chunk is decompressed 16 times. With room for 1,000 rows the rows 0 to 999 are read first, then
1,000 to 1,023, since the chunk ends there, and so on: each chunk is decompressed twice.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.store.reader import StoredArray


def in_blocks(first: int, stop: int, block: int) -> list[tuple[int, int]]:
    """A half-open range of rows, cut where blocks of so many rows begin.

    >>> in_blocks(3, 20, 8), in_blocks(8, 16, 8)
    ([(3, 8), (8, 16), (16, 20)], [(8, 16)])
    """
    return list(pairwise([first, *range((first // block + 1) * block, stop, block), stop]))


@dataclass(frozen=True)
class Ahead:
    """How far a task will read, and what it may keep of what it has not asked for yet."""

    stop: int
    """the row at which its rows end"""
    nbytes: int
    """bytes of rows that are kept at most, unless more are asked for at once"""

    def reach(self, start: int, stop: int, chunk: int, row_bytes: int) -> int:
        """Where a read that begins at `start` for the rows up to `stop` ends: no later than its chunk.

        >>> Ahead(stop=2048, nbytes=1000).reach(0, 64, chunk=1024, row_bytes=1)
        1000
        >>> Ahead(stop=2048, nbytes=10**6).reach(1000, 1010, chunk=1024, row_bytes=1)
        1024
        """
        end = min(self.stop, (start // chunk + 1) * chunk, start + self.nbytes // max(1, row_bytes))
        return max(stop, end)


class Rows:
    """Called with a half-open range of rows, it gives some columns of them.

    Parameters
    ----------
    array : (row, column)
    columns
        Those wanted.
    ahead
        None reads only the rows asked for.
    """

    def __init__(self, array: StoredArray, columns: slice, ahead: Ahead | None = None) -> None:
        self._array, self._columns, self._ahead = array, columns, ahead
        self._kept: tuple[int, NDArray[Any]] | None = None
        """first row, and rows from there on"""

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        """The rows from `start` to `stop`."""
        if self._ahead is None:
            return np.asarray(self._array[start:stop, self._columns])
        if self._kept is None or not self._kept[0] <= start <= stop <= self._kept[0] + len(self._kept[1]):
            row_bytes = (self._columns.stop - self._columns.start) * self._array.dtype.itemsize
            end = self._ahead.reach(start, stop, self._array.chunks[0], row_bytes)
            self._kept = start, np.asarray(self._array[start:end, self._columns])
        first, rows = self._kept
        return rows[start - first : stop - first]
