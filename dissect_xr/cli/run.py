"""Runs the stages of a recipe in order: the probe, then for each snapshot activations and dissection.

Knows: which store each stage reads and writes, and which stages are finished already.
Does not know: how a stage computes, or how results are shown.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dissect_xr import store
from dissect_xr.activations.request import Keep, ModelSpec, Recording, SnapshotInfo, request_sha256
from dissect_xr.cli.derived import derived_as_asked, dissected_fingerprints, write_derived
from dissect_xr.cli.fields.derived import Wanted, wanted
from dissect_xr.cli.fields.layers import choices
from dissect_xr.cli.fields.model import SnapshotPart
from dissect_xr.cli.label_sets import Stage, label_set
from dissect_xr.cli.metrics import known, read_metrics
from dissect_xr.cli.recipe import MergedProbe, Recipe
from dissect_xr.dissection.method import Method
from dissect_xr.errors import BlocksFailed, BoundTooHighError, DissectError, Failed
from dissect_xr.experiments.results import experiment_url
from dissect_xr.parallel.pool import Pool, run_tasks
from dissect_xr.parallel.retry import kept_failures
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.skip import without_bad_images
from dissect_xr.probe.sources.rare import without_rare_concepts
from dissect_xr.schema import layer_path, to_json
from dissect_xr.store.repair import repair, sweep
from dissect_xr.store.verify import PREDICTED, Damage, marked_stores
from dissect_xr.tail.sampling import Sampling

if TYPE_CHECKING:
    from dissect_xr.activations.recording.extraction import Described, Extraction


@dataclass(frozen=True)
class Run:
    """One recipe in one output directory."""

    recipe: Recipe
    out: str
    pool: Pool
    show: bool = True

    @property
    def probe_url(self) -> str:
        """`probe.zarr`"""
        return store.join(self.out, "probe.zarr")

    @property
    def activations_url(self) -> str:
        """`activations.zarr`"""
        return store.join(self.out, "activations.zarr")

    @property
    def dissection_url(self) -> str:
        """`dissection.zarr`"""
        return store.join(self.out, "dissection.zarr")

    @cached_property
    def method(self) -> Method:
        """The parameters of the dissection."""
        part = self.recipe.dissect
        return Method(tuple(part.fractions), part.anchoring, part.domain)

    @cached_property
    def recording(self) -> Recording:
        """How activations are recorded."""
        part, model = self.recipe.activations, self.recipe.model
        if part.keep == "tail" and self.recipe.derived:
            raise DissectError(
                "derived: layers are derived from all cells, of which keep: tail stores a part. Use keep: dense."
            )
        # What is dropped once it is dissected need not hold more than that needs: all cells for derived layers.
        if part.keep == "none":
            keep: Keep = "dense" if self.recipe.derived else "tail"
        else:
            keep = part.keep
        return Recording(
            model.preprocessing(),
            choices(self.recipe.layers),
            keep=keep,
            sampling=Sampling(max(self.method.fractions), part.margin, part.sample),
            **part.model_dump(exclude={"placement", "keep", "margin", "sample"}),
        )

    @cached_property
    def snapshots(self) -> list[tuple[SnapshotInfo, ModelSpec]]:
        """Every snapshot with its metrics, and the description of its model."""
        model = self.recipe.model
        names = [part.name for part in model.snapshots]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise DissectError(f"model.snapshots: the names {repeated} occur more than once. Rename the snapshots.")
        specs = model.specs(self.recipe.activations.placement.placement())
        return [
            (
                SnapshotInfo(part.name, part.step, self._metrics_of(part)),
                specs[part.name],
            )
            for part in model.snapshots
        ]

    @cached_property
    def derived(self) -> list[Wanted]:
        """The layers that are dissected in other bases, too."""
        return wanted(self.recipe.derived, (part.name for part in self.recipe.model.snapshots))

    def derived_of(self, snapshot: str) -> list[Wanted]:
        """Those of one snapshot."""
        return [one for one in self.derived if snapshot in one.snapshots]

    def _metrics_of(self, part: SnapshotPart) -> dict[str, float]:
        """The metrics of a snapshot; NaN where the recipe names one and nothing says its value."""
        file = self.recipe.model.metrics
        named = dict.fromkeys([*(file.columns if file else ()), *part.metrics], math.nan)
        return named | self._metrics.get(part.step, {}) | known(part.metrics)

    @cached_property
    def _metrics(self) -> dict[int, dict[str, float]]:
        """Step -> metrics, from the file that the recipe names."""
        part = self.recipe.model.metrics
        return {} if part is None else read_metrics(part.file, step=part.step, columns=part.columns)

    def label_set(self, *, draw: bool = False) -> LabelSet:
        """The label set of the probe; composes the images of the built-in probe if they are missing.

        Segmenters draw their labels only if asked to `draw`.
        """
        part, crop = self.recipe.probe, self.recording.preprocess.crop
        found = label_set(part, Stage(self.out, self.show, self.pool if draw else None, self.probe_url, crop)).cropped(
            crop
        )
        return found.with_colors(COLOR_NAMES) if part.colors else found

    def probe(self) -> None:
        """Write the probe; says on stderr which files are passed over and which images are left out."""
        part, found = self.recipe.probe, self.label_set(draw=True)
        if self.recipe.skip_bad_images:
            found = without_bad_images(found, self.probe_url, pool=self.pool, show=self.show)
        if isinstance(part, MergedProbe) and part.min_images:
            found = without_rare_concepts(found, part.min_images, url=self.probe_url, pool=self.pool, show=self.show)
        for note in found.notes:
            print(note, file=sys.stderr)
        write_probe(found, self.probe_url, pool=self.pool, show=self.show)

    def describe(self, specs: Sequence[ModelSpec]) -> Mapping[ModelSpec, "Described"]:
        """What the models of these specs turn out to be; each is loaded once in a run."""
        from dissect_xr.activations.extract import describe

        missing = [spec for spec in dict.fromkeys(specs) if spec not in self.described]
        tasks = [(spec, self.recording) for spec in missing]
        gpus = max((spec.gpus for spec in missing), default=1)
        self.described.update({spec: found for (spec, _), found in run_tasks(self.pool, describe, tasks, gpu=gpus)})
        return self.described

    @cached_property
    def described(self) -> dict[ModelSpec, "Described"]:
        """What the models turned out to be that were loaded so far."""
        return {}

    def extraction(self, snapshot: SnapshotInfo, spec: ModelSpec) -> "Extraction":
        """The extraction of one snapshot; its model is loaded if it was not yet."""
        from dissect_xr.activations.extract import prepare_extraction

        described = self.describe([spec])[spec]
        return prepare_extraction(
            self.activations_url, self.probe_url, snapshot, spec, self.recording, described=described, pool=self.pool
        )

    def extract(self) -> None:
        """Write the activations of every snapshot."""
        from dissect_xr.activations.extract import extract

        for snapshot, spec in self.snapshots:
            extract(self.extraction(snapshot, spec), pool=self.pool, show=self.show)

    def dissect(self, only: Sequence[tuple[str, str]] | None = None) -> None:
        """Dissect these (snapshot, layer) pairs, or all activations there are, and what is derived from them."""
        from dissect_xr.dissection.dissect import dissect
        from dissect_xr.dissection.layers import complete_snapshots

        if only is None and self.derived:
            for snapshot in complete_snapshots(self.activations_url):
                write_derived(self, snapshot.name)
        dissect(
            self.activations_url,
            self.probe_url,
            self.dissection_url,
            method=self.method,
            only=only,
            pool=self.pool,
            show=self.show,
        )

    def run(self) -> None:
        """All stages, snapshot by snapshot; `keep: none` removes a snapshot's once it is dissected.

        Raises
        ------
        BlocksFailed
            When all that does not need a failing block is finished.
        """
        self.probe()
        failures: list[Failed] = []
        finished = self.finished_snapshots()
        for snapshot, spec in self.snapshots:
            with kept_failures(failures):
                if snapshot.name not in finished:
                    self._snapshot(snapshot, spec)
                if not self._keeps and store.markers(self.activations_url, snapshot.name):
                    store.remove(self.activations_url, snapshot.name)
        if failures:
            raise BlocksFailed(failures)

    @property
    def _keeps(self) -> bool:
        return self.recipe.activations.keep != "none"

    def _snapshot(self, snapshot: SnapshotInfo, spec: ModelSpec) -> None:
        """Activations and dissection of one snapshot that is not finished."""
        from dissect_xr.activations.extract import check_same, extract
        from dissect_xr.activations.recording.kept import extract_again

        extraction = self.extraction(snapshot, spec)
        check_same(extraction)
        dissected = self._dissected(extraction)
        if self._keeps or not dissected:
            extract(extraction, pool=self.pool, show=self.show)
            write_derived(self, snapshot.name)
        if dissected:
            self._finish(extraction)
        else:
            names = [layer.name for layer in extraction.layers]
            names += [one.name for one in self.derived_of(snapshot.name)]
            pairs = [(snapshot.name, name) for name in names]
            try:
                self.dissect(pairs)
            except BoundTooHighError as found:
                units = ", ".join(f"{len(units)} of {layer}" for layer, units in found.layers.items())
                print(
                    f"{snapshot.name}: bounds were too high for some units ({units}): these layers are extracted "
                    "again, with all cells of these units.",
                    file=sys.stderr,
                )
                extract_again(extraction, found.layers, pool=self.pool, show=self.show)
                self.dissect(pairs)

    def finished_snapshots(self) -> set[str]:
        """Names of the snapshots of which all is done that the recipe asks, as far as that is told without models.

        What was asked for is compared by its fingerprint. Where it differs the model is loaded, and what it makes is
        compared in full.

        Raises
        ------
        DissectError
            Where one is done with another step or other metrics than the recipe gives it now.
        """
        probe, root = store.marker(self.probe_url, "done"), store.marker(self.dissection_url, "created")
        if probe is None or root is None:
            return set()
        if root["fingerprint"] != store.fingerprint(self.method.inputs(probe["fingerprint"])):
            return set()
        images = store.read_attrs(self.probe_url)["images_sha256"]
        dissected = [
            snapshot.name for snapshot, spec in self.snapshots if self._is_dissected_as_asked(snapshot, spec, images)
        ]
        if not self._keeps:
            return set(dissected)
        if store.marker(self.activations_url, "created") is None:
            return set()
        return {name for name in dissected if store.marker(self.activations_url, f"{name}/done") is not None}

    def _is_dissected_as_asked(self, snapshot: SnapshotInfo, spec: ModelSpec, images_sha256: str) -> bool:
        """Whether a snapshot's dissection is finished, from what the recipe asks for."""
        dissected = store.marker(self.dissection_url, f"{snapshot.name}/done")
        if dissected is None:
            return False
        if dissected["note"]["request_sha256"] != request_sha256(spec, self.recording, images_sha256):
            return False
        if not derived_as_asked(self, snapshot.name, dissected["note"]["layers"]):
            return False
        stored = {name: dissected["note"][name] for name in ("step", "metrics")}
        asked = {"step": snapshot.step, "metrics": to_json(snapshot.metrics or {})}
        if store.fingerprint(stored) != store.fingerprint(asked):
            raise DissectError(
                f"{self.dissection_url}: snapshot {snapshot.name} is stored with {stored}, the recipe says "
                f"{asked}. Give the recipe what is stored, or use another --out."
            )
        return True

    def repair(self, *, full: bool = False) -> list[Damage]:
        """The damage of all stores, after deleting the damaged objects, whose blocks are then computed again.

        Partial files that killed writers left are deleted as well. Compares sizes and metadata; with `full`, every
        byte.
        """
        damages = []
        experiments = [experiment_url(self.out, part.called) for part in self.recipe.experiments]
        drawn = marked_stores(self.out, PREDICTED)
        for url in (*drawn, self.probe_url, self.activations_url, self.dissection_url, *experiments):
            damages += repair(url, full=full, sizes=sweep(url), show=self.show)
        return damages

    def _dissected(self, extraction: "Extraction") -> bool:
        """Whether every layer of the snapshot is dissected, from these activations by this method."""
        from dissect_xr.dissection.layers import layer_fingerprint
        from dissect_xr.dissection.store import check_root, is_dissected

        probe = store.marker(self.probe_url, "done")
        if probe is None:
            return False
        check_root(self.dissection_url, probe["fingerprint"], self.method)
        name = extraction.snapshot.name
        keys = store.markers(self.dissection_url, name)
        made = {la.name: layer_fingerprint(extraction.fingerprint, la.name) for la in extraction.layers}
        derived = dissected_fingerprints(self, name, made)
        if derived is None:
            return False
        return all(
            is_dissected(
                self.dissection_url,
                layer_path(name, layer),
                fingerprint,
                probe["fingerprint"],
                self.method,
                keys,
            )
            for layer, fingerprint in (made | derived).items()
        )

    def _finish(self, extraction: "Extraction") -> None:
        """Write what all layers of a dissected snapshot share, and its end, where either is lost."""
        from dissect_xr.dissection.dissect import finish
        from dissect_xr.dissection.layers import Snapshot, layer_fingerprint

        info, fingerprint = extraction.snapshot, extraction.fingerprint
        layers = {layer.name: layer_fingerprint(fingerprint, layer.name) for layer in extraction.layers}
        request = request_sha256(extraction.spec, extraction.recording, extraction.images_sha256)
        snapshot = Snapshot(info.name, info.step, dict(info.metrics or {}), layers, request)
        finish(self.probe_url, self.dissection_url, snapshot, self.method)
