"""Removes images that cannot be used from a label set, for runs with `skip_bad_images`.

Knows: how the files of a row are checked, which faults are faults of the whole set, and where the removed images are
recorded.
Does not know: how labels are stored (`ingest`). Removed images take part in no count and no threshold.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.block import Block, image_blocks, read_maps
from dissect_xr.probe.faults import Fault
from dissect_xr.probe.ingest import block_length, label_set_fingerprint
from dissect_xr.probe.label_set import LabelSet

KEY = "skipped"
"""Key of the marker that records the removed images."""

SHOWN = 3
"""How many images a message names of those with one fault."""

NUMBERS = 10
"""Up to how many unknown numbers are offered as numbers to ignore; more are no sign of unlabelled pixels."""


@dataclass(frozen=True)
class CheckTask:
    """One image block."""

    block: Block

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"check, images {self.block.rows[0].image} to {self.block.rows[-1].image}"


@dataclass(frozen=True)
class Bad:
    """An image that cannot be used."""

    image: str
    message: str
    reason: str
    """without names of files, so that equal ones can be counted"""
    shared: bool
    """whether it is a fault of the label set where most images have it"""
    numbers: tuple[int, ...]
    """numbers in its label maps that are no concepts, if they are all that is wrong"""


def without_bad_images(label_set: LabelSet, url: str, *, pool: Pool | None = None, show: bool = True) -> LabelSet:
    """The label set without the images that, or whose label maps, cannot be read; decodes every image once.

    The removed images and the reasons become a parameter of the label set, and are recorded in a marker of the probe at
    `url`, so that a resumed run removes the same images. The notes of the label set say how many there are, and why.

    Raises
    ------
    DissectError
        If no image is left, or most images have one fault that is not theirs but that of tables or parameters.
    """
    pool, fingerprint = pool or Threads(), label_set_fingerprint(label_set.check())
    # What was left out of an unfinished probe of another recipe does not matter.
    is_done = store.marker(url, "done") is not None
    found = store.marker(url, KEY, fingerprint=fingerprint if is_done else None)
    if found is None or found["fingerprint"] != fingerprint:
        tasks = [CheckTask(block) for block in image_blocks(label_set, block_length(len(label_set.rows)))]
        bad: list[Bad] = []
        with track("checking images", len(tasks), show=show) as bar:
            for task, found_bad in run_blocks(pool, check_block, tasks):
                bad += found_bad
                bar.advance(len(task.block.rows))
        bad.sort(key=lambda one: one.image)
        _check_not_shared(bad, label_set)
        note: dict[str, Any] = {KEY: [[one.image, one.message] for one in bad], "why": _why(bad, label_set)}
        store.mark(url, KEY, fingerprint=fingerprint, written={}, note=note)
    else:
        note = found["note"]
    names = {image for image, _ in note[KEY]}
    kept = tuple(row for row in label_set.rows if row.image not in names)
    return replace(
        label_set,
        rows=kept,
        parameters=label_set.parameters | {KEY: note[KEY]},
        notes=(*label_set.notes, *note["why"]),
    )


def check_block(task: CheckTask) -> list[Bad]:
    """Every image of the block that cannot be read, or whose label maps cannot be read."""
    block, bad = task.block, []
    for row in block.rows:
        try:
            read_maps(block, row, hashlib.sha256(), hashlib.sha256())
        except DissectError as error:
            message = str(error)
            for root in [*block.images.roots, *(source.maps.root for source in block.sources)]:
                # Where they lie is not recorded.
                message = message.replace(f"{Path(root).resolve()}/", "").replace(f"{root}/", "")
            fault = error if isinstance(error, Fault) else Fault(message, message)
            bad.append(Bad(row.image, message, fault.reason, fault.shared, fault.numbers))
    return bad


def _check_not_shared(bad: Sequence[Bad], label_set: LabelSet) -> None:
    """Raise if no image is left, or more than half of all images have one fault that is not theirs."""
    images = len(label_set.rows)
    for reason, mine in _grouped(bad):
        if mine[0].shared and 2 * len(mine) > images:
            raise DissectError(
                f"{len(mine)} of {images} images have one fault: {reason}{_numbers(mine)}. That is no fault of single "
                f"images, so they are not left out. The first of them: {mine[0].message}{_mend(mine, label_set)}"
            )
    if len(bad) == images:
        raise DissectError("\n".join(["no image of the probe can be used:", *_why(bad, label_set)]))


def _why(bad: Sequence[Bad], label_set: LabelSet) -> list[str]:
    """Lines that say how many images are left out, and for which reasons, the most frequent first."""
    if not bad:
        return []
    lines = [f"{len(bad)} of {len(label_set.rows)} images are left out (skip_bad_images):"]
    for reason, mine in _grouped(bad):
        names = ", ".join(one.image for one in mine[:SHOWN]) + (", ..." if len(mine) > SHOWN else "")
        lines.append(f"  {len(mine)}: {reason}{_numbers(mine)} ({names}).{_mend(mine, label_set)}")
    return lines


def _grouped(bad: Sequence[Bad]) -> list[tuple[str, list[Bad]]]:
    """The images of each reason, the most frequent reason first."""
    groups: dict[str, list[Bad]] = {}
    for one in bad:
        groups.setdefault(one.reason, []).append(one)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _numbers(bad: Sequence[Bad]) -> str:
    """The unknown numbers of label maps, each with the number of its images, the most frequent first."""
    counts: dict[int, int] = {}
    for one in bad:
        for number in one.numbers:
            counts[number] = counts.get(number, 0) + 1
    ordered = sorted(counts, key=lambda number: (-counts[number], number))
    shown = [f"{number} in {counts[number]}" for number in ordered[:NUMBERS]]
    return f": {', '.join(shown)}{', ...' if len(ordered) > NUMBERS else ''}" if shown else ""


def _mend(bad: Sequence[Bad], label_set: LabelSet) -> str:
    """What would mend a fault of numbers that are no concepts, where ignoring them would."""
    numbers = sorted({number for one in bad for number in one.numbers})
    if not 0 < len(numbers) <= NUMBERS or label_set.parameters.get("layout") != "masks":
        return ""
    ignore = sorted({*label_set.parameters["ignore"], *numbers})
    return f" If they mean no label, `ignore: {ignore}` mends all of them."
