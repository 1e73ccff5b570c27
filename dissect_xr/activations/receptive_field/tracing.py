"""Receptive-field geometry of a model's layers, traced through one forward pass on tensors without values.

Knows: how to record every torch function that a model calls in eval mode, on tensors that have only a shape. A layer
that cannot be traced exactly gets the reason instead of a geometry.
Does not know: how a function changes positions (`rules`), or what a caller does without a geometry.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dissect_xr.activations.receptive_field.geometry import PIXELS, Geometry, NoGeometryError
from dissect_xr.activations.receptive_field.rules import RULES, TURNED, Call, Position, tensors
from dissect_xr.activations.receptive_field.turned import Turned
from dissect_xr.activations.receptive_field.twin import twin
from dissect_xr.activations.tapping.name import Tap
from dissect_xr.activations.tapping.values import arguments, tensors_in
from dissect_xr.activations.taps import check_layers, taps_at


def trace_geometry(
    model: nn.Module, layers: Sequence[str], input_size: tuple[int, int], *, channels: int = 3
) -> dict[str, Geometry | str]:
    """The geometry of each layer, or the reason why it has none.

    The forward pass runs on a copy of the modules whose tensors have no values, so it needs no arithmetic and does not
    change the model. Control flow may depend on shapes. If it depends on values, the pass stops there, and the later
    layers get that as their reason. If an operation has no rule, only the layers computed from its result have no
    geometry.

    Parameters
    ----------
    model
        On any device.
    layers
        Module names, or names of taps (`tapping.name`).
    input_size
        (H, W) of the input.
    channels
        Number of channels of the input.

    Raises
    ------
    DissectError
        If the model has no module of that name.

    Examples
    --------
    >>> trace_geometry(nn.Sequential(nn.Conv2d(3, 8, 7, stride=2, padding=3)), ["0"], (32, 32))["0"].y.start
    Fraction(1, 2)

    References
    ----------
    Bau et al. 2017, "Network Dissection", section 2.2: activation maps are anchored at receptive-field centres.
    """
    where = taps_at(model, layers)
    check_layers(model, [tap.module for tap in where.values()])
    reached: dict[str, Geometry | str | None] = {}
    reason = "it is not called in a forward pass"
    try:
        _follow(model, (2, channels, *input_size), reached)
    except Exception as error:
        # A model's forward() may raise any error: it becomes the reason. Its first line names the operation.
        first_line = (str(error).splitlines() or [""])[0]
        reason = f"the forward pass cannot be followed without data: {type(error).__name__}: {first_line}"
    found = {layer: reached.get(str(tap), reason) for layer, tap in where.items()}
    return {layer: _NO_POSITION if position is None else position for layer, position in found.items()}


_NO_POSITION = "its cells have no position: it is computed from a pooled vector or from parameters alone"


def _follow(model: nn.Module, shape: tuple[int, ...], reached: dict[str, Geometry | str | None]) -> None:
    """Run the forward pass; fills `reached` layer by layer, so that a failure does not lose the layers before it."""
    calls = _Calls()
    valueless, parameters = twin(model, lambda tensor: tensor.detach().to("meta"))
    for tensor in parameters:
        calls.put(tensor, None)
    image = torch.empty(shape, dtype=_input_dtype(parameters), device="meta")
    calls.put(image, Geometry(PIXELS, PIXELS))

    reach = _Reach(calls, reached)
    for name, module in valueless.named_modules():
        module.register_forward_pre_hook(reach.enter(name), with_kwargs=True)
        module.register_forward_hook(reach.leave(name))
    with torch.no_grad(), calls:
        valueless(image)


class _Reach:
    """Notes the position at every tap as it is reached."""

    def __init__(self, calls: "_Calls", reached: dict[str, Geometry | str | None]) -> None:
        self.calls, self.reached = calls, reached
        self.numbers: Counter[str] = Counter()

    def enter(self, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            self.calls.inside.append(layer)
            given = arguments(args, kwargs)
            first = next(iter(given), None)
            for path, tensor in tensors_in(given):
                path = () if path == (first,) else path
                self._note(Tap(layer, None, "input", path), self.numbers[layer] + 1, tensor)

        return hook

    def leave(self, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            self.calls.inside.pop()
            self.numbers[layer] += 1
            for path, tensor in tensors_in(output):
                self._note(Tap(layer, None, "output", path), self.numbers[layer], tensor)
            if not isinstance(output, Tensor):
                self.reached[layer] = _CALLED_TWICE if layer in self.reached else _NO_MAPS

        return hook

    def _note(self, tap: Tap, number: int, tensor: Tensor) -> None:
        position = self.calls.position(tensor) if tensor.ndim == 4 else _NO_MAPS
        found = position.reason if isinstance(position, Turned) else position
        self.reached[str(replace(tap, call=number))] = found
        self.reached[str(tap)] = found if number == 1 else _CALLED_TWICE


_CALLED_TWICE = "it is called more than once in a forward pass"


_NO_MAPS = "its output is not one (batch, unit, y, x) tensor"


class _Calls(TorchFunctionMode):
    """Records the positions of the cells of every tensor that a torch function returns inside the `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        # While the tensors are kept, Python cannot give their ids to others. They have no values, so this needs no
        # memory.
        self._seen: dict[int, tuple[Tensor, Position]] = {}

    def put(self, tensor: Tensor, position: Position) -> None:
        self._seen[id(tensor)] = tensor, position

    def position(self, tensor: Tensor) -> Position:
        if id(tensor) in self._seen:
            return self._seen[id(tensor)][1]
        # A tensor with values is a constant of the model's code. One without was returned by a call that was not
        # recorded.
        return "it comes out of compiled or custom code" if tensor.is_meta else None

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(tensors([args, kwargs]))
        if any(tensor.is_meta for tensor in given):
            result = func(*_on_meta(args), **_on_meta(kwargs))
        else:
            result = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func)).strip("_")
        # x[...] = y returns nothing, but changes x.
        changed = given[:1] if name == "setitem" else list(tensors(result))
        if changed:
            position = self._after(name, given, Call(self.position, changed[0]), args, kwargs)
            for tensor in changed:
                self.put(tensor, position)
        return result

    def _after(
        self, name: str, given: list[Tensor], call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Position:
        positions = [self.position(tensor) for tensor in given]
        reasons = [position for position in positions if isinstance(position, str)]
        if reasons:
            return reasons[0]
        if all(position is None for position in positions):
            return None
        where = f"{name} in {self.inside[-1] or 'the model'}"
        turned = next((position for position in positions if isinstance(position, Turned)), None)
        rules = RULES if turned is None else TURNED
        try:
            if name not in rules:
                return f"{where} has no receptive-field rule" if turned is None else turned.reason
            found = rules[name](call, *args, **kwargs)
            if isinstance(found, Turned) and not found.reason:
                return replace(found, reason=f"{where} moves y and x to other dims")
            return found
        except NoGeometryError as error:
            return f"{where} {error}"
        except (TypeError, ValueError, IndexError) as error:
            return f"{where} is called in a way that has no receptive-field rule ({error})"


def _input_dtype(parameters: list[Tensor]) -> torch.dtype:
    return next((tensor.dtype for tensor in parameters if tensor.is_floating_point()), torch.float32)


def _on_meta(value: Any) -> Any:
    """The same nested arguments, in which tensors with values are replaced by tensors without."""
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to("meta")
    if type(value) in (list, tuple):
        return type(value)(_on_meta(item) for item in value)
    if type(value) is dict:
        return {name: _on_meta(item) for name, item in value.items()}
    return value
