"""What a survey asked, as it is kept beside the run: its questions, with what the page does not tell the raters.

Knows: the fields of a key, its fingerprint, and where it lies: `survey/survey-<fingerprint>.json` in the run directory.
Does not know: how questions are drawn, pictures, answers.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.store import objects

Ask = Literal["phrase", "description"]
"""Whether a phrase describes a unit, yes or no; or a description in the rater's words, and its kind."""

Origin = Literal["label", "people", "decoy", "rater"]
"""Whose phrase it is: the unit's label, a person's description, another unit's label, or still to be given."""

FOLDER = "survey"
"""Folder of the run directory that keys and pages lie in."""


class Strict(BaseModel):
    """A record whose fields have exactly these names and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Question(Strict):
    """One question: the pictures of a unit, and a phrase."""

    unit: str
    phrase: str
    """"" where the rater gives one"""
    origin: Origin


class Key(Strict):
    """A survey."""

    version: Literal[1] = 1
    ask: Ask
    dissection: str
    """fingerprint of the layers' dissections"""
    snapshot: str
    layers: tuple[str, ...]
    """in the order of the model"""
    fraction: float
    seed: int
    images: int
    pixels: int
    """side of a picture"""
    crop: float | None
    described: bool
    """whether people's descriptions are asked about, too"""
    questions: tuple[Question, ...]
    """in the order in which they are asked; answers name them by their place"""

    @property
    def fingerprint(self) -> str:
        """sha256 of all of it."""
        return store.fingerprint(self.model_dump(mode="json"))

    @property
    def name(self) -> str:
        """Name of the key's and the page's file, without its ending."""
        return f"survey-{self.fingerprint[:12]}"


def layer_of(unit: str) -> str:
    """The layer of a unit.

    >>> layer_of("block/conv5/12")
    'block/conv5'
    """
    return unit.rpartition("/")[0]


def write_key(out: str, key: Key) -> None:
    """Write the key into the run directory; the same survey gives the same bytes."""
    text = json.dumps(key.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False)
    objects.write(store.join(out, FOLDER), f"{key.name}.json", text.encode())


def read_key(out: str, fingerprint: str, where: str) -> Key:
    """The key of the survey with this fingerprint; `where` is the file that names it.

    Raises
    ------
    DissectError
        If the run has no such survey, or its key was changed after it was written.
    """
    folder, name = store.join(out, FOLDER), f"survey-{fingerprint[:12]}"
    content = objects.read(folder, f"{name}.json")
    if content is None:
        known = [known for known in (keys(out)) if known != name]
        others = f"its surveys are {', '.join(known)}" if known else "it has none"
        raise DissectError(
            f"{where}: answers {name}, which is no survey of {out}: {others}. Name the run that the survey was made "
            "from, or make the survey again with its options, which gives the same one."
        )
    try:
        key = Key.model_validate_json(content)
    except ValidationError as error:
        raise DissectError(f"{folder}/{name}.json: {problems(error)}. Make the survey again.") from error
    if key.fingerprint != fingerprint:
        raise DissectError(
            f"{folder}/{name}.json: its fingerprint is {key.fingerprint}, the answers of {where} are to {fingerprint}. "
            "The file was changed after the survey was made: make the survey again with its options."
        )
    return key


def keys(out: str) -> list[str]:
    """Names of the run's surveys."""
    found = objects.sizes(out, f"{FOLDER}/")
    names = (re.fullmatch(rf"{FOLDER}/(survey-[0-9a-f]{{12}})\.json", name) for name in found)
    return sorted(match[1] for match in names if match)


def problems(error: ValidationError) -> str:
    """What is wrong with a record, field by field; up to five."""
    found = []
    for item in error.errors()[:5]:
        field = ".".join(str(part) for part in item["loc"]) or "the file"
        got = "" if item["type"] in ("missing", "extra_forbidden") else f", got {str(item['input'])[:60]!r}"
        found.append(f"{field}: {item['msg']}{got}")
    return "; ".join(found)
