"""Finds the images that several label sets have, by their bytes.

Knows: files, and that most of them need not be read to know that they differ.
Does not know: label sets, or what is in an image.

Two files are the same image if all their bytes are equal. To find those among 100,000 without reading all, files are
told apart first by their size, then by their first 4 KiB, and only those that are still alike are read in full. A file
that two sets name by one path is one file, and is not read.
"""

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

HEAD = 4096
"""How many bytes at its start tell most files apart."""

Place = tuple[int, int]
"""(label set, image in it), both counted from 0"""


def same_images(files: Sequence[Sequence[Path | None]]) -> list[list[Place]]:
    """The images of several label sets, each as its places in them, in the order of their first places.

    Where a set has an image twice, its first is that of the other sets' first, its second that of their second.

    Parameters
    ----------
    files
        The file of every image of every set; None, or a file that cannot be read, is the same as no other one.
    """
    found = [(os.path.realpath(path), (n, m)) for n, paths in enumerate(files) for m, path in enumerate(paths) if path]
    places: dict[str, list[Place]] = {}
    for path, place in found:
        places.setdefault(path, []).append(place)
    alike: dict[Hashable, list[str]] = {(): list(places)}
    for key in (_size, _head, _digest):
        alike = _told_apart(alike, key, places)
    images = dict[Place, list[Place]]()
    for paths in alike.values():
        for together in _by_turns(sorted(place for path in paths for place in places[path])):
            images[together[0]] = together
    grouped = {place for together in images.values() for place in together}
    for n, paths_of_set in enumerate(files):
        for m in range(len(paths_of_set)):
            if (n, m) not in grouped:
                images[n, m] = [(n, m)]
    return [images[place] for place in sorted(images)]


def _told_apart(
    alike: dict[Hashable, list[str]], key: Callable[[str], Hashable], places: dict[str, list[Place]]
) -> dict[Hashable, list[str]]:
    """The groups of files, divided by a key; files of which only one set has any like it are not read again."""
    divided: dict[Hashable, list[str]] = {}
    for above, paths in alike.items():
        several = len({place[0] for path in paths for place in places[path]}) > 1
        for path in paths:
            value = key(path) if several and len(paths) > 1 else path
            divided.setdefault((above, path if value is None else value), []).append(path)
    return divided


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # a file that cannot be read is named when it is decoded
        return None


def _head(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return None


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _by_turns(places: Iterable[Place]) -> list[list[Place]]:
    """The first places of each label set together, then the second ones, and so on.

    >>> _by_turns([(0, 3), (0, 5), (1, 2)])
    [[(0, 3), (1, 2)], [(0, 5)]]
    """
    seen: dict[int, int] = {}
    turns: list[list[Place]] = []
    for place in places:
        turn = seen[place[0]] = seen.get(place[0], -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(place)
    return turns
