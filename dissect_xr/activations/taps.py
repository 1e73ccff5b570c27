"""The layers of a model, and hooks that pass on their activations while a forward pass computes them.

Knows: what each module returns in a forward pass. A module is a layer if it returns one (batch, unit, y, x) tensor.
Does not know: where activations are stored, or which pixels of the image a cell sees (`tracing`).
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

from dissect_xr.activations.closed import INSIDE, closed_modules
from dissect_xr.activations.references import shortlist
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


def map_layers(model: nn.Module, example: Tensor) -> Layers:
    """The layers of a model, found by one forward pass in eval mode. The model itself is not changed.

    A layer is a module that returns one floating-point tensor (batch, unit, y, x); axis 1 is taken for the units. A
    module that runs more than once in a pass is not a layer, since its outputs could not be distinguished. A module
    with several names is listed under its first name.

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
    closed = closed_modules(model)
    names = [name for name in _names(model) if name not in closed]
    outputs: list[tuple[str, object]] = []

    def collect(layer: str, output: object) -> None:
        outputs.append((layer, _map_shape(output, len(example)) or _description(output)))

    with _evaluating(model), buffers_kept(model), _hooks(model, names, collect):
        try:
            with torch.inference_mode():
                model(example)
        except (Exception, SystemExit) as error:
            shape = "x".join(map(str, example.shape))
            raise DissectError(f"the model fails on an input of {shape}: {type(error).__name__}: {error}") from error
    found = _classified(names, outputs)
    return Layers(found.maps, {**found.others, **{name: INSIDE for name in _names(model) if name in closed}})


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
            raise DissectError(_nothing_selected(available, pattern))
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
def taps(model: nn.Module, layers: Sequence[str], sink: Sink) -> Iterator[None]:
    """Pass every output of the layers to `sink` inside the `with` block, where the model is in eval mode.

    An output is passed on as soon as its layer returns and is not kept, so memory does not grow with the number of
    layers. Hooks and training flags are restored at the end, also after an error. Forward passes that other threads run
    on the same model are ignored: their images are not those of this thread.

    Raises
    ------
    DissectError
        If the model has no such layer, or the layer does not return one (batch, unit, y, x) tensor.
    """
    check_layers(model, layers)
    thread = threading.get_ident()

    def pass_on(layer: str, output: object) -> None:
        if threading.get_ident() != thread:
            return
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise DissectError(f"layer {layer} returns {_description(output)}, expected one tensor (batch, unit, y, x)")
        sink(layer, output)

    with _evaluating(model), _hooks(model, layers, pass_on):
        yield


def forward(model: nn.Module, batch: Tensor, layers: Sequence[str], sink: Sink) -> Any:
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
                f"layer {layer} runs more than once in a forward pass: name the modules that call it instead"
            )
        seen.add(layer)
        sink(layer, output)

    with taps(model, layers, once), torch.inference_mode():
        result = model(batch)
    missing = [layer for layer in layers if layer not in seen]
    if missing:
        raise DissectError(f"layer {shortlist(missing)} did not run in the forward pass")
    return result


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Sets each flag rather than calling model.eval(): models override train(), and modules may have different flags.
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Give the model its buffers back after the `with` block, with the values that they had before."""
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
def _hooks(model: nn.Module, layers: Sequence[str], on_output: Callable[[str, object], None]) -> Iterator[None]:
    modules = dict(model.named_modules())

    def hook(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, output: on_output(layer, output)

    with ExitStack() as stack:
        for layer in dict.fromkeys(layers):
            stack.callback(modules[layer].register_forward_hook(hook(layer)).remove)
        yield


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


def _classified(names: Sequence[str], outputs: Sequence[tuple[str, object]]) -> Layers:
    """Layers and other modules, from the name of each module called and the shape or description of its output."""
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
    """(units, height, width) if the output is a tensor of activation maps, else None."""
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
