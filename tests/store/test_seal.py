"""A seal holds while what lies below a group is what was written, and spares a start the reading of its markers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import stores
from strategies import ProbeCase

from dissect_xr import store
from dissect_xr.dissection import cut
from dissect_xr.dissection.dissect import dissect
from dissect_xr.parallel.pool import Threads
from dissect_xr.store import objects, seal, verify
from dissect_xr.store.repair import repair


@pytest.fixture(params=["small", "large"])
def url(request, tmp_path, monkeypatch):
    """A finished dissection of the snapshots `s` and `t`, of a layer each."""
    if request.param == "large":
        monkeypatch.setattr(cut, "READ_BYTES", 64)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, (6, 1, 5, 5)).astype(np.uint16)
    case = ProbeCase(labels, np.zeros((6, 1), np.uint16), np.arange(1, 4), np.zeros(3, np.int64), ("object",))
    probe = stores.write_probe_case(case, tmp_path)
    for snapshot in "st":
        maps = {"conv": draw.normal(size=(6, 3, 3, 3)).astype(np.float16)}
        activations = stores.write_layers(tmp_path, probe, maps, snapshot=snapshot)
    out = str(tmp_path / "dissection.zarr")
    dissect(activations, probe, out, method=stores.method([0.1]), pool=Threads(1), show=False)
    return out


def sealed(url: str) -> set[str]:
    """The groups whose seal holds."""
    return seal.sealed(url, objects.sizes(url), store.markers(url))


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def resized(path: Path, by: int) -> None:
    """Cut a byte off a file, or add one."""
    content = path.read_bytes()
    path.write_bytes(content[:by] if by < 0 else content + b"\x00" * by)


def test_the_seal_of_what_was_written_holds(url):
    assert sealed(url) == {"s", "t"}
    note = (store.marker(url, "s/done") or {})["note"]
    assert note[seal.SEAL] == seal.seal(url, "s") != seal.seal(url, "t")


OBJECTS = [
    "conv/intersection/c.0.0.0",
    "conv/threshold/c.0.0",
    "conv/unit/c.0",
    "conv/dead/zarr.json",
    "conv/zarr.json",
    "zarr.json",
]


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("key", OBJECTS)
def test_another_size_breaks_it(url, key, by):
    resized(Path(url, "s", key), by)
    assert sealed(url) == {"t"}


@pytest.mark.parametrize("key", OBJECTS)
def test_a_missing_object_breaks_it(url, key):
    Path(url, "s", key).unlink()
    assert sealed(url) == {"t"}


@pytest.mark.parametrize("key", ["conv/intersection/c.9.9.9", "conv/more/zarr.json", "left"])
def test_an_object_that_nobody_listed_breaks_it(url, key):
    objects.write(url, f"s/{key}", b"more")
    assert sealed(url) == {"t"}
    assert repair(url) == [], "nothing that a marker lists is damaged"


@pytest.mark.parametrize("key", [key for key in OBJECTS if key.endswith("zarr.json")])
def test_a_flipped_bit_of_metadata_breaks_it(url, key):
    flip(Path(url, "s", key))
    assert sealed(url) == {"t"}
    (damage,) = repair(url)
    assert damage.key == f"s/{key}"


def test_two_objects_that_are_exchanged_break_it(url):
    """Their sizes and checksums are all there, under other keys."""
    first, second = (Path(url, "s", "conv", name, "zarr.json") for name in ("threshold", "dead"))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert sealed(url) == {"t"}


def test_a_marker_that_is_missing_breaks_it(url):
    below = sorted(key for key in store.markers(url, "s") if key != "s/done")
    assert len(below) > 1
    for key in below:
        content = objects.read(*location(url, key)) or b""
        objects.delete(*location(url, key))
        assert sealed(url) == {"t"}, key
        objects.write(*location(url, key), content)
    assert sealed(url) == {"s", "t"}


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_without_its_own_marker_there_is_no_seal(url, how):
    parent, key = location(url, "s/done")
    flip(Path(parent, key)) if how == "flipped" else objects.delete(parent, key)
    assert sealed(url) == {"t"}


def location(url: str, key: str) -> tuple[str, str]:
    """Where the object of a marker lies."""
    return str(Path(url).parent), f"markers/{Path(url).name}/{key}.json"


def read_by(url: str, work, monkeypatch) -> Counter[str]:
    """How often `work` reads each marker."""
    read: Counter[str] = Counter()
    real = store.marker

    def spy(of, key, **given):
        if of == url:
            read[key] += 1
        return real(of, key, **given)

    with monkeypatch.context() as patched:
        patched.setattr(seal, "marker", spy)
        patched.setattr(verify, "marker", spy)
        work()
    return read


def test_markers_below_a_sealed_group_are_not_read(url, monkeypatch):
    assert read_by(url, lambda: repair(url), monkeypatch) == {"created": 1, "s/done": 1, "t/done": 1}
    flip(Path(url, "t", "conv", "dead", "zarr.json"))
    read = read_by(url, lambda: repair(url), monkeypatch)
    assert {key for key in read if key.startswith("s/")} == {"s/done"}
    assert {key for key in read if key.startswith("t/")} > {"t/done"}


def test_every_marker_is_read_where_every_byte_is(url, monkeypatch):
    every = store.markers(url)
    assert set(read_by(url, lambda: repair(url, full=True, show=False), monkeypatch)) == every


def test_a_chunk_of_which_a_bit_flipped_is_left_to_its_own_checksum(url):
    """A start compares sizes; who reads the chunk is refused, and a run with --verify finds it."""
    flip(Path(url, "s/conv/intersection/c.0.0.0"))
    assert sealed(url) == {"s", "t"}
    assert repair(url) == []
    (damage,) = repair(url, full=True, show=False)
    assert damage.key == "s/conv/intersection/c.0.0.0"


@pytest.mark.parametrize("key", ["s/conv/dead/zarr.json", "s/done"])
def test_a_store_that_does_not_answer_is_not_damaged(url, key, monkeypatch):
    real = objects.read

    def read(where, name):
        if name == key or name.endswith(f"/{key}.json"):
            raise ConnectionResetError(104, "Connection reset by peer")
        return real(where, name)

    monkeypatch.setattr(objects, "read", read)
    with pytest.raises(ConnectionResetError):
        sealed(url)
