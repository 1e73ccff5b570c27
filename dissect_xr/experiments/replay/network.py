"""A network as an experiment is asked about it.

Knows: a snapshot's model, how images are given to it, and what determines its scores.
Does not know: torch: a run whose experiments are finished compares fingerprints and loads no model.
"""

import json
from dataclasses import dataclass
from typing import Any

from dissect_xr.activations.checkpoints.files import weights_sha256
from dissect_xr.activations.references import source_sha256
from dissect_xr.activations.request import ModelSpec, Recording, optional_inputs


@dataclass(frozen=True)
class Network:
    """A snapshot's model, and how images are given to it."""

    spec: ModelSpec
    recording: Recording
    """its preprocessing, batch, device, threads and autocast; the layers are not used"""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that determines its scores, as far as it is known without loading the model; JSON."""
        spec, recording = self.spec, self.recording
        return {
            "factory": spec.factory.rpartition("/")[2],
            "kwargs": json.loads(spec.kwargs),
            "weights": spec.seed or 0 if spec.weights is None else weights_sha256(spec.weights),
            "code_sha256": [source_sha256(spec.factory), source_sha256(recording.preprocess.callable)],
            "preprocess": recording.preprocess.parameters,
            "autocast": recording.autocast,
            "batch": recording.batch,
        } | optional_inputs(spec, recording)
