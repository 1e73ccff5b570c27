"""Thresholds of layers of which the tail is stored: what its bounds prove.

Knows: how many values lie above a unit's bound, and how many equal it.
Does not know: how values are counted (`thresholds`, `small`), or how layers are extracted again.

All values above the bound b are stored, and it was counted how many values equal it. A worked example of 1,000 values,
of which 8 lie above b and 600 equal it. At the fraction 0.005 T has the index 5 in descending order: it is among the
8, and is found there. At 0.02 T has the index 20: it is not among the 8, but among the 608 that are at least b, so it
is b itself, and 8 values exceed it. At 0.7 T has the index 700 and lies below b: the bound was too high, and nothing is
known about T. A unit that never falls below 0 and seldom fires has b = 0 and T = 0 in this way.

>>> bound, equal, levels = np.float32([1.5]), np.array([600]), np.float32([[2.0], [0.0], [0.0]])
>>> index, proven, above = np.array([[5], [20], [700]]), np.array([[True], [False], [False]]), np.array([[3], [0], [0]])
>>> found = proven_thresholds(bound, equal, index, (proven, np.array([[8], [8], [8]])), (levels, above))
>>> found.threshold[:2].ravel().tolist(), found.exceedance[:2].ravel().tolist(), found.too_high
([2.0, 1.5], [3, 8], (0,))
"""

import numpy as np
from numpy.typing import NDArray

from dissect_xr.dissection.thresholds import LayerThresholds
from dissect_xr.tail.stored import StoredTail


def proven_thresholds(
    bound: NDArray[np.float32],
    equal: NDArray[np.int64],
    ranks: NDArray[np.int64],
    counted: tuple[NDArray[np.bool_], NDArray[np.int64]],
    found: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> LayerThresholds:
    """The thresholds that are known, and how many units have one that is not.

    Parameters
    ----------
    bound, equal : (unit,) the bounds, and how many values equal them
    ranks : (fraction, unit) indices of T in descending order
    counted
        Whether T is among the values above the bound, and how many values these are, both (fraction, unit).
    found
        Thresholds and exceedances where T is among them, both (fraction, unit).
    """
    (proven, above), (threshold, exceedance) = counted, found
    at_bound = ~proven & (ranks < above + equal)
    too_high = tuple(np.flatnonzero((~proven & ~at_bound).any(axis=0)).tolist())
    return LayerThresholds(
        np.where(at_bound, bound, threshold).astype(np.float32), np.where(at_bound, above, exceedance), too_high
    )


def proven_by(
    stored: StoredTail,
    ranks: NDArray[np.int64],
    counted: tuple[NDArray[np.bool_], NDArray[np.int64]],
    found: LayerThresholds,
) -> LayerThresholds:
    """`proven_thresholds`, by the bounds of a stored tail."""
    return proven_thresholds(stored.bound, stored.equal, ranks, counted, (found.threshold, found.exceedance))
