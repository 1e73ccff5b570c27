"""Reads images and label maps that are arrays, of xarray, NumPy or Dask: for notebooks.

Knows: names of dims, and in which pieces an array is read.
Does not know: how files are written (`files`), or stores.

Traps
-----
- Images and label maps become PNG files beside the probe, since the model, exemplars and reports read images from
  files. They are written once; other arrays under the same name are refused, not mixed in.
- Images are whole numbers from 0 to 255. Floats are refused: nobody says whether 1.0 is white.
- 0 is no label. Where label maps count from 0, or have 255 for none, add and replace before, or give `void`.
- An array of Dask is computed piece by piece, as its chunks along `image` are; it should be in chunks of some images.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool
from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.concepts import given_concepts
from dissect_xr.probe.readers.masks import decode_mask
from dissect_xr.probe.readers.unpacked.files import keep_pixels
from dissect_xr.store import objects

IMAGES = (("image", "row", "col", "channel"), ("image", "row", "col"))
"""Dims of images; without `channel` they are grey."""

ANNOTATIONS = (("image", "row", "col"), ("image", "plane", "row", "col"))


@dataclass(frozen=True)
class About:
    """What else is known of images that are arrays, each in their order."""

    names: Sequence[str] | None = None
    """None takes the coordinate `image` of the images, or their numbers"""
    splits: Sequence[str] | None = None
    """None puts all into one split"""
    whole: Sequence[Sequence[int]] | None = None
    """numbers of the concepts that are of the whole image"""
    void: Sequence[int] = ()
    """numbers in label maps of ignored pixels"""


def probe_from_arrays(
    images: Any,
    annotations: Any,
    concepts: Mapping[int, Any] | Iterable[Concept],
    url: store.Url,
    *,
    about: About | None = None,
    label_size: tuple[int, int] | None = None,
    pool: Pool | None = None,
    show: bool = True,
) -> xr.Dataset:
    """The probe of these arrays, which is written to `url`; its files lie beside it, in `<name>.files`. Computes.

    Parameters
    ----------
    images : (image, row, col, channel) or (image, row, col) uint8
        Colours as RGB, or grey. A DataArray has its dims under these names, in any order.
    annotations : (image, row, col) or (image, plane, row, col) of whole numbers
        Concept numbers, 0 for none; None where all labels are of whole images. Of other sizes than the images, but of
        the same proportions.
    concepts
        ``{number: name}``, ``{number: {"name": ..., "category": ...}}``, or `Concept` objects.

    Raises
    ------
    DissectError
        If shapes, types or numbers do not fit, or `url` holds a probe of other arrays.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> labels = np.array([[[0, 1], [1, 2]]])
    >>> probe = probe_from_arrays(
    ...     np.zeros((1, 2, 2, 3), np.uint8), labels, {1: "sky", 2: "sea"}, f"{folder}/probe.zarr", show=False
    ... )
    >>> probe["concept_area"].values.tolist()
    [2, 1]
    """
    url = store.as_url(url)
    if not objects.is_local(url):
        raise DissectError(f"{url}: images are written beside the probe as files. Name a local path.")
    folder = Path(url).with_name(f"{Path(url).stem}.files")
    found = read_arrays(images, annotations, concepts, folder, about=about, label_size=label_size)
    write_probe(found, url, pool=pool, show=show)
    return open_probe(url)


def read_arrays(
    images: Any,
    annotations: Any,
    concepts: Mapping[int, Any] | Iterable[Concept],
    folder: str | Path,
    *,
    about: About | None = None,
    label_size: tuple[int, int] | None = None,
) -> LabelSet:
    """The label set of these arrays, as `probe_from_arrays` takes them, written to files in `folder`. Computes.

    Raises
    ------
    DissectError
        As for `probe_from_arrays`, or if the folder holds files of other arrays.
    """
    about, folder = about or About(), Path(folder)
    table = given_concepts(concepts) if isinstance(concepts, Mapping) else tuple(concepts)
    names = _names(images, about)
    digest = hashlib.sha256()
    for name, pixels in zip(names, _each(images, "images", IMAGES, digest), strict=True):
        keep_pixels(folder / "images", f"{name}.png", _colors(pixels, name))
    planes = 0
    labelled = names if annotations is not None else []
    for name, maps in zip(labelled, _each(annotations, "annotations", ANNOTATIONS, digest, len(names)), strict=True):
        planes = len(maps) if maps.ndim == 3 else 1
        for n, labels in enumerate(maps if maps.ndim == 3 else maps[None]):
            keep_pixels(folder / "labels", f"{name}_{n}.png", _numbers(labels, name))
    rows = _rows(names, planes, about, {concept.number for concept in table})
    category = table[0].category if table else "object"
    found = LabelSet(
        images=str(folder / "images"),
        maps=str(folder / "labels"),
        rows=rows,
        concepts=table,
        categories=tuple(dict.fromkeys(concept.category for concept in table)),
        planes=(category,) * planes,
        decode=decode_mask,
        label_size=(0, 0),
        void=frozenset(about.void),
        parameters={"layout": "arrays", "sha256": digest.hexdigest()},
    )
    return completed(found, categories=None, label_size=label_size, where="concepts")


def _names(images: Any, about: About) -> list[str]:
    count = int(np.shape(images)[_place(images)])
    coordinate = images["image"] if isinstance(images, xr.DataArray) and "image" in images.coords else None
    given = about.names if about.names is not None else coordinate
    names = [f"{n:06d}" for n in range(count)] if given is None else [str(name) for name in np.asarray(given).tolist()]
    names = [name.removesuffix(".png") for name in names]
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise DissectError(f"names: '{repeated[0]}' occurs more than once. Names of images must be distinct.")
    for field, values in (("names", names), ("splits", about.splits), ("whole", about.whole)):
        if values is not None and len(values) != count:
            raise DissectError(f"{field}: expected one for each of the {count} images, got {len(values)}.")
    return names


def _place(values: Any) -> int:
    """Which axis is that of images."""
    return values.dims.index("image") if isinstance(values, xr.DataArray) and "image" in values.dims else 0


def _each(
    values: Any, what: str, allowed: Sequence[tuple[str, ...]], digest: Any, count: int | None = None
) -> Iterator[NDArray[Any]]:
    """What belongs to each image, read piece by piece, and added to the digest."""
    if values is None:
        return
    if isinstance(values, xr.DataArray):
        dims = next((dims for dims in allowed if set(dims) == set(values.dims)), None)
        if dims is None:
            raise DissectError(f"{what}: expected dims {' or '.join(map(str, allowed))}, got {values.dims}.")
        values = values.transpose(*dims)
    shape = np.shape(values)
    if len(shape) not in {len(dims) for dims in allowed}:
        raise DissectError(f"{what}: expected an array {' or '.join(map(str, allowed))}, got the shape {shape}.")
    if count is not None and shape[0] != count:
        raise DissectError(f"{what}: expected those of {count} images, got {shape[0]}.")
    for start, stop in _pieces(values, shape[0]):
        for one in np.asarray(values[start:stop]):
            digest.update(f"{what} {one.shape}".encode())
            digest.update(np.ascontiguousarray(one, np.int64 if one.dtype.kind in "iub" else None).tobytes())
            yield one


def _pieces(values: Any, count: int) -> Iterator[tuple[int, int]]:
    """(first, stop) of the images that are read at once: a chunk, where there are chunks."""
    chunks = getattr(values, "chunks", None)
    first = chunks[0] if chunks else 1
    lengths = first if isinstance(first, tuple) else [first] * -(-count // first)
    start = 0
    for length in lengths:
        yield start, min(start + length, count)
        start += length


def _colors(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """An image as 8-bit RGB or grey."""
    if pixels.dtype.kind not in "iu" or (pixels.size and not (pixels.min() >= 0 and pixels.max() <= 255)):
        raise DissectError(
            f"images: expected whole numbers from 0 to 255, got {pixels.dtype} up to {pixels.max(initial=0)} in image "
            f"'{name}'. Scale them, and give `.astype('uint8')`."
        )
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
        raise DissectError(f"images: expected 1 or 3 channels in the last dim, got {pixels.shape} for image '{name}'.")
    grey = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    return grey.astype(np.uint8)


def _numbers(labels: NDArray[Any], name: str) -> NDArray[np.uint16]:
    if labels.dtype.kind not in "iub" or (labels.size and not (labels.min() >= 0 and labels.max() <= LARGEST)):
        raise DissectError(
            f"annotations: expected whole numbers from 0 to {LARGEST}, got {labels.dtype} from {labels.min(initial=0)} "
            f"to {labels.max(initial=0)} in image '{name}'."
        )
    return labels.astype(np.uint16)


def _rows(names: Sequence[str], planes: int, about: About, numbers: set[int]) -> tuple[Row, ...]:
    rows = []
    for n, name in enumerate(names):
        whole = tuple(dict.fromkeys(int(number) for number in about.whole[n])) if about.whole is not None else ()
        if unknown := [number for number in whole if number not in numbers]:
            raise DissectError(f"whole: number {unknown[0]} of image '{name}' is no concept. Add it to `concepts`.")
        split = str(about.splits[n]) if about.splits is not None else "all"
        maps = tuple((plane, f"{name}_{plane}.png") for plane in range(planes))
        rows.append(Row(f"{name}.png", split, maps, whole, None, f"image '{name}'"))
    return tuple(rows)
