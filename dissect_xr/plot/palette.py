"""The color of each category: the same in figures and reports, distinct for color-blind readers, legible as text.

Knows: the categories of Broden and their order.
Does not know: what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

OKABE_ITO = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#F0E442")
"""Eight colors that color-blind readers tell apart (Okabe and Ito 2008); black and pale yellow come last."""

BRODEN = ("object", "part", "scene", "material", "texture", "color")
"""The categories whose color is fixed: the first six, in the order of the paper's figures."""

LEGIBLE = 4.5
"""Least contrast between text and its background (WCAG 2, level AA)."""


def category_colors(categories: Sequence[str]) -> dict[str, str]:
    """Color of each category: a fixed one for each of Broden's, and for others, in turn, the colors that are left.

    Examples
    --------
    >>> category_colors(["object", "scene", "digit"])
    {'object': '#0072B2', 'scene': '#009E73', 'digit': '#56B4E9'}
    """
    fixed = {name: color for name, color in zip(BRODEN, OKABE_ITO, strict=False) if name in categories}
    free = [color for color in OKABE_ITO if color not in fixed.values()] or list(OKABE_ITO)
    others = [category for category in categories if category not in fixed]
    colors = fixed | {category: free[index % len(free)] for index, category in enumerate(others)}
    return {category: colors[category] for category in categories}


def in_order(categories: Sequence[str]) -> list[str]:
    """The categories in the order of figures: those of Broden as in the paper, then the others as they come.

    Examples
    --------
    >>> in_order(["color", "digit", "object"])
    ['object', 'color', 'digit']
    """
    return sorted(categories, key=lambda category: BRODEN.index(category) if category in BRODEN else len(BRODEN))


def ink(color: str) -> str:
    """The color, darkened until it is legible as text on white.

    Examples
    --------
    >>> ink("#0072B2"), ink("#56B4E9")
    ('#0072B2', '#3B7CA1')
    """
    shades = (_hex([round(part * percent / 100) for part in _parts(color)]) for percent in range(100, -1, -1))
    return next(shade for shade in shades if contrast(shade, "#FFFFFF") >= LEGIBLE)


def on(color: str) -> str:
    """Black or white, whichever is easier to read on the color.

    Examples
    --------
    >>> on("#0072B2"), on("#F0E442")
    ('white', 'black')
    """
    return "white" if contrast("#FFFFFF", color) >= contrast("#000000", color) else "black"


def contrast(one: str, other: str) -> float:
    """Contrast of two colors, from 1 to 21 (WCAG 2).

    Examples
    --------
    >>> contrast("#000000", "#FFFFFF")
    21.0
    """
    low, high = sorted(_luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in _parts(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _parts(color: str) -> tuple[int, ...]:
    return tuple(int(color[n : n + 2], 16) for n in (1, 3, 5))


def _hex(parts: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02X}" for part in parts)
