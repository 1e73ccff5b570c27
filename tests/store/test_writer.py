"""What has no marker does not exist, what a marker lists is what lies on disk, and no block shares a shard."""

import json
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import stores
import xarray as xr
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ProbeCase

from dissect_xr import schema, store
from dissect_xr.dissection import cut
from dissect_xr.dissection.dissect import dissect
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Threads
from dissect_xr.probe.ingest import open_probe
from dissect_xr.store import (
    ArraySpec,
    Writer,
    coordinate,
    fingerprint,
    mark,
    marked,
    marker,
    markers,
    objects,
)

PRINT = fingerprint({"run": 1})


def spec(name="data", shape=(10, 6), chunks=(2, 3), shards=(4, 6), dtype="float16"):
    return ArraySpec(name, tuple("abcd"[: len(shape)]), shape, dtype, chunks, shards, {"units": "1"})


@pytest.fixture
def url(tmp_path):
    """A store with one sharded array at `group/data`."""
    url = str(tmp_path / "store.zarr")
    store.create(url, "group", [spec()], {"a": 1})
    return url


def written(url, value=1.0):
    """A marked block."""
    with marked(url, "block", fingerprint=PRINT) as (writer, note):
        writer.write("group/data", (0, 0), np.full((4, 6), value, np.float16))
        note["images"] = 4


def marker_file(url, key="block") -> Path:
    return Path(url).parent / "markers" / Path(url).name / f"{key}.json"


# --- markers ---


def test_what_has_no_marker_does_not_exist(url):
    assert marker(url, "block") is None
    assert markers(url) == set()
    written(url)
    found = marker(url, "block", fingerprint=PRINT)
    assert found["fingerprint"] == PRINT
    assert found["note"] == {"images": 4}
    assert markers(url) == {"block"}


def test_an_error_inside_leaves_no_marker(url):
    def fails():
        with marked(url, "block", fingerprint=PRINT) as (writer, _):
            writer.write("group/data", (0, 0), np.ones((4, 6), np.float16))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert marker(url, "block") is None


@given(st.data())
def test_a_damaged_marker_is_refused(data):
    with stores.scratch() as folder:
        url = str(folder / "store.zarr")
        mark(url, "block", fingerprint=PRINT, written={"a/c.0": (3, 2**32 - 1)}, note={"n": 1})
        path = marker_file(url)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans(), "cut short"):
            damaged = bytes(content[:place])
        else:
            content[place] = data.draw(st.integers(0, 255))
            damaged = bytes(content)
        assume(damaged != path.read_bytes())
        path.write_bytes(damaged)
        with pytest.raises(DissectError, match="damaged"):
            marker(url, "block")


def test_another_fingerprint_is_refused(url):
    written(url)
    other = fingerprint({"run": 2})
    with pytest.raises(DissectError, match=f"{PRINT[:12]}.*{other[:12]}"):
        marker(url, "block", fingerprint=other)


def test_fingerprint_is_of_values_not_of_order():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_markers_below_a_prefix_and_no_others(url):
    keys = {"s/conv/done", "s/conv/counts/0-64", "s/conv2/done", "s/conv2/counts/0-64", "s2/conv/done", "done"}
    for key in keys:
        mark(url, key, fingerprint=PRINT, written={})
    assert markers(url) == keys
    assert markers(url, "s") == {key for key in keys if key.startswith("s/")}
    assert markers(url, "s/conv") == {"s/conv/done", "s/conv/counts/0-64"}
    assert markers(url, "s/conv/counts/") == {"s/conv/counts/0-64"}
    assert markers(url, "nothing") == set()


def test_markers_of_stores_side_by_side_do_not_mix(tmp_path):
    one, two = str(tmp_path / "a.zarr"), str(tmp_path / "a.zarr2")
    mark(one, "done", fingerprint=PRINT, written={})
    assert marker(two, "done") is None
    assert markers(two) == set()


def test_markers_lie_beside_the_store_not_inside(url):
    written(url)
    assert marker_file(url).is_file()
    assert not list(Path(url).rglob("*block*"))
    with xr.open_datatree(url, engine="zarr", consolidated=False) as tree:
        assert list(tree.children) == ["group"]


def test_removing_a_group_removes_its_markers_first(url):
    mark(url, "group/done", fingerprint=PRINT, written={})
    mark(url, "group2/done", fingerprint=PRINT, written={})
    store.remove(url, "group")
    assert markers(url) == {"group2/done"}
    assert not store.exists(url, "group")


def test_markers_that_depend_on_others_are_removed_before_those(url, monkeypatch):
    for key, depends_on in (("a", []), ("b", ["a"]), ("c", ["b"]), ("d", ["a", "c"]), ("e", [])):
        mark(url, key, fingerprint=PRINT, written={}, depends_on=depends_on)
    removed, delete = [], objects.delete
    monkeypatch.setattr(objects, "delete", lambda url, key: removed.append(Path(key).stem) or delete(url, key))
    assert store.drop(url, ["a"]) == {"a", "b", "c", "d"}
    assert removed == ["d", "c", "b", "a"]
    assert markers(url) == {"e"}


# --- what a marker lists ---


def listed(url: str) -> dict[str, tuple[int, int]]:
    """Every object that a marker of the store lists, in metadata notes too."""
    found: dict[str, tuple[int, int]] = {}
    for key in markers(url):
        content = marker(url, key)
        for listed in (content["objects"], content["note"].get("metadata", {})):
            for name, size_and_crc in listed.items():
                assert found.setdefault(name, tuple(size_and_crc)) == tuple(size_and_crc), f"{name} twice, not the same"
    return found


def on_disk(url: str) -> dict[str, tuple[int, int]]:
    contents = {str(path.relative_to(url)): path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}
    return {name: (len(content), google_crc32c.value(content)) for name, content in contents.items()}


def test_recorded_size_and_checksum_are_the_files(url):
    written(url)
    recorded = {name: tuple(pair) for name, pair in marker(url, "block")["objects"].items()}
    assert recorded == {name: pair for name, pair in on_disk(url).items() if "/c." in name}


def test_a_block_of_zeros_replaces_what_stood_there(url):
    written(url, 1.0)
    written(url, 0.0)
    assert not store.read(url, "group/data")[:].any()
    recorded = {name: tuple(pair) for name, pair in marker(url, "block")["objects"].items()}
    assert recorded == {name: pair for name, pair in on_disk(url).items() if "/c." in name}
    assert set(recorded) == {"group/data/c.0.0"}


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 7)),
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factor=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["float16", "float32", "uint16", "int64", "bool"]),
)
def test_whatever_is_written_is_read_back_and_listed(shape, chunks, factor, dtype):
    shards = None if factor is None else (chunks[0] * factor[0], chunks[1] * factor[1])
    block = shards or chunks
    values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    with stores.scratch() as folder:
        url = str(folder / "store.zarr")
        store.create(url, "", [spec("data", shape, chunks, shards, dtype)], {})
        writer = Writer(url)
        for row in range(0, shape[0], block[0]):
            for col in range(0, shape[1], block[1]):
                writer.write("data", (row, col), values[row : row + block[0], col : col + block[1]])
        assert store.read(url, "data")[:].tobytes() == values.tobytes()
        assert writer.written == {name: pair for name, pair in on_disk(url).items() if "/c." in name}


@pytest.mark.parametrize("read", [cut.READ_BYTES, 64], ids=["small", "large"])
def test_every_file_of_the_three_stores_is_listed_as_it_lies_on_disk(tmp_path, monkeypatch, read):
    monkeypatch.setattr(cut, "READ_BYTES", read)
    labels = np.random.default_rng(0).integers(0, 4, (20, 2, 5, 5)).astype(np.uint16)
    labels[:, 1][labels[:, 1] == labels[:, 0]] = 0
    case = ProbeCase(labels, np.zeros((20, 1), np.uint16), np.arange(1, 4), np.zeros(3, np.int64), ("object",))
    probe = stores.write_probe_case(case, tmp_path)
    with stores.tiny_chunks():
        arrays = {"conv": np.random.default_rng(0).normal(size=(20, 5, 3, 3)).astype(np.float16)}
        activations = stores.write_layers(tmp_path, probe, arrays)
    out = str(tmp_path / "dissection.zarr")
    dissect(activations, probe, out, method=stores.method([0.1]), pool=Threads(1), show=False)
    wrong, silent = [], []
    for url in (probe, activations, out):
        found, disk, store = listed(url), on_disk(url), Path(url).name
        wrong += [f"{store}/{name}" for name in found if found[name] != disk.get(name)]
        silent += [f"{store}/{name}" for name in disk if name not in found]
    assert not wrong, f"markers list other contents of {sorted(wrong)}"
    assert not silent, f"no marker lists {sorted(silent)}"


# --- blocks ---


@given(
    start=st.integers(0, 12),
    count=st.integers(1, 13),
    length=st.integers(1, 12),
    chunk=st.integers(1, 4),
    factor=st.none() | st.integers(1, 3),
)
def test_only_whole_shards_are_written(start, count, length, chunk, factor):
    block = chunk * (factor or 1)
    stop = start + count
    whole = start % block == 0 and stop <= length and (stop % block == 0 or stop == length)
    with stores.scratch() as folder:
        url = str(folder / "store.zarr")
        shards = None if factor is None else (block,)
        store.create(url, "", [spec("data", (length,), (chunk,), shards)], {})
        values = np.arange(count).astype(np.float16)
        if whole:
            Writer(url).write("data", (start,), values)
            assert (store.read(url, "data")[start:stop] == values).all()
        else:
            with pytest.raises(DissectError, match=f"whole shards of {block}"):
                Writer(url).write("data", (start,), values)
            assert not store.read(url, "data")[:].any()


def test_misaligned_on_any_axis_is_refused(url):
    with pytest.raises(DissectError, match=r"axis 1 of length 6.*whole shards of 6"):
        Writer(url).write("group/data", (0, 0), np.ones((4, 3), np.float16))


def test_a_block_of_another_rank_is_refused(url):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Writer(url).write("group/data", (0,), np.ones(4, np.float16))


def test_a_truncated_shard_is_written_again(url):
    written(url, 1.0)
    shard = Path(url) / "group/data/c.0.0"
    shard.write_bytes(shard.read_bytes()[:-7])
    written(url, 2.0)
    assert (store.read(url, "group/data")[:4] == 2).all()


def test_a_flipped_byte_is_not_read_as_data(url):
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float16)
    Writer(url).write("group/data", (0, 0), values)
    shard = Path(url) / "group/data/c.0.0"
    content = shard.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        shard.write_bytes(bytes(damaged))
        try:
            read = store.read(url, "group/data")[:4]
        except Exception:
            continue
        assert (read == values).all(), f"byte {place} of {len(content)}"


# --- groups, attributes, strings ---


def test_creating_a_group_replaces_what_stood_there(url):
    written(url)
    store.create(url, "other", [spec()], {"b": 2})
    store.create(url, "group", [spec(shape=(3, 6))], {"a": 3})
    assert store.read_attrs(url, "group") == {"a": 3}
    assert store.read(url, "group/data").shape == (3, 6)
    assert not store.read(url, "group/data")[:].any()
    assert store.read_attrs(url, "other") == {"b": 2}
    assert store.groups(url) == ["group", "other"]


def test_creating_an_inner_group_keeps_its_neighbours(url):
    store.create(url, "s/one", [spec()], {"n": 1})
    Writer(url).write("s/one/data", (0, 0), np.ones((4, 6), np.float16))
    store.create(url, "s/two", [spec()], {"n": 2})
    assert store.groups(url, "s") == ["one", "two"]
    assert (store.read(url, "s/one/data")[:4] == 1).all()


def test_a_missing_group_is_said(url):
    assert not store.exists(url, "nothing")
    assert not store.exists(url + "x")
    for read in (store.read_attrs, store.open_lazy):
        with pytest.raises(DissectError, match="expected a Zarr group at 'nothing', found none"):
            read(url, "nothing")


NAMES = ["a", "β" * 40, "", "日本/語.png", "x" * 300, "tab\tnewline\n", "comma,;'\""]


def test_strings_have_variable_length(tmp_path):
    url = str(tmp_path / "store.zarr")
    text, values = coordinate("image", "image", NAMES)
    number, numbers = coordinate("concept", "concept", np.arange(5, dtype=np.uint16))
    store.create(url, "", [text, number, spec("data", (7, 5), (7, 5), None)], {})
    writer = Writer(url)
    writer.write("image", (0,), values)
    writer.write("concept", (0,), numbers)
    assert json.loads((tmp_path / "store.zarr/image/zarr.json").read_text())["data_type"] == "string"
    assert store.read(url, "image")[:].tolist() == NAMES
    assert store.read(url, "concept").dtype == np.uint16
    for names in (NAMES, np.array(NAMES), np.array(NAMES, object), store.read(url, "image")[:]):
        assert coordinate("image", "image", names)[0].dtype == "str"
    opened = xr.open_zarr(url, consolidated=False)
    assert opened["image"].dtype.kind in "OT"
    assert opened["image"].values.tolist() == NAMES


def test_text_that_is_all_of_one_length_is_still_a_string(tmp_path):
    assert coordinate("layer", "unit", ["conv"] * 3)[0].dtype == "str"


# --- opening ---


def test_opening_reads_coordinates_and_nothing_else(tmp_path, lazy):
    labels = np.ones((3, 1, 4, 4), np.uint16)
    case = ProbeCase(labels, np.zeros((3, 1), np.uint16), np.array([1]), np.array([0]), ("object",))
    probe = open_probe(stores.write_probe_case(case, tmp_path))
    schema.check(probe, schema.PROBE, schema.PROBE, "probe")
    assert set(probe.coords) == {
        "image", "split", "concept", "concept_name", "concept_category", "concept_domain", "parent",
        "category", "domain", "plane_category",
    }  # fmt: skip
    assert all(probe[name].chunks is not None for name in schema.PROBE)
    assert all(probe[name].chunks is None for name in probe.coords)
    with pytest.raises(AssertionError, match="stayed lazy"):
        probe["annotation"].sum().compute()


def test_a_variable_that_is_missing_or_has_other_dims_is_named():
    data = xr.Dataset({"threshold": (("unit", "fraction"), np.zeros((2, 1)))})
    with pytest.raises(DissectError, match=r"here: expected 'threshold' with dims \('fraction', 'unit'\)"):
        schema.check(data, schema.DISSECTION, ["threshold"], "here")
    with pytest.raises(DissectError, match=r"here: expected a variable 'dead'.*\['threshold'\]"):
        schema.check(data, schema.DISSECTION, ["dead"], "here")


@pytest.mark.parametrize("table", [schema.PROBE, schema.ACTIVATIONS, schema.DISSECTION])
def test_every_variable_says_what_it_is(table):
    for name, variable in table.items():
        assert variable.name == name
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]
        assert np.dtype(variable.dtype)


def test_urls_and_paths_are_joined_alike():
    assert store.join("s3://bucket/run", "a", "b.zarr") == "s3://bucket/run/a/b.zarr"
    assert store.join("run", "a", "b.zarr") == str(Path("run/a/b.zarr"))


def test_a_store_in_memory_works_like_one_on_disk():
    """Object stores go through the same code by URL; fsspec's memory file system stands in for them."""
    url = "memory://bucket/run/store.zarr"
    store.create(url, "group", [spec()], {"a": 1})
    written(url)
    assert marker(url, "block", fingerprint=PRINT)["objects"].keys() == {"group/data/c.0.0"}
    assert markers(url) == {"block"}
    assert (store.read(url, "group/data")[:4] == 1).all()
    assert store.read_attrs(url, "group") == {"a": 1}
    store.remove(url, "group")
    assert not store.exists(url, "group")


def test_zarr_format_3_without_consolidated_metadata(url):
    metadata = json.loads((Path(url) / "zarr.json").read_text())
    assert metadata["zarr_format"] == 3
    assert not metadata.get("consolidated_metadata")
    array = zarr.open_array(url, path="group/data")
    assert array.shards == (4, 6)
    codec = array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"][-1]
    assert (codec["name"], codec["configuration"]) == ("zstd", {"level": 1, "checksum": True})
