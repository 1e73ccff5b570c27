"""Whether activations keep their levels in the dtype they are stored in.

Knows: the smallest numbers of a dtype; how many distinct values a sample has before and after it is cast.
Does not know: models, stores, which blocks there are.

Two things are refused, since units would look dead that are not. A layer is faint if its largest activation is below
the smallest number of which the dtype keeps all digits. It is coarse if its values lie so close together, beside their
distance from 0, that the dtype cannot tell them apart: float16 has 11 binary digits, so between 0.99995 and 1 there are
two numbers, and between 1000 and 1001 three.

Coarse is found in a sample of at most 64 units, and about 1,024 values of each, of every image block. A unit is coarse
if it keeps at most one in eight of the distinct values that it has as computed. Of 1,024 those are 128 levels, so that
a level holds 0.8 % of the values on average, more than the fraction 0.005 that a threshold is for. It must lose them
among its largest tenth as well, where thresholds lie: of a softmax the many small values vanish, and the large ones
keep their levels. The layer is coarse if more than half of the units that vary at all are. So dead and constant units
do not count, units that have few values as computed keep them, and single weak units among others do no harm.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

UNITS = 64
"""Units of a sample at most, spread over the layer."""

VALUES = 1024
"""About the values of a unit in a sample, spread over images and cells."""

IMAGES = 16
"""Images that a sample is spread over, where there are so many."""

TOP = 10
"""The largest one in so many values of a unit must lose levels, too."""

KEPT = 8
"""A unit that keeps one in so many levels, or fewer, is coarse."""

Found = TypeVar("Found")

Counted = tuple[int, int]
"""Distinct values of the sampled units that vary, as computed and as stored, added up."""


def smallest_normal(dtype: str) -> float:
    """The smallest number of which `dtype` keeps all digits.

    >>> smallest_normal("float16") == 2.0**-14
    True
    """
    return float(np.finfo(dtype).smallest_normal)


def some_of(maps: Any, given: int = 0) -> Any:
    """A view of maps (image, unit, y, x) of NumPy or torch with some units, images and cells, evenly spread.

    `given` values of each unit are in the sample already.
    """
    images, units, rows, cols = maps.shape
    wanted = max(1, (VALUES - given) // max(images, IMAGES))
    down = min(rows, -(-rows * cols // wanted), max(1, round((rows * cols / wanted) ** 0.5)))
    across = -(-cols // max(1, wanted // -(-rows // down)))
    cells = -(-rows // down) * -(-cols // across)
    every = -(-images * cells // max(1, VALUES - given))
    return maps[::every, :: -(-units // UNITS), ::down, ::across]


class Levels:
    """The sample of a layer in one image block."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.floating]] = []
        self.values = 0
        """of each unit"""

    @property
    def complete(self) -> bool:
        """Whether no more is to be added."""
        return self.values >= VALUES // 2

    def add(self, maps: NDArray[np.floating]) -> None:
        """Add maps (image, unit, y, x) that `some_of` chose, as computed."""
        self._parts.append(np.moveaxis(maps, 1, 0).reshape(maps.shape[1], -1))
        self.values += self._parts[-1].shape[1]

    def coarse(self, dtype: str) -> Counted | None:
        """The levels before and after values become `dtype`, where most units that vary lose most of them, else None.

        >>> one = Levels()
        >>> one.add(np.linspace(1000, 1000.2, 100, dtype=np.float32).reshape(1, 1, 10, 10))
        >>> one.coarse("float16"), one.coarse("float32")
        ((100, 1), None)
        """
        if not self._parts:
            return None
        values = np.sort(np.concatenate(self._parts, axis=1), axis=1)
        largest = values[:, -max(2, values.shape[1] // TOP) :]
        before, before_there = _distinct(values), _distinct(largest)
        with np.errstate(over="ignore"):
            after, there = _distinct(values.astype(dtype)), _distinct(largest.astype(dtype))
        varying = before > 1
        lost = varying & (KEPT * after <= before) & ((KEPT * there <= before_there) | (there == 1))
        if 2 * lost.sum() <= varying.sum():
            return None
        return int(before[varying].sum()), int(after[varying].sum())


class WrittenLevels:
    """What becomes of the levels of a layer that is written from arrays, block by block."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._faint: list[float] = []
        self._coarse: list[Counted | None] = []

    def add(self, maps: NDArray[np.floating]) -> None:
        """Add maps (image, unit, y, x) as they were given; those that are in the stored dtype already lose nothing."""
        if maps.dtype == self._dtype:
            self._faint.append(np.inf)
        elif not self._faint or self._faint[-1] < smallest_normal(self._dtype):
            self._faint.append(float(max(-maps.min(), maps.max())))
        if not self._coarse or self._coarse[-1] is not None:
            sample = Levels()
            sample.add(some_of(maps))
            self._coarse.append(sample.coarse(self._dtype))

    def check(self, layer: str) -> None:
        """Raise if the layer is faint or coarse.

        Raises
        ------
        DissectError
            As `check_levels` and `check_coarse` do.
        """
        normal = smallest_normal(self._dtype)
        check_levels([{layer: largest} if largest < normal else {} for largest in self._faint], self._dtype)
        check_coarse([{} if one is None else {layer: one} for one in self._coarse], self._dtype)


def _distinct(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """(unit,) distinct values of (unit, value), in ascending order."""
    return np.asarray(1 + (values[:, 1:] != values[:, :-1]).sum(axis=1))


def check_levels(blocks: Iterable[Mapping[str, float]], dtype: str) -> None:
    """Raise if a layer has activations, and all of them are below the smallest normal number of `dtype`.

    Below it, numbers stand at equal distances, and the largest of them keep less than half of their levels; those below
    6e-8 as float16 become 0, so that units would look dead that are not.

    Parameters
    ----------
    blocks
        Of every image block, layer -> its largest absolute activation as computed, of the layers where that is below
        the smallest normal number. No block is read after the one in which no such layer is left.

    Raises
    ------
    DissectError
        Naming the layers and the value.
    """
    faint = {layer: value for layer, value in _in_every_block(blocks, max).items() if value > 0}
    if not faint:
        return
    layer, value = max(faint.items(), key=lambda item: item[1])
    raise DissectError(
        f"layer {layer}: its largest activation of all images is {value:.3g}, but as {dtype} numbers below "
        f"{smallest_normal(dtype):.3g} lose most of their levels or become 0, and units would look dead. "
        f"{_mend(dtype)} Such layers: {', '.join(list(faint)[:12])}."
    )


def check_coarse(blocks: Iterable[Mapping[str, Counted]], dtype: str) -> None:
    """Raise if a layer is coarse in every image block.

    Parameters
    ----------
    blocks
        Of every image block, layer -> what `Levels.coarse` found. No block is read after the one in which no such layer
        is left.

    Raises
    ------
    DissectError
        Naming the layers and how many levels are left.
    """
    coarse = _in_every_block(blocks, lambda one, other: (one[0] + other[0], one[1] + other[1]))
    if not coarse:
        return
    layer, (before, after) = max(coarse.items(), key=lambda item: item[1][0] / item[1][1])
    raise DissectError(
        f"layer {layer}: as {dtype}, most of its units lose most of their levels: in a sample, {before:,} distinct "
        f"values become {after:,}, since they lie close together beside their distance from 0. So many values would "
        f"equal a threshold that units look dead. {_mend(dtype)} Such layers: {', '.join(list(coarse)[:12])}."
    )


def _in_every_block(blocks: Iterable[Mapping[str, Found]], both: Callable[[Found, Found], Found]) -> dict[str, Found]:
    """What was found of the layers of which something was found in every block; two findings become one by `both`."""
    rest = iter(blocks)
    found = dict(next(rest, {}))
    while found and (block := next(rest, None)) is not None:
        found = {layer: both(one, block[layer]) for layer, one in found.items() if layer in block}
    return found


def _mend(dtype: str) -> str:
    mend = "Store float32 (dtype: float32)" if dtype == "float16" else "Scale and shift the layer's output"
    return f"{mend}, in another output directory or under another snapshot name."
