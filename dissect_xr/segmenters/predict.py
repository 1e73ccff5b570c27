"""Writes the label maps that a segmenter gives to images: one PNG file an image, in tasks for GPUs.

Knows: where predicted label maps lie, which blocks there are, and what of them is finished.
Does not know: the form of a model's output (`outputs`), or how a probe reads label maps (`label_set`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dissect_xr import store
from dissect_xr.activations.images import to_input
from dissect_xr.activations.recording.threads import autocast, torch_threads
from dissect_xr.activations.sources import cached, device_of, seeded
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import block_length
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.pixels import stored_rgb, turned
from dissect_xr.segmenters.outputs import check_classes, label_map, output_of
from dissect_xr.segmenters.predicted_maps import MAPS, fingerprint_of, map_name
from dissect_xr.segmenters.segmenter import LONGEST, Segmenter
from dissect_xr.store import objects


@dataclass(frozen=True)
class PredictTask:
    """One image block."""

    url: str
    segmenter: Segmenter
    folder: Folder
    images: tuple[str, ...]
    start: int
    fingerprint: str

    @property
    def key(self) -> str:
        """Key of the block's marker."""
        return f"blocks/{self.start}-{self.start + len(self.images)}"

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"predicted labels, images {self.images[0]} to {self.images[-1]} ({len(self.images)})"


def predict(
    images: LabelSet, segmenter: Segmenter, url: store.Url, *, pool: Pool | None = None, show: bool = True
) -> None:
    """Write the label map of every image of a label set, whose own labels do not matter; finished blocks are kept.

    Raises
    ------
    DissectError
        If the model cannot be loaded, its output has no known form, or its classes are not those of the table.
    """
    url, pool = store.as_url(url), pool or Threads()
    fingerprint = fingerprint_of(images, segmenter)
    done = store.marker(url, "done", fingerprint=fingerprint)
    marked = store.markers(url, "blocks")
    if done is not None and marked.issuperset(set(done["depends_on"]) - {"created"}):
        return
    if store.marker(url, "created", fingerprint=fingerprint) is None:
        write = store.lay_out if marked else store.create
        written = write(url, "", [], {"segmenter": segmenter.parameters})
        store.mark(url, "created", fingerprint=fingerprint, written=written)
    tasks = _tasks(images, segmenter, url, fingerprint)
    missing = [task for task in tasks if task.key not in marked]
    with track("predicted labels", len(images.rows), show=show and bool(missing)) as bar:
        bar.advance(len(images.rows) - sum(len(task.images) for task in missing))
        for task, _ in run_blocks(pool, predict_block, missing, gpu=segmenter.spec.gpus):
            bar.advance(len(task.images))
    store.mark(url, "done", fingerprint=fingerprint, written={}, depends_on=["created", *(task.key for task in tasks)])


def _tasks(images: LabelSet, segmenter: Segmenter, url: str, fingerprint: str) -> list[PredictTask]:
    names, length = [row.image for row in images.rows], block_length(len(images.rows))
    return [
        PredictTask(url, segmenter, images.folder, tuple(names[start : start + length]), start, fingerprint)
        for start in range(0, len(names), length)
    ]


def predict_block(task: PredictTask) -> None:
    """Write the label maps of one image block, and its marker; does nothing if the marker exists.

    Memory: a batch of images as stored and as the model sees them, what the model needs, and scores of some classes of
    one image.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    segmenter = task.segmenter
    device = device_of(segmenter.spec, segmenter.device)
    digest = hashlib.sha256()
    with (
        torch_threads(segmenter.threads),
        seeded(segmenter.seed(task.start), device),
        store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, note),
    ):
        for first in range(0, len(task.images), segmenter.batch):
            names = task.images[first : first + segmenter.batch]
            seen = [_seen(task, name, digest) for name in names]
            for name, labels in zip(names, _labelled(segmenter, seen, device, names), strict=True):
                key, content = f"{MAPS}/{map_name(name)}", _png(labels)
                objects.write(task.url, key, content)
                writer.add({key: (len(content), objects.checksum(content))})
        note["pixels_sha256"] = digest.hexdigest()


def _seen(task: PredictTask, name: str, digest: "hashlib._Hash") -> Image.Image:
    """An image in the form that the segmenter sees."""
    path = task.folder.path(name)
    stored, found = stored_rgb(path)
    digest.update(path.read_bytes())
    return turned(stored, found if task.segmenter.orientation == "displayed" else 1)


def _labelled(
    segmenter: Segmenter, images: Sequence[Image.Image], device: str, names: Sequence[str]
) -> list[NDArray[np.uint16]]:
    """The label maps of a batch, each in the proportions of its image."""
    height, width = segmenter.preprocess.size
    pixels = np.stack(
        [np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.uint8) for image in images]
    )
    model = cached(segmenter.spec, device).model
    try:
        with autocast(device, segmenter.autocast), torch.inference_mode():
            returned = model(to_input(segmenter.preprocess, pixels, device=device))
    except torch.OutOfMemoryError:
        raise DissectError(
            f"segmenter: a batch of {len(images)} images does not fit into the memory of {device}. Choose a smaller "
            "`batch`; finished blocks of another batch are not kept."
        ) from None
    output = output_of(returned, len(images))
    check_classes(output, segmenter)
    found = []
    for n, (image, name) in enumerate(zip(images, names, strict=True)):
        try:
            found.append(label_map(output, n, segmenter, grid_of((image.height, image.width))))
        except DissectError as error:
            raise DissectError(f"image {name}: {error}") from error
    return found


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the label map of an image of this size: its own, or one in its proportions.

    >>> grid_of((375, 500)), grid_of((3000, 4000)), grid_of((2, 4096))
    ((375, 500), (768, 1024), (1, 1024))
    """
    scale = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _png(labels: NDArray[np.uint16]) -> bytes:
    """A label map as a grey PNG, of 8 bits where they are enough."""
    file = BytesIO()
    Image.fromarray(labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels).save(file, "PNG")
    return file.getvalue()
