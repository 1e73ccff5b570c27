"""Which layers a model has, and hooks that hand over their activations as they are computed.

Knows: a module's output in one forward pass; that a layer is one whose output is one (batch, unit, y, x) tensor.
Does not know: where activations go, where a cell looks in the image (tracing.py).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError

Sink = Callable[[str, Tensor], None]
"""Takes a layer and its output (batch, unit, y, x) on the model's device.

The tensor must be copied or reduced before returning: the next module may overwrite it in place.
"""


@dataclass(frozen=True)
class Layers:
    """Modules of a model by what they returned in one forward pass."""

    maps: Mapping[str, tuple[int, int, int]]
    """Layers that can be dissected, in order of execution, with (units, height, width)."""
    others: Mapping[str, str]
    """The other modules, with the reason why not."""


def map_layers(model: nn.Module, example: Tensor) -> Layers:
    """Layers of a model, found by one forward pass in eval mode. The model is left as it was.

    A layer is a module whose output is one floating tensor (batch, unit, y, x); axis 1 is taken for the units. A module
    that runs more than once in a pass is none: its outputs could not be told apart. One reachable by several names goes
    by its first.

    Parameters
    ----------
    model
        On any device. Training flags, buffers and hooks are put back; its buffers are copied meanwhile.
    example
        Input (batch, channel, y, x) on the model's device.

    Raises
    ------
    DissectError
        The model does not take this input.
    """
    names = _names(model)
    outputs: list[tuple[str, object]] = []

    def note(layer: str, output: object) -> None:
        outputs.append((layer, _map_shape(output, len(example)) or _description(output)))

    with _evaluating(model), _buffers_kept(model), _hooks(model, names, note):
        try:
            with torch.inference_mode():
                model(example)
        except Exception as error:
            shape = "x".join(map(str, example.shape))
            raise DissectError(f"the model fails on an input of {shape}: {type(error).__name__}: {error}") from error
    return _sorted_out(names, outputs)


def select_layers(available: Layers, patterns: Sequence[str] | str) -> list[str]:
    """Names of the layers that patterns select, in order of execution, each once.

    Parameters
    ----------
    available
        From `map_layers`.
    patterns
        Module names or globs over them (``*`` also crosses dots), or ``"all"``. A glob selects layers and passes over
        modules that are none.

    Raises
    ------
    DissectError
        A pattern selects no layer; the message says what there is.

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
            raise DissectError(_nothing_selected(available, pattern))
        selected.update(matched)
    if not selected:
        raise DissectError(f"no layer is named; the model has {_shapes(available.maps)}")
    return [name for name in available.maps if name in selected]


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise `DissectError` for a name that is no module of the model."""
    names = _names(model)
    unknown = [repr(layer) for layer in layers if layer not in names]
    if unknown:
        raise DissectError(f"the model has no module {shortlist(unknown)}: it has {shortlist(names)}")


@contextmanager
def taps(model: nn.Module, layers: Sequence[str], sink: Sink) -> Iterator[None]:
    """Hand every output of the layers to a sink while the block runs; the model is in eval mode inside.

    Each output is handed over as it fires and not kept, so memory does not grow with the number of layers. Hooks and
    training flags are put back at exit, also after an error. Forward passes of other threads on a shared model pass
    unheard: their images would otherwise mix into this block's.

    Raises
    ------
    DissectError
        The model has no such layer, or its output is not one (batch, unit, y, x) tensor.
    """
    check_layers(model, layers)
    thread = threading.get_ident()

    def hand_over(layer: str, output: object) -> None:
        if threading.get_ident() != thread:
            return
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise DissectError(f"layer {layer} returns {_description(output)}, expected one tensor (batch, unit, y, x)")
        sink(layer, output)

    with _evaluating(model), _hooks(model, layers, hand_over):
        yield


def forward(model: nn.Module, batch: Tensor, layers: Sequence[str], sink: Sink) -> Any:
    """Output of the model for one batch, each layer's activations having gone to the sink exactly once.

    Runs in eval and inference mode.

    Raises
    ------
    DissectError
        A layer fired twice or not at all.
    """
    fired: set[str] = set()

    def once(layer: str, output: Tensor) -> None:
        if layer in fired:
            raise DissectError(
                f"layer {layer} runs more than once in a forward pass: name the module around each use instead"
            )
        fired.add(layer)
        sink(layer, output)

    with taps(model, layers, once), torch.inference_mode():
        result = model(batch)
    silent = [layer for layer in layers if layer not in fired]
    if silent:
        raise DissectError(f"layer {shortlist(silent)} did not run in the forward pass")
    return result


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # The flags one by one, not model.eval(): models override train(), and sub-modules may differ from the root.
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.inference_mode():
            for module, name, buffer, value in kept:
                setattr(module, name, buffer)
                buffer.copy_(value)


@contextmanager
def _hooks(model: nn.Module, layers: Sequence[str], react: Callable[[str, object], None]) -> Iterator[None]:
    modules = dict(model.named_modules())

    def hook(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: react(layer, output)

    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            stack.callback(modules[layer].register_forward_hook(hook(layer)).remove)
        yield


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _sorted_out(names: Sequence[str], outputs: Sequence[tuple[str, object]]) -> Layers:
    """Layers, from each call in order: the module and the shape of its map or what else it returned."""
    maps: dict[str, tuple[int, int, int]] = {}
    others = dict.fromkeys(names, "is not called in a forward pass")
    calls = Counter(layer for layer, _ in outputs)
    for layer, output in outputs:
        if calls[layer] > 1:
            others[layer] = f"is called {calls[layer]} times in one forward pass"
        elif isinstance(output, tuple):
            maps[layer] = output
            del others[layer]
        else:
            others[layer] = f"returns {output}"
    return Layers(maps, others)


def _map_shape(output: object, batch: int) -> tuple[int, int, int] | None:
    """(units, height, width) if the output is an activation map."""
    if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
        return None
    if len(output) != batch or output.numel() == 0:
        return None
    units, height, width = output.shape[1:]
    return units, height, width


def _description(output: object) -> str:
    if isinstance(output, Tensor):
        kind = str(output.dtype).removeprefix("torch.")
        return f"a {'x'.join(map(str, output.shape)) or 'scalar'} {kind} tensor"
    if isinstance(output, (tuple, list, dict)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _nothing_selected(available: Layers, pattern: str) -> str:
    reason = available.others.get(pattern)
    there = f"The layers are {_shapes(available.maps)}"
    if reason is not None:
        return f"module {pattern!r} {reason}: expected one (batch, unit, y, x) tensor, once. {there}"
    passed_over = [name for name in available.others if fnmatchcase(name, pattern)]
    if passed_over:
        first = passed_over[0]
        return f"{pattern!r} matches no layer; {first} {available.others[first]}. {there}"
    return f"{pattern!r} matches no module. {there}"


def _shapes(maps: Mapping[str, tuple[int, int, int]]) -> str:
    return shortlist(f"{name} ({'x'.join(map(str, shape))})" for name, shape in maps.items())
