"""Work that makes again what turns out to be damaged while it is read.

Knows: which errors say so, or may pass, where to look then, when to give up.
Does not know: how anything is made: what is dropped is missing, and the work makes what is missing.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from dissect_xr.errors import BlocksFailed, DamagedError, DissectError
from dissect_xr.store import objects
from dissect_xr.store.markers import drop
from dissect_xr.store.verified import forget
from dissect_xr.store.verify import Damage, expected, inspect, read_all

Result = TypeVar("Result")

FRUITLESS = 3
"""Calls that may fail though nothing is found damaged; the last one ends it."""


def mended(work: Callable[[], Result], tell: Callable[[Damage], None]) -> Result:
    """The result of `work`, called again whenever it has read something damaged, which is dropped before.

    At most one call per object that can be damaged, and `FRUITLESS` more.

    Parameters
    ----------
    work
        Keeps what is finished and makes what is missing.
    tell
        Takes every damage that was dropped, as soon as it was.

    Raises
    ------
    DissectError
        Where an object is damaged again after it was made again, or something cannot be read though it is intact.
    """
    seen, fruitless = set[str](), 0
    while True:
        try:
            return work()
        except Exception as error:
            unread, why = _unread(error), error
        if not unread and not objects.is_transport(why):
            raise why
        damages = [damage for url, keys in unread.items() for damage in repair(url, full=True, below=keys)]
        found = {damage.where for damage in damages}
        if again := sorted(found & seen):
            raise DissectError(
                f"{again[0]}: cannot be read again, though it was mended since. Is a disk failing, or the memory of a "
                f"worker? {why}"
            ) from why
        fruitless += not damages
        if fruitless == FRUITLESS:
            where = ", ".join(objects.join(url, key) for url in unread for key in sorted(unread[url])) or "a store"
            raise DissectError(
                f"{where}: cannot be read, though nothing is found damaged; this run met that {FRUITLESS} times. Is a "
                f"disk failing, the network, or the memory of a worker? {why}"
            ) from why
        seen |= found
        for damage in damages:
            tell(damage)


def _unread(error: Exception) -> dict[str, set[str]]:
    """Store -> keys of what could not be read."""
    lost: list[tuple[str, str] | None] = [(error.url, error.below)] if isinstance(error, DamagedError) else []
    if isinstance(error, BlocksFailed):
        lost = [failure.damaged for failure in error.failures]
    unread: dict[str, set[str]] = {}
    for url, key in filter(None, lost):
        unread.setdefault(url, set()).add(key)
    return unread


def repair(url: str, *, full: bool = False, below: Iterable[str] | None = None, show: bool = True) -> list[Damage]:
    """Remove what is damaged, and the markers that list it, so that just those blocks are done again.

    Looks at sizes and metadata; with `full` at every byte, which `show` draws a progress bar of. `below` are keys of
    objects, groups and arrays: only what belongs to them, and the markers, is looked at.
    """
    known = expected(url)
    if below is None:
        damages = list(read_all(known, show) if full else inspect(known, full=False))
    else:
        within = tuple(f"{key}/" if key else "" for key in below)
        only = [key for key in known.objects if f"{key}/".startswith(within)]
        damages = [*known.damages, *inspect(known, full=full, only=only)]
    if damages:
        drop(url, {key for damage in damages for key in damage.markers})
        for damage in damages:
            if damage.key is not None:
                # A truncated shard cannot be overwritten by zarr 3.1.6.
                objects.delete(url, damage.key)
        forget(url)
    return damages


def sweep(url: str) -> int:
    """Remove files that were being written when their writer died; how many there were. Nobody else may be writing."""
    if not objects.is_local(url):
        return 0
    partial = [key for key in objects.sizes(url) if key.endswith(objects.PARTIAL)]
    objects.delete_all(url, partial)
    return len(partial)
