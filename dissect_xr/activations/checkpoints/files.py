"""What a file of weights is, decided by its content, and which files belong to it.

Knows: the first bytes of the formats that are read, and of those that are given by mistake; indexes of shards.
Does not know: torch, or what a file holds (`read`). A suffix means nothing: a `.pth.tar` is hardly ever a tar file.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dissect_xr.activations.references import file_sha256, shortlist
from dissect_xr.errors import DissectError

Format = Literal["safetensors", "index", "zip", "legacy"]
"""`zip` and `legacy` are what torch.save writes, since version 1.6 and before it."""

HEAD = 512
"""Bytes that tell the format."""

_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""The number that torch.save pickled first, before version 1.6."""

_UNPACK = "Unpack it, and name the file inside."
_CONVERT = "Convert it to PyTorch, and save model.state_dict()."
_WRONG = "Name a file of weights."

_OTHERS: Sequence[tuple[int, bytes, str, str]] = (
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS and not the file itself",
        "Run `git lfs pull` in its repository.",
    ),
    (0, b"/annex/", "a pointer of git-annex and not the file itself", "Run `git annex get` in its repository."),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes it", _CONVERT),
    (0, b"GGUF", "a GGUF file, as llama.cpp reads it", _CONVERT),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (0, b"BZh", "compressed by bzip2", _UNPACK),
    (0, b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\x93NUMPY", "a NumPy array", "Save a state dict with torch.save or safetensors."),
    (0, b"\x89PNG", "an image", _WRONG),
    (0, b"\xff\xd8\xff", "an image", _WRONG),
    (0, b"%PDF", "a PDF file", _WRONG),
)
"""Offset, bytes, what a file with these bytes is, and how to mend it."""

_PAGE = "The download gave a page and not the file, which may need a login or another address: download it again."

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".json")
"""Suffixes of the files that an error message names; they decide nothing."""


def located(path: str | Path) -> Path:
    """The path of a file of weights that is there, with ``~`` replaced by the home folder.

    Raises
    ------
    DissectError
        If it is a URL, a folder, no regular file, or does not exist; the message names the files beside it.
    """
    if "://" in str(path):
        raise DissectError(f"weights {path}: is a URL. Download the file, and name where it lies.")
    found = Path(path).expanduser()
    try:
        if found.is_dir():
            raise DissectError(f"weights {path}: is a folder: expected a file. It holds {_listed(found)}.")
        if not found.exists():
            beside = f"; {found.parent} holds {_listed(found.parent)}" if found.parent.is_dir() else ""
            link = f", only a link to {os.readlink(found)}, which does not exist" if found.is_symlink() else ""
            raise DissectError(f"weights {path}: there is no such file{link}{beside}. Correct the path.")
        if not found.is_file():
            raise DissectError(f"weights {path}: is no regular file. {_WRONG}")
    except DissectError:
        raise
    except (OSError, ValueError) as error:
        raise DissectError(f"weights {path}: cannot be read ({error}). Correct the path.") from error
    return found


def format_of(path: Path) -> Format:
    """The format of a file of weights.

    Raises
    ------
    DissectError
        If it is of none of them; the message says what it is instead, where that can be told.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DissectError(f"weights {path}: cannot be read ({error.strerror}). Check its rights.") from error
    if not head:
        raise DissectError(f"weights {path}: is empty. Download or copy it again.")
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if _TORCH_MAGIC in head[:32]:
        return "legacy"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b"[")):
        _weight_map(path)
        return "index"
    what, mend = _other(head, text.lower(), size)
    raise DissectError(f"weights {path}: is {what}. {mend}")


def shards(index: Path) -> dict[str, Path]:
    """Name of a tensor -> the file that holds it, of an index such as ``model.safetensors.index.json``.

    Raises
    ------
    DissectError
        If the index names no files, files outside its folder, or files that are missing.
    """
    found: dict[str, Path] = {}
    for tensor, name in _weight_map(index).items():
        if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name or Path(name).name != name:
            raise DissectError(f"weights {index}: {tensor} lies in {name!r}, expected a file in the index's folder.")
        found[tensor] = index.parent / name
    missing = [path.name for path in dict.fromkeys(found.values()) if not path.is_file()]
    if missing:
        raise DissectError(
            f"weights {index}: {len(missing)} of {len(set(found.values()))} shards are missing: "
            f"{shortlist(missing, 4)}. Download or copy them into {index.parent}."
        )
    return found


def weights_sha256(path: str | Path) -> str:
    """Hex sha256 of the bytes of a file of weights; of an index, over the digests of all its shards as well."""
    found = located(path)
    if format_of(found) != "index":
        return file_sha256(found)
    files = sorted(set(shards(found).values()))
    lines = [f"{file.name} {file_sha256(file)}\n" for file in [found, *files]]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stamp(path: str | Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every file that belongs to a file of weights."""
    found = located(path)
    files = [found, *sorted(set(shards(found).values()))] if format_of(found) == "index" else [found]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether the file starts with the length of a header, which starts with a brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _zip(path: Path) -> Format:
    """`zip`, if torch.save wrote this zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except Exception as error:  # damaged archives make zipfile raise many kinds of errors
        raise DissectError(
            f"weights {path}: is a zip archive, as torch.save writes it, that is damaged or incomplete "
            f"({type(error).__name__}: {error}). Download or copy it again."
        ) from None
    if "constants.pkl" in names:
        raise DissectError(
            f"weights {path}: is TorchScript, a program rather than weights. Save its weights alone: "
            "torch.save(torch.jit.load(path).state_dict(), other_path)."
        )
    if "data.pkl" in names:
        return "zip"
    if {"archive_format", "serialized_exported_program.json"} & set(names):
        raise DissectError(
            f"weights {path}: is a program of torch.export rather than weights. Save its weights alone: "
            "torch.save(torch.export.load(path).state_dict, other_path)."
        )
    raise DissectError(f"weights {path}: is a zip archive of {shortlist(names, 4)}. {_UNPACK}")


def _weight_map(index: Path) -> dict[str, Any]:
    """`weight_map` of a JSON file, which makes it an index."""
    try:
        content = json.loads(index.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        content = None
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        keys = f" with {shortlist(map(str, content), 4)}" if isinstance(content, dict) else ""
        raise DissectError(
            f"weights {index}: is a text{keys}, expected weights, or an index with a 'weight_map' that says in which "
            f"file each tensor lies. {_WRONG}"
        )
    return found


def _other(head: bytes, text: bytes, size: int) -> tuple[str, str]:
    """What a file is that is no file of weights, and how to mend it."""
    for offset, magic, what, mend in _OTHERS:
        if head.startswith(magic, offset):
            return what, mend
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<script")):
        return "an HTML page", _PAGE
    if text.startswith(b"<"):
        return "an XML text, such as the error of an object store", _PAGE
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return (
            "a plain pickle, which torch.save did not write; nothing in it was executed",
            "Save a state dict with torch.save or safetensors.",
        )
    return (
        f"none of the formats that are read ({size:,} bytes that start with {head[:16]!r})",
        "Expected .safetensors, the index of its shards, or a file that torch.save wrote.",
    )


def _listed(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return shortlist([name for name in names if name.endswith(_WEIGHTS)] or names, 6)
