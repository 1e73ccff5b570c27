"""Small sets as COCO, LVIS, PACO and PartImageNet publish them, where docs/labels.md has them; two images each at most.

Knows: which folders and files each set has.
Does not know: dissect_xr.
"""

from pathlib import Path

import coco
import numpy as np
from PIL import Image

SIZE = (4, 6)
PIXELS = SIZE[0] * SIZE[1]
IMAGES = [coco.image(139, SIZE), coco.image(285, SIZE)]


def instances(root: Path) -> None:
    """A cat below a dog that covers a part of it, and a crowd of dogs."""
    coco.photographs(root / "val2017", IMAGES)
    drawn = [
        coco.annotation(1, 139, 17, coco.rectangle(0, 0, 2, 3)),
        coco.annotation(2, 139, 18, coco.rle(coco.filled(SIZE, 1, 1, 4, 4))),
        coco.annotation(3, 285, 18, coco.rle(coco.filled(SIZE, 0, 0, 1, 6), text=False), iscrowd=1),
        coco.annotation(4, 285, 17, coco.rectangle(2, 0, 4, 6)),
    ]
    coco.write(
        root / "annotations/instances_val2017.json", IMAGES, drawn, [coco.category(17, "cat"), coco.category(18, "dog")]
    )


def panoptic(root: Path) -> None:
    """Two segments of a person, one of grass, and a pixel of none."""
    coco.photographs(root / "val2017", IMAGES[:1])
    segments = np.full(SIZE, 3_937_500)
    segments[2:], segments[0, 0], segments[1, 5] = 2_330_219, 0, 77
    coco.save_segments(root / "annotations/panoptic_val2017/000000000139.png", segments)
    kinds = [coco.category(1, "person", "person", isthing=1), coco.category(193, "grass-merged", "plant", isthing=0)]
    listed = [coco.panoptic(139, {77: 1, 2_330_219: 193, 3_937_500: 1})]
    coco.write(root / "annotations/panoptic_val2017.json", IMAGES[:1], listed, kinds)


def stuff(root: Path) -> None:
    """Sky above what is no stuff."""
    coco.photographs(root / "val2017", IMAGES[:1])
    drawn = [
        coco.annotation(1, 139, 157, coco.rle(coco.filled(SIZE, 0, 0, 1, 6))),
        coco.annotation(2, 139, 183, coco.rle(coco.filled(SIZE, 1, 0, 4, 6))),
    ]
    kinds = [coco.category(157, "sky-other", "sky"), coco.category(183, "other", "other")]
    coco.write(root / "annotations/stuff_val2017.json", IMAGES[:1], drawn, kinds)


def stuff_maps(root: Path) -> None:
    """Sky, persons, and a border of nothing."""
    photographs = [coco.image(49, SIZE, file_name="train2017/000000000049.jpg")]
    coco.photographs(root / "images", photographs)
    labels = np.full(SIZE, 156, np.uint8)
    labels[2:], labels[:, 5] = 0, 255
    path = root / "stuffthingmaps/train2017/000000000049.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(labels).save(path)
    (root / "labels.txt").write_text("0: unlabeled\n1: person\n157: sky-other\n")


def lvis(root: Path) -> None:
    """Cans in one image; bags were looked for there, and are not."""
    images = [
        coco.image(
            number, SIZE, file_name=None, coco_url=f"http://images.cocodataset.org/val2017/{number:012d}.jpg",
            neg_category_ids=absent, not_exhaustive_category_ids=[],
        )
        for number, absent in ((139, [35]), (285, []))
    ]  # fmt: skip
    coco.photographs(root, images)
    kinds = [{"id": 1, "name": "aerosol_can", "frequency": "c"}, {"id": 35, "name": "handbag", "frequency": "f"}]
    drawn = [
        coco.annotation(1, 139, 1, coco.rectangle(0, 0, 2, 2), iscrowd=None),
        coco.annotation(2, 285, 35, coco.rectangle(0, 0, 4, 1), iscrowd=None),
    ]
    coco.write(root / "annotations/lvis_v1_val.json", images, drawn, kinds)


def paco(root: Path) -> None:
    """A mug and its handle."""
    one = coco.image(
        139, SIZE, file_name="val2017/000000000139.jpg", neg_category_ids=[], not_exhaustive_category_ids=[]
    )
    coco.photographs(root, [one])
    kinds = [
        {"id": 56, "name": "mug", "supercategory": "OBJECT"},
        {"id": 300, "name": "mug:handle", "supercategory": "PART"},
    ]
    drawn = [
        coco.annotation(1, 139, 56, coco.rectangle(0, 0, 3, 4), obj_ann_id=1),
        coco.annotation(2, 139, 300, coco.rectangle(1, 3, 3, 4), obj_ann_id=1),
    ]
    coco.write(root / "annotations/paco_lvis_v1_val.json", [one], drawn, kinds)


def part_imagenet(root: Path) -> None:
    """A head and a body, which are an animal together."""
    one = coco.image(0, SIZE, file_name="n02100583_13225.JPEG")
    coco.photographs(root / "images/val", [one])
    kinds = [coco.category(0, "Quadruped Head", "Quadruped"), coco.category(1, "Quadruped Body", "Quadruped")]
    drawn = [
        coco.annotation(0, 0, 0, coco.rectangle(0, 0, 2, 3)),
        coco.annotation(1, 0, 1, coco.rectangle(1, 2, 4, 6)),
    ]
    coco.write(root / "annotations/val.json", [one], drawn, kinds)
