"""Names of concepts that nearly are the same, and may mean one thing.

Knows: spelling, plurals, British and American English, names with several words for one thing.
Does not know: concepts, or what is done about it.

Names are compared through keys, so that 65,000 names take a second: two names are near if they have a key in common.
A key is a name in small letters without spaces and signs, without the `s` of a plural; and for longer names, each name
that is left when one letter is taken out, for names that differ in one letter.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

ALIKE = 0.9
"""Least similarity of names that differ in a letter, as difflib measures it: `television` and `televison` have 0.95,
`house` and `horse` 0.80."""

LONG = 8
"""Letters of names in which one may differ."""

AMERICAN = (("grey", "gray"), ("colour", "color"), ("centre", "center"), ("aeroplane", "airplane"), ("tyre", "tire"))


def near_names(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Pairs of indices of names that nearly are the same, and why, in the order of the names.

    >>> near_names(["car", "Cars", "cat", "grey-c", "gray-c", "sofa, couch", "couch"])
    [(0, 1, 'spelling'), (3, 4, 'spelling'), (5, 6, 'a word for the same')]
    """
    found: dict[tuple[int, int], str] = {}
    words = [_words(name) for name in names]
    keys = [[_key(word) for word in one] for one in words]
    wholes = [_key(name) for name in names]
    for pair in _sharing({n: {whole} for n, whole in enumerate(wholes)}):
        found.setdefault(pair, "spelling")
    for one, two in _sharing({n: set(one) for n, one in enumerate(keys)}):
        if len(keys[one]) > 1 or len(keys[two]) > 1:
            found.setdefault((one, two), "a word for the same")
    for one, two in _sharing({n: _shortened(whole) for n, whole in enumerate(wholes) if len(whole) >= LONG}):
        if SequenceMatcher(None, wholes[one], wholes[two]).ratio() >= ALIKE:
            found.setdefault((one, two), "one letter")
    return [(*pair, why) for pair, why in sorted(found.items()) if wholes[pair[0]]]


def _words(name: str) -> list[str]:
    """The words for one thing, as in `sofa, couch`."""
    return [word for word in (part.strip() for part in re.split(r"[,;/]", name)) if word]


def _key(name: str) -> str:
    """A name without what may be spelt in two ways.

    >>> _key("Traffic-Lights"), _key("glass"), _key("grey-c")
    ('trafficlight', 'glass', 'grayc')
    """
    plain = "".join(c for c in name.casefold() if c.isalnum())
    for british, american in AMERICAN:
        plain = plain.replace(british, american)
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain


def _shortened(key: str) -> set[str]:
    """The key, and each that is left without one letter."""
    return {key, *(key[:n] + key[n + 1 :] for n in range(len(key)))}


def _sharing(keys: Mapping[int, set[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of indices that have a key in common, each once or more."""
    having: dict[str, list[int]] = {}
    for index, mine in keys.items():
        for key in mine:
            having.setdefault(key, []).append(index)
    for indices in having.values():
        yield from ((one, two) for n, one in enumerate(indices) for two in indices[n + 1 :])
