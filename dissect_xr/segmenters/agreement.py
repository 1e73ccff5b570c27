"""How well predicted labels agree with those of people, concept by concept, where images have both.

Knows: which concepts of two label sets are one, and how their pixels are counted on the probe's grid.
Does not know: how labels were drawn, or where the numbers are shown.

An image counts for a concept if people annotated it for the concept's domain (docs/method.md, section 1.4); pixels that
one of the two ignores do not. The counts are sums over images of pixels that have both labels, and of those that have
one of the two; their quotient is the IoU of the labels, an upper bound of what a unit's IoU can mean.

An example: of four pixels, people call two a cat, the segmenter three, one of these is among the two. One pixel has
both labels, four have one of the two: the IoU of the labels is 1/4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.block import Block, image_blocks
from dissect_xr.probe.ingest import block_length, label_set_fingerprint
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.sources.concept_table import ConceptTable, GridLabels, labels_on_grid
from dissect_xr.probe.sources.synonyms import Synonyms

KEY = "agreement"
"""Key of the marker that records the counts."""

Counts = dict[int, tuple[int, int]]
"""number of a predicted concept -> (pixels with both labels, pixels with one of the two)"""


@dataclass(frozen=True)
class AgreementTask:
    """The same images of both label sets."""

    predicted: Block
    people: Block
    predicted_concepts: ConceptTable
    people_concepts: ConceptTable
    pairs: tuple[tuple[int, int], ...]
    """indices of one concept in the two"""

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"agreement of labels, images {self.people.rows[0].image} to {self.people.rows[-1].image}"


def with_agreement(
    predicted: LabelSet,
    people: LabelSet,
    *,
    synonyms: Synonyms | None = None,
    url: str | None = None,
    name: str = "",
    pool: Pool | None = None,
    show: bool = True,
) -> LabelSet:
    """The predicted label set with the agreement of each concept that people labelled, too; decodes those images.

    Parameters
    ----------
    people
        Images of the same folder with people's labels. Concepts of one category and name are one.
    synonyms
        Other names for concepts, as `merge_probes` takes them.
    url
        The probe that is made of it: the counts are recorded in a marker there, and a resumed run decodes nothing.
    name
        Of the segmenter, where the probe has several.

    Raises
    ------
    DissectError
        If the two have no image or no concept in common.
    BlocksFailed
        If images or label maps cannot be read.
    """
    names = {row.image: row for row in people.rows}
    common = [row for row in predicted.rows if row.image in names]
    pairs = _pairs(predicted, people, synonyms or Synonyms.of({}))
    if not common or not pairs:
        what = "image" if not common else "concept of one name and category"
        raise DissectError(f"agreement: the predicted labels and people's have no {what} in common. Leave it out.")
    people = replace(
        people, rows=tuple(names[row.image] for row in common), label_size=predicted.label_size,
        parameters={**people.parameters, "crop": predicted.parameters["crop"]} if predicted.crop else people.parameters,
    )  # fmt: skip
    of_both = replace(predicted, rows=tuple(common))
    fingerprint = store.fingerprint(
        {"predicted": label_set_fingerprint(of_both), "people": label_set_fingerprint(people), "pairs": pairs}
    )
    key = f"{KEY}-{name}" if name else KEY
    found = None if url is None else store.marker(url, key)
    if found is not None and found["fingerprint"] == fingerprint:
        counts: Counts = {number: (both, either) for number, both, either in found["note"][KEY]}
    else:
        counts = _counts(of_both, people, pairs, pool or Threads(), show)
        if url is not None:
            note = {KEY: [[number, *pair] for number, pair in counts.items()]}
            store.mark(url, key, fingerprint=fingerprint, written={}, note=note)
    return replace(
        predicted,
        concepts=tuple(replace(one, agreement=counts.get(one.number, (0, 0))) for one in predicted.concepts),
    )


def _pairs(predicted: LabelSet, people: LabelSet, synonyms: Synonyms) -> list[tuple[int, int]]:
    """Indices of the concepts that the two have in common."""
    at = {(one.category, synonyms.name(one.category, one.name)): n for n, one in enumerate(people.concepts)}
    named = [(one.category, synonyms.name(one.category, one.name)) for one in predicted.concepts]
    return [(n, at[name]) for n, name in enumerate(named) if name in at]


def _counts(predicted: LabelSet, people: LabelSet, pairs: Sequence[tuple[int, int]], pool: Pool, show: bool) -> Counts:
    length = block_length(len(predicted.rows))
    tables = ConceptTable.of_label_set(predicted), ConceptTable.of_label_set(people)
    tasks = [
        AgreementTask(mine, theirs, *tables, tuple(pairs))
        for mine, theirs in zip(image_blocks(predicted, length), image_blocks(people, length), strict=True)
    ]
    total = np.zeros((len(pairs), 2), np.int64)
    with track("agreement of labels", len(predicted.rows), show=show) as bar:
        for task, found in run_blocks(pool, count_agreement, tasks):
            total += np.array(found, np.int64).reshape(-1, 2)
            bar.advance(len(task.people.rows))
    numbers = [predicted.concepts[n].number for n, _ in pairs]
    return {number: (both, either) for number, (both, either) in zip(numbers, total.tolist(), strict=True)}


def count_agreement(task: AgreementTask) -> list[tuple[int, int]]:
    """(pixels with both labels, pixels with one of the two) of each pair, over the images of a block."""
    total = np.zeros((len(task.pairs), 2), np.int64)
    drawn_tables = task.predicted_concepts.tables(task.predicted)
    true_tables = task.people_concepts.tables(task.people)
    for mine, theirs in zip(task.predicted.rows, task.people.rows, strict=True):
        drawn = labels_on_grid(task.predicted, mine, drawn_tables)
        true = labels_on_grid(task.people, theirs, true_tables)
        if drawn.orientation != true.orientation:
            raise DissectError(
                f"{mine.image}: the segmenter saw it as it is displayed, and people's labels follow it as it is "
                "stored, or the other way round. Say `orientation: stored` or `displayed` for the segmenter."
            )
        seen = ~(drawn.found.ignored | true.found.ignored)
        for n, (predicted, people) in enumerate(task.pairs):
            if task.people_concepts.domain[people] not in true.found.domains:
                continue
            a = _mask(drawn, task.predicted_concepts.numbers[predicted]) & seen
            b = _mask(true, task.people_concepts.numbers[people]) & seen
            total[n] += int((a & b).sum()), int((a | b).sum())
    return [(int(both), int(either)) for both, either in total]


def _mask(labels: GridLabels, number: int) -> NDArray[np.bool_]:
    """(row, col) the pixels that have a concept."""
    if (labels.whole == number).any():
        return np.ones(labels.found.ignored.shape, np.bool_)
    return np.asarray((labels.planes == number).any(axis=0))
