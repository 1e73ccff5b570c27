"""The inner loop of derived layers: the product of a matrix and the maps of a layer, each sum in one fixed order.

Knows: arrays of float32.
Does not know: files, layers, biases, or how a product is rounded to what is stored.

A matrix product of a linear-algebra library adds in an order of its own, which depends on how many rows and columns are
multiplied at a time, on the processor and on the number of threads; so does what it gives in the last bits. Here every
sum is ``(((0 + q0 a0) + q1 a1) + q2 a2) + ...`` in float32, whatever is computed beside it: the derived value of a cell
is the same for every cut, number of workers and machine. Vector instructions take several cells at a time, never
several terms of one sum, and no product is fused with the addition that follows it (Numba does so only with
`fastmath`).

>>> import numpy as np
>>> matrix = np.array([[1, 2], [0.5, -1]], np.float32)
>>> maps = np.array([[3, 0, 4], [1, 2, 4]], np.float32)  # two units, three cells
>>> sums = np.empty((2, 3), np.float32)
>>> multiply(matrix, maps, sums)
>>> sums.tolist()
[[5.0, 4.0, 12.0], [0.5, -2.0, -2.0]]

The order shows where a sum of float32 rounds: 2**24 + 1 is not a float32, and is rounded down to 2**24.

>>> terms = np.array([[2**24, 1, 1]], np.float32)
>>> for order in ([0, 1, 2], [1, 2, 0]):
...     multiply(terms[:, order].copy(), np.ones((3, 1), np.float32), sums[:1, :1])
...     print(int(sums[0, 0]) - 2**24)
0
2
"""

import numba

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@_jit
def multiply(matrix, maps, sums):
    """Write ``sums[r, x] = matrix[r, 0] * maps[0, x] + matrix[r, 1] * maps[1, x] + ...``, added from the left, from 0.

    Two rows are computed at a time and four terms in turn, so that a value that was loaded is used twice and a sum is
    stored once for four terms; this reaches two thirds of the speed of a library's product.

    Parameters
    ----------
    matrix : (row, unit) float32
    maps : (unit, cell) float32
    sums : (row, cell) float32, written
    """
    rows, units = matrix.shape
    cells = maps.shape[1]
    whole = units // 4 * 4
    for r in range(0, rows, 2):
        # Of an odd number of rows the last is computed twice, with the same result.
        other = min(r + 1, rows - 1)
        one, two = sums[r], sums[other]
        one[:] = 0
        two[:] = 0
        for k in range(0, whole, 4):
            p0, p1, p2, p3 = matrix[r, k], matrix[r, k + 1], matrix[r, k + 2], matrix[r, k + 3]
            q0, q1, q2, q3 = matrix[other, k], matrix[other, k + 1], matrix[other, k + 2], matrix[other, k + 3]
            a0, a1, a2, a3 = maps[k], maps[k + 1], maps[k + 2], maps[k + 3]
            for x in range(cells):
                s, t = one[x], two[x]
                value = a0[x]
                s += p0 * value
                t += q0 * value
                value = a1[x]
                s += p1 * value
                t += q1 * value
                value = a2[x]
                s += p2 * value
                t += q2 * value
                value = a3[x]
                s += p3 * value
                t += q3 * value
                one[x] = s
                two[x] = t
        for k in range(whole, units):
            p, q, a = matrix[r, k], matrix[other, k], maps[k]
            for x in range(cells):
                one[x], two[x] = one[x] + p * a[x], two[x] + q * a[x]
