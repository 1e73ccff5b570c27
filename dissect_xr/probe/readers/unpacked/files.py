"""Files that are made of what is in memory or in a table: images and label maps, each written once.

Knows: that a file which is there already must hold the same, since a probe may have been made from it.
Does not know: where the content comes from.
"""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.errors import DissectError, WriteError
from dissect_xr.probe.folder import inside
from dissect_xr.probe.pixels import open_image


def keep_bytes(folder: Path, name: str, content: bytes) -> None:
    """Write a file below `folder`, unless it is there.

    Raises
    ------
    DissectError
        If it is there and holds something else, or `name` leads out of the folder.
    WriteError
        If it cannot be written.
    """
    path = _path(folder, name)
    if not path.exists():
        _write(path, content)
    elif path.read_bytes() != content:
        raise _other(path)


def keep_pixels(folder: Path, name: str, pixels: NDArray[Any]) -> None:
    """Write pixels as a PNG file below `folder`, unless it is there; grey with 8 or 16 bits, or RGB.

    Raises
    ------
    DissectError, WriteError
        As `keep_bytes` does.
    """
    path = _path(folder, name)
    if not path.exists():
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=4)
        _write(path, file.getvalue())
        return
    with open_image(path) as image:
        if not np.array_equal(np.asarray(image), pixels):
            raise _other(path)


def _path(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return inside(str(folder), name, name)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WriteError(
            f"{path}: cannot be written: {error.strerror or error}. Mend this, or name another."
        ) from error


def _other(path: Path) -> DissectError:
    return DissectError(
        f"{path}: is there already and holds something else. Name another folder, or delete this one with the probe "
        "that was made from it."
    )
