"""One layer's activations as both passes see them: where they are stored, their shape, and how maps lie on the image.

Knows: how `activations.zarr` is laid out, read through the room `store`.
Does not know: thresholds, labels, or which pass reads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from dissect_xr import store
from dissect_xr.dissection import interpolation
from dissect_xr.errors import DissectError
from dissect_xr.schema import check_version

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Layer:
    """One layer of one snapshot in an activation store."""

    url: str
    snapshot: str
    name: str
    shape: tuple[int, int, int, int]
    """(image, unit, y, x)"""
    dtype: str
    """float16 or float32"""
    chunk: tuple[int, int]
    """images and units in an inner chunk"""
    fingerprint: str
    input_size: tuple[int, int] | None
    """(height, width) of the model's input in pixels"""
    geometry: Any
    """``{"y": {"start": "35/2", "jump": "16"}, "x": ...}``, or the reason why it is not known"""

    @property
    def path(self) -> str:
        """Its group, of the same name in `activations.zarr` and in `dissection.zarr`."""
        return f"{self.snapshot}/{self.name}"

    @property
    def cells(self) -> int:
        """Number of cells in a map."""
        return self.shape[2] * self.shape[3]

    @property
    def itemsize(self) -> int:
        """Bytes of a stored value."""
        return np.dtype(self.dtype).itemsize

    def axes(self, anchoring: str, labels: tuple[int, int]) -> tuple[interpolation.Axis, interpolation.Axis]:
        """How the rows and the columns of a label grid of (height, width) pixels sample a map."""
        tables = []
        for n, name in enumerate(("y", "x")):
            cells = self.shape[2 + n]
            if anchoring == "half_pixel":
                tables.append(interpolation.half_pixel(cells, labels[n]))
                continue
            if self.input_size is None:
                raise DissectError(
                    f"{self.path}: receptive_field anchoring needs the model's input size, which is not "
                    "stored. Dissect with anchoring: half_pixel, or extract the activations again."
                )
            start, jump = Fraction(self.geometry[name]["start"]), Fraction(self.geometry[name]["jump"])
            tables.append(interpolation.receptive_field(cells, labels[n], start, jump, self.input_size[n]))
        interpolation.check_exact(tables[0], tables[1], self.path)
        return tables[0], tables[1]

    def anchored(self, wanted: str) -> tuple[str, str | None]:
        """The anchoring that is used, and why where it is not the one wanted."""
        if wanted == "half_pixel" or isinstance(self.geometry, dict):
            return wanted, None
        return "half_pixel", str(self.geometry or "the activations come without geometry")


def open_layer(url: str, snapshot: str, name: str) -> Layer:
    """The layer `name` of `snapshot`.

    Raises
    ------
    DissectError
        Where its activations are not complete, or another version of this package wrote them.
    """
    path = f"{snapshot}/{name}"
    done = store.marker(url, f"{path}/done")
    if done is None:
        raise DissectError(f"{url}: the activations of {path} are not complete. Run the extraction again: it resumes.")
    array, attrs = store.read(url, f"{path}/activation"), store.read_attrs(url, path)
    check_version(attrs, f"{url}, {path}")
    size = attrs.get("input_size")
    return Layer(
        url=url,
        snapshot=snapshot,
        name=name,
        shape=array.shape,
        dtype=str(array.dtype),
        chunk=(array.chunks[0], array.chunks[1]),
        fingerprint=done["fingerprint"],
        input_size=tuple(size) if size else None,
        geometry=attrs.get("geometry") or attrs.get("geometry_reason"),
    )


def prefetch(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map`, but the next result is computed on another thread while the caller works on this one."""
    with ThreadPoolExecutor(1) as executor:
        waiting = None
        for item in items:
            following = executor.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
