"""Writes a survey of a run: its key into the run directory, and the page for the raters.

Knows: in which order they are written, and where.
Does not know: what is asked (`questions`), or how the page looks (`page`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.report.source import Source
from dissect_xr.store import objects
from dissect_xr.survey.key import FOLDER, Key, write_key
from dissect_xr.survey.page import write_page
from dissect_xr.survey.questions import Survey, dissection_fingerprint, make_key
from dissect_xr.survey.table import people_descriptions


def write_survey(
    out: store.Url,
    survey: Survey | None = None,
    *,
    descriptions: xr.Dataset | None = None,
    to: str | Path | None = None,
    show: bool = True,
) -> Path:
    """Write the page of a survey and return its path. Computes and writes; the same options give the same bytes.

    One layer's counts are in memory at a time, and the maps of a chunk of units in some images.

    Parameters
    ----------
    out
        Run directory with `dissection.zarr`, `activations.zarr`, `probe.zarr` and the probe's images.
    survey
        What to ask about which units; None is ``Survey()``.
    descriptions
        Answers of a survey of descriptions (:func:`read_survey`). For each unit that most of its raters found a
        common thing in, one description is drawn and asked about beside the unit's label.
    to
        The HTML file; None is ``survey/survey-<fingerprint>.html`` in the run directory.
    show
        Whether to draw a progress bar.

    Raises
    ------
    DissectError
        If something that was asked for is not there, pictures cannot be made, or a file cannot be written.
    """
    return write_planned(out, plan_survey(out, survey, descriptions=descriptions, to=to), show=show)


@dataclass(frozen=True)
class Plan:
    """A survey that is to be written."""

    key: Key
    page: Path


def plan_survey(
    out: store.Url,
    survey: Survey | None = None,
    *,
    descriptions: xr.Dataset | None = None,
    to: str | Path | None = None,
) -> Plan:
    """What `write_survey` writes; reads counts, writes nothing."""
    out, survey = store.as_url(out), survey or Survey()
    source = Source(out, survey.fraction)
    if descriptions is None:
        key = make_key(source, survey)
    else:
        key = make_key(source, survey, described=people_descriptions(descriptions, seed=survey.seed))
        _check_descriptions(source, key, descriptions)
    if to is None and not objects.is_local(out):
        raise DissectError(f"{out}: the page of a survey is a local file. Name one: --to FILE.")
    return Plan(key, Path(out, FOLDER, f"{key.name}.html") if to is None else Path(to).expanduser())


def _check_descriptions(source: Source, key: Key, descriptions: xr.Dataset) -> None:
    """Raise unless the descriptions are of what the survey shows: units of other snapshots have the same names."""
    if key.ask != "phrase":
        raise DissectError("descriptions are asked about in a survey of phrases: leave out ask='description'.")
    for name, now in (("snapshot", key.snapshot), ("fraction", key.fraction)):
        if descriptions.attrs[name] != now:
            raise DissectError(
                f"the descriptions are of the {name} {descriptions.attrs[name]}, the survey is of {now}: give it the "
                f"same {name}."
            )
    layers = descriptions.attrs["layers"]
    made = dissection_fingerprint(source, key.snapshot, layers)
    if made != descriptions.attrs["dissection_sha256"]:
        raise DissectError(f"{source.out}: the descriptions are of another dissection. Ask for new ones.")


def write_planned(out: store.Url, plan: Plan, *, show: bool = True) -> Path:
    """Write a planned survey and return the path of its page."""
    out = store.as_url(out)
    write_key(out, plan.key)  # first: a page without its key would collect answers that nobody can read
    write_page(Source(out, plan.key.fraction), plan.key, plan.page, show=show)
    return plan.page
