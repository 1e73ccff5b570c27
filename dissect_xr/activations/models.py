"""Models from a small description: a factory, its arguments and a weights file, or a seed.

Knows: how to build a model, load weights without executing anything in them, and fingerprint what was loaded.
Does not know: which layers are wanted, what the input looks like, where activations go.
"""

import functools
import hashlib
import json
import pickle
import random
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from dissect_xr.activations.references import resolve, shortlist, source_sha256
from dissect_xr.errors import DissectError

# Building draws from the process-wide generators; two builds at once would mix their random weights.
_BUILDING = threading.RLock()


@dataclass(frozen=True)
class ModelSpec:
    """What a worker needs to build the model itself: a few strings, hashable and cheap to pickle."""

    factory: str
    """Reference to the function that builds the model on the CPU, see `references.resolve`."""
    kwargs: str = "{}"
    """Keyword arguments of the factory, a JSON object with sorted keys."""
    weights: str | None = None
    """Path of a ``.safetensors``, ``.pt`` or ``.pth`` file; None keeps the random weights."""
    seed: int | None = None
    """Seed of the random weights; None means 0."""

    @classmethod
    def of(
        cls,
        factory: str,
        kwargs: Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
        seed: int | None = None,
    ) -> Self:
        """Spec from ordinary arguments.

        Examples
        --------
        >>> ModelSpec.of("networks:resnet", {"width": 8, "depth": 18}).kwargs
        '{"depth": 18, "width": 8}'
        """
        try:
            text = json.dumps(dict(kwargs or {}), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise DissectError(f"arguments of {factory} must be plain numbers, strings and lists: {error}") from error
        return cls(factory, text, None if weights is None else str(weights), seed)


def load_model(spec: ModelSpec) -> nn.Module:
    """Model of a spec, on the CPU and in eval mode.

    The random generators of Python, NumPy and torch (CPU) are seeded while the factory runs and put back after it, so
    every worker builds the same random weights.

    Raises
    ------
    DissectError
        The factory fails or returns no `nn.Module`; the weights cannot be read safely or do not fit exactly.
    """
    factory, seed = resolve(spec.factory), spec.seed or 0
    kwargs = json.loads(spec.kwargs)
    if not -(2**63) <= seed < 2**64:
        raise DissectError(f"seed {seed}: expected one of 64 bits")
    with _BUILDING, _seeded(seed):
        try:
            model = factory(**kwargs)
        except Exception as error:
            given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise DissectError(f"{spec.factory}({given}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise DissectError(f"{spec.factory} returned a {type(model).__name__}, expected a torch.nn.Module")
    if spec.weights is not None:
        fit_weights(model, read_weights(spec.weights), source=spec.weights)
    return model.eval()


def cached_model(spec: ModelSpec, device: str) -> nn.Module:
    """Model of a spec on a device, kept by this process: at most two, the least recently used goes first.

    Files, of weights or of code, that were written again are read again. Threads share one model: keep to one forward
    pass at a time per model, and leave its weights alone.
    """
    return _cached(spec, device)[0]


def cached_weights(spec: ModelSpec, device: str) -> str:
    """`weights_sha256` of what `cached_model` returns, taken when it was loaded."""
    return _cached(spec, device)[1]


def _cached(spec: ModelSpec, device: str) -> tuple[nn.Module, str]:
    stamp: tuple[object, ...] = (source_sha256(spec.factory),)
    if spec.weights is not None and Path(spec.weights).is_file():
        stamp += (Path(spec.weights).stat().st_mtime_ns, Path(spec.weights).stat().st_size)
    with _BUILDING:
        return _model_on(spec, device, stamp)


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
            f"weights {path}: not plain tensors ({_detail(error)}); nothing in it was executed. "
            f"Expected the file of torch.save(model.state_dict(), path), or .safetensors."
        ) from None
    except Exception as error:
        raise DissectError(f"weights {path}: cannot be read, is the file complete? {_detail(error)}") from error
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


def weights_sha256(spec: ModelSpec, model: nn.Module) -> str:
    """Hex sha256 that identifies the weights: of the file, or of every tensor of a randomly initialised model."""
    if spec.weights is not None:
        return file_sha256(spec.weights)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(data.tobytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=2)
def _model_on(spec: ModelSpec, device: str, stamp: tuple[object, ...]) -> tuple[nn.Module, str]:
    model = load_model(spec)
    digest = weights_sha256(spec, model)
    try:
        torch.empty(0, device=device)  # a model without weights can be moved anywhere
        return model.to(device), digest
    except (RuntimeError, AssertionError) as error:
        raise DissectError(f"the model cannot be moved to device {device!r}: {_detail(error)}") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the process-wide CPU generators inside the block and put their states back after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # factories draw from it
    # devices=[] and the generator's own seed: torch.manual_seed would reseed every GPU as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


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


def _detail(error: BaseException) -> str:
    """The one line of an error that says what was wrong; torch wraps it in advice."""
    text = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?: was not an allowed global|\n|$)", text)
    return found[1] if found else (text.splitlines() or [type(error).__name__])[0]
