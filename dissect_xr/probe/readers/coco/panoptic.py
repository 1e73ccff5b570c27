"""Reads panoptic segmentations as COCO has them, PNGs of segments and a JSON file that names them, as a label set.

Knows: how a PNG holds the numbers of segments, and what they mean.
Does not know: instances with polygons (`instances`), stores, resampling.

- **A pixel's segment** is R + 256 * G + 65,536 * B; numbers of segments mean something in their own image only.
  `segments_info` of the image says which category each has.
- **0** is what nobody has labelled, and COCO ignores it; its pixels are ignored, in no mask, no concept and no area. So
  are those of crowds (`iscrowd: 1`).
- **Ids have gaps**: things have ids from 1 to 90, stuff from 92 to 200.
- **Every image has one PNG**, of the name in its annotation, not of the image's name. The folder is often called like
  the JSON file, without its suffix.
- Each PNG has the size of its image; another size is refused, since a segment may be lost where one is resampled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import LabelSet, Row
from dissect_xr.probe.pixels import open_labels
from dissect_xr.probe.readers.coco.annotations import Annotations, ImageEntry, category_of, read_annotations
from dissect_xr.probe.readers.coco.shapes import Vocabulary

CATEGORY = "object"
"""Of all concepts: in Broden, sky and road are objects, too."""


def read_coco_panoptic(
    images: str | Path,
    maps: str | Path,
    annotations: str | Path,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of a panoptic file such as `panoptic_val2017.json` and its PNGs. No image is read.

    Parameters
    ----------
    images
        Folder of the images.
    maps
        Folder of the PNGs.
    annotations
        The JSON file.
    label_size
        (rows, columns) of the probe's label grid; None takes the size of the first image.
    categories
        Categories to keep; None keeps all.

    Raises
    ------
    DissectError
        If a file is missing or malformed, or an image has no annotation; it names the entry.

    References
    ----------
    Kirillov et al. 2019, Panoptic Segmentation.
    """
    read, folders = read_annotations(Path(annotations)), (Path(images), Path(maps))
    for folder in folders:
        if not folder.is_dir():
            raise DissectError(f"{folder}: expected a folder, found none.")
    if not read.images:
        raise DissectError(f"{annotations}: `images` is empty. Expected at least one.")
    vocabulary = Vocabulary.of(read, category=CATEGORY)
    size = label_size or read.images[0].size
    parameters: dict[str, Any] = {"layout": "coco_panoptic", "label_size": list(size)}
    return LabelSet(
        images=str(images),
        maps=str(maps),
        rows=tuple(_row(image, read, vocabulary) for image in read.images),
        concepts=vocabulary.concepts,
        categories=(CATEGORY,),
        planes=(CATEGORY,),
        decode=decode_segments,
        label_size=size,
        void=frozenset({vocabulary.void}),
        parameters=parameters | ({"offset": vocabulary.offset} if vocabulary.offset else {}),
    ).of_categories(categories)


def decode_segments(path: Path) -> NDArray[np.uint32]:
    """Numbers of segments (row, col) of an 8-bit RGB PNG: R + 256 * G + 65,536 * B."""
    with open_labels(path) as image:
        if image.mode != "RGB":
            raise Fault(
                f"{path}: expected segments as 8-bit RGB (R + 256 * G + 65,536 * B), got {image.mode}.",
                f"label map: it is no 8-bit RGB but {image.mode}",
                shared=True,
            )
        pixels = np.asarray(image).astype(np.uint32)
    segments: NDArray[np.uint32] = pixels[..., 0] + 256 * pixels[..., 1] + 65_536 * pixels[..., 2]
    return segments


def _row(image: ImageEntry, read: Annotations, vocabulary: Vocabulary) -> Row:
    """One image with its PNG and the concepts of its segments."""
    listed = read.entries.get(image.id, ())
    if len(listed) != 1:
        raise DissectError(f"{image.where}: expected one entry of `annotations`, found {len(listed)}.")
    name, segments = listed[0].get("file_name"), listed[0].get("segments_info")
    if not isinstance(name, str) or not isinstance(segments, list):
        raise DissectError(
            f"{image.where}: expected an annotation with file_name and segments_info. Files of instances, with "
            "polygons, are `kind: coco`."
        )
    numbers = {0: vocabulary.void}
    for segment in segments:
        number, meaning = _segment(segment, image, read, vocabulary)
        if number in numbers:
            raise DissectError(f"{image.where}: segment {number} is listed twice. Remove one of the two.")
        numbers[number] = meaning
    path = image.name
    split = path.split("/")[0] if "/" in path else "all"
    return Row(path, split, ((0, name),), (), image.size, image.where, segments=tuple(sorted(numbers.items())))


def _segment(segment: Any, image: ImageEntry, read: Annotations, vocabulary: Vocabulary) -> tuple[int, int]:
    """The number of a segment in the PNG, and that of its concept, or of ignored pixels."""
    number = segment.get("id") if isinstance(segment, Mapping) else None
    if type(number) is not int or not 0 < number < 2**24:
        raise DissectError(f"{image.where}: expected segments with ids from 1 to {2**24 - 1:,}, got {number!r}.")
    where, crowd = f"{image.where}, segment {number}", segment.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DissectError(f"{where}: expected iscrowd as 0 or 1, got {crowd!r}.")
    meaning = vocabulary.numbers[category_of(segment, read.categories, where)][0]
    return number, vocabulary.void if crowd else meaning
