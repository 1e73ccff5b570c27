"""Which names a group may have: those that every place can hold as the name of a folder.

Knows: what file systems and UTF-8 allow.
Does not know: what is called so.
"""

import re

from dissect_xr.errors import DissectError

LONGEST_NAME = 200
"""Bytes of a name at most. File systems allow 255; files being written and figures of a group have longer names."""


def check_name(what: str, name: str) -> None:
    r"""Raise if `name` cannot be that of a folder in every place; `what` is called so.

    Examples
    --------
    >>> check_name("snapshot", "step 10")
    >>> check_name("unit", "a\x7f")
    Traceback (most recent call last):
    dissect_xr.errors.DissectError: unit 'a\x7f': a name must not contain the character '\x7f'. Rename it.
    """
    if not name or "/" in name or name.startswith((".", "__")):
        raise DissectError(
            f"{what} '{name}': a name must not be empty, contain '/', or start with '.' or '__'. Rename it."
        )
    if wrong := re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        raise DissectError(f"{what} {name!r}: a name must not contain the character {wrong[0]!r}. Rename it.")
    if (size := len(name.encode())) > LONGEST_NAME:
        raise DissectError(
            f"{what} '{name[:60]}...': its name has {size} bytes, too many for a folder: expected at most "
            f"{LONGEST_NAME}. Shorten it."
        )
