"""How well boxes of maps lie to boxes of objects: IoU, and the share of each class's images that are localised.

Knows: boxes, whether the class was right and the maximum inside the object; that whole numbers are divided last.
Does not know: maps, or how boxes are drawn.

An example: a box of 4 x 4 pixels in the left half of an object's box of 4 x 8 has an IoU of 16 / 32. That is localised,
since 0.5 is enough.

>>> boxes = [xr.DataArray([corners], dims=("image", "side")) for corners in ([0, 0, 4, 4], [0, 0, 4, 8])]
>>> box_iou(*boxes).values.tolist()
[0.5]
"""

import numpy as np
import xarray as xr

ENOUGH = 0.5
"""IoU of the two boxes at which an object is localised, as in ILSVRC."""

OUTCOMES = (
    "right class, right place",
    "wrong class, right place",
    "right class, wrong place",
    "wrong class, wrong place",
)
"""What can become of an image that shows an object."""


def box_iou(box: xr.DataArray, other: xr.DataArray) -> xr.DataArray:
    """IoU of half-open boxes (..., side), (...) float64 in [0, 1]; NaN where there is no `other`, 0 where no `box`."""
    first, second = box.where(box >= 0, 0), other.where(other >= 0, 0)
    tall = np.minimum(first.isel(side=2), second.isel(side=2)) - np.maximum(first.isel(side=0), second.isel(side=0))
    wide = np.minimum(first.isel(side=3), second.isel(side=3)) - np.maximum(first.isel(side=1), second.isel(side=1))
    both = tall.clip(0) * wide.clip(0)
    union = _area(first) + _area(second) - both
    found: xr.DataArray = (both / union.where(union > 0)).where(_area(second) > 0)
    return found.drop_vars("side", errors="ignore")


def located(ds: xr.Dataset) -> xr.Dataset:
    """What follows from the boxes and classes of images, lazily.

    ``box_iou`` and ``localised`` (image), ``object_images`` and the shares ``localisation_accuracy``,
    ``known_localisation`` and ``pointing`` (class): of the images that show an object of their class. NaN where no
    image of the class does.
    """
    iou = box_iou(ds["box"], ds["object_box"])
    is_there, localised = ds["object_pixels"] > 0, iou >= ENOUGH
    mine = (ds["label"] == xr.DataArray(np.arange(ds.sizes["class"]), dims="class")) & is_there
    counts = mine.sum("image")
    hits = {
        "localisation_accuracy": localised & (ds["label"] == ds["prediction"]),
        "known_localisation": localised,
        "pointing": ds["pointed"],
    }
    shares = {name: (mine & hit).sum("image") / counts.where(counts > 0) for name, hit in hits.items()}
    return xr.Dataset({"box_iou": iou, "localised": localised, "object_images": counts, **shares})


def outcomes(ds: xr.Dataset) -> xr.DataArray:
    """What became of each image, (image) text: one of `OUTCOMES`, empty where no object is seen; computes."""
    right, place = (ds["label"] == ds["prediction"]).values, ds["localised"].values
    found = np.array(OUTCOMES)[np.where(right, 0, 1) + np.where(place, 0, 2)]
    return xr.DataArray(np.where(ds["object_pixels"].values > 0, found, ""), dims="image", name="outcome")


def cam_failures(ds: xr.Dataset) -> xr.Dataset:
    """The images that were found but not recognised, then those that were recognised but not found; computes.

    Their ``outcome`` (image) says which. The former are ordered by falling IoU of the boxes: the class of the best ones
    is wrong although its map lies right; the latter by rising IoU.

    Parameters
    ----------
    ds
        From `dissect_xr.experiments.cam.open_cam`.
    """
    outcome, iou = outcomes(ds), ds["box_iou"].values
    misnamed, misplaced = (np.flatnonzero((outcome == one).values) for one in OUTCOMES[1:3])
    order = [
        *misnamed[np.argsort(-iou[misnamed], kind="stable")].tolist(),
        *misplaced[np.argsort(iou[misplaced], kind="stable")].tolist(),
    ]
    return ds.assign(outcome=outcome).isel(image=order)


def _area(box: xr.DataArray) -> xr.DataArray:
    return (box.isel(side=2) - box.isel(side=0)) * (box.isel(side=3) - box.isel(side=1))
