"""By which EXIF orientation an image is turned before its label maps lie on it.

Knows: sizes of images and label maps, and what a person has said.
Does not know: files, or how pixels are turned (`pixels`).

A camera stores what its sensor sees, and says in the file how a viewer has to turn it. Whoever draws label maps by hand
sees the turned image; a program that reads pixels mostly sees the stored ones. The size of a label map tells the two
apart where the image is turned on its side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dissect_xr.probe.faults import Fault

Orientation = Literal["displayed", "stored"]
"""Which of an image's two forms its label maps follow."""

Size = tuple[int, int]
"""(rows, columns)"""

ON_ITS_SIDE = 5
"""The EXIF orientations from this one on exchange rows and columns."""


def orientation_of(
    path: Path, found: int, stored: Size, maps: Sequence[tuple[Path, Size]], asked: Orientation | None
) -> int:
    """The EXIF orientation that an image is turned by: `found`, that of its file, or 1.

    Parameters
    ----------
    path
        The image's name in messages.
    stored
        Size of the pixels as they are stored.
    maps
        The image's label maps with their sizes.
    asked
        What the recipe says; None leaves it to the sizes.

    Raises
    ------
    Fault
        If a label map has other proportions than the image, or fits both forms of it and `asked` is None.
    """
    displayed = stored[::-1] if found >= ON_ITS_SIDE else stored
    sizes = [size for _, size in maps]
    choices = {1: stored, found: displayed} if found != 1 else {1: stored}
    if asked is not None:
        choices = {1: stored} if asked == "stored" else {found: displayed}
    fitting = [one for one, size in choices.items() if all(fits(size, of_map) for of_map in sizes)]
    if len(fitting) > 1 and maps:  # sizes that are equal are no chance, proportions that nearly are may be one
        fitting = [one for one in fitting if all(of_map == choices[one] for of_map in sizes)] or fitting
    if not fitting:
        raise _of_other_proportions(path, choices, maps)
    if len(fitting) > 1:
        raise Fault(
            f"{path}: has the EXIF orientation {found}, and its label maps fit it as it is stored and as viewers "
            "display it. Say which of the two they follow: `orientation: stored` or `orientation: displayed` in the "
            "recipe's `probe`.",
            "it has an EXIF orientation, and nothing says whether its label maps follow it",
            shared=True,
        )
    return fitting[0]


def fits(image: Size, labels: Size) -> bool:
    """Whether an image and a label map have the same proportions, if each was rounded to whole pixels.

    A side of n pixels stands for anything between n - 1 and n + 1.

    >>> fits((375, 500), (187, 250)), fits((100, 67), (1000, 667)), fits((32, 32), (20, 64)), fits((32, 48), (48, 32))
    (True, True, False, False)
    """
    (height, width), (rows, cols) = image, labels
    taller = (rows - 1) * (width - 1) < (cols + 1) * (height + 1)
    wider = (cols - 1) * (height - 1) < (rows + 1) * (width + 1)
    return taller and wider


def _of_other_proportions(path: Path, choices: dict[int, Size], maps: Sequence[tuple[Path, Size]]) -> Fault:
    name, size = next(
        ((name, size) for name, size in maps if not any(fits(image, size) for image in choices.values())), maps[0]
    )
    forms = [
        f"{rows} x {cols}" + ("" if len(choices) == 1 and one == 1 else " as stored" if one == 1 else " as displayed")
        for one, (rows, cols) in choices.items()
    ]
    return Fault(
        f"{name}: {size[0]} x {size[1]} pixels, in other proportions than its image {path}, {' or '.join(forms)}. "
        "Replace it by the label map of this image, or cut the two alike.",
        "label map: it has other proportions than the image",
        shared=True,
    )
