"""The page of a survey: one HTML file that opens from disk, with its pictures, script and style in it.

Knows: Jinja, which pictures a question shows, and that a page must not tell which phrases are decoys.
Does not know: how questions are drawn, or what becomes of answers.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.top_images import exemplars
from dissect_xr.parallel.progress import track
from dissect_xr.report.pages import script_json, templates
from dissect_xr.report.source import Source
from dissect_xr.report.strips import jpeg, why_none
from dissect_xr.survey.key import Key, layer_of

KINDS = (
    "scene",
    "region or surface",
    "object",
    "object part",
    "texture or material",
    "simple elements or colors",
)
"""What a rater says that a unit is of (Zhou, Khosla, Lapedriza, Oliva, Torralba: Object detectors emerge in deep scene
CNNs, ICLR 2015)."""

NOTHING = "nothing in common"
"""The kind of a unit whose pictures a rater finds nothing common in."""

FORMAT = "dissect_xr survey answers 1"
"""What a file of answers says that it is."""

SCRIPTS = ("answers.js", "screens.js")


def write_page(source: Source, key: Key, path: Path, *, show: bool = True) -> None:
    """Write the page. Computes, and reads images: those of one chunk of units at a time.

    Raises
    ------
    DissectError
        If pictures cannot be made, with the reason, or the file cannot be written. Then there is none.
    """
    for layer in key.layers:
        at = f"{key.snapshot}/{layer}"
        if reason := why_none(source.stores, store.read_attrs(source.dissection, at), at):
            raise DissectError(
                f"{source.out}: the survey needs pictures of {at}, which are made from the run's activations, its "
                f"probe and the probe's images: {reason}."
            )
    units = _units(key)
    places = {unit: place for place, unit in enumerate(units)}
    script, style = (_inlined(names) for names in (SCRIPTS, ("survey.css",)))
    values: dict[str, Any] = {
        "script": script,
        "style": style,
        "script_hash": _csp_hash(script),
        "style_hash": _csp_hash(style),
        "ask": key.ask,
        "questions": len(key.questions),
        "kinds": KINDS,
        "nothing": NOTHING,
        "survey": script_json(_told(key, places)),
        "pictures": _pictures(source, key, units, show),
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(templates("survey").get_template("survey.html").generate(values))
        os.replace(partial, path)
    except OSError as error:
        raise DissectError(f"{path}: cannot write there: {error}. Name another file with --to.") from error
    finally:
        partial.unlink(missing_ok=True)


def _told(key: Key, places: dict[str, int]) -> dict[str, Any]:
    """What the page knows: for each question its phrase and pictures, but not whose phrase it is."""
    return {
        "format": FORMAT,
        "survey": key.fingerprint,
        "dissection": key.dissection,
        "ask": key.ask,
        "kinds": KINDS,
        "nothing": NOTHING,
        "questions": [{"phrase": one.phrase, "pictures": places[one.unit]} for one in key.questions],
    }


def _units(key: Key) -> list[str]:
    """The units that are shown, in the order in which `exemplars` gives them: by layer, then by channel."""
    units = {question.unit for question in key.questions}
    return sorted(units, key=lambda unit: (key.layers.index(layer_of(unit)), int(unit.rpartition("/")[2])))


def _pictures(source: Source, key: Key, units: list[str], show: bool) -> Iterator[str]:
    """JSON of each unit's pictures, as data URLs."""
    with track("survey", len(units), show=show) as bar:
        for layer in key.layers:
            one = source.layer(key.snapshot, layer)
            mine = [unit for unit in units if layer_of(unit) == layer]
            made = exemplars(one, source.stores, mine, k=key.images, size=key.pixels, crop=key.crop, show=False)
            for found in made:
                shown = _active(found)["picture"].values
                yield script_json([_data_url(picture) for picture in shown])
                bar.advance(len(shown))


def _active(found: xr.Dataset) -> xr.Dataset:
    """The pictures in which something is bright; all of them where in none is, since peaks can lie between pixels."""
    active = np.flatnonzero(found["active"].values > 0)
    return found.isel(rank=active) if active.size else found


def _data_url(picture: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode("ascii")


def _inlined(names: tuple[str, ...]) -> str:
    """Our own files of the folder `static`, one after the other, as they stand in the page."""
    folder = files("dissect_xr.survey") / "templates" / "static"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def _csp_hash(text: str) -> str:
    """How a content security policy names the one script or style that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
