"""Scores of classes are those of a count image by image."""

import numpy as np
import xarray as xr

from dissect_xr.experiments.class_scores import class_scores, count_predictions, losses


def by_hand(prediction: list[int], label: list[int], one: int) -> dict[str, float]:
    """Scores of one class, counted image by image."""
    pairs = list(zip(prediction, label, strict=True))
    of_class = [p == one for p, true in pairs if true == one]
    others = [p != one for p, true in pairs if true != one]
    called = [true == one for p, true in pairs if p == one]
    mean = {name: float(np.mean(values)) if values else np.nan for name, values in
            {"recall": of_class, "specificity": others, "precision": called}.items()}  # fmt: skip
    right = [(p == one) == (true == one) for p, true in pairs]
    return {
        "accuracy": float(np.mean(right)),
        "balanced_accuracy": (mean["recall"] + mean["specificity"]) / 2,
        "precision": mean["precision"],
        "recall": mean["recall"],
    }


def test_scores_are_those_counted_image_by_image() -> None:
    generator = np.random.default_rng(0)
    prediction, label = generator.integers(0, 4, (40, 3)), generator.integers(0, 3, 40)
    parts = [count_predictions(prediction[n : n + 7], label[n : n + 7], 4) for n in range(0, 40, 7)]
    true_positives, predicted = (sum(part[n] for part in parts) for n in (0, 1))
    dims = ("set", "class")
    images = np.bincount(label, minlength=4)
    assert images[3] == 0
    scores = class_scores(
        xr.DataArray(true_positives, dims=dims),
        xr.DataArray(predicted, dims=dims),
        xr.DataArray(images, dims="class"),
        images=xr.DataArray(40),
    )
    for n in range(3):
        for one in range(4):
            wanted = by_hand(prediction[:, n].tolist(), label.tolist(), one)
            got = {name: float(values[n, one]) for name, values in scores.items()}
            np.testing.assert_allclose(list(got.values()), [wanted[str(name)] for name in got], rtol=1e-15)


def test_losses_order_as_balanced_accuracy_does() -> None:
    generator = np.random.default_rng(1)
    prediction, label = generator.integers(0, 3, (50, 9)), generator.integers(0, 3, 50)
    counts, images = count_predictions(prediction, label, 3), np.bincount(label, minlength=3)
    lost = losses((counts[0][0], counts[1][0]), (counts[0][1:], counts[1][1:]), images, 50)
    balanced = np.array(
        [
            [by_hand(prediction[:, n].tolist(), label.tolist(), c)["balanced_accuracy"] for c in range(3)]
            for n in range(9)
        ]
    )
    scale = 2 * images * (50 - images)
    np.testing.assert_allclose(lost / scale, balanced[0] - balanced[1:], atol=1e-15)


def test_what_was_not_measured_has_no_scores() -> None:
    counts = xr.DataArray([-1, 2], dims="class")
    scores = class_scores(counts, counts, xr.DataArray([3, 3], dims="class"), images=xr.DataArray(6))
    assert all(np.isnan(values[0]) and not np.isnan(values[1]) for values in scores.values())
