"""Where stores lie: folders and object stores alike, by URL, as whole objects under keys.

Knows: paths, URLs, the zarr store behind each; reading, writing, listing and conditional creation of an object.
Does not know: what an object holds.

`s3://`, `gs://` and `az://` go through obstore, which has conditional creation; credentials and endpoint come from the
usual environment variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). Any other URL goes through fsspec, where
creation is not conditional.
"""

import errno
import functools
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import google_crc32c
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from dissect_xr.errors import DissectError, WriteError

OBJECT_STORES = ("s3://", "s3a://", "gs://", "az://", "abfs://")

PARTIAL = ".partial"
"""Suffix of a file that is being written; zarr's local store uses it as well."""

_NO_WAY = {errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}

_NO_ANSWER = re.compile(r"HTTP error|status code: (408|429|5\d\d)")
"""obstore has one class for all: a lost connection and a busy server, but also a range past the end of an object."""


def is_local(url: str) -> bool:
    """Whether `url` is a path on this machine."""
    return "://" not in url


def join(url: str, *parts: str) -> str:
    """`url` with `parts` appended, for paths and URLs alike."""
    return str(Path(url, *parts)) if is_local(url) else posixpath.join(url, *parts)


def key(path: str, name: str) -> str:
    """Key of the object `name` of the group at `path`.

    >>> key("", "zarr.json"), key("first/conv1", "zarr.json")
    ('zarr.json', 'first/conv1/zarr.json')
    """
    return f"{path}/{name}" if path else name


def split(url: str) -> tuple[str, str]:
    """The place that holds `url`, and its name there."""
    if is_local(url):
        return str(Path(url).parent), Path(url).name
    parent, name = posixpath.split(url.rstrip("/"))
    return parent, name


def checksum(data: bytes) -> int:
    """crc32c."""
    return int(google_crc32c.value(data))


def open_store(url: str) -> Any:
    """The zarr store at `url`."""
    if is_local(url):
        return LocalStore(Path(url))
    if url.startswith(OBJECT_STORES):
        return ObjectStore(_object_store(url, os.environ.get("AWS_ENDPOINT_URL", "")))
    return FsspecStore.from_url(url)


def is_transport(error: Exception) -> bool:
    """Whether `error` is of the way to a store, and so may pass, not of what lies there.

    >>> is_transport(ConnectionResetError()), is_transport(OSError(errno.EIO, "Input/output error"))
    (True, False)
    """
    if isinstance(error, OSError):
        return isinstance(error, (TimeoutError, ConnectionError)) or error.errno in _NO_WAY
    return type(error).__module__.startswith("obstore") and _NO_ANSWER.search(str(error)) is not None


@functools.lru_cache(maxsize=64)
def _object_store(url: str, endpoint: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise DissectError(f"{url}: object stores need one more package: pip install 'dissect-xr[s3]'.") from error
    plain: Any = {"allow_http": True} if endpoint.startswith("http://") else None
    return from_url(url, client_options=plain)


def read(url: str, key: str) -> bytes | None:
    """The object under `key`, None where there is none."""
    if is_local(url):
        try:
            return Path(url, key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    buffer = sync(open_store(url).get(key, default_buffer_prototype()))
    return None if buffer is None else bytes(buffer.to_bytes())


def write(url: str, key: str, data: bytes) -> None:
    """Put an object under `key`: whole or not at all.

    Raises
    ------
    WriteError
        Naming the place and the bytes needed.
    """
    with writing(url, key, len(data)):
        if is_local(url):
            _write_file(Path(url, key), data, exclusive=False)
        else:
            sync(open_store(url).set(key, default_buffer_prototype().buffer.from_bytes(data)))


def create(url: str, key: str, data: bytes) -> bool:
    """Put an object under `key` unless there is one; whether this call did."""
    with writing(url, key, len(data)):
        if is_local(url):
            try:
                _write_file(Path(url, key), data, exclusive=True)
            except FileExistsError:
                return False
            return True
        if url.startswith(OBJECT_STORES):
            return _create_object(open_store(url).store, key, data)
        if read(url, key) is not None:
            return False
    write(url, key, data)
    return True


def _create_object(store: Any, key: str, data: bytes) -> bool:
    import obstore

    try:
        obstore.put(store, key, data, mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return False
    return True


def _write_file(path: Path, data: bytes, *, exclusive: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        partial.write_bytes(data)
        if exclusive:
            os.link(partial, path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def delete(url: str, key: str) -> None:
    """Remove the object under `key`, if there is one."""
    if is_local(url):
        Path(url, key).unlink(missing_ok=True)
    else:
        sync(open_store(url).delete(key))


def delete_all(url: str, keys: Iterable[str]) -> None:
    """Remove the objects under `keys`, as far as there are such; an object store is asked once for a thousand."""
    keys = list(keys)
    if keys and url.startswith(OBJECT_STORES):
        import obstore

        with suppress(FileNotFoundError):  # some object stores say so where there is nothing to delete, others do not
            obstore.delete(open_store(url).store, keys)
        return
    for key in keys:
        delete(url, key)


def delete_below(url: str, prefix: str) -> None:
    """Remove all objects below `prefix`, an empty one meaning all."""
    if is_local(url):
        shutil.rmtree(Path(url, prefix), ignore_errors=True)
    else:
        delete_all(url, sizes(url, f"{prefix}/" if prefix else ""))


def holds_anything(url: str) -> bool:
    """Whether a folder holds anything but what was being written; object stores are not asked."""
    if not is_local(url) or not Path(url).is_dir():
        return False
    return any(not path.name.endswith(PARTIAL) for path in Path(url).iterdir())


def sizes(url: str, prefix: str = "") -> dict[str, int]:
    """Bytes of every object whose key starts with `prefix`, which ends with a slash; sorted by key."""
    found = dict(_files(Path(url), Path(url, prefix)) if is_local(url) else sync(_listed(open_store(url), prefix)))
    return dict(sorted(found.items()))


def _files(root: Path, folder: Path) -> Iterator[tuple[str, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                yield path.relative_to(root).as_posix(), path.stat().st_size
            except FileNotFoundError:  # a worker has just finished writing it under its own name
                continue


async def _listed(store: Any, prefix: str) -> dict[str, int]:
    if isinstance(store, ObjectStore):
        return {item["path"]: item["size"] async for item in store._list(prefix or None)}
    return {key: await store.getsize(key) async for key in store.list_prefix(prefix)}


@contextmanager
def writing(url: str, key: str, nbytes: int) -> Iterator[None]:
    """What cannot be written inside becomes one message with the place and the bytes needed."""
    try:
        yield
    except DissectError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("obstore"):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteError(
            f"{join(url, key)}: cannot write {nbytes:,} bytes: {reason}{_free(url)}. What is finished is kept: make "
            "space, or mend what is said here, and give the same command again."
        ) from error


def _free(url: str) -> str:
    if not is_local(url):
        return ""
    folder = Path(url).absolute()
    while not folder.exists():
        folder = folder.parent
    return f" ({shutil.disk_usage(folder).free:,} bytes are free there)"
