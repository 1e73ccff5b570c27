"""Which questions a survey asks: the units that are drawn, decoys among them, and their order.

Knows: labels and IoUs of a dissection. A draw is by sha256 of the seed and of what is drawn, so it is the same on every
machine and for every version of NumPy, and more units of a layer are those of a smaller survey and others.
Does not know: pictures, pages, answers.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.analysis.detectors import best_concept
from dissect_xr.analysis.scores import iou
from dissect_xr.errors import DissectError
from dissect_xr.report.source import Source
from dissect_xr.schema import layer_path
from dissect_xr.survey.key import Ask, Key, Question

IMAGES = 15
"""Pictures of each unit, as in both papers."""

PIXELS = 160
"""Side of a picture."""

FAR = 0.1
"""A decoy's IoU with the unit is at most this share of the IoU of the unit's label: it is no second label of it."""


@dataclass(frozen=True)
class Survey:
    """What to ask about which units."""

    ask: Ask = "phrase"
    """`phrase`: does the unit's label describe its pictures, yes or no; `description`: what do they show, in words"""
    snapshot: str | None = None
    """None for the last"""
    layers: Sequence[str] | None = None
    """None for all of the snapshot"""
    fraction: float | None = None
    """None for the dissection's first"""
    units: int = 20
    """units of each layer, or all that it has; dead units have no label and are not asked about"""
    decoys: int = 4
    """questions of each layer with the label of another unit; none where raters describe"""
    images: int = IMAGES
    """pictures of each unit, of the images in which it peaks highest"""
    crop: float | None = None
    """show only a square around the peak, its side this share of the image's shorter side; None shows whole images"""
    seed: int = 0
    """of the draws: which units and decoys, and the order of questions"""

    def __post_init__(self) -> None:
        if self.ask not in get_args(Ask):
            raise DissectError(f"ask is {self.ask!r}: expected one of {', '.join(get_args(Ask))}.")
        for name, least in (("units", 1), ("decoys", 0), ("images", 1)):
            if getattr(self, name) < least:
                raise DissectError(f"{name} is {getattr(self, name)}: expected {least} or more.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise DissectError(f"crop is {self.crop}: expected a share of the image's side, above 0 and at most 1.")
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", (self.layers,))


def make_key(source: Source, survey: Survey, *, described: Mapping[str, str | None] | None = None) -> Key:
    """The survey of a run. Reads the counts of one layer at a time.

    `described` gives each unit's description by people, None where they found none; these are asked about, too.

    Warns
    -----
    UserWarning
        For layers without living units, and those whose units offer fewer decoys than were asked for.

    Raises
    ------
    DissectError
        If the run lacks the snapshot, a layer or the fraction, no unit is alive, or one was not described.
    """
    snapshot, layers = _chosen(source, survey)
    asked: dict[str, list[Question]] = {}
    for layer in layers:
        found = _of_layer(source.layer(snapshot, layer), survey)
        if found:
            asked[layer] = found
        else:
            warnings.warn(f"layer {layer} of {snapshot} is left out: all of its units are dead.", stacklevel=2)
    if not asked:
        raise DissectError(f"{source.out}: all units of {', '.join(layers)} are dead: there is nothing to ask about.")
    questions = [question for found in asked.values() for question in found]
    if described is not None:
        questions += _descriptions(questions, described)
    return Key(
        ask=survey.ask,
        dissection=dissection_fingerprint(source, snapshot, list(asked)),
        snapshot=snapshot,
        layers=tuple(asked),
        fraction=float(source.results["fraction"]),
        seed=survey.seed,
        images=survey.images,
        pixels=PIXELS,
        described=described is not None,
        crop=None if survey.crop is None else float(survey.crop),
        questions=tuple(sorted(questions, key=lambda one: digest(survey.seed, one.origin, one.unit, one.phrase))),
    )


def dissection_fingerprint(source: Source, snapshot: str, layers: Iterable[str]) -> str:
    """sha256 of what made the dissection of these layers, whatever else the run holds."""
    made = {layer: store.marker(source.dissection, f"{layer_path(snapshot, layer)}/done") for layer in layers}
    root = store.marker(source.dissection, "created")
    return store.fingerprint(
        {
            "root": root and root["fingerprint"],
            "snapshot": snapshot,
            "layers": {layer: marker and marker["fingerprint"] for layer, marker in made.items()},
        }
    )


def phrase(name: str, category: str) -> str:
    """A concept's name as a person reads it: without Broden's endings of scenes and colours, with spaces.

    >>> phrase("swimming_pool-indoor-s", "scene"), phrase("red-c", "color"), phrase("t-s", "object")
    ('swimming pool-indoor', 'red', 't-s')
    """
    ending = {"scene": "-s", "color": "-c"}.get(category, "")
    return " ".join(name.removesuffix(ending).replace("_", " ").split()) or name


def _chosen(source: Source, survey: Survey) -> tuple[str, list[str]]:
    """The snapshot and its layers that are asked about, in the order of the model."""
    snapshot = source.snapshots[-1] if survey.snapshot is None else survey.snapshot
    if snapshot not in source.snapshots:
        raise DissectError(f"{source.out}: has no snapshot '{snapshot}'; there are {', '.join(source.snapshots)}.")
    row = source.slugs[source.snapshots.index(snapshot)]
    there = [layer for layer, slug in zip(source.layers, row, strict=True) if slug is not None]
    wanted = there if survey.layers is None else list(survey.layers)
    if unknown := [layer for layer in wanted if layer not in there]:
        raise DissectError(f"snapshot '{snapshot}' has no layer {', '.join(unknown)}; it has {', '.join(there)}.")
    return snapshot, [layer for layer in there if layer in wanted]


def _of_layer(one: xr.Dataset, survey: Survey) -> list[Question]:
    """The questions of a layer: its units with their labels, and decoys."""
    best = best_concept(one).load()
    named = zip(best["concept_name"].values.tolist(), best["category"].values.tolist(), strict=True)
    labels = {
        unit: phrase(*label)
        for unit, number, label in zip(
            best["unit"].values.tolist(), best["concept"].values.tolist(), named, strict=True
        )
        if number > 0
    }
    order = _drawn(labels, survey.seed, "unit")
    asked = order[: survey.units]
    if survey.ask == "description":
        return [Question(unit=unit, phrase="", origin="rater") for unit in asked]
    decoys = _decoys(one, best, labels, order[survey.units :] + asked, survey)
    return [*(Question(unit=unit, phrase=labels[unit], origin="label") for unit in asked), *decoys]


def _decoys(
    one: xr.Dataset, best: xr.Dataset, labels: Mapping[str, str], order: Sequence[str], survey: Survey
) -> list[Question]:
    """Units in this order, each with the label of another one that it does not detect."""
    found: list[Question] = []
    places = {unit: place for place, unit in enumerate(best["unit"].values.tolist())}
    columns = np.searchsorted(one["concept"].values, best["concept"].values)
    for unit in order:
        if len(found) == survey.decoys:
            break
        scores = iou(one.isel(unit=places[unit])).values
        most = FAR * float(best["iou"].values[places[unit]])
        for other in _drawn(labels, survey.seed, f"decoy of {unit}"):
            if labels[other].casefold() != labels[unit].casefold() and scores[columns[places[other]]] <= most:
                found.append(Question(unit=unit, phrase=labels[other], origin="decoy"))
                break
    if labels and len(found) < survey.decoys:
        layer = str(one["layer"].values[0])
        warnings.warn(
            f"layer {layer} gets {len(found)} decoys, not {survey.decoys}: its other units have no label that these "
            "units do not share.",
            stacklevel=4,
        )
    return found


def _descriptions(questions: Iterable[Question], described: Mapping[str, str | None]) -> list[Question]:
    """A question on people's description of each unit that is asked about, where they found one."""
    units = [question.unit for question in questions if question.origin == "label"]
    if lacking := [unit for unit in units if unit not in described]:
        raise DissectError(
            f"{len(lacking)} units of this survey, such as {lacking[0]}, are not in the survey of descriptions: give "
            "it the same seed, units, layers and snapshot."
        )
    return [
        Question(unit=unit, phrase=text, origin="people") for unit in units if (text := described[unit]) is not None
    ]


def _drawn(names: Iterable[str], seed: int, what: str) -> list[str]:
    """The names, shuffled: the order of their digests with the seed and what they are drawn for."""
    return sorted(names, key=lambda name: digest(seed, what, name))


def digest(seed: int, *parts: str) -> bytes:
    """What a draw is by: the smallest digest wins."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode()).digest()
