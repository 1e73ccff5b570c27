"""The loop over activations that counts: overlaps of masks with labels.

Knows: arrays, positions of axes, exact decisions near ties.
Does not know: files, chunks, names. Every function runs without the GIL and is compiled once, into Numba's cache.

Floating-point contract: `S > T` is decided in float64 only where |S - T| exceeds 1e-6 of the largest corner; the rest
by `_sign_of_sum`, which is exact for float16 and float32 maps (Shewchuk 1997, Adaptive precision floating-point
arithmetic, theorem 10: grow-expansion).
"""

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_inlined = numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
"""For helpers called from several weights: a call passes an array as seven words."""

NEAR = 1e-6
"""Relative distance to the threshold under which a pixel is decided exactly (METHOD 1.2)."""

ANNOTATED, TOUCHED, ALL = 0, 1, 2
"""Domains of `unit_area` (METHOD 2)."""

NO_CONCEPT = 0xFFFF
"""In a run table, for label pixels that carry no concept; indices are below it, since concept numbers are."""

_SPLIT = 29
"""A weight piece of 29 bits times a float32 significand of 24 fits the 53 bits of a float64."""


@_jit
def run_table(planes, lookup, runs):
    """For each label pixel, where its run of equal labels in its row stops, and which concept it is: one word a pixel.

    Parameters
    ----------
    planes : (plane, row, col) uint16 concept numbers
    lookup : (65536,) int32 concept number -> index, -1 where there is none
    runs : (plane, row, col) uint32, written: ``stop << 16 | index``, `stop` the first column with another label,
        `index` `NO_CONCEPT` where there is none
    """
    cols = planes.shape[2]
    for p in range(planes.shape[0]):
        for r in range(planes.shape[1]):
            row, out = planes[p, r], runs[p, r]
            others = np.uint16(0)
            for c in range(cols):
                others |= row[c] ^ row[0]
            if others == 0:  # one run, as in the planes that an image leaves empty
                out[:] = (np.uint32(cols) << np.uint32(16)) | np.uint32(lookup[row[0]] & NO_CONCEPT)
                continue
            # Two loops without branches, from the right: where runs stop, then which concepts they are.
            stop = np.uint32(cols)
            for c in range(cols - 1, 0, -1):
                out[c] = stop
                stop = np.uint32(c) if row[c] != row[c - 1] else stop
            out[0] = stop
            for c in range(cols):
                out[c] = (out[c] << np.uint32(16)) | np.uint32(lookup[row[c]] & NO_CONCEPT)


@_jit
def _sign_of_sum(terms, count):
    """Sign of the exact sum of float64 terms, by an expansion of non-overlapping parts."""
    parts = np.zeros(count)
    for n in range(count):
        carry = terms[n]
        for m in range(n):
            total = carry + parts[m]
            rest = total - carry
            parts[m] = (carry - (total - rest)) + (parts[m] - rest)
            carry = total
        parts[n] = carry
    for m in range(count - 1, -1, -1):
        if parts[m] != 0.0:
            return 1 if parts[m] > 0.0 else -1
    return 0


@_jit
def exactly_above(corners, threshold, row_num, row_den, col_num, col_den):
    """Whether the interpolated value lies strictly above the threshold, in exact arithmetic.

    `corners` are the four cell values (first row first, first column first), float64 holding float16 or float32 values;
    weights are ``num / den`` towards the second row or column.
    """
    terms = np.empty(10)
    for k in range(5):
        if k == 4:
            weight, value = row_den * col_den, -threshold
        else:
            row = row_num if k >= 2 else row_den - row_num
            col = col_num if k % 2 == 1 else col_den - col_num
            weight, value = row * col, corners[k]
        high = weight >> _SPLIT
        terms[2 * k] = value * np.float64(weight - (high << _SPLIT))
        terms[2 * k + 1] = value * (np.float64(high) * np.float64(1 << _SPLIT))
    return _sign_of_sum(terms, 10) > 0


@_jit
def _active(values, threshold, rows, cols, r, c, corners):
    """Whether label pixel (r, c) is active: float64 where it is clear, exact near the threshold."""
    first, second, row_num, row_den = rows[0][r], rows[1][r], rows[2][r], rows[3]
    left, right, col_num, col_den = cols[0][c], cols[1][c], cols[2][c], cols[3]
    corners[0], corners[1] = values[first, left], values[first, right]
    corners[2], corners[3] = values[second, left], values[second, right]
    wy, wx = row_num / row_den, col_num / col_den
    upper = corners[0] + wx * (corners[1] - corners[0])
    lower = corners[2] + wx * (corners[3] - corners[2])
    distance = upper + wy * (lower - upper) - threshold
    largest = max(max(abs(corners[0]), abs(corners[1])), max(abs(corners[2]), abs(corners[3])))
    if abs(distance) > NEAR * largest:
        return distance > 0.0
    return exactly_above(corners, threshold, row_num, row_den, col_num, col_den)


@_jit
def _ends(values, threshold, rows, cols, r, lo, hi, corners):
    """Active columns [a, b) of label row r among [lo, hi), columns between the same two cells, decided one by one.

    The row is linear there, so its active columns are an interval at one end, or all, or none.
    """
    at_lo = _active(values, threshold, rows, cols, r, lo, corners)
    if hi - lo == 1:
        return (lo, hi) if at_lo else (lo, lo)
    at_hi = _active(values, threshold, rows, cols, r, hi - 1, corners)
    if at_lo and at_hi:
        return lo, hi
    if not at_lo and not at_hi:
        return lo, lo
    low, high = lo, hi - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if _active(values, threshold, rows, cols, r, middle, corners) == at_lo:
            low = middle
        else:
            high = middle
    return (lo, high) if at_lo else (high, hi)


@_inlined
def _crossing(left, right, near, weight, step, inverse, lo, hi):
    """Columns [a, b) among [lo, hi) where the line from `left` to `right` is above 0, or (-1, -1) if too near to tell.

    `weight` is that of column lo, `step` what it grows by from column to column, `inverse` is 1 / step. The line is
    linear in the weights; every column must lie farther than `near` from 0 to be told.
    """
    slope = right - left
    if hi - lo == 1:
        value = left + weight * slope
        if abs(value) <= near:
            return -1, -1
        return (lo, hi) if value > 0.0 else (lo, lo)
    crossed = (-left / slope - weight) * inverse
    before = np.floor(crossed)
    margin = min(crossed - before, before + 1.0 - crossed) * step * abs(slope)
    if not margin > 2.0 * near:
        return -1, -1
    edge = lo + np.int64(min(max(before + 1.0, 0.0), np.float64(hi - lo)))
    return (lo, edge) if slope < 0.0 else (edge, hi)


@_inlined
def _overlap(runs, r, a, b, hits):
    """Add the overlap of active columns [a, b) of row r with every label."""
    for p in range(runs.shape[0]):
        c = a
        while c < b:
            run = np.int64(runs[p, r, c])
            stop, index = min(run >> 16, b), run & NO_CONCEPT
            if index != NO_CONCEPT:
                hits[index] += stop - c
            c = stop


@_jit
def _touch(runs, r, a, b, touched, category):
    """Note the categories of the labels under active columns [a, b) of row r."""
    for p in range(runs.shape[0]):
        c = a
        while c < b:
            run = np.int64(runs[p, r, c])
            if run & NO_CONCEPT != NO_CONCEPT:
                touched[category[run & NO_CONCEPT]] = True
            c = run >> 16


@_jit
def _load(bits, decode, values):
    """Write the values of a row of bits: through the table `decode`, or for float32 where it is None, as they are."""
    for x in range(bits.size):
        if decode is None:
            values[x] = bits[x]
        else:
            values[x] = decode[bits[x]]


@_jit
def _active_cells(values, threshold, spans):
    """First and last cell above the threshold in each row of a map, into `spans` (y, 2); first > last where none is."""
    largest = 0.0
    for y in range(values.shape[0]):
        row = values[y]
        high, low = row[0], row[0]
        for x in range(row.size):
            high, low = max(high, row[x]), min(low, row[x])
        largest = max(largest, max(abs(high), abs(low)))
        spans[y, 0], spans[y, 1] = row.size, -1
        if high > threshold:
            first, last = 0, row.size - 1
            while row[first] <= threshold:
                first += 1
            while row[last] <= threshold:
                last -= 1
            spans[y, 0], spans[y, 1] = first, last
    return largest


@_inlined
def _add(labels, r, start, stop, hits, touched):
    """Add active columns [start, stop) of row r; how many they are."""
    runs, category, touching = labels
    _overlap(runs, r, start, stop, hits)
    if touching:
        _touch(runs, r, start, stop, touched, category)
    return stop - start


@_jit
def _count_mask(values, threshold, rows, cols, spans, labels, hits, touched, scratch):
    """Active label pixels of one unit in one image; their labels are added to `hits`, categories to `touched`."""
    ranges, weights, first_span, last_span = spans
    line, spans, corners = scratch
    # The map's largest value stands for the largest corner: more pixels are decided exactly, none fewer.
    near = NEAR * _active_cells(values, threshold, spans)
    area = 0
    for r in range(labels[0].shape[1]):
        first, second, weight = rows[0][r], rows[1][r], rows[4][r]
        leftmost, rightmost = min(spans[first, 0], spans[second, 0]), max(spans[first, 1], spans[second, 1])
        if leftmost > rightmost:
            continue
        for x in range(max(0, leftmost - 1), min(values.shape[1], rightmost + 2)):
            line[x] = values[first, x] + weight * (values[second, x] - values[first, x]) - threshold
        # Intervals of neighbouring spans that touch are one, [start, stop).
        start, stop = 0, 0
        for g in range(first_span[leftmost], last_span[rightmost]):
            lo, hi = ranges[g, 0], ranges[g, 1]
            left, right = line[cols[0][lo]], line[cols[1][lo]]
            if left < -near and right < -near:
                continue
            if left > near and right > near:
                a, b = lo, hi
            else:
                a, b = -1, -1
                if left * right < 0.0:
                    a, b = _crossing(left, right, near, weights[g, 0], weights[g, 1], weights[g, 2], lo, hi)
                if a < 0:
                    a, b = _ends(values, threshold, rows, cols, r, lo, hi, corners)
                if a == b:
                    continue
            if a != stop:
                if stop > start:
                    area += _add(labels, r, start, stop, hits, touched)
                start = a
            stop = b
        if stop > start:
            area += _add(labels, r, start, stop, hits, touched)
    return area


@_jit
def count_pixels(raw, decode, peak, thresholds, labels, rows, cols, spans, domain, hits, areas):
    """Add the overlaps of every unit's mask with every label, for a block of images.

    Parameters
    ----------
    raw : (image, unit, y, x) uint16 bits with `decode` their float32 values, or float32 with `decode` None
    peak : (image, unit) float32 largest value of each map
    thresholds : (fraction, unit) float32
    labels : (planes, whole, annotated, lookup, category): (image, plane, row, col) uint16 and (image, slot) uint16
        concept numbers, (image, category) bool, (65536,) int32 concept number -> index or -1, (concept,) int64 index
        of the primary category
    rows, cols : (first, second, numerator, denominator, weight) of each axis
    spans : (ranges, weights, first, last): (span, 2) int64 columns between the same two cells; (span, 3) float64 weight
        of a span's first column, step of weights, its reciprocal; (cell,) int64 the spans [first, last) that a cell
        takes part in
    domain : ANNOTATED, TOUCHED or ALL
    hits : (fraction, unit, concept) int64, added to
    areas : (fraction, unit, category + 1) int64, added to; the last column is the area over all images
    """
    planes, whole, annotated, lookup, category = labels
    height, width = raw.shape[2], raw.shape[3]
    values = np.empty((height, width))
    scratch = (np.empty(width), np.empty((height, 2), np.int64), np.empty(4))
    runs = np.empty(planes.shape[1:], np.uint32)
    touched = np.zeros(areas.shape[2] - 1, np.bool_)
    for i in range(raw.shape[0]):
        run_table(planes[i], lookup, runs)
        mine = (runs, category, domain == TOUCHED)
        for u in range(raw.shape[1]):
            loaded = False
            for f in range(thresholds.shape[0]):
                if peak[i, u] <= thresholds[f, u]:
                    continue
                if not loaded:
                    loaded = True
                    for y in range(height):
                        _load(raw[i, u, y], decode, values[y])
                touched[:] = False
                found = hits[f, u]
                area = _count_mask(values, thresholds[f, u], rows, cols, spans, mine, found, touched, scratch)
                if area == 0:
                    continue
                for s in range(whole.shape[1]):
                    label = lookup[whole[i, s]]
                    if label >= 0:
                        found[label] += area
                        touched[category[label]] = True
                areas[f, u, areas.shape[2] - 1] += area
                for g in range(touched.size):
                    if domain == ALL or (touched[g] if domain == TOUCHED else annotated[i, g]):
                        areas[f, u, g] += area
