"""Network Dissection out of core: exact thresholds and concept IoU of every unit of every layer and snapshot.

Names are imported when they are first used, so that `import dissect_xr` needs neither torch nor Numba. It registers
`ds.dissect` with xarray (`views.accessor`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import dissect_xr.views.accessor  # noqa: F401  registers `ds.dissect`

if TYPE_CHECKING:
    from dissect_xr.activations.images import Preprocess as Preprocess
    from dissect_xr.activations.models import ModelSpec as ModelSpec
    from dissect_xr.activations.stage import Recording as Recording
    from dissect_xr.activations.stage import extract as extract
    from dissect_xr.activations.stage import plan_extraction as plan_extraction
    from dissect_xr.activations.store import SnapshotInfo as SnapshotInfo
    from dissect_xr.activations.store import open_activations as open_activations
    from dissect_xr.activations.store import write_activations as write_activations
    from dissect_xr.analysis.detect import best_concept as best_concept
    from dissect_xr.analysis.detect import concept_histogram as concept_histogram
    from dissect_xr.analysis.detect import detectors as detectors
    from dissect_xr.analysis.detect import unique_detectors as unique_detectors
    from dissect_xr.analysis.results import open_dissection as open_dissection
    from dissect_xr.analysis.score import iou as iou
    from dissect_xr.cluster import open_pool as open_pool
    from dissect_xr.dissection.dissect import Method as Method
    from dissect_xr.dissection.dissect import dissect as dissect
    from dissect_xr.errors import DissectError as DissectError
    from dissect_xr.probe.broden import read_broden as read_broden
    from dissect_xr.probe.digits import write_digits as write_digits
    from dissect_xr.probe.ingest import open_probe as open_probe
    from dissect_xr.probe.ingest import write_probe as write_probe
    from dissect_xr.probe.masks import read_masks as read_masks
    from dissect_xr.views.netdissect_csv import read_netdissect_csv as read_netdissect_csv

_HOMES = {
    "DissectError": "errors",
    "Method": "dissection.dissect",
    "ModelSpec": "activations.models",
    "Preprocess": "activations.images",
    "Recording": "activations.stage",
    "SnapshotInfo": "activations.store",
    "best_concept": "analysis.detect",
    "concept_histogram": "analysis.detect",
    "detectors": "analysis.detect",
    "dissect": "dissection.dissect",
    "extract": "activations.stage",
    "iou": "analysis.score",
    "open_activations": "activations.store",
    "open_dissection": "analysis.results",
    "open_pool": "cluster",
    "open_probe": "probe.ingest",
    "plan_extraction": "activations.stage",
    "read_broden": "probe.broden",
    "read_masks": "probe.masks",
    "read_netdissect_csv": "views.netdissect_csv",
    "unique_detectors": "analysis.detect",
    "write_activations": "activations.store",
    "write_digits": "probe.digits",
    "write_probe": "probe.ingest",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'dissect_xr' has no attribute '{name}'")
    return getattr(import_module(f"dissect_xr.{home}"), name)


def __dir__() -> list[str]:
    return __all__
