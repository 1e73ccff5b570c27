"""Figures of a dissection: which concepts are detected, and when in training.

Knows: matplotlib Axes, and one colour per category, the same in every view.
Does not know: pyplot or any other global state, files, how a detector is found.

Every function computes the few numbers it draws, on the Axes given or on those of a new Figure, and returns the Axes;
``axes.figure.savefig(path)`` writes it, and a notebook shows ``axes.figure``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dissect_xr.analysis.detect import Count, concept_histogram, detected_concepts, unique_detectors
from dissect_xr.errors import DissectError
from dissect_xr.schema import CUTOFF

OKABE_ITO = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#F0E442")
"""Eight colours that colour-blind readers tell apart (Okabe and Ito 2008); black and pale yellow come last."""

BRODEN = ("object", "part", "scene", "material", "texture", "color")
"""The categories whose colour is fixed: the first six, in the order of the paper's figures."""


def category_colors(categories: Iterable[str]) -> dict[str, str]:
    """Colour of each category: fixed for those of Broden, the free ones in turn for others.

    Examples
    --------
    >>> category_colors(["scene", "object", "digit"])
    {'scene': '#009E73', 'object': '#0072B2', 'digit': '#000000'}
    """
    fixed = dict(zip(BRODEN, OKABE_ITO, strict=False))
    others = list(dict.fromkeys(category for category in categories if category not in fixed))
    # The colours of absent Broden categories are used last: a view of a part of the categories then colours as one of all.
    free = (*OKABE_ITO[len(BRODEN) :], *OKABE_ITO[: len(BRODEN)])
    colors = fixed | {category: free[place % len(free)] for place, category in enumerate(others)}
    return {category: colors[category] for category in categories}
