"""The label set of predicted labels: images of another label set, with label maps that a segmenter draws.

Knows: which rows and concepts it has, and where its label maps will lie.
Does not know: how they are drawn (`predict`), or how well they fit (`agreement`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet, Row
from dissect_xr.probe.readers.completed import GRID, completed
from dissect_xr.probe.readers.masks import decode_mask
from dissect_xr.probe.readers.pairs import SUFFIXES, files_below
from dissect_xr.segmenters.predicted_maps import MAPS, fingerprint_of, map_name
from dissect_xr.segmenters.segmenter import Segmenter
from dissect_xr.store import objects
from dissect_xr.store.verify import PREDICTED


def unlabelled(image_folder: str | Path) -> LabelSet:
    """The images of a folder, without labels, in the order of their names; the first folder in a path is the split.

    Raises
    ------
    DissectError
        If there is no image.
    """
    folder = Path(image_folder)
    if not folder.is_dir():
        raise DissectError(f"{folder}: expected a folder of images, found none.")
    names = [name for name in files_below(folder) if Path(name).suffix.lower() in SUFFIXES]
    if not names:
        raise DissectError(f"{folder}: expected images, found none.")
    rows = tuple(
        Row(name, name.partition("/")[0] if "/" in name else "all", (), (), None, f"{folder}/{name}") for name in names
    )
    return LabelSet(str(folder), str(folder), rows, (), (), (), decode_mask, GRID)


def predicted_url(out: str, name: str, images: LabelSet, segmenter: Segmenter) -> str:
    """The store of a run's predicted labels: another segmenter, or other images, have another one.

    Raises
    ------
    DissectError
        If the run's output is not local: label maps are read as files.
    """
    if not objects.is_local(out):
        raise DissectError(f"{out}: predicted label maps are files. Name a local output directory.")
    return store.join(out, PREDICTED, f"{name}-{fingerprint_of(images, segmenter)[:12]}.zarr")


def predicted(
    images: LabelSet,
    segmenter: Segmenter,
    url: store.Url,
    *,
    label_size: tuple[int, int] | None = None,
    categories: Sequence[str] | None = None,
) -> LabelSet:
    """The label set of these images with the labels that `predict` draws into `url`. Reads no file.

    Its own concepts, label maps and colours do not matter, only which images there are.

    Parameters
    ----------
    label_size
        (rows, columns) of the label grid; None takes that of `images`.
    """
    rows = tuple(
        Row(row.image, row.split, ((0, map_name(row.image)),), (), None, f"predicted labels of {row.image}")
        for row in images.rows
    )
    found = LabelSet(
        images=images.images,
        maps=str(Path(store.as_url(url), MAPS)),
        rows=rows,
        concepts=tuple(replace(concept, label_source="predicted") for concept in segmenter.classes),
        categories=tuple(dict.fromkeys(concept.category for concept in segmenter.classes)),
        planes=(segmenter.classes[0].category,),
        decode=decode_mask,
        label_size=(0, 0),
        parameters={"layout": "predicted", "segmenter": segmenter.parameters},
        notes=images.notes,
    )
    size = label_size or images.label_size
    found = _of_categories(found, categories, size).oriented(segmenter.orientation)
    return found.following_links() if images.follow_links else found


def _of_categories(found: LabelSet, categories: Sequence[str] | None, size: tuple[int, int]) -> LabelSet:
    """The concepts of these categories; the plane holds labels of all, whatever its first class is."""
    whole = completed(found, categories=None, label_size=size, where="segmenter")
    return whole.of_categories(categories)
