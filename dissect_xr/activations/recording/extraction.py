"""One extraction: all that determines a snapshot's activations, how it is cut into tasks, its size and memory.

Knows: the layers that a model was found to have, the recording, the probe's images.
Does not know: which blocks are finished (`activations.extract`), how one is computed (`block`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dissect_xr import store
from dissect_xr.activations.layouts.layout import PLAIN, Layout
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.activations.references import source_sha256
from dissect_xr.activations.request import Keep, ModelSpec, Recording, SnapshotInfo, optional_inputs
from dissect_xr.activations.store import LayerShape, in_one_snapshot
from dissect_xr.errors import DissectError, counted
from dissect_xr.parallel.resources import Projection
from dissect_xr.probe.ingest import block_length
from dissect_xr.probe.root import image_folder
from dissect_xr.schema import SCHEMA_VERSION
from dissect_xr.tail.sampling import WORTH

RESIDENT = 400 * 2**20
"""Bytes of memory of a worker process that has imported torch and runs no task."""


@dataclass(frozen=True)
class Described:
    """The layers, geometry and weights of a snapshot's model, as a worker found them."""

    maps: dict[str, tuple[int, int, int]]
    """selected layers in order of execution: (units, height, width)"""
    geometry: dict[str, Any]
    """attributes of each layer's geometry, or the reason why it has none"""
    weights: str
    """sha256"""
    said: tuple[str, ...] = ()
    """how the weights were found in their file, where that is to be said"""
    layouts: dict[str, Layout] = field(default_factory=dict)
    """of the layers that do not give maps"""
    impulse: dict[str, str] = field(default_factory=dict)
    """of the layers whose layout was tested, what the test said"""
    measured: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """of the layers whose geometry was measured: the tap where it was, and what it may be off by, in pixels"""


@dataclass(frozen=True)
class Extraction:
    """Everything that determines the extraction of one snapshot."""

    url: str
    probe: str
    snapshot: SnapshotInfo
    spec: ModelSpec
    recording: Recording
    described: Described
    images: tuple[str, ...]

    @cached_property
    def images_sha256(self) -> str:
        """sha256 of the probe's images."""
        return str(store.read_attrs(self.probe)["images_sha256"])

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers. An image block is as long as the recording's memory allows, but not longer than the probe's."""
        dtype, maps = self.recording.dtype, self.described.maps
        per_image = sum(u * h * w for u, h, w in maps.values()) * (2 if dtype == "float16" else 4)
        fit = 2 ** (max(1, self.recording.memory // per_image).bit_length() - 1)
        block = min(block_length(len(self.images)), fit)
        layouts = self.described.layouts
        return in_one_snapshot(
            LayerShape(name, (len(self.images), *shape), dtype, block, layout=layouts.get(name, PLAIN))
            for name, shape in maps.items()
        )

    @property
    def nbytes(self) -> int:
        """Raw bytes of all layers."""
        return sum(layer.image_bytes for layer in self.layers) * len(self.images)

    def bytes_of(self, keep: Keep) -> int:
        """Bytes that are stored at most, before compression; of tails, as many as are expected at most.

        A cell above its bound that stands alone has eight neighbours: nine values and three spans, 30 bytes of float16
        instead of two.
        """
        if keep == "dense":
            return self.nbytes
        if keep == "both":
            return self.nbytes + self.bytes_of("tail")
        share = min(WORTH, 15 * float(self.recording.sampling.share(len(self.images))))
        maps = len(self.images) * sum(layer.shape[1] for layer in self.layers)
        return int(share * self.nbytes) + 2 * maps

    @property
    def blocks(self) -> int:
        """Image blocks, each of which is a task."""
        return -(-len(self.images) // self.layers[0].block)

    def objects_of(self, keep: Keep) -> int:
        """Objects that the snapshot will be: shards, two for what is small of an image block, metadata and markers.

        Of tails, eight for an image block and its marker, however many layers there are.
        """
        layers, images = self.layers, len(self.images)
        if keep == "tail":
            return 9 * self.blocks + 3 * len(layers) + 14
        shards = sum(-(-images // layer.shard_images) for layer in layers)
        if keep == "both":
            return shards + len(layers) + self.objects_of("tail")
        return shards + 3 * self.blocks + 4 * len(layers) + 5

    def check_budget(self) -> None:
        """Raise if the layers take more bytes than the recording's budget, naming the largest layers.

        Tails are not known before bounds are: they are a small part of it, and are not checked.
        """
        if self.nbytes <= self.recording.budget or self.recording.keep == "tail":
            return
        largest = sorted(self.layers, key=lambda layer: -layer.image_bytes)[:5]
        sizes = ", ".join(f"{la.name} {la.image_bytes * len(self.images) / 2**30:.2f} GiB" for la in largest)
        raise DissectError(
            f"snapshot {self.snapshot.name}: the maps of {counted(len(self.layers), 'layer')} take "
            f"{self.nbytes / 2**30:.2f} GiB raw, the budget is {self.recording.budget / 2**30:.2f} GiB; "
            f"the largest are {sizes}. Choose fewer layers or raise the budget."
        )

    @property
    def memory(self) -> Projection:
        """The memory of one task, without the process itself (`RESIDENT`)."""
        block = min(self.layers[0].block, len(self.images))
        height, width = self.recording.preprocess.size
        return Projection(
            (
                self._kept_bytes(block),
                ("shards being packed", 2 * max(layer.shard_images * layer.image_bytes for layer in self.layers)),
                ("images of two batches", 2 * self.recording.batch * height * width * (3 + 12)),
                ("images of a block", block * height * width * (3 + 12) if self._runs_together else 0),
                ("largest maps of a batch", 3 * self.recording.batch * max(la.image_bytes for la in self.layers) * 2),
            )
        )

    def _kept_bytes(self, images: int) -> tuple[str, int]:
        """What a task keeps of the maps of so many images until they are written."""
        maps = images * sum(layer.image_bytes for layer in self.layers)
        tails = int(WORTH * maps)
        if self.recording.keep == "both":
            return "maps and tails of a block", maps + tails
        return ("tails of a block", tails) if self.recording.keep == "tail" else ("maps of a block", maps)

    @property
    def _runs_together(self) -> bool:
        """Whether all batches of an image block are in memory together."""
        return self.spec.placement is not None and self.spec.placement.mode == "sequential"

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that determines the activations. It is stored, and compared when a run is resumed."""
        found = {
            "factory": self.spec.factory.rpartition("/")[2],
            "kwargs": json.loads(self.spec.kwargs),
            "weights_sha256": self.described.weights,
            "code_sha256": [source_sha256(self.spec.factory), source_sha256(self.recording.preprocess.callable)],
            "preprocess": self.recording.preprocess.parameters,
            "dtype": self.recording.dtype,
            "autocast": self.recording.autocast,
            "images_sha256": self.images_sha256,
            "layers": {layer.name: [*layer.shape[1:], layer.block] for layer in self.layers},
            "geometry": self.described.geometry,
            "schema_version": SCHEMA_VERSION,
        }
        if layouts := {name: layout.parameters for name, layout in self.described.layouts.items()}:
            found["layouts"] = layouts
        return found | optional_inputs(self.spec, self.recording)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of `inputs`."""
        return store.fingerprint(self.inputs)

    def tasks(self, layers: tuple[LayerShape, ...] | None = None, *, again: str | None = None) -> list[ExtractTask]:
        """One task per image block, which records these layers; None for all of them, dense."""
        layers = self.layers if layers is None else layers
        block = self.layers[0].block
        starts = range(0, len(self.images), block)
        return [self._task(layers, self.images[i : i + block], i, again=again) for i in starts]

    def sample(self) -> ExtractTask:
        """A task over the images that bounds are taken from, spread evenly over all."""
        chosen = self.recording.sampling.of(len(self.images))
        return self._task(self.layers, tuple(self.images[i] for i in chosen), 0)

    def _task(
        self, layers: tuple[LayerShape, ...], images: tuple[str, ...], start: int, *, again: str | None = None
    ) -> ExtractTask:
        recording = self.recording
        return ExtractTask(
            self.url, self.snapshot.name, self.spec, recording.preprocess, layers, image_folder(self.probe).of(images),
            images, start, recording.batch, recording.device, recording.threads, recording.autocast, self.fingerprint,
            self.described.weights, recording.allow_nondeterministic, again,
        )  # fmt: skip
