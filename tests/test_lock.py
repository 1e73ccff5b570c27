"""One run at a time in one directory; a dead one's lock is taken over, another host's only when asked."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dissect_xr import lock, places
from dissect_xr.errors import DissectError
from dissect_xr.lock import locked


def left(out: str, **fields: object) -> None:
    """A lock as someone else left it."""
    content = {
        "host": lock.socket.gethostname(),
        "pid": 1,
        "born": 0.0,
        "command": "dissect-xr run x",
        "started": "then",
    }
    places.create(out, lock.KEY, json.dumps(content | fields).encode())


def dead_process() -> int:
    """Number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture(params=["folder", "s3"])
def out(request, tmp_path):
    """An output directory, and one on an object store."""
    return str(tmp_path) if request.param == "folder" else f"{request.getfixturevalue('s3').bucket()}/run"


def test_the_second_run_is_refused_and_told_who_is_there(out):
    with locked(out, "dissect-xr run first.yaml"):
        with pytest.raises(DissectError, match=r"dissect-xr run first\.yaml") as caught, locked(out, "second"):
            pass
        assert f"pid {os.getpid()}" in str(caught.value)
        assert lock.socket.gethostname() in str(caught.value)
    with locked(out, "second"):
        pass
    assert places.read(out, lock.KEY) is None


def test_a_lock_is_let_go_of_after_an_error(out):
    with pytest.raises(ZeroDivisionError), locked(out, "run"):
        raise ZeroDivisionError
    assert places.read(out, lock.KEY) is None


def test_a_dead_process_of_this_host_is_no_obstacle(out):
    left(out, pid=dead_process())
    with locked(out, "mine"):
        assert b"mine" in (places.read(out, lock.KEY) or b"")


def test_another_process_with_the_dead_ones_number_is_no_obstacle(tmp_path):
    left(str(tmp_path), pid=os.getpid(), born=psutil.Process().create_time() - 1000)
    with locked(str(tmp_path), "mine"):
        pass


def test_another_host_is_believed_unless_its_lock_is_broken(out):
    left(out, host="elsewhere", pid=dead_process())
    with pytest.raises(DissectError, match=r"host elsewhere.*--break-lock"), locked(out, "mine"):
        pass
    with locked(out, "mine", break_lock=True):
        assert b"mine" in (places.read(out, lock.KEY) or b"")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"lock"', b'{"host": 3}'])
def test_a_damaged_lock_is_believed_too(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(DissectError, match="--break-lock"), locked(str(tmp_path), "mine"):
        pass
    with locked(str(tmp_path), "mine", break_lock=True):
        pass


def test_who_has_lost_the_lock_leaves_the_other_ones_alone(tmp_path):
    with locked(str(tmp_path), "first"), locked(str(tmp_path), "second", break_lock=True):
        pass
    with locked(str(tmp_path), "first"):
        (tmp_path / "lock").write_bytes(b"another's")
    assert (tmp_path / "lock").read_bytes() == b"another's"


def contender(out: str, start: object, log: str) -> None:
    """Take the lock, if it can be had, and say so."""
    start.wait()
    try:
        with locked(out, "contender"):
            with Path(log).open("a") as file:
                file.write("in\n")
            start.wait(30)  # until all have tried
    except DissectError:
        start.wait(30)


@pytest.mark.parametrize("before", ["nothing", "dead"])
def test_of_many_that_start_at_once_one_gets_it(tmp_path, before):
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    if before == "dead":
        left(str(out), pid=dead_process())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(5)
    processes = [context.Process(target=contender, args=(str(out), barrier, str(log))) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert log.read_text() == "in\n"
    assert list(out.iterdir()) == []
