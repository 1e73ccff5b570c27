"""The plan of the labels that segmenters draw.

Knows: how many images there are, and what a task holds in memory.
Does not know: models: what a model itself needs is not known without loading it.
"""

from collections.abc import Iterator

import numpy as np

from dissect_xr import store
from dissect_xr.cli.label_sets import Stage, drawn_parts, images_of
from dissect_xr.cli.plan.stage_plan import StagePlan
from dissect_xr.cli.run import Run
from dissect_xr.parallel.resources import Projection
from dissect_xr.probe.ingest import block_length
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.pixels import image_size
from dissect_xr.segmenters.label_set import predicted_url
from dissect_xr.segmenters.segmenter import LONGEST, Segmenter

LOOKED_AT = 16
"""Images whose sizes stand for those of all."""


def drawing_stages(run: Run) -> Iterator[StagePlan]:
    """The plan of each segmenter that has not drawn all labels yet."""
    stage = Stage(run.out, show=run.show)
    for name, part in drawn_parts(run.recipe.probe).items():
        images, segmenter = images_of(part, stage), part.segmenter.segmenter
        if store.marker(predicted_url(run.out, name, images, segmenter), "done") is None:
            yield _stage(run, name, images, segmenter)


def _stage(run: Run, name: str, images: LabelSet, segmenter: Segmenter) -> StagePlan:
    from dissect_xr.activations.recording.extraction import RESIDENT
    from dissect_xr.segmenters.outputs import TOGETHER

    number, (height, width) = len(images.rows), segmenter.preprocess.size
    blocks = -(-number // block_length(number))
    bytes_each = 1 if segmenter.classes[-1].number < 256 else 2
    memory = Projection(
        (
            ("process", RESIDENT),
            ("images of a batch", segmenter.batch * (height * width * (3 + 12) + 3 * LONGEST * LONGEST)),
            ("scores of some classes on an image", 6 * TOGETHER * LONGEST * LONGEST * 4),
        )
    )
    return StagePlan(f"labels {name}", blocks, number * _pixels(images) * bytes_each, number + blocks + 3, memory, 1)


def _pixels(images: LabelSet) -> int:
    """Pixels of a label map, the mean over some images; those that cannot be read are found later."""
    at = np.unique(np.linspace(0, len(images.rows) - 1, LOOKED_AT).astype(int))
    sizes = []
    for row in (images.rows[n] for n in at):
        try:
            height, width = image_size(images.folder.path(row.image, row.where))
        except Exception:  # whatever is wrong with an image is said when it is read
            continue
        scale = min(1.0, LONGEST / max(height, width))
        sizes.append(height * width * scale * scale)
    return int(np.mean(sizes)) if sizes else LONGEST * LONGEST
