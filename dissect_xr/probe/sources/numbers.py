"""Sets of concept numbers, and new numbers for them, small enough to be sent with every task.

Knows: bits, differences, zlib.
Does not know: what the numbers mean.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.label_set import LARGEST


@dataclass(frozen=True)
class Numbers:
    """A set of concept numbers in at most 8 KiB: 65,000 concepts with their names take 3 MB in every task.

    >>> [bool(Numbers.of([1, 300]).mask[n]) for n in (0, 1, 300)]
    [False, True, True]
    """

    packed: bytes
    """bit n of 65,536 says whether n is in the set, the highest bit of a byte first; compressed"""

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Numbers":
        """The set of the numbers given."""
        mask = np.zeros(LARGEST + 1, np.bool_)
        mask[list(numbers)] = True
        return cls(zlib.compress(np.packbits(mask).tobytes()))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(65536,) whether each number is in the set, read-only."""
        return _mask(self.packed)


@lru_cache(maxsize=64)
def _mask(packed: bytes) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8)).view(np.bool_)
    mask.setflags(write=False)
    return mask


@dataclass(frozen=True)
class Renumbering:
    """A new number for every number, in few bytes where neighbours stay neighbours.

    >>> Renumbering.of({3: 7, 4: 8})(np.array([0, 3, 4, 5])).tolist()
    [0, 7, 8, 0]
    """

    packed: bytes
    """differences of the new numbers of 0, 1, ..., 65,535, compressed"""

    @classmethod
    def of(cls, numbers: Mapping[int, int]) -> "Renumbering":
        """The renumbering that gives these new numbers, and 0 to all others."""
        table = np.zeros(LARGEST + 1, np.uint16)
        table[list(numbers)] = list(numbers.values())
        return cls(zlib.compress(np.diff(table, prepend=np.uint16(0)).tobytes()))

    def __call__(self, numbers: NDArray[np.integer]) -> NDArray[np.uint16]:
        """The new numbers of an array."""
        new: NDArray[np.uint16] = _table(self.packed)[numbers]
        return new


@lru_cache(maxsize=64)
def _table(packed: bytes) -> NDArray[np.uint16]:
    differences = np.frombuffer(zlib.decompress(packed), np.uint16)
    table: NDArray[np.uint16] = np.cumsum(differences, dtype=np.uint16)  # wraps around as the differences did
    table.setflags(write=False)
    return table
