"""How images are classified by weights of units: the passes of `classes`, its variables, and what they count.

Knows: the pass that makes weights, scores of images from features, and the Dataset that is stored.
Does not know: how weights are made (`weights`), or what is asked of the result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.class_scores import count_predictions
from dissect_xr.experiments.linear.features import Features
from dissect_xr.experiments.results import Result, compute_pass
from dissect_xr.experiments.unit_concepts import UNIT_VARIABLES, RunStores, dissection_fingerprint_of, unit_concepts
from dissect_xr.parallel.pool import Pool
from dissect_xr.schema import Variable

KIND = "classes"

VARIABLES = UNIT_VARIABLES | {
    one.name: one
    for one in (
        Variable("class", ("class",), "string", "1", "the classes"),
        Variable("split", ("split",), "string", "1", "the splits whose images are classified"),
        Variable("image", ("image",), "string", "1", "names of the classified images"),
        Variable("image_split", ("image",), "string", "1", "split of the image"),
        Variable("label", ("image",), "int64", "1", "index of the image's class"),
        Variable("prediction", ("image",), "int64", "1", "index of the class of the highest score"),
        Variable("margin", ("image",), "float64", "1", "the highest score less the next one"),
        Variable("weight", ("class", "unit"), "float64", "1", "weight of the scaled feature for the class"),
        Variable("intercept", ("class",), "float64", "1", "what is added to the sum of weighted features"),
        Variable("converged", ("class",), "bool", "1", "the fit reached its tolerance"),
        Variable("scale", ("unit",), "float64", "1", "what the unit's feature is divided by"),
        Variable("class_images", ("split", "class"), "int64", "images", "images of each class"),
        Variable("true_positives", ("split", "class"), "int64", "images", "images of the class predicted as it"),
        Variable("predicted", ("split", "class"), "int64", "images", "images that are predicted as the class"),
    )
}
"""What the result holds."""


class Asked(Protocol):
    """What every question about classes says."""

    @property
    def layer(self) -> str: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def measured_on(self) -> str: ...
    @property
    def fraction(self) -> float | None: ...


@dataclass(frozen=True)
class ClassWork:
    """A result under way."""

    url: str
    run: RunStores
    features: Features
    splits: Sequence[Labelled]
    asked: Asked
    inputs: Mapping[str, Any]
    pool: Pool
    show: bool

    @property
    def result(self) -> Result:
        """Where the result lies, and what determines it."""
        asked = self.asked
        inputs = {
            "snapshot": asked.snapshot,
            "layer": asked.layer,
            "measured_on": asked.measured_on,
            "labels": {split.split[0]: split.parameters for split in self.splits},
            "activations_sha256": self.features.layer.fingerprint,
            "dissection_sha256": dissection_fingerprint_of(self.run, asked.snapshot, asked.layer),
            "fraction": asked.fraction,
        }
        return Result(self.url, KIND, inputs | dict(self.inputs))

    def weights(
        self,
        make: Callable[[str], Sequence[Any]],
        function: Callable[[Any], None],
        tables: Sequence[tuple[store.ArraySpec, NDArray[Any]]],
        *,
        chunk: int,
        gpu: int = 0,
    ) -> None:
        """Compute the pass `weights`."""
        self.result.begin()
        shape = len(self.splits[0].classes), self.features.units
        arrays = [
            store.ArraySpec("weight", ("class", "unit"), shape, "float64", (min(chunk, shape[0]), shape[1])),
            store.ArraySpec("intercept", ("class",), shape[:1], "float64", (min(chunk, shape[0]),)),
            store.ArraySpec("converged", ("class",), shape[:1], "bool", (min(chunk, shape[0]),)),
        ]
        compute_pass(
            self.result, "weights", {}, make, function,
            arrays=arrays, tables=tables, pool=self.pool, show=self.show, gpu=gpu,
        )  # fmt: skip

    def finish(self, scale: NDArray[np.float64]) -> None:
        """Classify all images, and write the result."""
        asked, classes = self.asked, self.splits[0].classes
        names = ("weight", "intercept", "converged")
        weight, intercept, converged = (store.read(self.url, f"weights/{name}")[:] for name in names)
        concepts, fraction = unit_concepts(
            self.run, asked.snapshot, asked.layer, self.features.units, fraction=asked.fraction
        )
        parts = [classified(self.features, position_of(split), weight / scale, intercept) for split in self.splits]
        counts = [
            count_predictions(prediction[:, None], split.label, len(classes))
            for split, (prediction, _) in zip(self.splits, parts, strict=True)
        ]
        every = [(split.images[n], split.split[n]) for split in self.splits for n in range(len(split.images))]
        ds = concepts.assign_coords(
            {
                "class": np.array(classes),
                "split": np.array([split.split[0] for split in self.splits]),
                "image": np.array([name for name, _ in every]),
                "image_split": ("image", np.array([split for _, split in every])),
            }
        ).assign(
            {
                "label": ("image", np.concatenate([split.label for split in self.splits])),
                "prediction": ("image", np.concatenate([prediction for prediction, _ in parts])),
                "margin": ("image", np.concatenate([margin for _, margin in parts])),
                "weight": (("class", "unit"), weight),
                "intercept": ("class", intercept),
                "converged": ("class", converged),
                "scale": ("unit", scale),
                "class_images": (("split", "class"), np.stack([split.counts for split in self.splits])),
                "true_positives": (("split", "class"), np.concatenate([part for part, _ in counts])),
                "predicted": (("split", "class"), np.concatenate([part for _, part in counts])),
            }
        )
        self.result.finish(ds, VARIABLES, passes=["weights"], attrs={"joined_fraction": fraction})


def classified(
    features: Features, position: NDArray[np.int64], weight: NDArray[np.float64], intercept: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(class of the highest score, the first of equals; that score less the next one) of images, both (image,).

    Sums are taken by `einsum`, whose order does not depend on the number of threads as that of a matrix product may.
    """
    found = [_highest(np.einsum("iu,cu->ic", x, weight) + intercept) for x in features.blocks(position)]
    prediction, margin = (np.concatenate([part[n] for part in found]) for n in (0, 1))
    return prediction.astype(np.int64), margin


def _highest(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ordered = np.sort(scores, axis=1)
    return scores.argmax(axis=1), ordered[:, -1] - ordered[:, -2]


def occurring(labelled: Labelled, split: str) -> Labelled:
    """The labels with those classes only that occur in a split."""
    counts = labelled.of(split).counts
    kept = np.flatnonzero(counts)
    if kept.size < 2:
        raise DissectError(
            f"split '{split}': expected images of at least two classes to tell apart, got {kept.size}. Label others."
        )
    if (missing := np.flatnonzero((counts == 0) & (labelled.counts > 0))).size:
        raise DissectError(
            f"class '{labelled.classes[missing[0]]}' has images, but none in the split '{split}' that weights are "
            "fitted on. Label some, or leave the class out."
        )
    at = np.full(counts.size, -1, np.int64)
    at[kept] = np.arange(kept.size)
    classes = tuple(labelled.classes[n] for n in kept)
    return replace(labelled, label=at[labelled.label], classes=classes, outputs=False)


def position_of(labelled: Labelled) -> NDArray[np.int64]:
    """(image,) places of labelled images in their probe."""
    assert labelled.position is not None  # `features_of` has refused what is no probe's
    return labelled.position
