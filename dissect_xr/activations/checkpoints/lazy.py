"""Tensors of safetensors files by the names of a model, each read when it is asked for.

Knows: the header of safetensors, by which names and shapes are compared before any tensor is read.
Does not know: when a tensor is needed (`placement`).
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from dissect_xr.activations.checkpoints.files import format_of, located, shards
from dissect_xr.activations.checkpoints.state_dicts import StateDict, state_dicts, under_key
from dissect_xr.activations.checkpoints.weights import Weights, fitting_tensors
from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""The dtypes of safetensors that weights may have."""


def is_lazy(path: str | Path) -> bool:
    """Whether tensors of a file of weights can be read one by one: it is safetensors, or an index of such files."""
    found = located(path)
    kind = format_of(found)
    if kind == "index":
        return all(format_of(file) == "safetensors" for file in set(shards(found).values()))
    return kind == "safetensors"


@dataclass(frozen=True)
class _Where:
    """Where a tensor lies, and the state of its file when its header was read."""

    file: Path
    start: int
    """the byte that it starts with"""
    like: Tensor
    """a tensor of its shape and dtype, without values"""
    stamp: tuple[int, int]


class LazyWeights(Mapping[str, Tensor]):
    """Name in a model -> its tensor on the CPU, in memory of its own, read from its file each time."""

    def __init__(self, where: Mapping[str, _Where]) -> None:
        self._where = where

    def __getitem__(self, name: str) -> Tensor:
        where = self._where[name]
        if not where.file.is_file() or _stamp(where.file) != where.stamp:
            raise DissectError(
                f"weights {where.file}: the file changed, or went away, while it was read. Keep each snapshot's "
                "weights in a file of its own, and run again under another name."
            )
        # Read rather than mapped: what is mapped is aligned in another way, which may round sums in another way.
        with torch.inference_mode(mode=False):
            tensor = torch.empty_like(where.like, device="cpu")
        memory: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        with where.file.open("rb") as file:
            file.seek(where.start)
            got = file.readinto(memory)
        if got != tensor.nbytes:
            raise DissectError(f"weights {where.file}: ends within {name}. Download or copy it again.")
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def lazy_weights(model: nn.Module, path: str | Path, *, key: str | None = None) -> tuple[LazyWeights, tuple[str, ...]]:
    """The weights of a file that fit a model, which may be on `meta`, and what is to be said of how they were found.

    Raises
    ------
    DissectError
        If they do not fit, as for `fit_weights`, or a file is damaged.
    """
    found = located(path)
    content: dict[str, Tensor] = {}
    where: dict[int, _Where] = {}
    for name, file in _files(found).items():
        header, stamp = _header(file), _stamp(file)
        if name not in header:
            raise DissectError(
                f"weights {found}: {file.name} lacks {name}, which the index says it holds. The files belong to "
                "different models or are incomplete: download them again."
            )
        start, content[name] = header[name]
        where[id(content[name])] = _Where(file, start, content[name], stamp)
    dicts: Mapping[str, StateDict] = state_dicts(content) if key is None else under_key(content, key)
    if not dicts:
        raise DissectError(f"weights {path}: no tensor lies under the key {key!r}; there is {shortlist(content, 6)}.")
    tensors, said = fitting_tensors(model, Weights(str(path), dicts), deferred=True)
    return LazyWeights({name: where[id(tensor)] for name, tensor in tensors.items()}), said


def _files(path: Path) -> dict[str, Path]:
    """Name of each tensor -> its file."""
    return shards(path) if format_of(path) == "index" else dict.fromkeys(_header(path), path)


_Header = dict[str, tuple[int, Tensor]]
"""Name -> the byte that a tensor starts with, and a tensor of its shape and dtype without values."""

_HEADERS: dict[tuple[Path, tuple[int, int]], _Header] = {}
"""The headers that were read last."""


def _header(path: Path) -> _Header:
    known = path, _stamp(path)
    if known not in _HEADERS:
        if len(_HEADERS) > 256:
            _HEADERS.clear()
        _HEADERS[known] = dict(_read_header(path))
    return _HEADERS[known]


def _read_header(path: Path) -> Iterator[tuple[str, tuple[int, Tensor]]]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries: dict[str, Any] = json.loads(file.read(length))
        with safe_open(path, framework="pt", device="cpu"):
            pass  # checks that all bytes are there
        for name, entry in entries.items():
            if name != "__metadata__":
                tensor = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]], device="meta")
                yield name, (8 + length + entry["data_offsets"][0], tensor)
    except DissectError:
        raise
    except Exception as error:  # damaged files make the libraries raise many kinds of errors
        raise DissectError(
            f"weights {path}: cannot be read ({type(error).__name__}: {error}). It is damaged, incomplete, or has "
            "numbers of another kind: download or copy it again."
        ) from None


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
