"""Hypothesis strategies: small label sets, activations, fractions and anchorings, rich in what breaks counting.

Knows: the arrays of docs/method.md, section 1 as they are after ingest.
Does not know: dissect_xr.

Shapes, palettes and kinds are drawn by Hypothesis and shrink; contents come from a drawn seed, which keeps them cheap.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

SEEDS = st.integers(0, 2**32 - 1)
NUMBERS = st.integers(1, 12) | st.integers(1, 65535) | st.just(65535)
CATEGORIES = ("object", "part", "scene", "color")
PATTERNS = ("noise", "sparse", "blocks", "full", "none")
LIVELY_UNITS = ("relu", "few", "saturated", "ladder", "signed", "large", "mixed")
ODD_UNITS = ("constant", "zeros", "tiny", "negative", "one_hot")
SPECIAL = (0.0, -0.0, 1.0, 0.5, 2.0**-24, 3 * 2.0**-24, 2.0**-14, 60000.0, -60000.0, 65504.0, 0.1)


@dataclass(frozen=True)
class ProbeCase:
    """Labels as they are after ingest: none in two planes at a pixel, none both at a pixel and of the whole image."""

    annotation: NDArray[np.uint16]
    """(image, plane, row, col), 0 = none."""
    whole_image: NDArray[np.uint16]
    """(image, slot), 0 = none, filled from the left."""
    concept: NDArray[np.uint16]
    """Concept numbers, ascending; some may occur nowhere."""
    concept_category: NDArray[np.int64]
    """Per concept the index of its primary category in `categories`."""
    categories: tuple[str, ...]
    """Category names; some may have no concept."""


@dataclass(frozen=True)
class ActivationCase:
    """Activations of one layer."""

    activation: NDArray[Any]
    """(image, unit, y, x) float16 or float32, finite."""
    kinds: tuple[str, ...]
    """Per unit how its values were drawn, for the report of a failure."""


@dataclass(frozen=True)
class AnchoringCase:
    """Where the cells of a map lie on the input."""

    input_size: tuple[int, int]
    """(rows, cols) of the model's input."""
    rows: Any
    """"half_pixel", or (start, jump) as Fractions."""
    cols: Any
    """The same for columns; half_pixel only where rows are."""


@st.composite
def probes(draw: st.DrawFn, *, max_images: int = 6, max_size: int = 12) -> ProbeCase:
    """Label sets of 1-6 images, 1-3 planes, 1-2 slots, and grids of 1-12 rows and columns."""
    images, planes, slots = draw(st.integers(1, max_images)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size = draw(st.tuples(st.integers(1, max_size), st.integers(1, max_size)))
    concept = np.array(sorted(draw(st.sets(NUMBERS, min_size=1, max_size=8))), np.uint16)
    categories = CATEGORIES[: draw(st.integers(1, 4))]
    kinds = draw(st.lists(st.integers(0, len(categories) - 1), min_size=len(concept), max_size=len(concept)))
    patterns = draw(st.lists(st.sampled_from(PATTERNS), min_size=images, max_size=images))
    random = np.random.default_rng(draw(SEEDS))
    annotation = np.stack([_planes(random, pattern, (planes, *size), concept) for pattern in patterns])
    whole_image = np.zeros((images, slots), np.uint16)
    for image in range(images):
        chosen = random.permutation(concept)[: random.integers(0, slots + 1)]
        whole_image[image, : len(chosen)] = chosen
    annotation = _ingested(annotation, whole_image)
    return ProbeCase(annotation, whole_image, concept, np.array(kinds, np.int64), categories)


@st.composite
def activations(draw: st.DrawFn, images: int, *, max_units: int = 5, max_size: int = 14) -> ActivationCase:
    """Activations of `images` images, 1-5 units, maps of 1-14 rows and columns, float16 or float32."""
    kind = st.sampled_from(LIVELY_UNITS) | st.sampled_from(ODD_UNITS)
    kinds = tuple(draw(kind) for _ in range(draw(st.integers(1, max_units))))
    size = draw(st.tuples(st.integers(1, max_size), st.integers(1, max_size)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    random = np.random.default_rng(draw(SEEDS))
    units = [_unit(random, kind, (images, *size), dtype) for kind in kinds]
    return ActivationCase(np.stack(units, axis=1), kinds)


def fractions() -> st.SearchStrategy[list[float]]:
    """Lists of 1-3 different fractions in (0, 1); most are large, as a small one lets no value of a small map pass."""
    usual = st.sampled_from([0.25, 0.5, 0.1, 0.2, 0.3, 0.7, 0.9, 0.005])
    return st.lists(usual | st.integers(1, 999).map(lambda n: n / 1000), min_size=1, max_size=3, unique=True)


@st.composite
def anchorings(draw: st.DrawFn) -> AnchoringCase:
    """Both anchorings; for receptive fields any start in halves of a pixel, also outside the input, and any jump."""
    input_size = draw(st.tuples(st.integers(1, 64), st.integers(1, 64)))
    if draw(st.booleans()):
        return AnchoringCase(input_size, "half_pixel", "half_pixel")
    start = st.integers(-16, 48).map(lambda n: Fraction(n, 2))
    jump = st.sampled_from([1, 2, 4, 8, 16, 32]) | st.integers(1, 20)
    rows, cols = (draw(st.tuples(start, jump.map(Fraction))) for _ in range(2))
    return AnchoringCase(input_size, rows, cols)


def _planes(random: np.random.Generator, pattern: str, shape: tuple[int, ...], concept: NDArray[Any]) -> NDArray[Any]:
    planes = np.zeros(shape, np.uint16)
    if pattern == "noise":
        planes[...] = random.choice(np.append(concept, 0), shape)
    if pattern == "sparse":
        planes[...] = random.choice(concept, shape) * (random.random(shape) < 0.1)
    if pattern == "full":
        planes[...] = random.choice(concept, (shape[0], 1, 1))
    for plane in planes if pattern == "blocks" else []:
        for _ in range(3):
            row, col = (np.sort(random.integers(0, length + 1, 2)) for length in plane.shape)
            plane[row[0] : row[1], col[0] : col[1]] = random.choice(concept)
    return planes


def _ingested(annotation: NDArray[np.uint16], whole_image: NDArray[np.uint16]) -> NDArray[np.uint16]:
    clean = annotation.copy()
    for plane in range(1, clean.shape[1]):
        double = (clean[:, :plane] == clean[:, [plane]]).any(axis=1)
        clean[:, plane][double] = 0
    for image, numbers in enumerate(whole_image):
        clean[image][np.isin(clean[image], numbers)] = 0
    return clean


def _unit(random: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    normal = random.normal(size=shape)
    step = 2.0**-24 if dtype == np.float16 or random.random() < 0.5 else 2.0**-149
    level = float(dtype(random.uniform(0.1, 2)))  # all mantissa bits in use, so that weighted means of it round
    values = {
        "relu": np.maximum(normal - 0.5, 0),
        "few": random.choice([0.0, 1.0, 2.0, 3.0], shape),
        "saturated": level * random.choice([0, 1, 1, 1, 1, 1, 1, 1, 2], shape),
        "ladder": level * random.integers(-2, 5, shape),
        "signed": normal,
        "constant": np.full(shape, random.choice(SPECIAL)),
        "zeros": random.choice([0.0, -0.0], shape),
        "tiny": random.integers(0, 4, shape) * step,
        "large": random.choice([60000.0, 59968.0, 0.0, 65504.0], shape),
        "negative": -np.abs(normal),
        "one_hot": np.where(np.arange(normal.size).reshape(shape) == random.integers(normal.size), 1.5, 0.0),
        "mixed": random.choice(SPECIAL, shape),
    }[kind]
    return np.asarray(values.astype(dtype))
