"""The loop over activations that thresholds come from: histograms of ordered bits.

Knows: arrays, and the order of floating-point values in their bits.
Does not know: files, chunks, names, or what is made of a histogram.
"""

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")

STRIP = 64
"""Values that are compared together, by vector instructions, before any is looked at by itself."""

TILE = 16
"""Units whose histograms are filled together."""


@_jit
def ordered(bits, magnitude):
    """Signed code that grows with the value whose IEEE bits these are, as a signed integer; -0.0 counts as 0.0.

    `magnitude` has every bit set but the sign.
    """
    return bits if bits >= 0 else -(bits & magnitude)


@_jit
def histogram(raw, peak, base, shift, counts, offsets, above):
    """Count codes of at least `base[u]`, per unit; skip (image, unit) pairs and strips whose largest code lies below.

    Units go in tiles, so that their bins stay in cache and their maps are read in the order they lie in.

    Parameters
    ----------
    raw : (image, unit, cell) int16 or int32, the bits of the values as stored
    peak : (image, unit) the same for the largest value of each map
    base : (unit,) int64 lowest code that enters the histogram
    shift : bits dropped from the right of a code before it is counted
    counts : (sum of widths,) int32, added to; unit u's bins start at `offsets[u]`; a block has fewer values than 2**31
    offsets : (unit + 1,) int64
    above : (unit,) int64 highest code that enters
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
        # Bits of positive values are their codes, those of negative ones are negative.
        if low > 0 and _largest(values, first, last) < low:
            continue
        # What enters is gathered without a branch; which of the values do is hard to foretell.
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
