"""Reads Mapillary Vistas, v1.2 (66 classes) and v2.0 (124): street scenes in PNGs with a palette.

Knows: both layouts of folders, and `config.json`, `config_v1.2.json` and `config_v2.0.json`.
Does not know: instances, panoptic files, polygons.

Traps
-----
- The number is the palette's index, and that of the class in the list of the configuration file, from 0: 0 is a bird.
  Concepts are numbered from 1 here, the index and 1.
- The last class, 65 in v1.2 and 123 in v2.0, is `Unlabeled`. It is no class: these pixels are ignored, in no mask, no
  concept and no area. So are those of other classes with `"evaluate": false`, unless `evaluated_only` is false.
- The package of v2.0 holds the label maps of v1.2, too, and the indices of the two differ.
- The files in `instances` hold 256 times the index and a count; they are other files.
- The split `testing` has no labels. It is left out.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dissect_xr.errors import DissectError
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.readers.completed import completed
from dissect_xr.probe.readers.masks import OffsetMask
from dissect_xr.probe.readers.pairs import Names, paired

SPLITS = ("training", "validation")

NOTHING = "void--unlabeled"
"""Full name of the class that is none."""

Version = Literal["v1.2", "v2.0"]


def read_vistas(
    folder: str | Path,
    *,
    version: Version | None = None,
    evaluated_only: bool = True,
    categories: Sequence[str] | None = None,
    label_size: tuple[int, int] | None = None,
    follow_links: bool = False,
) -> LabelSet:
    """The label set of the splits `training` and `validation`.

    Parameters
    ----------
    folder
        Holds the splits and the configuration files.
    version
        Whose label maps are read; None takes those that are there, and is refused where there are both.
    evaluated_only
        Whether classes that evaluation leaves out, such as ambiguous ones, are ignored; otherwise only `Unlabeled` is.

    Raises
    ------
    DissectError
        If a folder or a label map is missing, the configuration is malformed, or there are two versions.

    References
    ----------
    Neuhold et al. 2017, The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes.
    """
    folder = Path(folder)
    config, below = _config(folder, version)
    labels = _labels(config)
    nothing = [n for n, one in enumerate(labels) if one["name"] == NOTHING or (evaluated_only and not one["evaluate"])]
    rows: list[Row] = []
    notes: list[str] = []
    for split in [split for split in SPLITS if (folder / split).is_dir()]:
        pairs, passed_over = paired(folder / split / "images", folder / split / below, Names(follow_links=follow_links))
        notes += passed_over
        rows += [
            Row(f"{split}/images/{image}", split, ((0, f"{split}/{below}/{path}"),), (), None, str(folder / split))
            for image, path in pairs
        ]
    if not rows:
        raise DissectError(f"{folder}: expected the folders training/ and validation/, found none.")
    concepts = enumerate(_names(labels), 1)
    found = LabelSet(
        images=str(folder),
        maps=str(folder),
        rows=tuple(rows),
        concepts=tuple(Concept(number, name, "object") for number, name in concepts if number - 1 not in nothing),
        categories=("object",),
        planes=("object",),
        decode=OffsetMask(1, ()),
        label_size=(0, 0),
        void=frozenset(n + 1 for n in nothing),
        parameters={"layout": "vistas", "offset": 1, "labels": below, "evaluated_only": evaluated_only},
        notes=tuple(notes),
    )
    found = found.following_links() if follow_links else found
    return completed(found, categories=categories, label_size=label_size, where=folder)


def _config(folder: Path, version: Version | None) -> tuple[Path, str]:
    """The configuration file, and the folder of its label maps below that of a split."""
    layouts = (
        ("v1.2", "config_v1.2.json", "v1.2/labels"),
        ("v2.0", "config_v2.0.json", "v2.0/labels"),
        ("v1.2", "config.json", "labels"),
    )
    there = {name: (folder / file, below) for name, file, below in layouts if (folder / file).is_file()}
    if not there:
        raise DissectError(
            f"{folder}: expected Mapillary Vistas with config.json, config_v1.2.json or config_v2.0.json, found none."
        )
    if version is not None and version not in there:
        raise DissectError(f"version {version}: expected one of {', '.join(sorted(there))}, which are in {folder}.")
    if version is None and len(there) > 1:
        raise DissectError(
            f"{folder}: holds the labels of v1.2 (66 classes) and of v2.0 (124). Say which: `version: v2.0`."
        )
    return next(found for name, found in there.items() if version in (None, name))


def _labels(path: Path) -> Sequence[Mapping[str, Any]]:
    """The classes, each with its name, its readable name and whether it is evaluated."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        for one in labels:
            if not (isinstance(one["name"], str) and isinstance(one["readable"], str)) or one["evaluate"] not in (0, 1):
                raise TypeError(f"got {one!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DissectError(
            f"{path}: expected {{'labels': [{{'name', 'readable', 'evaluate'}}, ...]}} as JSON, "
            f"{type(error).__name__}: {error}. Replace the file."
        ) from error
    found: Sequence[Mapping[str, Any]] = labels
    return found


def _names(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """The readable name of each class, or its full name where several have the same readable one."""
    readable = [one["readable"] for one in labels]
    return [one["readable"] if readable.count(one["readable"]) == 1 else one["name"] for one in labels]
