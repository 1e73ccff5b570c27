"""Writes: a store that does not answer is tried again, a full disk is not; creation is exclusive without hard links."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from dissect_xr import store
from dissect_xr.errors import DissectError, Failed, WriteError
from dissect_xr.parallel import retry
from dissect_xr.store import objects
from dissect_xr.store.lock import locked

PRINT = store.fingerprint({"run": 1})
SPEC = store.ArraySpec("data", ("x",), (8,), "int64", (2,), (4,))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(retry, "PAUSE", 0.0)


@pytest.fixture
def url(tmp_path):
    """A store with one array."""
    url = str(tmp_path / "store.zarr")
    store.mark(url, "done", fingerprint=PRINT, written=store.create(url, "", [SPEC], {"a": 1}))
    return url


# --- a store that does not answer ---


def transport_errors() -> list[Exception]:
    """One of each kind."""
    found: list[Exception] = [TimeoutError("timed out"), ConnectionResetError("reset"), OSError(errno.ESTALE, "stale")]
    try:
        from obstore.exceptions import GenericError
    except ImportError:
        return found
    return [*found, GenericError("Generic S3 error: HTTP error: error sending request")]


def failing(monkeypatch, owner, name: str, error: Exception, times: int) -> list[int]:
    """The first `times` calls of `owner.name` raise `error`; the numbers of all calls."""
    real, calls = getattr(owner, name), []

    def fail(*args, **given):
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return real(*args, **given)

    monkeypatch.setattr(owner, name, fail)
    return calls


def lock_once(url):
    """Take a lock and let it go."""
    with locked(url, "mine"):
        assert b"mine" in (objects.read(url, "lock") or b"")


CLIENT = {
    "marker": lambda url: store.mark(url, "created", fingerprint=PRINT, written={}),
    "metadata": lambda url: store.lay_out(url, "group", [SPEC], {}),
    "attributes": lambda url: store.write_group(url, "", {"a": 2}),
    "attributes and marker": lambda url: store.update_attrs(url, {"b": 2}),
    "lock": lock_once,
    "object": lambda url: objects.write(url, "recipe.yaml", b"a: 1"),
}
"""What the process that leads a run writes itself."""


@pytest.mark.parametrize("error", transport_errors(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("write", CLIENT)
def test_what_the_client_writes_is_tried_again(url, write, error, monkeypatch):
    calls = failing(monkeypatch, objects, "_write_file", error, times=retry.ATTEMPTS - 1)
    CLIENT[write](url)
    assert len(calls) >= retry.ATTEMPTS


def test_what_never_answers_ends_as_what_it_is(url, monkeypatch):
    calls = failing(monkeypatch, objects, "_write_file", TimeoutError("timed out"), times=99)
    with pytest.raises(TimeoutError, match="timed out"):
        store.mark(url, "created", fingerprint=PRINT, written={})
    assert len(calls) == retry.ATTEMPTS


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_is_not_tried_again(url, number, monkeypatch):
    calls = failing(monkeypatch, objects, "_write_file", OSError(number, os.strerror(number)), times=99)
    with pytest.raises(WriteError, match=rf"created\.json: cannot write .* bytes: {os.strerror(number)}"):
        store.mark(url, "created", fingerprint=PRINT, written={})
    assert len(calls) == 1


def write_block(url: str) -> str:
    """Write a block and its marker."""
    with store.marked(url, "block", fingerprint=PRINT) as (writer, _):
        writer.write("data", (0,), np.arange(4))
    return "written"


def losing_chunks(monkeypatch, error: Exception, times: int) -> list[str]:
    """The first `times` writes of chunks raise `error`; the keys of all such writes."""
    keys: list[str] = []

    def lose(key):
        if "/c." in key:
            keys.append(key)
            if len(keys) <= times:
                raise error

    real = LocalStore.set

    async def lossy(self, key, value):
        lose(key)
        await real(self, key, value)

    monkeypatch.setattr(LocalStore, "set", lossy)
    if real_sync := getattr(LocalStore, "set_sync", None):  # zarr 3.4
        monkeypatch.setattr(LocalStore, "set_sync", lambda self, key, value: lose(key) or real_sync(self, key, value))
    return keys


@pytest.mark.parametrize("error", transport_errors(), ids=lambda error: type(error).__name__)
def test_a_block_whose_write_timed_out_is_done_again(url, error, monkeypatch):
    keys = losing_chunks(monkeypatch, error, times=retry.ATTEMPTS - 1)
    assert retry.attempt(write_block, url) == "written"
    assert len(keys) == retry.ATTEMPTS
    assert store.read(url, "data")[:4].tolist() == [0, 1, 2, 3]


def test_a_block_that_never_gets_an_answer_is_reported_and_the_run_goes_on(url, monkeypatch):
    losing_chunks(monkeypatch, TimeoutError("timed out"), times=99)
    failed = retry.attempt(write_block, url)
    assert isinstance(failed, Failed)
    assert not failed.stop
    assert "failed 3 times, TimeoutError: timed out" in failed.message
    assert store.marker(url, "block") is None


def test_a_block_on_a_full_disk_still_stops_the_run(url, monkeypatch):
    keys = losing_chunks(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), times=99)
    failed = retry.attempt(write_block, url)
    assert failed.stop
    assert "No space left on device" in failed.message
    assert len(keys) == 1


# --- file systems without hard links ---


@pytest.fixture(params=["EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS"])
def no_links(request, monkeypatch):
    """A file system that refuses hard links."""
    number = getattr(errno, request.param)

    def refuse(*args, **given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)


def test_of_many_that_create_an_object_one_does_without_hard_links_too(tmp_path, no_links):
    for n in range(5):
        barrier = threading.Barrier(4)

        def create(name: int, n=n, barrier=barrier) -> bool:
            barrier.wait(30)
            return objects.create(str(tmp_path), f"lock{n}", bytes([name]) * 1000)

        with ThreadPoolExecutor(4) as executor:
            created = list(executor.map(create, range(4)))
        assert sorted(created) == [False, False, False, True]
        assert objects.read(str(tmp_path), f"lock{n}") == bytes([created.index(True)]) * 1000
    assert set(objects.sizes(str(tmp_path))) == {f"lock{n}" for n in range(5)}


def test_a_lock_is_held_and_let_go_of_without_hard_links(tmp_path, no_links):
    refused = pytest.raises(DissectError, match="`first`")
    with locked(str(tmp_path), "first"), refused, locked(str(tmp_path), "second"):
        pass
    assert objects.sizes(str(tmp_path)) == {}


def test_what_could_not_be_created_whole_is_removed(tmp_path, monkeypatch):
    class Full:
        """A file on a full disk."""

        def __init__(self, file) -> None:
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            self.file.write(data[:3])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*args, **given):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    real = Path.open
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", *more, **given: (Full if "x" in mode else lambda file: file)(
            real(path, mode, *more, **given))
    )  # fmt: skip
    with pytest.raises(WriteError, match="No space left on device"):
        objects.create(str(tmp_path), "lock", b"content")
    monkeypatch.undo()
    assert objects.sizes(str(tmp_path)) == {}
    assert objects.create(str(tmp_path), "lock", b"content")


def test_a_folder_without_rights_is_no_reason_to_write_in_place(tmp_path, monkeypatch):
    def refuse(*args, **given):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(WriteError, match="Permission denied"):
        objects.create(str(tmp_path), "lock", b"content")
    assert objects.sizes(str(tmp_path)) == {}
