"""Label sets: the images, label maps, concepts and categories of a probe, before any pixel is read.

Knows: the record that every reader of a format returns, and how to take a subset of it.
Does not know: formats of label files, pixels, or stores.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.crop import Crop, stored_crop
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.orientation import Orientation
from dissect_xr.schema import LABEL_SIDE

Decode = Callable[[Path], NDArray[np.uint16] | NDArray[np.uint32]]
"""Reads one file as concept numbers (row, col), 0 = none; or (plane, row, col), for the plane it belongs to and those
behind it. Where a row has `segments`, as numbers of these. A top-level function, since it is sent to workers."""

Draw = Callable[[str], Sequence[tuple[int, NDArray[np.uint16]]]]
"""Draws the (plane, label map) pairs of an image from the text in `Row.shapes`. A top-level function, too."""

LabelSource = Literal["human", "predicted", "mixed"]
"""Who drew labels: people, a segmenter, or, in merged sets, each of them some."""

LARGEST = 65_535
"""Largest concept number: labels are stored as uint16."""


@cache
def _fields(record: type) -> tuple[Field[Any], ...]:
    """Fields of a dataclass. `asdict` copies every value, which took 50 us for each of 65,000 concepts."""
    return fields(record)


@dataclass(frozen=True)
class Concept:
    """One label."""

    number: int
    name: str
    category: str
    """primary category, in which the concept is compared with others (docs/method.md, section 3.2)"""
    own_domain: bool = False
    """whether images are verified for this concept alone, so that it is a domain (docs/method.md, section 1.4)"""
    parent: int = 0
    """number of the concept that it is a part of, 0 where there is none"""
    among: str = ""
    """names of the label sets that have it, of those in a merged set; empty if all have it that label its category"""
    label_source: LabelSource = "human"
    """who drew its labels"""
    agreement: tuple[int, int] = (0, 0)
    """label pixels that have both its predicted labels and people's, and those that have one of the two, in images that
    people annotated for it; zeros where there are none"""

    @property
    def domain(self) -> str:
        """Name of its domain.

        >>> Concept(3, "cat", "object").domain, Concept(3, "cat", "object", own_domain=True).domain
        ('object', 'object: cat')
        >>> Concept(3, "cat", "object", among="coco").domain
        'object (coco)'
        """
        if self.own_domain:
            return f"{self.category}: {self.name}"
        return f"{self.category} ({self.among})" if self.among else self.category

    @property
    def content(self) -> dict[str, Any]:
        """The fields for a fingerprint, without what only concepts of merged sets, or predicted ones, have."""
        rare = ("among", "label_source", "agreement")
        found = ((part, getattr(self, part.name)) for part in _fields(Concept))
        return {part.name: value for part, value in found if part.name not in rare or value != part.default}


@dataclass(frozen=True)
class Row:
    """One image and the files of its labels."""

    image: str
    """path relative to the image root"""
    split: str
    maps: tuple[tuple[int, str], ...]
    """(plane, path relative to the map root) of each label map"""
    whole: tuple[int, ...]
    """concept numbers of the whole image"""
    size: tuple[int, int] | None
    """(height, width) that its label maps must have; None if the source does not say"""
    where: str
    """file and line, for errors"""
    shapes: str | None = None
    """labels that are no files, such as polygons, as text that the label set's `draw` reads"""
    verified: tuple[int, ...] = ()
    """numbers of the concepts with a domain of their own that were looked for everywhere in the image"""
    segments: tuple[tuple[int, int], ...] = ()
    """(number in its label maps, number of the concept) of each segment, ascending, if its maps hold segments"""
    parts: tuple[tuple[int, "Row"], ...] = ()
    """(index among `LabelSet.parts`, the row there) of each label set that has the image, if the set is merged"""

    @property
    def content(self) -> dict[str, Any]:
        """The fields for a fingerprint, without `where`, and without what only rows of some formats have."""
        found = {part.name: getattr(self, part.name) for part in _fields(Row)}
        found |= {"where": "", "parts": [[n, row.content] for n, row in self.parts]}
        return {name: value for name, value in found.items() if value or name not in ("segments", "parts")}


@dataclass(frozen=True)
class Part:
    """One of the label sets that a merged one is made of."""

    name: str
    """the first folder in the paths of its images"""
    labels: "LabelSet"
    """without rows: those of the merged set hold them"""
    numbers: tuple[tuple[int, int], ...]
    """(number, number in the merged set) of each of its concepts"""


@dataclass(frozen=True)
class LabelSet:
    """Everything that determines a probe, except the pixels."""

    images: str
    """folder the image paths are relative to"""
    maps: str
    """folder the label map paths are relative to"""
    rows: tuple[Row, ...]
    concepts: tuple[Concept, ...]
    """ascending by number"""
    categories: tuple[str, ...]
    planes: tuple[str, ...]
    """category of each plane"""
    decode: Decode
    label_size: tuple[int, int]
    """(rows, columns) of the probe's label grid"""
    ignored: frozenset[int] = frozenset()
    """numbers that may occur in maps but mean no label: those of other categories, or what a person says"""
    void: frozenset[int] = frozenset()
    """numbers in maps that mean an ignored pixel, in no mask, no concept and no area"""
    draw: Draw | None = None
    """what draws the labels that are no files"""
    parts: tuple[Part, ...] = ()
    """the label sets that it is made of, if it is merged; their folders and functions then stand for its own"""
    colors: bool = False
    """whether the last plane holds colours computed from the pixels"""
    parameters: dict[str, Any] = field(default_factory=dict)
    """how the label set was made, as stored with the probe"""
    notes: tuple[str, ...] = ()
    """what a person should be told: files that were passed over, how a table was read, images that are left out"""

    def subset(self, *, split: str | Sequence[str] | None = None, limit: int | None = None) -> "LabelSet":
        """The label set with the rows of the given splits only, and of these the first `limit`."""
        rows = self.rows
        if split is not None:
            wanted = {split} if isinstance(split, str) else set(split)
            splits = Counter(row.split for row in rows)
            if missing := wanted - set(splits):
                raise DissectError(f"images: no split {sorted(missing)}; there are {dict(sorted(splits.items()))}.")
            rows = tuple(row for row in rows if row.split in wanted)
        if limit is not None:
            if limit < 1:
                raise DissectError(f"images: limit must be at least 1, got {limit}.")
            rows = rows[:limit]
        chosen = {"split": sorted(wanted) if split is not None else None, "limit": limit}
        return replace(self, rows=rows, parameters=self.parameters | {"images": chosen})

    def of_categories(self, names: Sequence[str] | None) -> "LabelSet":
        """The label set with the concepts of these categories only; labels of others mean none. None keeps all."""
        if names is None:
            return self
        if unknown := [name for name in names if name not in self.categories]:
            raise DissectError(f"categories: {', '.join(unknown)} not among them; there are {list(self.categories)}.")
        kept = [name for name in self.categories if name in names]
        if not kept:
            raise DissectError(f"categories: expected at least one of {list(self.categories)}.")
        found = self.without({concept.number for concept in self.concepts if concept.category not in kept})
        return replace(found, categories=tuple(kept), parameters=self.parameters | {"categories": kept})

    @property
    def is_predicted(self) -> bool:
        """Whether some of its labels are those of a segmenter."""
        return any(concept.label_source != "human" for concept in self.concepts)

    def without(self, numbers: Set[int]) -> "LabelSet":
        """The label set without the concepts of these numbers, which in its label maps then mean no label."""
        kept = (concept for concept in self.concepts if concept.number not in numbers)
        concepts = tuple(replace(one, parent=0) if one.parent in numbers else one for one in kept)
        return replace(self, concepts=concepts, ignored=self.ignored | numbers)

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains: the categories that are domains, in their order, then all others."""
        found = dict.fromkeys(concept.domain for concept in self.concepts)
        filled = {concept.category for concept in self.concepts}
        return (
            *(category for category in self.categories if category in found or category not in filled),
            *(name for name in found if name not in self.categories),
        )

    @property
    def folder(self) -> Folder:
        """Where its images lie."""
        return Folder(self.images, self.follow_links, within={part.name: part.labels.folder for part in self.parts})

    @property
    def content(self) -> dict[str, Any]:
        """The fields for a fingerprint, without folders and notes."""
        alone = replace(self, images="", maps="", rows=(), concepts=(), parts=(), notes=())
        found = asdict(alone) | {
            "rows": [row.content for row in self.rows],
            "concepts": [concept.content for concept in self.concepts],
            "decode": self.decode.__name__,
            "draw": None if self.draw is None else self.draw.__name__,
            "ignored": sorted(self.ignored),
            "void": sorted(self.void),
            "parts": [[part.name, part.labels.content, part.numbers] for part in self.parts],
        }
        del found["notes"]
        return {name: value for name, value in found.items() if value or name != "parts"}

    @property
    def crop(self) -> Crop | None:
        """The part of every image that the model sees, None for all of it."""
        return stored_crop(self.parameters)

    def cropped(self, crop: Crop | None) -> "LabelSet":
        """The label set for a model that sees only this part of every image: labels outside it are not counted."""
        return self if crop is None else replace(self, parameters=self.parameters | {"crop": crop.parameters})

    @property
    def follow_links(self) -> bool:
        """Whether links may lead out of the folders of images and label maps."""
        return bool(self.parameters.get("follow_links", False))

    def following_links(self) -> "LabelSet":
        """The label set of folders of one's own, in which links may lead anywhere."""
        return replace(self, parameters=self.parameters | {"follow_links": True})

    @property
    def orientation(self) -> Orientation | None:
        """Which form of an image that has an EXIF orientation its label maps follow; None leaves it to their sizes."""
        return self.parameters.get("orientation")

    def oriented(self, orientation: Orientation | None) -> "LabelSet":
        """The label set whose label maps follow the images as they are displayed, or as they are stored."""
        return replace(self, parameters=self.parameters | {"orientation": orientation}) if orientation else self

    def with_colors(self, names: Sequence[str]) -> "LabelSet":
        """The label set with a plane of colours; `names` become concepts, numbered after the largest number."""
        if "color" in self.categories:
            raise DissectError("colors: the probe already has a category 'color'. Leave out `colors`.")
        taken = [c.number for c in self.concepts] + list(self.ignored | self.void)
        first = max(taken, default=0) + 1
        if first + len(names) - 1 > LARGEST:
            raise DissectError(f"colors: need {len(names)} free numbers above {first - 1}, the largest is {LARGEST}.")
        concepts = tuple(Concept(first + n, f"{name}-c", "color") for n, name in enumerate(names))
        return replace(
            self,
            concepts=self.concepts + concepts,
            categories=(*self.categories, "color"),
            planes=(*self.planes, "color"),
            colors=True,
            parameters=self.parameters | {"colors": True},
        )

    def check(self) -> "LabelSet":
        """The label set itself; raises if it has no image or no concept, names one twice, or cannot be stored."""
        if not self.rows:
            raise DissectError("the probe would hold no image: expected at least one.")
        if not self.concepts:
            raise DissectError("the probe would hold no concept: expected at least one.")
        repeated = [name for name, n in Counter(row.image for row in self.rows).items() if n > 1]
        if repeated:
            raise DissectError(f"image '{repeated[0]}' is listed more than once: images must be distinct.")
        known: dict[tuple[str, str], int] = {}
        for concept in self.concepts:
            pair = concept.category, concept.name
            if pair in known:
                raise DissectError(
                    f"concepts {known[pair]} and {concept.number} are both called '{concept.name}' in the category "
                    f"'{concept.category}': results name concepts by these two. Rename one in the table of concepts, "
                    "or, if they mean the same, give both one number in the label maps."
                )
            known[pair] = concept.number
        if both := sorted(self.void.intersection(c.number for c in self.concepts)):
            raise DissectError(f"number {both[0]} cannot be both a concept and that of ignored pixels. Leave out one.")
        kinds = {category: (category, "", "") for category in self.categories}
        for concept in self.concepts:
            kind = (concept.category, concept.name if concept.own_domain else "", concept.among)
            if kinds.setdefault(concept.domain, kind) != kind:
                raise DissectError(f"two domains are called '{concept.domain}': rename the category or the concept.")
        if max(self.label_size) > LABEL_SIDE or min(self.label_size) < 1:
            raise DissectError(f"label_size {list(self.label_size)}: expected sides of 1 to {LABEL_SIDE:,} pixels.")
        return self
