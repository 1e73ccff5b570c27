"""The inner loop of pass 1: histograms of activations, over the codes that `thresholds` describes.

Knows: arrays, and that the bits of floating-point values have the order of the values.
Does not know: files, chunks, names, or what a histogram is used for.
"""

import numba
import numpy as np

from dissect_xr.floats import ordered

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")

STRIP = 64
"""Values whose largest is found first, by vector instructions; often it is too low, and the strip is skipped."""

TILE = 16
"""Units whose histograms are filled at the same time, so that their bins stay in the processor's cache."""


@_jit
def histogram(raw, peak, base, shift, counts, offsets, above):
    """Count, for each unit u, its codes from `base[u]` to `above[u]`.

    Maps and strips of values whose largest code is below `base[u]` are skipped. Units are taken `TILE` at a time: their
    bins stay in cache, and their maps are read in the order in which they lie in memory.

    Parameters
    ----------
    raw : (image, unit, cell) int16 or int32, the bits of the values as stored
    peak : (image, unit) bits of the largest value of each map
    base : (unit,) int64 lowest code that is counted
    shift : low bits of a code that are dropped before it is counted
    counts : (sum of widths,) int32, added to; unit u's bins start at `offsets[u]`; a block has fewer values than 2**31
    offsets : (unit + 1,) int64
    above : (unit,) int64 highest code that is counted
    """
    magnitude = (np.int64(1) << (raw.itemsize * 8 - 1)) - 1
    found = np.empty(STRIP + 1, np.int64)
    for tile in range(0, raw.shape[1], TILE):
        units = range(tile, min(tile + TILE, raw.shape[1]))
        for i in range(raw.shape[0]):
            for u in units:
                if ordered(np.int64(peak[i, u]), magnitude) >= base[u]:
                    bins = counts[offsets[u] : offsets[u + 1]]
                    _count_codes(raw[i, u], magnitude, base[u], above[u], shift, bins, found)


@_jit
def _count_codes(values, magnitude, low, high, shift, bins, found):
    for first in range(0, values.size, STRIP):
        last = min(first + STRIP, values.size)
        # Bits are compared here in place of codes: they are equal for positive values, and both negative for negative.
        if low > 0 and _largest(values, first, last) < low:
            continue
        # Codes to be counted are gathered without a branch, since a processor would often predict it wrongly.
        count = 0
        for c in range(first, last):
            code = ordered(np.int64(values[c]), magnitude)
            found[count] = code
            count += (code >= low) & (code <= high)
        for n in range(count):
            bins[(found[n] - low) >> shift] += 1


@_jit
def _largest(values, first, last):
    best = values[first]
    for c in range(first + 1, last):
        best = max(best, values[c])
    return best


@_jit
def histogram_of_tail(span_count, lengths, raw, first, low, base, shift, counts, offsets, above):
    """Count, for each unit of a range, the codes of its tail from `low[u]` to `above[u]`.

    Parameters
    ----------
    span_count : (image, unit) spans of each map, of all units of the layer
    lengths : (span,) values of each span
    raw : (value,) int16 or int32, the bits of the values of all spans
    first : the first unit of the range
    low : (unit,) int64 lowest code that is counted; at or above `base[u]`, and above the bound of the tail
    base, shift, counts, offsets, above
        As `histogram` takes them.
    """
    magnitude = (np.int64(1) << (raw.itemsize * 8 - 1)) - 1
    s, v = 0, 0
    for i in range(span_count.shape[0]):
        for n in range(span_count.shape[1]):
            u, start = n - first, v
            for k in range(s, s + span_count[i, n]):
                v += lengths[k]
            s += span_count[i, n]
            if u < 0 or u >= base.size:
                continue
            bins = counts[offsets[u] : offsets[u + 1]]
            for c in range(start, v):
                code = ordered(np.int64(raw[c]), magnitude)
                if low[u] <= code <= above[u]:
                    bins[(code - base[u]) >> shift] += 1
