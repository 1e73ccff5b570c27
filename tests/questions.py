"""Results of experiments from a seed, for tests of their figures: laid out as the package opens them.

Knows: the layout of what `open_ablation`, `open_classes`, `open_explanation` and `open_cam` give.
Does not know: how experiments are done.
"""

import numpy as np
import xarray as xr

from dissect_xr.experiments.localisation.scores import located

CLASSES = ["kitchen", "ski resort", "a street at night", "beach", "hotel room", "forest path"]


def ablated(seed: int = 0, units: int = 60) -> xr.Dataset:
    """An ablation of 60 units and 6 classes, in which units of a higher IoU matter to more classes."""
    random = np.random.default_rng(seed)
    iou = np.sort(random.random(units) ** 3 * 0.3)
    kinds = np.array(["object", "part", "color"])[random.integers(0, 3, units)]
    images = np.full((2, 6), 50)
    lost = random.binomial(40, np.clip(iou[:, None] * random.random((units, 6)) * 2, 0, 1))
    without = np.broadcast_to(45 - lost, (2, units, 6))
    sizes = np.array([1, 2, 3, 4, 8, 16, 32])
    fall = 0.93 - 0.43 * (1 - np.exp(-sizes / 4))[:, None] * random.uniform(0.8, 1, 6)
    rise = 0.52 + 0.41 * (1 - np.exp(-sizes / 6))[:, None] * random.uniform(0.8, 1, 6)
    greedy = np.where(sizes[:, None] <= 4, fall - 0.03, np.nan)
    curve = np.array([[fall, rise], [greedy, np.full_like(rise, np.nan)]])
    return xr.Dataset(
        {
            "class_images": (("split", "class"), images),
            "true_positives": (("split", "class"), np.full((2, 6), 45)),
            "predicted": (("split", "class"), np.full((2, 6), 50)),
            "true_positives_without": (("split", "unit", "class"), without),
            "predicted_without": (("split", "unit", "class"), np.full((2, units, 6), 50)),
            "balanced_accuracy": (("split", "class"), np.full((2, 6), 0.94)),
            "curve": (("order", "ablated", "size", "class"), curve),
            "iou": ("unit", iou),
        },
        {
            "class": CLASSES,
            "split": ["train", "val"],
            "unit": [f"conv5/{n}" for n in range(units)],
            "concept_category": ("unit", kinds),
            "order": ["ranked", "greedy"],
            "ablated": ["top", "all_but_top"],
            "size": sizes,
        },
        {"layer": "conv5", "snapshot": "last"},
    )


def classified(units: list[str], labels: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Weights of these units for three classes; `labels` are from `best_concept`."""
    random = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "weight": (("class", "unit"), random.normal(0, 0.4, (3, len(units)))),
            "recall": (("split", "class"), np.array([[0.9, 0.4, 0.75]])),
            "iou": ("unit", labels["iou"].values),
        },
        {
            "class": CLASSES[:3],
            "split": ["val"],
            "unit": units,
            "concept": ("unit", labels["concept"].values),
            "concept_name": ("unit", labels["concept_name"].values),
            "concept_category": ("unit", labels["category"].values),
        },
    )


def explained(images: list[str], grid: tuple[int, int], seed: int = 0) -> xr.Dataset:
    """Three units for each image, with masks of one quarter of it; the last image is predicted wrongly."""
    random = np.random.default_rng(seed)
    count = len(images)
    masks = np.zeros((count, 3, *grid), np.bool_)
    for n in range(count):
        for rank in range(3):
            top, left = random.integers(0, grid[0] // 2, 2)
            masks[n, rank, top : top + grid[0] // 2, left : left + grid[1] // 2] = True
    names = random.choice(["seven", "red-c", "a striped patch with a long name", ""], (count, 3))
    kinds = {"seven": "object", "red-c": "color", "": ""}
    label = [CLASSES[n % 3] for n in range(count)]
    return xr.Dataset(
        {
            "label": ("image", label),
            "prediction": ("image", [*label[:-1], CLASSES[5]]),
            "score": ("image", random.uniform(1, 3, count)),
            "contribution": (("image", "rank"), -np.sort(-random.random((count, 3)), axis=1)),
            "unit": (("image", "rank"), np.array([[f"conv5/{n * 3 + r}" for r in range(3)] for n in range(count)])),
            "concept_name": (("image", "rank"), names),
            "concept_category": (("image", "rank"), np.vectorize(lambda name: kinds.get(name, "texture"))(names)),
            "mask": (("image", "rank", "row", "col"), masks),
        },
        {"image": images},
    )


def found_at(images: list[str], grid: tuple[int, int], seed: int = 0) -> xr.Dataset:
    """Maps of one hill each: in turn on the object, beside it, on it with the wrong class, and without an object."""
    random = np.random.default_rng(seed)
    count, (rows, cols) = len(images), grid
    size = rows // 3
    corners = np.stack([random.integers(0, rows - 2 * size, count), random.integers(0, cols - 2 * size, count)], axis=1)
    beside = np.array([[0, 0], [size, size], [1, 1], [0, 0]])[np.arange(count) % 4]
    object_box = np.concatenate([corners, corners + size], axis=1)
    object_box[3::4] = -1
    box = np.concatenate([corners + beside, corners + beside + size], axis=1)
    y, x = np.arange(rows)[:, None] + 0.5, np.arange(cols) + 0.5
    middle = (box[:, :2] + box[:, 2:]) / 2
    maps = [1.5 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (size / 2) ** 2) - 0.1 for at in middle]
    label = np.arange(count) % 3
    ds = xr.Dataset(
        {
            "label": ("image", label),
            "prediction": ("image", np.where(np.arange(count) % 4 == 2, (label + 1) % 3, label)),
            "score": ("image", np.array([one.mean() for one in maps])),
            "box": (("image", "side"), box),
            "object_box": (("image", "side"), object_box),
            "object_pixels": ("image", np.where(object_box[:, 0] < 0, 0, size * size)),
            "pointed": ("image", np.arange(count) % 4 != 1),
            "map": (("image", "row", "col"), np.stack(maps).astype(np.float32)),
        },
        {"image": images, "class": CLASSES[:3]},
    )
    return ds.assign(located(ds).data_vars)
