"""Pooled activations: the mean of each unit's map in each image, as a run stored them, for classifiers.

Knows: where `mean` stands in a store of activations, that images are those of the labels, how features are scaled.
Does not know: classifiers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection.layers import Layer, open_layer
from dissect_xr.errors import DissectError
from dissect_xr.experiments.class_labels import Labelled
from dissect_xr.experiments.unit_concepts import RunStores

Scaling = Literal["none", "std"]
"""Features as they are, or each divided by its standard deviation."""

BLOCK = 16 * 2**20
"""About the bytes of features that are read at a time."""


@dataclass(frozen=True)
class Features:
    """The pooled activations of one layer of one snapshot."""

    layer: Layer

    @property
    def units(self) -> int:
        """Units of the layer."""
        return self.layer.shape[1]

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """(image, unit) features of the images at these positions of the probe, float64.

        Every chunk that holds one of them is read once.
        """
        first = 0 if self.layer.columns is None else self.layer.columns[0]
        path = self.layer.path if self.layer.columns is None else self.layer.snapshot
        array = store.read(self.layer.url, f"{path}/mean")
        found = np.empty((positions.size, self.units))
        length = array.chunks[0] * max(1, BLOCK // (array.chunks[0] * self.units * 4))
        for block in np.unique(positions // length).tolist():
            here = positions // length == block
            read = array[block * length : (block + 1) * length, first : first + self.units]
            found[here] = read[positions[here] - block * length]
        return found

    def blocks(self, positions: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
        """The same, some images at a time."""
        step = max(1, BLOCK // (8 * self.units))
        return (self.of(positions[n : n + step]) for n in range(0, positions.size, step))


def features_of(run: RunStores, snapshot: str, layer: str, labelled: Labelled) -> Features:
    """The features of a layer, of whose images some are labelled.

    Raises
    ------
    DissectError
        If the run has not kept the layer's activations, or they are of other images than the labels.
    """
    if not store.exists(run.activations) or store.marker(run.activations, f"{snapshot}/created") is None:
        raise DissectError(
            f"{run.activations}: has no activations of snapshot {snapshot}, whose means are the features. Run the "
            "recipe with activations.keep: dense or tail."
        )
    opened = open_layer(run.activations, snapshot, layer)
    if opened.derivation is not None:
        raise DissectError(
            f"{run.activations}: {opened.path} is a derived layer, of which no means are stored. Name a layer of the "
            f"network, such as {opened.derivation.source.name}."
        )
    if labelled.position is None:
        raise DissectError(
            f"{labelled.root.root}: these labelled images are no probe's, and only a probe's have stored activations. "
            "Label images of the probe (leave out `folder`)."
        )
    names = np.array(store.read(run.activations, "image")[:].tolist())
    same = names.size > labelled.position.max(initial=-1) and names[labelled.position].tolist() == [*labelled.images]
    if not same or opened.images_sha256 not in (None, labelled.images_sha256):
        raise DissectError(
            f"{run.activations}: {opened.path} is of other images than those that are labelled. Give the probe that "
            "the activations were made from."
        )
    return Features(opened)


def scales(features: Features, positions: NDArray[np.int64], scaling: Scaling) -> NDArray[np.float64]:
    """What each unit's feature is divided by, (unit,): 1, or its standard deviation over these images, where above 0.

    The same for every size of blocks up to rounding of sums, which are taken in the order of the images.
    """
    if scaling == "none":
        return np.ones(features.units)
    total = sum(block.sum(axis=0) for block in features.blocks(positions))
    mean = total / positions.size
    squares = sum(((block - mean) ** 2).sum(axis=0) for block in features.blocks(positions))
    deviation = np.sqrt(squares / positions.size)
    return np.asarray(np.where(deviation > 0, deviation, 1.0), np.float64)
