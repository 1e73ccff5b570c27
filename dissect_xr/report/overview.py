"""The values of the overview page: parameters, fingerprints, and the detectors of every snapshot and layer.

Knows: which facts a reader needs to trust a run or to repeat it.
Does not know: how the page looks, or how a detector is counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from dissect_xr import store
from dissect_xr.report.numbers import UnitLabels
from dissect_xr.report.source import Source
from dissect_xr.schema import layer_path

NAMED = 3
"""Concepts that a row of the table names."""

Table = Sequence[Sequence[UnitLabels | None]]
"""By snapshot and layer; None where a snapshot lacks the layer."""


def overview(source: Source, table: Table, without: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The values that the template of the overview page takes.

    Parameters
    ----------
    source
        The run.
    table
        UnitLabels of every layer of every snapshot.
    without
        Reason -> layers that have no exemplars.
    """
    names = source.results["concept_name"].values.tolist()
    rows = [
        _row(source, names, (s, la), one)
        for s, row in enumerate(table)
        for la, one in enumerate(row)
        if one is not None
    ]
    return {
        "parameters": _parameters(source),
        "fingerprints": _fingerprints(source),
        "notes": _notes(source, without),
        "rows": rows,
        "matrix": [_matrix_row(source, s, row) for s, row in enumerate(table)],
        "layers": source.layers,
        "derived": bool(source.derived),
        "snapshots": source.snapshots,
        "cutoff": source.cutoff,
        "total": {
            "snapshots": len(source.snapshots),
            "layers": len(source.layers),
            "units": source.results.sizes["unit"],
            "concepts": len(names),
        },
    }


def _row(source: Source, names: Sequence[str], index: tuple[int, int], one: UnitLabels) -> dict[str, Any]:
    detected = one.detected(source.cutoff)
    return {
        "snapshot": source.snapshots[index[0]],
        "step": int(source.results["step"].values[index[0]]),
        "layer": source.layers[index[1]],
        "slug": source.slugs[index[0]][index[1]],
        "units": len(one.channel),
        "detectors": one.detectors(source.cutoff),
        "by_unit": len(detected),
        "by_category": one.at_cutoff,
        "top": [(names[concept], units) for concept, units in list(detected.items())[:NAMED]],
    }


def _matrix_row(source: Source, index: int, row: Sequence[UnitLabels | None]) -> dict[str, Any]:
    """One snapshot: unique detectors by unit, and detectors, of each layer and of all recorded layers together."""
    layers = zip(source.layers, row, strict=True)
    there = [one for layer, one in layers if one is not None and layer not in source.derived]
    metrics = [str(name) for name, values in source.results.coords.items() if values.dims == ("snapshot",)]
    return {
        "snapshot": source.snapshots[index],
        "step": int(source.results["step"].values[index]),
        "metrics": [
            (name, f"{float(source.results[name].values[index]):.3g}")
            for name in metrics
            if name not in ("snapshot", "step") and np.isfinite(source.results[name].values[index])
        ],
        "cells": [
            None if one is None else (source.slugs[index][la], one.unique(source.cutoff), one.detectors(source.cutoff))
            for la, one in enumerate(row)
        ],
        "unique": len({concept for one in there for concept in one.detected(source.cutoff)}),
        "detectors": sum(one.detectors(source.cutoff) for one in there),
        "units": sum(len(one.channel) for one in there),
    }


def _parameters(source: Source) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each parameter."""
    attrs, probe = source.results.attrs, _probe(source)
    fraction = float(source.results["fraction"])
    found = [
        ("fraction", f"{fraction:g}", "share of a unit's activations above its threshold T"),
        ("cutoff", f"{source.cutoff:g}", "IoU that a detector exceeds; every page lets you move it"),
        ("anchoring", str(attrs["anchoring"]), "where a cell of an activation map lies on the image"),
        ("domain", str(attrs["domain"]), "images on which a unit's area counts, per category"),
        ("concepts", f"{source.results.sizes['concept']}", "that compete for each unit"),
    ]
    if probe:
        rows, cols = probe["label_size"]
        found += [("images", f"{probe['images']:,}", "of the probe"), ("label grid", f"{rows} x {cols}", "pixels")]
    return [*found, ("dissect_xr", version("dissect-xr"), "version that wrote this report")]


def _fingerprints(source: Source) -> list[tuple[str, str]]:
    """Name and sha256 of everything that the results were made from."""
    found = [("probe: labels and images", str(source.results.attrs["probe_sha256"]))]
    if probe := _probe(source):
        found.append(("probe: images", str(probe["images_sha256"])))
    for snapshot in source.snapshots:
        if store.exists(source.activations, snapshot):
            inputs = store.read_attrs(source.activations, snapshot).get("inputs", {})
            if "weights_sha256" in inputs:
                found.append((f"weights: {snapshot}", str(inputs["weights_sha256"])))
    for path in source.paths:
        attrs = store.read_attrs(source.dissection, layer_path(*path.split("/", 1)))
        found.append((f"activations: {path}", str(attrs["activations_sha256"])))
    return found


def _notes(source: Source, without: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences on what differs from the parameters: anchorings, and layers without exemplars."""
    reasons: dict[str, list[str]] = {}
    for path, reason in json.loads(source.results.attrs["anchoring_reasons"]).items():
        reasons.setdefault(reason, []).append(path)
    notes = [f"Anchored half_pixel: {', '.join(paths)}, because {reason}." for reason, paths in reasons.items()]
    bases: dict[str, list[str]] = {}
    for one in source.derived.values():
        bases.setdefault(one["layer"], []).append(one["basis"]["kind"])
    for layer, kinds in bases.items():
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        notes.append(f"Derived from {layer}, as linear maps over its units: {counted}.")
    for reason, paths in without.items():
        which = "any layer" if len(paths) == len(source.paths) else ", ".join(paths)
        notes.append(f"No exemplar images of {which}: {reason}.")
    return notes


def _probe(source: Source) -> dict[str, Any] | None:
    """Facts about the probe, None where its store is missing."""
    if store.marker(source.probe, "done") is None:
        return None
    attrs = store.read_attrs(source.probe)
    return {
        "images": store.read(source.probe, "image").shape[0],
        "label_size": attrs["label_size"],
        "images_sha256": attrs["images_sha256"],
    }
