"""Arrays of any library, read block by block as NumPy arrays.

Knows: NumPy with memory maps, xarray, Dask, Zarr and torch, of which none but NumPy and xarray is imported.
Does not know: what is done with the blocks.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

DIMS = ("image", "unit", "y", "x")

EXPECTED = "expected floating-point maps (image, unit, y, x)"

BLOCK = 64 * 2**20
"""About the bytes of a block."""


def blocks_of(name: str, values: Any) -> Iterator[NDArray[Any]]:
    """The maps (image, unit, y, x) of the layer `name`, in blocks of some images.

    Parameters
    ----------
    values
        Anything with a shape of four dimensions that can be sliced, or an iterable of such arrays. The dimensions of
        xarray are taken by name, in any order.

    Raises
    ------
    DissectError
        If an array has other dimensions or does not hold floating-point numbers.
    """
    parts: Iterable[Any] = [values] if hasattr(values, "shape") else values
    for part in parts:
        array = in_order(name, part)
        shape = getattr(array, "shape", None)
        if shape is None:
            array = np.asarray(array)
            shape = array.shape
        if len(shape) != 4:
            mend = " For one number per unit give values[:, :, None, None]." if len(shape) == 2 else ""
            raise DissectError(f"layer {name}: {EXPECTED}, got {getattr(array, 'dtype', '')} {tuple(shape)}.{mend}")
        step = _images_of_a_block(array)
        for start in range(0, max(1, shape[0]), step):
            block = _as_numpy(name, array[start : start + step])
            if block.dtype.kind != "f":
                raise DissectError(f"layer {name}: {EXPECTED}, got {block.dtype} {tuple(shape)}.")
            yield block


def by_name(name: str, values: Any, images: Sequence[str]) -> Any:
    """The maps of a layer in the order of `images`, where they have a coordinate that says which image is which.

    Parameters
    ----------
    values
        As for `blocks_of`; what has no such coordinate is returned as it is.

    Raises
    ------
    DissectError
        If the coordinate holds other names than `images`, or, of an iterator, in another order; or if the units have a
        coordinate by which they are not counted from 0, as they would be stored.
    """
    if isinstance(values, xr.DataArray):
        _check_units(name, values)
        found = _names(values)
        if found is None or found == list(images):
            return values
        if len(found) != len(images) or set(found) != set(images):
            raise _other_images(name, found, images)
        place = {image: n for n, image in enumerate(found)}
        return Reordered(in_order(name, values), np.array([place[image] for image in images]))
    return values if hasattr(values, "shape") else _each_by_name(name, values, images)


def _each_by_name(name: str, parts: Iterable[Any], images: Sequence[str]) -> Iterator[Any]:
    """The same parts, once their names are those that come next."""
    first = 0
    for part in parts:
        if isinstance(part, xr.DataArray):
            _check_units(name, part)
            wanted = list(images[first : first + part.sizes.get("image", 0)])
            if (found := _names(part)) is not None and found != wanted:
                raise _other_images(name, found, wanted)
        first += part.sizes.get("image", 0) if isinstance(part, xr.DataArray) else len(part)
        yield part


def _names(array: xr.DataArray) -> list[str] | None:
    """What its coordinate calls the images; None where it has none, or one that only numbers them."""
    if "image" not in array.dims or "image" not in array.coords or array.coords["image"].dims != ("image",):
        return None
    found = array.coords["image"].values
    numbered = found.dtype.kind in "iu" and (np.diff(found.astype(np.int64)) == 1).all()
    return None if numbered else [str(one) for one in found.tolist()]


def _check_units(name: str, array: xr.DataArray) -> None:
    """Raise if units have the numbers of others: they are stored by position."""
    if "unit" not in array.dims or "unit" not in array.coords or array.coords["unit"].dims != ("unit",):
        return
    found = [str(one).rpartition("/")[2] for one in array.coords["unit"].values.tolist()]
    if all(one.isdecimal() for one in found) and [int(one) for one in found] != list(range(len(found))):
        raise DissectError(
            f"layer {name}: its coordinate `unit` begins with {', '.join(found[:4])}, but units are stored by "
            "position, from 0 on. Sort the array by it (values.sortby), or leave the coordinate out: "
            "values.drop_vars('unit')."
        )


def _other_images(name: str, found: Sequence[str], wanted: Sequence[str]) -> DissectError:
    at = next((n for n, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), len(wanted))
    return DissectError(
        f"layer {name}: its coordinate `image` does not hold the images that were given: of {len(found)}, "
        f"number {at} is {found[at] if at < len(found) else 'missing'}, of the {len(wanted)} given it is "
        f"{wanted[at] if at < len(wanted) else 'missing'}. Give the names of its images, or leave the coordinate out "
        "if they are in this order: values.drop_vars('image')."
    )


class Reordered:
    """An array whose images are read in another order, block by block."""

    def __init__(self, array: Any, order: NDArray[np.int64]) -> None:
        self._array, self._order = array, order
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, images: slice) -> Any:
        return self._array[self._order[images]]


def some_images(name: str, values: Any, images: Sequence[int]) -> NDArray[Any]:
    """The maps (image, unit, y, x) of some images of the layer `name`, as `blocks_of` gives them.

    Raises
    ------
    DissectError
        If `values` is an iterator, of which nothing can be read in advance.
    """
    if not hasattr(values, "shape"):
        raise DissectError(
            f"layer {name}: the bounds of a tail are taken from a sample of all images, which an iterator cannot give. "
            "Hand in an array (a memory map, Dask or Zarr array is read in blocks), or use keep='dense'."
        )
    array = in_order(name, values)
    if len(array.shape) != 4:
        next(blocks_of(name, array))  # raises
    step, wanted = _images_of_a_block(array), np.asarray(images)
    parts = []
    for start in dict.fromkeys((wanted // step * step).tolist()):
        here = wanted[wanted // step == start // step]
        block = np.concatenate(list(blocks_of(name, array[start : start + step])))
        parts.append(block[here - start])
    return np.concatenate(parts)


def in_order(name: str, array: Any) -> Any:
    """The data of an xarray object with its dimensions in the order of `DIMS`; anything else as it is."""
    if not isinstance(array, (xr.DataArray, xr.Variable)):
        return array
    if len(array.dims) == 4 and set(array.dims) != set(DIMS):
        raise DissectError(
            f"layer {name}: expected the dimensions {', '.join(DIMS)} in any order, got "
            f"{', '.join(map(str, array.dims))}. Rename them: values.rename({{...}})."
        )
    return array.transpose(*DIMS).data if len(array.dims) == 4 else array.data


def _images_of_a_block(array: Any) -> int:
    """Images of a block: whole chunks of what is chunked, so that none is read twice."""
    itemsize = int(getattr(getattr(array, "dtype", None), "itemsize", 4))
    fit = max(1, BLOCK // max(1, math.prod(map(int, array.shape[1:])) * itemsize))
    chunks = getattr(array, "shards", None) or getattr(array, "chunks", None)
    if not chunks:
        return fit
    first = chunks[0]
    length = max(1, max(first) if isinstance(first, tuple) else int(first))
    return max(1, fit // length) * length


def _as_numpy(name: str, block: Any) -> NDArray[Any]:
    """A block in memory. Of torch, also what requires gradients, lies on a GPU or is bfloat16, which NumPy lacks."""
    if hasattr(block, "detach"):
        block = block.detach().cpu()
        block = block.float() if str(block.dtype) == "torch.bfloat16" else block
    if hasattr(block, "compute"):  # of Dask: made an array, it would lose its mask
        block = block.compute()
    if np.ma.is_masked(block):
        raise DissectError(
            f"layer {name}: holds masked values, of which nothing says what they are. Give every cell a number, as "
            "with values.filled(0)."
        )
    return np.asarray(block)
