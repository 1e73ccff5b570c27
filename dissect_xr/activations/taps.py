"""The layers of a model, and hooks that pass on their activations while a forward pass computes them.

Knows: what each module returns in a forward pass. A module is a layer if it returns one (batch, unit, y, x) tensor;
other taps (`tapping`) are layers once their layout is known (`layouts`).
Does not know: where activations are stored, or which pixels of the image a cell sees (`tracing`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from dissect_xr.activations.closed import INSIDE, closed_modules
from dissect_xr.activations.layouts.layout import PLAIN, Layout
from dissect_xr.activations.layouts.maps import to_maps
from dissect_xr.activations.references import shortlist
from dissect_xr.activations.tapping.calls import Call, Seen, taps_of, watch
from dissect_xr.activations.tapping.hooks import listening
from dissect_xr.activations.tapping.name import Tap, parse_tap
from dissect_xr.activations.tapping.silent import SILENT, why_silent
from dissect_xr.activations.tapping.values import description
from dissect_xr.errors import DissectError

Sink = Callable[[str, Tensor], None]
"""A function of a layer's name and its output (batch, unit, y, x) on the model's device.

It must copy or reduce the tensor before it returns: the next module may overwrite the tensor in place.
"""


@dataclass(frozen=True)
class Layers:
    """The modules of a model: those that are layers, and the others."""

    maps: Mapping[str, tuple[int, int, int]]
    """Name of a layer -> (units, height, width), in order of execution."""
    others: Mapping[str, str]
    """Name of another module -> the reason why it is not a layer."""
    taps: Mapping[str, Seen] = field(default_factory=dict)
    """Name -> tensor of every tap of the pass, layers among them, in order of execution."""


@dataclass(frozen=True)
class Tapped:
    """A layer whose tensors are no maps yet."""

    layer: str
    layout: Layout


def as_tapped(layer: str, layout: Layout) -> str | Tapped:
    """A layer as `forward` takes it: its name alone where it gives maps."""
    return layer if layout.is_plain and len(layout.axes) == 4 else Tapped(layer, layout)


def map_layers(model: nn.Module, example: Tensor) -> Layers:
    """The layers of a model, found by one forward pass in eval mode. The model itself is not changed.

    A layer is a module that returns one floating-point tensor (batch, unit, y, x); axis 1 is taken for the units. A
    module that runs more than once in a pass is not a layer, but each of its calls is a tap. A module with several
    names is listed under its first name.

    Parameters
    ----------
    model
        On any device. Its training flags, buffers and hooks are restored afterwards; a copy of the buffers is kept for
        that.
    example
        Input (batch, channel, y, x) on the model's device.

    Raises
    ------
    DissectError
        If the model fails on this input.
    """
    calls, closed = watch(model, example), closed_modules(model)
    names = [name for name in _names(model) if name not in closed]
    maps, others = _classified(names, calls, len(example))
    others = {name: why_silent(model, name) if why == SILENT else why for name, why in others.items()}
    return Layers(maps, {**others, **{name: INSIDE for name in _names(model) if name in closed}}, taps_of(calls))


def select_layers(available: Layers, patterns: Sequence[str] | str) -> list[str]:
    """Names of the layers that the patterns select, in order of execution, without repetition.

    Parameters
    ----------
    available
        From `map_layers`.
    patterns
        Module names or globs (``*`` also matches dots), or ``"all"``. A glob selects only layers and skips other
        modules.

    Raises
    ------
    DissectError
        If a pattern selects no layer; the message names the layers of the model.

    Examples
    --------
    >>> found = Layers({"layer1": (24, 112, 112), "layer1.0": (24, 112, 112)}, {"fc": "returns a 1x10 tensor"})
    >>> select_layers(found, ["layer?"])
    ['layer1']
    """
    if patterns == "all":
        patterns = ["*"]
    selected: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = [name for name in available.maps if name == pattern or fnmatchcase(name, pattern)]
        if not matched or pattern in available.others:
            raise DissectError(nothing_selected(available, pattern))
        selected.update(matched)
    if not selected:
        raise DissectError(f"no layer is named; the model has {_shapes(available.maps)}")
    return [name for name in available.maps if name in selected]


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise `DissectError` if the model has no module of one of these names."""
    names = _names(model)
    unknown = [repr(layer) for layer in layers if layer not in names]
    if unknown:
        raise DissectError(f"the model has no module {shortlist(unknown)}: it has {shortlist(names)}")


@contextmanager
def taps(model: nn.Module, layers: Sequence[str | Tapped], sink: Sink) -> Iterator[None]:
    """Pass every output of the layers to `sink` inside the `with` block, where the model is in eval mode.

    An output is passed on as soon as its layer returns and is not kept, so memory does not grow with the number of
    layers. Hooks and training flags are restored at the end, also after an error. Forward passes that other threads run
    on the same model are ignored: their images are not those of this thread.

    Raises
    ------
    DissectError
        If the model has no such layer, or the layer does not give one tensor of its layout.
    """
    layouts = dict(map(_tapped, layers))
    where = taps_at(model, layouts)
    check_layers(model, [tap.module for tap in where.values()])

    def pass_on(layer: str, output: object) -> None:
        layout = layouts[layer]
        if not isinstance(output, Tensor) or (layout.is_plain and output.ndim != 4):
            raise DissectError(f"layer {layer} returns {description(output)}, expected one tensor (batch, unit, y, x)")
        sink(layer, to_maps(layer, output, layout))

    with listening(model, where, pass_on):
        yield


def taps_at(model: nn.Module, layers: Sequence[str] | Mapping[str, object]) -> dict[str, Tap]:
    """The tap of each layer; a module's own name is taken as it is, whatever characters it has."""
    names = set(_names(model))
    return {layer: Tap(layer) if layer in names or not layer else parse_tap(layer) for layer in layers}


def forward(model: nn.Module, batch: Tensor, layers: Sequence[str | Tapped], sink: Sink) -> Any:
    """The model's output for one batch. The output of each layer is passed to `sink` exactly once.

    Runs in eval and inference mode.

    Raises
    ------
    DissectError
        If a layer runs twice or not at all.
    """
    seen: set[str] = set()

    def once(layer: str, output: Tensor) -> None:
        if layer in seen:
            raise DissectError(
                f"layer {layer} runs more than once in a forward pass: name the modules that call it instead, or one "
                f"of its calls, such as '{layer}#1'"
            )
        seen.add(layer)
        sink(layer, output)

    with taps(model, layers, once), torch.inference_mode():
        result = model(batch)
    missing = [layer for layer, _ in map(_tapped, layers) if layer not in seen]
    if missing:
        module = taps_at(model, missing[:1])[missing[0]].module
        why = why_silent(model, module)
        more = "" if why == SILENT else f": module {module} {why}"
        raise DissectError(f"layer {shortlist(missing)} did not run in the forward pass{more}")
    return result


def _tapped(layer: str | Tapped) -> tuple[str, Layout]:
    return (layer, PLAIN) if isinstance(layer, str) else (layer.layer, layer.layout)


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _classified(
    names: Sequence[str], calls: Sequence[Call], batch: int
) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
    """Layers and other modules, from what each module called returned."""
    maps: dict[str, tuple[int, int, int]] = {}
    others = dict.fromkeys(names, SILENT)
    counts = Counter(call.module for call in calls)
    for call in calls:
        shape = _map_shape(call.outputs[0][1], batch) if call.is_tensor else None
        if counts[call.module] > 1:
            others[call.module] = f"is called {counts[call.module]} times in one forward pass"
        elif shape is not None:
            maps[call.module] = shape
            del others[call.module]
        else:
            others[call.module] = f"returns {call.returned}"
    return maps, others


def _map_shape(seen: Seen, batch: int) -> tuple[int, int, int] | None:
    """(units, height, width) if a tensor may be activation maps, else None."""
    if len(seen.shape) != 4 or not seen.is_floating or seen.shape[0] != batch or 0 in seen.shape:
        return None
    units, height, width = seen.shape[1:]
    return units, height, width


def nothing_selected(available: Layers, pattern: str) -> str:
    """Why a pattern selects no layer, with those that there are."""
    reason = available.others.get(pattern)
    layers = f"The layers are {_shapes(available.maps)}"
    if reason is not None:
        return f"module {pattern!r} {reason}: expected one (batch, unit, y, x) tensor, once. {layers}"
    skipped = [name for name in available.others if fnmatchcase(name, pattern)]
    if skipped:
        first = skipped[0]
        return f"{pattern!r} matches no layer; {first} {available.others[first]}. {layers}"
    return f"{pattern!r} matches no module. {layers}"


def _shapes(maps: Mapping[str, tuple[int, int, int]]) -> str:
    return shortlist(f"{name} ({'x'.join(map(str, shape))})" for name, shape in maps.items())
