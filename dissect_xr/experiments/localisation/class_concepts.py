"""Which concept's pixels are the object of a class: the concept of the same name, or the one that a table names.

Knows: the probe's concepts, tables in recipes and in CSV files with the columns class and concept.
Does not know: images, maps, or whether a concept has pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.analysis.select import concept_index
from dissect_xr.errors import DissectError
from dissect_xr.probe.readers.tables import read_table

Concepts = Mapping[str, str | int] | str | None
"""Class -> name or number of its concept, or a CSV file with the columns class and concept. Classes that are not named
have the concept of their own name."""


def concepts_of_classes(
    probe: str, classes: Sequence[str], concepts: Concepts, *, needed: Iterable[str]
) -> list[tuple[int, str]]:
    """(number, name) of the concept of each class, (0, "") of a class that has none and is not `needed`.

    Raises
    ------
    DissectError
        If a named class or concept is not there, or a needed class has none.
    """
    where, named = _table(concepts)
    there = _concepts(probe)
    if unknown := [name for name in named if name not in classes]:
        raise DissectError(
            f"{where}: no class '{unknown[0]}' among the {len(classes)} classes ({', '.join(classes[:5])}, ...). "
            "Mend the name."
        )
    names = there["concept_name"].values.tolist()
    by_name = {name: name for name in classes if name in names}
    if missing := [name for name in needed if name not in named and name not in by_name]:
        raise DissectError(
            f"cam: class '{missing[0]}' and {len(missing) - 1} other classes have no concept of their name in {probe}, "
            "whose pixels would be the object. Say in `concepts` which concept belongs to which class."
        )
    found = []
    for name in classes:
        wanted = named.get(name, by_name.get(name))
        if wanted is None:
            found.append((0, ""))
            continue
        try:
            n = concept_index(there, wanted)
        except DissectError as error:
            raise DissectError(f"{where}, class '{name}': {error}") from error
        found.append((int(there["concept"].values[n]), str(names[n])))
    return found


def _table(concepts: Concepts) -> tuple[str, dict[str, str | int]]:
    """Where the table stands, and class -> concept; digits in a CSV file are a concept's number."""
    if not isinstance(concepts, str):
        return "concepts", dict(concepts or {})
    found: dict[str, str | int] = {}
    for line in read_table(Path(concepts), ["class", "concept"]).lines:
        name, concept = line.cells["class"], line.cells["concept"]
        if not name or not concept:
            raise DissectError(f"{line.where}: expected a class and its concept, got an empty cell. Fill it in.")
        if name in found:
            raise DissectError(f"{line.where}: class '{name}' stands in two rows. Keep one of them.")
        found[name] = int(concept) if concept.isdecimal() else concept
    return concepts, found


def _concepts(probe: str) -> xr.Dataset:
    """The probe's concepts, with names and categories."""
    number, name, kind = (
        store.read(probe, part)[:].tolist() for part in ("concept", "concept_name", "concept_category")
    )
    return xr.Dataset(
        coords={
            "concept": np.array(number, np.int64),
            "concept_name": ("concept", np.array(name, dtype=np.str_)),
            "concept_category": ("concept", np.array(kind, dtype=np.str_)),
        }
    )
