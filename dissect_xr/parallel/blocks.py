"""Lazy arrays whose blocks a function computes.

Knows: Dask's `map_blocks`, which takes no longer for a million blocks than for one.
Does not know: what a block holds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Block = Callable[[tuple[int, ...]], NDArray[Any]]
"""Index of a block along every dim -> its values; picklable."""


def array_of_blocks(block: Block, chunks: Sequence[Sequence[int]], dtype: DTypeLike, name: str) -> Any:
    """A Dask array with these lengths of blocks along every dim, whose blocks `block` computes when they are needed.

    Parameters
    ----------
    name
        Name of the array, which must not be that of an array with other values.

    Examples
    --------
    >>> array_of_blocks(lambda index: np.full((1, 2), index[0]), ((1, 1), (2,)), int, "rows").compute().tolist()
    [[0, 0], [1, 1]]
    """
    import dask.array

    empty = np.empty((0,) * len(chunks), dtype)
    build: Any = dask.array.map_blocks  # untyped in Dask
    return build(_called, block, chunks=tuple(map(tuple, chunks)), dtype=dtype, name=name, meta=empty)


def _called(block: Block, block_id: tuple[int, ...] | None = None) -> NDArray[Any]:
    if block_id is None:
        raise ValueError("expected the index of a block")
    return block(block_id)
