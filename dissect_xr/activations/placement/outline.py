"""What is known of a model before any weights are read: its size, its layers, and how much must be in memory at once.

Knows: how a model is built and run without weights.
Does not know: what a machine has; how it is printed.
"""

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.find import Finder
from dissect_xr.activations.layouts.positions import grid_geometry
from dissect_xr.activations.placement.blocks import blocks_of, nbytes, sizes_of
from dissect_xr.activations.placement.empty import empty_model
from dissect_xr.activations.request import ModelSpec, Recording
from dissect_xr.activations.sources import built, evaluating
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Outline:
    """A model without its weights."""

    parameters: int
    nbytes: int
    """of all weights, in the dtypes that they run in"""
    dtypes: tuple[str, ...]
    blocks: int
    one_block: int
    """bytes of the largest block and of what belongs to none: what is in memory at once with placement sequential"""
    maps: dict[str, tuple[int, int, int]]
    """selected layers in order of execution: (units, height, width)"""
    geometry: dict[str, Any]
    """attributes of each layer's geometry, or the reason why it has none"""


def outline(spec: ModelSpec, recording: Recording) -> Outline:
    """The outline of a model; no weights are read or fetched, and no values are computed.

    Raises
    ------
    DissectError
        If the model cannot be built or run without values, or has no such layer.
    """
    model = _without_values(spec)
    placement = spec.placement
    sizes = sizes_of(model, blocks_of(model, () if placement is None else placement.no_split))
    total = nbytes(model.parameters())
    size = recording.preprocess.size
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def inputs(pixels: NDArray[np.uint8]) -> Tensor:
        return to_input(recording.preprocess, pixels).to(device="meta", dtype=dtype)

    finder = Finder(model, inputs, size, recording.batch)
    known = finder.known()
    layers = finder.untested(known, recording.layers)
    traced = {name: grid_geometry(known, one, size) for name, one in layers.items()}
    return Outline(
        sum(parameter.numel() for parameter in model.parameters()),
        total,
        tuple(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()})),
        len(sizes),
        total - sum(sizes.values()) + max(sizes.values(), default=0),
        {name: one.shape for name, one in layers.items()},
        {name: found if isinstance(found, str) else found.to_attrs() for name, found in traced.items()},
    )


def _without_values(spec: ModelSpec) -> nn.Module:
    """The model with all tensors on `meta`."""
    try:
        if importlib.util.find_spec("accelerate") is not None:
            return empty_model(spec, "its outline").to("meta")
        with torch.device("meta"):
            model = evaluating(spec, built(replace(spec, weights=None, key=None, named=None)))
    except DissectError as error:
        raise DissectError(f"it cannot be built without weights: {error}") from error
    dtype = None if spec.placement is None else spec.placement.dtype
    return model if dtype is None else model.to(getattr(torch, dtype))
