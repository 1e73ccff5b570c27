"""The label set that a reader returns: the categories that are kept, and the size of the label grid.

Knows: what categories mean for concepts, planes and label maps.
Does not know: formats.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.pairs import Pair

GRID = (112, 112)
"""Label grid of a set that has no label map to take its size from, as that of Broden for images of 224 pixels."""


def paired_rows(pairs: Iterable[Pair], images: Path) -> tuple[Row, ...]:
    """A row for each image and its label map; the first folder of the image's path is its split."""
    rows = []
    for image, labels in pairs:
        folders = Path(image).parts
        split = folders[0] if len(folders) > 1 else "all"
        rows.append(Row(image, split, ((0, labels),), (), None, str(images / image)))
    return tuple(rows)


def kept_categories(there: Sequence[str], asked: Sequence[str] | None, where: object) -> list[str]:
    """The categories of a set that are kept; `asked` of None keeps all.

    Raises
    ------
    DissectError
        If none is asked for, or one that is not in the set, which `where` names.
    """
    kept = list(asked) if asked is not None else list(there)
    if not kept:
        raise DissectError(f"categories: expected at least one of {where}: {list(there)}.")
    if unknown := [name for name in kept if name not in there]:
        raise DissectError(f"categories: {', '.join(unknown)} not in {where}; there are {list(there)}.")
    return kept


def with_wholes(concepts: Iterable[Concept]) -> tuple[Concept, ...]:
    """The concepts, ascending by number; one whose whole is not among them has none.

    >>> [c.parent for c in with_wholes([Concept(2, "eye", "part", parent=1), Concept(3, "arm", "part", parent=9),
    ...                                 Concept(1, "head", "part")])]
    [0, 1, 0]
    """
    there = sorted(concepts, key=lambda concept: concept.number)
    numbers = {concept.number for concept in there}
    return tuple(c if c.parent in numbers or not c.parent else replace(c, parent=0) for c in there)


def completed(
    found: LabelSet, *, categories: Sequence[str] | None, label_size: tuple[int, int] | None, where: object
) -> LabelSet:
    """The label set with some categories only, on a label grid of the size asked for, or of the first label map.

    Labels of the other categories may occur in label maps, and count as unlabelled. A plane belongs to one category,
    and those of other categories are not read.
    """
    kept = kept_categories(found.categories, categories, where)
    planes = [n for n, category in enumerate(found.planes) if category in kept]
    at = {plane: n for n, plane in enumerate(planes)}
    concepts = with_wholes(c for c in found.concepts if c.category in kept)
    numbers = {c.number for c in concepts}
    rows = tuple(
        replace(
            row,
            maps=tuple((at[plane], path) for plane, path in row.maps if plane in at),
            whole=tuple(number for number in row.whole if number in numbers),
        )
        for row in found.rows
    )
    size = label_size or _first_size(replace(found, rows=rows)) or GRID
    return replace(
        found,
        rows=rows,
        concepts=concepts,
        categories=tuple(name for name in found.categories if name in kept),
        planes=tuple(found.planes[n] for n in planes),
        label_size=size,
        ignored=found.ignored | {c.number for c in found.concepts if c.number not in numbers},
        parameters=found.parameters | {"categories": kept, "label_size": list(size)},
    )


def _first_size(found: LabelSet) -> tuple[int, int] | None:
    """(rows, columns) of the first label map, None if there is none."""
    row = next((row for row in found.rows if row.maps), None)
    if row is None:
        return None
    labels = found.decode(Folder(found.maps, found.follow_links).path(row.maps[0][1], row.where))
    return labels.shape[-2], labels.shape[-1]
