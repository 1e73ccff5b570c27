"""Loads a file of weights into a model, whatever a training framework has put around them.

Knows: which state dict of a file fits the model, and what is said about how it was found.
Does not know: how a model is built (`sources`), or how a file is read (`read`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dissect_xr.activations.checkpoints.names import Match, fitting_prefixes, match
from dissect_xr.activations.checkpoints.read import read_content
from dissect_xr.activations.checkpoints.state_dicts import StateDict, state_dicts, under_key
from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Weights:
    """The state dicts of a file."""

    source: str
    dicts: Mapping[str, StateDict]
    """key -> state dict, at least one"""
    passed_over: tuple[str, ...] = ()
    """classes of what lies beside the tensors, of which nothing was executed"""


def read_weights(path: str | Path, *, key: str | None = None) -> Weights:
    """The state dicts of a file of weights, on the CPU. No code in the file is executed.

    Parameters
    ----------
    key
        Where the state dict lies (`state_dicts`); None finds all there are.

    Raises
    ------
    DissectError
        If the file is missing, damaged, of another format, or holds no state dict, or none under the key.
    """
    content = read_content(path)
    found = state_dicts(content.value)
    if key is not None:
        there, found = found, under_key(content.value, key)
        if not found:
            keys = shortlist([repr(other) for other in there if other])
            raise DissectError(
                f"weights {path}: no state dict lies under the key {key!r}; there is {keys}. Correct it."
            )
    if not found:
        held = content.value
        shown = shortlist(map(str, held)) if isinstance(held, Mapping) else f"a {type(held).__name__}"
        raise DissectError(
            f"weights {path}: expected a dict of tensors, or one under a key such as 'state_dict'; the file holds "
            f"{shown}. Save model.state_dict()."
        )
    return Weights(str(path), found, content.classes)


def fit_weights(model: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Load the state dict that fits the model, and return what is to be said about it; load nothing if none fits.

    Wrappers and prefixes are taken off its names (`names`).

    Raises
    ------
    DissectError
        If names, shapes or kinds of numbers differ, with the number of differences and the first few; or if several
        state dicts fit that hold different numbers.
    """
    tensors, said = fitting_tensors(model, weights)
    # Not strict: num_batches_tracked may be missing.
    model.load_state_dict(tensors, strict=False)
    return said


def fitting_tensors(model: nn.Module, weights: Weights, *, deferred: bool = False) -> tuple[StateDict, tuple[str, ...]]:
    """Name in the model -> tensor of the state dict that fits it, and what is to be said; see `fit_weights`.

    With `deferred`, tensors on the device meta stand for values that are read later.
    """
    own = model.state_dict()
    fits = {key: _Fit.of(own, given, deferred=deferred) for key, given in weights.dicts.items()}
    fitting = [key for key, fit in fits.items() if not fit.faults]
    if not fitting:
        raise DissectError(_misfit(model, weights, fits))
    key, *others = fitting
    if not all(_same(fits[key], fits[other]) for other in others):
        raise DissectError(
            f"weights {weights.source}: {len(fitting)} state dicts fit the model and hold different numbers: "
            f"{shortlist([repr(other) for other in fitting], 6)}. Say which one: `key: {fitting[0]}` beside `weights`."
        )
    return fits[key].tensors, _said(weights, key, fits[key].names)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes of all tensors of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(data.tobytes())
    return digest.hexdigest()


_EMPTY = "without values, on the device meta"
_SPARSE = "sparse"
_MENDS = {
    _EMPTY: "The file was saved before the weights had values: save the state dict of the model that has them.",
    _SPARSE: "Save them as `tensor.to_dense()`.",
}
"""Kind of a difference -> how it is mended; another factory would not mend it."""


@dataclass(frozen=True)
class _Fit:
    """A state dict beside that of a model."""

    names: Match
    tensors: StateDict
    """name in the model -> tensor of the file"""
    faults: Mapping[str, list[str]]
    """kind of a difference -> names; empty where there is none"""

    @classmethod
    def of(cls, own: Mapping[str, object], given: StateDict, *, deferred: bool) -> "_Fit":
        names = match(own.keys(), given.keys())
        tensors = {mine: given[theirs] for theirs, mine in names.names.items()}
        pairs = [(name, mine, tensors[name]) for name, mine in own.items() if name in tensors]
        tensor_pairs = [(name, mine, tensor) for name, mine, tensor in pairs if isinstance(mine, Tensor)]
        faults = {
            "missing": list(names.missing),
            "unexpected": list(names.unexpected),
            "of another shape": [
                f"{name} {tuple(tensor.shape)} (the model has {tuple(mine.shape)})"
                for name, mine, tensor in tensor_pairs
                if mine.shape != tensor.shape
            ],
            _EMPTY: [name for name, _, tensor in pairs if tensor.is_meta and not deferred],
            _SPARSE: [name for name, _, tensor in pairs if not tensor.is_meta and tensor.layout != torch.strided],
            "of another kind of numbers": [
                f"{name} {tensor.dtype} (the model has {mine.dtype})"
                for name, mine, tensor in tensor_pairs
                if mine.is_floating_point() != tensor.is_floating_point() and not name.endswith("num_batches_tracked")
            ],
        }
        return cls(names, tensors, {kind: found for kind, found in faults.items() if found})


def _same(one: _Fit, other: _Fit) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def _misfit(model: nn.Module, weights: Weights, fits: Mapping[str, _Fit]) -> str:
    """Why no state dict fits, from the one of which most names do, or the largest."""
    key, fit = max(fits.items(), key=lambda item: (len(item[1].tensors), len(weights.dicts[item[0]])))
    found = "; ".join(f"{len(names)} {kind}: {shortlist(names, 4)}" for kind, names in fit.faults.items())
    text = f"weights {weights.source} do not fit {type(model).__name__}: {found}. "
    if len(fits) > 1:
        keys = [f"under {other!r}" if other else "at the top" for other in (key, *fits)]
        text += f"That is the state dict {keys[0]}; there are those {shortlist(keys[1:], 6)}. "
    if mend := next((mend for kind, mend in _MENDS.items() if kind in fit.faults), None):
        return text + mend
    prefixes = fitting_prefixes(model.state_dict().keys(), weights.dicts[key].keys())
    if prefixes:
        wanted = f"{key}.{prefixes[0]}" if key else prefixes[0]
        below = " or ".join(map(repr, prefixes[:4]))
        return text + f"The tensors below {below} alone would fit: give `key: {wanted}` beside `weights`."
    return text + "Check the factory and its arguments."


def _said(weights: Weights, key: str, names: Match) -> tuple[str, ...]:
    """What users should know of how a state dict was found; nothing where it is all that the file holds."""
    said = [f"the state dict under '{key}' was taken"] if key else []
    if names.removed:
        said.append(f"taken off the names: {' '.join(names.removed)}")
    if weights.passed_over:
        said.append(f"passed over, without executing anything: {shortlist(weights.passed_over, 6)}")
    return tuple(said)
