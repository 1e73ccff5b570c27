"""A lock, so that only one run at a time writes to an output directory.

Knows: the object `lock`, which is created only if there is none and names the run that holds it; the live processes of
this host.
Does not know: what the run does.

Two runs that take over the same lock, an example: process 17 of this host was killed, and its `lock` (call its content
L) was left. The runs A and B start at the same time, both read L and find that process 17 is gone.

1. To replace L, a run must first create the object `lock.<the first 32 hex digits of sha256(L)>.partial`, the claim.
   Only one run can create it. Say that A does: B finds the claim of a live run and stops with "other runs are
   starting".
2. A reads `lock` again. It is still L, so A writes its own content there and deletes the claim. A holds the lock.
3. If B is slower and tries to create the claim only now, it succeeds, but then reads `lock` again and finds A's content
   instead of L. B deletes its claim, starts over, and is refused with the name of A.

Where a file system has no hard links, a lock may be read while it is being written. What is no whole lock counts as
held by someone else, and is read again a moment later.
"""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psutil

from dissect_xr.errors import DissectError
from dissect_xr.store import objects

KEY = "lock"

TRIES = 3
"""How often a run reads a lock that other runs keep changing, before it gives up."""

READS = 4
"""How often a lock is read that is not whole, because another run may just be writing it."""

READ_PAUSE = 0.1
"""Seconds between two such reads."""

CLAIMED = 5.0
"""Seconds after which another host's claim counts as abandoned; a live run holds its claim for two requests."""


@contextmanager
def locked(out: str, command: str, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock of the output directory `out` inside the `with` block.

    If the process that holds the lock ran on this host and is gone, the lock is taken over. With `break_lock` the
    present lock is taken over whoever holds it, except from a process of this host that took it after this process
    started: if several processes break a lock, one of them gets it. With `break_lock` a claim of another host is taken
    over as well, if it still has the same content after `CLAIMED` seconds.

    Raises
    ------
    DissectError
        If another run holds the lock: its command, host, process number and start time.
    """
    breakable = _breakable(out) if break_lock else None
    with _holding(out, KEY, _new_content(command), breakable):
        yield


@contextmanager
def _holding(out: str, key: str, own: bytes, breakable: bytes | None) -> Iterator[None]:
    """Keep the object `key` with the content `own` inside the `with` block; raise if another run holds it.

    An object whose content is `breakable`, or whose holder is gone, is replaced while this run holds a claim. A claim
    is an object like the lock itself, named by the digest of the content it replaces (see the example above).
    """
    for _ in range(TRIES):
        if objects.create(out, key, own):
            break
        found = _read(out, key)
        if found is None:  # its holder has just deleted it
            continue
        if found == own:  # this run created it, but the answer was lost
            break
        if not (found == breakable or left_behind(found)):
            raise DissectError(_in_use_message(out, found) if key == KEY else _starting_message(out))
        claim = f"{KEY}.{hashlib.sha256(found).hexdigest()[:32]}{objects.PARTIAL}"
        with _holding(out, claim, own, _abandoned_claim(out, claim) if found == breakable else None):
            if objects.read(out, key) == found:
                objects.write(out, key, own)
                break
    else:
        raise DissectError(_starting_message(out))
    try:
        yield
    finally:
        if objects.read(out, key) == own:
            objects.delete(out, key)


def _read(out: str, key: str) -> bytes | None:
    """The content of the object `key`, read again for a moment if it is not a whole lock; None if there is none."""
    for _ in range(READS - 1):
        found = objects.read(out, key)
        if found is None or _fields(found):
            return found
        time.sleep(READ_PAUSE)
    return objects.read(out, key)


def _breakable(out: str) -> bytes | None:
    """The present lock; None if another process of this host took it after this process started.

    The user who gave `--break-lock` cannot have meant a lock that did not exist yet.
    """
    found = _read(out, KEY)
    content, process = _fields(found or b""), psutil.Process()
    other = _is_of_this_host(content) and content["pid"] != process.pid
    return None if other and float(content.get("taken", 0)) > process.create_time() else found


def _abandoned_claim(out: str, claim: str) -> bytes | None:
    """The content of `claim` as it was `CLAIMED` seconds ago.

    None for a claim of this host: whether its process is alive is known without waiting.
    """
    found = objects.read(out, claim)
    if found is None or _is_of_this_host(_fields(found)):
        return None
    time.sleep(CLAIMED)
    return found


def _new_content(command: str) -> bytes:
    """The content of a lock that this process holds: JSON that names the process and its command.

    No two locks have the same content, so a run can tell its own from one that another thread of its process took.
    """
    now = datetime.now(UTC)
    process = psutil.Process()
    content = {
        "host": socket.gethostname(),
        "pid": process.pid,
        "born": process.create_time(),
        "command": command,
        "started": now.isoformat(timespec="seconds"),
        "taken": now.timestamp(),
        "id": uuid4().hex,
    }
    return json.dumps(content).encode()


def _fields(lock: bytes) -> dict[str, Any]:
    """The JSON fields of a lock; none if it is damaged."""
    try:
        content = json.loads(lock)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_of_this_host(content: dict[str, Any]) -> bool:
    return content.get("host") == socket.gethostname() and isinstance(content.get("pid"), int)


def left_behind(lock: bytes) -> bool:
    """Whether the holder of a lock was a process of this host that is gone.

    A new process may have its number by now, so the time at which the process started is compared as well. A zombie is
    gone, too: it has ended, but its parent has not asked for its exit code, as in a container without an init process.
    """
    content = _fields(lock)
    if not _is_of_this_host(content):
        return False
    try:
        process = psutil.Process(content["pid"])
        born, status = process.create_time(), process.status()
    except psutil.NoSuchProcess:
        return True
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return True
    return bool(abs(born - float(content.get("born", born))) > 2)


def _starting_message(out: str) -> str:
    """Does not name the run that holds a claim: that run may not get the lock."""
    return (
        f"{objects.join(out, KEY)}: other runs are starting here as well. Give the same command again; if "
        "it says so again though no other run is starting, give --break-lock."
    )


def _in_use_message(out: str, lock: bytes) -> str:
    content = _fields(lock)
    where = objects.join(out, KEY)
    if not content:
        return f"{where}: is not a lock of this program, or is damaged. If no run uses {out}, give --break-lock."
    holder = ", ".join(f"{name} {content.get(name)}" for name in ("host", "pid", "started"))
    return (
        f"{out}: is in use by `{content.get('command')}` ({holder}). Wait until it ends, or choose another --out. This "
        "host cannot find out whether a run on another host is alive: if you know that it is dead, give --break-lock."
    )
