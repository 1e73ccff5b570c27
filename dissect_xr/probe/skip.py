"""Removes images that cannot be read from a label set, for runs with `skip_bad_images`.

Knows: how the files of a row are checked, and where the removed images are recorded.
Does not know: how labels are stored (`ingest`). Removed images take part in no count and no threshold.
"""

import hashlib
from dataclasses import dataclass, replace

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.block import Block, image_blocks, read_maps
from dissect_xr.probe.ingest import block_length, label_set_fingerprint
from dissect_xr.probe.label_set import LabelSet

KEY = "skipped"
"""Key of the marker that records the removed images."""


@dataclass(frozen=True)
class CheckTask:
    """One image block."""

    block: Block

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"check, images {self.block.rows[0].image} to {self.block.rows[-1].image}"


def without_bad_images(label_set: LabelSet, url: str, *, pool: Pool | None = None, show: bool = True) -> LabelSet:
    """The label set without the images that, or whose label maps, cannot be read; decodes every image once.

    The removed images and the reasons become a parameter of the label set, and are recorded in a marker of the probe at
    `url`, so that a resumed run removes the same images.
    """
    pool, fingerprint = pool or Threads(), label_set_fingerprint(label_set.check())
    found = store.marker(url, KEY, fingerprint=fingerprint)
    if found is None:
        tasks = [CheckTask(block) for block in image_blocks(label_set, block_length(len(label_set.rows)))]
        bad: list[list[str]] = []
        with track("checking images", len(tasks), show=show) as bar:
            for task, found_bad in run_blocks(pool, check_block, tasks):
                bad += found_bad
                bar.advance(len(task.block.rows))
        store.mark(url, KEY, fingerprint=fingerprint, written={}, note={KEY: sorted(bad)})
    else:
        bad = found["note"][KEY]
    names = {image for image, _ in bad}
    kept = tuple(row for row in label_set.rows if row.image not in names)
    return replace(label_set, rows=kept, parameters=label_set.parameters | {KEY: sorted(bad)})


def check_block(task: CheckTask) -> list[list[str]]:
    """[image, reason] of every image of the block that cannot be read, or whose label maps cannot be read."""
    block, bad = task.block, []
    for row in block.rows:
        try:
            read_maps(block, row, hashlib.sha256(), hashlib.sha256())
        except DissectError as error:
            bad.append([row.image, str(error).replace(block.images, "").replace(block.maps, "")])
    return bad
