"""The text of a file that a person or a spreadsheet has saved: UTF-8, or what is certainly something else.

Knows: byte-order marks, and by what text in Windows-1252, which Excel writes in Western Europe, can be told.
Does not know: what the text means.
"""

import codecs
import re
from pathlib import Path

from dissect_xr.errors import DissectError

WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüŒœ"  # letters
    "‘’“”–—…«»°·€£\u00a0"
)
"""What stands in Western European texts beside ASCII. A file with other characters has another encoding."""

_WORD = re.compile(r"[^\W\d_]+")
_STRANGE = re.compile(r"[^\W\d_a-zA-Z]{3}|[a-z][À-Ý]|^[^\W\d_a-zA-Z]{2,}$")
"""A part of a word that Western European languages do not have: three accented letters in a row, a capital behind a
small letter, or nothing but accented letters."""


def decoded(content: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what a person should be told of its encoding.

    Raises
    ------
    DissectError
        If the text is not in UTF-8 and not certainly in UTF-16 or Windows-1252.
    """
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16"), ()
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        if is_windows_1252(content):
            note = f"{path}: is not in UTF-8, read as Windows-1252. If names look wrong, save it as UTF-8."
            return content.decode("cp1252"), (note,)
        raise DissectError(
            f"{path}: not readable as CSV: it is not in UTF-8, and not certainly in Windows-1252: {error}. "
            "Save it as UTF-8."
        ) from error


def is_windows_1252(content: bytes) -> bool:
    """Whether bytes that are no UTF-8 are certainly text in Windows-1252.

    They are if they hold only characters of Western European languages, and these stand among ASCII letters: a word of
    Greek or Russian in its own encoding consists of nothing else. A file that holds UTF-8 besides is damaged.

    >>> is_windows_1252("Straße, café".encode("cp1252")), is_windows_1252("дорога".encode("cp1251"))
    (True, False)
    """
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return False
    if not content.decode("utf-8", errors="ignore").isascii():
        return False
    if any(character not in WESTERN for character in text if not character.isascii()):
        return False
    return not any(_STRANGE.search(word) for word in _WORD.findall(text))
