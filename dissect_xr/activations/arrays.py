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
        array = _in_order(name, part)
        shape = getattr(array, "shape", None)
        if shape is None:
            array = np.asarray(array)
            shape = array.shape
        if len(shape) != 4:
            mend = " For one number per unit give values[:, :, None, None]." if len(shape) == 2 else ""
            raise DissectError(f"layer {name}: {EXPECTED}, got {getattr(array, 'dtype', '')} {tuple(shape)}.{mend}")
        step = _images_of_a_block(array)
        for start in range(0, max(1, shape[0]), step):
            block = _as_numpy(array[start : start + step])
            if block.dtype.kind != "f":
                raise DissectError(f"layer {name}: {EXPECTED}, got {block.dtype} {tuple(shape)}.")
            yield block


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
    array = _in_order(name, values)
    if len(array.shape) != 4:
        next(blocks_of(name, array))  # raises
    step, wanted = _images_of_a_block(array), np.asarray(images)
    parts = []
    for start in dict.fromkeys((wanted // step * step).tolist()):
        here = wanted[wanted // step == start // step]
        block = np.concatenate(list(blocks_of(name, array[start : start + step])))
        parts.append(block[here - start])
    return np.concatenate(parts)


def _in_order(name: str, array: Any) -> Any:
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


def _as_numpy(block: Any) -> NDArray[Any]:
    """A block in memory. Of torch, also what requires gradients, lies on a GPU or is bfloat16, which NumPy lacks."""
    if hasattr(block, "detach"):
        block = block.detach().cpu()
        block = block.float() if str(block.dtype) == "torch.bfloat16" else block
    return np.asarray(block)
