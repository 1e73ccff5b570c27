"""The page of a run's experiments: for each a question, a figure or pictures, and a table whose units link to theirs.

Knows: what each kind of experiment has to say, and which files of the report show it.
Does not know: how an experiment is computed, or how its figure is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dissect_xr.errors import DamagedError, DissectError
from dissect_xr.experiments.ablation import open_ablation
from dissect_xr.experiments.cam import open_cam
from dissect_xr.experiments.classes import class_specific, open_classes
from dissect_xr.experiments.explained_pictures import explained_pictures
from dissect_xr.experiments.explanation import open_explanation
from dissect_xr.experiments.localisation.scores import cam_failures
from dissect_xr.experiments.results import experiment_url
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.plot.experiments.figures import save_figure
from dissect_xr.report.source import Source
from dissect_xr.report.strips import EDGE, PIXELS, save

IMAGES = "images/experiments"
"""Folder of the report that holds the pictures."""

UNITS = 4
"""Units that a row of an ablation names, at most."""

FAILURES = 20
"""Images that a section of class activation maps names at most, of those not recognised and of those not found."""


def experiment_sections(source: Source, folder: Path) -> list[dict[str, Any]]:
    """The values of each experiment's section, in the order of their names; draws figures and pictures into `folder`.

    Memory: the results of one experiment at a time.
    """
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    return [
        {"name": name, "kind": kind} | SECTIONS[kind](source, folder, name, experiment_url(source.out, name))
        for name, kind in source.experiments.items()
        if kind in SECTIONS
    ]


def _ablation(source: Source, folder: Path, name: str, url: str) -> dict[str, Any]:
    ds = open_ablation(url).load()
    path = f"{IMAGES}/{name}.png"
    save_figure(url, "ablation", RunStores(source.probe, source.activations, source.dissection), folder / path)
    ranked, measured = (str(split) for split in ds["split"].values)
    mean = ", ".join(
        f"{label} {float(ds[score].isel(split=1).mean('class')):.3f}"
        for score, label in (("balanced_accuracy", "balanced accuracy"), ("recall", "recall"))
    )
    return {
        "title": "What does the network no longer recognise without a unit?",
        "facts": [
            ("layer", f"{ds.attrs['layer']} of {ds.attrs['snapshot']}, {ds.sizes['unit']} units"),
            ("images", f"ranked on {ranked}, measured on {measured}"),
            ("ablated maps are set to", {"zero": "0", "mean": "the unit's mean"}[ds.attrs["level"]]),
            ("replayed", ds.attrs["replayed"] + _because(ds.attrs["replayed_reason"])),
            ("whole network, mean of classes", mean),
        ],
        "figure": path,
        "alt": "Balanced accuracy with units ablated, and IoU of units by the number of classes that they matter to.",
        "sizes": ds["size"].values.tolist(),
        "rows": [
            _ablation_row(source, ds, n) for n in np.flatnonzero(ds["class_images"].isel(split=1).values).tolist()
        ],
    }


def _ablation_row(source: Source, ds: xr.Dataset, n: int) -> dict[str, Any]:
    """One class: its scores, without its most important units, and which these are."""
    one = ds.isel({"class": n})
    measured = one.isel(split=1)
    importance = one["importance"].isel(split=0).values
    order = np.argsort(-np.nan_to_num(importance), kind="stable")[:UNITS]
    curve = one["curve"].sel(order="ranked", ablated="top")
    return {
        "class": str(one["class"].values),
        "images": int(measured["class_images"]),
        "scores": [
            _number(float(measured[score])) for score in ("accuracy", "balanced_accuracy", "precision", "recall")
        ],
        "curve": [_number(float(value)) for value in curve.values],
        "units": [
            _unit(source, ds.attrs, str(ds["unit"].values[unit])) | {
                "concept": str(ds["concept_name"].values[unit]), "value": f"{importance[unit]:.3f}",
            }
            for unit in order.tolist()
            if importance[unit] > 0
        ],
    }  # fmt: skip


def _classes(source: Source, folder: Path, name: str, url: str) -> dict[str, Any]:
    ds = open_classes(url).load()
    top, fitted = class_specific(ds), ds.attrs["weights"] == "fitted"
    machines, own = f"support vector machines, C = {ds.attrs.get('c')}", f"the network's own: {ds.attrs['weights']}"
    scaled = {"none": "means of maps", "std": "means of maps over their standard deviation"}
    recall = ds["recall"].isel(split=-1)
    rows = [
        {
            "class": str(ds["class"].values[n]),
            "images": int(ds["class_images"].isel(split=-1)[n]),
            "recall": _number(float(recall[n])),
            "units": [
                _unit(source, ds.attrs, str(top["unit"].values[n, rank]))
                | {
                    "concept": str(top["concept_name"].values[n, rank]),
                    "value": f"{float(top['weight'][n, rank]):.3g}",
                    "iou": _number(float(top["iou"][n, rank])),
                    "strip": _strip(source, folder, ds.attrs, str(top["unit"].values[n, rank])),
                }
                for rank in range(top.sizes["rank"])
            ],
        }
        for n in range(ds.sizes["class"])
    ]
    return {
        "title": "What does a class use?",
        "facts": [
            ("layer", f"{ds.attrs['layer']} of {ds.attrs['snapshot']}, {ds.sizes['unit']} units"),
            ("weights", machines if fitted else own),
            ("features", scaled[ds.attrs.get("scaling", "none")]),
            ("accuracy, mean of classes", f"{float(recall.mean()):.3f} on {ds['split'].values[-1]}"),
        ],
        "rows": rows,
    }


def _explanation(source: Source, folder: Path, name: str, url: str) -> dict[str, Any]:
    ds = open_explanation(url).load()
    note, pictures = "", list[str]()
    try:
        for n, found in enumerate(explained_pictures(ds, source.probe, size=PIXELS)):
            strip = np.full((PIXELS, len(found) * PIXELS, 3), 255, np.uint8)
            for place, picture in enumerate(found):
                strip[:, place * PIXELS + EDGE : (place + 1) * PIXELS - EDGE] = picture[:, EDGE:-EDGE]
            pictures.append(f"{IMAGES}/{name}-{n}.jpg")
            save(strip, folder / pictures[-1])
    except DamagedError:
        raise
    except DissectError as error:
        note = str(error).rstrip(".")
    return {
        "title": "Why this prediction?",
        "facts": [("layer", f"{ds.attrs['layer']} of {ds.attrs['snapshot']}")],
        "note": note,
        "images": [
            {
                "image": str(one["image"].values),
                "label": str(one["label"].values),
                "prediction": str(one["prediction"].values),
                "right": bool(one["label"] == one["prediction"]),
                "score": f"{float(one['score']):.3f}",
                "others": f"{float(one['others']):.3f}",
                "intercept": f"{float(one['intercept']):.3f}",
                "strip": pictures[n] if n < len(pictures) else "",
                "units": [
                    _unit(source, ds.attrs, str(one["unit"].values[rank])) | {
                        "concept": str(one["concept_name"].values[rank]),
                        "value": f"{float(one['contribution'][rank]):+.3f}",
                    }
                    for rank in range(ds.sizes["rank"])
                ],
            }
            for n, one in ((n, ds.isel(image=n)) for n in range(ds.sizes["image"]))
        ],
    }  # fmt: skip


def _cam(source: Source, folder: Path, name: str, url: str) -> dict[str, Any]:
    ds = open_cam(url)
    ds = ds.drop_vars("map").load().assign(map=ds["map"])
    path, note = f"{IMAGES}/{name}.png", ""
    try:
        save_figure(url, "cam", RunStores(source.probe, source.activations, source.dissection), folder / path)
    except DamagedError:
        raise
    except DissectError as error:
        path, note = "", str(error).rstrip(".")
    shares = ("localisation_accuracy", "known_localisation", "pointing")
    there = ds["object_pixels"].values > 0
    hits = ds["localised"].values, ds["pointed"].values, (ds["label"] == ds["prediction"]).values
    found, pointed, right = (values[there] for values in hits)
    return {
        "title": "Where is the class?",
        "facts": [
            ("layer", f"{ds.attrs['layer']} of {ds.attrs['snapshot']}"),
            ("boxes", f"{ds.attrs['rule']}, above {ds.attrs['share']:.0%} of the maximum"),
            ("images", f"{there.sum()} of {there.size} show an object of their class"),
            ("right class and place", f"{(found & right).mean():.3f}"),
            ("right place, class known", f"{found.mean():.3f}"),
            ("maximum inside the object", f"{pointed.mean():.3f}"),
        ],
        "figure": path,
        "note": note,
        "alt": "Images with their class activation maps and boxes, by whether class and place are right.",
        "rows": [
            {
                "class": str(one["class"].values),
                "concept": str(one["concept_name"].values),
                "images": int(one["object_images"]),
                "scores": [_number(float(one[share])) for share in shares],
            }
            for one in (ds.isel({"class": n}) for n in np.flatnonzero(ds["object_images"].values).tolist())
        ],
        "failures": _failures(ds),
    }


def _failures(ds: xr.Dataset) -> list[dict[str, Any]]:
    """The images that failed in one way, the first of each way, with how many there are."""
    failed, names = cam_failures(ds), ds["class"].values
    kinds = failed["outcome"].values
    return [
        {
            "kind": kind,
            "count": int((kinds == kind).sum()),
            "images": [
                {
                    "image": str(one["image"].values),
                    "label": str(names[int(one["label"])]),
                    "prediction": str(names[int(one["prediction"])]),
                    "iou": _number(float(one["box_iou"])),
                }
                for one in (failed.isel(image=n) for n in np.flatnonzero(kinds == kind)[:FAILURES].tolist())
            ],
        }
        for kind in dict.fromkeys(kinds.tolist())
    ]


SECTIONS: dict[str, Callable[[Source, Path, str, str], dict[str, Any]]] = {
    "ablation": _ablation,
    "classes": _classes,
    "explanation": _explanation,
    "cam": _cam,
}
"""Kind of experiment -> what makes the values of its section."""


def _unit(source: Source, attrs: dict[str, Any], unit: str) -> dict[str, str]:
    """A unit's name, and the file name of its page, empty where there is none."""
    return {"unit": unit, "slug": _slug(source, attrs)}


def _slug(source: Source, attrs: dict[str, Any]) -> str:
    snapshot, layer = attrs["snapshot"], attrs["layer"]
    if snapshot not in source.snapshots or layer not in source.layers:
        return ""
    return source.slugs[source.snapshots.index(snapshot)][source.layers.index(layer)] or ""


def _strip(source: Source, folder: Path, attrs: dict[str, Any], unit: str) -> str:
    """The strip of the unit's exemplars that its page shows, empty where there is none."""
    path = f"images/{_slug(source, attrs)}/{unit.rpartition('/')[2]}.jpg"
    return path if (folder / path).is_file() else ""


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _because(reason: str | None) -> str:
    return f", because {reason}" if reason else ""
