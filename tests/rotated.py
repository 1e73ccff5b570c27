"""Unique detectors of a layer in several bases, for tests of the figure: as `basis_detectors` gives them.

Knows: the layout of that Dataset.
Does not know: dissect_xr.
"""

import numpy as np
import xarray as xr


def rotated() -> xr.Dataset:
    """Fewer detectors the further a layer is rotated, by three seeds; random directions and principal axes."""
    random = np.random.default_rng(0)
    rows = [("conv", "recorded", np.nan, -1, [9, 6, 4]), ("conv@identity", "identity", np.nan, -1, [9, 6, 4])]
    for alpha, most in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.2)):
        for seed in range(3):
            counts = np.rint(np.array([9, 6, 4]) * most).astype(int)
            counts = counts if alpha == 0 else counts + random.integers(0, 3, 3)
            rows.append((f"conv@rotation-{alpha:g}-s{seed}", "rotation", alpha, seed, counts.tolist()))
    rows += [(f"conv@random-s{seed}", "random", np.nan, seed, [seed + 1, 2, 1]) for seed in range(3)]
    rows += [("conv@pca", "pca", np.nan, -1, [4, 2, 2]), ("conv@pca-uncentred", "pca", np.nan, -1, [3, 2, 2])]
    names, kinds, alphas, seeds, counts = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "by_unit": (("basis", "category"), np.array(counts)),
            "by_category": (("basis", "category"), np.array(counts) + np.array([1, 2, 0])),
            "detectors": ("basis", np.array(counts).sum(axis=1) + 3),
            "units": ("basis", np.full(len(names), 40)),
        },
        {
            "basis": list(names),
            "category": ["object", "part", "color"],
            "kind": ("basis", list(kinds)),
            "alpha": ("basis", np.array(alphas, np.float64)),
            "seed": ("basis", np.array(seeds)),
        },
        {"layer": "conv", "cutoff": 0.04},
    )
