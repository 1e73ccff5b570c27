"""Wrappers of zarr stores: `RecordingStore` records what is written, `VerifiedStore` refuses to read anything else.

Knows: zarr's store interface; that zarr's metadata has no checksum, and that zarr reads a missing chunk as zeros.
Does not know: arrays or blocks.

A verified read, an example. The marker `first/created` lists the object `first/conv1/zarr.json` with 312 bytes and the
crc32c 304860571, and there is a marker `first/done`.

1. zarr gets `first/conv1/zarr.json`. `VerifiedStore` looks for the markers `created` and `done` at the root, of `first`
   and of `first/conv1`, and compares size and crc32c of the bytes read with (312, 304860571). With 311 bytes, or with
   one flipped bit, it raises `DamagedError`. If none of these markers lists the object, the group is not finished yet,
   and the bytes are returned unchecked.
2. zarr gets the chunk `first/conv1/activation/c.3.0.0.0`. If the object exists, it is returned unchecked: its zstd
   frame ends with a checksum of its own, which zarr's codec compares.
3. If the object does not exist, zarr would fill the array with zeros. But `first/done` says that all chunks of
   the group were written, so `DamagedError` is raised. So it is for a chunk that one of the other markers lists, as the
   names of the images at the root. What neither says counts as not written yet.

The content of the markers is read once per process and store, and again after `forget`, or when a comparison fails:
this run may have written the metadata again. Such a check is decided by what it has read itself, since other threads
change what is kept for later checks meanwhile. The bytes that were compared are the bytes that zarr gets.
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
"""Last parts of the keys of those markers that list metadata, and the chunks that are written with it."""

_CHUNK = re.compile(r"(^|/)c([./]\d+)*$")

MEND = (
    "`dissect-xr verify` lists all damage; `run --verify` computes all damaged blocks again, `run` those that it reads."
)


class VerifiedStore(WrapperStore[Any]):
    """A store to read from: raises `DamagedError` for changed metadata, and for a missing chunk of a finished array."""

    def __init__(self, store: Any, url: str) -> None:
        super().__init__(store)
        self.url = url

    def _with_store(self, store: Any) -> "VerifiedStore":
        return type(self)(store, self.url)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if not _needs_check(key, value):
            return value
        if objects.is_local(self.url):
            self._check(key, value)
        else:
            # This coroutine runs on zarr's event loop; reading a marker waits for that loop, so it needs another
            # thread.
            await asyncio.to_thread(self._check, key, value)
        return value

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Buffer | None:
        """As `get`. zarr 3.4 calls it if the wrapped store has it, zarr 3.1 never does."""
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)  # type: ignore[misc]
        if _needs_check(key, value):
            self._check(key, value)
        return value  # type: ignore[no-any-return]

    def _check(self, key: str, value: Buffer | None) -> None:
        if value is not None:
            check_metadata(self.url, key, value.to_bytes())
        elif _listed_metadata(self.url).is_finished(key):
            message = f"{objects.join(self.url, key)}: is missing, though it was written. {MEND}"
            raise DamagedError(message, self.url, key)


def _needs_check(key: str, value: Buffer | None) -> bool:
    """Whether zarr would overlook damage of this object: it is metadata, or a chunk that does not exist."""
    return key.endswith(METADATA) if value is not None else _CHUNK.search(key) is not None


class RecordingStore(WrapperStore[Any]):
    """A store to write to: records size and crc32c of every object that is written through it.

    It tells zarr that no chunk exists yet. Writers write whole shards, so nothing needs to be read first, and zarr
    3.1.6 fails if it reads a truncated shard before it overwrites it.
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
        """As `get`. zarr 3.4 calls it if the wrapped store has it, zarr 3.1 never does."""
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
        """As `set`. zarr 3.4 calls it if the wrapped store has it, zarr 3.1 never does."""
        data = value.to_bytes()
        with objects.writing(self.url, key, len(data)):
            super().set_sync(key, value)  # type: ignore[misc]
        self.written[key] = (len(data), objects.checksum(data))


class _ListedMetadata:
    """The metadata objects that the markers of one store list. Markers are read when they are first needed.

    Threads share it. An entry may vanish at any moment, so only an entry that is there proves anything.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, list[int]] = {}
        """key of a metadata object -> [bytes, crc32c]"""
        self.done: set[str] = set()
        """paths of the groups that have a marker `done`"""

    def load(self, key: str) -> tuple[dict[str, list[int]], set[str]]:
        """`objects` and `done` of the groups above the object `key`, read from their markers now, and kept.

        A chunk is among the objects if it is `key` itself.
        """
        listed: dict[str, list[int]] = {}
        done: set[str] = set()
        known, finished = self.objects, self.done  # if `forget` is called meanwhile, what is read here is not kept
        parts = key.split("/")[:-1]
        for depth in range(len(parts) + 1):
            group = "/".join(parts[:depth])
            for name in LISTING:
                content = marker(self.url, objects.key(group, name))
                if content is None:
                    continue
                if name == "done":
                    done.add(group)
                listed |= {k: v for k, v in content["objects"].items() if k.endswith(METADATA) or k == key}
        if key not in listed:
            known.pop(key, None)
        known.update(listed)
        finished.update(done)
        return listed, done

    def is_finished(self, key: str) -> bool:
        """Whether the chunk `key` is listed, or belongs to an array of a group that has a marker `done`."""
        parts = key.split("/")
        groups = {"/".join(parts[:depth]) for depth in range(len(parts))}
        if groups & self.done:
            return True
        listed, done = self.load(key)
        return key in listed or bool(groups & done)


@functools.lru_cache(maxsize=64)
def _listed_metadata(url: str) -> _ListedMetadata:
    return _ListedMetadata(url)


def check_metadata(url: str, key: str, data: bytes) -> None:
    """Raise if a marker lists `key` with another size or crc32c than those of `data`.

    Metadata that no marker lists is accepted: it is not finished.

    Raises
    ------
    DamagedError
        Naming the object.
    """
    listed, found = _listed_metadata(url), [len(data), objects.checksum(data)]
    if listed.objects.get(key) == found:
        return
    # The marker has not been read yet, or this run has written the object and its marker again since.
    if listed.load(key)[0].get(key, found) != found:
        raise DamagedError(
            f"{objects.join(url, key)}: is damaged: its size or checksum is not that of what was written. {MEND}",
            url,
            key,
        )


def forget(url: str) -> None:
    """Make this process read the markers of `url` again when it next needs them; call it after removing objects."""
    listed = _listed_metadata(url)
    listed.objects, listed.done = {}, set()
