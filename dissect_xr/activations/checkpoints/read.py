"""Reads a file of weights as it is: nested dicts with tensors in them, on the CPU.

Knows: how each format is read without executing anything, and how damage shows.
Does not know: which of the dicts are the weights (`state_dicts`).
"""

import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dissect_xr.activations.checkpoints import inert
from dissect_xr.activations.checkpoints.files import format_of, located, shards
from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Content:
    """What a file of weights holds."""

    value: Any
    """a dict as a rule"""
    classes: tuple[str, ...] = ()
    """of objects that are no tensors, and of which nothing was executed"""


def read_content(path: str | Path) -> Content:
    """What a file of weights holds. Nothing in it is executed.

    Raises
    ------
    DissectError
        If the file is missing, damaged, of another format, or asks for what no weights need.
    """
    found = located(path)
    kind = format_of(found)
    if kind == "index":
        return _sharded(found)
    try:
        if kind == "safetensors":
            return Content(safetensors.torch.load_file(found))
        if kind == "zip":
            _check_bytes(found)
        return _unpickled(found)
    except MemoryError:
        raise DissectError(
            f"weights {found}: take more memory than there is, or the file is damaged. Use fewer workers, or download "
            "or copy it again."
        ) from None
    except DissectError as error:
        raise DissectError(f"weights {found}: {error}. Save a state dict alone, or as .safetensors.") from None
    except Exception as error:
        # `from None`, because torch's own messages advise to load with weights_only=False.
        raise DissectError(
            f"weights {found}: cannot be read ({detail(error)}); nothing in it was executed. It is damaged or "
            "incomplete: download or copy it again."
        ) from None


def detail(error: BaseException) -> str:
    """The line of an error message that names the cause, without the advice that torch adds."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?: was not an allowed global|\n|$)", text)
    first = found[1] if found else (text.splitlines() or [""])[0]
    return first if first and "weights_only" not in first.lower().replace(" ", "_") else type(error).__name__


def _sharded(index: Path) -> Content:
    """The tensors of all shards of an index."""
    files = shards(index)
    tensors: dict[str, Any] = {}
    for file in dict.fromkeys(files.values()):
        wanted = [name for name, where in files.items() if where == file]
        if format_of(file) == "index":
            raise DissectError(f"weights {index}: {file.name} is an index itself, expected a file with tensors.")
        held = read_content(file).value
        missing = [name for name in wanted if not isinstance(held, dict) or name not in held]
        if missing:
            raise DissectError(
                f"weights {index}: {file.name} lacks {shortlist(missing, 4)}, which the index says it holds. The files "
                "belong to different models or are incomplete: download them again."
            )
        tensors |= {name: held[name] for name in wanted}
    return Content(tensors)


def _check_bytes(path: Path) -> None:
    """Raise if the bytes of a zip archive are not those that were written, which torch.load does not look at.

    `torch.serialization.set_crc32_options(False)` leaves all checksums 0: such a file cannot be checked.
    """
    with zipfile.ZipFile(path) as archive:
        checked = any(entry.CRC for entry in archive.infolist())
        damaged = archive.testzip() if checked else None
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has another checksum than when it was written")


def _unpickled(path: Path) -> Content:
    # torch warns of what it may not understand: what it does not understand is read in the other way.
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Content(torch.load(file, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, UnicodeDecodeError):
            file.seek(0)
        # torch refuses whatever it does not know. It has looked for TorchScript, which it must not run, before that.
        return Content(*inert.load(file))
