"""Datasets of Hugging Face as they are on disk: Parquet files of the Hub, and what `save_to_disk` writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from published_sets import AREAS, FIRST, NO_LABEL, SECOND, areas, probed

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.masks import MaskFormat
from dissect_xr.probe.readers.unpacked.huggingface import Columns, read_huggingface

pytest.importorskip("pyarrow")

from huggingface_case import PHOTO, ROWS, SCHEMA, hub, pq, row, saved, saved_splits, table

SOURCES = {
    "save_to_disk": lambda folder: saved_splits(folder, {"train": ROWS[:1], "validation": ROWS[1:]}),
    "Parquet of the Hub": lambda folder: hub(folder, {"train": ROWS[:1], "validation": ROWS[1:]}),
}


def read(source: Path, folder: Path, tags: dict[str, str] | None = None, **options: Any) -> LabelSet:
    folder.mkdir(exist_ok=True)
    concepts = folder / "concepts.yaml"
    concepts.write_text("1: road\n2: sky\n3: car\n")
    columns = Columns(mask="annotation", tags=tags or {})
    return read_huggingface(source, folder=folder / "files", columns=columns, concepts=concepts, **options)


@pytest.mark.parametrize("kind", SOURCES)
def test_label_maps_and_splits_are_the_datasets(tmp_path, kind):
    found = read(SOURCES[kind](tmp_path / "set"), tmp_path)
    assert [(row.image, row.split) for row in found.rows] == [
        ("train/000000.jpg", "train"), ("validation/000000.jpg", "validation")
    ]  # fmt: skip
    probe = probed(found, tmp_path)
    assert areas(probe) == AREAS
    assert int(probe["domain_area"][0]) == 32
    assert (tmp_path / "files/images/train/000000.jpg").read_bytes() == PHOTO  # as it was, not encoded anew


def test_one_dataset_and_one_file_are_read_too(tmp_path):
    assert [row.split for row in read(saved(tmp_path / "one", ROWS), tmp_path / "a").rows] == ["all", "all"]
    pq.write_table(table(ROWS), tmp_path / "some.parquet")
    found = read(tmp_path / "some.parquet", tmp_path / "b")
    assert [row.image for row in found.rows] == ["some/000000.jpg", "some/000001.jpg"]


def test_tags_are_labels_of_the_whole_image(tmp_path):
    tags = {"scene_category": "scene", "weather": "weather", "place": "place"}
    found = read(saved(tmp_path / "set", ROWS), tmp_path, tags)
    assert [(c.number, c.category, c.name) for c in found.concepts if c.number > 3] == [
        (4, "scene", "indoor"), (5, "scene", "street"), (6, "scene", "sea"), (7, "weather", "dry"),
        (8, "weather", "wet"), (9, "place", "Rome"),
    ]  # fmt: skip
    probe = probed(found, tmp_path)
    assert areas(probe) == AREAS | {"street": 16, "dry": 16, "wet": 16, "Rome": 16}
    assert probe["annotated"].values.tolist() == [[True] * 4, [True, False, False, False]]


def test_tags_need_no_label_map(tmp_path):
    columns = Columns(tags={"scene_category": "scene"})
    found = read_huggingface(saved(tmp_path / "set", ROWS), folder=tmp_path / "files", columns=columns)
    assert [row.whole for row in found.rows] == [(2,), ()]
    assert areas(probed(found, tmp_path)) == {"street": 112**2}
    assert not (tmp_path / "files/masks").exists()


@pytest.mark.parametrize("kept", ["object", "scene"])
def test_one_category_alone(tmp_path, kept):
    found = read(saved(tmp_path / "set", ROWS), tmp_path, {"scene_category": "scene"}, categories=[kept])
    assert areas(probed(found, tmp_path)) == (AREAS if kept == "object" else {"street": 112**2})


def test_label_maps_that_count_from_0_are_read_with_an_offset(tmp_path):
    rows = [row(codes, None, [], None, (255, 0, 1, 2)) for codes in (FIRST, SECOND)]
    folder = tmp_path / "a"
    folder.mkdir()
    concepts = folder / "concepts.yaml"
    concepts.write_text("0: road\n1: sky\n2: car\n")
    found = read_huggingface(
        saved(tmp_path / "set", rows), folder=folder / "files", columns=Columns(mask="annotation"), concepts=concepts,
        format=MaskFormat(offset=1, void=[255]),
    )  # fmt: skip
    probe = probed(found, folder)
    assert areas(probe) == AREAS
    assert int(probe["ignored"].sum()) == NO_LABEL


def test_what_was_written_is_kept_and_other_content_is_refused(tmp_path):
    source = saved(tmp_path / "set", ROWS)
    before = probed(read(source, tmp_path), tmp_path)
    assert probed(read(source, tmp_path), tmp_path).identical(before)
    other = saved(tmp_path / "other", [ROWS[1], ROWS[0]])
    with pytest.raises(DissectError, match=r"000000\.png: is there already and holds something else"):
        read(other, tmp_path)
    with pytest.raises(DissectError, match=r"000001\.jpg: is no image of .*fewer"):
        read(saved(tmp_path / "fewer", ROWS[:1]), tmp_path)


def test_an_image_by_its_path_is_read_below_the_dataset_only(tmp_path):
    linked = ROWS[0] | {"image": {"bytes": None, "path": "photos/a.jpg"}}
    source = saved(tmp_path / "set", [linked])
    with pytest.raises(DissectError, match=r"row 0 of all, 'image': expected the file .*a\.jpg, cannot read it"):
        read(source, tmp_path / "x")
    (source / "photos").mkdir()
    (source / "photos/a.jpg").write_bytes(PHOTO)
    assert len(read(source, tmp_path / "x").rows) == 1
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    outside = saved(tmp_path / "outside", [ROWS[0] | {"image": {"bytes": None, "path": "../secret.jpg"}}])
    with pytest.raises(DissectError, match=r"'\.\./secret\.jpg' lies outside"):
        read(outside, tmp_path / "y")


REFUSED = {
    "no image": ([ROWS[0] | {"image": None}], {}, r"row 0 of all, 'image': expected an image, got NoneType"),
    "no label map": ([ROWS[0] | {"annotation": None}], {}, r"row 0 of all, 'annotation': expected an image"),
    "no picture": (
        [ROWS[0] | {"image": {"bytes": b"text", "path": None}}], {}, r"row 0 of all: no image that can be read"
    ),
    "a class too many": ([row(FIRST, 3, [], None)], {"scene_category": "scene"}, r"a class from 0 to 2, got 3"),
    "nothing": ([], {}, r"expected images, found no row"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_that_lack_something_are_named(tmp_path, kind):
    rows, tags, message = REFUSED[kind]
    with pytest.raises(DissectError, match=message):
        read(saved(tmp_path / "set", rows), tmp_path, tags)


def test_a_number_without_names_is_no_tag(tmp_path):
    plain = SCHEMA.remove_metadata()
    with pytest.raises(
        DissectError, match=r"'scene_category': expected the name of a tag, got 1, and the column is no"
    ):
        read(saved(tmp_path / "set", ROWS, plain), tmp_path, {"scene_category": "scene"})
    assert len(read(saved(tmp_path / "plain", ROWS, plain), tmp_path / "x", {"place": "place"}).rows) == 2


def test_columns_and_sources_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DissectError, match=r"columns mood are missing; there are image, annotation"):
        read(saved(tmp_path / "set", ROWS), tmp_path, {"mood": "mood"})
    with pytest.raises(DissectError, match=r"expected a dataset on disk"):
        read(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DissectError, match=r"expected a column of masks or of tags, got neither"):
        read_huggingface(tmp_path, folder=tmp_path, columns=Columns())
    with pytest.raises(DissectError, match=r"concepts: expected a table of concepts with a column of masks"):
        read_huggingface(tmp_path, folder=tmp_path, columns=Columns(mask="annotation"))


def test_a_selection_of_rows_is_refused(tmp_path):
    source = saved(tmp_path / "set", ROWS)
    state = json.loads((source / "state.json").read_text()) | {"_indices_data_files": [{"filename": "i.arrow"}]}
    (source / "state.json").write_text(json.dumps(state))
    with pytest.raises(
        DissectError, match=r"holds a selection of rows as indices\. Save it with `flatten_indices\(\)`"
    ):
        read(source, tmp_path)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_damaged_file_is_named(tmp_path, suffix):
    if suffix == "arrow":
        source = saved(tmp_path / "set", ROWS)
        path = next(source.glob("*.arrow"))
    else:
        path = source = tmp_path / "train.parquet"
        pq.write_table(table(ROWS), path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DissectError, match=rf"\.{suffix}: damaged, or no Parquet or Arrow file"):
        read(source, tmp_path)


def test_without_pyarrow_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DissectError, match=r"pip install 'dissect-xr\[parquet\]'"):
        read(saved_without_pyarrow(tmp_path), tmp_path)


def saved_without_pyarrow(folder: Path) -> Path:
    (folder / "set").mkdir()
    state = {"_data_files": [{"filename": "data.arrow"}]}
    (folder / "set/state.json").write_text(json.dumps(state))
    return folder / "set"
