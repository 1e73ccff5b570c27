"""The inner loop of pass 2: counts the label pixels that masks and labels share.

Knows: arrays, the order of their axes, and how a pixel close to its threshold is decided exactly.
Does not know: files, chunks, names. Every function runs without the GIL and is compiled once, into Numba's cache.

How the mask of one row becomes intervals. Along a row of label pixels the upsampled map S is linear between two cells.
A *span* is a half-open range of label pixels that lie between the same two cells; inside it the active pixels are one
interval. Take 2 cells with the activations 0 and 4, T = 1, and 8 label pixels (`interpolation` makes these tables):

    pixel          0     1     2     3     4     5     6     7
    weight         0     0   1/8   3/8   5/8   7/8     0     0     of the second of the pixel's two cells
    span         [0, 2)      [2, 6)                  [6, 8)
    S - T         -1    -1  -0.5   0.5   1.5   2.5     3     3

- Span [0, 2) lies at the first cell. S - T is -1 at both ends: no pixel is active.
- Span [2, 6) lies between the cells, where S - T goes from -1 to 3, that is -1 + 4 * weight. It is 0 at weight 1/4,
  half a step right of pixel 2, since weights grow by 1/4 from pixel to pixel. So [3, 6) is active. No pixel was tested.
- Span [6, 8) lies at the second cell: both pixels are active.
- [3, 6) and [6, 8) touch and are joined to [3, 8).

How an interval is counted. The labels of a row are runs of equal labels, each held as the column behind it and its
concept's index, -1 for none: 2 2 2 2 5 5 0 0, of which 0 is none, are (4, 0), (6, 1), (8, -1). `index_runs` notes which
run holds every eighth column, from where the run of any column is found in a few steps. The interval [3, 8) begins in
the first run, which stops at 4: 1 pixel of concept 2. Then come 2 pixels of concept 5, and 2 without a concept.

>>> count, run = np.array([[3]], np.uint16), np.array([[4, 6, 8], [2, 5, 0]], np.uint16)
>>> lookup = np.full(1 << 16, -1, np.int32)
>>> lookup[[2, 5]] = 0, 1
>>> index, at, labelled = np.empty(3, np.int32), np.empty((1, 1, 1), np.int64), np.empty((1, 2), np.int64)
>>> index_runs(count, run, 0, lookup, index, at, labelled)
>>> index.tolist(), at.ravel().tolist(), labelled.tolist()  # one plane, number 0, has concepts in the row
([0, 1, -1], [0], [[0, 1]])
>>> found = np.zeros(2, np.int64)
>>> _overlap(run[0], index, at, labelled, 0, 3, 8, found)
>>> found.tolist()
[1, 2]

Which arithmetic decides. `S > T` is decided in float64 only where |S - T| exceeds 1e-6 times the largest absolute value
of its four cells; pixels closer to T are decided by `_sign_of_sum`, which is exact for maps of float16 and float32.

References
----------
Shewchuk, Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates, 1997, theorem 10
(grow-expansion).
"""

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_inlined = numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
"""For small helpers that are called often: a call passes each array as seven words, which costs more than they do."""

NEAR = 1e-6
"""A pixel is decided exactly where |S - T| is at most this share of its largest cell (docs/method.md, section 1.2)."""

ANNOTATED, TOUCHED, ALL = 0, 1, 2
"""Domains of `unit_area` (docs/method.md, section 2)."""

STEP = 3
"""The run of every 2**STEP-th column of a row is noted."""

_SPLIT = 29
"""Weights are split into pieces of 29 bits: times the 24 bits of a float32 they fit the 53 bits of a float64."""


@_jit
def index_runs(count, run, first, lookup, index, at, labelled):
    """Prepare the runs of an image, so that the runs in any columns of a row are found in a few steps.

    Parameters
    ----------
    count : (plane, row) runs of each row
    run : (2, run) uint16, the column behind each run and its concept number
    first : the number of the image's first run
    lookup : (65536,) int32 concept number -> index, -1 where there is none
    index : (run,) int32, written: the concept's index, of the image's runs
    at : (plane, row, block) int64, written: the number of the run that holds the first of 2**STEP columns
    labelled : (row, plane + 1) int64, written: the planes in which the row has a concept; last, how many they are
    """
    n, last = first, count.shape[0]
    labelled[:, last] = 0
    for p in range(count.shape[0]):
        for r in range(count.shape[1]):
            block, some = 0, False
            for _ in range(count[p, r]):
                while block << STEP < run[0, n]:
                    at[p, r, block] = n
                    block += 1
                concept = lookup[run[1, n]]
                index[n - first] = concept
                some |= concept >= 0
                n += 1
            if some:
                labelled[r, labelled[r, last]] = p
                labelled[r, last] += 1


@_jit
def _sign_of_sum(terms, count):
    """Sign of the exact sum of float64 terms, held as a sum of parts whose bits do not overlap (Shewchuk 1997)."""
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

    `corners` are the values of the four cells around the pixel, in reading order: float16 or float32 values, held as
    float64. The weight of the second row is ``row_num / row_den``, that of the second column ``col_num / col_den``.
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
    """Whether label pixel (r, c) is active, decided in float64 where that is safe and exactly otherwise."""
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
def _search_interval(values, threshold, rows, cols, r, lo, hi, corners):
    """Active columns [a, b) of label row r in the span [lo, hi), found by a binary search that decides single pixels.

    S is linear in the span, so its active columns are all, none, or an interval that begins or ends the span.
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
    """Columns [a, b) of the span [lo, hi) where S - T > 0, or (-1, -1) where some column is too close to 0 to tell.

    `left` and `right` are S - T at the two cells, `weight` is the weight of the second cell at column lo, `step` is
    what the weight grows by from column to column, and `inverse` is 1 / step. Too close to 0 is at most `near`.
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
def _overlap(stops, index, at, labelled, r, a, b, intersection):
    """Add to each concept its pixels in the active columns [a, b) of row r."""
    first = at[0, 0, 0]
    for k in range(labelled[r, at.shape[0]]):
        n, c = at[labelled[r, k], r, a >> STEP], a
        while stops[n] <= a:
            n += 1
        while c < b:
            stop, concept = min(np.int64(stops[n]), b), index[n - first]
            if concept >= 0:
                intersection[concept] += stop - c
            c = stop
            n += 1


@_inlined
def _mark(touched, domain):
    """Mark a domain in `touched`: its flag in the first array, and once its number in the second, a list."""
    flags, listed = touched
    if not flags[domain]:
        flags[domain] = True
        listed[listed[-1]] = domain
        listed[-1] += 1


@_jit
def _mark_domains(stops, index, at, labelled, r, a, b, touched, domains):
    """Mark in `touched` the domain of every concept in the active columns [a, b) of row r."""
    first = at[0, 0, 0]
    for k in range(labelled[r, at.shape[0]]):
        n, c = at[labelled[r, k], r, a >> STEP], a
        while stops[n] <= a:
            n += 1
        while c < b:
            if index[n - first] >= 0:
                _mark(touched, domains[index[n - first]])
            c = np.int64(stops[n])
            n += 1


@_jit
def _ignored_before(ignored, before):
    """Write to `before` (row, col + 1) how many ignored pixels of the row lie left of each column."""
    for r in range(ignored.shape[0]):
        total = 0
        for c in range(ignored.shape[1]):
            before[r, c] = total
            total += ignored[r, c]
        before[r, ignored.shape[1]] = total


@_jit
def _decode_row(bits, decode, values):
    """Write a row of a map as float64: float16 bits through the table `decode`, float32 as it is (`decode` is None)."""
    for x in range(bits.size):
        if decode is None:
            values[x] = bits[x]
        else:
            values[x] = decode[bits[x]]


@_jit
def _active_extents(values, threshold, extents):
    """Largest absolute value of a map; writes the first and last cell above the threshold of each row to `extents`.

    `extents` is (y, 2). In a row without such a cell first > last.
    """
    largest = 0.0
    for y in range(values.shape[0]):
        row = values[y]
        high, low = row[0], row[0]
        for x in range(row.size):
            high, low = max(high, row[x]), min(low, row[x])
        largest = max(largest, max(abs(high), abs(low)))
        extents[y, 0], extents[y, 1] = row.size, -1
        if high > threshold:
            first, last = 0, row.size - 1
            while row[first] <= threshold:
                first += 1
            while row[last] <= threshold:
                last -= 1
            extents[y, 0], extents[y, 1] = first, last
    return largest


@_jit
def _count_rows(labels, intervals, count, intersection, touched):
    """Count active columns into `intersection`; returns how many are not ignored.

    Parameters
    ----------
    intervals : (interval, 3) row, first column and the one behind the last, of which `count` are given
    """
    stops, index, at, labelled, before, domains, touching = labels
    area = 0
    for n in range(count):
        r, start, stop = intervals[n, 0], intervals[n, 1], intervals[n, 2]
        area += stop - start
        _overlap(stops, index, at, labelled, r, start, stop, intersection)
    for n in range(count if before.size else 0):
        r, start, stop = intervals[n, 0], intervals[n, 1], intervals[n, 2]
        area -= before[r, stop] - before[r, start]
    for n in range(count if touching else 0):
        r, start, stop = intervals[n, 0], intervals[n, 1], intervals[n, 2]
        _mark_domains(stops, index, at, labelled, r, start, stop, touched, domains)
    return area


@_jit
def _count_mask(values, threshold, rows, cols, spans, labels, intersection, touched, scratch):
    """Number of active label pixels of one unit in one image; ignored pixels are none.

    Those that carry a concept are added to `intersection`, and in the domain TOUCHED their domains are marked in
    `touched`.
    """
    ranges, weights, first_span, last_span = spans
    line, extents, corners, intervals = scratch
    # Relative to the largest value of the map, not of the four cells: a few more pixels are decided exactly.
    near = NEAR * _active_extents(values, threshold, extents)
    area, count = 0, 0
    for r in range(len(labels[3])):
        if count + line.size >= len(intervals):
            area += _count_rows(labels, intervals, count, intersection, touched)
            count = 0
        first, second, weight = rows[0][r], rows[1][r], rows[4][r]
        leftmost, rightmost = min(extents[first, 0], extents[second, 0]), max(extents[first, 1], extents[second, 1])
        if leftmost > rightmost:
            continue
        for x in range(max(0, leftmost - 1), min(values.shape[1], rightmost + 2)):
            line[x] = values[first, x] + weight * (values[second, x] - values[first, x]) - threshold
        # [start, stop) is the interval so far: intervals that touch are joined.
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
                    a, b = _search_interval(values, threshold, rows, cols, r, lo, hi, corners)
                if a == b:
                    continue
            if a != stop:
                if stop > start:
                    intervals[count, 0], intervals[count, 1], intervals[count, 2] = r, start, stop
                    count += 1
                start = a
            stop = b
        if stop > start:
            intervals[count, 0], intervals[count, 1], intervals[count, 2] = r, start, stop
            count += 1
    return area + _count_rows(labels, intervals, count, intersection, touched)


@_jit
def count_pixels(raw, decode, where, peak, thresholds, labels, rows, cols, spans, domain, intersection, unit_area):
    """Add to `intersection` and `unit_area` the active pixels of every unit, for a block of images.

    Parameters
    ----------
    raw, decode : (map, y, x) float16 bits as uint16 and the (65536,) float32 value of each pattern of bits; or float32
        values and None
    where : (image, unit) int64 number of the unit's map in `raw`, of maps that reach a threshold
    peak : (image, unit) float32 largest value of each map
    thresholds : (fraction, unit) float32
    labels : the tuple (runs, whole, annotated, ignored, lookup, domains)
        runs : the arrays of `label_maps.runs.Runs`: `count`, `run` and `ends`; ignored pixels carry no label
        whole : (image, slot) uint16 concept numbers of whole images
        annotated : two int64 arrays: where the list of each image begins, and the lists of domains one after the other
        ignored : (image, row, col) bool; of no image where the probe has no ignored pixels
        lookup : (65536,) int32 concept number -> index, -1 where there is none
        domains : (concept,) int64 index of the concept's domain
    rows, cols : (first, second, numerator, denominator, weight) of an `interpolation.Axis`
    spans : `Axis.spans`, `Axis.span_weights` and the two arrays of `Axis.spans_of_cells`, of the columns
    domain : ANNOTATED, TOUCHED or ALL
    intersection : (fraction, unit, concept) int64, added to
    unit_area : (fraction, unit, domain + 1) int64, added to; the last column is the area over all images, and the only
        one for ALL
    """
    (run_count, run, ends), whole, (starts, annotated), ignored, lookup, domains = labels
    height, width = raw.shape[1], raw.shape[2]
    values = np.empty((height, width))
    planes, sides, columns = run_count.shape[1], run_count.shape[2], cols[0].size
    intervals = np.empty((sides + columns + width + 2, 3), np.int64)
    scratch = (np.empty(width), np.empty((height, 2), np.int64), np.empty(4), intervals)
    at = np.empty((planes, sides, -(-columns >> STEP)), np.int64)
    index = np.empty((ends[1:] - ends[:-1]).max(), np.int32)
    labelled = np.empty((sides, planes + 1), np.int64)
    before = np.empty((sides if ignored.shape[0] else 0, columns + 1), np.int64)
    last = unit_area.shape[2] - 1
    flags, listed = np.zeros(last, np.bool_), np.zeros(last + 1, np.int64)
    touched = flags, listed
    for i in range(where.shape[0]):
        index_runs(run_count[i], run, ends[i], lookup, index, at, labelled)
        if ignored.shape[0]:
            _ignored_before(ignored[i], before)
        mine = (run[0], index, at, labelled, before, domains, domain == TOUCHED)
        for u in range(where.shape[1]):
            loaded = False
            for f in range(thresholds.shape[0]):
                if peak[i, u] <= thresholds[f, u]:
                    continue
                if not loaded:
                    loaded = True
                    for y in range(height):
                        _decode_row(raw[where[i, u], y], decode, values[y])
                found = intersection[f, u]
                area = _count_mask(values, thresholds[f, u], rows, cols, spans, mine, found, touched, scratch)
                for s in range(whole.shape[1] if area else 0):
                    label = lookup[whole[i, s]]
                    if label >= 0:
                        found[label] += area
                        if domain == TOUCHED:
                            _mark(touched, domains[label])
                unit_area[f, u, last] += area
                if domain == ANNOTATED:
                    for k in range(starts[i], starts[i + 1]):
                        unit_area[f, u, annotated[k]] += area
                for k in range(listed[last]):
                    flags[listed[k]] = False
                    unit_area[f, u, listed[k]] += area
                listed[last] = 0
