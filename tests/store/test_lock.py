"""One run at a time in one directory; a dead one's lock is taken over, another host's only when asked."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from dissect_xr.errors import DissectError
from dissect_xr.parallel import retry
from dissect_xr.store import lock, objects
from dissect_xr.store.lock import locked


def left(out: str, **fields: object) -> None:
    """A lock as someone else left it."""
    content = {
        "host": lock.socket.gethostname(),
        "pid": 1,
        "born": 0.0,
        "command": "dissect-xr run x",
        "started": "then",
    }
    objects.create(out, lock.KEY, json.dumps(content | fields).encode())


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
    assert objects.read(out, lock.KEY) is None


def test_a_lock_is_let_go_of_after_an_error(out):
    with pytest.raises(ZeroDivisionError), locked(out, "run"):
        raise ZeroDivisionError
    assert objects.read(out, lock.KEY) is None


def test_a_dead_process_of_this_host_is_no_obstacle(out):
    left(out, pid=dead_process())
    with locked(out, "mine"):
        assert b"mine" in (objects.read(out, lock.KEY) or b"")


def test_another_process_with_the_dead_ones_number_is_no_obstacle(tmp_path):
    left(str(tmp_path), pid=os.getpid(), born=psutil.Process().create_time() - 1000)
    with locked(str(tmp_path), "mine"):
        pass


def test_another_host_is_believed_unless_its_lock_is_broken(out):
    left(out, host="elsewhere", pid=dead_process())
    with pytest.raises(DissectError, match=r"host elsewhere.*--break-lock"), locked(out, "mine"):
        pass
    with locked(out, "mine", break_lock=True):
        assert b"mine" in (objects.read(out, lock.KEY) or b"")


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


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="NOT RUN: needs os.waitid")
def test_a_process_that_is_dead_but_not_reaped_is_no_obstacle(out):
    """As in a container without an init process, where nobody waits for the children of a killed one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still in the process table
        process = psutil.Process(zombie.pid)
        assert process.status() == psutil.STATUS_ZOMBIE
        left(out, pid=zombie.pid, born=process.create_time())
        with locked(out, "mine"):
            assert b"mine" in (objects.read(out, lock.KEY) or b"")


def being_written(out: str, content: bytes, monkeypatch) -> None:
    """A lock of which only the first half is there; the second half comes when the reader pauses."""
    objects.write(out, lock.KEY, content[: len(content) // 2])
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: objects.write(out, lock.KEY, content))


def test_a_lock_that_is_just_being_written_is_read_again(tmp_path, monkeypatch):
    being_written(str(tmp_path), lock._new_content("run other"), monkeypatch)
    with pytest.raises(DissectError, match="in use by `run other`"), locked(str(tmp_path), "mine"):
        pass


def test_a_lock_that_is_just_being_written_is_not_the_one_to_break(tmp_path, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        fields = {"pid": other.pid, "born": psutil.Process(other.pid).create_time(), "taken": time.time()}
        content = json.loads(lock._new_content("run other")) | fields
        being_written(str(tmp_path), json.dumps(content).encode(), monkeypatch)
        with pytest.raises(DissectError, match="`run other`"), locked(str(tmp_path), "mine", break_lock=True):
            pass
        other.communicate()


def test_a_lock_is_held_if_only_the_answer_to_its_creation_was_lost(out, monkeypatch):
    real, calls = objects._create, []

    def lost(*args):
        created = real(*args)
        calls.append(created)
        if len(calls) == 1:
            raise TimeoutError("timed out")
        return created

    monkeypatch.setattr(retry, "PAUSE", 0.0)
    monkeypatch.setattr(objects, "_create", lost)
    with locked(out, "mine"):
        assert b"mine" in (objects.read(out, lock.KEY) or b"")
    assert calls == [True, False]
    assert objects.sizes(out) == {}


def contender(out: str, start: object, log: str, break_lock: bool) -> None:
    """Take the lock, if it can be had, and say so."""
    start.wait()
    try:
        with locked(out, "contender", break_lock=break_lock):
            with Path(log).open("a") as file:
                file.write("in\n")
            start.wait(30)  # until all have tried
    except DissectError:
        start.wait(30)


@pytest.mark.parametrize("before", ["nothing", "dead", "elsewhere"])
def test_of_many_that_start_at_once_one_gets_it(out, tmp_path_factory, before):
    log = tmp_path_factory.mktemp("log") / "log"
    if before != "nothing":
        left(out, pid=dead_process(), **({"host": before} if before == "elsewhere" else {}))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(5)
    processes = [
        context.Process(target=contender, args=(out, barrier, str(log), before == "elsewhere")) for _ in range(5)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert log.read_text() == "in\n"
    assert objects.sizes(out) == {}


def race(out: str, names: list[str], judged: dict[str, Callable[[], object]]) -> dict[str, str]:
    """What the threads `names` were told, "in" where they got the lock, each doing `judged` after its judgement."""
    told, real, one = {}, lock.left_behind, threading.local()

    def judging(held):
        gone = real(held)
        if gone and one.first:
            one.first = False
            judged[one.name]()
        return gone

    def take(name):
        one.name, one.first = name, True
        try:
            with locked(out, f"run {name}"):
                told[name] = "in"
                ended.wait(30)
        except DissectError as error:
            told[name] = str(error)

    ended = threading.Event()
    with patch.object(lock, "left_behind", judging), ThreadPoolExecutor(len(names)) as executor:
        taking = [executor.submit(take, name) for name in names]
        while len(told) < len(names) and not any(one.done() and one.exception() for one in taking):
            time.sleep(0.01)
        ended.set()
    assert [one.exception() for one in taking] == [None] * len(names)
    return told


def test_of_those_that_judged_a_holder_dead_at_once_one_gets_the_lock(out):
    for _ in range(5):
        left(out, pid=dead_process())
        barrier = threading.Barrier(4)
        told = race(out, list("abcd"), dict.fromkeys("abcd", lambda barrier=barrier: barrier.wait(30)))
        assert sorted(said == "in" for said in told.values()) == [False, False, False, True], told
        winner = next(name for name, said in told.items() if said == "in")
        losers = [said for said in told.values() if said != "in"]
        assert all(f"`run {winner}`" in said or "starting here as well" in said for said in losers), losers
        assert objects.sizes(out) == {}


def test_who_judged_early_and_claims_late_takes_the_lock_from_nobody(out):
    left(out, pid=dead_process())
    judged, taken = threading.Event(), threading.Event()

    def wait_for_the_other():
        judged.set()
        assert taken.wait(30)

    def delete(url, key, real=objects.delete):
        real(url, key)
        taken.set()  # the quick one's claim is gone: it can be created again

    with patch.object(objects, "delete", delete):
        told = race(out, ["early", "quick"], {"early": wait_for_the_other, "quick": lambda: judged.wait(30)})
    assert told["quick"] == "in"
    assert "`run quick`" in told["early"]


def test_a_claim_left_by_one_that_died_while_taking_over_is_no_obstacle(out):
    left(out, pid=dead_process())
    with (
        patch.object(objects, "write", side_effect=KeyboardInterrupt),
        patch.object(objects, "delete"),  # killed: nothing is cleaned up
        pytest.raises(KeyboardInterrupt),
        locked(out, "killed"),
    ):
        pass
    (claim,) = set(objects.sizes(out)) - {lock.KEY}
    dead = json.loads(objects.read(out, claim) or b"") | {"pid": dead_process()}
    objects.write(out, claim, json.dumps(dead).encode())
    with locked(out, "next"):
        assert b"next" in (objects.read(out, lock.KEY) or b"")
    assert objects.sizes(out) == {}


def keep_recipe(out: str) -> None:
    """As a run does when it starts; imported late, for the contenders need not."""
    pytest.importorskip("torch", reason="NOT RUN: a run needs torch to start")
    from dissect_xr.cli import start

    start.keep_recipe(out, {})


def claim_of(out: str) -> str:
    """Where a claim to the lock that stands in `out` lies."""
    return f"{lock.KEY}.{hashlib.sha256(objects.read(out, lock.KEY) or b'').hexdigest()[:32]}{objects.PARTIAL}"


def test_another_hosts_claim_is_an_obstacle_only_while_it_changes(out):
    left(out, host="elsewhere")
    claim = claim_of(out)
    objects.write(out, claim, objects.read(out, lock.KEY) or b"")
    changing = patch.object(lock.time, "sleep", lambda _: objects.write(out, claim, b"another's"))
    refused = pytest.raises(DissectError, match="other runs are starting here")
    with changing, refused, locked(out, "mine", break_lock=True):
        pass
    with patch.object(lock, "CLAIMED", 0.01), locked(out, "mine", break_lock=True):
        assert b"mine" in (objects.read(out, lock.KEY) or b"")
    assert objects.sizes(out) == {}


def test_a_living_claim_is_not_broken(tmp_path):
    left(str(tmp_path), host="elsewhere")
    claim = claim_of(str(tmp_path))
    objects.write(str(tmp_path), claim, lock._new_content("run other"))
    keep_recipe(str(tmp_path))
    refused = pytest.raises(DissectError, match="other runs are starting here")
    with refused, locked(str(tmp_path), "mine", break_lock=True):
        pass
    assert {claim, lock.KEY} <= set(objects.sizes(str(tmp_path)))


def test_what_killed_runs_were_writing_is_removed(tmp_path):
    for name in ("recipe.yaml.1.partial", "markers/lock.partial"):
        objects.write(str(tmp_path), name, b"")
    dead = json.loads(lock._new_content("run killed")) | {"pid": dead_process()}
    objects.write(str(tmp_path), f"lock.1{objects.PARTIAL}", json.dumps(dead).encode())
    keep_recipe(str(tmp_path))
    assert set(objects.sizes(str(tmp_path))) == {"recipe.yaml"}


def test_a_lock_taken_since_is_not_the_one_to_break(tmp_path):
    out, ours = str(tmp_path), psutil.Process()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = {"pid": other.pid, "born": psutil.Process(other.pid).create_time()}
        left(out, **theirs, taken=time.time())
        with pytest.raises(DissectError, match="dissect-xr run x"), locked(out, "mine", break_lock=True):
            pass
        objects.delete(out, lock.KEY)
        left(out, **theirs, taken=ours.create_time() - 10)
        with locked(out, "mine", break_lock=True):
            assert b"mine" in (objects.read(out, lock.KEY) or b"")
        other.communicate()


def test_only_the_lock_that_stood_there_first_is_broken(out):
    left(out, host="elsewhere")

    def overtaken(url, key, content, real=objects.create):
        patching.stop()
        real_delete(out, lock.KEY)
        left(out, host="another")
        return False

    real_delete = objects.delete
    patching = patch.object(objects, "create", overtaken)
    patching.start()
    with pytest.raises(DissectError, match="host another"), locked(out, "mine", break_lock=True):
        pass


def test_who_is_late_with_a_claim_is_not_named_as_the_holder(out):
    left(out, pid=dead_process())

    def too_late(url, key, content, real=objects.create):
        real(url, key, lock._new_content("run late"))
        return False

    refused = pytest.raises(DissectError, match="other runs are starting here")
    with patch.object(objects, "create", too_late), refused, locked(out, "next"):
        pass
