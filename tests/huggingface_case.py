"""Datasets of Hugging Face as they are on disk: Parquet files of the Hub, and what `save_to_disk` writes.

Knows: pyarrow, and the files and features that the library `datasets` writes.
Does not know: how dissect_xr reads them.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import published_sets as sets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from published_sets import FIRST, SECOND

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

FEATURES = {
    "image": {"_type": "Image"},
    "annotation": {"_type": "Image"},
    "scene_category": {"names": ["indoor", "street", "sea"], "_type": "ClassLabel"},
    "weather": {"feature": {"names": ["dry", "wet"], "_type": "ClassLabel"}, "_type": "List"},
    "place": {"dtype": "string", "_type": "Value"},
}

SCHEMA = pa.schema(
    [
        ("image", IMAGE), ("annotation", IMAGE), ("scene_category", pa.int64()),
        ("weather", pa.list_(pa.int64())), ("place", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)  # fmt: skip


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind)
    return file.getvalue()


PHOTO = encoded(np.full((4, 4, 3), 90), "JPEG")


def row(codes: np.ndarray, scene: Any, weather: Any, place: Any, numbers: tuple[int, ...] = (0, 1, 2, 3)) -> dict:
    return {
        "image": {"bytes": PHOTO, "path": "photo.jpg"},
        "annotation": {"bytes": encoded(sets.numbered(codes, numbers)), "path": None},
        "scene_category": scene, "weather": weather, "place": place,
    }  # fmt: skip


ROWS = [row(FIRST, 1, [0, 1], "Rome"), row(SECOND, None, [], None)]


def table(rows: list[dict], schema: Any = SCHEMA) -> Any:
    return pa.Table.from_pylist(rows, schema=schema)


def saved(folder: Path, rows: list[dict], schema: Any = SCHEMA) -> Path:
    """A dataset as `save_to_disk` writes one."""
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        writer.write_table(table(rows, schema))
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "ae87", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def saved_splits(folder: Path, splits: dict[str, list[dict]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for name, rows in splits.items():
        saved(folder / name, rows)
    return folder


def hub(folder: Path, splits: dict[str, list[dict]]) -> Path:
    """The Parquet files of a repository on the Hub, a row in each."""
    (folder / "data").mkdir(parents=True)
    for name, rows in splits.items():
        for n, one in enumerate(rows):
            pq.write_table(table([one]), folder / "data" / f"{name}-{n:05d}-of-{len(rows):05d}.parquet")
    return folder
