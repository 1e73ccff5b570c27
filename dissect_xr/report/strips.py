"""Strips of exemplars for the report: the top images of a unit side by side, in one JPEG per unit.

Knows: whether a layer can have exemplars, and why it cannot; how a strip is made and saved.
Does not know: which images are shown, where a unit is active in them (`top_images`), or what the pages show.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from dissect_xr import store
from dissect_xr.dissection.layers import open_layer
from dissect_xr.errors import DamagedError, DissectError
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.probe.root import image_folder
from dissect_xr.schema import layer_path

PIXELS = 160
"""Side of a picture."""

EDGE = 2
"""White pixels left and right of every picture, so that pictures stay apart when a browser rounds their positions."""


def why_none(stores: Stores, dissected: dict[str, Any], path: str) -> str:
    """Why a layer cannot have exemplars, or "" where it can; `dissected` are the attributes of its dissection.

    Checks what a person may have deleted or moved: the activations, the probe, the folder of images.
    """
    if not store.exists(stores.activations, layer_path(*path.split("/", 1))):
        return "the activations were not kept (keep: none)"
    try:
        if open_layer(stores.activations, *path.split("/", 1)).fingerprint != dissected["activations_sha256"]:
            return "the activations there are not those that were dissected"
        if store.marker(stores.probe, "done") is None:
            return "the probe is not there"
    except DamagedError:
        raise
    except DissectError as error:
        return str(error).rstrip(".")
    if not all(Path(root).is_dir() for root in image_folder(stores.probe).roots):
        return "the folder of the probe's images is not there: correct it in the recipe, and give `run` again"
    return ""


def strips(one: xr.Dataset, stores: Stores, count: int) -> Iterator[tuple[str, list[str], NDArray[np.uint8]]]:
    """Unit, image names and strip of pictures, for every unit of a layer that is active in some image; computes.

    A strip is always `count` pictures wide, white where fewer images are active. Memory: that of
    :func:`dissect_xr.exemplars.top_images.exemplars`.

    Parameters
    ----------
    one
        Counts of one snapshot, fraction and layer.
    stores
        The activations and the probe that they were made from.
    count
        Images of each unit.

    Raises
    ------
    DissectError
        If an image file is missing or damaged.
    """
    for found in exemplars(one, stores, one["unit"].values.tolist(), k=count, size=PIXELS, show=False):
        active = np.flatnonzero(found["active"].values > 0)
        if active.size:
            strip = np.full((PIXELS, count * PIXELS, 3), 255, np.uint8)
            for index, rank in enumerate(active.tolist()):
                left = index * PIXELS
                strip[:, left + EDGE : left + PIXELS - EDGE] = found["picture"].values[rank, :, EDGE:-EDGE]
            yield str(found["unit"].values), found["image"].values[active].tolist(), strip


def save(strip: NDArray[np.uint8], path: Path) -> None:
    """Write a strip as JPEG."""
    path.write_bytes(jpeg(strip))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (row, col, 3) as a JPEG file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()
