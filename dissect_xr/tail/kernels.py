"""The loops over the cells of a tail: which cells belong to it, and maps made of them again.

Knows: arrays of bits and codes (`dissection.thresholds` explains codes: integers in the order of the values).
Does not know: files, layers, how a bound is chosen.

A map's tail is held as *spans*: runs of cells in reading order. The map of 2 rows and 4 columns

    0 0 0 0
    0 0 0 5

with the bound 1 has one cell above it. With its neighbours the tail is the cells 2, 3, 6 and 7: two spans of two
cells. A span is stored as the gap that lies before it, and its length: (2, 2) and (2, 2).

>>> raw = np.array([0, 0, 0, 0, 0, 0, 0, 5], np.float16).view(np.int16).reshape(1, 1, 8)
>>> bound = np.array([np.float16(1).view(np.int16)], np.int64)
>>> spans, values = np.zeros((2, 5), np.uint16), np.zeros(8, np.int16)
>>> count, equal, ends = np.zeros((1, 1), np.uint16), np.zeros(1, np.int64), np.zeros((1, 2), np.int64)
>>> pack_maps(raw, 4, bound, (0, 0, 0), spans, values, count, equal, ends)
(1, 2, 4)
>>> spans[:, :2].T.tolist(), values[:4].view(np.float16).tolist()
([[2, 2], [2, 2]], [0.0, 0.0, 0.0, 5.0])
>>> maps = np.empty((1, 8), np.int16)
>>> unpack_maps(count, spans, values, np.array([[0]]), 0, np.array([np.float16(1).view(np.int16)]), maps)
>>> maps.view(np.float16).tolist()
[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 5.0]]
"""

import numba
import numpy as np

from dissect_xr.floats import ordered

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@_jit
def _scan(cells, bound, magnitude):
    """How many cells lie above the bound, and how many are equal to it."""
    above, equal = 0, 0
    for c in range(cells.size):
        code = ordered(np.int64(cells[c]), magnitude)
        above += code > bound
        equal += code == bound
    return above, equal


@_jit
def _mark(cells, width, bound, magnitude, kept):
    """Mark in `kept` the cells above the bound and their neighbours."""
    kept[:] = False
    height = cells.size // width
    for c in range(cells.size):
        if ordered(np.int64(cells[c]), magnitude) > bound:
            y, x = c // width, c % width
            for row in range(max(y - 1, 0), min(y + 2, height)):
                for col in range(max(x - 1, 0), min(x + 2, width)):
                    kept[row * width + col] = True


@_jit
def pack_maps(raw, width, bound, state, spans, values, span_count, equal, ends):
    """Append the tails of maps, until all are packed or the next might not fit.

    Parameters
    ----------
    raw : (image, unit, cell) int16 or int32, the bits of the values as stored
    width : cells of a row
    bound : (unit,) int64 codes
    state : the next map (image * units + unit), spans and values so far
    spans : (2, n) unsigned, written: gap before each span, and its length
    values : (n,) of the type of `raw`, written
    span_count : (image, unit) unsigned, written: spans of each map
    equal : (unit,) int64, added to: values equal to the bound
    ends : (image, 2) int64, written: spans and values when the image is packed

    Returns
    -------
    state : as given, after the last map that was packed
    """
    number, s, v = state
    images, units, cells = raw.shape
    magnitude = (np.int64(1) << (raw.itemsize * 8 - 1)) - 1
    kept = np.empty(cells, np.bool_)
    while number < images * units:
        if v + cells > values.size or s + cells // 2 + 1 > spans.shape[1]:
            break
        i, u = number // units, number % units
        above, same = _scan(raw[i, u], bound[u], magnitude)
        equal[u] += same
        first = s
        if above:
            _mark(raw[i, u], width, bound[u], magnitude, kept)
            c, stop = 0, 0
            while c < cells:
                if not kept[c]:
                    c += 1
                    continue
                start = c
                while c < cells and kept[c]:
                    values[v] = raw[i, u, c]
                    v += 1
                    c += 1
                spans[0, s], spans[1, s] = start - stop, c - start
                stop = c
                s += 1
        span_count[i, u] = s - first
        ends[i, 0], ends[i, 1] = s, v
        number += 1
    return number, s, v


@_jit
def unpack_maps(span_count, spans, values, where, first, fill, maps):
    """Write maps from their tails; cells outside are `fill`.

    Parameters
    ----------
    span_count : (image, unit) unsigned, of all units of the layer
    spans, values : those of all these maps, in order
    where : (image, unit) int64, of the units that are wanted: row of `maps`, -1 for a map that is not wanted
    first : the first unit that is wanted
    fill : (unit,) bits, of the units that are wanted
    maps : (row, cell) of the type of `values`, written
    """
    s, v = 0, 0
    for i in range(span_count.shape[0]):
        for u in range(span_count.shape[1]):
            mine, count = u - first, span_count[i, u]
            row = where[i, mine] if 0 <= mine < where.shape[1] else -1
            if row < 0:
                for n in range(s, s + count):
                    v += spans[1, n]
                s += count
                continue
            maps[row, :] = fill[mine]
            c = 0
            for n in range(s, s + count):
                c += spans[0, n]
                for _ in range(spans[1, n]):
                    maps[row, c] = values[v]
                    c += 1
                    v += 1
            s += count
