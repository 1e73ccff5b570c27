"""Finds the images of a folder, and the mask of each.

Knows: suffixes, patterns of names, links, and the files that operating systems leave in folders.
Does not know: what is in an image or a mask.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import basename, join, split, splitext

from dissect_xr.errors import DissectError
from dissect_xr.probe.folder import same_name

SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
        ".ppm", ".tga", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""Suffixes of the files that are read as images, in lower case."""

LITTER = frozenset(
    {
        "__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "@eaDir",
        "#recycle", "@Recycle",
    }
)  # fmt: skip
"""What operating systems and network storage leave in folders, beside names that start with a dot."""

STEM = "{stem}"

SHOWN = 3
"""How many names a message gives as examples."""

Pair = tuple[str, str]
"""An image and its mask, as paths below their folders with / between the parts."""


@dataclass(frozen=True)
class Names:
    """How the files of images and masks are called, such as ``{stem}_leftImg8bit.png`` and ``{stem}_gtFine.png``."""

    image: str = STEM
    """a pattern without a suffix takes all suffixes of images"""
    mask: str = f"{STEM}.png"
    follow_links: bool = False
    """whether links to folders are followed"""

    def __post_init__(self) -> None:
        for field, pattern in (("image_name", self.image), ("mask_name", self.mask)):
            if pattern.count(STEM) != 1 or re.search(r"[/\\{}]", pattern.replace(STEM, "")):
                raise DissectError(
                    f"{field} '{pattern}': expected the name of a file with {STEM} in it once, such as "
                    f"{STEM}_gtFine_labelIds.png. Folders are those of the images."
                )

    def stem(self, name: str) -> str | None:
        """What an image's file name has in the place of ``{stem}``, None if it is not called like an image.

        >>> Names(image="{stem}_leftImg8bit.png").stem("aachen_000000_leftImg8bit.PNG")
        'aachen_000000'
        """
        without, suffix = splitext(same_name(name))
        suffixes, pattern = self._image
        found = pattern.fullmatch(without) if suffix.lower() in suffixes else None
        return found[1] if found else None

    def mask_of(self, image: str) -> str:
        """The path of the mask that belongs to an image."""
        folder, name = split(image)
        return join(folder, self.mask.replace(STEM, self.stem(name) or ""))

    @cached_property
    def _image(self) -> tuple[frozenset[str], re.Pattern[str]]:
        """The suffixes that the name of an image may have, and the pattern of the rest."""
        without, suffix = splitext(same_name(self.image))
        before, _, after = without.partition(STEM)
        pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", flags=re.DOTALL)
        return frozenset({suffix.lower()}) if suffix else SUFFIXES, pattern


def paired(images: Path, masks: Path, names: Names) -> tuple[list[Pair], tuple[str, ...]]:
    """Every image with its mask, in the order of the images' paths, and what a person should be told of other files.

    Where masks lie among the images, no mask is an image.

    Raises
    ------
    DissectError
        If there is no image, an image has no mask or may have several, or two images have one.
    """
    there = files_below(images, names.follow_links)
    candidates = [path for path in there if names.stem(basename(path)) is not None]
    called: dict[str, list[str]] = {}
    for path in files_below(masks, names.follow_links) if masks.is_dir() else ():
        called.setdefault(_key(path), []).append(path)
    found = {path: _mask(path, names, called, masks) for path in candidates}
    below = _below(images, masks)
    if below == ".":  # one folder for both
        among = {mask for path, mask in found.items() if mask not in (None, path)}
    else:
        among = {path for path in there if below and path.startswith(f"{below}/")}
    pairs = {path: mask for path, mask in found.items() if path not in among}
    if not pairs:
        raise DissectError(f"{images}: holds no image called like '{names.image}' ({', '.join(sorted(SUFFIXES))}).")
    _check(pairs, images, masks, names, called)
    others = [path for path in there if path not in pairs and path not in among]
    return [(path, mask) for path, mask in pairs.items() if mask], _passed_over(images, others)


def files_below(folder: Path, follow_links: bool = False) -> list[str]:
    """Paths of all files below a folder, in order, without hidden files and litter; broken links are among them."""
    root, seen, found = os.path.realpath(folder), set[str](), list[list[str]]()
    for at, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        seen.add(os.path.realpath(at))
        for name in [*folders]:
            path, real = join(at, name), os.path.realpath(join(at, name))
            outside = os.path.islink(path) and not f"{real}/".startswith(f"{root}/")
            if _is_litter(name) or real in seen or (os.path.islink(path) and not outside):
                folders.remove(name)  # what a link inside the folder leads to is found in its own place
            elif outside and not follow_links:
                raise DissectError(
                    f"{path}: is a link to a folder, {os.readlink(path)}, and its files would be left out. To follow "
                    "links in folders of your own, give `follow_links: true`; else remove the link."
                )
        above = Path(at).relative_to(folder).parts
        found += [[*above, name] for name in files if not _is_litter(name)]
    return ["/".join(parts) for parts in sorted(found)]


def _raise(error: OSError) -> None:
    raise DissectError(f"{error.filename}: cannot list the folder: {error.strerror}. Give the rights to read it.")


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _key(path: str) -> str:
    """The path in the form in which masks are looked up, whatever the case of their suffix."""
    without, suffix = splitext(same_name(path))
    return without + suffix.lower()


def _mask(image: str, names: Names, called: Mapping[str, Sequence[str]], masks: Path) -> str | None:
    """The path of the mask of an image, None if there is none."""
    wanted = names.mask_of(image)
    found = called.get(_key(wanted), [])
    if len(found) > 1 and wanted not in found:
        raise DissectError(f"{masks}: the mask of {image} may be {' or '.join(found)}. Remove the wrong one.")
    return wanted if wanted in found else next(iter(found), None)


def _below(images: Path, masks: Path) -> str | None:
    """Path of the mask folder below the image folder, "." if they are one, None if it lies elsewhere."""
    inner, outer = Path(os.path.realpath(masks)), Path(os.path.realpath(images))
    return inner.relative_to(outer).as_posix() if inner.is_relative_to(outer) else None


def _check(
    pairs: Mapping[str, str | None], images: Path, masks: Path, names: Names, called: Mapping[str, Sequence[str]]
) -> None:
    """Raise unless every image has a mask of its own."""
    missing = [path for path, mask in pairs.items() if mask is None]
    if missing:
        wanted, stem = names.mask_of(missing[0]), names.stem(basename(missing[0])) or ""
        begin = same_name(join(split(wanted)[0], stem))
        there = [path for paths in called.values() for path in paths]
        near = [basename(path) for path in there if same_name(path).startswith(begin)]
        hint = f"There is {', '.join(near[:SHOWN])}: if that is it, say how masks are called. " if near else ""
        raise DissectError(
            f"{masks / wanted}: the mask of {missing[0]} is missing, {len(missing)} of {len(pairs)} in all. {hint}"
            f"Masks are looked for as `mask_name: '{names.mask}'`, where {STEM} is what stands for it in the image's "
            f"name, `image_name: '{names.image}'`. Add the masks, or move the images out of the folder."
        )
    owners, is_one_folder = dict[str, str](), _below(images, masks) == "."
    for image, mask in pairs.items():
        if image == mask and is_one_folder:
            raise DissectError(
                f"{images / image}: would be its own mask. Say how images and masks are called: `image_name`, "
                "`mask_name`; or give the masks a folder of their own."
            )
        if (other := owners.setdefault(str(mask), image)) != image:
            raise DissectError(
                f"{masks / str(mask)}: is the mask of {other} and of {image}. If one of the two is no image of the "
                f"probe, say how images are called, such as `image_name: '{STEM}{splitext(other)[1]}'`."
            )


def _passed_over(folder: Path, others: Sequence[str]) -> tuple[str, ...]:
    """How many files of which suffix are not read as images."""
    if not others:
        return ()
    suffixes: dict[str, list[str]] = {}
    for path in others:
        suffixes.setdefault(splitext(path)[1].lower() or "without a suffix", []).append(path)
    parts = [
        f"{len(paths)} {suffix} ({', '.join(paths[:SHOWN])}{', ...' if len(paths) > SHOWN else ''})"
        for suffix, paths in sorted(suffixes.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return (f"{folder}: {len(others)} files are not read as images: {'; '.join(parts)}.",)
