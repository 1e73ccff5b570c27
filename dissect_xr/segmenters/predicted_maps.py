"""Where the label maps of a segmenter lie, and what decides them.

Knows: names.
Does not know: how they are drawn (`predict`) or read (`label_set`). Torch is not imported.

A store of predicted labels is a folder `predicted/<name>-<fingerprint>.zarr` of a run: `maps/<image>.png` for every
image, marked block by block as all other stores are.
"""

from dissect_xr import store
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.segmenters.segmenter import Segmenter

MAPS = "maps"
"""Folder of the label maps in the store."""


def fingerprint_of(images: LabelSet, segmenter: Segmenter) -> str:
    """sha256 of all that decides the predicted label maps of these images, but their pixels."""
    return store.fingerprint({"segmenter": segmenter.sha256, "images": [row.image for row in images.rows]})


def map_name(image: str) -> str:
    """Path of an image's label map, below the folder of label maps.

    >>> map_name("street/a.jpg")
    'street/a.jpg.png'
    """
    return f"{image}.png"
