"""What the passes of an ablation count: units alone, the orders that follow, sets of units.

Knows: which passes answer the question, and in which order they come.
Does not know: how a network is replayed (`replay`), how units are ordered (`unit_orders`), where the answer is kept.

Passes, each a batch of images a task:

1. ``means`` (only where ablated maps are set to their means): mean activation of every unit on the ranking split.
2. ``single-ranked``, ``single-measured``: nothing ablated, then each unit alone. The losses on the first split give
   each class its order of units.
3. ``greedy-2``, ``greedy-3``, ... (where asked for): on the ranking split, each unit beside those chosen already.
4. ``curves``: on the other split, the first n units of each order, and all but them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.experiments.ablation import Ablation
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.class_scores import losses
from dissect_xr.experiments.replay.passes import Counts, Passes
from dissect_xr.experiments.unit_orders import (
    ABLATED,
    NONE,
    ORDERS,
    candidates,
    curve_points,
    curve_sets,
    extended,
    ranked,
)


def ablation_counts(
    passes: Passes, question: Ablation, splits: tuple[Labelled, Labelled]
) -> tuple[xr.Dataset, list[str]]:
    """Counts, orders and curves, and the passes that they come from; computes what is missing."""
    units, classes = passes.looked.units, splits[0].classes
    names = [] if question.level == "zero" else ["means"]
    levels = passes.means("means", splits[0]) if names else np.zeros(units, np.float32)
    alone = np.concatenate([np.zeros((1, units), np.bool_), np.eye(units, dtype=np.bool_)])
    single = [
        passes.counts(name, split, alone, levels)
        for name, split in zip(("single-ranked", "single-measured"), splits, strict=True)
    ]
    chosen = _classes_with_curves(question, splits)
    steps = min(question.greedy, units) if chosen else 0
    orders = _orders(passes, splits[0], single[0], chosen, steps, levels)
    sizes = {"ranked": [n for n in question.sizes if n <= units], "greedy": range(1, steps + 1)}
    points = list(curve_points(sizes, chosen))
    curves = passes.counts("curves", splits[1], curve_sets(points, orders, units), levels)
    ds = _curves(points, curves, orders, classes).assign_coords(split=[question.ranked_on, question.measured_on])
    ds["class_images"] = ("split", "class"), np.stack([split.counts for split in splits])
    ds["level"] = "unit", levels
    for n, name in enumerate(("true_positives", "predicted")):
        both = np.stack([of_split[n] for of_split in single])
        ds[name] = ("split", "class"), both[:, 0]
        ds[f"{name}_without"] = ("split", "unit", "class"), both[:, 1:]
    names += ["single-ranked", "single-measured", *map(_greedy_pass, range(2, steps + 1))]
    return ds, [*names, "curves"] if points else names


def _classes_with_curves(question: Ablation, splits: tuple[Labelled, Labelled]) -> list[int]:
    classes = splits[0].classes
    if question.curves is not None:
        return [classes.index(name) for name in question.curves]
    return np.flatnonzero(np.minimum(splits[0].counts, splits[1].counts)).tolist()


def _orders(
    passes: Passes,
    labelled: Labelled,
    single: Counts,
    chosen: Sequence[int],
    steps: int,
    levels: NDArray[np.float32],
) -> dict[str, NDArray[np.int64]]:
    """Order -> units (class, place): of all classes by single losses, of the `chosen` greedily, for so many steps."""
    counts, images = labelled.counts, len(labelled.images)
    before = single[0][0], single[1][0]
    orders = {"ranked": ranked(losses(before, (single[0][1:], single[1][1:]), counts, images))}
    orders["ranked"][counts == 0] = NONE  # without images, a class says nothing about units
    mine, units = list(chosen), passes.looked.units
    best = orders["ranked"][mine, : min(1, steps)]
    for step in range(2, steps + 1):
        found = passes.counts(_greedy_pass(step), labelled, candidates(best, units), levels)
        # Of each class's candidates, the counts of that class: (unit, class).
        after = [part.reshape(len(mine), units, -1)[range(len(mine)), :, mine].T for part in found]
        of_mine = before[0][mine], before[1][mine]
        best = extended(best, losses(of_mine, (after[0], after[1]), counts[mine], images).T)
    if steps:
        orders["greedy"] = np.full((len(counts), steps), NONE, np.int64)
        orders["greedy"][mine] = best
    return orders


def _greedy_pass(step: int) -> str:
    return f"greedy-{step}"


def _curves(
    points: Sequence[tuple[str, str, int, int]],
    counts: Counts,
    orders: Mapping[str, NDArray[np.int64]],
    classes: Sequence[str],
) -> xr.Dataset:
    """The counts of each point's class, and the first units of each order; -1 where there is none."""
    sizes = sorted({size for _, _, size, _ in points})
    places = max(sizes, default=0)
    found = np.full((2, len(ORDERS), len(ABLATED), len(sizes), len(classes)), NONE, np.int64)
    for n, (order, ablated, size, one) in enumerate(points):
        at = ORDERS.index(order), ABLATED.index(ablated), sizes.index(size), one
        found[:, *at] = counts[0][n, one], counts[1][n, one]
    first = np.full((len(ORDERS), len(classes), places), NONE, np.int64)
    for name, units in orders.items():
        width = min(places, units.shape[1])
        first[ORDERS.index(name), :, :width] = units[:, :width]
    return xr.Dataset(
        {
            "true_positives_curve": (("order", "ablated", "size", "class"), found[0]),
            "predicted_curve": (("order", "ablated", "size", "class"), found[1]),
            "unit_order": (("order", "class", "place"), first),
        },
        {
            "order": np.array(ORDERS),
            "ablated": np.array(ABLATED),
            "size": np.array(sizes, np.int64),
            "place": np.arange(places, dtype=np.int64),
            "class": np.array(classes),
        },
    )
