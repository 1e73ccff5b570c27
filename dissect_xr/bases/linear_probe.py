"""What can be told from a layer linearly, in any basis: the accuracy of a classifier on its pooled maps.

Knows: that the class of an image is its whole-image label of one category, and how features are pooled and scaled.
Does not know: bases: layers are given by name.

A rotation changes which directions are units and nothing about what a linear classifier can do: with features x and
weights w, ``w . x`` is ``(Q w) . (Q x)``, and the length of w, which the classifier keeps small, is that of Q w. So the
classifier must not scale features one by one, which would tell bases apart: all features are divided by one number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.bases.derive import layer_maps
from dissect_xr.dissection.dissect import check_images
from dissect_xr.dissection.labels import open_labels
from dissect_xr.errors import DissectError
from dissect_xr.floats import means

STEPS = 10_000
"""Iterations of the solver at most: so many that it is not these that end it."""


def linear_probe(
    activations: store.Url,
    probe: store.Url,
    layers: Sequence[str],
    *,
    snapshot: str,
    category: str = "scene",
    train: str = "train",
    test: str = "val",
    C: float = 1.0,
) -> xr.Dataset:
    """Accuracy of a linear classifier of images on each layer, recorded or derived; computes.

    The features of an image are the means of its maps. They are divided by one number for each layer, the square root
    of the mean squared length of the training images' features. The classifier is a logistic regression with L2 penalty
    (scikit-learn), which predicts the image's whole-image label in a category.

    Memory: a chunk of images of maps at a time, and the features of all images.

    Parameters
    ----------
    activations, probe
        Paths or URLs of the two stores.
    layers
        Names of layers.
    snapshot
        The snapshot that they are of.
    category
        The category of the labels. Images with none of it, or several, are left out.
    train, test
        The splits of the probe that the classifier is fitted to, and that accuracy is measured on.
    C
        Inverse strength of the penalty.

    Returns
    -------
    xr.Dataset
        ``accuracy`` (layer) float64, the share of test images whose class is predicted; ``chance``, the share of the
        most frequent class of the training images among the test images; ``images`` (split) int64.

    Raises
    ------
    DissectError
        If the activations are of other images, there are fewer than two classes, or a split has no image.
    """
    activations, probe = store.as_url(activations), store.as_url(probe)
    check_images(activations, open_labels(probe))
    classes = _classes(probe, category)
    splits = np.asarray(store.read(probe, "split")[:].tolist(), dtype=str)
    parts = [np.flatnonzero((splits == name) & (classes > 0)) for name in (train, test)]
    for name, part in zip((train, test), parts, strict=True):
        if not part.size or np.unique(classes[parts[0]]).size < 2:
            known = ", ".join(dict.fromkeys(splits.tolist()))
            raise DissectError(
                f"{probe}: split '{name}' has {part.size} images with one label of category '{category}', of "
                f"{np.unique(classes[part]).size} classes; expected images of two classes or more. Splits are {known}."
            )
    accuracy = [_accuracy(_features(activations, snapshot, layer), classes, parts, C) for layer in layers]
    numbers, counts = np.unique(classes[parts[0]], return_counts=True)
    return xr.Dataset(
        {
            "accuracy": ("layer", np.array(accuracy)),
            "chance": float((classes[parts[1]] == numbers[counts.argmax()]).mean()),
            "images": ("split", np.array([part.size for part in parts])),
        },
        {"layer": list(layers), "split": [train, test]},
        {"category": category, "C": C, "snapshot": snapshot, "classes": int(numbers.size)},
    )


def _classes(probe: str, category: str) -> NDArray[np.int64]:
    """(image,) number of the concept of this category that is the image's only one, 0 where there is none or several.

    Raises
    ------
    DissectError
        If the probe has no such category.
    """
    kinds = np.asarray(store.read(probe, "concept_category")[:].tolist(), dtype=str)
    if category not in kinds:
        raise DissectError(f"{probe}: has no category '{category}', but {', '.join(dict.fromkeys(kinds.tolist()))}.")
    mine = store.read(probe, "concept")[:][kinds == category]
    whole = store.read(probe, "whole_image")[:].astype(np.int64)
    whole[~np.isin(whole, mine)] = 0
    return np.where((whole > 0).sum(axis=1) == 1, whole.sum(axis=1), 0)


def _features(activations: str, snapshot: str, layer: str) -> NDArray[np.float64]:
    """(image, unit) means of maps."""
    parts = [means(maps) for maps in layer_maps(activations, snapshot, layer)]
    return np.concatenate(parts).astype(np.float64)


def _accuracy(
    features: NDArray[np.float64], classes: NDArray[np.int64], parts: Sequence[NDArray[np.int64]], c: float
) -> float:
    """The share of the second part whose classes are predicted by what was fitted to the first."""
    from sklearn.linear_model import LogisticRegression

    fitted, tested = parts
    length = np.sqrt((features[fitted] ** 2).sum(axis=1).mean())
    scaled = features / (length if length > 0 else 1.0)
    found = LogisticRegression(C=c, max_iter=STEPS, tol=1e-8).fit(scaled[fitted], classes[fitted])
    return float((found.predict(scaled[tested]) == classes[tested]).mean())
