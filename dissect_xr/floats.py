"""Stored activations as numbers: the bits of float16 and float32 values, and exact means of maps.

Knows: the IEEE formats, and codes: integers in the order of the values.
Does not know: layers, files, tensors.

The means have a compiled loop of their own: torch and NumPy convert float16 to float64 one value at a time, which for
the maps of a ResNet-50 took an eighth of the time of its forward pass.
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


def codes(values: NDArray[Any]) -> NDArray[Any]:
    """Signed integers of the same size in the order of float16 or float32 values; -0.0 has the code of 0.0.

    >>> codes(np.array([-1, -0.0, 0, 1], np.float16)).tolist()
    [-15360, 0, 0, 15360]
    """
    raw = bits(values, "i")
    return np.where(raw < 0, np.iinfo(raw.dtype).min - raw, raw)


def decode(codes: NDArray[np.int64], itemsize: int) -> NDArray[np.float32]:
    """The float32 values whose codes these are, of floats of `itemsize` bytes."""
    sign = 1 << (8 * itemsize - 1)
    raw = np.where(codes >= 0, codes, -codes | sign)
    return raw.astype(f"u{itemsize}").view(f"f{itemsize}").astype(np.float32)


def means(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Means (image, unit) of maps (image, unit, y, x), float16 or float32, summed in float64.

    A mean is not finite where one of its values is not finite. Every float16 value is a multiple of 2**-24, so sums of
    float16 below 2**29 are exact, whatever the order of summation.

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


@numba.njit(nogil=True, cache=True, error_model="numpy")
def ordered(bits, magnitude):  # type: ignore[no-untyped-def]
    """The code of one value, from its IEEE bits as a signed integer, for compiled loops.

    `magnitude` is a mask in which every bit but the sign is set.
    """
    return bits if bits >= 0 else -(bits & magnitude)


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
