"""Matrices and biases from files: `.npy` and `.safetensors`.

Knows: both formats, and what of them is no matrix of numbers.
Does not know: which layer a matrix is for.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError

NUMBERS = ("float16", "float32", "float64")
"""Types of numbers that are read; float32 holds what is computed with."""


def read_tensor(file: str, name: str | None, *, dims: int) -> NDArray[np.float64]:
    """An array of so many dims from a `.npy` file, or the one of this name from a `.safetensors` file.

    Raises
    ------
    DissectError
        Where the file cannot be read, holds no such array, or one that is not of finite numbers.
    """
    path = Path(file)
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix == ".safetensors":
            values = _named(file, name, dims)
        else:
            raise DissectError(f"{file}: expected a matrix as .npy or .safetensors. Convert it.")
    except DissectError:
        raise
    except Exception as error:
        raise DissectError(f"{file}: cannot be read as {path.suffix} ({type(error).__name__}: {error}).") from error
    where = file if name is None else f"{file}, {name}"
    if str(values.dtype) not in NUMBERS or values.ndim != dims or 0 in values.shape:
        raise DissectError(
            f"{where}: expected {dims} dims of {', '.join(NUMBERS)}, got {values.shape} of {values.dtype}. Convert it."
        )
    found: NDArray[np.float64] = values.astype(np.float64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(found.astype(np.float32))
    if not finite.all():
        at = np.argwhere(~finite)[0].tolist()
        raise DissectError(f"{where}: {found[tuple(at)]} at {at}, expected a finite number that float32 can hold.")
    return found


def _named(file: str, name: str | None, dims: int) -> NDArray[Any]:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        names = sorted(opened.keys())
        if name is None:
            fitting = [each for each in names if len(opened.get_slice(each).get_shape()) == dims]
            if len(fitting) != 1:
                raise DissectError(
                    f"{file}: holds {len(fitting)} arrays of {dims} dims among {', '.join(names[:12])}. Name one."
                )
            name = fitting[0]
        if name not in names:
            raise DissectError(f"{file}: holds no '{name}', but {', '.join(names[:12])}.")
        values: NDArray[Any] = opened.get_tensor(name)
        return values
