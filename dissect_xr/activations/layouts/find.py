"""The layers that a recording asks for: where each is taken, its layout, what the impulse test said of it.

Knows: the order of things: one pass, another with more images where something is unclear, the choice, the test.
Does not know: how a layout is guessed (`recognise`) or tested (`impulse`), or where cells lie (`positions`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dissect_xr.activations.layouts.choose import Choice, Wanted, choose, shape_of, without_token
from dissect_xr.activations.layouts.impulse import Asked, Inputs, Verdict, impulse_test
from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.layouts.recognise import Guess, Recogniser
from dissect_xr.activations.layouts.wide import SQUARE_ALONE, together, wide_test
from dissect_xr.activations.receptive_field.geometry import Geometry
from dissect_xr.activations.receptive_field.tracing import trace_geometry
from dissect_xr.activations.tapping.calls import Seen, taps_of, watch
from dissect_xr.activations.tapping.name import Tap
from dissect_xr.activations.taps import Layers, map_layers
from dissect_xr.errors import DissectError

IMAGES = 3
"""Images of the second pass, which shows the axis of images."""

FIRST_BLOCKS = 6
"""Layers of the same layout that are tested where a layer's own test says nothing."""


@dataclass(frozen=True)
class Known:
    """What is known of all taps of a model."""

    available: Layers
    guesses: Mapping[str, Guess]
    """tap -> what it was taken for"""
    geometry: Mapping[str, Any]
    """tap -> its geometry, or the reason why there is none"""
    recogniser: Recogniser

    def centres(self) -> dict[tuple[int, int], Geometry]:
        """(rows, columns) of maps -> where their cells lie, of those that were traced to the image."""
        found = {}
        for name, seen in self.available.taps.items():
            place = self.geometry.get(name)
            if isinstance(place, Geometry) and self.guesses[name].is_sure:
                found[seen.shape[2], seen.shape[3]] = place
        return found


@dataclass(frozen=True)
class Found:
    """A layer, and what its maps are."""

    wanted: Wanted
    layout: Layout
    tested: str | None
    """what the impulse test said, None where none was needed"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(units, height, width) of its maps."""
        return shape_of(self.wanted.seen, self.layout)


@dataclass
class Finder:
    """The layers of one model."""

    model: nn.Module
    inputs: Inputs
    size: tuple[int, int]
    batch: int
    """images of a forward pass"""
    twin: nn.Module | None = None
    """a model of the same modules, perhaps without weights, that cells are traced through; None: the model itself"""
    _verdicts: dict[tuple[str, Layout], Verdict] = field(default_factory=dict)

    def known(self) -> Known:
        """What is known of all taps, from one pass of a blank image, or two."""
        blank = np.zeros((1, *self.size, 3), np.uint8)
        example = self.inputs(blank)
        available = map_layers(self.model, example)
        four = [name for name, seen in available.taps.items() if len(seen.shape) == 4]
        traced = trace_geometry(self.twin or self.model, four, self.size, channels=example.shape[1])
        once = Recogniser(self.model, 1, {}, traced)
        unclear = [
            name
            for name, guess in once.all(available.taps).items()
            if not guess.is_sure and len(available.taps[name].shape) > 2 and available.taps[name].is_floating
        ]
        images = min(IMAGES, self.batch) if unclear else 1
        again = self._again(np.repeat(blank, images, 0)) if images > 1 else None
        recogniser = Recogniser(self.model, images if again else 1, again or {}, traced)
        return Known(available, recogniser.all(available.taps), traced, recogniser)

    def _again(self, pixels: Any) -> Mapping[str, Seen] | None:
        try:
            return taps_of(watch(self.model, self.inputs(pixels)))
        except (DissectError, torch.OutOfMemoryError):
            return None  # a model that takes one image at a time

    def find(self, known: Known, choices: Sequence[Choice]) -> dict[str, Found]:
        """Layer -> what it is, in order of execution.

        Raises
        ------
        DissectError
            If a choice selects no layer, or the maps of a layer are not certain.
        """
        wanted = choose(known.available, known.guesses, choices, known.recogniser)
        self.test(known, list(wanted.values()))
        return {name: self.settled(known, one) for name, one in wanted.items()}

    def untested(self, known: Known, choices: Sequence[Choice]) -> dict[str, Found]:
        """As `find`, for a model without values: the likeliest layout of each layer."""
        wanted = choose(known.available, known.guesses, choices, known.recogniser)
        return {name: Found(one, one.layouts[0], None) for name, one in wanted.items()}

    def test(self, known: Known, wanted: Sequence[Wanted]) -> None:
        """Test these layers, and where that says nothing the first ones of the model with the same layout."""
        asked = {one.name: (one.tap, one.layouts) for one in wanted if _is_tested(one)}
        if asked:
            self._verdicts |= self._test(known, asked)
        unsaid = [one for one in wanted if _is_tested(one) and self._agreeing(one) is None]
        self._test_first_blocks(known, unsaid)

    def _test(self, known: Known, asked: Asked) -> dict[tuple[str, Layout], Verdict]:
        centres = known.centres()
        square = impulse_test(self.model, self.inputs, self.size, asked, batch=self.batch, centres=centres)
        if self.size[0] != self.size[1]:
            return square
        seen = known.available.taps
        wide = wide_test(
            self.model, self.inputs, self.size[0], asked, seen, batch=max(1, self.batch // 2), centres=centres
        )
        if wide is None:
            return {key: replace(one, said=f"{one.said}; {SQUARE_ALONE}") for key, one in square.items()}
        return {key: together(one, wide.get(key)) for key, one in square.items()}

    def _agreeing(self, one: Wanted) -> Layout | None:
        return next((layout for layout in one.layouts if self._outcome(one.name, layout) == "agrees"), None)

    def _outcome(self, name: str, layout: Layout) -> str:
        return self._verdicts[name, layout].outcome if (name, layout) in self._verdicts else "undecided"

    def _test_first_blocks(self, known: Known, unsaid: Sequence[Wanted]) -> None:
        """Test the first layers of the model that have the layouts of layers whose own test said nothing."""
        asked: dict[str, tuple[Tap, list[Layout]]] = {}
        for one in unsaid:
            for layout in one.layouts:
                if self._outcome(one.name, layout) != "undecided":
                    continue
                for name in _alike(known, one, layout)[:FIRST_BLOCKS]:
                    mine = asked.setdefault(name, (known.available.taps[name].tap, []))[1]
                    if (name, layout) not in self._verdicts and layout not in mine:
                        mine.append(layout)
        if any(layouts for _, layouts in asked.values()):
            self._verdicts |= self._test(known, asked)

    def settled(self, known: Known, one: Wanted) -> Found:
        """A layer with the one layout that its test leaves.

        Raises
        ------
        DissectError
            If it leaves none, or several.
        """
        if not _is_tested(one):
            return Found(one, one.layouts[0], None if one.is_sure else "not tested: one cell")
        agreeing = self._agreeing(one)
        if agreeing is not None:
            return Found(one, agreeing, f"agrees: {self._verdicts[one.name, agreeing].said}")
        left = [layout for layout in one.layouts if self._outcome(one.name, layout) == "undecided"]
        firsts = {layout: self._first(known, one, layout) for layout in left}
        left = [layout for layout in left if firsts[layout] is None or firsts[layout][1].outcome != "disagrees"]  # type: ignore[index]
        if not left:
            raise DissectError(self._refusal(known, one, firsts))
        told = [layout for layout in left if firsts[layout] is not None]
        if len(told or left) > 1:
            raise DissectError(
                f"layer {one.name}: its tensor {one.what} may be read as {' or as '.join(map(one.said, left))}, and a "
                f"changed patch of the image did not tell ({self._verdict(one.name, left[0])}). Say which it is: "
                f"{{layer: {one.name!r}, layout: {{kind: {left[0].kind}}}}}."
            )
        layout = (told or left)[0]
        said = f"undecided: {self._verdict(one.name, layout)}"
        if (first := firsts[layout]) is not None:
            said += f"; {first[0]} of the same layout agrees: {first[1].said}"
        return Found(one, layout, said)

    def _verdict(self, name: str, layout: Layout) -> str:
        return self._verdicts[name, layout].said

    def _first(self, known: Known, one: Wanted, layout: Layout) -> tuple[str, Verdict] | None:
        """The first layer of this layout that a test said something of."""
        for name in _alike(known, one, layout):
            verdict = self._verdicts.get((name, layout))
            if verdict is not None and verdict.outcome != "undecided":
                return name, verdict
        return None

    def _refusal(self, known: Known, one: Wanted, firsts: Mapping[Layout, tuple[str, Verdict] | None]) -> str:
        tried = []
        for layout in one.layouts:
            first = firsts.get(layout)
            where, verdict = first if first is not None else (one.name, self._verdicts[one.name, layout])
            at = "" if where == one.name else f" at {where}, which has the same layout:"
            tried.append(f"read as {one.said(layout)},{at} {verdict.said}")
        return (
            f"layer {one.name}: a patch of the image was changed, and it was not its own cell that answered most: "
            f"{'; '.join(tried)}. Its maps would be in the wrong places. Say what the axes of {one.what} are "
            "(`layout:`), or leave the layer out."
        )


def _is_tested(one: Wanted) -> bool:
    return not one.is_sure and one.layouts[0].kind not in ("token", "cell")


def _alike(known: Known, one: Wanted, layout: Layout) -> list[str]:
    """Taps for which a layout of a layer is right, too, if it is right there: in order of execution, outputs alone.

    They were taken for this layout. Where a recipe gives another one than the layer was taken for, they were taken for
    the same as the layer; where it was taken for nothing, their tensors have its shape.
    """
    taps = known.available.taps
    own = known.guesses[without_token(one.tap)].layouts
    meant = layout if layout in own or not own else own[0]

    def is_alike(name: str, guess: Guess) -> bool:
        if guess.is_sure or taps[name].tap.side == "input" or name == one.name:
            return False
        return meant in guess.layouts if own else taps[name].shape == one.seen.shape

    return [name for name, guess in known.guesses.items() if is_alike(name, guess)]


def reasons(known: Known) -> dict[str, str]:
    """Tap, or module that gives none, -> why it is no layer."""
    silent = {name: why for name, why in known.available.others.items() if name not in known.guesses}
    return silent | {name: guess.why for name, guess in known.guesses.items() if not guess.layouts}
