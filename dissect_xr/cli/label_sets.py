"""The label set that a recipe's `probe` describes.

Knows: the kinds of probes in recipes, and the function that reads each.
Does not know: formats, or how a label set becomes a store.
"""

from pathlib import Path

from dissect_xr import store
from dissect_xr.cli.fields.scenes import SceneProbe
from dissect_xr.cli.recipe import BrodenProbe, DigitsProbe, FilesProbe, MasksProbe, MergedProbe, SingleProbe
from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.masks import MaskFormat, read_masks
from dissect_xr.probe.sources.merge import merge_probes
from dissect_xr.probe.sources.synonyms import Synonyms, read_synonyms
from dissect_xr.store import objects


def label_set(part: SingleProbe | MergedProbe, out: str, *, show: bool) -> LabelSet:
    """The label set with the images that the recipe chooses of it; without colours.

    Composes the images of the built-in probe if they are missing.

    Parameters
    ----------
    part
        The recipe's `probe`.
    out
        The output directory.

    Raises
    ------
    DissectError
        If a file is missing or malformed, or something in the recipe contradicts the files.
    """
    found = _merged(part, out, show) if isinstance(part, MergedProbe) else _single(part, out, show)
    return found.subset(split=part.images.split, limit=part.images.limit)


def _merged(part: MergedProbe, out: str, show: bool) -> LabelSet:
    for name, one in part.probes.items():
        if one.colors:
            raise DissectError(
                f"probe.probes.{name}.colors: colours are computed for all images of a merged probe. Give `colors` to "
                "the merged probe, and leave it out here."
            )
    synonyms = read_synonyms(part.synonyms) if isinstance(part.synonyms, str) else Synonyms.of(part.synonyms)
    label_sets = {name: label_set(one, out, show=show) for name, one in part.probes.items()}
    return merge_probes(label_sets, synonyms=synonyms, label_size=part.label_size).of_categories(part.categories)


def _single(part: SingleProbe, out: str, show: bool) -> LabelSet:
    if isinstance(part, DigitsProbe):
        return _digits(part, out, show)
    found = _read(part, out)
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
