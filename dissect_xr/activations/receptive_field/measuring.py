"""Where the cells of a map look, measured by the gradient, for models that cannot be traced.

Knows: how weights are drawn so that they pull to no side, which cells are looked at, when enough was measured.
Does not know: which layers are measured, and what is done where that fails (`layouts.positions`).

A geometry belongs to the modules of a model, not to its weights: all snapshots have the same one. So it is measured on
a copy whose weights are drawn anew, several times: each is the same number with a random sign, so that no pixel of a
kernel counts more than another. Scales and biases are 1, so that few ReLUs pass nothing.

What a cell sees is the *square* of its gradient: on average over the signs, that of a chain of convolutions is the
product of their windows, whose centroid is exactly the centre of the receptive field. With the absolute gradient,
attention over n tokens is seen as much as the token itself; it pulled the outer cells of a ViT of 8x12 patches of 8
pixels inwards by 31. With the square, which weighs it by 1/n, by 3; with weights of linear maps `DAMPED` besides, so
that what blocks add counts little beside what they pass on, by 0.3.

Every draw is used twice, the second time with all kernels turned by half a turn: what they look to one side is taken
off again. The units of a cell get random signs, too: their plain sum is constant behind a LayerNorm, and has no
gradient.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr.activations.receptive_field.geometry import AxisGeometry, Geometry, NoGeometryError
from dissect_xr.activations.receptive_field.lines import SURE, UnsureError, line_of
from dissect_xr.activations.receptive_field.twin import twin
from dissect_xr.activations.tapping.hooks import listening
from dissect_xr.activations.tapping.name import Tap

DAMPED = 0.1
"""What weights of linear maps are multiplied by."""

CELLS = 8
"""Cells that are looked at, at most."""

DRAWS = (2, 16)
"""Draws of weights, at least and at most."""

PARAMETERS = 2**27
"""Numbers that a model may have to be measured: 512 MiB."""


@dataclass(frozen=True)
class Spot:
    """A map that is measured."""

    tap: Tap
    maps: Callable[[Tensor], Tensor]
    """the maps (image, unit, y, x) in the tensor at the tap"""
    grid: tuple[int, int]
    """rows and columns of the maps"""


@dataclass(frozen=True)
class Measured:
    """Where the cells of a map lie, as far as the gradient says."""

    geometry: Geometry
    residual: tuple[float, float]
    """pixels between the lines and the centroid of a cell, at most, along y and x"""


class _Reached(BaseException):
    """Ends a forward pass, whatever the model catches."""


class Meter:
    """Measures maps of one model.

    Parameters
    ----------
    model
        On any device; parameters may be without values. It is not changed.
    images
        Gives an input tensor of one image of noise, another one for each number.

    Raises
    ------
    NoGeometryError
        If the model cannot be copied, or is too large.
    """

    def __init__(self, model: nn.Module, images: Callable[[int], Tensor]) -> None:
        count = sum(parameter.numel() for parameter in model.parameters())
        if count > PARAMETERS:
            raise NoGeometryError(f"its model has {count:.3g} parameters, and is not measured above {PARAMETERS:.3g}")
        if any(buffer.is_meta for buffer in model.buffers()):
            raise NoGeometryError("its model computes buffers from weights, which are not there")
        try:
            self.twin, _ = twin(model, _on_cpu)
        except Exception as error:
            raise NoGeometryError(f"its model cannot be copied: {_first_line(error)}") from error
        self.images = images

    def measure(self, spots: Sequence[Spot]) -> list[Measured | str]:
        """The geometry of each map, or a clause that says why the gradient does not tell it.

        A model is run twice for each draw, however many maps there are, and once backwards for each cell.
        """
        states = [_State(spot) for spot in spots]
        least, most = DRAWS
        for draw in range(most):
            left = [state for state in states if state.found is None]
            if not left:
                break
            _draw(self.twin, torch.Generator().manual_seed(draw))
            self._look(left, draw)
            _turn(self.twin)
            self._look(left, draw)
            if draw + 1 >= least:
                for state in left:
                    state.conclude(most)
        return [state.found or "it was not measured" for state in states]

    def _look(self, states: "Sequence[_State]", number: int) -> None:
        """Add to each map what its cells see with the weights as they are; it does not depend on the other maps."""
        with torch.inference_mode(False), torch.enable_grad():
            image = self.images(number).detach().to("cpu", torch.float32).clone().requires_grad_()
            maps, failure = self._maps([state.spot for state in states], image)
            for n, state in enumerate(states):
                try:
                    if n not in maps:
                        raise NoGeometryError(failure)
                    state.add(maps[n], image, torch.Generator().manual_seed(number))
                except NoGeometryError as error:
                    state.found = str(error)

    def _maps(self, spots: Sequence[Spot], image: Tensor) -> tuple[dict[int, Tensor], str]:
        """Number of a map -> the map, of those that a pass reached; and why it did not reach the others."""
        taken: dict[int, Tensor] = {}

        def take(number: str, value: object) -> None:
            assert isinstance(value, Tensor)
            taken[int(number)] = spots[int(number)].maps(value).clone()  # it may be overwritten
            if len(taken) == len(spots):
                raise _Reached

        failure = "with weights that are drawn anew, it is not reached"
        with contextlib.suppress(_Reached):
            try:
                with listening(self.twin, {str(n): spot.tap for n, spot in enumerate(spots)}, take):
                    self.twin(image.clone())  # a model may write into its input
            except Exception as error:
                failure = f"the model fails with weights that are drawn anew: {_first_line(error)}"
        return taken, failure


class _State:
    """What was seen of a map so far."""

    def __init__(self, spot: Spot) -> None:
        self.spot, self.cells = spot, _cells(spot.grid)
        self.rows: list[NDArray[np.float64]] = []
        self.columns: list[NDArray[np.float64]] = []
        self.found: Measured | str | None = None
        if min(spot.grid) < 4:
            self.found = f"a map of {spot.grid[0]}x{spot.grid[1]} cells is too small"

    def add(self, maps: Tensor, image: Tensor, generator: torch.Generator) -> None:
        """Look at the cells of a map."""
        if maps.shape[2:] != self.spot.grid:
            raise NoGeometryError("with weights that are drawn anew, its maps have another size")
        if not maps.requires_grad:
            raise NoGeometryError("no gradient reaches the image")
        seen = np.stack([_of_cell(maps, row, column, image, generator) for row, column in self.cells.tolist()])
        self.rows.append(seen.sum(2))
        self.columns.append(seen.sum(1))

    def conclude(self, most: int) -> None:
        """Find the lines if they are sure enough, or a reason if they would not be so after so many draws.

        Errors fall with the root of the draws; twice as many as there will be are allowed for.
        """
        if self.found is not None:
            return
        draws = len(self.rows) // 2
        is_last = draws == most
        try:
            y, x = (
                line_of(self.cells[:, axis], _joined(seen), count=self.spot.grid[axis])
                for axis, seen in enumerate((self.rows, self.columns))
            )
        except NoGeometryError as error:
            if is_last or not isinstance(error, UnsureError) or error.times**2 * draws > 2 * most:
                self.found = str(error)
            return
        if is_last or max(y.error, x.error) <= SURE:
            axes = (AxisGeometry(line.jump, line.start, Fraction(line.field)) for line in (y, x))
            self.found = Measured(Geometry(*axes), (y.residual, x.residual))


def _joined(drawn: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(draw, cell, pixel): each draw and its turn together, every cell with a sum of 1 in each."""
    shares = np.stack([one / one.sum(1, keepdims=True) for one in drawn])
    joined: NDArray[np.float64] = (shares[0::2] + shares[1::2]) / 2
    return joined


def _cells(grid: tuple[int, int]) -> NDArray[np.int64]:
    """(cell, 2) the rows and columns of the cells that are looked at: from corner to corner, without the corners."""
    return np.stack([_along(count, max(1, min(CELLS, max(grid) - 2))) for count in grid], 1)


def _along(count: int, number: int) -> NDArray[np.int64]:
    """The cells of one axis: all but the first and last, or two runs of neighbours if those are more than `number`.

    Neighbours may have the same centroid, where a map was enlarged; the mean of some of them lies on the line.

    >>> _along(6, 8).tolist(), _along(24, 8).tolist()
    ([1, 1, 2, 2, 3, 3, 4, 4], [4, 5, 6, 7, 16, 17, 18, 19])
    """
    if count - 2 <= number:
        return np.linspace(1, count - 2, number).round().astype(np.int64)
    first, run = max(1, count // 6), np.arange(number // 2)
    return np.concatenate([first + run, count - first - number // 2 + run])


def _of_cell(maps: Tensor, row: int, column: int, image: Tensor, generator: torch.Generator) -> NDArray[np.float64]:
    """(H, W) the square of the gradient of a cell, whose units are weighed by random numbers."""
    weights = _signs(maps.shape[1:2], generator)
    (gradient,) = torch.autograd.grad((maps[0, :, row, column] * weights).sum(), image, retain_graph=True)
    seen: NDArray[np.float64] = gradient.double().square().sum((0, 1)).numpy()
    if not np.isfinite(seen).all():
        raise NoGeometryError("with weights that are drawn anew, its gradient is not finite")
    if not seen.any():
        raise NoGeometryError("no gradient reaches the image")
    return seen


def _on_cpu(tensor: Tensor) -> Tensor:
    """A tensor of the copy: float32 where the model's is floating, with its values unless it is a parameter."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    if isinstance(tensor, nn.Parameter) or tensor.is_meta:
        return nn.Parameter(torch.zeros(tensor.shape, dtype=dtype), requires_grad=False)
    return tensor.detach().to("cpu", dtype, copy=True)


def _draw(model: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a model anew."""
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.ndim < 2:
            parameter.fill_(1.0)
            continue
        scale = (parameter.shape[0] / max(1, parameter.numel())) ** 0.5 * (DAMPED if parameter.ndim == 2 else 1)
        parameter.copy_(_signs(parameter.shape, generator) * scale)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.zero_()
            module.running_var.fill_(1.0)  # type: ignore[union-attr]  # there with the other


def _signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """-1 or 1, at random."""
    return torch.randint(0, 2, tuple(shape), generator=generator) * 2.0 - 1


def _turn(model: nn.Module) -> None:
    """Turn all kernels by half a turn."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.copy_(parameter.flip(2, 3))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
