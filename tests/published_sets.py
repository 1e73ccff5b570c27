"""Small copies of published sets, as their files are: the same two images in every format that has their labels.

Knows: folders, names of files, numbers and colours of each format.
Does not know: how dissect_xr reads them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr.probe.ingest import open_probe, write_probe
from dissect_xr.probe.label_set import LabelSet

NOTHING, ROAD, SKY, CAR = range(4)

FIRST = np.array([[1, 1, 2, 2], [1, 0, 2, 2], [1, 3, 3, 0], [1, 3, 3, 0]])
"""Road 5, sky 4, car 4, nothing 3."""

SECOND = np.array([[2, 2, 2, 2], [2, 2, 2, 2], [0, 0, 1, 1], [1, 1, 1, 1]])
"""Sky 8, road 6, nothing 2."""

AREAS = {"road": 11, "sky": 12, "car": 4}
NO_LABEL = 5
"""Pixels of the two images without a label."""


def save(path: Path, pixels: NDArray[Any], *, palette: Sequence[int] | None = None) -> Path:
    """Pixels as a file; with a palette, they are its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels).astype(np.uint8))
    if palette is not None:
        image.putpalette(list(palette))
    image.save(path)
    return path


def photo(path: Path, shape: tuple[int, int] = (4, 4), shade: int = 90) -> Path:
    """An image, as JPEG or PNG by its suffix."""
    return save(path, np.full((*shape, 3), shade))


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def numbered(codes: NDArray[Any], numbers: Sequence[int]) -> NDArray[Any]:
    """The codes above as the numbers of a format: those of nothing, road, sky and car."""
    return np.array(numbers)[codes]


def probed(found: LabelSet, folder: Path) -> Any:
    """The probe of a label set, in memory."""
    write_probe(found, folder / "probe.zarr", show=False)
    return open_probe(folder / "probe.zarr").load()


def areas(probe: Any, *, all: bool = False) -> dict[str, int]:
    """Name of a concept -> its pixels, for those that occur, or for all."""
    names = probe["concept_name"].values.tolist()
    found = dict(zip(names, probe["concept_area"].values.tolist(), strict=True))
    return found if all else {name: area for name, area in found.items() if area}


# --- ADE20K ---


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016: grey PNGs, a table with tabs, scenes of all images."""
    names = {1: "wall", 3: "sky", 7: "road, route", 21: "car, auto, automobile, machine, motorcar"}
    rows = [f"{n}\t0.0{n}\t11664\t1172\t1\t{names.get(n, f'class {n}')}" for n in range(1, 151)]
    text(root / "objectInfo150.txt", "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows, ""]))
    text(root / "sceneCategories.txt", "ADE_train_00000001 street\nADE_train_00000002 highway\nADE_val_00000001 misc\n")
    for split, name, codes in (
        ("training", "ADE_train_00000001", FIRST),
        ("validation", "ADE_val_00000001", SECOND),
    ):
        photo(root / "images" / split / f"{name}.jpg")
        save(root / "annotations" / split / f"{name}.png", numbered(codes, [0, 7, 3, 21]))
    return root


def rg(numbers: NDArray[Any], instances: int = 1) -> NDArray[Any]:
    """Numbers as ADE20K has them in RGB: R = 10 * (number // 256), G = number % 256, B counts instances."""
    return np.stack([numbers // 256 * 10, numbers % 256, np.where(numbers, instances, 0)], axis=-1)


def ade_object(identity: int, number: int, name: str, level: int = 0, whole: Any = ()) -> dict[str, Any]:
    """One object or part of a JSON file."""
    return {
        "id": identity, "name": name, "name_ndx": number, "hypernym": [], "raw_name": name, "attributes": [],
        "depth_ordering_rank": identity + 1, "occluded": [], "crop": "0",
        "parts": {"hasparts": [], "ispartof": list(whole) if isinstance(whole, tuple) else whole, "part_level": level},
        "instance_mask": f"x/instance_{identity:03d}_x.png", "polygon": {"x": [0, 1], "y": [0, 1], "click_date": []},
        "saved_date": "18-Dec-2005 06:56:48",
    }  # fmt: skip


def ade_json(path: Path, objects: Any, scene: Any) -> Path:
    """The JSON file beside an image, in Latin-1."""
    annotation = {"filename": f"{path.stem}.jpg", "folder": "ADE20K_2021_17_01/images/ADE", "imsize": [4, 4, 3]}
    content = {"annotation": annotation | {"scene": scene, "object": objects}}
    return text(path, json.dumps(content, ensure_ascii=False), "latin-1")


CAR_NUMBER, ROAD_NUMBER, SKY_NUMBER, WHEEL, WINDOW, RIM = 401, 2131, 2420, 3035, 3050, 2122


def ade20k_full(root: Path) -> Path:
    """ADE20K_2021_17_01: objects with numbers above 255, parts of cars and of wheels, a window of no car."""
    street = root / "images/ADE/training/urban/street/ADE_train_00000001"
    photo(street.with_suffix(".jpg"))
    save(Path(f"{street}_seg.png"), rg(numbered(FIRST, [0, ROAD_NUMBER, SKY_NUMBER, CAR_NUMBER])))
    parts = np.zeros((4, 4), int)
    parts[2, 1], parts[3, 1:3] = WINDOW, WHEEL
    save(Path(f"{street}_parts_1.png"), rg(parts))
    save(Path(f"{street}_parts_2.png"), rg(np.where((parts == WHEEL) & (np.arange(4) == 2), RIM, 0)))
    objects = [
        ade_object(0, ROAD_NUMBER, "road, route"), ade_object(1, SKY_NUMBER, "sky"),
        ade_object(2, CAR_NUMBER, "car, auto"), ade_object(3, WINDOW, "window", 1, 2),
        ade_object(4, WHEEL, "wheel", 1, 2), ade_object(5, RIM, "rim", 2, 4), ade_object(6, WHEEL, "wheel", 1, 2),
    ]  # fmt: skip
    ade_json(street.with_suffix(".json"), objects, ["outdoor", "urban", "street"])
    house = root / "images/ADE/validation/urban/house/ADE_val_00000001"
    photo(house.with_suffix(".jpg"))
    save(Path(f"{house}_seg.png"), rg(numbered(SECOND, [0, WINDOW, SKY_NUMBER, 0])))
    # A window that is no part; a single object is no list, and the name has an accent in Latin-1.
    sky = ade_object(0, SKY_NUMBER, "sky")
    ade_json(house.with_suffix(".json"), [sky, ade_object(1, WINDOW, "window"), ade_object(2, 77, "café")], [])
    return root


# --- PASCAL ---


def voc_palette() -> list[int]:
    """The palette of VOC: the bits of the index, three by three, from the highest bit of each channel on."""
    colors = []
    for index in range(256):
        color, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                color[channel] |= (rest >> channel & 1) << bit
            rest >>= 3
        colors += color
    return colors


def voc(root: Path) -> Path:
    """VOCdevkit/VOC2012: palettes, a border of 255 around a car (7) and a person (15), images without label maps."""
    for name in ("2007_000032", "2007_000033", "2011_003276"):
        photo(root / "JPEGImages" / f"{name}.jpg")
    first = np.array([[0, 255, 255, 255], [0, 255, 7, 255], [0, 255, 255, 255], [0, 0, 0, 0]])
    second = np.array([[15, 15, 255, 0], [15, 15, 255, 0], [255, 255, 255, 7], [0, 0, 255, 7]])
    for name, numbers in (("2007_000032", first), ("2007_000033", second)):
        save(root / "SegmentationClass" / f"{name}.png", numbers, palette=voc_palette())
        save(
            root / "SegmentationObject" / f"{name}.png", np.where(numbers % 255 > 0, 1, numbers), palette=voc_palette()
        )
    lists = root / "ImageSets" / "Segmentation"
    text(lists / "train.txt", "2007_000032\n")
    text(lists / "val.txt", "2007_000033\n")
    text(lists / "trainval.txt", "2007_000032\n2007_000033\n")
    return root


def mat_structs(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> NDArray[Any]:
    """A 1 x n array of structs; MATLAB saves one without entries as an empty array of numbers."""
    if not rows:
        return np.zeros((0, 0))
    found = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for n, row in enumerate(rows):
        for name in fields:
            found[name][0, n] = row[name]
    return found


def mask(*cells: tuple[int, int], shape: tuple[int, int] = (4, 4)) -> NDArray[np.uint8]:
    found = np.zeros(shape, np.uint8)
    for row, col in cells:
        found[row, col] = 1
    return found


def box(rows: slice, cols: slice, shape: tuple[int, int] = (4, 4)) -> NDArray[np.uint8]:
    found = np.zeros(shape, np.uint8)
    found[rows, cols] = 1
    return found


PERSON = {
    "class": "person", "class_ind": 15, "mask": box(slice(0, 4), slice(0, 2)),
    "parts": [
        {"part_name": "head", "mask": box(slice(0, 2), slice(0, 2))},
        {"part_name": "leye", "mask": mask((0, 0))}, {"part_name": "reye", "mask": mask((0, 1))},
        {"part_name": "llleg", "mask": mask((3, 0))}, {"part_name": "ruleg", "mask": mask((3, 1))},
    ],
}  # fmt: skip
"""A head of four pixels, of which the eyes are two; two legs."""

BUS = {
    "class": "bus", "class_ind": 6, "mask": box(slice(2, 4), slice(1, 4)),
    "parts": [
        {"part_name": "wheel_1", "mask": mask((3, 2))}, {"part_name": "wheel_2", "mask": mask((3, 3))},
        {"part_name": "frontside", "mask": mask((2, 2))},
    ],
}  # fmt: skip
"""It lies behind the person's legs, at (2, 1) and (3, 1)."""

CHAIR = {"class": "chair", "class_ind": 9, "mask": mask((1, 1), (1, 2)), "parts": []}


def pascal_part(root: Path) -> Path:
    """Annotations_Part and the images of VOC2010; one image has no object."""
    from scipy.io import savemat

    for name, objects in (("2008_000008", [PERSON, BUS]), ("2008_000015", [CHAIR]), ("2008_000019", [])):
        photo(root / "VOC2010" / "JPEGImages" / f"{name}.jpg")
        rows = [
            one | {"class_ind": float(one["class_ind"]), "parts": mat_structs(one["parts"], ["part_name", "mask"])}
            for one in objects
        ]
        anno = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
        anno[0, 0] = (name, mat_structs(rows, ["class", "class_ind", "mask", "parts"]))
        path = root / "part" / "Annotations_Part" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"anno": anno}, do_compression=True)
    main = root / "VOC2010" / "ImageSets" / "Main"
    text(main / "train.txt", "2008_000008\n2008_000019\n")
    text(main / "val.txt", "2008_000015\n2009_999999\n")
    return root


def pascal_context(root: Path) -> Path:
    """trainval/*.mat with LabelMap of 16 bits, labels.txt of all classes, 59_labels.txt of other numbers and names."""
    from scipy.io import savemat

    names = {n: f"thing {n}" for n in range(1, 460)}
    names |= {2: "aeroplane", 105: "cloth", 355: "road", 360: "sky", 415: "table", 431: "unknown", 27: "bedclothes"}
    text(root / "context/labels.txt", "".join(f"{n}: {name}\n" for n, name in names.items()))
    text(root / "context/59_labels.txt", "1: aeroplane\n2: clothes\n3: diningtable\n4: sky\n5: bedcloth\n")
    first = numbered(FIRST, [0, 355, 360, 415])
    second = numbered(SECOND, [431, 105, 360, 0])
    for name, labels in (("2008_000008", first), ("2008_000015", second)):
        photo(root / "VOC2010" / "JPEGImages" / f"{name}.jpg")
        path = root / "context" / "trainval" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"LabelMap": labels.astype(np.uint16)}, do_compression=True)
    return root


# --- street scenes ---


def cityscapes(root: Path) -> Path:
    """leftImg8bit and gtFine with both kinds of ids; what is nothing here is the car's hood (1) and parking (9)."""
    for split, city, codes, nothing, trained in (
        ("train", "aachen", FIRST, 1, 255),
        ("val", "lindau", SECOND, 9, 255),
        ("test", "berlin", np.zeros((4, 4), int), 3, 255),
    ):
        stem = f"{split}/{city}/{city}_000000_000019"
        photo(root / "leftImg8bit" / f"{stem}_leftImg8bit.png")
        labels = root / "gtFine" / stem
        save(Path(f"{labels}_gtFine_labelIds.png"), numbered(codes, [nothing, 7, 23, 26]))
        save(Path(f"{labels}_gtFine_labelTrainIds.png"), numbered(codes, [trained, 0, 10, 13]))
        save(Path(f"{labels}_gtFine_instanceIds.png"), numbered(codes, [nothing, 7, 23, 26]))
        text(Path(f"{labels}_gtFine_polygons.json"), "{}")
    return root


VISTAS = ("Road", "Bird", "Sky", "Car", "Ego Vehicle", "Unlabeled")


def vistas_config(path: Path, readable: Sequence[str], ambiguous: Sequence[str] = ()) -> Path:
    labels = [
        {
            "color": [n, n, n], "instances": False, "readable": name, "evaluate": name not in ("Unlabeled", *ambiguous),
            "name": "void--unlabeled" if name == "Unlabeled" else f"object--{n}--{name.lower().replace(' ', '-')}",
        }
        for n, name in enumerate(readable)
    ]  # fmt: skip
    return text(path, json.dumps({"labels": labels, "version": 1.1, "mapping": "public", "folder_structure": {}}))


def vistas(root: Path) -> Path:
    """Mapillary Vistas v1.2 as it was first published; the last class is none."""
    vistas_config(root / "config.json", VISTAS)
    palette = [channel for n in range(256) for channel in (n, 0, 255 - n)]
    for split, codes in (("training", FIRST), ("validation", SECOND)):
        photo(root / split / "images" / "a1B2.jpg")
        save(root / split / "labels" / "a1B2.png", numbered(codes, [5, 0, 2, 3]), palette=palette)
        instances = (numbered(codes, [5, 0, 2, 3]) * 256).astype(np.uint16)
        (root / split / "instances").mkdir(parents=True)
        Image.fromarray(instances).save(root / split / "instances" / "a1B2.png")
    photo(root / "testing" / "images" / "c3.jpg")
    return root


CAMVID_COLORS = {
    "Animal": (64, 128, 64), "Car": (64, 0, 128), "Road": (128, 64, 128), "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192), "Void": (0, 0, 0),
}  # fmt: skip


def camvid(root: Path) -> Path:
    """CamVid: label maps as RGB, called as the images with `_L` behind, and its table of colours with tabs."""
    rows = [f"{r} {g} {b}\t{name}" for name, (r, g, b) in CAMVID_COLORS.items()]
    text(root / "label_colors.txt", "\r\n".join(rows) + "\r\n")
    table = np.array([CAMVID_COLORS[name] for name in ("Void", "Road", "Sky", "Car")])
    for name, codes in (("0001TP_006690", FIRST), ("0016E5_07959", SECOND)):
        photo(root / "701_StillsRaw_full" / f"{name}.png")
        save(root / "LabeledApproved_full" / f"{name}_L.png", table[codes])
    return root


# --- tags ---


def dtd(root: Path) -> Path:
    """DTD: an image has the class of its folder, and others; its lists end lines with a space."""
    images = {
        "banded/banded_0002.jpg": "banded", "banded/banded_0006.jpg": "banded striped",
        "striped/striped_0001.jpg": "striped", "woven/woven_0001.jpg": "banded woven",
    }  # fmt: skip
    for image in images:
        photo(root / "images" / image)
    text(root / "labels/labels_joint_anno.txt", "".join(f"{image} {tags} \n" for image, tags in images.items()))
    for partition, order in ((1, [0, 1, 2, 3]), (2, [3, 2, 1, 0])):
        names = [list(images)[n] for n in order]
        text(root / f"labels/train{partition}.txt", f"{names[0]}\n{names[1]}\n")
        text(root / f"labels/val{partition}.txt", f"{names[2]}\n")
        text(root / f"labels/test{partition}.txt", f"{names[3]}\n")
    return root


def tags(root: Path) -> Path:
    """A table of tags: two of an image, an empty one, categories, a note."""
    for name in ("a.jpg", "b.jpg", "c.jpg", "left_out.jpg"):
        photo(root / "photos" / name)
    rows = ["image,tag,category,split", "a.jpg,dog,animal,train", "a.jpg,indoor,place,train", "b.jpg,dog,animal,train",
            "c.jpg,,,val", "b.jpg,outdoor,place,train"]  # fmt: skip
    text(root / "tags.csv", "\n".join(rows) + "\n")
    return root


def image_folders(root: Path) -> Path:
    """ImageFolder: a folder for each tag, at any depth."""
    for name in ("cat/1.jpg", "cat/more/2.jpg", "dog/3.jpg"):
        photo(root / name)
    return root
