"""A small Broden+: its tables, records and the files of the three sets, two images of ADE20K, one of each other.

Knows: the files of the repository `unifiedparsing`.
Does not know: how dissect_xr reads them.
"""

import json
from pathlib import Path

import numpy as np
from published_sets import FIRST, SECOND, box, mask, mat_structs, numbered, photo, rg, save, text
from scipy.io import savemat

OBJECTS = {1: "wall", 2: "sky", 5: "building", 6: "person", 13: "car"}
PARTS = {1: "leg", 2: "head", 6: "eye", 12: "wheel", 82: "cloud"}
SCENES = {0: "airfield", 1: "street", 2: "zen_garden"}
MATERIALS = {1: "brick", 25: "wood"}

ASSIGNMENT = """\
dataset,category,raw_label,raw_name,broden_label,broden_name
ade20k,object,1,-,0,-
ade20k,object,401,car;auto;automobile;machine;motorcar,13,car
ade20k,object,2420,sky,2,sky
ade20k,object,2978,wall,1,wall
ade20k,part,3035,wheel,12,wheel
ade20k,part,700,cloud,82,cloud
pascal,object,258,person,6,person
pascal,object,431,-,0,-
pascal,part,12,head,2,head
pascal,part,13,eye,6,eye
pascal,part,15,leg,1,leg
pascal,part,20,,0,-
ade20k,scene,0,,-1,zen_garden
ade20k,scene,1,airfield-s,0,airfield
ade20k,scene,2,street_outdoor-s,1,street
os,material,0,,0,-
os,material,1,brick,1,brick
os,material,5,chalkboard;blackboard,0,-
os,material,43,wood,25,wood
"""


def tables(meta: Path) -> None:
    """The lists of labels, and what is what."""
    for category, names in (("object", OBJECTS), ("part", PARTS), ("scene", SCENES), ("material", MATERIALS)):
        rows = ([] if category == "scene" else ["0,-"]) + [f"{n},{name}" for n, name in names.items()]
        text(meta / f"{category}.csv", "\n".join(["label,name", *rows, ""]))
    text(meta / "label_assignment.csv", ASSIGNMENT)
    text(
        meta / "object_part_hierarchy.csv",
        "object_label,object_name,part_labels,part_names\n2,sky,0;82,-;cloud\n6,person,0;1;2;6,-;leg;head;eye\n"
        "13,car,0;12,-;wheel\n",
    )


def ade20k(folder: Path, meta: Path) -> None:
    """Three images of the release of 2016, of which the second is in no record, and their index."""
    names = ("ADE_train_00000001", "ADE_train_00000002", "ADE_val_00000001")
    below = [f"ADE20K_2016_07_26/images/training/s/{n}" for n in range(3)]
    index = np.empty((1, 1), dtype=[("filename", object), ("folder", object)])
    cells = [np.empty((1, 3), object), np.empty((1, 3), object)]
    for n, name in enumerate(names):
        cells[0][0, n], cells[1][0, n] = f"{name}.jpg", below[n]
    index[0, 0] = tuple(cells)
    (meta / "ade20k").mkdir(parents=True, exist_ok=True)
    savemat(meta / "ade20k/index_ade20k.mat", {"index": index})
    text(
        meta / "ade20k/scene_categories.txt",
        "".join(f"{name} {scene}\n" for name, scene in zip(names, ("street/outdoor", "airfield", "misc"), strict=True)),
    )
    for n, codes in ((0, FIRST), (2, SECOND)):
        stem = folder / "ade20k" / below[n] / names[n]
        photo(stem.with_suffix(".jpg"))
        save(Path(f"{stem}_seg.png"), rg(numbered(codes, [0, 2978, 2420, 401])))
    # Wheels: two on the car, one on the wall, where it is no part. 2,122 is in no table.
    parts = np.zeros((4, 4), int)
    parts[3, 1], parts[3, 2], parts[2, 0], parts[2, 1] = 3035, 3035, 3035, 2122
    save(Path(f"{folder / 'ade20k' / below[0] / names[0]}_parts_1.png"), rg(parts))
    save(Path(f"{folder / 'ade20k' / below[0] / names[0]}_parts_2.png"), rg(parts))


def pascal(folder: Path) -> None:
    """Two images; the second has a person with a head, an eye in it, and a leg that sticks out of the person."""
    person = box(slice(0, 4), slice(0, 2))
    parts = [
        {"part_name": "head", "mask": box(slice(0, 2), slice(0, 2))}, {"part_name": "leye", "mask": mask((0, 0))},
        {"part_name": "rlleg", "mask": mask((3, 1), (3, 2))},
    ]  # fmt: skip
    objects = [{"class": "person", "class_ind": 15, "mask": person, "parts": mat_structs(parts, ["part_name", "mask"])}]
    for name, rows in (("2008_000001", []), ("2008_000008", objects)):
        photo(folder / "pascal/VOC2010/JPEGImages" / f"{name}.jpg")
        anno = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
        anno[0, 0] = (name, mat_structs(rows, ["class", "class_ind", "mask", "parts"]))
        for where, content in (
            ("part/Annotations_Part", {"anno": anno}),
            ("context/trainval", {"LabelMap": np.where(person, 258, 431).astype(np.uint16)}),
        ):
            path = folder / "pascal" / where / f"{name}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            savemat(path, content)


def opensurfaces(folder: Path) -> None:
    """Photographs by number; materials are red, objects green, the scene blue."""
    text(folder / "opensurfaces/photos.csv", "photo_id,scene_category_name,fov\n101,kitchen,30\n77,bathroom,\n")
    photo(folder / "opensurfaces/photos/77.jpg")
    red = np.array([[1, 1, 43, 43], [1, 5, 43, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    labels = np.stack([red, np.full((4, 4), 9), np.full((4, 4), 3)], axis=-1)
    save(folder / "opensurfaces/photos-labels/77.png", labels)


def broden_plus(root: Path) -> Path:
    """`broden_dataset` and `meta_file` below a folder."""
    folder, meta = root / "broden_dataset", root / "meta_file"
    tables(meta)
    ade20k(folder, meta)
    pascal(folder)
    opensurfaces(folder)
    records = {
        "broden_ade20k_pascal_train.json": [
            {"dataset": "ade20k", "file_index": 0, "nr_part": 1, "height": 4, "width": 4},
            {"nr_part": 375, "dataset": "pascal", "file_index": 1, "height": 4, "width": 4},
        ],
        "broden_os_train.json": [{"file_index": 1, "dataset": "os", "width": 4, "height": 4}],
        "broden_ade20k_pascal_val.json": [{"dataset": "ade20k", "file_index": 2, "height": 4, "width": 4}],
    }
    for name, lines in records.items():
        text(meta / name, "".join(f"{json.dumps(line)}\n" for line in lines))
    return root
