"""Images that show what a unit detects: where it peaks, where a concept is, and which images make up an IoU.

Knows: stored peaks, `masks`, and the image files of the probe.
Does not know: the model (there is no forward pass), figures, or how a threshold was found.

References
----------
Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection, CVPR 2017, figures 4 and 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.analysis.select import concept_index
from dissect_xr.dissection.derived.maps import Maps, peaks_of
from dissect_xr.dissection.layers import open_layer
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.masks import Stores, View, channel_of, image_blocks, image_counts, mask, open_view, upsampled
from dissect_xr.exemplars.pictures import WHOLE, around, draw, read_picture
from dissect_xr.parallel.progress import track
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.root import image_folder

TOP = 9
"""Top images of a unit."""

PEAKS = 32 << 20
"""Bytes of peaks that are ranked at a time."""


def top_images(activations: store.Url, snapshot: str, layer: str, *, k: int = TOP) -> xr.Dataset:
    """The `k` images in which each unit of a layer peaks highest, from the stored peaks; computes.

    Variables (unit, rank): ``image`` (its name), ``image_index`` (in the probe) and ``peak``. Equal peaks are in
    the order of the images. Every chunk of peaks is read once. Memory: one chunk of peaks, or as many as 32 MiB hold,
    the ranks of 32 MiB of them, and twice the result.

    Raises
    ------
    DissectError
        If the layer's activations are missing or not complete.
    """
    if k < 1:
        raise DissectError(f"k is {k}: expected 1 or more images per unit.")
    activations = store.as_url(activations)
    opened = open_layer(activations, snapshot, layer)
    images, units = opened.shape[:2]
    peaks, names = peaks_of(opened), store.read(activations, "image")
    best = np.zeros((0, units), np.float32)
    indices = np.zeros((0, units), np.int64)
    for first, block in _peak_blocks(peaks, images, units, max(k, PEAKS // (units * 4))):
        here = np.broadcast_to(np.arange(first, first + len(block))[:, None], block.shape)
        best, indices = _largest(np.concatenate([best, block]), np.concatenate([indices, here]), k)
    return xr.Dataset(
        {
            "image": (("unit", "rank"), np.asarray(names[:].tolist(), dtype=str)[indices.T]),
            "image_index": (("unit", "rank"), indices.T),
            "peak": (("unit", "rank"), best.T),
        },
        coords={"unit": [f"{layer}/{channel}" for channel in range(units)], "rank": np.arange(len(best))},
        attrs={"snapshot": snapshot, "layer": layer},
    )


def exemplars(
    ds: xr.Dataset,
    stores: Stores,
    units: Sequence[str],
    *,
    k: int = TOP,
    size: int = 96,
    crop: float | None = None,
    show: bool = True,
) -> Iterator[xr.Dataset]:
    """The top images of each unit with its mask drawn in them, unit by unit; computes a chunk of units at a time.

    Yields Datasets ``picture(rank, row, col, channel)`` uint8, ``image(rank)``, ``peak(rank)`` and ``active(rank)``
    (label pixels above the threshold) with the coordinate ``unit``, in the order of layers, then channels. Active
    pixels keep their brightness, the others are dimmed, and a line runs between them. Activations are read once per
    chunk of units. Memory: the maps of these units in one chunk of images, and in their top images.

    Parameters
    ----------
    ds
        A dissection Dataset of one snapshot and fraction.
    stores
        The activations and the probe that `ds` was made from.
    units
        Unit ids, such as ``["layer5/12"]``.
    k
        Images of each unit.
    size
        Longer side of a picture in pixels; pictures are square, grey beside the image.
    crop
        Show only a square around the peak, its side this share of the image's shorter side, in (0, 1].
    show
        Whether to draw a progress bar.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions, a unit is not in it, or an image file is damaged.
    """
    if crop is not None and not 0 < crop <= 1:
        raise DissectError(f"crop is {crop}: expected a share of the image's shorter side, above 0 and at most 1.")
    layers: dict[str, list[str]] = {}
    for unit in units:
        layers.setdefault(unit.rpartition("/")[0], []).append(unit)
    with track("exemplars", len(units), show=show) as bar:
        for layer, mine in layers.items():
            view = open_view(ds, stores, layer)
            top = top_images(stores.activations, view.layer.snapshot, layer, k=k)
            mine = sorted(mine, key=lambda unit: channel_of(view, unit))
            for block in _unit_blocks(view, mine):
                maps = _maps(view, top.sel(unit=block))
                for unit in block:
                    yield _pictures(view, top.sel(unit=unit), maps, size, crop)
                    bar.advance(k)


def images_with(probe: xr.Dataset, concept: str | int) -> xr.DataArray:
    """Share of each image's label pixels that carry the concept, largest first, (image) float64 in (0, 1]; computes.

    Images without it are left out; equal shares are in the order of the images.

    Raises
    ------
    DissectError
        If the probe has no such concept; similar names are listed.
    """
    number = int(probe["concept"].values[concept_index(probe, concept)])
    pixels = (probe["annotation"] == number).sum(["plane", "row", "col"])
    whole = (probe["whole_image"] == number).any("slot")
    size = probe.sizes["row"] * probe.sizes["col"]
    share = ((pixels + whole * size) / size).compute().rename("share")
    order = np.argsort(-share.values, kind="stable")
    share = share.isel(image=order[share.values[order] > 0])
    share.attrs = {"long_name": "share of the image's label pixels", "concept": concept}
    return share


def iou_images(ds: xr.Dataset, stores: Stores, unit: str, concept: str | int, *, show: bool = True) -> xr.Dataset:
    """The counts of each image that make up an IoU: ``hit``, ``miss`` and ``false_alarm``, (image) int64; computes.

    A label pixel is a hit where the unit is active on the concept, a miss where it is inactive on it, and a false alarm
    where it is active elsewhere in the domain of the concept's category. Summed over images,
    ``hit`` is the stored intersection, ``hit + false_alarm`` the unit_area and ``hit + miss`` the concept_area,
    exactly. To sort: ``counts.sortby("miss", ascending=False)``.
    Memory: some 16 MiB of labels and maps at a time.

    Raises
    ------
    DissectError
        If `ds` holds several snapshots or fractions, or has no such unit or concept.
    """
    index = concept_index(ds, concept)
    view = open_view(ds, stores, unit.rpartition("/")[0])
    index = int(np.searchsorted(view.labels.concepts, ds["concept"].values[index]))
    blocks = list(image_blocks(view))
    parts = []
    with track(f"images of {unit}", len(blocks), show=show) as bar:
        for images in blocks:
            parts.append(image_counts(view, unit, index, images))
            bar.advance(images[1] - images[0])
    hits, active, area = (np.concatenate(part) for part in zip(*parts, strict=True))
    names = store.read(view.layer.url, "image")[:].tolist()
    return xr.Dataset(
        {"hit": ("image", hits), "miss": ("image", area - hits), "false_alarm": ("image", active - hits)},
        coords={"image": np.asarray(names, dtype=str), "unit": unit, "concept": view.labels.concepts[index]},
    )


def _peak_blocks(peaks: Any, images: int, units: int, length: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first image, peaks) of `length` images at a time, or fewer; what is read are whole chunks, each once.

    Chunks of 4 images and a `length` of 6 give blocks of 4; chunks of 8 and a `length` of 6 give blocks of 6 and 2.
    """
    step = max(1, length // peaks.chunk) * peaks.chunk
    for start in range(0, images, step):
        read = peaks[start : min(start + step, images), :units]
        for n in range(0, len(read), length):
            yield start + n, read[n : n + length].astype(np.float32)


def _largest(
    values: NDArray[np.float32], indices: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest values of each column and their indices, descending; equal values stay in order."""
    order = np.argsort(-values, axis=0, kind="stable")[:k]
    return np.take_along_axis(values, order, axis=0), np.take_along_axis(indices, order, axis=0)


def _unit_blocks(view: View, units: Sequence[str]) -> Iterator[list[str]]:
    """The units, in lists of those that lie in the same stored chunk."""
    blocks: dict[int, list[str]] = {}
    for unit in units:
        blocks.setdefault(channel_of(view, unit) // view.layer.chunk[1], []).append(unit)
    return iter(blocks.values())


def _maps(view: View, top: xr.Dataset) -> dict[tuple[str, int], NDArray[Any]]:
    """(unit, image index) -> map (y, x); each chunk is read once."""
    channels = [channel_of(view, unit) for unit in top["unit"].values.tolist()]
    first, stop, length = min(channels), max(channels) + 1, view.layer.chunk[0]
    maps = Maps(view.layer, (first, stop))
    indices, found = top["image_index"].values, {}
    for start in np.unique(indices // length * length).tolist():
        block = maps.values((start, min(start + length, view.layer.shape[0])))
        for n, rank in zip(*np.nonzero(indices // length * length == start), strict=True):
            index = int(indices[n, rank])
            found[str(top["unit"].values[n]), index] = block[index - start, channels[n] - first].copy()
    return found


def _pictures(
    view: View, top: xr.Dataset, maps: dict[tuple[str, int], NDArray[Any]], size: int, crop: float | None
) -> xr.Dataset:
    """The top images of one unit, drawn."""
    unit, folder = str(top["unit"].values), image_folder(view.labels.url)
    shown = stored_crop(store.read_attrs(view.labels.url)["parameters"])
    drawn, areas = [], []
    for name, index in zip(top["image"].values.tolist(), top["image_index"].values.tolist(), strict=True):
        values = maps[unit, index]
        active = mask(values, view.thresholds[unit], view.rows, view.cols)
        pixels = read_picture(folder, name, size if crop is None else round(size / crop), crop=shown)
        box = WHOLE if crop is None else around(upsampled(values, view.rows, view.cols), pixels.shape, crop)
        drawn.append(draw(pixels, active, size, box=box))
        areas.append(int(active.sum()))
    return top.assign(
        picture=(("rank", "row", "col", "channel"), np.stack(drawn)), active=("rank", np.array(areas, np.int64))
    )
