"""The page of a checked probe, with its tables as CSV and a picture of each concept, in a folder that opens from disk.

Knows: which files there are, and how many rows a page shows.
Does not know: what is found in a probe (`probe.check`), or how a picture is drawn.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.exemplars.pictures import draw, read_picture
from dissect_xr.parallel.progress import track
from dissect_xr.probe.check.findings import KINDS, Concept, ProbeCheck
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.root import image_folder
from dissect_xr.report.pages import write_page

OURS = ("index.html", "concepts.csv", "findings.csv", "thumbnails", "static")
"""What a folder of such a page holds. A new one replaces them, and nothing else."""

SIDE = 96
"""Pixels of a picture."""

FINDINGS = 100
"""Findings of a kind on the page; all are in the table."""

SIZES = 8
"""Sizes of images on the page."""

WORDS = {"": "", "never": "no pixel", "rare": "too rare", "common": "too common"}


def write_check(check: ProbeCheck, folder: Path, *, pictures: int = 500, show: bool = True) -> Path:
    """Write the page of a checked probe into `folder` and return it. Reads the labels and images of the pictures.

    Parameters
    ----------
    folder
        Where to write; must hold nothing else. An earlier page is replaced.
    pictures
        How many concepts are shown with a picture, those of the largest shares; the others are in the table alone.

    Raises
    ------
    DissectError
        If the folder holds something else, or cannot be written, or an image is missing.
    """
    _prepare(folder)
    concepts = [
        [
            one.number, one.name, one.category, one.domain, one.images, one.pixels, repr(one.share), repr(one.ceiling),
            WORDS[one.state],
        ]
        for one in check.concepts
    ]  # fmt: skip
    header = ["number", "name", "category", "domain", "images", "pixels", "share", "ceiling", "finding"]
    _write_csv(folder / "concepts.csv", header, concepts)
    found = [[one.kind, one.subject, one.message] for one in check.findings]
    _write_csv(folder / "findings.csv", ["kind", "what", "message"], found)
    shown = check.concepts[: max(pictures, FINDINGS)]
    drawn = _draw(check, [one for one in check.concepts[:pictures] if one.example is not None], folder, show=show)
    groups = []
    for kind, title in KINDS.items():
        mine = [one for one in check.findings if one.kind == kind]
        groups += [{"title": title, "count": len(mine), "shown": mine[:FINDINGS]}] if mine else []
    sizes = list(check.sizes.items())
    values = {
        "check": check, "groups": groups, "shown": shown, "pictures": drawn, "side": SIDE, "words": WORDS,
        "sizes": sizes[:SIZES], "more_sizes": max(0, len(sizes) - SIZES),
    }  # fmt: skip
    write_page(folder / "index.html", "check.html", "", values)
    return folder / "index.html"


def _prepare(folder: Path) -> None:
    """Make the folder if it is missing, and delete an earlier page in it."""
    if folder.exists() and not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder to write the page to, found a file. Choose another.")
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - {*OURS})):
        raise DissectError(f"{folder}: holds {others[0]}, which is no part of such a page. Choose another folder.")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("thumbnails", "static"):
            (folder / name).mkdir(parents=True)
        style = files("dissect_xr.report") / "templates" / "static" / "report.css"
        (folder / "static" / "report.css").write_bytes(style.read_bytes())
    except OSError as error:
        raise DissectError(f"{folder}: cannot write there: {error}. Choose another folder.") from error


def _draw(check: ProbeCheck, concepts: Sequence[Concept], folder: Path, *, show: bool) -> set[int]:
    """Write a picture of each concept; the numbers of those that have one."""
    images, crop = image_folder(check.url), stored_crop(store.read_attrs(check.url)["parameters"])
    planes, whole = store.read(check.url, "annotation"), store.read(check.url, "whole_image")
    with track("pictures", len(concepts), show=show) as bar:
        for one in concepts:
            index = one.example or 0
            mask = (planes[index] == one.number).any(axis=0)
            mask = np.ones_like(mask) if (whole[index] == one.number).any() else mask
            pixels = read_picture(images, check.images[index], SIDE, crop=crop)
            picture = draw(pixels, mask, SIDE)
            Image.fromarray(picture).save(folder / "thumbnails" / f"{one.number}.jpg", quality=85)
            bar.advance(1)
    return {one.number for one in concepts}


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
