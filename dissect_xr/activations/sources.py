"""Builds a model from a small description: a factory or a library's name, its arguments, and weights or a seed.

Knows: how a model is built, and how the last two are cached in this process.
Does not know: what a weights file holds (`checkpoints`), how a library makes a model (`models`), where weights lie
while a model runs (`placement`), which layers are recorded.
"""

import functools
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dissect_xr.activations.checkpoints import files
from dissect_xr.activations.checkpoints.read import detail
from dissect_xr.activations.checkpoints.weights import fit_weights, read_weights, tensors_sha256
from dissect_xr.activations.closed import check_open, check_values
from dissect_xr.activations.models.live import ONLY_HERE, check_device
from dissect_xr.activations.models.names import LibraryModel
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.references import imports_of, resolve, source_sha256
from dissect_xr.activations.request import ModelSpec
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads

if TYPE_CHECKING:
    from dissect_xr.activations.placement.sequential import Trunk

# Code of users draws from the random generators of the process: two at once would disturb each other's numbers.
_DRAWING = threading.RLock()


@dataclass(frozen=True)
class Loaded:
    """A model, and what is known of its weights."""

    model: nn.Module
    sha256: str
    """of the file of weights, or of all tensors of a randomly initialised model"""
    said: tuple[str, ...]
    """how the weights were found in their file, where that is to be said"""
    trunk: "Trunk | None" = None
    """the blocks that get their weights one after another, where they do"""
    placed: bool = False
    """whether its weights come and go, or lie on several devices"""


def load_model(spec: ModelSpec) -> nn.Module:
    """The model of a spec, on the CPU and in eval mode.

    The random generators of Python, NumPy and torch (CPU) are seeded while the factory runs and restored afterwards, so
    every worker builds the same random weights.

    Raises
    ------
    DissectError
        If the factory fails or returns no module that hooks can enter, or the weights cannot be read safely or do not
        fit the model.
    """
    return load(spec).model


def load(spec: ModelSpec) -> Loaded:
    """The model of a spec, as `load_model` gives it, and what is known of its weights.

    A live module is returned as it is, in whatever mode it is.
    """
    if spec.live is not None:
        return Loaded(spec.live.module, spec.live.weights_sha256, ())
    model = built(spec)
    check_values(model, spec.factory)
    said: tuple[str, ...] = ()
    if spec.weights is not None:
        said = fit_weights(model, read_weights(spec.weights, key=spec.key))
    return Loaded(evaluating(spec, model), weights_sha256(spec, model), said)


def evaluating(spec: ModelSpec, model: nn.Module) -> nn.Module:
    """The model of a spec, put into eval mode."""
    try:
        return model.eval()
    except Exception as error:
        raise DissectError(f"{spec.factory}: the model cannot be put into eval mode: {detail(error)}") from error


def built(spec: ModelSpec) -> nn.Module:
    """What the factory or the library returns, with random weights or those that the library has."""
    seed, kwargs = spec.seed or 0, json.loads(spec.kwargs)
    factory = resolve(spec.factory) if spec.library is None else partial(_of_library, spec.library, spec.named)
    if not -(2**63) <= seed < 2**64:
        raise DissectError(f"seed {seed}: expected a whole number that fits 64 bits")
    with seeded(seed), imports_of(spec.factory):
        try:
            model = factory(**kwargs)
        except DissectError:
            raise
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise DissectError(f"{spec.factory}({given}) failed: {type(error).__name__}: {error}") from error
    return check_open(model, spec.factory)


def _of_library(model: LibraryModel, named: str | None, **kwargs: Any) -> nn.Module:
    from dissect_xr.activations.models.build import build

    return build(model, kwargs, named)


def device_of(spec: ModelSpec, device: str | None) -> str:
    """The device that a model runs on; None takes a GPU if there is one, and the one that a live module lies on.

    Raises
    ------
    DissectError
        If a live module lies on another device.
    """
    if spec.live is not None:
        return check_device(spec.live, device)
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def check_pool(spec: ModelSpec, pool: Pool) -> None:
    """Raise if a model is a live module and the pool runs its tasks in other processes.

    Raises
    ------
    DissectError
        Saying what to do instead.
    """
    if spec.live is not None and not isinstance(pool, Threads):
        raise DissectError(f"{spec.factory}: {ONLY_HERE}")


def cached_model(spec: ModelSpec, device: str) -> nn.Module:
    """The model of a spec on a device, from a cache of this process that keeps the two models used last.

    A file of weights or code that has changed is read again. Threads share one model, so run one forward pass at a time
    per model, and do not change its weights.
    """
    return cached(spec, device).model


def cached(spec: ModelSpec, device: str) -> Loaded:
    """The model that `cached_model` returns, and what was known of its weights when it was loaded.

    A live module is not kept, since its weights may change at any time.
    """
    if spec.live is not None:
        check_device(spec.live, device)
        return load(spec)
    stamp: tuple[object, ...] = () if spec.weights is None else files.stamp(spec.weights)
    if spec.library is not None:
        stamp += tuple(spec.library.inputs(spec.named).values())
    with _DRAWING:
        stamp = source_sha256(spec.factory), *stamp
        if spec.placement is not None and not spec.placement.keeps_whole:
            return _placed_on(spec, spec.placement, device, stamp)
        return _model_on(spec, device, stamp)


def weights_sha256(spec: ModelSpec, model: nn.Module) -> str:
    """Hex sha256 of the weights file, or of all saved tensors of a model that has its weights from elsewhere."""
    return tensors_sha256(model.state_dict()) if spec.weights is None else files.weights_sha256(spec.weights)


@functools.lru_cache(maxsize=2)
def _model_on(spec: ModelSpec, device: str, stamp: tuple[object, ...]) -> Loaded:
    loaded = load(spec)
    if spec.placement is not None:
        from dissect_xr.activations.placement.place import cast_inputs

        cast_inputs(loaded.model, spec.placement.dtype)
    try:
        _check_device(device)
        return replace(loaded, model=loaded.model.to(device))
    except (RuntimeError, AssertionError) as error:
        raise DissectError(f"the model cannot be moved to device {device!r}: {detail(error)}") from error


_PLACED: list[tuple[object, Loaded]] = []
"""The model that was placed last, and what it was asked for by: a second one would take what memory there is."""


def _placed_on(spec: ModelSpec, placement: Placement, device: str, stamp: tuple[object, ...]) -> Loaded:
    from dissect_xr.activations.placement.place import placed

    asked = spec, device, stamp
    if not _PLACED or _PLACED[0][0] != asked:
        _PLACED.clear()
        _model_on.cache_clear()
        try:
            _check_device(device)
        except (RuntimeError, AssertionError) as error:
            raise DissectError(f"the model cannot run on device {device!r}: {detail(error)}") from error
        _PLACED.append((asked, placed(spec, placement, device)))
    return _PLACED[0][1]


def _check_device(device: str) -> None:
    """Fails for a missing device, which moving a model without weights would not."""
    if torch.empty(0, device=device).is_meta:
        raise DissectError(f"device {device!r}: computes no values. Choose cpu or cuda.")


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed the generators of the CPU, and of the device if it is a GPU; their states come back after the `with` block.

    Other threads that want to seed them wait for the end of the block.
    """
    gpus = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with _DRAWING:
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # factories draw from it
        # Not torch.manual_seed, which would also reseed every other GPU.
        with torch.random.fork_rng(devices=gpus):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            for gpu in gpus:
                torch.cuda.default_generators[gpu].manual_seed(seed)
            try:
                yield
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002
