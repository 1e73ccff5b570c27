"""Whatever happens to a file of a published set: a message, or a probe; never another error, and nothing half made."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import broden_plus_case
import published_sets as sets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import scratch
from test_fuzz import share

from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.pairs import Names
from dissect_xr.probe.readers.scenes.ade20k import read_ade20k
from dissect_xr.probe.readers.scenes.ade20k_full import read_ade20k_full
from dissect_xr.probe.readers.scenes.broden_plus import read_broden_plus
from dissect_xr.probe.readers.scenes.cityscapes import read_cityscapes
from dissect_xr.probe.readers.scenes.colored import read_colored
from dissect_xr.probe.readers.scenes.pascal_context import read_pascal_context
from dissect_xr.probe.readers.scenes.pascal_part import read_pascal_part
from dissect_xr.probe.readers.scenes.vistas import read_vistas
from dissect_xr.probe.readers.scenes.voc import read_voc
from dissect_xr.probe.readers.tags import read_dtd, read_image_folders, read_tags
from dissect_xr.probe.readers.unpacked.huggingface import Columns, read_huggingface

pytestmark = pytest.mark.slow

FORMATS: dict[str, tuple[Callable[[Path], object], Callable[[Path], LabelSet]]] = {
    "ade20k": (sets.ade20k, read_ade20k),
    "ade20k_full": (sets.ade20k_full, read_ade20k_full),
    "voc": (sets.voc, read_voc),
    "pascal_part": (
        sets.pascal_part,
        lambda root: read_pascal_part(
            root / "part", image_folder=root / "VOC2010/JPEGImages", lists=root / "VOC2010/ImageSets/Main"
        ),
    ),
    "pascal_context": (
        sets.pascal_context,
        lambda root: read_pascal_context(
            root / "context", image_folder=root / "VOC2010/JPEGImages", classes=root / "context/59_labels.txt"
        ),
    ),
    "cityscapes": (sets.cityscapes, read_cityscapes),
    "vistas": (sets.vistas, read_vistas),
    "colored": (
        sets.camvid,
        lambda root: read_colored(
            image_folder=root / "701_StillsRaw_full", mask_folder=root / "LabeledApproved_full",
            colors_table=root / "label_colors.txt", names=Names(mask="{stem}_L.png"),
        ),
    ),
    "dtd": (sets.dtd, lambda root: read_dtd(root, label_size=(4, 4))),
    "tags": (
        sets.tags,
        lambda root: read_tags(image_folder=root / "photos", table=root / "tags.csv", label_size=(4, 4)),
    ),
    "image_folders": (sets.image_folders, lambda root: read_image_folders(image_folder=root, label_size=(4, 4))),
    "broden_plus": (
        broden_plus_case.broden_plus,
        lambda root: read_broden_plus(root / "broden_dataset", meta=root / "meta_file"),
    ),
}  # fmt: skip


@cache
def made(kind: str) -> Path:
    """The set, written once."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-")) / "set"
    FORMATS[kind][0](folder)
    return folder


@contextlib.contextmanager
def copied(kind: str) -> Iterator[Path]:
    with scratch() as folder:
        shutil.copytree(made(kind), folder / "set")
        yield folder / "set"


TEXTS = st.sampled_from(["", "{", "[]", "null", "0", "-1", "1: a", "a,b\n1,2\n", "\x00", "é", "9" * 400, "../x 1\n"])


def damage(path: Path, data: st.DataObject) -> str:
    """Something happens to a file; what it was."""
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["cut", "flip", "text", "noise", "gone", "folder", "line", "twice"]))
    if how == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    elif how == "flip" and content:
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :])
    elif how == "text":
        path.write_text(data.draw(TEXTS), encoding="utf-8")
    elif how == "noise":
        path.write_bytes(data.draw(st.binary(max_size=200)))
    elif how == "gone":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "line":
        lines = content.split(b"\n")
        del lines[data.draw(st.integers(0, len(lines) - 1))]
        path.write_bytes(b"\n".join(lines))
    else:
        path.write_bytes(content + content)
    return how


@pytest.mark.parametrize("kind", FORMATS)
@share(0.02)
@given(st.data())
def test_a_damaged_file_is_a_message_or_a_probe(kind: str, data: st.DataObject) -> None:
    with copied(kind) as root:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        path = data.draw(st.sampled_from(files))
        damage(path, data)
        message = None
        try:
            write_probe(FORMATS[kind][1](root), root.parent / "probe.zarr", pool=Threads(1), show=False)
        except DissectError as error:
            message = str(error)
        is_done = (root.parent / "markers/probe.zarr/done.json").exists()
        assert is_done if message is None else message.strip() and not is_done


@share(0.02)
@given(st.data())
def test_a_damaged_dataset_of_hugging_face_is_a_message_or_a_probe(data: st.DataObject) -> None:
    pytest.importorskip("pyarrow")
    from huggingface_case import ROWS, hub, saved_splits

    with scratch() as folder:
        write = data.draw(st.sampled_from([hub, saved_splits]))
        write(folder / "set", {"train": ROWS[:1], "val": ROWS[1:]})
        (folder / "concepts.yaml").write_text("1: road\n2: sky\n3: car\n")
        damage(data.draw(st.sampled_from(sorted(p for p in (folder / "set").rglob("*") if p.is_file()))), data)
        message = None
        try:
            found = read_huggingface(
                folder / "set", folder=folder / "files", columns=Columns(mask="annotation", tags={"place": "place"}),
                concepts=folder / "concepts.yaml",
            )  # fmt: skip
            write_probe(found, folder / "probe.zarr", pool=Threads(1), show=False)
        except DissectError as error:
            message = str(error)
        is_done = (folder / "markers/probe.zarr/done.json").exists()
        assert is_done if message is None else message.strip() and not is_done
