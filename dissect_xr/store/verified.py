"""What stands between zarr and the objects: notes what is written, refuses what was not written so.

Knows: zarr's store interface; that metadata has no checksum of its own and that a missing chunk reads as zeros.
Does not know: arrays or blocks; chunks carry the codec's checksum, which zarr checks.
"""

import asyncio
import functools
import re
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

from dissect_xr.errors import DamagedError
from dissect_xr.store import objects
from dissect_xr.store.markers import Written, marker

METADATA = "zarr.json"

LISTING = ("created", "done")
"""Last part of the keys of markers that list metadata."""

_CHUNK = re.compile(r"(^|/)c(/\d+)*$")

MEND = "`dissect-xr verify` names all damage; `run --verify` does all damaged blocks again, `run` those that it meets."


class VerifiedStore(WrapperStore[Any]):
    """A store to read from, whose metadata is what its markers list and whose finished arrays lack no chunk."""

    def __init__(self, store: Any, url: str) -> None:
        super().__init__(store)
        self.url = url

    def _with_store(self, store: Any) -> "VerifiedStore":
        return type(self)(store, self.url)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if not _in_question(key, value):
            return value
        if objects.is_local(self.url):
            self._check(key, value)
        else:
            # Reading a marker of an object store waits for zarr's event loop, on which this runs.
            await asyncio.to_thread(self._check, key, value)
        return value

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """zarr 3.4 reads through this where the wrapped store can; 3.1 never calls it."""
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)  # type: ignore[misc]
        if _in_question(key, value):
            self._check(key, value)
        return value  # type: ignore[no-any-return]

    def _check(self, key: str, value: Buffer | None) -> None:
        if value is not None:
            check_metadata(self.url, key, value.to_bytes())
        elif _listed(self.url).finished(key):
            message = f"{objects.join(self.url, key)}: is missing, though its array is finished. {MEND}"
            raise DamagedError(message, self.url, key)


def _in_question(key: str, value: Buffer | None) -> bool:
    """Whether there is something that zarr would not notice: changed metadata, or a chunk that is not there."""
    return key.endswith(METADATA) if value is not None else _CHUNK.search(key) is not None


class RecordingStore(WrapperStore[Any]):
    """A store to write to, that notes size and checksum of everything written through it.

    No chunk is read back: writers own whole shards, and zarr 3.1.6 fails to overwrite a truncated one it reads first.
    """

    def __init__(self, store: Any, url: str, written: Written | None = None) -> None:
        super().__init__(store)
        self.url = url
        self.written: Written = {} if written is None else written

    def _with_store(self, store: Any) -> "RecordingStore":
        return type(self)(store, self.url, self.written)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Buffer | None:
        return None if _CHUNK.search(key) else await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """zarr 3.4 reads through this where the wrapped store can; 3.1 never calls it."""
        if _CHUNK.search(key):
            return None
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)  # type: ignore[misc,no-any-return]

    async def set(self, key: str, value: Buffer) -> None:
        data = value.to_bytes()
        with objects.writing(self.url, key, len(data)):
            await super().set(key, value)
        self.written[key] = (len(data), objects.checksum(data))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """zarr 3.4 writes through this where the wrapped store can; 3.1 never calls it."""
        data = value.to_bytes()
        with objects.writing(self.url, key, len(data)):
            super().set_sync(key, value)  # type: ignore[misc]
        self.written[key] = (len(data), objects.checksum(data))


class _Listed:
    """The metadata that the markers of one store list, read as it is needed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, list[int]] = {}
        self.done: set[str] = set()

    def load(self, key: str) -> None:
        """Read the markers that can list `key`."""
        parts = key.split("/")[:-1]
        for depth in range(len(parts) + 1):
            above = "/".join(parts[:depth])
            for name in LISTING:
                content = marker(self.url, f"{above}/{name}" if above else name)
                if content is None:
                    continue
                if name == "done":
                    self.done.add(above)
                self.objects |= {k: v for k, v in content["objects"].items() if k.endswith(METADATA)}

    def finished(self, key: str) -> bool:
        """Whether the array of a chunk belongs to a group that is done."""
        parts = key.split("/")
        above = {"/".join(parts[:depth]) for depth in range(len(parts))}
        if not above & self.done:
            self.load(key)
        return bool(above & self.done)


@functools.lru_cache(maxsize=64)
def _listed(url: str) -> _Listed:
    return _Listed(url)


def check_metadata(url: str, key: str, data: bytes) -> None:
    """Raise unless `data` is what the markers list under `key`; where none does, it is not finished.

    Raises
    ------
    DamagedError
        Naming the object.
    """
    known, found = _listed(url), [len(data), objects.checksum(data)]
    if known.objects.get(key) == found:
        return
    # Not seen before, or written again since by this run.
    known.objects.pop(key, None)
    known.load(key)
    if known.objects.get(key, found) != found:
        raise DamagedError(f"{objects.join(url, key)}: is damaged: not what was written. {MEND}", url, key)


def forget(url: str) -> None:
    """Read the markers of `url` again when they are needed next: something was removed."""
    known = _listed(url)
    known.objects.clear()
    known.done.clear()
