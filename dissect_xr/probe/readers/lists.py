"""Reads text files of one entry a line: lists of images, names of classes.

Knows: lines, text encodings, and that an image belongs to one split only.
Does not know: what an entry stands for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.encoding import decoded


@dataclass(frozen=True)
class Entry:
    """One line of a text file, without spaces around it."""

    text: str
    where: str
    """file and line"""


def read_lines(path: Path, expected: str) -> list[Entry]:
    """The lines of a text file that are not empty; `expected` says in messages what the file should be.

    Raises
    ------
    DissectError
        If the file is missing, or no text.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DissectError(f"{path}: expected {expected}, found no file.") from error
    except OSError as error:
        raise DissectError(f"{path}: expected {expected}, cannot read it: {error}.") from error
    text, _ = decoded(content, path)
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [Entry(line, f"{path}, line {number}") for number, line in lines if line]


def numbered_names(path: Path, expected: str, separator: str = ":") -> dict[int, str]:
    """Number -> name of a list such as ``2: aeroplane``, in its order.

    Raises
    ------
    DissectError
        If a line is none of these, or a number is given twice.
    """
    found: dict[int, str] = {}
    for entry in read_lines(path, expected):
        number, middle, name = entry.text.partition(separator)
        if not middle or not number.strip().isdecimal() or not name.strip():
            raise DissectError(f"{entry.where}: expected a number, '{separator}' and a name, got '{entry.text}'.")
        if int(number) in found:
            raise DissectError(f"{entry.where}: number {int(number)} is given twice. Keep one of the two.")
        found[int(number)] = name.strip()
    return found


def split_lists(folder: Path, splits: Sequence[str]) -> Mapping[str, Entry]:
    """Name of an image -> its split, and the line that says so, from the lists ``<split>.txt`` in a folder.

    Raises
    ------
    DissectError
        If none of the lists is there, or an image is named twice, in one list or in two.
    """
    there = [split for split in splits if (folder / f"{split}.txt").is_file()]
    if not there:
        raise DissectError(
            f"{folder}: expected lists of images, {' or '.join(f'{split}.txt' for split in splits)}, found none."
        )
    found: dict[str, Entry] = {}
    for split in there:
        for entry in read_lines(folder / f"{split}.txt", "a list of images"):
            name = entry.text.split()[0]
            if name in found:
                raise DissectError(
                    f"{entry.where}: image '{name}' is listed already, {found[name].where}. An image belongs to one "
                    "split; remove it from one of the two."
                )
            found[name] = Entry(split, entry.where)
    return found
