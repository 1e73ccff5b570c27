"""The images of a plan that can be read, for those who would rather lose an image than stop.

Knows: how the files of a row are checked, and where it is recorded which were left out.
Does not know: how labels are stored (`ingest`): what is left out here is in no count and no threshold.
"""

import hashlib
from dataclasses import dataclass, replace

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.ingest import block_length, plan_fingerprint, read_maps
from dissect_xr.probe.label_set import ProbePlan

KEY = "skipped"
"""The marker that records which images are left out."""


@dataclass(frozen=True)
class CheckTask:
    """One image block."""

    plan: ProbePlan
    """with this block's rows only"""

    @property
    def what(self) -> str:
        """For messages."""
        return f"check, images {self.plan.rows[0].image} to {self.plan.rows[-1].image}"


def without_bad_images(plan: ProbePlan, url: str, *, pool: Pool | None = None, show: bool = True) -> ProbePlan:
    """The plan without the images that cannot be read, or whose label maps cannot; decodes every image once.

    Which are left out, and why, becomes part of the plan's parameters, and of a marker of the probe at `url`: a run
    that is taken up again leaves out the same ones.
    """
    pool, fingerprint = pool or Threads(), plan_fingerprint(plan.check())
    found = store.marker(url, KEY, fingerprint=fingerprint)
    if found is None:
        length = block_length(len(plan.rows))
        blocks = [plan.rows[i : i + length] for i in range(0, len(plan.rows), length)]
        bad: list[list[str]] = []
        with track("checking images", len(blocks), show=show) as bar:
            for task, wrong in run_blocks(pool, check_block, [CheckTask(replace(plan, rows=rows)) for rows in blocks]):
                bad += wrong
                bar.advance(len(task.plan.rows))
        store.mark(url, KEY, fingerprint=fingerprint, written={}, note={KEY: sorted(bad)})
    else:
        bad = found["note"][KEY]
    names = {image for image, _ in bad}
    kept = tuple(row for row in plan.rows if row.image not in names)
    return replace(plan, rows=kept, parameters=plan.parameters | {KEY: sorted(bad)})


def check_block(task: CheckTask) -> list[list[str]]:
    """[image, reason] of every image of the block that cannot be read."""
    bad = []
    for row in task.plan.rows:
        try:
            read_maps(task.plan, row, hashlib.sha256(), hashlib.sha256())
        except DissectError as error:
            bad.append([row.image, str(error).replace(task.plan.images, "").replace(task.plan.maps, "")])
    return bad
