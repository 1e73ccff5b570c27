"""Accuracy, balanced accuracy, precision and recall of each class, from counts of predictions.

Knows: that whole numbers are counted first and divided last, and what is undefined.
Does not know: who predicted, or from what.

Four numbers say all about a class c among N images: P of them are of class c, T of these are predicted as c (true
positives), Q of all images are predicted as c. An example: 10 images, of which P = 4 are cats; Q = 5 are called cats, T
= 3 of them rightly. Recall is 3/4, precision 3/5, the true negative rate 4/6, balanced accuracy (3/4 + 4/6) / 2, and
accuracy (3 + 4) / 10: the share of images of which it is rightly said whether they are cats.

>>> counts = [xr.DataArray([n], dims="class") for n in (3, 5, 4)]
>>> scores = class_scores(*counts, images=xr.DataArray(10))
>>> {name: round(values.item(), 3) for name, values in scores.items()}
{'accuracy': 0.7, 'balanced_accuracy': 0.708, 'precision': 0.6, 'recall': 0.75}

References
----------
Bau et al. 2020, Understanding the role of individual units in a deep neural network: single-class balanced accuracy.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

SCORES = ("accuracy", "balanced_accuracy", "precision", "recall")


def class_scores(
    true_positives: xr.DataArray, predicted: xr.DataArray, class_images: xr.DataArray, *, images: xr.DataArray
) -> xr.Dataset:
    """The four scores of each class, (..., class) float64 in [0, 1].

    Recall and balanced accuracy are NaN where no image is of the class, balanced accuracy also where every image is.
    Precision is NaN where no image is predicted as the class. A count of -1 says that nothing was measured: NaN.

    Parameters
    ----------
    true_positives
        Images of each class that are predicted as that class.
    predicted
        Images that are predicted as each class.
    class_images
        Images of each class.
    images
        All images.
    """
    known = true_positives >= 0
    false_positives = predicted - true_positives
    negatives = images - class_images
    recall = _ratio(true_positives, class_images)
    specificity = _ratio(negatives - false_positives, negatives)
    scores = {
        "accuracy": _ratio(true_positives + negatives - false_positives, images),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _ratio(true_positives, predicted),
        "recall": recall,
    }
    return xr.Dataset({name: values.where(known) for name, values in scores.items()})


def _ratio(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    return part / whole.where(whole > 0)


def count_predictions(
    prediction: NDArray[np.integer], label: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(true positives, predicted), both (set, class), of predictions (image, set); to be summed over blocks of images.

    >>> [counts.tolist() for counts in count_predictions(np.array([[0, 1], [1, 1]]), np.array([0, 1]), 2)]
    [[[1, 1], [0, 1]], [[1, 1], [0, 2]]]
    """
    sets = prediction.shape[1]
    cell = np.arange(sets) * classes + prediction
    right = cell[prediction == label[:, None]]
    found = (np.bincount(part.ravel(), minlength=sets * classes) for part in (right, cell))
    true_positives, predicted = (part.reshape(sets, classes).astype(np.int64) for part in found)
    return true_positives, predicted


def losses(
    before: tuple[NDArray[np.int64], NDArray[np.int64]],
    after: tuple[NDArray[np.int64], NDArray[np.int64]],
    class_images: NDArray[np.int64],
    images: int,
) -> NDArray[np.int64]:
    """The loss of balanced accuracy (..., class), times 2 P (N - P), in whole numbers: to be compared within a class.

    ``before`` and ``after`` are true positives and predicted, (class,) and (..., class). 0 where no image is of the
    class, or every image is: nothing can be lost there.

    Examples
    --------
    >>> before, after = (np.array([3]), np.array([5])), (np.array([[2]]), np.array([[2]]))
    >>> losses(before, after, np.array([4]), 10).tolist()  # recall loses 1/4, the true negative rate gains 2/6
    [[-2]]
    """
    negatives = images - class_images
    lost_positives = before[0] - after[0]
    lost_negatives = (after[1] - after[0]) - (before[1] - before[0])
    return np.asarray(lost_positives * negatives + lost_negatives * class_images, np.int64)
