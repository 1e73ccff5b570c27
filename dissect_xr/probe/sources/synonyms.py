"""Tables of synonyms: which names mean the same concept.

Knows: the form of the table, and which tables contradict themselves.
Does not know: label sets, or which of the names occur.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.strict_yaml import read_yaml

Table = Mapping[str, Mapping[str, Sequence[str]]]
"""category -> name -> other names for it"""

FORM = "{category: {name: [another name, ...]}}, such as {object: {sofa: [couch, settee]}}"


@dataclass(frozen=True)
class Synonyms:
    """Names that stand for others, each within its category."""

    standing: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(category, name) -> the name that stands for it, for all names that another one stands for"""

    @classmethod
    def of(cls, table: Any, where: str = "synonyms") -> "Synonyms":
        """The names of a table; `where` says in messages who gives it.

        >>> Synonyms.of({"object": {"sofa": ["couch"]}}).name("object", "couch")
        'sofa'

        Raises
        ------
        DissectError
            If the table has another form, or two names stand for one.
        """
        standing: dict[tuple[str, str], str] = {}
        stand: set[tuple[str, str]] = set()
        for category, name, other in _entries(table, where):
            if standing.setdefault((category, other), name) != name:
                raise DissectError(
                    f"{where}: '{other}' of the category '{category}' is a synonym of '{standing[category, other]}' "
                    f"and of '{name}'. Leave it out of one of the two."
                )
            stand.add((category, name))
        if both := sorted(stand.intersection(standing)):
            category, name = both[0]
            raise DissectError(
                f"{where}: '{name}' of the category '{category}' stands for other names, and '{standing[both[0]]}' "
                f"stands for it. List all of them as synonyms of '{standing[both[0]]}'."
            )
        return cls(standing)

    def name(self, category: str, name: str) -> str:
        """The name that stands for a name: the name itself where the table does not have it."""
        return self.standing.get((category, name), name)

    @property
    def table(self) -> dict[str, dict[str, list[str]]]:
        """The table, in alphabetical order."""
        found: dict[str, dict[str, list[str]]] = {}
        for (category, other), name in sorted(self.standing.items()):
            found.setdefault(category, {}).setdefault(name, []).append(other)
        return found


def read_synonyms(path: str | Path) -> Synonyms:
    """The synonyms of a table in YAML, ``{category: {name: [another name, ...]}}``.

    Raises
    ------
    DissectError
        If the file is missing or malformed, or two names stand for one.
    """
    return Synonyms.of(read_yaml(path, f"a table of synonyms as YAML, {FORM}").value, str(path))


def _entries(table: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """(category, name, another name for it) of every synonym."""
    for category, names in _fields(table, where):
        for name, others in _fields(names, f"{where}, {category}"):
            if not isinstance(others, Sequence) or isinstance(others, str):
                raise DissectError(f"{where}, {category}, {name}: expected a list of names, as in {FORM}.")
            for other in others:
                if not isinstance(other, str):
                    raise DissectError(
                        f"{where}, {category}, {name}: expected names, got {other!r}. A name that YAML takes for "
                        "something else, such as 5 or no, needs quotes."
                    )
                if other != name:
                    yield category, name, other


def _fields(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DissectError(f"{where}: expected {FORM}, got {str(value)[:60]}.")
    yield from value.items()
