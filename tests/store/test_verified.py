"""Damaged metadata and missing chunks are refused, whatever other threads read or forget at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dissect_xr import store
from dissect_xr.errors import DamagedError
from dissect_xr.store import objects, verified
from dissect_xr.store.verified import METADATA, check_metadata, forget

PRINT = store.fingerprint({"run": 1})
SPEC = store.ArraySpec("data", ("x",), (4,), "int64", (2,))
KEY = f"group/{METADATA}"


@pytest.fixture
def url(tmp_path):
    """A store whose group `group` is finished."""
    url = str(tmp_path / "store.zarr")
    write(url, {"a": 1})
    return url


def write(url: str, attrs: dict[str, int]) -> None:
    """The group with its marker."""
    written = store.lay_out(url, "group", [SPEC], attrs)
    store.mark(url, "group/created", fingerprint=PRINT, written=written)


def rotten(url: str) -> bytes:
    """The group's metadata with a flipped bit."""
    content = bytearray(objects.read(url, KEY) or b"")
    content[len(content) // 2] ^= 4
    return bytes(content)


def refused(url: str, data: bytes) -> bool:
    """Whether the metadata is refused."""
    try:
        check_metadata(url, KEY, data)
    except DamagedError:
        return True
    return False


def test_two_threads_that_read_damaged_metadata_at_once_both_refuse_it(url, monkeypatch):
    """The second begins its check when the first has read the markers, and ends it after the first has compared."""
    damaged, real, first = rotten(url), verified.marker, threading.local()
    assert not refused(url, objects.read(url, KEY) or b"")  # the markers have been read before
    read, begun, compared = threading.Event(), threading.Event(), threading.Event()

    def marker(of, key):
        if not first.here:
            begun.set()
            assert compared.wait(30)
        content = real(of, key)
        if first.here and key == "group/done":  # the last marker that is looked for
            read.set()
            assert begun.wait(30)
        return content

    def check_first() -> bool:
        first.here = True
        try:
            return refused(url, damaged)
        finally:
            compared.set()

    def check_second() -> bool:
        first.here = False
        assert read.wait(30)
        return refused(url, damaged)

    monkeypatch.setattr(verified, "marker", marker)
    with ThreadPoolExecutor(2) as executor:
        checks = [executor.submit(check) for check in (check_first, check_second)]
    assert [check.result() for check in checks] == [True, True]


def forgetting(url, monkeypatch) -> None:
    """Another thread removes something just when the last marker was read."""
    real = verified.marker

    def marker(of, key):
        content = real(of, key)
        if key in ("group/done", "group/data/done"):
            forget(url)
        return content

    monkeypatch.setattr(verified, "marker", marker)


def test_what_is_forgotten_during_a_check_is_still_compared(url, monkeypatch):
    damaged = rotten(url)
    forgetting(url, monkeypatch)
    assert refused(url, damaged)


def test_a_missing_chunk_is_not_read_as_zeros_if_its_marker_is_forgotten_meanwhile(url, monkeypatch):
    with store.marked(url, "group/done", fingerprint=PRINT) as (writer, _):
        writer.write("group/data", (0,), np.arange(4))
    (Path(url) / "group/data/c.1").unlink()
    forgetting(url, monkeypatch)
    with pytest.raises(DamagedError, match=r"group/data/c\.1: is missing"):
        store.read(url, "group/data")[:]


def test_what_was_read_before_it_was_forgotten_is_not_kept(url, monkeypatch):
    with store.marked(url, "group/done", fingerprint=PRINT) as (writer, _):
        writer.write("group/data", (0,), np.arange(4))
    (Path(url) / "group/data/c.1").unlink()
    forgetting(url, monkeypatch)
    with pytest.raises(DamagedError):
        store.read(url, "group/data")[:]
    monkeypatch.undo()
    store.drop(url, ["group/done"])  # what is not finished may lack chunks
    assert store.read(url, "group/data")[:].tolist() == [0, 1, 0, 0]


def test_metadata_that_this_run_wrote_again_is_accepted(url):
    before = objects.read(url, KEY) or b""
    assert not refused(url, before)
    write(url, {"a": 2})
    after = objects.read(url, KEY) or b""
    assert after != before
    assert not refused(url, after)
    assert store.read_attrs(url, "group") == {"a": 2}
    assert refused(url, rotten(url))


def test_metadata_whose_marker_was_removed_is_not_finished_and_accepted(url):
    assert not refused(url, objects.read(url, KEY) or b"")
    store.drop(url, ["group/created"])
    assert not refused(url, rotten(url))
