"""All that can be a layer of a model, with its maps and what it was taken for, and the reasons why the rest is none.

Knows: which taps are worth a line.
Does not know: how the list is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from dissect_xr.activations.images import to_input
from dissect_xr.activations.layouts.choose import Wanted
from dissect_xr.activations.layouts.families import offered
from dissect_xr.activations.layouts.find import Finder, Found, Known, reasons
from dissect_xr.activations.layouts.positions import Place, Positions
from dissect_xr.activations.placement.empty import empty_model
from dissect_xr.activations.request import ModelSpec, Recording
from dissect_xr.activations.sources import cached, device_of, seeded
from dissect_xr.errors import DissectError


@dataclass(frozen=True)
class Listed:
    """One layer."""

    name: str
    tensor: tuple[int, ...]
    """shape of the model's own tensor for one image"""
    maps: tuple[int, int, int]
    """units, height, width"""
    layout: str
    """its kind"""
    image_bytes: int
    """of one image's maps, as they would be stored"""
    taken_for: str
    place: str
    """where its cells lie, in a few words"""
    tested: str | None
    """what the impulse test said; None where none was needed"""


@dataclass(frozen=True)
class Listing:
    """What a model offers."""

    layers: tuple[Listed, ...]
    """in order of execution"""
    short: Mapping[str, list[str]]
    """short name -> the layers that it stands for"""
    others: Mapping[str, str]
    """another tap or module -> why it is no layer"""


def list_layers(spec: ModelSpec, recording: Recording, *, inputs: bool = False) -> Listing:
    """The layers that a model offers. Loads it, and runs some images of noise through it.

    Parameters
    ----------
    inputs
        Whether what modules are given is listed, too, which is as a rule what another module returned.
    """
    device = device_of(spec, recording.device)
    loaded = cached(spec, device)
    model = loaded.model
    twin = empty_model(spec, "the geometry of its layers") if loaded.placed else model
    with seeded(0, device):
        preprocess = recording.preprocess
        finder = Finder(model, partial(to_input, preprocess, device=device), preprocess.size, recording.batch, twin)
        known = finder.known()
        short = offered(known.guesses, [name for name, _ in model.named_modules()])
        wanted = _wanted(known, {name for names in short.values() for name in names}, inputs=inputs)
        finder.test(known, wanted)
        others, settled = reasons(known), dict[str, Found]()
        for one in wanted:
            try:
                settled[one.name] = finder.settled(known, one)
            except DissectError as error:
                others[one.name] = str(error)
        places = Positions(finder, known).of(settled)
    itemsize = np.dtype(recording.dtype).itemsize
    listed = [_listed(found, places[name], itemsize) for name, found in settled.items()]
    if not inputs:
        others = {name: why for name, why in others.items() if not _is_input(known, name)}
    return Listing(tuple(listed), short, others)


def _listed(found: Found, place: Place, itemsize: int) -> Listed:
    one, nbytes = found.wanted, int(np.prod(found.shape)) * itemsize
    kind, taken_for = found.layout.kind, one.said(found.layout)
    return Listed(one.name, one.seen.shape, found.shape, kind, nbytes, taken_for, place.said, found.tested)


def _wanted(known: Known, named: set[str], *, inputs: bool) -> list[Wanted]:
    taps = known.available.taps
    return [
        Wanted(name, taps[name].tap, guess.layouts, guess.is_sure, guess.why, taps[name])
        for name, guess in known.guesses.items()
        if guess.layouts and (inputs or name in named or taps[name].tap.side == "output")
    ]


def _is_input(known: Known, name: str) -> bool:
    return name in known.available.taps and known.available.taps[name].tap.side == "input"
