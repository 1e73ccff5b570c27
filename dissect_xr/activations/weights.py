"""Weights files: read without executing anything in them, fitted into a model, told apart by digest.

Knows: the files that torch and safetensors write, and what training frameworks put around a state dict.
Does not know: how a model is built (`sources`).
"""

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """State dict of a weights file, on the CPU. Nothing in the file is executed.

    A checkpoint that holds the state dict under ``state_dict`` or ``model`` is opened.

    Raises
    ------
    DissectError
        The file is missing, damaged, of another kind, or holds objects that only running code could restore.
    """
    path = Path(path)
    if path.suffix.lower() not in (".safetensors", ".pt", ".pth"):
        raise DissectError(f"weights {path}: expected a .safetensors, .pt or .pth file")
    if not path.is_file():
        raise DissectError(f"weights {path}: there is no such file")
    try:
        if path.suffix.lower() == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        # Without the cause: torch's own message advises to load with weights_only=False.
        raise DissectError(
            f"weights {path}: not plain tensors ({detail(error)}); nothing in it was executed. "
            f"Expected the file of torch.save(model.state_dict(), path), or .safetensors."
        ) from None
    except Exception as error:
        raise DissectError(f"weights {path}: cannot be read, is the file complete? {detail(error)}") from error
    return _state_dict(content, path)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Write a state dict into the model, every tensor of both or nothing.

    A ``module.`` that `nn.DataParallel` put before every name is taken off.

    Raises
    ------
    DissectError
        Names or shapes differ; the message counts them and shows the first few.
    """
    own = model.state_dict()
    prefix = "module."
    if all(name.startswith(prefix) for name in weights) and not all(name.startswith(prefix) for name in own):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    faults = {
        "missing": [name for name in own if name not in weights and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} (the model has {tuple(tensor.shape)})"
            for name, tensor in own.items()
            if name in weights and isinstance(tensor, Tensor) and tensor.shape != weights[name].shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{len(names)} {kind}: {shortlist(names, 4)}" for kind, names in faults.items() if names)
        raise DissectError(
            f"weights {source} do not fit {type(model).__name__}: {found}. Check the factory and its arguments."
        )
    # Not strict: files from before torch 0.4.1 lack num_batches_tracked, which no eval-mode forward pass reads.
    model.load_state_dict(weights, strict=False)


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes of all tensors of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(data.tobytes())
    return digest.hexdigest()


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Dict of tensors itself, or the one under "state_dict" or "model"."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content.get("state_dict"), content.get("model")]
    for candidate in candidates:
        if (
            isinstance(candidate, dict)
            and candidate
            and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in candidate.items())
        ):
            return candidate
    held = shortlist(map(str, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise DissectError(
        f"weights {path}: expected a dict of tensors, or one under 'state_dict' or 'model'; the file holds {held}"
    )


def detail(error: BaseException) -> str:
    """The one line of an error that says what was wrong; torch wraps it in advice."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?: was not an allowed global|\n|$)", text)
    return found[1] if found else (text.splitlines() or [type(error).__name__])[0]
