"""Objects under keys, in local folders and in object stores, addressed by path or URL.

Knows: paths, URLs and the zarr store for each; how to read, write, list, delete and conditionally create an object.
Does not know: what an object holds.

`s3://`, `gs://` and `az://` are accessed through obstore, which creates objects conditionally; credentials and endpoint
come from the usual environment variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). All other URLs are accessed
through fsspec, which cannot create an object conditionally.
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
from dissect_xr.parallel.retry import retried

OBJECT_STORES = ("s3://", "s3a://", "gs://", "az://", "abfs://")

PARTIAL = ".partial"
"""Suffix of a file that is being written; zarr's local store uses the same one."""

Url = str | os.PathLike[str]
"""Where a store lies: a path or a URL."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
"""What `os.link` fails with where the file system has no hard links, as FUSE mounts and exFAT."""

_TRANSPORT_ERRNO = {errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}

_TRANSPORT_MESSAGE = re.compile(r"HTTP error|status code: (408|429|5\d\d)")
"""obstore raises one class for a lost connection, a busy server and a range past the end of an object alike."""


def as_url(url: Url) -> str:
    """A path or URL as text; `~` at its start stands for the home directory.

    >>> as_url(Path("run") / "probe.zarr"), as_url("s3://bucket/probe.zarr")
    ('run/probe.zarr', 's3://bucket/probe.zarr')
    """
    return os.path.expanduser(os.fspath(url))


def is_local(url: str) -> bool:
    """Whether `url` is a path on this machine."""
    return "://" not in url


def join(url: str, *parts: str) -> str:
    """`url` with `parts` appended, for paths and URLs alike."""
    return str(Path(url, *parts)) if is_local(url) else posixpath.join(url, *parts)


def key(path: str, name: str) -> str:
    """Key of the object `name` in the group at `path`.

    >>> key("", "zarr.json"), key("first/conv1", "zarr.json")
    ('zarr.json', 'first/conv1/zarr.json')
    """
    return f"{path}/{name}" if path else name


def split(url: str) -> tuple[str, str]:
    """The URL of the folder that holds `url`, and the name of `url` in it."""
    if is_local(url):
        return str(Path(url).parent), Path(url).name
    parent, name = posixpath.split(url.rstrip("/"))
    return parent, name


def checksum(data: bytes) -> int:
    """crc32c of `data`."""
    return int(google_crc32c.value(data))


def open_store(url: str) -> Any:
    """The zarr store at `url`."""
    if is_local(url):
        return LocalStore(Path(url))
    if url.startswith(OBJECT_STORES):
        return ObjectStore(_object_store(url, os.environ.get("AWS_ENDPOINT_URL", "")))
    return FsspecStore.from_url(url)


def is_transport(error: Exception) -> bool:
    """Whether `error` is a transport error: the connection to the store failed, so a second try may succeed.

    >>> is_transport(ConnectionResetError()), is_transport(OSError(errno.EIO, "Input/output error"))
    (True, False)
    """
    if isinstance(error, OSError):
        return isinstance(error, (TimeoutError, ConnectionError)) or error.errno in _TRANSPORT_ERRNO
    return type(error).__module__.startswith("obstore") and _TRANSPORT_MESSAGE.search(str(error)) is not None


@functools.lru_cache(maxsize=64)
def _object_store(url: str, endpoint: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise DissectError(f"{url}: object stores need one more package: pip install 'dissect-xr[s3]'.") from error
    plain: Any = {"allow_http": True} if endpoint.startswith("http://") else None
    return from_url(url, client_options=plain)


def read(url: str, key: str) -> bytes | None:
    """The content of the object `key`, None if it does not exist."""
    if is_local(url):
        try:
            with open(os.path.join(url, key), "rb", buffering=0) as file:
                return file.readall()
        except (FileNotFoundError, NotADirectoryError):
            return None
    buffer = sync(open_store(url).get(key, default_buffer_prototype()))
    return None if buffer is None else bytes(buffer.to_bytes())


def write(url: str, key: str, data: bytes) -> None:
    """Write `data` to the object `key`: readers see all of it or the old content, never a part.

    A transport error is retried, and raised as it is if it stays.

    Raises
    ------
    WriteError
        With the URL of the object and its size in bytes.
    """
    retried(is_transport, _write, url, key, data)


def _write(url: str, key: str, data: bytes) -> None:
    with writing(url, key, len(data)):
        if is_local(url):
            _write_file(Path(url, key), data, exclusive=False)
        else:
            sync(open_store(url).set(key, default_buffer_prototype().buffer.from_bytes(data)))


def create(url: str, key: str, data: bytes) -> bool:
    """Write `data` to the object `key` if it does not exist; whether this call created it.

    A transport error is retried, and raised as it is if it stays. If only the answer was lost, the second try finds the
    object that the first one created, and the result is False: a caller to whom this matters compares the content.
    On a local file system without hard links, a reader may see a part of the object while it is being written.
    """
    return bool(retried(is_transport, _create, url, key, data))


def _create(url: str, key: str, data: bytes) -> bool:
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
    _write(url, key, data)
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
            _link(partial, path)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _link(partial: Path, path: Path) -> None:
    """Give a file a second name that nothing has yet; a copy of it if the file system has no hard links."""
    try:
        os.link(partial, path)
        return
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    file = path.open("xb")
    try:
        with file:
            file.write(partial.read_bytes())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def delete(url: str, key: str) -> None:
    """Delete the object `key`, if it exists; a transport error is retried."""
    retried(is_transport, _delete, url, key)


def _delete(url: str, key: str) -> None:
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
    """Delete all objects whose key starts with `prefix` and a slash; an empty `prefix` deletes all."""
    if is_local(url):
        shutil.rmtree(Path(url, prefix), ignore_errors=True)
    else:
        delete_all(url, sizes(url, f"{prefix}/" if prefix else ""))


def holds_anything(url: str) -> bool:
    """Whether a local folder holds a file that is not partly written; always False for an object store."""
    if not is_local(url) or not Path(url).is_dir():
        return False
    return any(not path.name.endswith(PARTIAL) for path in Path(url).iterdir())


def sizes(url: str, prefix: str = "") -> dict[str, int]:
    """Key -> bytes of every object whose key starts with `prefix` (empty, or ending with a slash), sorted by key."""
    found = _files(url, prefix.rstrip("/")) if is_local(url) else sync(_listed(open_store(url), prefix))
    return dict(sorted(found.items()))


def children(url: str, prefix: str) -> list[str]:
    """Names of the folders directly in the folder `prefix`, which ends with a slash; sorted."""
    if is_local(url):
        try:
            with os.scandir(os.path.join(url, prefix)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
    if url.startswith(OBJECT_STORES):
        import obstore

        found = obstore.list_with_delimiter(open_store(url).store, prefix)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)
    return sorted({key[len(prefix) :].split("/")[0] for key in sizes(url, prefix) if "/" in key[len(prefix) :]})


def _files(root: str, folder: str) -> dict[str, int]:
    """Key -> bytes of the files in a folder below `root`; 300,000 of them take a second or two."""
    found: dict[str, int] = {}
    folders = [folder]
    while folders:
        folder = folders.pop()
        prefix = f"{folder}/" if folder else ""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(prefix + entry.name)
                    continue
                with suppress(FileNotFoundError):  # a worker has just renamed its partial file
                    found[prefix + entry.name] = entry.stat().st_size
    return found


async def _listed(store: Any, prefix: str) -> dict[str, int]:
    if isinstance(store, ObjectStore):
        return {item["path"]: item["size"] async for item in store._list(prefix or None)}
    return {key: await store.getsize(key) async for key in store.list_prefix(prefix)}


@contextmanager
def writing(url: str, key: str, nbytes: int) -> Iterator[None]:
    """Turn errors of a write in the `with` block into a `WriteError` with the URL and the size of the object.

    Transport errors are raised as they are: unlike a full disk, they may be gone at the next try.
    """
    try:
        yield
    except DissectError:
        raise
    except Exception as error:
        of_store = isinstance(error, OSError) or type(error).__module__.startswith("obstore")
        if not of_store or is_transport(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise WriteError(
            f"{join(url, key)}: cannot write {nbytes:,} bytes: {reason}{_free(url)}. Finished blocks are kept: free "
            "some space, or mend the cause named here, and give the same command again."
        ) from error


def _free(url: str) -> str:
    """The free bytes of a local disk as a part of a message; empty for an object store."""
    if not is_local(url):
        return ""
    folder = Path(url).absolute()
    while not folder.exists():
        folder = folder.parent
    return f" ({shutil.disk_usage(folder).free:,} bytes are free there)"
