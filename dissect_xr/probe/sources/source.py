"""The label maps of one label set: how they are read, and what their numbers mean in the probe.

Knows: decoding and drawing, segments, numbers that are no concepts, and the numbers that a merged set gives.
Does not know: the label grid, the image below the label maps (`block`), stores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect_xr.probe.faults import Fault
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.label_set import Decode, Draw, LabelSet, Part, Row
from dissect_xr.probe.orientation import Orientation
from dissect_xr.probe.sources.numbers import Numbers, Renumbering

NAMED = 5
"""How many unknown numbers of a label map a message names."""

Map = tuple[int, Path, NDArray[np.uint16]]
"""plane, file, labels"""


@dataclass(frozen=True)
class Source:
    """Where the labels of a probe come from: the label set itself, or one of those that it was merged from."""

    maps: Folder
    """the label map paths are relative to it"""
    planes: int
    """label maps that an image can have, without that of colours"""
    decode: Decode
    draw: Draw | None
    concepts: Numbers
    ignored: Numbers
    """may occur in maps but mean no label"""
    void: Numbers
    """mean an ignored pixel"""
    orientation: Orientation | None
    """which form of an image its label maps follow; None leaves it to their sizes"""
    offset: int
    """what was added to the numbers in the files of label maps"""
    mend: str
    """what a message says to do about a number that is no concept"""
    own: Numbers
    """numbers in the probe of the concepts that images are verified for one by one"""
    reach: Mapping[str, Sequence[str]]
    """category -> names of the domains that an image with a label of it is annotated for"""
    renumbered: Renumbering | None = None
    """number in its label maps -> number in the probe, if they differ"""

    def in_probe(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Numbers of its concepts as they are in the probe, 0 for those that the probe does not have."""
        return tuple(self.renumbered(np.array(numbers, np.int64)).tolist()) if self.renumbered else tuple(numbers)


def sources_of(label_set: LabelSet) -> tuple[Source, ...]:
    """Where the labels of a label set come from: one source, or one for each set that it was merged from."""
    return tuple(_of_part(part, label_set) for part in label_set.parts) or (_of_all(label_set),)


def _of_all(label_set: LabelSet) -> Source:
    parameters, domains = label_set.parameters, set(label_set.domains)
    return Source(
        maps=Folder(label_set.maps, label_set.follow_links),
        planes=len(label_set.planes) - label_set.colors,
        decode=label_set.decode,
        draw=label_set.draw,
        concepts=Numbers.of(c.number for c in label_set.concepts),
        ignored=Numbers.of(label_set.ignored),
        void=Numbers.of(label_set.void),
        orientation=label_set.orientation,
        offset=parameters.get("offset", 0),
        mend="Add it to the table of concepts, or, if it means no label, give `ignore: [{numbers}]`."
        if parameters.get("layout") == "masks"
        else "Add it to the table of labels, or correct the label map.",
        own=Numbers.of(c.number for c in label_set.concepts if c.own_domain),
        reach={category: (category,) for category in label_set.categories if category in domains},
    )


def _of_part(part: Part, merged: LabelSet) -> Source:
    labels, numbers = part.labels, dict(part.numbers)
    own = {numbers[concept.number] for concept in labels.concepts if concept.own_domain}
    by_category = set(numbers.values()) - own
    reach = dict[str, dict[str, None]]()
    for concept in merged.concepts:
        if concept.number in by_category or (merged.colors and concept.category == "color"):
            reach.setdefault(concept.category, {})[concept.domain] = None
    counted = {number: new for number, new in numbers.items() if number not in labels.ignored}
    void = next(iter(merged.void), 0)
    return replace(
        _of_all(labels),
        own=Numbers.of(own),
        reach={category: tuple(domains) for category, domains in reach.items()},
        renumbered=Renumbering.of(counted | dict.fromkeys(labels.void, void)),
    )


def source_maps(source: Source, row: Row, digest: Any) -> list[Map]:
    """The label maps of a row, with numbers of the probe; decodes its files and adds them to the digest.

    Raises
    ------
    Fault
        If one of them cannot be used, has another size than the row says, or holds a number that is no concept.
    """
    maps = list[Map]()
    for plane, name in row.maps:
        path = source.maps.path(name, row.where)
        decoded = source.decode(path)
        digest.update(path.read_bytes())
        for n, labels in enumerate(decoded if decoded.ndim == 3 else decoded[None]):
            if row.size is not None and labels.shape != row.size:
                raise Fault(
                    f"{path}: expected {row.size[0]} x {row.size[1]} (sh x sw of {row.where}), got "
                    f"{labels.shape[0]} x {labels.shape[1]} pixels.",
                    "label map: it has another size than the index says",
                    shared=True,
                )
            maps.append((plane + n, path, _of_segments(labels, row, path)))
    if row.shapes is not None and source.draw is not None:
        digest.update(row.shapes.encode())
        maps += [(plane, Path(row.where), labels) for plane, labels in _drawn(source.draw, row)]
    _check_numbers(source, maps)
    if source.renumbered is None:
        return maps
    return [(plane, path, source.renumbered(labels)) for plane, path, labels in maps]


def _drawn(draw: Draw, row: Row) -> Sequence[tuple[int, NDArray[np.uint16]]]:
    """What is drawn for a row; a fault names it."""
    try:
        return draw(row.shapes or "")
    except Fault as error:
        message = f"{row.where}: {error}"
        raise Fault(message, error.reason, shared=error.shared, numbers=error.numbers) from error


def _of_segments(labels: NDArray[np.uint16] | NDArray[np.uint32], row: Row, path: Path) -> NDArray[np.uint16]:
    """The concept numbers of a label map, which may hold numbers of the row's segments."""
    if not row.segments:
        return np.asarray(labels, np.uint16)
    segments, numbers = (np.array(column, np.int64) for column in zip(*row.segments, strict=True))
    at = np.searchsorted(segments, labels).clip(max=segments.size - 1)
    unknown = np.unique(labels[segments[at] != labels])
    if unknown.size:
        raise Fault(
            f"{path}: holds segment {unknown[0]}, one of {unknown.size} that {row.where} does not list. Replace the "
            "file by the label map of this image, or add them.",
            "label map: it holds segments that are not listed",
            shared=True,
        )
    return np.asarray(numbers[at], np.uint16)


def _check_numbers(source: Source, maps: Sequence[Map]) -> None:
    """Raise if a label map holds a number that is no concept, naming all that do not occur in the table."""
    allowed = source.concepts.mask | source.ignored.mask | source.void.mask
    allowed[0] = True
    unknown = {path: np.unique(labels[~allowed[labels]]) - source.offset for _, path, labels in maps}
    unknown = {path: numbers for path, numbers in unknown.items() if numbers.size}
    if not unknown:
        return
    first = next(iter(unknown))
    numbers = sorted({number for found in unknown.values() for number in found.tolist()})
    shown = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    raise Fault(
        f"{first}: holds label {unknown[first][0]}, which is no concept of the probe. "
        + source.mend.format(numbers=shown),
        "label map: it holds numbers that are no concepts",
        shared=True,
        numbers=numbers,
    )
