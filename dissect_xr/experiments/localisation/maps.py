"""The pass that makes class activation maps: one map of each image, and what follows from it and the image's labels.

Knows: stored maps of a layer, stored weights of a class, the probe's labels; that all sums have one order.
Does not know: which images, classes and concepts there are, or what boxes are good for.

An example: a class has the weights 2 and -1 for two units, whose maps in an image of two cells are 3, 1 and 2, 0. Its
class activation map is 4, 2. Their mean, 3, and the class's intercept are the score of the image for the class, because
a score is linear in the means of the maps.

>>> class_map(np.array([[[3, 1]], [[2, 0]]], np.float16), np.array([2.0, -1.0])).tolist()
[[4.0, 2.0]]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.dissection.derived.maps import Maps
from dissect_xr.dissection.labels import read_labels
from dissect_xr.dissection.layers import check_dense
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import View, upsampled
from dissect_xr.experiments.localisation.boxes import Box, enclosing, high_box, peak_inside
from dissect_xr.parallel.resources import Projection

PATH = "maps"
"""Group of the pass."""

BLOCK = 8 * 2**20
"""About the bytes of maps that one task writes."""

SIDES = ("top", "left", "bottom", "right")
"""Of a box, which is half-open."""


@dataclass(frozen=True)
class MapTask:
    """Some images, each with the map of one class."""

    url: str
    view: View
    classes: str
    """the experiment of classes whose weights are used"""
    first: int
    """place of the first image among all that have maps"""
    images: tuple[str, ...]
    index: tuple[int, ...]
    """of each image in the probe, ascending"""
    label: tuple[int, ...]
    """of each image, the class whose map is made"""
    concept: tuple[int, ...]
    """of each image, the number of the concept whose pixels are the object"""
    share: float
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the marker."""
        return f"{PATH}/blocks/{self.first}-{self.first + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"class activation maps of {self.view.layer.path}, images {self.images[0]} to {self.images[-1]}"


def map_block(task: MapTask) -> None:
    """Write the maps of a task's images, their boxes and those of the objects, and the task's marker.

    Raises
    ------
    DissectError
        If a map is not finite in float32; the image is named.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    weight, scale, intercept = (store.read(task.classes, name)[:] for name in ("weight", "scale", "intercept"))
    shape = task.view.labels.shape[2:]
    found = {spec.name: np.empty(spec.shape, spec.dtype) for spec in map_arrays(len(task.images), shape)}
    for n, values, planes in _images(task.view, task.index):
        coarse = class_map(values, np.asarray(weight[task.label[n]] / scale, np.float64))
        with np.errstate(over="ignore"):
            fine = upsampled(coarse, task.view.rows, task.view.cols).astype(np.float32)
        if not np.isfinite(fine).all():
            raise DissectError(
                f"{task.view.layer.path}: the class activation map of image '{task.images[n]}' is not finite, expected "
                "numbers that float32 holds. Mend the weights of the classes, or the activations."
            )
        one = measured(fine, (planes == task.concept[n]).any(axis=0), task.share)
        one |= {"map": fine, "score": coarse.mean() + intercept[task.label[n]]}
        for name, value in one.items():
            found[name][n] = value
    with store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, _):
        for name, block in found.items():
            writer.write(f"{PATH}/{name}", (task.first,) + (0,) * (block.ndim - 1), block)


def class_map(values: NDArray[np.floating], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the maps (unit, y, x) times the units' weights, added in the order of the units, (y, x) float64."""
    total = np.zeros(values.shape[1:])
    for one, factor in zip(values, weight.tolist(), strict=True):
        total += factor * one.astype(np.float64)
    return total


def map_arrays(images: int, shape: tuple[int, ...], block: int | None = None) -> list[store.ArraySpec]:
    """What the pass fills, for so many images on a label grid of `shape`; a chunk is what one task writes.

    `block` says how many images that are, if not as many as `images_of_task` gives.
    """
    block = block or images_of_task(shape)
    grid = {"units": "1", "long_name": "class activation map of the image's class on the label grid"}

    def each(name: str, dtype: str) -> store.ArraySpec:
        return store.ArraySpec(name, ("image",), (images,), dtype, (block,))

    return [
        store.ArraySpec("map", ("image", "row", "col"), (images, *shape), "float32", (block, *shape), attrs=grid),
        store.ArraySpec("box", ("image", "side"), (images, len(SIDES)), "int64", (block, len(SIDES))),
        store.ArraySpec("object_box", ("image", "side"), (images, len(SIDES)), "int64", (block, len(SIDES))),
        each("object_pixels", "int64"),
        each("pointed", "bool"),
        each("score", "float64"),
    ]


def images_of_task(shape: tuple[int, ...]) -> int:
    """How many images' maps are about `BLOCK` bytes, at least one."""
    return max(1, BLOCK // (4 * int(np.prod(shape))))


def memory_of_task(view: View, classes: int) -> Projection:
    """What a task needs at most."""
    units, pixels, chunk = view.layer.shape[1], int(np.prod(view.labels.shape[2:])), view.layer.chunk[0]
    return Projection(
        (
            ("a chunk of maps", chunk * units * view.layer.cells * view.layer.itemsize),
            ("labels", chunk * view.labels.image_bytes),
            ("weights", 8 * classes * units),
            ("class activation maps", 4 * images_of_task(view.labels.shape[2:]) * pixels + 6 * 8 * pixels),
        )
    )


def measured(values: NDArray[np.float32], mask: NDArray[np.bool_], share: float) -> dict[str, Any]:
    """What is measured of one map and the pixels of its object."""
    box: Box = high_box(values, share)
    return {
        "box": box,
        "object_box": enclosing(mask),
        "object_pixels": int(mask.sum()),
        "pointed": peak_inside(values, mask),
    }


def _images(view: View, index: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.floating], NDArray[Any]]]:
    """(place, maps (unit, y, x), labels (plane, row, col)) of each image; each chunk of maps is read once."""
    check_dense(view.layer, "a class activation map adds up whole maps")
    maps, every = Maps(view.layer), np.array(index, np.int64)
    for chunk in np.unique(every // view.layer.chunk[0]).tolist():
        here = np.flatnonzero(every // view.layer.chunk[0] == chunk).tolist()
        first, last = index[here[0]], index[here[-1]] + 1
        values, planes = maps.values((first, last)), read_labels(view.labels, (first, last))[0]
        for n in here:
            yield n, values[index[n] - first], planes[index[n] - first]
