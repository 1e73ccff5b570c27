"""Builds a model from a small description: a factory, its arguments, and a weights file or a seed.

Knows: how a model is built, and how the last two are cached in this process.
Does not know: what a weights file holds (`weights`), which layers are recorded, where activations are stored.
"""

import functools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dissect_xr.activations.references import file_sha256, resolve, source_sha256
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.weights import detail, fit_weights, read_weights, tensors_sha256
from dissect_xr.errors import DissectError

# A factory draws from the random generators of the process: two builds at once would disturb each other's weights.
_BUILDING = threading.RLock()


def load_model(spec: ModelSpec) -> nn.Module:
    """The model of a spec, on the CPU and in eval mode.

    The random generators of Python, NumPy and torch (CPU) are seeded while the factory runs and restored afterwards, so
    every worker builds the same random weights.

    Raises
    ------
    DissectError
        If the factory fails or returns no `nn.Module`, or the weights cannot be read safely or do not fit the model.
    """
    factory, seed = resolve(spec.factory), spec.seed or 0
    kwargs = json.loads(spec.kwargs)
    if not -(2**63) <= seed < 2**64:
        raise DissectError(f"seed {seed}: expected a whole number that fits 64 bits")
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
    """The model of a spec on a device, from a cache of this process that keeps the two models used last.

    A file of weights or code that has changed is read again. Threads share one model, so run one forward pass at a time
    per model, and do not change its weights.
    """
    return _cached(spec, device)[0]


def cached_weights(spec: ModelSpec, device: str) -> str:
    """`weights_sha256` of the model that `cached_model` returns, computed when it was loaded."""
    return _cached(spec, device)[1]


def _cached(spec: ModelSpec, device: str) -> tuple[nn.Module, str]:
    stamp: tuple[object, ...] = (source_sha256(spec.factory),)
    if spec.weights is not None and Path(spec.weights).is_file():
        stamp += (Path(spec.weights).stat().st_mtime_ns, Path(spec.weights).stat().st_size)
    with _BUILDING:
        return _model_on(spec, device, stamp)


def weights_sha256(spec: ModelSpec, model: nn.Module) -> str:
    """Hex sha256 of the weights file, or of all tensors of a randomly initialised model."""
    return file_sha256(spec.weights) if spec.weights is not None else tensors_sha256(model.state_dict())


@functools.lru_cache(maxsize=2)
def _model_on(spec: ModelSpec, device: str, stamp: tuple[object, ...]) -> tuple[nn.Module, str]:
    model = load_model(spec)
    digest = weights_sha256(spec, model)
    try:
        torch.empty(0, device=device)  # fails for a missing device, which moving a model without weights would not
        return model.to(device), digest
    except (RuntimeError, AssertionError) as error:
        raise DissectError(f"the model cannot be moved to device {device!r}: {detail(error)}") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generators of the process in the `with` block and restore their states after it."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # factories draw from it
    # Seeds only the CPU generator: torch.manual_seed would also reseed every GPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
