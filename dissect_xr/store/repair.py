"""Repair of damaged stores: damaged objects and their markers are deleted, and the stages compute them again.

Knows: which errors mean that an object is damaged, where to look for more damage, when to give up.
Does not know: how an object is computed. A stage computes every block that has no marker.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from dissect_xr.errors import BlocksFailed, DamagedError, DissectError
from dissect_xr.store import objects
from dissect_xr.store.markers import drop, markers
from dissect_xr.store.seal import sealed
from dissect_xr.store.verified import forget
from dissect_xr.store.verify import Damage, expected, inspect, read_all

Result = TypeVar("Result")

FRUITLESS = 3
"""Failed calls of the work in which no damage was found; after this many, `mended` gives up."""


def mended(work: Callable[[], Result], on_damage: Callable[[Damage], None]) -> Result:
    """The result of `work`. If it reads damaged objects, they are deleted and it is called again.

    It is called again at most once for every object of the stores, and `FRUITLESS` times more.

    Parameters
    ----------
    work
        A function that keeps all finished blocks and computes all others.
    on_damage
        Called for each damaged object after it was deleted.

    Raises
    ------
    DissectError
        If an object is damaged again after it was computed again, or an object cannot be read `FRUITLESS` times though
        no damage is found.
    """
    mended_before, fruitless = set[str](), 0
    while True:
        try:
            return work()
        except Exception as error:
            unreadable, cause = _unreadable(error), error
        if not unreadable and not objects.is_transport(cause):
            raise cause
        damages = [damage for url, keys in unreadable.items() for damage in repair(url, full=True, within=keys)]
        found = {damage.where for damage in damages}
        if again := sorted(found & mended_before):
            raise DissectError(
                f"{again[0]}: is damaged again, though this run has computed it again. Check the disk and the memory "
                f"of the workers. {cause}"
            ) from cause
        fruitless += not damages
        if fruitless == FRUITLESS:
            named = ", ".join(objects.join(url, key) for url in unreadable for key in sorted(unreadable[url]))
            raise DissectError(
                f"{named or 'a store'}: cannot be read, though no damage is found; this happened {FRUITLESS} times in "
                f"this run. Check the disk, the network, and the memory of the workers. {cause}"
            ) from cause
        mended_before |= found
        for damage in damages:
            on_damage(damage)


def _unreadable(error: Exception) -> dict[str, set[str]]:
    """Store -> keys of the objects, groups and arrays that could not be read."""
    pairs: list[tuple[str, str] | None] = [(error.url, error.key)] if isinstance(error, DamagedError) else []
    if isinstance(error, BlocksFailed):
        pairs = [failure.damaged for failure in error.failures]
    unreadable: dict[str, set[str]] = {}
    for url, key in filter(None, pairs):
        unreadable.setdefault(url, set()).add(key)
    return unreadable


def repair(
    url: str,
    *,
    full: bool = False,
    within: Iterable[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    show: bool = True,
) -> list[Damage]:
    """The damaged objects, after deleting them and the markers that list them, so that their blocks are computed again.

    Parameters
    ----------
    full
        Whether to read every byte of the whole store, rather than only sizes and metadata.
    within
        Keys of objects and paths of groups and arrays: only these, their objects and the markers are checked, and every
        byte of them. None checks the whole store.
    sizes
        Key -> bytes of all objects, where the caller has listed them already.
    show
        Whether to draw a progress bar while every byte of the store is read.
    """
    if within is not None:
        listed, prefixes = expected(url), tuple(f"{key}/" if key else "" for key in within)
        only = [key for key in listed.objects if f"{key}/".startswith(prefixes)]
        damages = [*listed.damages, *inspect(listed, only=only)]
    elif full:
        damages = list(read_all(expected(url), show=show))
    else:
        sizes = objects.sizes(url) if sizes is None else sizes
        keys = markers(url)
        damages = list(inspect(expected(url, sealed(url, sizes, keys), keys), sizes=sizes))
    if damages:
        drop(url, {key for damage in damages for key in damage.markers})
        for damage in damages:
            if damage.key is not None:
                # A truncated shard cannot be overwritten by zarr 3.1.6.
                objects.delete(url, damage.key)
        forget(url)
    return damages


def sweep(url: str) -> dict[str, int]:
    """Key -> bytes of all objects, after deleting partial files that killed writers left. Nobody else may write."""
    sizes = objects.sizes(url)
    partial = [key for key in sizes if key.endswith(objects.PARTIAL)] if objects.is_local(url) else []
    objects.delete_all(url, partial)
    return {key: size for key, size in sizes.items() if key not in set(partial)} if partial else sizes
