"""Stored activations as numbers: the bits of float16 and float32, and exact means of many of them.

Knows: IEEE formats.
Does not know: layers, files, tensors.

torch and NumPy sum float16 in float64 one value at a time: for the maps of a ResNet-50 that took an eighth of its
forward pass.
"""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

HALF_VALUES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""(65536,) float32 value of every float16 bit pattern."""


def bits(values: NDArray[Any], kind: str = "u") -> NDArray[Any]:
    """The IEEE bits of float16 or float32 values, as integers of the same size, unsigned or signed (`kind` i)."""
    return np.ascontiguousarray(values).view(f"{kind}{values.dtype.itemsize}")


def means(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Means (image, unit) of maps (image, unit, y, x), float16 or float32, summed in float64.

    Not finite where a value is not. Sums of float16 are multiples of 2**-24: exact below 2**29, in whatever order.

    Examples
    --------
    >>> means(np.array([[[[1, 2]]]], np.float16)).tolist()
    [[1.5]]
    """
    flat = maps.reshape(*maps.shape[:2], math.prod(maps.shape[2:]))
    found = np.empty(flat.shape[:2], np.float32)
    if maps.dtype == np.float16:
        _means(bits(flat), HALF_VALUES, found)
    else:
        _means(flat, None, found)
    return found


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def _means(raw, decode, found):  # type: ignore[no-untyped-def]
    for i in range(raw.shape[0]):
        for u in range(raw.shape[1]):
            cells, total = raw[i, u], 0.0
            for x in range(cells.size):
                if decode is None:
                    total += cells[x]
                else:
                    total += decode[cells[x]]
            found[i, u] = total / cells.size
