"""The label set that a recipe's `probe` describes.

Knows: the kinds of probes in recipes, and the function that reads each.
Does not know: formats, or how a label set becomes a store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dissect_xr import store
from dissect_xr.cli.fields.scenes import SceneProbe
from dissect_xr.cli.recipe import (
    BrodenProbe,
    DigitsProbe,
    FilesProbe,
    LabelledProbe,
    MasksProbe,
    MergedProbe,
    SegmentedProbe,
    SingleProbe,
)
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool
from dissect_xr.probe.crop import Crop
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.masks import MaskFormat, read_masks
from dissect_xr.probe.sources.merge import merge_probes
from dissect_xr.probe.sources.synonyms import Synonyms, read_synonyms
from dissect_xr.segmenters.agreement import with_agreement
from dissect_xr.segmenters.label_set import predicted, predicted_url, unlabelled
from dissect_xr.store import objects


@dataclass(frozen=True)
class Stage:
    """Where label sets are made that need more than reading tables, and the processes for it."""

    out: str
    """the output directory"""
    show: bool
    pool: Pool | None = None
    """None: segmenters draw nothing yet, as in a dry run, and it is not known how well they agree with people"""
    probe: str = ""
    """the probe that the label set is for"""
    crop: Crop | None = None
    """the part of every image that is counted"""


def label_set(part: SingleProbe | MergedProbe, stage: Stage, name: str = "segmenter") -> LabelSet:
    """The label set with the images that the recipe chooses of it; without colours.

    Composes the images of the built-in probe, and lets segmenters draw, if that was not done yet.

    Parameters
    ----------
    part
        The recipe's `probe`.
    name
        Of the label set in a merged one.

    Raises
    ------
    DissectError
        If a file is missing or malformed, or something in the recipe contradicts the files.
    """
    if isinstance(part, SegmentedProbe):
        return _segmented(part, stage, name)
    found = _merged(part, stage) if isinstance(part, MergedProbe) else _labelled(part, stage)
    return found.subset(split=part.images.split, limit=part.images.limit)


def _merged(part: MergedProbe, stage: Stage) -> LabelSet:
    for name, one in part.probes.items():
        if one.colors:
            raise DissectError(
                f"probe.probes.{name}.colors: colours are computed for all images of a merged probe. Give `colors` to "
                "the merged probe, and leave it out here."
            )
    label_sets = {name: label_set(one, stage, name) for name, one in part.probes.items()}
    synonyms = _synonyms(part.synonyms)
    return merge_probes(label_sets, synonyms=synonyms, label_size=part.label_size).of_categories(part.categories)


def _synonyms(given: str | Mapping[str, Any]) -> Synonyms:
    return read_synonyms(given) if isinstance(given, str) else Synonyms.of(given)


def drawn_parts(part: SingleProbe | MergedProbe) -> dict[str, SegmentedProbe]:
    """The parts of a recipe's probe whose labels segmenters draw, by name."""
    parts = part.probes if isinstance(part, MergedProbe) else {"segmenter": part}
    return {name: one for name, one in parts.items() if isinstance(one, SegmentedProbe)}


def images_of(part: SegmentedProbe, stage: Stage) -> LabelSet:
    """The images that a segmenter labels, with the labels of people if there are any."""
    images = label_set(part.of, stage) if part.of is not None else unlabelled(part.image_folder or "")
    return images.subset(split=part.images.split, limit=part.images.limit)


def _segmented(part: SegmentedProbe, stage: Stage, name: str) -> LabelSet:
    """Images with predicted labels, and how well these agree with people's where both are there."""
    segmenter, images = part.segmenter.segmenter, images_of(part, stage)
    url = predicted_url(stage.out, name, images, segmenter)
    found = predicted(images, segmenter, url, label_size=part.label_size, categories=part.categories)
    if stage.pool is None:
        return found
    from dissect_xr.segmenters.predict import predict

    predict(images, segmenter, url, pool=stage.pool, show=stage.show)
    if part.of is None:
        return found
    synonyms = _synonyms(part.synonyms)
    compared = with_agreement(
        found.cropped(stage.crop), images, synonyms=synonyms, url=stage.probe, name=name, pool=stage.pool,
        show=stage.show,
    )  # fmt: skip
    return replace(found, concepts=compared.concepts)


def _labelled(part: LabelledProbe, stage: Stage) -> LabelSet:
    if isinstance(part, DigitsProbe):
        return _digits(part, stage.out, stage.show)
    found = _read(part, stage.out)
    found = found.following_links() if part.follow_links and not found.follow_links else found
    return found.oriented(part.orientation)


def _read(part: FilesProbe, out: str) -> LabelSet:
    """The label set of files, as the reader of their format gives it."""
    size, categories = part.label_size, part.categories
    match part:
        case BrodenProbe():
            return read_broden(part.folder, index=part.index, categories=categories, label_size=size, void=part.void)
        case SceneProbe():
            return part.read(out)
        case MasksProbe():
            return read_masks(
                images=part.image_folder,
                masks=part.mask_folder,
                concepts=part.concepts,
                label_size=size,
                ignore=part.ignore,
                categories=categories,
                format=MaskFormat(
                    part.image_name, part.mask_name, part.follow_links, part.offset, part.unlabelled, part.void
                ),
            )


def _digits(part: DigitsProbe, out: str, show: bool) -> LabelSet:
    """The built-in probe, whose images are composed if they are missing."""
    if part.folder is None and not objects.is_local(out):
        raise DissectError(f"probe.folder: give a local folder for the images, since {out} is not local.")
    from dissect_xr.probe.digits.write import write_digits

    folder = Path(part.folder or store.join(out, "digits"))
    if not (folder / "index.csv").exists():
        write_digits(folder, images=part.count, size=part.size, seed=part.seed, show=show)
    return read_broden(folder, categories=part.categories, label_size=part.label_size)
