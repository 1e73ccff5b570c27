"""Merges several label sets into one, as Broden was merged from five.

Knows: which concepts of several sets are one, in which domain a concept is then, and that an image may be in several.
Does not know: which files are the same image (`same_images`), how label maps are read (`source`), stores.

**A concept** is a name within a category. Concepts of one name and category are one, and so are those that the table of
synonyms makes one; `head` of the category `object` and `head` of the category `part` stay two.

**Domains.** An image is annotated only for what its own sets label. The set A labels cats and dogs as objects, the set
B cats and lamps; in an image of A, a lamp has no label, whether there is one or not. So the lamp's domain is
"object (B)", that of the dog is "object (A)", and that of the cat, which both label, is "object": the images with an
object in A's labels or in B's. Each set says by its own labels, in its own domains (docs/method.md, section 1.4),
which images it has annotated for what; a concept's domain is all the images that one of its sets has annotated for it.
Where one set verifies images for the concept alone, as LVIS does, the concept is a domain of its own, and images that
another set has annotated for its whole category are in it, too.

**An image in several sets**, by its bytes, is one image with the labels of all. A pixel that one of them ignores is
ignored. Its split is that of the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dissect_xr.errors import DissectError
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.label_set import LARGEST, Concept, LabelSet, LabelSource, Part, Row
from dissect_xr.probe.sources.same_images import Place, same_images
from dissect_xr.probe.sources.synonyms import Synonyms, Table

SHOWN = 3
"""How many names a note gives as examples."""

_Pair = tuple[str, str]
"""category and name"""


def merge_probes(
    label_sets: Mapping[str, LabelSet],
    *,
    synonyms: Table | Synonyms | None = None,
    label_size: tuple[int, int] | None = None,
) -> LabelSet:
    """The label set that holds all images and concepts of several. Reads no pixel, but files that may be one image.

    Concepts are numbered anew, from 1, in the order of the sets. Paths of images begin with the name of their set.

    Parameters
    ----------
    label_sets
        The sets by name. Colours are computed for the merged set, not for single ones.
    synonyms
        ``{category: {name: [another name, ...]}}``: concepts of these names are one, in all sets and within one.
    label_size
        (rows, columns) of the probe's label grid; None takes that of the sets, if it is one.

    Raises
    ------
    DissectError
        If there are no sets, one is merged itself or wrong in itself, or their label sizes differ.

    Examples
    --------
    >>> from dissect_xr.probe.readers.broden import decode_broden
    >>> def one(*names):
    ...     rows = (Row("a.png", "train", (), (1,), None, "line 2"),)
    ...     concepts = tuple(Concept(n, name, "object") for n, name in enumerate(names, 1))
    ...     return LabelSet(names[0], names[0], rows, concepts, ("object",), ("object",), decode_broden, (4, 4))
    >>> merged = merge_probes(
    ...     {"a": one("cat", "dog"), "b": one("lamp", "kitty")}, synonyms={"object": {"cat": ["kitty"]}}
    ... )
    >>> [(concept.name, concept.domain) for concept in merged.concepts]
    [('cat', 'object'), ('dog', 'object (a)'), ('lamp', 'object (b)')]
    >>> [row.image for row in merged.rows]
    ['a/a.png', 'b/a.png']
    """
    table = synonyms if isinstance(synonyms, Synonyms) else Synonyms.of(synonyms or {})
    _check(label_sets)
    size = label_size or _one_size(label_sets)
    merged = _vocabulary(label_sets, table)
    parts = tuple(
        Part(name, replace(one, rows=(), notes=()), tuple(merged.numbers(one, table)))
        for name, one in label_sets.items()
    )
    rows, notes = _rows(label_sets, parts)
    planes = max(([plane for n, _ in row.parts for plane in parts[n].labels.planes] for row in rows), key=len)
    return LabelSet(
        images="",
        maps="",
        rows=rows,
        concepts=merged.concepts,
        categories=tuple(dict.fromkeys(category for one in label_sets.values() for category in one.categories)),
        planes=tuple(planes),
        decode=no_map_of_its_own,
        label_size=size,
        void=frozenset({len(merged.concepts) + 1} if any(one.void for one in label_sets.values()) else ()),
        parts=parts,
        parameters={
            "layout": "merged",
            "sets": {name: one.parameters for name, one in label_sets.items()},
            "synonyms": table.table,
            "label_size": list(size),
        },
        notes=(
            *(f"{name}: {note}" for name, one in label_sets.items() for note in one.notes),
            *merged.notes,
            *notes,
        ),
    )


def no_map_of_its_own(path: Path) -> NDArray[np.uint16]:
    """A merged set has the label maps of its parts and none of its own; raises."""
    raise Fault(f"{path}: a merged label set has no label maps of its own.", "it has no label map")


def _check(label_sets: Mapping[str, LabelSet]) -> None:
    if not label_sets:
        raise DissectError("merge: expected at least one label set, got none.")
    for name, one in label_sets.items():
        if not name or name.startswith(".") or set(name) & set("/\\,()"):
            raise DissectError(
                f"merge: '{name}' cannot be the name of a label set, since it begins paths of images and is named in "
                "domains. Use letters, digits, - and _."
            )
        if one.parts or one.colors or one.crop:
            what = (
                "is merged itself: merge its parts" if one.parts else "has colours or a crop: give the merged set these"
            )
            raise DissectError(f"merge: the label set '{name}' {what}.")
        try:
            one.check()
        except DissectError as error:
            raise DissectError(f"{name}: {error}") from error


def _one_size(label_sets: Mapping[str, LabelSet]) -> tuple[int, int]:
    """The label size of all sets."""
    sizes = {one.label_size: name for name, one in label_sets.items()}
    if len(sizes) > 1:
        found = ", ".join(f"{name} {list(size)}" for size, name in sizes.items())
        raise DissectError(f"merge: the label sizes differ: {found}. Give `label_size` as [rows, columns].")
    return next(iter(sizes))


@dataclass(frozen=True)
class _Vocabulary:
    """The concepts of the merged set."""

    concepts: tuple[Concept, ...]
    notes: tuple[str, ...]

    def numbers(self, one: LabelSet, synonyms: Synonyms) -> list[tuple[int, int]]:
        """(number, number in the merged set) of each concept of a set."""
        known = {(concept.category, concept.name): concept.number for concept in self.concepts}
        return [(c.number, known[c.category, synonyms.name(c.category, c.name)]) for c in one.concepts]


def _vocabulary(label_sets: Mapping[str, LabelSet], synonyms: Synonyms) -> _Vocabulary:
    """The concepts of all sets, numbered from 1, each in the domain of the sets that have it."""
    members: dict[_Pair, list[tuple[str, Concept]]] = {}
    labelling: dict[str, dict[str, None]] = {}
    for name, one in label_sets.items():
        for concept in one.concepts:
            pair = (concept.category, synonyms.name(concept.category, concept.name))
            members.setdefault(pair, []).append((name, concept))
            if not concept.own_domain:
                labelling.setdefault(concept.category, {})[name] = None
    if len(members) >= LARGEST:
        raise DissectError(f"merge: {len(members):,} concepts in all, at most {LARGEST - 1:,} have numbers.")
    numbers = {pair: number for number, pair in enumerate(members, 1)}
    wholes = _wholes(label_sets, members, numbers, synonyms)
    concepts = []
    for pair, having in members.items():
        names, (category, called) = list(dict.fromkeys(name for name, _ in having)), pair
        own = any(concept.own_domain for _, concept in having)
        among = "" if own or names == list(labelling[category]) else ", ".join(names)
        whole = next(iter(wholes[pair]), 0) if len(wholes[pair]) == 1 else 0
        sources = {concept.label_source for _, concept in having}
        source: LabelSource = next(iter(sources)) if len(sources) == 1 else "mixed"
        agreements = [concept.agreement for _, concept in having]
        agreement = sum(both for both, _ in agreements), sum(either for _, either in agreements)
        concepts.append(
            Concept(numbers[pair], called, category, own, whole, among, label_source=source, agreement=agreement)
        )
    return _Vocabulary(tuple(concepts), (*_unused(synonyms, label_sets), *_of_several_wholes(wholes)))


def _wholes(
    label_sets: Mapping[str, LabelSet],
    members: Mapping[_Pair, Sequence[tuple[str, Concept]]],
    numbers: Mapping[_Pair, int],
    synonyms: Synonyms,
) -> dict[_Pair, list[int]]:
    """The numbers of the wholes that the sets say each concept is a part of."""
    of_set = {name: {concept.number: concept for concept in one.concepts} for name, one in label_sets.items()}
    found: dict[_Pair, list[int]] = {}
    for pair, having in members.items():
        parents = (of_set[name].get(concept.parent) for name, concept in having)
        pairs = ((one.category, synonyms.name(one.category, one.name)) for one in parents if one is not None)
        found[pair] = list(dict.fromkeys(numbers[one] for one in pairs))
    return found


def _of_several_wholes(wholes: Mapping[_Pair, Sequence[int]]) -> list[str]:
    several = [f"{category} {name}" for (category, name), numbers in wholes.items() if len(numbers) > 1]
    if not several:
        return []
    named = ", ".join(several[:SHOWN]) + (", ..." if len(several) > SHOWN else "")
    return [f"{len(several)} concepts are parts of different wholes in different sets, and have no parent: {named}."]


def _unused(synonyms: Synonyms, label_sets: Mapping[str, LabelSet]) -> list[str]:
    there = {(concept.category, concept.name) for one in label_sets.values() for concept in one.concepts}
    unused = [f"{category} {name}" for category, name in sorted(synonyms.standing) if (category, name) not in there]
    if not unused:
        return []
    named = ", ".join(unused[:SHOWN]) + (", ..." if len(unused) > SHOWN else "")
    return [f"synonyms: {len(unused)} of {len(synonyms.standing)} names are no concept of any set: {named}."]


def _rows(label_sets: Mapping[str, LabelSet], parts: Sequence[Part]) -> tuple[tuple[Row, ...], list[str]]:
    """One row for each image, and what a person should be told of images that several sets have."""
    sets = list(label_sets.values())
    images = same_images([[_file(one, row) for row in one.rows] for one in sets])
    names = [_Renamed.of(part) for part in parts]
    rows = tuple(_row(places, sets, parts, names) for places in images)
    shared = [row for row in rows if len(row.parts) > 1]
    splits = [row.image for row in shared if len({one.split for _, one in row.parts}) > 1]
    notes = [f"{len(shared)} images are in several sets: each is one, with the labels of all."] if shared else []
    if splits:
        named = ", ".join(splits[:SHOWN]) + (", ..." if len(splits) > SHOWN else "")
        notes.append(f"{len(splits)} of them are in different splits, and have that of their first set: {named}.")
    return rows, notes


def _file(one: LabelSet, row: Row) -> Path | None:
    """The file of an image, None where the row names none that may be read: that is said when it is decoded."""
    try:
        return one.folder.path(row.image, row.where)
    except Fault:
        return None


@dataclass(frozen=True)
class _Renamed:
    """The numbers that the concepts of a set have in the merged one."""

    numbers: Mapping[int, int]
    together: Mapping[int, frozenset[int]]
    """number in the merged set -> the set's own numbers for it, of concepts that it verifies images for one by one"""

    @classmethod
    def of(cls, part: Part) -> "_Renamed":
        numbers, together = dict(part.numbers), dict[int, set[int]]()
        for concept in part.labels.concepts:
            if concept.own_domain:
                together.setdefault(numbers[concept.number], set()).add(concept.number)
        return cls(numbers, {new: frozenset(old) for new, old in together.items()})

    def verified(self, row: Row) -> tuple[int, ...]:
        """The set's own numbers of what an image is verified for: of synonyms, only where it is so for all of them."""
        sure = set(row.verified)
        return tuple(n for n in row.verified if n in self.numbers and self.together.get(self.numbers[n], sure) <= sure)


def _row(places: Sequence[Place], sets: Sequence[LabelSet], parts: Sequence[Part], names: Sequence[_Renamed]) -> Row:
    """One image with its row in each set that has it."""
    mine = [(n, replace(sets[n].rows[m], verified=names[n].verified(sets[n].rows[m]))) for n, m in places]
    (first, row), whole = mine[0], list[int]()
    for n, one in mine:
        whole += [names[n].numbers[number] for number in one.whole if number in names[n].numbers]
    image = f"{parts[first].name}/{row.image}"
    return Row(image, row.split, (), tuple(dict.fromkeys(whole)), None, row.where, parts=tuple(mine))
