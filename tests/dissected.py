"""A dissected case with its three stores, for tests that look at images and masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import stores
import xarray as xr
from numpy.typing import NDArray
from strategies import AnchoringCase, ProbeCase

from dissect_xr.analysis.results import open_dissection
from dissect_xr.dissection.dissect import dissect
from dissect_xr.exemplars.masks import Stores


@dataclass(frozen=True)
class Run:
    """A dissected case."""

    ds: xr.Dataset
    stores: Stores


@contextmanager
def dissected(
    case: ProbeCase,
    activation: NDArray[Any],
    levels: list[float],
    anchoring: AnchoringCase = stores.HALF_PIXEL,
    domain: str = "annotated",
) -> Iterator[Run]:
    """The three stores of a case, in a folder that is gone afterwards."""
    with stores.scratch() as folder:
        probe = stores.write_probe_case(case, folder)
        url = stores.write_layers(folder, probe, {stores.LAYER: activation}, anchoring=anchoring)
        out = str(folder / "dissection.zarr")
        dissect(url, probe, out, method=stores.method(levels, anchoring, domain), show=False)
        yield Run(open_dissection(out), Stores(url, probe))


def noisy(images: int = 7, units: int = 5, seed: int = 0) -> tuple[ProbeCase, NDArray[np.float16]]:
    """A probe of noise labels, and activations with equal peaks."""
    random = np.random.default_rng(seed)
    concepts = np.array([2, 5, 7], np.uint16)
    annotation = random.choice(np.append(concepts, 0), (images, 1, 8, 8)).astype(np.uint16)
    whole = np.where(random.random((images, 1)) < 0.3, 9, 0).astype(np.uint16)
    case = ProbeCase(
        annotation, whole, np.append(concepts, 9).astype(np.uint16), np.array([0, 0, 1, 2]), ("a", "b", "c")
    )
    return case, random.choice([0.0, 1.0, 2.0, 3.0], (images, units, 3, 3), p=[0.7, 0.2, 0.07, 0.03]).astype(np.float16)
