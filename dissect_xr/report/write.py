"""Writes the report, a folder of pages that a browser opens from disk, one layer at a time.

Knows: which pages there are and what data each gets, and that everything in them comes from the stores of the run.
Does not know: how numbers are made (`numbers`) and shown (the folder `templates`), or how strips are made (`strips`).

    index.html              parameters, fingerprints, counts of snapshot x layer, curves
    concepts.html           units by concept
    experiments.html        where there are any
    pages/<snapshot>--<layer>.html, data/*.js, images/<snapshot>--<layer>/<channel>.jpg, static/
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr import store
from dissect_xr.errors import DamagedError, DissectError, counted
from dissect_xr.parallel.progress import Bar, track
from dissect_xr.plot.axes import layer_colors
from dissect_xr.report.experiments import experiment_sections
from dissect_xr.report.numbers import CUTOFFS, UnitLabels, layer_numbers, trajectory, units_of_concepts, vocabulary
from dissect_xr.report.overview import overview
from dissect_xr.report.pages import prepare_folder, write_data, write_page
from dissect_xr.report.source import Source
from dissect_xr.report.strips import save, strips, why_none
from dissect_xr.schema import CUTOFF, layer_path


@dataclass
class Written:
    """What was written of a report so far, as its last pages need it."""

    labels: dict[tuple[int, int], UnitLabels] = field(default_factory=dict)
    """(index of the snapshot, index of the layer) -> labels"""
    without: dict[str, list[str]] = field(default_factory=dict)
    """reason -> ``snapshot/layer`` of the layers that have no exemplars for this reason"""


def write_report(
    out: str,
    folder: Path,
    *,
    fraction: float | None = None,
    exemplars: int = 6,
    cutoff: float = CUTOFF,
    show: bool = True,
) -> Path:
    """Write the report of a run directory into `folder` and return its first page. Computes and writes.

    One layer of one snapshot is in memory at a time (about six arrays of unit x concept float64), plus three numbers
    per unit of every snapshot. An earlier report in `folder` is replaced.

    Parameters
    ----------
    out
        Run directory with `dissection.zarr`; exemplars need its `activations.zarr`, `probe.zarr` and the images.
    folder
        Where to write; must hold nothing else.
    fraction
        One of the dissection's fractions; None takes the first.
    exemplars
        Images shown per unit; 0 for none.
    cutoff
        IoU that a detector exceeds; the pages start at it.
    show
        Whether to draw a progress bar.

    Warns
    -----
    UserWarning
        Where layers have no pictures though some were asked for, with the reason.

    Raises
    ------
    DissectError
        If nothing is dissected there, the fraction was not, the folder holds something else, or a store is damaged.
    """
    source, written = Source(out, fraction, exemplars, cutoff), Written()
    shape = len(source.snapshots), len(source.layers)
    prepare_folder(folder)
    with track("report", source.cards, show=show) as bar:
        for index in np.ndindex(shape):
            _write_layer(source, folder, index, written, bar)
    _write_shared(source, folder, written)
    if exemplars and written.without:
        reasons = (
            f"{counted(len(paths), 'layer')} ({paths[0]}{' ...' if len(paths) > 1 else ''}): {reason}"
            for reason, paths in written.without.items()
        )
        warnings.warn(f"the report lacks the pictures of {'; of '.join(reasons)}.", stacklevel=2)
    return folder / "index.html"


def _write_layer(source: Source, folder: Path, index: tuple[int, ...], written: Written, bar: Bar) -> None:
    """Write data, exemplars and the page of one layer of one snapshot."""
    snapshot, layer = source.snapshots[index[0]], source.layers[index[1]]
    slug = source.slugs[index[0]][index[1]]
    if slug is None:
        return
    one = source.layer(snapshot, layer)
    numbers, labels = layer_numbers(one, cutoff=source.cutoff)
    written.labels[index[0], index[1]] = labels
    numbers |= {"snapshot": index[0], "layer": index[1]}
    reason = _write_exemplars(source, folder / "images" / slug, one, numbers, bar)
    if reason:
        written.without.setdefault(reason, []).append(f"{snapshot}/{layer}")
    write_data(folder / "data" / f"{slug}.js", "layer", slug, numbers)
    at = {"snapshot": snapshot, "layer": layer, "slug": slug, "step": int(one["step"]), "without": reason}
    at["experiments"] = source.experiments
    write_page(folder / "pages" / f"{slug}.html", "layer.html", "../", at | _navigation(source, index))


def _write_exemplars(source: Source, folder: Path, one: xr.Dataset, numbers: dict[str, Any], bar: Bar) -> str:
    """Write a strip per unit and add to `numbers` which images it shows; the reason why not, or ""."""
    indices = {unit: index for index, unit in enumerate(one["unit"].values.tolist())}
    images: dict[str, int] = {}
    shown: list[list[int]] = [[] for _ in indices]
    reason = _why_none(source, f"{one['snapshot'].item()}/{one['layer'].values[0]}")
    done = 0
    try:
        for unit, names, strip in () if reason else strips(one, source.stores, source.exemplars):
            folder.mkdir(exist_ok=True)
            save(strip, folder / f"{unit.rpartition('/')[2]}.jpg")
            shown[indices[unit]] = [images.setdefault(name, len(images)) for name in names]
            bar.advance(len(names))
            done += 1
    except DamagedError:
        raise
    except DissectError as error:
        reason = str(error).rstrip(".")
        shutil.rmtree(folder, ignore_errors=True)
    for _ in range(len(indices) - done):
        bar.advance(0)
    if not reason:
        numbers |= {"images": list(images), "exemplars": shown}
    return reason


def _why_none(source: Source, path: str) -> str:
    if not source.exemplars:
        return "none were asked for (--exemplars 0)"
    return why_none(source.stores, store.read_attrs(source.dissection, layer_path(*path.split("/", 1))), path)


def _navigation(source: Source, index: Sequence[int]) -> dict[str, Any]:
    """Links of a layer's page to the same layer in other snapshots and to other layers."""
    return {
        "snapshots": [(name, source.slugs[n][index[1]], n == index[0]) for n, name in enumerate(source.snapshots)],
        "layers": [(name, source.slugs[index[0]][n], n == index[1]) for n, name in enumerate(source.layers)],
    }


def _write_shared(source: Source, folder: Path, written: Written) -> None:
    """Write the data that all pages share, trajectories, units by concept, and the overview."""
    shape = range(len(source.snapshots)), range(len(source.layers))
    table = [[written.labels.get((s, la)) for la in shape[1]] for s in shape[0]]
    site = vocabulary(source.results) | {
        "cutoff": source.cutoff,
        "cutoffs": CUTOFFS,
        "exemplars": source.exemplars,
        "highest": max((float(one.iou.max(initial=0)) for one in written.labels.values()), default=0.0),
        "layers": [{"name": name, "color": color} for name, color in layer_colors(source.results).items()],
        "snapshots": [
            {"name": name, "step": int(source.results["step"].values[n])} for n, name in enumerate(source.snapshots)
        ],
        "slugs": source.slugs,
    }
    write_data(folder / "data" / "site.js", "site", "site", site)
    for la in shape[1]:
        write_data(folder / "data" / f"trajectory-{la}.js", "trajectory", str(la), trajectory([r[la] for r in table]))
    for s in shape[0]:
        write_data(folder / "data" / f"concepts-{s}.js", "concepts", str(s), units_of_concepts(table[s]))
    curves = [[one.curves() if one else None for one in row] for row in table]
    write_data(folder / "data" / "curves.js", "curves", "curves", curves)
    values = overview(source, table, written.without) | {"experiments": source.experiments}
    write_page(folder / "index.html", "index.html", "", values)
    write_page(folder / "concepts.html", "concepts.html", "", values)
    if source.experiments:
        sections = {"sections": experiment_sections(source, folder), "experiments": source.experiments}
        write_page(folder / "experiments.html", "experiments.html", "", sections)
