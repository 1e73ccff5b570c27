"""Writes: a store that does not answer is tried again, a full disk is not."""

import errno
import os

import numpy as np
import pytest
from zarr.storage import LocalStore

from dissect_xr import store
from dissect_xr.errors import Failed, WriteError
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
        if "/c/" in key:
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
