"""Files as COCO, LVIS, PACO and PartImageNet have them, written field by field.

Knows: the fields of the published files, and run-length codes as the COCO API writes them, pixel by pixel.
Does not know: dissect_xr.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Entry = dict[str, Any]


def runs_of(mask: NDArray[Any]) -> list[int]:
    """The runs of a mask (row, col), column by column, beginning with zeros.

    >>> runs_of(np.array([[0, 1], [1, 1]])), runs_of(np.array([[1, 0]]))
    ([1, 3], [0, 1, 1])
    """
    runs, value = [0], False
    for col in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if bool(mask[row, col]) != value:
                value = not value
                runs.append(0)
            runs[-1] += 1
    return runs


def compressed(runs: Sequence[int]) -> str:
    """Runs as text: the fourth and later ones as differences from the run before the last, 5 bits in each character.

    >>> compressed([0, 84]), compressed([1, 2, 3, 6, 1, 3])
    ('0d2', '1234NM')
    """
    text = ""
    for n, run in enumerate(runs):
        number = run - runs[n - 2] if n > 2 else run
        while True:
            five, number = number & 31, number >> 5
            done = number == (-1 if five & 16 else 0)
            text += chr(48 + five + (0 if done else 32))
            if done:
                break
    return text


def rle(mask: NDArray[Any], *, text: bool = True) -> Entry:
    """The code of a mask: text as most files have it, or a list as crowds have it."""
    runs = runs_of(mask)
    return {"size": list(mask.shape), "counts": compressed(runs) if text else runs}


def rectangle(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    """The polygon around the pixels of rows top to bottom - 1 and columns left to right - 1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def filled(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    """The mask of these pixels."""
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def image(number: int, size: tuple[int, int], **fields: Any) -> Entry:
    """An image as COCO lists it; a field that is None is left out."""
    usual = {
        "license": 2, "file_name": f"{number:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/val2017/{number:012d}.jpg", "height": size[0], "width": size[1],
        "date_captured": "2013-11-20 16:47:35", "flickr_url": f"http://farm5.staticflickr.com/4028/{number}_z.jpg",
        "id": number,
    }  # fmt: skip
    return {name: value for name, value in (usual | fields).items() if value is not None}


def annotation(number: int, image: int, category: int, segmentation: Any, **fields: Any) -> Entry:
    """An annotation as COCO lists it; a field that is None is left out."""
    usual = {
        "segmentation": segmentation, "area": 12.5, "iscrowd": 0, "image_id": image, "bbox": [1.0, 2.0, 3.5, 4.5],
        "category_id": category, "id": number,
    }  # fmt: skip
    return {name: value for name, value in (usual | fields).items() if value is not None}


def category(number: int, name: str, supercategory: str = "animal", **fields: Any) -> Entry:
    """A category as COCO lists it."""
    return {"supercategory": supercategory, "id": number, "name": name} | fields


def write(
    path: Path, images: Sequence[Entry], annotations: Sequence[Entry], categories: Sequence[Entry], **more: Any
) -> Path:
    """A JSON file with these lists, on one line as the published files are."""
    content = {
        "info": {"description": "COCO 2017 Dataset", "url": "http://cocodataset.org", "version": "1.0", "year": 2017},
        "licenses": [{"url": "http://creativecommons.org/licenses/by-nc/2.0/", "id": 2, "name": "Attribution"}],
        "images": list(images),
        "annotations": list(annotations),
        "categories": list(categories),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more))
    return path


def photographs(folder: Path, images: Iterable[Entry]) -> Path:
    """An image file for every entry, of its size; each has other bytes than all others."""
    for n, entry in enumerate(images):
        path = folder / entry.get("file_name", "/".join(entry.get("coco_url", "").split("/")[-2:]))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (entry["width"], entry["height"]), (n % 256, n // 256, entry["id"] % 256)).save(path, "PNG")
    return folder


def save_segments(path: Path, segments: NDArray[Any]) -> None:
    """Segments as a panoptic PNG: R + 256 * G + 65,536 * B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = segments.astype(np.int64)
    rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65_536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def panoptic(image: int, segments: Mapping[int, int], crowds: Iterable[int] = ()) -> Entry:
    """The annotation of an image in a panoptic file: number of each segment -> its category."""
    listed = [
        {"area": 3528, "category_id": category, "iscrowd": int(n in crowds), "id": n, "bbox": [282, 207, 48, 149]}
        for n, category in segments.items()
    ]
    return {"segments_info": listed, "file_name": f"{image:012d}.png", "image_id": image}
