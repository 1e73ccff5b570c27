"""Where the cells of layers lie in the image: traced where that is possible, and measured where not.

Knows: which layers have their cells from another map, at which taps a map is measured.
Does not know: how a model is traced (`receptive_field.tracing`) or measured (`receptive_field.measuring`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from dissect_xr.activations.layouts.choose import without_token
from dissect_xr.activations.layouts.find import Finder, Found, Known
from dissect_xr.activations.layouts.layout import GRIDDED, Layout
from dissect_xr.activations.layouts.maps import to_maps
from dissect_xr.activations.receptive_field.geometry import Geometry, NoGeometryError
from dissect_xr.activations.receptive_field.measuring import Measured, Meter, Spot
from dissect_xr.activations.tapping.name import Tap


@dataclass(frozen=True)
class Place:
    """Where the cells of a layer lie."""

    geometry: Geometry | str
    """or the reason why it is not known"""
    measured: Mapping[str, Any] | None = None
    """the tap that was measured (`at`), and the pixels between the lines and a centroid at most (`residual`)"""

    @property
    def attrs(self) -> Any:
        """The geometry as it is stored, or the reason."""
        return self.geometry if isinstance(self.geometry, str) else self.geometry.to_attrs()

    @property
    def said(self) -> str:
        """It in a few words.

        >>> Place("attention mixes everything").said
        'half_pixel'
        """
        if isinstance(self.geometry, str):
            return "half_pixel"
        axes = self.geometry.y, self.geometry.x
        jumps, starts = (
            dict.fromkeys(f"{float(value):.4g}" for value in values)
            for values in ([axis.jump for axis in axes], [axis.start for axis in axes])
        )
        lying = f"every {' and '.join(jumps)} px from {' and '.join(starts)}"
        if self.measured is None:
            return lying
        return f"{lying}, measured to {max(self.measured['residual'].values()):.2g} px"


@dataclass(frozen=True)
class Candidate:
    """A tap whose map may say where the cells of a layer lie."""

    name: str
    tap: Tap
    layout: Layout


class Positions:
    """Finds where the cells of a model's layers lie."""

    def __init__(self, finder: Finder, known: Known) -> None:
        self.finder, self.known = finder, known
        self._said: dict[Candidate, Measured | str] = {}

    def of(self, layers: Mapping[str, Found]) -> dict[str, Place]:
        """Where the cells of each layer lie.

        What was traced lies there. A token grid lies where the map of this size before it does. Everything else is
        measured: maps at the layer itself; a token grid where a module made it of a map of another size, else at the
        layer. The field of tokens is the whole image, since attention may mix all of them.
        """
        places = {name: grid_geometry(self.known, one, self.finder.size) for name, one in layers.items()}
        untraced = {name: layers[name] for name, place in places.items() if isinstance(place, str)}
        candidates = {name: self._candidates(one) for name, one in untraced.items()}
        for number in range(max(map(len, candidates.values()), default=0)):
            wanted = {
                found[number]: untraced[name].shape[1:]
                for name, found in candidates.items()
                if len(found) > number and not any(isinstance(self._said[one], Measured) for one in found[:number])
            }
            self._measure({one: grid for one, grid in wanted.items() if one not in self._said})
        return {
            name: self._measured_place(untraced[name], place, candidates[name]) if name in untraced else Place(place)
            for name, place in places.items()
        }

    def _measured_place(self, found: Found, reason: str, candidates: Sequence[Candidate]) -> Place:
        for one in candidates:
            said = self._said.get(one, "")
            if isinstance(said, Measured):
                geometry = said.geometry
                if found.layout.kind in GRIDDED:
                    geometry = _of_all(geometry, self.finder.size)
                y, x = (round(residual, 2) for residual in said.residual)
                return Place(geometry, {"at": one.name, "residual": {"y": y, "x": x}})
        own = [self._said[one] for one in candidates if one.name == found.wanted.name]
        return Place(f"{reason}; nor could it be measured: {own[0]}" if own else reason)

    def _candidates(self, found: Found) -> list[Candidate]:
        """The taps at which a map is measured, in the order in which they are tried."""
        if found.layout.kind in ("token", "cell"):
            return []
        own = Candidate(found.wanted.name, found.wanted.tap, found.layout)
        if found.layout.is_plain:
            return [own]
        return [*self._entries(found), own]

    def _entries(self, found: Found) -> Iterator[Candidate]:
        """Modules that return a map of the size of a layer's and were given another one: the last before, two after."""
        taps = list(self.known.available.taps)
        at = taps.index(without_token(found.wanted.tap))
        for names, most in ((reversed(taps[:at]), 1), (taps[at + 1 :], 2)):
            entries = (self._of_grid(name, found) for name in names if self._is_entry(name, found))
            yield from islice((one for one in entries if one is not None), most)

    def _is_entry(self, name: str, found: Found) -> bool:
        tap = self.known.available.taps[name].tap
        given = self.known.guesses.get(str(Tap(tap.module, tap.call, "input")))
        return tap.side == "output" and (given is None or given.grid != found.shape[1:])

    def _of_grid(self, name: str, found: Found) -> Candidate | None:
        """A tap, if it has maps of the size of a layer's, and they can be read in one way alone."""
        guess = self.known.guesses[name]
        if len(guess.layouts) != 1 or guess.layouts[0].kind in ("token", "cell") or guess.grid != found.shape[1:]:
            return None
        return Candidate(name, self.known.available.taps[name].tap, guess.layouts[0])

    def _measure(self, wanted: Mapping[Candidate, tuple[int, ...]]) -> None:
        if not wanted:
            return
        try:
            meter = Meter(self.finder.twin or self.finder.model, self._image)
        except NoGeometryError as error:
            self._said |= dict.fromkeys(wanted, str(error))
            return
        spots = [
            Spot(one.tap, partial(to_maps, one.name, layout=one.layout), (grid[0], grid[1]))
            for one, grid in wanted.items()
        ]
        self._said |= dict(zip(wanted, meter.measure(spots), strict=True))

    def _image(self, number: int) -> Tensor:
        """The input tensor of an image of noise, by turns a dark and a bright one: a model may go by that."""
        dark = np.random.default_rng(number).integers(0, 128, (1, *self.finder.size, 3), np.uint8)
        return self.finder.inputs(dark + np.uint8(128 * (number % 2)))


def grid_geometry(known: Known, found: Found, size: tuple[int, int]) -> Any:
    """The geometry of a map: traced where it is plain, of a token grid that of the map of this size before it.

    A text says why there is none.
    """
    name, layout = found.wanted.name, found.layout
    if layout.is_plain:
        return known.geometry[name]
    if layout.kind in ("token", "cell"):
        return "its one cell is of the whole image"
    guess, taps = known.guesses, known.available.taps
    grid = found.shape[1:]
    last: Any = None
    for other, seen in taps.items():
        if other == name:
            break
        place = known.geometry.get(other, "")
        if not isinstance(place, str) and guess[other].is_sure and seen.shape[2:] == grid:
            last = place
    if last is None:
        return f"no map of {grid[0]}x{grid[1]} cells before it was traced to the image"
    return _of_all(last, size)


def _of_all(geometry: Geometry, size: tuple[int, int]) -> Geometry:
    """The geometry with a field of the whole image."""
    whole = [
        type(axis)(axis.jump, axis.start, type(axis.jump)(length))
        for axis, length in zip((geometry.y, geometry.x), size, strict=True)
    ]
    return Geometry(*whole)
