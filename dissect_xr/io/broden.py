"""Writes any probe as a folder in the Broden layout, which `read_broden` and the programs of the papers read.

Knows: the files of the layout, and what of a probe needs more than the layout of 2017 has.
Does not know: how a probe was made, or how labels become label maps (`spread`).

    index.csv  category.csv  label.csv  c_<category>.csv  images/<image>  images/<image>_<category>_<n>.png

Label maps have the proportions of their image, and are so large that sampling them gives the probe's grid back, pixel
by pixel. Images are copied as they are; one that has an EXIF orientation in its file is saved as the probe reads it, as
PNG. What the layout does not have is said in columns of its own (`read_broden`): wholes of parts, domains of single
concepts; ignored pixels have a number that is no label.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dissect_xr import store
from dissect_xr.errors import DissectError, WriteError
from dissect_xr.io.spread import map_size, rg, spread
from dissect_xr.parallel.pool import Pool, Threads, run_blocks
from dissect_xr.parallel.progress import track
from dissect_xr.probe.crop import Crop, stored_crop
from dissect_xr.probe.folder import Folder
from dissect_xr.probe.ingest import block_length, open_probe
from dissect_xr.probe.label_set import LARGEST
from dissect_xr.probe.pixels import WHOLE, stored_rgb, turned
from dissect_xr.probe.readers.broden import FIXED
from dissect_xr.probe.readers.unpacked.files import keep_bytes, keep_pixels
from dissect_xr.probe.root import image_folder

SIZES = ("ih", "iw", "sh", "sw")


def write_broden(url: store.Url, folder: str | Path, *, pool: Pool | None = None, show: bool = True) -> dict[str, Any]:
    """Write a probe into a folder in the Broden layout, and return the fields of a recipe's probe that read it back.

    What is read with these fields is equal to the probe: images, splits, concepts, domains, and every label and ignored
    pixel. If the probe was cropped for a model, that holds with the same model in the recipe. Planes come in the order
    of their categories, and labels of a whole image in that of their categories.

    Raises
    ------
    DissectError
        If the folder is not empty, a name cannot stand in a table of the layout, or an image is missing.
    WriteError
        If something cannot be written.
    """
    url, folder = store.as_url(url), Path(folder)
    probe = open_probe(url)
    _check_names(probe)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DissectError(f"{folder}: is no empty folder, and the probe would mix with what it holds. Name another.")
    layout, images = _Layout.of(probe), image_folder(url)
    names, length = probe["image"].values.tolist(), block_length(probe.sizes["image"])
    stems = layout.stems(names)
    tasks = [
        BrodenTask(
            url, images.of(mine := names[at : at + length]), str(folder), at, tuple(mine), stems[at : at + length]
        )
        for at in range(0, len(names), length)
    ]
    rows: dict[int, list[list[str]]] = {}
    with track("write Broden", len(tasks), show=show) as bar:
        for task, written in run_blocks(pool or Threads(), write_block, tasks):
            rows[task.start] = written
            bar.advance(len(task.names))
    index = [row for start in sorted(rows) for row in rows[start]]
    _write_tables(folder, probe, layout, index)
    grid, first = [probe.sizes["row"], probe.sizes["col"]], [int(side) for side in index[0][4:6]]
    fields: dict[str, Any] = {"kind": "broden", "folder": str(folder)}
    return fields | ({"label_size": grid} if first != grid else {}) | ({"void": [layout.void]} if layout.void else {})


@dataclass(frozen=True)
class _Layout:
    """What the rows of an index have in common."""

    categories: tuple[str, ...]
    planes: tuple[str, ...]
    """category of each plane"""
    category: dict[int, str]
    """number of a concept -> its category"""
    own: dict[int, int]
    """number of a concept that is a domain of its own -> index of that domain"""
    domains: dict[str, int]
    """category that is a domain -> index of that domain"""
    void: int
    """number of ignored pixels, 0 where there is none"""
    crop: Crop | None

    @classmethod
    def of(cls, probe: xr.Dataset) -> _Layout:
        """The layout of a probe."""
        columns = ("concept", "concept_name", "concept_category", "concept_domain")
        concepts = list(zip(*(probe[name].values.tolist() for name in columns), strict=True))
        domains = {name: n for n, name in enumerate(probe["domain"].values.tolist())}
        own = {}
        for number, name, kind, domain in concepts:
            if domain == f"{kind}: {name}":
                own[number] = domains[domain]
            elif domain != kind:
                raise DissectError(
                    f"concept '{name}': its domain '{domain}' is neither its category nor the concept itself, which is "
                    "all that the Broden layout can say. Export the label sets that the probe was merged from."
                )
        taken = {number for number, *_ in concepts}
        return cls(
            tuple(probe["category"].values.tolist()),
            tuple(probe["plane_category"].values.tolist()),
            {number: kind for number, _, kind, _ in concepts},
            own,
            {kind: domains[kind] for kind in probe["category"].values.tolist() if kind in domains},
            _free(taken) if "ignored" in probe else 0,
            stored_crop(probe.attrs["parameters"]),
        )

    def endings(self) -> dict[str, list[tuple[int, str]]]:
        """Category -> (plane, end of the names of its label maps)."""
        plain = ["".join(c if c.isalnum() or c in "-_" else "_" for c in name) for name in self.categories]
        alike = len({name.lower() for name in plain}) < len(plain)
        found = {}
        for n, category in enumerate(self.categories):
            name = f"{plain[n]}{n}" if alike else plain[n]
            mine = [plane for plane, of_plane in enumerate(self.planes) if of_plane == category]
            found[category] = [(plane, f"_{name}{f'_{k}' if k else ''}.png") for k, plane in enumerate(mine)]
        return found

    def stems(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names of each image's label maps without their endings; no two files differ only in case."""
        taken = {name.lower() for name in names}
        endings = [ending for mine in self.endings().values() for _, ending in mine]
        found = []
        for index, name in enumerate(names):
            stem = plain = str(PurePosixPath(name).with_suffix("")).replace(";", "_").strip()
            number = index
            while any(f"{stem}{ending}".lower() in taken for ending in endings):
                stem, number = f"{plain}_{number}", number + len(names)
            taken.update(f"{stem}{ending}".lower() for ending in endings)
            found.append(stem)
        return tuple(found)


@dataclass(frozen=True)
class BrodenTask:
    """One image block."""

    url: str
    images: Folder
    to: str
    start: int
    names: tuple[str, ...]
    stems: tuple[str, ...]
    """names of the label maps of each image, without their endings"""

    @property
    def what(self) -> str:
        """The task's name in messages."""
        return f"write Broden, images {self.names[0]} to {self.names[-1]} ({len(self.names)})"


def write_block(task: BrodenTask) -> list[list[str]]:
    """Write the images and label maps of a block; the cells of its rows in the index."""
    layout, chosen = _Layout.of(open_probe(task.url)), slice(task.start, task.start + len(task.names))
    planes, whole, annotated, splits = (
        store.read(task.url, name)[chosen] for name in ("annotation", "whole_image", "annotated", "split")
    )
    if layout.void:
        planes[:, 0][store.read(task.url, "ignored")[chosen]] = layout.void
    rows = []
    for n, (name, stem) in enumerate(zip(task.names, task.stems, strict=True)):
        image = _copy_image(task, name)
        part = layout.crop.part(*image, name) if layout.crop else WHOLE
        size = map_size(image, planes.shape[2:], part)
        cells: dict[str, list[str]] = {category: [] for category in layout.categories}
        for category, plane, path in _maps(layout, stem, planes[n], is_first=task.start + n == 0):
            keep_pixels(Path(task.to) / "images", path, rg(spread(planes[n, plane], size, part)))
            cells[category].append(path)
        for number in whole[n].tolist():
            if number:
                cells[layout.category[number]].append(str(number))
        verified = [str(number) for number, domain in layout.own.items() if annotated[n, domain]]
        cells |= {"verified": verified} if layout.own else {}
        _check_annotated(layout, name, (planes[n], whole[n]), annotated[n])
        rows.append([name, str(splits[n]), *map(str, (*image, *size)), *(";".join(cell) for cell in cells.values())])
    return rows


def _check_annotated(
    layout: _Layout, name: str, labels: Sequence[NDArray[np.uint16]], annotated: NDArray[np.bool_]
) -> None:
    """Raise unless the image is annotated for just the categories that it has labels of: nothing else says so here.

    `labels` are those of pixels and of the whole image, which has none where all of it is ignored.
    """
    planes, whole = labels
    is_hidden = bool(layout.void) and bool((planes[0] == layout.void).all())
    numbers = {*np.unique(planes).tolist(), *([] if is_hidden else whole.tolist())}
    present = {layout.category[number] for number in numbers if number in layout.category and number not in layout.own}
    stored = {kind for kind, domain in layout.domains.items() if annotated[domain]}
    if present != stored:
        raise DissectError(
            f"{name}: is annotated for {sorted(stored)} and has labels of {sorted(present)}, which the Broden layout "
            "cannot say. Export the label sets that the probe was merged from."
        )


def _copy_image(task: BrodenTask, name: str) -> tuple[int, int]:
    """Write an image, and return its (rows, columns) as the probe reads it."""
    source, folder = task.images.path(name), Path(task.to) / "images"
    image, found = stored_rgb(source)
    if found == 1:
        keep_bytes(folder, name, source.read_bytes())
    else:  # read back, nothing would say whether it is to be turned
        image = turned(image, task.images.orientation(name))
        keep_pixels(folder, name, np.asarray(image))
    return image.height, image.width


def _maps(layout: _Layout, stem: str, planes: NDArray[np.uint16], *, is_first: bool) -> Iterable[tuple[str, int, str]]:
    """(category, plane, path) of each label map of an image.

    Planes behind the last one of a category that has a label are left out, but for the first image: as many planes as
    an image has maps is how the layout says how many there are.
    """
    for category, mine in layout.endings().items():
        last = max((k for k, (plane, _) in enumerate(mine) if planes[plane].any()), default=-1)
        yield from ((category, plane, f"{stem}{ending}") for plane, ending in (mine if is_first else mine[: last + 1]))


def _write_tables(folder: Path, probe: xr.Dataset, layout: _Layout, index: Sequence[Sequence[str]]) -> None:
    """Write all tables, index.csv last, so that a folder with an index.csv is complete."""
    pixels, has_parent = probe.sizes["row"] * probe.sizes["col"], bool(probe["parent"].values.any())
    columns = ("concept", "concept_name", "concept_category", "parent", "concept_images", "concept_area")
    concepts = list(zip(*(probe[name].values.tolist() for name in columns), strict=True))
    header = ["number", "name", "category", "frequency", "coverage", "syns"]
    header += (["parent"] if has_parent else []) + (["own_domain"] if layout.own else [])
    rows = []
    for number, name, category, parent, images, area in concepts:
        row = [
            number,
            name,
            f"{category}({images})",
            images,
            area / pixels,
            "",
            *([parent or ""] if has_parent else []),
        ]
        rows.append(row + ([int(number in layout.own) or ""] if layout.own else []))
    _write_csv(folder / "label.csv", header, rows)
    categories = []
    for category in layout.categories:
        mine = [one for one in concepts if one[2] == category]
        ends = (mine[0][0], mine[-1][0]) if mine else ("", "")
        categories.append([category, *ends, len(mine), sum(images for *_, images, _ in mine)])
        cells = ([code, one[0], one[1], one[4], one[5] / pixels] for code, one in enumerate(mine, 1))
        _write_csv(folder / f"c_{category}.csv", ["code", "number", "name", "frequency", "coverage"], cells)
    _write_csv(folder / "category.csv", ["name", "first", "last", "count", "frequency"], categories)
    header = ["image", "split", *SIZES, *layout.categories, *(["verified"] if layout.own else [])]
    _write_csv(folder / "index.csv", header, index)


def _check_names(probe: xr.Dataset) -> None:
    """Raise if a name cannot stand in a table of the layout."""
    for category in probe["category"].values.tolist():
        if set(category) & set("();/\\") or category in FIXED:
            raise DissectError(
                f"category '{category}': cannot be a column of the Broden layout, in which ( ) ; / \\ separate and "
                f"{', '.join(FIXED)} are columns of their own. Rename it."
            )
    for what in ("category", "image", "split", "concept_name"):
        for name in probe[what].values.tolist():
            if name != name.strip() or not name or set(name) & set("\r\n"):
                kind = what.removesuffix("_name")
                raise DissectError(f"{kind} {name!r}: a table of the Broden layout cannot hold this name. Rename it.")


def _free(taken: set[int]) -> int:
    """A number that no concept has, above all of them where that is possible."""
    above = min(max(taken) + 1, LARGEST)
    return above if above not in taken else next(n for n in range(LARGEST, 0, -1) if n not in taken)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write one table with CRLF line ends, as in Broden."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written: {error.strerror or error}. Mend this, or name another."
        ) from error
