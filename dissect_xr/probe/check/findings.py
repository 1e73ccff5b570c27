"""What a person should look at in a probe before it is dissected, and the tables of its concepts and categories.

Knows: which share a concept needs to be found at a fraction, and from which scores label maps look displaced.
Does not know: how a probe is read (`survey`), or how findings are shown.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.probe.check.displaced import looks_displaced, of_all, of_one
from dissect_xr.probe.check.names import near_names
from dissect_xr.probe.check.survey import Survey, survey_probe
from dissect_xr.probe.ingest import open_probe
from dissect_xr.schema import CUTOFF, FRACTION

Kind = Literal["no label", "never", "rare", "common", "conflict", "names", "displaced", "copies", "leak"]

State = Literal["", "never", "rare", "common"]
"""What is wrong with the share of a concept."""

KINDS: Mapping[Kind, str] = {
    "leak": "the same image in two splits",
    "displaced": "label maps that do not lie on the edges of their images",
    "never": "concepts without a pixel",
    "rare": "concepts too rare for the fraction",
    "common": "concepts too common for the fraction",
    "conflict": "two labels of one category at a pixel",
    "names": "concepts of nearly the same name",
    "copies": "the same image twice in a split",
    "no label": "images without a label",
}
"""Kinds of findings and what they mean, the most serious first."""


@dataclass(frozen=True)
class Finding:
    """Something to look at."""

    kind: Kind
    subject: str
    """concepts or images"""
    message: str


@dataclass(frozen=True)
class Concept:
    """A concept as the table shows it."""

    number: int
    name: str
    category: str
    domain: str
    images: int
    pixels: int
    share: float
    """of the pixels of its domain; 0 where the domain has none"""
    ceiling: float
    """the highest IoU that a unit can have with it which is active in just the fraction of the domain's pixels"""
    state: State
    example: int | None
    """index of the image that has most of it"""


@dataclass(frozen=True)
class Category:
    """A category as the table shows it."""

    name: str
    images: int
    """annotated for it, or for one of its concepts that is a domain of its own"""
    labelled: float
    """share of all pixels that have a label of it"""


@dataclass(frozen=True)
class ProbeCheck:
    """All that was found in a probe."""

    url: str
    images: Sequence[str]
    splits: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    """(rows, columns) of image files -> how many, the most frequent first"""
    grid: tuple[int, int]
    fraction: float
    unlabelled: float
    """share of the pixels that are not ignored"""
    ignored: float
    """share of all pixels"""
    compared: int
    """images whose label maps were compared with their edges"""
    categories: Sequence[Category]
    concepts: Sequence[Concept]
    """by share, the largest first"""
    findings: Sequence[Finding]
    """the most serious first"""


def check_probe(
    url: store.Url, *, fraction: float = FRACTION, edges: int = 500, pool: Pool | None = None, show: bool = True
) -> ProbeCheck:
    """What is in a probe, and what looks wrong in it. Reads all labels and image files.

    Parameters
    ----------
    fraction
        The share of active pixels for which concepts are called too rare or too common.
    edges
        How many images, spread evenly, are decoded to compare their label maps with their edges; 0 for none.

    Raises
    ------
    DissectError
        If there is no finished probe, or an image is missing.
    """
    url = store.as_url(url)
    probe = open_probe(url)
    found = survey_probe(url, edges=edges, pool=pool or Threads(), show=show)
    names, splits = probe["image"].values.tolist(), probe["split"].values.tolist()
    concepts = _concepts(probe, found, fraction)
    total = found.pixels + found.ignored
    categories = [
        Category(name, _annotated(probe, name), found.labelled[name] / max(1, found.pixels))
        for name in probe["category"].values.tolist()
    ]
    findings = [
        *_of_copies(found, names, splits),
        *_of_edges(found, names),
        *_of_concepts(concepts, fraction),
        *_of_conflicts(found, concepts),
        *_of_names(concepts),
        *_without_label(probe["annotated"].any("domain").values, names),
    ]
    return ProbeCheck(
        url=url,
        images=names,
        splits=dict(Counter(splits)),
        sizes=dict(found.sizes.most_common()),
        grid=(probe.sizes["row"], probe.sizes["col"]),
        fraction=fraction,
        unlabelled=found.unlabelled / max(1, found.pixels),
        ignored=found.ignored / max(1, total),
        compared=len(found.edges),
        categories=categories,
        concepts=concepts,
        findings=sorted(findings, key=lambda one: list(KINDS).index(one.kind)),
    )


def _concepts(probe: xr.Dataset, found: Survey, fraction: float) -> list[Concept]:
    """All concepts by share, the largest first."""
    areas = dict(zip(probe["domain"].values.tolist(), probe["domain_area"].values.tolist(), strict=True))
    rows = zip(
        *(
            probe[name].values.tolist()
            for name in (
                "concept", "concept_name", "concept_category", "concept_domain", "concept_images", "concept_area"
            )
        ),
        strict=True,
    )  # fmt: skip
    concepts = []
    for number, name, category, domain, images, pixels in rows:
        share = pixels / areas[domain] if areas[domain] else 0.0
        highest = ceiling(share, fraction)
        state: State = "never" if not pixels else "" if highest >= CUTOFF else "rare" if share < fraction else "common"
        example = found.largest[number][1] if number in found.largest else None
        concepts.append(Concept(number, name, category, domain, images, pixels, share, highest, state, example))
    return sorted(concepts, key=lambda one: (-one.share, one.number))


def _annotated(probe: xr.Dataset, category: str) -> int:
    """How many images are annotated for a domain of this category."""
    mine = probe["concept_domain"].values[probe["concept_category"].values == category]
    return int(probe["annotated"].isel(domain=np.isin(probe["domain"].values, mine)).any("domain").sum())


def ceiling(share: float, fraction: float) -> float:
    """The highest IoU of a concept of this share with a unit that is active in this fraction of the pixels.

    The two overlap most where one lies in the other: ``min / max`` (docs/method.md, section 1.6).

    >>> ceiling(0.125, 0.005), ceiling(0.005, 0.005), ceiling(0.0, 0.005)
    (0.04, 1.0, 0.0)
    """
    return min(share, fraction) / max(share, fraction) if max(share, fraction) else 0.0


def _of_concepts(concepts: Sequence[Concept], fraction: float) -> Iterator[Finding]:
    for one in concepts:
        name = _called(one)
        if one.state == "never":
            yield Finding("never", name, f"{name} has no pixel: it stands in every table, and no unit can have it.")
        elif one.state:
            yield Finding(
                one.state,
                name,
                f"{name} covers {one.share:.3%} of its domain: a unit that is active in {fraction:.3g} of the pixels "
                f"reaches at most an IoU of {one.ceiling:.3f}, below the cutoff {CUTOFF}.",
            )


def _of_conflicts(found: Survey, concepts: Sequence[Concept]) -> Iterator[Finding]:
    """Pairs of concepts at the same pixels, those of most pixels first."""
    called = {one.number: one for one in concepts}
    for (a, b), (pixels, images) in sorted(found.conflicts.items(), key=lambda item: (-item[1][0], item[0])):
        names = f"{called[a].name} and {called[b].name} ({called[a].category})"
        yield Finding(
            "conflict", names, f"{names} are both at {pixels:,} pixels of {images} images: each counts there by itself."
        )


def _of_names(concepts: Sequence[Concept]) -> Iterator[Finding]:
    """Concepts of nearly the same name, in one category or in two."""
    ordered = sorted(concepts, key=lambda one: one.number)
    for a, b, why in near_names([one.name for one in ordered]):
        one, two = ordered[a], ordered[b]
        names = f"{_called(one)} and {_called(two)}"
        if one.category == two.category:
            yield Finding(
                "names", names, f"{names} are nearly the same name ({why}). If they mean one thing, merge them."
            )


def _of_copies(found: Survey, names: Sequence[str], splits: Sequence[str]) -> Iterator[Finding]:
    """Image files that are there more than once."""
    same: dict[str, list[int]] = {}
    for index, digest in sorted(found.digests.items()):
        same.setdefault(digest, []).append(index)
    for copies in same.values():
        if len(copies) < 2:
            continue
        where = ", ".join(f"{names[n]} ({splits[n]})" for n in copies[:5]) + (", ..." if len(copies) > 5 else "")
        if len({splits[n] for n in copies}) > 1:
            yield Finding(
                "leak", where, f"{where}: one image, in several splits. What is tested on it was trained on it."
            )
        else:
            yield Finding("copies", where, f"{where}: one image, which counts {len(copies)} times.")


def _of_edges(found: Survey, names: Sequence[str]) -> Iterator[Finding]:
    """Label maps that lie better on the edges once they are moved or turned: all together, then single ones."""
    scores = [one for _, one in found.edges.values()]
    together = of_all(scores)
    if together:
        yield Finding(
            "displaced",
            "all label maps",
            f"the label maps of the {len(scores)} images that were compared lie better on the edges of their images if "
            f"they are {together.what}: {together.scores}. Were they saved so by mistake?",
        )
    for index, (border, one) in sorted(found.edges.items()):
        alone = of_one(one)
        if looks_displaced(alone, border) and not (together and alone.what == together.what):
            yield Finding(
                "displaced",
                names[index],
                f"{names[index]}: its label map lies better on the edges of the image if it is {alone.what}: "
                f"{alone.scores}.",
            )


def _without_label(has_label: NDArray[np.bool_], names: Sequence[str]) -> Iterator[Finding]:
    without = [name for name, has in zip(names, has_label.tolist(), strict=True) if not has]
    if without:
        shown = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        yield Finding(
            "no label",
            shown,
            f"{len(without)} images have no label ({shown}): they are in no union, and their activations still move "
            "the thresholds.",
        )


def _called(one: Concept) -> str:
    """Name and category, as messages give them."""
    return f"{one.name} ({one.category})"
