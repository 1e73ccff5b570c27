"""One run at a time in one output directory.

Knows: the object `lock`, created only where there is none, that names who holds it; which processes are alive here.
Does not know: what the run does.
"""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil

from dissect_xr.errors import DissectError
from dissect_xr.store import objects

KEY = "lock"

TRIES = 3
"""Looks at a lock that changes meanwhile."""

CLAIMED = 5.0
"""Seconds after which another host's claim, which is held for two requests, counts as left behind."""


@contextmanager
def locked(out: str, command: str, *, break_lock: bool = False) -> Iterator[None]:
    """Hold the lock of the output directory `out` inside.

    A lock left by a process of this host that is gone is taken over. `break_lock` takes the one that stands there now
    from anyone, unless another process of this host took it since this one began: of several that break a lock one
    gets it. A claim in its way that another host left is broken too, if it stands there for `CLAIMED` seconds more.

    Raises
    ------
    DissectError
        Where another run holds it: who, where, since when.
    """
    broken = _seen(out) if break_lock else None
    with _held(out, KEY, _mine(command), broken):
        yield


@contextmanager
def _held(out: str, key: str, mine: bytes, broken: bytes | None) -> Iterator[None]:
    """Have `mine` stand under `key` inside, where nobody else's does but `broken`.

    That, or what a dead one left, is replaced under a claim, which is an object like the lock itself, named by the
    digest of what it replaces: it can be created by one only, and who is late finds another content than it claimed.
    """
    for _ in range(TRIES):
        if objects.create(out, key, mine):
            break
        held = objects.read(out, key)
        if held is None:  # let go of meanwhile
            continue
        if not (held == broken or left_behind(held)):
            raise DissectError(_refusal(out, held) if key == KEY else _crowded(out))
        claim = f"{KEY}.{hashlib.sha256(held).hexdigest()[:32]}{objects.PARTIAL}"
        with _held(out, claim, mine, _stuck(out, claim) if held == broken else None):
            if objects.read(out, key) == held:
                objects.write(out, key, mine)
                break
    else:
        raise DissectError(_crowded(out))
    try:
        yield
    finally:
        if objects.read(out, key) == mine:
            objects.delete(out, key)


def _seen(out: str) -> bytes | None:
    """The lock that whoever started this process can have seen."""
    held = objects.read(out, KEY)
    content, process = _fields(held or b""), psutil.Process()
    other = _is_here(content) and content["pid"] != process.pid
    return None if other and float(content.get("taken", 0)) > process.create_time() else held


def _stuck(out: str, claim: str) -> bytes | None:
    """What stood under `claim` `CLAIMED` seconds ago; None for one of this host, where it is seen who lives."""
    held = objects.read(out, claim)
    if held is None or _is_here(_fields(held)):
        return None
    time.sleep(CLAIMED)
    return held


def _mine(command: str) -> bytes:
    now = datetime.now(UTC)
    process = psutil.Process()
    content = {
        "host": socket.gethostname(),
        "pid": process.pid,
        "born": process.create_time(),
        "command": command,
        "started": now.isoformat(timespec="seconds"),
        "taken": now.timestamp(),
    }
    return json.dumps(content).encode()


def _fields(held: bytes) -> dict[str, Any]:
    """What a lock says; nothing where it is damaged."""
    try:
        content = json.loads(held)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_here(content: dict[str, Any]) -> bool:
    return content.get("host") == socket.gethostname() and isinstance(content.get("pid"), int)


def left_behind(held: bytes) -> bool:
    """Whether the holder was a process of this host that is gone; its number may be another one's by now."""
    content = _fields(held)
    if not _is_here(content):
        return False
    try:
        born = psutil.Process(content["pid"]).create_time()
    except psutil.NoSuchProcess:
        return True
    return bool(abs(born - float(content.get("born", born))) > 2)


def _crowded(out: str) -> str:
    """Who holds a claim may be late and get nothing: it is not named."""
    return f"{objects.join(out, KEY)}: other runs are starting here as well. Try again."


def _refusal(out: str, held: bytes) -> str:
    content = _fields(held)
    where = objects.join(out, KEY)
    if not content:
        return f"{where}: is no lock of this program. If nothing runs here, give --break-lock."
    who = ", ".join(f"{name} {content.get(name)}" for name in ("host", "pid", "started"))
    return (
        f"{out}: is in use by `{content.get('command')}` ({who}). Wait for it, or choose another --out; if that run is "
        f"dead, which cannot be seen from here, give --break-lock."
    )
