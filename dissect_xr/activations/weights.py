"""Weights files: read without executing code from them, loaded into a model, identified by their sha256.

Knows: the files that torch and safetensors write, and the keys under which checkpoints hold a state dict.
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
    """The state dict of a weights file, on the CPU. No code in the file is executed.

    A checkpoint may hold the state dict under the key ``state_dict`` or ``model``.

    Raises
    ------
    DissectError
        If the file is missing, damaged, of another format, or holds objects that only executing code could restore.
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
        # `from None`, because torch's own message advises to load with weights_only=False.
        raise DissectError(
            f"weights {path}: not plain tensors ({detail(error)}); nothing in it was executed. "
            f"Expected the file of torch.save(model.state_dict(), path), or .safetensors."
        ) from None
    except Exception as error:
        raise DissectError(
            f"weights {path}: cannot be read ({detail(error)}). Check that the file is complete."
        ) from error
    return _state_dict(content, path)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load a state dict into the model, if both have the same tensors; otherwise nothing is loaded.

    The prefix ``module.`` that `nn.DataParallel` adds to every name is removed.

    Raises
    ------
    DissectError
        If names or shapes differ; the message counts the differences and names the first few.
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
    # Not strict: files written before torch 0.4.1 lack num_batches_tracked, which a forward pass in eval mode ignores.
    model.load_state_dict(weights, strict=False)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes of all tensors of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(data.tobytes())
    return digest.hexdigest()


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """`content` if it is a dict of tensors, else the dict of tensors under its key "state_dict" or "model"."""
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
    """The line of an error message that names the cause, without the advice that torch adds."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?: was not an allowed global|\n|$)", text)
    return found[1] if found else (text.splitlines() or [type(error).__name__])[0]
