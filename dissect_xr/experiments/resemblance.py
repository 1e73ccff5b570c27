"""Do the old and the new concept of a unit look alike? How much concepts overlap in images, and share colours.

Knows: labels of images, pairs of concepts, and the colour concepts of a probe.
Does not know: models, activations, or why a unit has changed its concept.

After fine-tuning, many units detect another concept than before. Zhou et al. found that the new one often resembles
the old: water becomes sky. Two numbers say so of a pair of concepts, from the labels of a probe alone:

- **overlap**: pixels that carry both, over those that carry one of the two, in images annotated for both;
- **shared colours**: each concept has a distribution of colour names over its pixels; the sum over colours of the
  smaller of the two shares. 1 for the same colours, 0 for none in common.

An example: of the pixels of "water" 0.7 are blue and 0.3 green, of "sky" 0.9 blue and 0.1 white: they share 0.7.

References
----------
Zhou et al. 2019, Interpreting deep visual representations via network dissection, section 4.6.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.select import concept_index
from dissect_xr.analysis.snapshots import changed
from dissect_xr.dissection.labels import LabelBlock, ProbeLabels, open_labels, read_labels
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_tasks
from dissect_xr.schema import CUTOFF

COLORS = "color"
"""Category of the colour concepts."""

Pair = tuple[str | int, str | int]
"""Two concepts, by name or number."""


@dataclass(frozen=True)
class CountTask:
    """Some images of a probe, in which pairs of concepts are counted."""

    labels: ProbeLabels
    images: tuple[int, int]
    pairs: tuple[tuple[int, int], ...]
    """concept numbers"""
    domains: tuple[tuple[int, int], ...]
    """indices of their domains"""
    colors: tuple[int, ...]
    """numbers of the colour concepts"""


def concept_resemblance(probe: store.Url, pairs: Iterable[Pair], *, pool: Pool | None = None) -> xr.Dataset:
    """How much the two concepts of each pair overlap and share colours, (pair); computes.

    Memory: the labels of a chunk of images for each task.

    Returns
    -------
    xr.Dataset
        ``from_name`` and ``to_name``; ``both``, ``from_area`` and ``to_area`` int64, label pixels in images annotated
        for both; ``overlap`` float64, NaN where neither occurs there; ``shared_colors`` float64, NaN where the probe
        has no colour concepts or one of the two does not occur.

    Raises
    ------
    DissectError
        If a concept is not in the probe, or a name is that of several.
    """
    url, pool = store.as_url(probe), pool or Threads()
    labels = open_labels(url)
    concepts = store.open_lazy(url)[["concept", "concept_name", "concept_category"]]
    index = [tuple(concept_index(concepts, one) for one in pair) for pair in pairs]
    numbers, names = labels.concepts, concepts["concept_name"].values
    colors = tuple(numbers[concepts["concept_category"].values == COLORS].tolist())
    asked = [(int(numbers[a]), int(numbers[b])) for a, b in index]
    domains = [(int(labels.domain[a]), int(labels.domain[b])) for a, b in index]
    tasks = [
        CountTask(labels, (first, min(first + labels.shard, labels.shape[0])), tuple(asked), tuple(domains), colors)
        for first in range(0, labels.shape[0], labels.shard)
    ]
    area = np.zeros((len(asked), 3), np.int64)
    shades = np.zeros((len(asked), 2, len(colors)), np.int64)
    for _, (of_pairs, of_colors) in run_tasks(pool, count_pairs, tasks):
        area += of_pairs
        shades += of_colors
    both, one, other = area.T
    union = one + other - both
    return xr.Dataset(
        {
            "from_name": ("pair", names[[a for a, _ in index]] if index else np.array([], dtype=str)),
            "to_name": ("pair", names[[b for _, b in index]] if index else np.array([], dtype=str)),
            "both": ("pair", both),
            "from_area": ("pair", one),
            "to_area": ("pair", other),
            "overlap": ("pair", np.divide(both, union, out=np.full(len(asked), np.nan), where=union > 0)),
            "shared_colors": ("pair", _shared(shades)),
        }
    )


def switched_resemblance(
    ds: xr.Dataset, probe: store.Url, before: str, after: str, *, cutoff: float = CUTOFF, pool: Pool | None = None
) -> xr.Dataset:
    """How much the old and the new concept of each unit that switched resemble each other, (unit); computes.

    Beside the numbers of `concept_resemblance` stand ``overlap_by_chance`` and ``shared_colors_by_chance``: the means
    over the old concepts of these units, each paired with the new concept of every other unit that has another one.

    Parameters
    ----------
    ds
        A dissection Dataset of one fraction.
    probe
        The probe that it is of.
    before, after
        Names of snapshots.

    Raises
    ------
    DissectError
        If no unit switches its concept between the two.
    """
    change = changed(ds, before, after, cutoff=cutoff)
    switched = change.isel(unit=np.flatnonzero(change["kind"].values == "switch"))
    if not switched.sizes["unit"]:
        raise DissectError(f"no unit detects a concept in {before} and another one in {after}: nothing to compare.")
    columns = (ds[name].values.tolist() for name in ("concept_category", "concept_name", "concept"))
    number = {(category, name): n for category, name, n in zip(*columns, strict=True)}
    old, new = (
        [
            number[one]
            for one in zip(*(switched[f"{side}_{what}"].values.tolist() for what in ("category", "name")), strict=True)
        ]
        for side in ("from", "to")
    )
    pairs = list(zip(old, new, strict=True))
    chance = [(a, b) for n, a in enumerate(old) for m, b in enumerate(new) if n != m and a != b]
    unique = list(dict.fromkeys([*pairs, *chance]))
    found = concept_resemblance(probe, unique, pool=pool)
    at = {pair: n for n, pair in enumerate(unique)}
    mine = found.isel(pair=[at[pair] for pair in pairs]).rename(pair="unit")
    rest = found.isel(pair=[at[pair] for pair in chance])
    result = switched.assign({name: ("unit", mine[name].values) for name in ("overlap", "shared_colors")})
    for name in ("overlap", "shared_colors"):
        result[f"{name}_by_chance"] = rest[name].mean() if chance else xr.DataArray(np.nan)
    return result


def count_pairs(task: CountTask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels (pair, 3) with both concepts, the first, the second; and (pair, 2, color) of each with each colour."""
    area = np.zeros((len(task.pairs), 3), np.int64)
    shades = np.zeros((len(task.pairs), 2, len(task.colors)), np.int64)
    block = read_labels(task.labels, task.images)
    for image in range(len(block[0])):
        masks = _Masks(block, image)
        for n, (pair, domains) in enumerate(zip(task.pairs, task.domains, strict=True)):
            if not masks.annotated[list(domains)].all():
                continue
            one, other = (masks.of(number) for number in pair)
            area[n] += [int((one & other).sum()), int(one.sum()), int(other.sum())]
            for side, mask in enumerate((one, other)):
                if mask.any():
                    shades[n, side] += [int((masks.of(color) & mask).sum()) for color in task.colors]
    return area, shades


class _Masks:
    """The masks of concepts in one image, each made once."""

    def __init__(self, block: LabelBlock, image: int) -> None:
        self._planes, self._whole = block[0][image], block[1][image]
        self.annotated: NDArray[np.bool_] = block[2][image]
        self._seen = ~block[3][image] if len(block) > 3 else np.ones(self._planes.shape[1:], np.bool_)
        self._made: dict[int, NDArray[np.bool_]] = {}

    def of(self, number: int) -> NDArray[np.bool_]:
        """(row, col) pixels that carry the concept."""
        if number not in self._made:
            found = (self._planes == number).any(axis=0)
            self._made[number] = self._seen & (found | bool((self._whole == number).any()))
        return self._made[number]


def _shared(shades: NDArray[np.int64]) -> NDArray[np.float64]:
    """(pair) the sum over colours of the smaller share."""
    total = shades.sum(axis=2, keepdims=True)
    shares = np.divide(shades, total, out=np.full(shades.shape, np.nan), where=total > 0)
    if not shades.shape[2]:
        return np.full(len(shades), np.nan)
    found: NDArray[np.float64] = shares.min(axis=1).sum(axis=1)
    return found
