"""Which units matter most to a class, and the sets of units that are ablated to see how much.

Knows: orders of units by what is lost without them, one by one and greedily; sets of their first units, and of others.
Does not know: how a loss was measured.

An example: a class loses 3 without unit 0, 5 without unit 1 and 4 without unit 2. In the order by single losses unit 1
comes first, then 2, then 0. Greedily, unit 1 comes first as well; the second is the unit without which, together with
unit 1, most is lost. If units 1 and 2 carry the same information, that may be unit 0.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SIZES = (1, 2, 3, 4, 5, 20, 64, 128, 256)
"""Numbers of units of the published curves."""

NONE = -1
"""In place of a unit or of a count: there is none."""

ORDERS = ("ranked", "greedy")
"""Orders of units: by the loss without each of them alone, and by the loss without it and all before it."""

ABLATED = ("top", "all_but_top")
"""What is ablated: the first n units of an order, or all others."""


def ranked(losses: NDArray[np.int64]) -> NDArray[np.int64]:
    """Units in the order of their importance, (class, unit), from losses (unit, class); equal ones by their number.

    >>> ranked(np.array([[3], [5], [5]])).tolist()
    [[1, 2, 0]]
    """
    return np.argsort(-losses.T, axis=1, kind="stable").astype(np.int64)


def candidates(chosen: NDArray[np.int64], units: int) -> NDArray[np.bool_]:
    """Sets of each class's chosen units (class, step) and one unit more, (class x unit, unit), class by class.

    >>> candidates(np.array([[1]]), 2).astype(int).tolist()  # with unit 1 again nothing is added
    [[1, 1], [0, 1]]
    """
    classes = len(chosen)
    sets = np.broadcast_to(np.eye(units, dtype=np.bool_), (classes, units, units)).copy()
    for n, already in enumerate(chosen):
        sets[n][:, already] = True
    return sets.reshape(classes * units, units)


def extended(chosen: NDArray[np.int64], losses: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chosen units (class, step + 1), with the unit of the largest loss (class, unit) added; the first of equals.

    >>> extended(np.array([[1]]), np.array([[4, 9, 4]])).tolist()  # 9 is that of unit 1, which is chosen already
    [[1, 0]]
    """
    open_losses = losses.astype(np.float64)
    np.put_along_axis(open_losses, chosen, -np.inf, axis=1)
    return np.concatenate([chosen, open_losses.argmax(axis=1)[:, None]], axis=1)


def curve_points(sizes: Mapping[str, Sequence[int]], classes: Sequence[int]) -> Iterator[tuple[str, str, int, int]]:
    """(order, what is ablated, number of units, class) of every point of the curves.

    `sizes` are the numbers of units of each order.
    """
    return (
        (order, ablated, size, one)
        for order in ORDERS
        for ablated in ABLATED
        for size in sizes.get(order, ())
        for one in classes
    )


def curve_sets(
    points: Sequence[tuple[str, str, int, int]], orders: Mapping[str, NDArray[np.int64]], units: int
) -> NDArray[np.bool_]:
    """The units that are ablated at each point, (point, unit), from orders (class, place).

    >>> orders = {"ranked": np.array([[2, 0, 1]])}
    >>> curve_sets([("ranked", "top", 1, 0), ("ranked", "all_but_top", 1, 0)], orders, 3).astype(int).tolist()
    [[0, 0, 1], [1, 1, 0]]
    """
    sets = np.zeros((len(points), units), np.bool_)
    for row, (order, ablated, size, one) in zip(sets, points, strict=True):
        row[orders[order][one, :size]] = True
        if ablated == "all_but_top":
            np.logical_not(row, out=row)
    return sets
