"""Opens MATLAB files, of versions 4 to 7.

Knows: scipy, and the ways a file can be damaged.
Does not know: what a variable means.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.faults import Fault


def read_mat(path: Path, variable: str) -> Any:
    """A variable of a MATLAB file: a number array, or an array of structs with named fields, both of two dimensions.

    Raises
    ------
    Fault
        If the file is missing or damaged, is of version 7.3, or lacks the variable.
    """
    from scipy.io import loadmat  # takes longer to import than the rest of the package

    try:
        content = loadmat(path, variable_names=[variable], appendmat=False)
    except FileNotFoundError as error:
        raise Fault(f"{path}: expected a MATLAB file, found none.", "label map: the file is missing") from error
    except NotImplementedError as error:
        raise Fault(
            f"{path}: is a MATLAB file of version 7.3, which is HDF5. Save it in MATLAB with `-v7`.",
            "label map: it is a MATLAB file of version 7.3",
            shared=True,
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise almost any exception, as images do
        raise Fault(
            f"{path}: damaged, or no MATLAB file: {type(error).__name__}: {error}. Replace the file.",
            "label map: it is damaged, or no MATLAB file",
        ) from error
    if variable not in content:
        raise Fault(
            f"{path}: expected the variable '{variable}', found none.", f"label map: it has no variable '{variable}'"
        )
    return content[variable]


def label_array(values: Any, path: Path, what: str) -> NDArray[Any]:
    """The values if they are whole numbers or truth values in two dimensions; `what` is their name in messages.

    Raises
    ------
    Fault
        If they are anything else.
    """
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "bui":
        shape = getattr(values, "shape", type(values).__name__)
        raise Fault(
            f"{path}: expected {what} as whole numbers (row, col), got {getattr(values, 'dtype', '')} {shape}.",
            f"label map: {what} is no array of whole numbers",
        )
    return values
