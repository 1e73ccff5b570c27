"""A small dissection over training, for tests of answers and figures: counts from a seed, rich in changes.

Knows: the layout of the Dataset that `open_dissection` gives.
Does not know: dissect_xr.
"""

import numpy as np
import xarray as xr

CATEGORIES = ["object", "part", "color"]
CUTOFF = 0.2  # small counts have large IoUs


def dissection(seed: int = 0, *, missing: bool = False, snapshots: int = 5, units: int = 9) -> xr.Dataset:
    """(snapshot, unit, concept), not in the order of steps; with `missing`, each of two layers lacks a snapshot."""
    random = np.random.default_rng(seed)
    kinds = np.array([0, 0, 1, 2, 1, 0, 2])
    concept_area = random.integers(20, 60, kinds.size)
    unit_area = random.integers(20, 60, (snapshots, units, 3))
    largest = np.minimum(unit_area[..., kinds], concept_area)
    # Concepts fade in and out, so that units keep, change, win and lose one.
    strength = random.random((snapshots, units, kinds.size)) ** 3 + 0.3 * random.random((1, units, kinds.size))
    counts = {
        "intersection": np.floor(largest * strength.clip(max=1)).astype(np.int64),
        "unit_area": unit_area,
        "dead": random.random((snapshots, units)) < 0.1,
    }
    split = units // 2
    if missing:
        counts = {name: values.astype(np.float64) for name, values in counts.items()}
        for values in counts.values():
            values[0, :split] = np.nan
            values[2, split:] = np.nan
    layer = np.array(["early"] * split + ["late"] * (units - split))
    return xr.Dataset(
        {
            "intersection": (("snapshot", "unit", "concept"), counts["intersection"]),
            "unit_area": (("snapshot", "unit", "domain"), counts["unit_area"]),
            "dead": (("snapshot", "unit"), counts["dead"]),
            "threshold": (("snapshot", "unit"), np.ones((snapshots, units), np.float32)),
            "concept_area": ("concept", concept_area),
            "domain_area": ("domain", np.array([300, 200, 400])),
        },
        {
            "snapshot": [f"s{n}" for n in range(snapshots)],
            "step": ("snapshot", (np.arange(snapshots) * 3 + 1) % snapshots * 10),
            "accuracy": ("snapshot", np.linspace(0.1, 0.6, snapshots)),
            "fraction": 0.005,
            "unit": [f"{name}/{n}" for n, name in enumerate(layer)],
            "layer": ("unit", layer),
            "channel": ("unit", np.arange(units)),
            "concept": np.arange(1, 8) * 3,
            "concept_name": ("concept", ["dog", "cat", "dog-leg", "<red>", "wheel", "a street at night", "blue"]),
            "concept_category": ("concept", np.array(CATEGORIES)[kinds]),
            "concept_domain": ("concept", np.array(CATEGORIES)[kinds]),
            "category": CATEGORIES,
            "domain": CATEGORIES,
        },
    )
