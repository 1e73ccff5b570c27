"""Whether a layout is right: where a small change of the image is answered in the maps.

Knows: which places are changed, how an answer is read, and when it agrees, disagrees or says nothing.
Does not know: how layouts are found (`recognise`), or what is done where one is wrong (`find`).

An image of noise is given to the model, and then again with one patch turned into its negative, at up to `PLACES`
places, one at a time. The answer of a cell is the root mean square, over the units, of what changed there, and the cell
that answers most is compared with the cell that the patch lies in. For that, what it answers to most of the places is
taken off: a token that gathers what the whole image says answers to all of them. No place lies on the diagonal of the
map, so that exchanged axes show on square maps, too; a row or column too many shows, since cells must be met exactly
where tokens make the grid. Of maps whose axes are axes of the tensor (`nhwc`), where nothing can be shifted, a cell
nearby is as good, up to a quarter of the map: convolutions may answer there. Where the cells of maps of this size were
traced to the image, the patches lie around their centres; otherwise the image is divided evenly.

- *agrees*: all places but at most one in six are met; or, on a map of at least 4x4 cells, no answer is more than a cell
  away, and they lie around their own cells: along neither axis is the mean of what they are away over `CENTRED` of a
  cell. So overlapping patches may answer in the next cell here and there, but a grid that is shifted does not pass.
- *disagrees*: at most half of the places are met, and at least at half of all, and at two, the patch's own cell changed
  by less than `CLEAR` of what changed most; so clearly that blurring cannot be the reason.
- *undecided*: everything else: a layer in which all cells answer alike, or a map of less than 4 cells.

A map of 2x2 cells has 2 places off the diagonal, so agreement there may be chance, and is said with its numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.layouts.maps import to_maps
from dissect_xr.activations.receptive_field.geometry import AxisGeometry, Geometry
from dissect_xr.activations.tapping.hooks import buffers_kept, listening
from dissect_xr.activations.tapping.name import Tap
from dissect_xr.errors import DissectError

PLACES = 6
"""Places of a test, at most."""

CLEAR = 0.5
"""A cell that changed by less than this part of the largest change did not merely lose by a little."""

CENTRED = 0.34
"""Cells that answers may be away from their own cell on average."""

Cell = tuple[int, int]
Inputs = Callable[[NDArray[np.uint8]], Tensor]
"""Pixels (n, H, W, 3) -> the model's input on its device."""


@dataclass(frozen=True)
class Verdict:
    """What an impulse test found."""

    outcome: Literal["agrees", "disagrees", "undecided"]
    said: str
    """with numbers, such as "6 of 6 places answered in their own cell" """


def places(grid: tuple[int, int]) -> list[Cell]:
    """The cells that are changed, off the diagonal and spread over rows and columns; none where there are few cells.

    >>> places((4, 6))
    [(0, 3), (1, 4), (2, 0), (3, 1), (0, 5)]
    >>> places((1, 1))
    []
    """
    rows, columns = grid
    if rows * columns < 4:
        return []
    wanted: list[Cell] = []
    for n in range(4 * rows * columns):
        row, column = n % rows, (n * columns // min(rows, columns) + columns // 2 + n // rows * 2) % columns
        relative = abs((row + 0.5) / rows - (column + 0.5) / columns)
        if (row, column) not in wanted and relative > 0.3:
            wanted.append((row, column))
        if len(wanted) == PLACES:
            break
    return wanted


def reach(layout: Layout, grid: tuple[int, int]) -> int:
    """How many cells beside its own may answer most."""
    return min(grid) // 4 if layout.kind in ("nchw", "nhwc") else 0


def judge(answers: NDArray[np.floating], cells: Sequence[Cell], *, near: int = 0) -> Verdict:
    """The verdict of answers (place, y, x) to changes at these cells.

    Parameters
    ----------
    near
        How many cells beside its own an answer may be to count as met.

    Examples
    --------
    >>> moved = np.zeros((4, 3, 3)); cells = [(0, 1), (1, 0), (2, 0), (0, 2)]
    >>> for n, (row, column) in enumerate(cells):
    ...     moved[n, row, (column + 1) % 3] = 1
    >>> judge(moved, cells).said
    '0 of 4 places answered in their own cell: the change at (0, 1) answered most at (0, 2), (1, 0) at (1, 1)'
    """
    if not len(cells):
        return Verdict("undecided", "the map has too few cells to tell")
    own_alone = np.maximum(answers - np.median(answers, axis=0), 0) if len(cells) >= 4 else answers
    tops = [np.unravel_index(int(answer.argmax()), answer.shape) for answer in own_alone]
    met = [max(abs(top[0] - row), abs(top[1] - col)) <= near for top, (row, col) in zip(tops, cells, strict=True)]
    counted = f"{sum(met)} of {len(cells)} places answered in their own cell"
    if not all(answer.max() > 0 for answer in answers):
        return Verdict("undecided", "nothing answered at some places")
    if sum(met) >= len(cells) - len(cells) // 6:
        return Verdict("agrees", counted)
    away = np.array(tops) - np.array(cells)
    if min(answers.shape[1:]) >= 4 and np.abs(away).max() <= 1 and np.abs(away.mean(0)).max() <= CENTRED:
        return Verdict("agrees", f"{counted}, the others in the next one, on all sides")
    missed = [n for n, hit in enumerate(met) if not hit]
    shown = [
        f"{'the change at ' if i == 0 else ''}{cells[n]} {'answered most ' if i == 0 else ''}at "
        f"({tops[n][0]}, {tops[n][1]})"
        for i, n in enumerate(missed[:2])
    ]
    said = f"{counted}: {', '.join(shown)}"
    own = [answers[n][_window(cells[n], near)].max() / answers[n].max() for n in missed]
    if sum(met) <= len(cells) // 2 and sum(part < CLEAR for part in own) >= max(2, len(cells) // 2):
        return Verdict("disagrees", said)
    return Verdict("undecided", said)


def _window(cell: Cell, near: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, at - near), at + near + 1) for at in cell)
    return rows, columns


Asked = Mapping[str, tuple[Tap, Sequence[Layout]]]
"""Layer -> where it is taken, and the layouts that it may have."""


def impulse_test(
    model: nn.Module,
    inputs: Inputs,
    size: tuple[int, int],
    asked: Asked,
    *,
    batch: int,
    centres: Mapping[Cell, Geometry] | None = None,
) -> dict[tuple[str, Layout], Verdict]:
    """The verdict on every layout of every layer; runs a pass of some images for each size of maps.

    Parameters
    ----------
    size
        (H, W) of the images.
    batch
        Images of a forward pass, at most.
    centres
        (rows, columns) of maps -> where their cells lie, as far as it is known.
    """
    sizes = _Sizes()
    with buffers_kept(model):
        _pass(model, inputs(_noise(size)), asked, sizes)
        found: dict[tuple[str, Layout], Verdict] = {}
        for grid in dict.fromkeys(sizes.of.values()):
            mine = {
                layer: (tap, [layout for layout in layouts if sizes.of.get((layer, layout)) == grid])
                for layer, (tap, layouts) in asked.items()
            }
            lying = (centres or {}).get(grid) or even(grid, size)
            changed = np.concatenate([_noise(size), *(_negative(_noise(size), lying, cell) for cell in places(grid))])
            answers = _answers(model, inputs, changed, mine, batch)
            for (layer, layout), answer in answers.items():
                found[layer, layout] = judge(answer, places(grid), near=reach(layout, grid))
    wrong = {key: Verdict("disagrees", str(error)) for key, error in sizes.errors.items()}
    return found | wrong


class _Sizes:
    """Takes only the sizes of maps, and the errors of layouts that do not fit."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, Layout], tuple[int, int]] = {}
        self.errors: dict[tuple[str, Layout], DissectError] = {}

    def __call__(self, layer: str, layout: Layout, tensor: Tensor) -> None:
        try:
            height, width = to_maps(layer, tensor, layout).shape[2:]
            self.of[layer, layout] = height, width
        except DissectError as error:
            self.errors[layer, layout] = error


def _answers(
    model: nn.Module, inputs: Inputs, changed: NDArray[np.uint8], asked: Asked, batch: int
) -> dict[tuple[str, Layout], NDArray[np.float32]]:
    """(place, y, x) how much each cell of the maps changed, at each place; the first image is the unchanged one."""
    kept: dict[tuple[str, Layout], Tensor] = {}
    answers: dict[tuple[str, Layout], list[Tensor]] = {}

    def take(layer: str, layout: Layout, tensor: Tensor) -> None:
        maps = to_maps(layer, tensor, layout).to(torch.float32)
        if (layer, layout) not in kept:
            kept[layer, layout], maps = maps[:1].clone(), maps[1:]
        change = (maps - kept[layer, layout]).square().mean(1).sqrt()
        answers.setdefault((layer, layout), []).append(change.cpu())

    done = 0
    while done < len(changed):
        try:
            _pass(model, inputs(changed[done : done + batch]), asked, take)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch = (batch + 1) // 2
            for key, parts in answers.items():  # what was taken of the pass that failed is taken again
                answers[key] = [torch.cat(parts)[: max(0, done - 1)]]
            if done == 0:
                kept.clear()
            continue
        done += batch
    return {key: torch.cat(parts).numpy() for key, parts in answers.items()}


def _pass(model: nn.Module, batch: Tensor, asked: Asked, take: Callable[[str, Layout, Tensor], None]) -> None:
    def heard(layer: str, value: object) -> None:
        if isinstance(value, Tensor):
            for layout in asked[layer][1]:
                take(layer, layout, value)

    with listening(model, {layer: tap for layer, (tap, _) in asked.items()}, heard), torch.inference_mode():
        try:
            model(batch)
        except (DissectError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            shape = "x".join(map(str, batch.shape))
            raise DissectError(
                f"the model fails on an input of {shape}, though not on a blank image: {type(error).__name__}: {error}"
            ) from error


def _noise(size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of noise, always the same: uint8 (1, H, W, 3)."""
    return np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)


def even(grid: tuple[int, int], size: tuple[int, int]) -> Geometry:
    """Where cells lie that divide the image evenly."""
    jumps = [Fraction(length, count) for length, count in zip(size, grid, strict=True)]
    return Geometry(*(AxisGeometry(jump, jump / 2, jump) for jump in jumps))


def _negative(image: NDArray[np.uint8], lying: Geometry, cell: Cell) -> NDArray[np.uint8]:
    """The image with the patch around the centre of one cell turned into its negative."""
    changed = image.copy()
    spans = []
    for axis, at, length in zip((lying.y, lying.x), cell, image.shape[1:3], strict=True):
        first = min(max(0, round(axis.start + (at - Fraction(1, 2)) * axis.jump)), length - 1)
        spans.append(slice(first, max(first + 1, round(axis.start + (at + Fraction(1, 2)) * axis.jump))))
    changed[:, spans[0], spans[1]] = 255 - changed[:, spans[0], spans[1]]
    return changed
