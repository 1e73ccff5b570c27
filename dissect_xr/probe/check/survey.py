"""What is in the images and labels of a probe: sizes, unlabelled pixels, conflicts, copies, edges.

Knows: how a probe is read in image blocks, and what is counted of each image.
Does not know: what is suspicious (`findings`), or how it is shown.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.check.edges import Scores, borders, edge_scores
from dissect_xr.probe.crop import stored_crop
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import block_length
from dissect_xr.probe.orientation import ON_ITS_SIDE
from dissect_xr.probe.pixels import image_size, read_rgb
from dissect_xr.probe.root import image_folder

COMPUTED = "color"
"""The category whose labels are computed from pixels: every pixel has one, on every edge of the image."""


@dataclass(frozen=True)
class SurveyTask:
    """One image block."""

    url: str
    folder: Folder
    names: tuple[str, ...]
    start: int
    compared: tuple[int, ...]
    """indices of the images whose label maps are compared with their edges"""

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"check, images {self.names[0]} to {self.names[-1]} ({len(self.names)})"


@dataclass
class Survey:
    """What was found; that of several blocks can be added up."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(rows, columns) of image files -> how many"""
    digests: dict[int, str] = field(default_factory=dict)
    """image -> sha256 of its file"""
    pixels: int = 0
    """label pixels that are not ignored"""
    ignored: int = 0
    unlabelled: int = 0
    """label pixels without a label, of those that are not ignored"""
    labelled: Counter[str] = field(default_factory=Counter)
    """category -> pixels that have a label of it"""
    largest: dict[int, tuple[int, int]] = field(default_factory=dict)
    """concept number -> (pixels, image) of the image that has most of it, the first of several"""
    conflicts: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """two concepts of a category -> (pixels that have both, images)"""
    edges: dict[int, tuple[int, Scores]] = field(default_factory=dict)
    """image -> (border pixels, scores of its label maps)"""

    def add(self, other: "Survey") -> None:
        """Take over what was found in other images."""
        self.sizes += other.sizes
        self.digests |= other.digests
        self.pixels += other.pixels
        self.ignored += other.ignored
        self.unlabelled += other.unlabelled
        self.labelled += other.labelled
        self.edges |= other.edges
        for number, (pixels, image) in other.largest.items():
            mine = self.largest.get(number, (0, image))
            self.largest[number] = max(mine, (pixels, image), key=lambda found: (found[0], -found[1]))
        for pair, (pixels, images) in other.conflicts.items():
            before = self.conflicts.get(pair, (0, 0))
            self.conflicts[pair] = before[0] + pixels, before[1] + images


def survey_probe(url: str, *, edges: int, pool: Pool, show: bool) -> Survey:
    """What is in the images and labels of a probe. Reads every file, and decodes the `edges` images that are compared.

    Memory of a task: the labels of its images, and one decoded image.
    """
    names = store.read(url, "image")[:].tolist()
    folder, length = image_folder(url), block_length(len(names))
    compared = {round(n) for n in np.linspace(0, len(names) - 1, min(edges, len(names)))} if edges else set()
    tasks = [
        SurveyTask(
            url,
            folder.of(names[start : start + length]),
            tuple(names[start : start + length]),
            start,
            tuple(sorted(compared.intersection(range(start, start + length)))),
        )
        for start in range(0, len(names), length)
    ]
    found = Survey()
    with track("check", len(tasks), show=show) as bar:
        for task, one in run_blocks(pool, survey_block, tasks):
            found.add(one)
            bar.advance(len(task.names))
    return found


def survey_block(task: SurveyTask) -> Survey:
    """What is in the images and labels of one block."""
    found, stop = Survey(), task.start + len(task.names)
    tables = _Tables.of(task.url)
    planes, whole = (store.read(task.url, name)[task.start : stop] for name in ("annotation", "whole_image"))
    has_ignored = store.read_attrs(task.url).get("has_ignored", False)
    hidden = (
        store.read(task.url, "ignored")[task.start : stop] if has_ignored else np.zeros_like(planes[:, 0], np.bool_)
    )
    for n, name in enumerate(task.names):
        index = task.start + n
        found.digests[index] = _digest(task.folder, name)
        size = image_size(task.folder.path(name))
        found.sizes[size[::-1] if task.folder.orientation(name) >= ON_ITS_SIDE else size] += 1
        _count(found, index, planes[n], whole[n], hidden[n], tables)
        if index in task.compared and tables.drawn:
            drawn = planes[n, list(tables.drawn)]
            scores = edge_scores(_brightness(task, name, drawn.shape[-2:]), drawn)
            if scores is not None:
                found.edges[index] = int(borders(drawn).sum()), scores
    return found


@dataclass(frozen=True)
class _Tables:
    """Concepts and planes as arrays."""

    category: NDArray[np.int64]
    """(65536,) concept number -> index of its category, -1 for none"""
    categories: Sequence[str]
    computed: int
    """index of the category that is computed, -1 if there is none or no other"""
    drawn: Sequence[int]
    """planes that are not computed"""

    @classmethod
    def of(cls, url: str) -> "_Tables":
        categories = store.read(url, "category")[:].tolist()
        numbers, of_concepts = store.read(url, "concept")[:], store.read(url, "concept_category")[:].tolist()
        category = np.full(1 << 16, -1, np.int64)
        category[np.asarray(numbers, np.int64)] = [categories.index(name) for name in of_concepts]
        computed = categories.index(COMPUTED) if COMPUTED in categories and len(categories) > 1 else -1
        planes = store.read(url, "plane_category")[:].tolist()
        return cls(category, categories, computed, [n for n, name in enumerate(planes) if name != COMPUTED])


def _count(
    found: Survey,
    index: int,
    planes: NDArray[np.uint16],
    whole: NDArray[np.uint16],
    hidden: NDArray[np.bool_],
    tables: _Tables,
) -> None:
    """Add the labels of one image."""
    seen = ~hidden
    here = int(seen.sum())
    found.pixels += here
    found.ignored += int(hidden.sum())
    of_planes = tables.category[planes]
    of_whole = tables.category[whole]
    has_any = np.zeros_like(seen)
    for n, name in enumerate(tables.categories):
        has = np.full_like(seen, (of_whole == n).any()) | (of_planes == n).any(axis=0)
        found.labelled[name] += int((has & seen).sum())
        if n != tables.computed:
            has_any |= has
    found.unlabelled += int((seen & ~has_any).sum())
    numbers, pixels = np.unique(planes, return_counts=True)
    areas = dict(zip(numbers.tolist(), pixels.tolist(), strict=True)) | {int(number): here for number in whole}
    areas.pop(0, None)
    for number, area in areas.items():
        if area > found.largest.get(number, (0, 0))[0]:
            found.largest[number] = area, index
    for pair, count in _conflicts(planes, whole, here, tables.category):
        before = found.conflicts.get(pair, (0, 0))
        found.conflicts[pair] = before[0] + count, before[1] + 1


def _conflicts(
    planes: NDArray[np.uint16], whole: NDArray[np.uint16], here: int, category: NDArray[np.int64]
) -> Iterator[tuple[tuple[int, int], int]]:
    """Pairs of concepts of one category that an image has at the same pixels, lower number first, and how many."""
    counts: Counter[tuple[int, int]] = Counter()
    for later in range(1, len(planes)):
        for earlier in range(later):
            a, b = planes[earlier], planes[later]
            both = (a > 0) & (b > 0) & (category[a] == category[b])
            pairs, pixels = np.unique(np.sort(np.stack([a[both], b[both]]), axis=0), axis=1, return_counts=True)
            for one, two, count in zip(*pairs.tolist(), pixels.tolist(), strict=True):
                counts[one, two] += count
    present = [int(number) for number in whole if number]
    numbers, pixels = np.unique(planes[planes > 0], return_counts=True)
    for n, number in enumerate(present):
        for other, count in zip(numbers.tolist(), pixels.tolist(), strict=True):
            if category[other] == category[number]:
                counts[min(number, other), max(number, other)] += count
        for other in present[n + 1 :]:
            if category[other] == category[number]:
                counts[min(number, other), max(number, other)] += here
    yield from counts.items()


def _digest(folder: Folder, name: str) -> str:
    path = folder.path(name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DissectError(
            f"{path}: cannot be read ({error.strerror}), an image that the probe was made from. Put it back, or name "
            "the folder where the images are now in the recipe, and give `probe` again."
        ) from error


def _brightness(task: SurveyTask, name: str, grid: tuple[int, ...]) -> NDArray[np.float64]:
    """The brightness of an image, or of the part that the probe shows, on the label grid."""
    image = read_rgb(task.folder.path(name), orientation=task.folder.orientation(name)).convert("L")
    crop = stored_crop(store.read_attrs(task.url)["parameters"])
    if crop is not None:
        image = crop.cut(image, name)
    return np.asarray(image.resize((grid[1], grid[0]), Image.Resampling.BOX), np.float64)
