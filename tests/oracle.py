"""The reference: Network Dissection by docs/method.md, in NumPy float64 with near-ties decided in whole numbers.

Knows: docs/method.md, sections 1 and 3, for arrays in memory, one image after another.
Does not know: dissect_xr (nothing of it is imported), chunks, stores, crops, or more speed than 701 real images need.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Anchoring = Literal["half_pixel"] | tuple[Any, Any]
DOMAINS = ("annotated", "touched", "all")
SLACK = 1e-5  # x the largest value of the map: ten times the margin of docs/method.md, section 1.2
UNITY = 2.0**149  # every finite float16 and float32 is a multiple of 2^-149, and float64 holds value * 2^149 exactly


# --- thresholds -------------------------------------------------------------------------------------------------------


def threshold(values: NDArray[Any], fraction: float) -> float:
    """The value d[floor(fraction * n)] of `values` in descending order, -0.0 as 0.0; the fraction is read as a decimal.

    >>> threshold(np.array([5, 1, 4, 2, 3], np.float16), 0.4)
    3.0
    """
    rank = math.floor(Fraction(str(fraction)) * values.size)
    return float(np.sort(_float64(values).ravel())[::-1][rank])


def exceedance(values: NDArray[Any], level: float) -> int:
    """How many `values` lie strictly above `level`."""
    return int(np.count_nonzero(_float64(values) > level))


def thresholds(activation: NDArray[Any], fractions: Sequence[float]) -> NDArray[np.float64]:
    """`threshold` of each unit of `activation` (image, unit, y, x), as (fraction, unit)."""
    units = range(activation.shape[1])
    return np.array([[threshold(activation[:, k], q) for k in units] for q in fractions])


def exceedances(activation: NDArray[Any], levels: NDArray[Any]) -> NDArray[np.int64]:
    """`exceedance` of each unit at `levels` (fraction, unit)."""
    units = range(activation.shape[1])
    return np.array([[exceedance(activation[:, k], row[k]) for k in units] for row in levels], np.int64)


# --- where label pixels lie on the map --------------------------------------------------------------------------------


def anchors(layers: Iterable[tuple[int, int, int, int]]) -> tuple[Fraction, Fraction, Fraction]:
    """(start, jump, receptive field) in input pixels after a chain of (kernel, stride, leading padding, dilation).

    >>> [str(number) for number in anchors([(7, 2, 3, 1), (3, 2, 1, 1)])]
    ['1/2', '4', '11']
    """
    start, jump, field = Fraction(1, 2), Fraction(1), Fraction(1)
    for kernel, stride, padding, dilation in layers:
        start += (Fraction(dilation * (kernel - 1), 2) - padding) * jump
        field += dilation * (kernel - 1) * jump
        jump *= stride
    return start, jump, field


def axis_positions(map_size: int, label_size: int, input_size: int, anchoring: Anchoring) -> tuple[Fraction, ...]:
    """The cell coordinate, in [0, map_size - 1], of each label pixel of one axis; `anchoring` may be (start, jump)."""
    if anchoring == "half_pixel":
        jump = Fraction(input_size, map_size)
        start = jump / 2
    else:
        start, jump = Fraction(anchoring[0]), Fraction(anchoring[1])
    at_input = [(pixel + Fraction(1, 2)) * input_size / label_size for pixel in range(label_size)]
    return tuple(min(max((x - start) / jump, Fraction(0)), Fraction(map_size - 1)) for x in at_input)


@dataclass(frozen=True)
class Axis:
    """One axis of the upsampling."""

    positions: tuple[Fraction, ...]
    """Cell coordinate of each label pixel."""
    cells: int
    """Length of the map along the axis."""

    @cached_property
    def lower(self) -> NDArray[np.int64]:
        """The cell at or before each label pixel."""
        return np.array([math.floor(u) for u in self.positions], np.int64)

    @cached_property
    def upper(self) -> NDArray[np.int64]:
        """The cell after it; its weight is 0 at the end of the map."""
        return np.minimum(self.lower + 1, self.cells - 1)

    @cached_property
    def denominator(self) -> int:
        """Common denominator of all weights."""
        return math.lcm(*(u.denominator for u in self.positions))

    @cached_property
    def upper_weight(self) -> NDArray[np.object_]:
        """Weight of `upper`, a Python int of 1/denominator."""
        weights = [(u - math.floor(u)) * self.denominator for u in self.positions]
        return np.array([int(w) for w in weights], object)

    @cached_property
    def lower_weight(self) -> NDArray[np.object_]:
        """Weight of `lower`, a Python int of 1/denominator."""
        return self.denominator - self.upper_weight

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """W (label pixel, cell)."""
        matrix = np.zeros((len(self.positions), self.cells))
        for pixel, u in enumerate(self.positions):
            matrix[pixel, self.lower[pixel]] += float(1 - (u - math.floor(u)))
            matrix[pixel, self.upper[pixel]] += float(u - math.floor(u))
        return matrix


def axes(
    map_size: Sequence[int],
    label_size: Sequence[int],
    input_size: Sequence[int],
    anchoring: Anchoring,
    col_anchoring: Anchoring | None = None,
) -> tuple[Axis, Axis]:
    """The row and the column axis, each size given as (rows, cols); columns are anchored as rows unless told."""
    rows, cols = zip(map_size, label_size, input_size, (anchoring, col_anchoring or anchoring), strict=True)
    return Axis(axis_positions(*rows), rows[0]), Axis(axis_positions(*cols), cols[0])


# --- derived layers ---------------------------------------------------------------------------------------------------


def derived(
    activation: NDArray[Any],
    matrix: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    relu: bool = False,
    dtype: Any = np.float16,
) -> NDArray[Any]:
    """A'(i, k', y, x) = sum_k Q[k', k] A(i, k, y, x): float32 products added one after the other, k ascending, from 0.

    Then the bias is added, negative values become 0 where there is a ReLU, and the result is rounded to `dtype`.

    >>> maps = np.array([3, 1], np.float16).reshape(1, 2, 1, 1)
    >>> matrix, bias = np.array([[1, 2], [1, -4]], np.float32), np.array([0.5, 0], np.float32)
    >>> derived(maps, matrix, bias, relu=True).ravel().tolist()
    [5.5, 0.0]
    """
    found = np.zeros((len(activation), len(matrix), *activation.shape[2:]), np.float32)
    for row in range(len(matrix)):
        for unit in range(matrix.shape[1]):
            found[:, row] = found[:, row] + matrix[row, unit] * activation[:, unit].astype(np.float32)
        if bias is not None:
            found[:, row] = found[:, row] + bias[row]
    return (np.where(found > 0, found, np.float32(0)) if relu else found).astype(dtype)


def covariance(activation: NDArray[Any], centred: bool) -> NDArray[np.float64]:
    """(unit, unit): mean product of two units' activations over all images and cells, exact, rounded once at the end.

    Centred, the product of their means is subtracted.

    >>> covariance(np.array([1, 3, 2, 2]).reshape(1, 2, 1, 2), centred=True).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    units = activation.shape[1]
    values = [[Fraction(float(v)) for v in activation[:, k].ravel()] for k in range(units)]
    cells = len(values[0])
    means = [sum(row) / cells for row in values]
    answer = np.zeros((units, units))
    for k in range(units):
        for other in range(units):
            product = sum(a * b for a, b in zip(values[k], values[other], strict=True)) / cells
            answer[k, other] = float(product - means[k] * means[other] if centred else product)
    return answer


# --- masks ------------------------------------------------------------------------------------------------------------


def upsample(maps: NDArray[Any], rows: Axis, cols: Axis) -> NDArray[np.float64]:
    """S = W_y A W_x^T of `maps` (..., y, x), as (..., row, col), rounded as float64 rounds."""
    return np.asarray(rows.matrix @ _float64(maps) @ cols.matrix.T)


def masks(maps: NDArray[Any], levels: NDArray[Any], rows: Axis, cols: Axis) -> NDArray[np.bool_]:
    """M = S > T, exactly, for `maps` (unit, y, x) and `levels` (unit,), as (unit, row, col)."""
    values, levels = _float64(maps), _float64(levels)
    active = np.zeros((len(values), len(rows.positions), len(cols.positions)), np.bool_)
    units = np.flatnonzero(values.max(axis=(1, 2)) > levels)  # S is a weighted mean: never above the largest value
    margins = SLACK * np.abs(values).max(axis=(1, 2))
    for k, sampled in zip(units, upsample(values[units], rows, cols), strict=True):
        distance = sampled - levels[k]
        active[k] = distance > 0
        near = np.nonzero(np.abs(distance) <= margins[k])
        active[k][near] = exactly_above(values[k], levels[k], rows, cols, near)
    return active


def mask(map_: NDArray[Any], level: float, rows: Axis, cols: Axis) -> NDArray[np.bool_]:
    """`masks` of one map (y, x), as (row, col)."""
    return masks(map_[None], np.array([level]), rows, cols)[0]


def exactly_above(
    map_: NDArray[np.float64], level: float, rows: Axis, cols: Axis, pixels: tuple[NDArray[np.int64], ...]
) -> NDArray[np.bool_]:
    """S > T at the label `pixels` (row numbers, column numbers), decided in Python ints."""
    row, col = pixels
    ys = (rows.lower[row], rows.lower[row], rows.upper[row], rows.upper[row])
    xs = (cols.lower[col], cols.upper[col], cols.lower[col], cols.upper[col])
    corners = map_[ys, xs]
    above: NDArray[np.bool_] = corners.min(axis=0) > level  # S lies between its smallest and its largest corner,
    open_ = np.flatnonzero(~above & (corners.max(axis=0) > level))  # so only pixels with corners on both sides remain
    wy = (rows.lower_weight, rows.lower_weight, rows.upper_weight, rows.upper_weight)
    wx = (cols.lower_weight, cols.upper_weight, cols.lower_weight, cols.upper_weight)
    total = sum(wy[j][row[open_]] * wx[j][col[open_]] * _whole(corners[j, open_]) for j in range(4))
    above[open_] = total > _whole(np.array([level]))[0] * rows.denominator * cols.denominator
    return above


def _whole(values: NDArray[np.float64]) -> NDArray[np.object_]:
    scaled = [float(v) * UNITY for v in values]
    if not all(v.is_integer() for v in scaled):
        raise ValueError("a value is no float32 number: the oracle is exact for float16 and float32 only")
    return np.array([int(v) for v in scaled], object)


def _float64(values: NDArray[Any]) -> NDArray[np.float64]:
    exact = np.asarray(values).astype(np.float64) + 0.0  # -0.0 + 0.0 is 0.0
    if not np.isfinite(exact).all():
        raise ValueError("activations and thresholds must be finite")
    return exact


# --- counts -----------------------------------------------------------------------------------------------------------


class Labels(Protocol):
    """What `count` reads of a probe; `Broden` and `strategies.ProbeCase` are such."""

    annotation: NDArray[np.uint16]
    """(image, plane, row, col), 0 = none."""
    whole_image: NDArray[np.uint16]
    """(image, slot), 0 = none."""
    concept: NDArray[np.uint16]
    """Concept numbers, ascending."""
    concept_category: NDArray[np.int64]
    """Per concept the index of its primary category in `categories`."""
    categories: tuple[str, ...]
    """Category names."""


@dataclass(frozen=True)
class Domains:
    """The domains of a probe that are not its categories, and which of its pixels are ignored."""

    concept_domain: NDArray[np.int64]
    """Per concept the index of its domain."""
    verified: NDArray[np.bool_]
    """(image, domain): the image is annotated for the domain."""
    ignored: NDArray[np.bool_]
    """(image, row, col)"""

    @classmethod
    def of_categories(cls, probe: "Labels", ignored: NDArray[np.bool_] | None = None) -> "Domains":
        """Each category is a domain, of the images that have a label of it on a pixel that is not ignored."""
        shape = (len(probe.annotation), *probe.annotation.shape[2:])
        hidden = np.zeros(shape, np.bool_) if ignored is None else ignored
        verified = np.zeros((len(probe.annotation), len(probe.categories)), np.bool_)
        for image in range(len(probe.annotation)):
            for c, pixels in image_labels(probe, image).items():
                verified[image, probe.concept_category[c]] |= (pixels & ~hidden[image]).any()
        return cls(probe.concept_category, verified, hidden)


@dataclass(frozen=True)
class Counts:
    """Pixel counts, int64, summed over images."""

    intersection: NDArray[np.int64]
    """(fraction, unit, concept)."""
    unit_area: dict[str, NDArray[np.int64]]
    """Per kind of domain (fraction, unit, domain)."""
    concept_area: NDArray[np.int64]
    """(concept,)."""
    domain_area: NDArray[np.int64]
    """(domain,): label pixels of the annotated images that are not ignored, whatever the kind of domain."""
    dead: NDArray[np.bool_]
    """(fraction, unit): no active label pixel in any image, labelled or not."""


def image_labels(probe: Labels, image: int) -> dict[int, NDArray[np.bool_]]:
    """L_c (row, col) of one image, by index of c in `probe.concept`, over all planes and the whole-image slots."""
    planes, index = probe.annotation[image], {int(c): i for i, c in enumerate(probe.concept)}
    found = {int(c): (planes == c).any(axis=0) for c in np.unique(planes)}
    found |= {int(c): np.ones(planes.shape[1:], np.bool_) for c in probe.whole_image[image]}
    return {index[c]: pixels for c, pixels in found.items() if c != 0}


def count(
    activation: NDArray[Any],
    levels: NDArray[Any],
    probe: Labels,
    rows: Axis,
    cols: Axis,
    domains: Domains | None = None,
) -> Counts:
    """The counts of `activation` (image, unit, y, x) above `levels` (fraction, unit), for all kinds of domain at once.

    A domain is a category where `domains` does not say otherwise. Ignored pixels are in no mask and no concept.
    """
    kinds = domains or Domains.of_categories(probe)
    fractions, units, number = *levels.shape, kinds.verified.shape[1]
    intersection = np.zeros((fractions, units, len(probe.concept)), np.int64)
    unit_area = {domain: np.zeros((fractions, units, number), np.int64) for domain in DOMAINS}
    concept_area, domain_area = np.zeros(len(probe.concept), np.int64), np.zeros(number, np.int64)
    dead = np.ones((fractions, units), np.bool_)
    for image in range(len(activation)):
        seen = ~kinds.ignored[image].ravel()
        labels = {c: pixels.ravel() & seen for c, pixels in image_labels(probe, image).items()}
        present = [c for c, pixels in labels.items() if pixels.any()]
        pixels = np.zeros((len(present), seen.size), np.float32)
        for row, c in enumerate(present):
            pixels[row] = labels[c]
        of_present, annotated = kinds.concept_domain[present], kinds.verified[image]
        concept_area[present] += pixels.sum(axis=1, dtype=np.int64)
        domain_area += annotated * int(seen.sum())
        for f in range(fractions):
            active = masks(activation[image], levels[f], rows, cols).reshape(units, -1) & seen
            area, both = active.sum(axis=1), np.zeros((units, len(present)), np.int64)
            lit = np.flatnonzero(area)
            dead[f, lit] = False
            both[lit] = active[lit].astype(np.float32) @ pixels.T  # whole numbers below 2^24: exact in float32
            touched = np.array([(both[:, of_present == g] > 0).any(axis=1) for g in range(number)]).T
            intersection[f][:, present] += both
            for domain, counted in zip(DOMAINS, (annotated, touched, True), strict=True):
                unit_area[domain][f] += area[:, None] * counted
    return Counts(intersection, unit_area, concept_area, domain_area, dead)


# --- answers ----------------------------------------------------------------------------------------------------------


def iou(counts: Counts, concept_domain: NDArray[np.int64], domain: str = "annotated") -> NDArray[np.float64]:
    """IoU (fraction, unit, concept), each concept in its domain; 0 where the union is 0."""
    answer = np.zeros(counts.intersection.shape)
    for f, k, c in np.ndindex(answer.shape):
        both = int(counts.intersection[f, k, c])
        area = int(counts.unit_area[domain][f, k, concept_domain[c]])
        union = area + int(counts.concept_area[c]) - both
        answer[f, k, c] = both / union if union else 0.0
    return answer


def best(scores: NDArray[np.float64], concept: Sequence[int], dead: Sequence[bool]) -> list[tuple[int, float] | None]:
    """Per unit of `scores` (unit, concept) the (concept number, IoU) of its label, None for a dead one."""
    return [None if gone else _first_best(row, concept) for row, gone in zip(scores, dead, strict=True)]


def unique_by_unit(
    scores: NDArray[np.float64], concept: Sequence[int], dead: Sequence[bool], cutoff: float = 0.04
) -> int:
    """How many distinct concepts are labels of a detector."""
    return len({label[0] for label in best(scores, concept, dead) if label and label[1] > cutoff})


def unique_by_category(
    scores: NDArray[np.float64], concept: NDArray[Any], concept_category: NDArray[Any], cutoff: float = 0.04
) -> int:
    """How many distinct concepts are some unit's best within their category and above the cutoff, all categories."""
    detected = set()
    for category in set(concept_category.tolist()):
        mine = np.flatnonzero(concept_category == category)
        labels = [_first_best(row, concept[mine]) for row in scores[:, mine]]
        detected |= {(category, number) for number, score in labels if score > cutoff}
    return len(detected)


def _first_best(row: Sequence[float], concept: Sequence[int]) -> tuple[int, float]:
    score, negative = max((float(score), -int(number)) for score, number in zip(row, concept, strict=True))
    return -negative, score


# --- Broden on disk ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broden:
    """A label set as docs/method.md, section 3 lays it out."""

    images: list[str]
    """Paths relative to `images/`, in the order of the index."""
    annotation: NDArray[np.uint16]
    whole_image: NDArray[np.uint16]
    concept: NDArray[np.uint16]
    concept_name: list[str]
    concept_category: NDArray[np.int64]
    categories: tuple[str, ...]


def read_broden(folder: str | Path, index: str = "index.csv", label_size: tuple[int, int] | None = None) -> Broden:
    """The label set in `folder`; maps not of `label_size` (default: the first row's) are sampled to it."""
    folder = Path(folder)
    rows, primary, names = _table(folder / index), primary_categories(folder), _names(folder)
    categories = tuple(row["name"] for row in _table(folder / "category.csv"))
    size = label_size or (int(rows[0]["sh"]), int(rows[0]["sw"]))
    items = [[item for g in categories for item in (row.get(g) or "").split(";") if item] for row in rows]
    maps = [[_label_map(folder / "images" / item, size) for item in row if not item.isdigit()] for row in items]
    whole = [sorted({int(item) for item in row if item.isdigit()} - {0}) for row in items]
    annotation = np.zeros((len(rows), max(map(len, maps)), *size), np.uint16)
    whole_image = np.zeros((len(rows), max(map(len, whole))), np.uint16)
    for i, (planes, numbers) in enumerate(zip(maps, whole, strict=True)):
        annotation[i, : len(planes)] = np.array(planes, np.uint16).reshape(-1, *size)
        whole_image[i, : len(numbers)] = numbers
    concept = sorted(primary)
    kinds = np.array([categories.index(primary[c]) for c in concept], np.int64)
    images, called = [row["image"] for row in rows], [names[c] for c in concept]
    return Broden(images, annotation, whole_image, np.array(concept, np.uint16), called, kinds, categories)


def primary_categories(folder: Path) -> dict[int, str]:
    """Concept number -> the category with its largest coverage (ties: the later one), else the first in label.csv."""
    primary = {int(r["number"]): r["category"].split(";")[0].split("(")[0] for r in _table(folder / "label.csv")}
    largest: dict[int, float] = {}
    for category in (row["name"] for row in _table(folder / "category.csv")):
        path = folder / f"c_{category}.csv"
        for row in _table(path) if path.exists() else []:
            number, coverage = int(row["number"]), row.get("coverage")
            if coverage and float(coverage) >= largest.get(number, 0.0):
                largest[number], primary[number] = float(coverage), category
    return primary


def _names(folder: Path) -> dict[int, str]:
    return {int(row["number"]): row["name"] for row in _table(folder / "label.csv")}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="ascii") as lines:
        return list(csv.DictReader(lines))


def _label_map(path: Path, size: tuple[int, int]) -> NDArray[np.uint16]:
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.uint16)
    label = rgb[..., 0] + 256 * rgb[..., 1]
    row, col = (
        [math.floor((p + Fraction(1, 2)) * have / want) for p in range(want)]
        for have, want in zip(label.shape, size, strict=True)
    )
    return np.asarray(label[np.ix_(row, col)])
