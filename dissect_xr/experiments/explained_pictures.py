"""Pictures of explained images: each image, and again with the mask of each unit that speaks for its class.

Knows: the masks of an explanation, the image files of the probe.
Does not know: how pictures are arranged.
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.exemplars.pictures import draw, read_picture
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.root import image_folder


def explained_pictures(ds: xr.Dataset, probe: store.Url, *, size: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures (1 + rank, size, size, 3) of each explained image: as it is, then with the units' masks; computes.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.explanation.open_explanation`.
    probe
        The probe of its run.
    size
        Side of a picture in pixels.

    Raises
    ------
    DissectError
        If an image file is missing or damaged.
    """
    url = store.as_url(probe)
    root, crop = image_folder(url), stored_crop(store.read_attrs(url)["parameters"])
    for n, name in enumerate(ds["image"].values.tolist()):
        pixels, masks = read_picture(root, name, size, crop=crop), np.asarray(ds["mask"][n].values, np.bool_)
        plain = np.ones(masks.shape[1:], np.bool_)
        yield np.stack([draw(pixels, active, size) for active in (plain, *masks)])
