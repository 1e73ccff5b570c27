"""Runs the stages of a recipe in order: the probe, then for each snapshot activations and dissection.

Knows: which store each stage reads and writes, and which stages are finished already.
Does not know: how a stage computes, or how results are shown.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dissect_xr import store
from dissect_xr.activations.extract import Extraction, Recording, check_same, extract, prepare_extraction
from dissect_xr.activations.images import Preprocess
from dissect_xr.activations.sources import ModelSpec
from dissect_xr.activations.store import SnapshotInfo
from dissect_xr.cli.recipe import BrodenProbe, DigitsProbe, MasksProbe, Recipe
from dissect_xr.dissection.dissect import Method, dissect, is_dissected
from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.parallel.pool import Pool
from dissect_xr.parallel.retry import kept_failures
from dissect_xr.probe.colors import COLOR_NAMES
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.broden import read_broden
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.skip import without_bad_images
from dissect_xr.store import objects
from dissect_xr.store.repair import repair, sweep
from dissect_xr.store.verify import Damage


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
        part, model, layers = self.recipe.activations, self.recipe.model, self.recipe.layers
        return Recording(
            Preprocess(size=model.input_size, **model.preprocess.model_dump()),
            ("all",) if layers == "all" else tuple(layers),
            **part.model_dump(),
        )

    @cached_property
    def snapshots(self) -> list[tuple[SnapshotInfo, ModelSpec]]:
        """Every snapshot with its metrics, and the description of its model."""
        model = self.recipe.model
        names = [part.name for part in model.snapshots]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise DissectError(f"model.snapshots: the names {repeated} occur more than once. Rename the snapshots.")
        return [
            (
                SnapshotInfo(part.name, part.step, self._metrics.get(part.step, {}) | part.metrics),
                ModelSpec.of(model.factory, model.kwargs, part.weights, part.seed),
            )
            for part in model.snapshots
        ]

    @cached_property
    def _metrics(self) -> dict[int, dict[str, float]]:
        """Step -> metrics, from the file that the recipe names."""
        part = self.recipe.model.metrics
        if part is None:
            return {}
        try:
            records = json.loads(Path(part.file).read_text(encoding="utf-8"))
            return {
                int(record[part.step]): {name: float(record[key]) for name, key in part.columns.items()}
                for record in records
            }
        except FileNotFoundError as error:
            raise DissectError(
                f"model.metrics.file: expected a JSON file, but {part.file} does not exist. Correct the path."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            wanted = ", ".join([part.step, *part.columns.values()])
            raise DissectError(f"{part.file}: expected a JSON list of records with {wanted}: {error!r}.") from error

    def label_set(self) -> LabelSet:
        """The label set of the probe; composes the images of the built-in probe if they are missing."""
        part = self.recipe.probe
        match part:
            case BrodenProbe():
                found = read_broden(
                    part.folder, index=part.index, categories=part.categories, label_size=part.label_size
                )
            case MasksProbe():
                found = read_masks(
                    images=part.image_folder,
                    masks=part.mask_folder,
                    concepts=part.concepts,
                    label_size=part.label_size,
                    ignore=part.ignore,
                    categories=part.categories,
                )
            case DigitsProbe():
                if part.folder is None and not objects.is_local(self.out):
                    raise DissectError(
                        f"probe.folder: give a local folder for the images, since {self.out} is not local."
                    )
                folder = Path(part.folder or store.join(self.out, "digits"))
                if not (folder / "index.csv").exists():
                    write_digits(folder, images=part.count, size=part.size, seed=part.seed, show=self.show)
                found = read_broden(folder, categories=part.categories, label_size=part.label_size)
        found = found.subset(split=part.images.split, limit=part.images.limit).cropped(self.recording.preprocess.crop)
        return found.with_colors(COLOR_NAMES) if part.colors else found

    def probe(self) -> None:
        """Write the probe."""
        found = self.label_set()
        if self.recipe.skip_bad_images:
            found = without_bad_images(found, self.probe_url, pool=self.pool, show=self.show)
        write_probe(found, self.probe_url, pool=self.pool, show=self.show)

    def extraction(self, snapshot: SnapshotInfo, spec: ModelSpec) -> Extraction:
        """The extraction of one snapshot; nothing is written yet."""
        return prepare_extraction(self.activations_url, self.probe_url, snapshot, spec, self.recording, pool=self.pool)

    def extract(self) -> None:
        """Write the activations of every snapshot."""
        for snapshot, spec in self.snapshots:
            extract(self.extraction(snapshot, spec), pool=self.pool, show=self.show)

    def dissect(self) -> None:
        """Dissect all recorded activations."""
        dissect(
            self.activations_url,
            self.probe_url,
            self.dissection_url,
            method=self.method,
            pool=self.pool,
            show=self.show,
        )

    def run(self) -> None:
        """Run all stages, snapshot by snapshot.

        With `keep_activations: none` the activations of a snapshot are deleted after its dissection.

        Raises
        ------
        BlocksFailed
            After everything that does not depend on a failed block is finished.
        """
        self.probe()
        failures: list[Failed] = []
        for snapshot, spec in self.snapshots:
            with kept_failures(failures):
                self._snapshot(snapshot, spec)
        if failures:
            raise BlocksFailed(failures)

    def _snapshot(self, snapshot: SnapshotInfo, spec: ModelSpec) -> None:
        """Extract and dissect one snapshot."""
        extraction = self.extraction(snapshot, spec)
        check_same(extraction)
        dissected, keep = self._dissected(extraction), self.recipe.keep_activations == "all"
        if keep or not dissected:
            extract(extraction, pool=self.pool, show=self.show)
        if not dissected:
            dissect(
                self.activations_url,
                self.probe_url,
                self.dissection_url,
                method=self.method,
                only=[(snapshot.name, layer.name) for layer in extraction.layers],
                pool=self.pool,
                show=self.show,
            )
        if not keep and store.markers(self.activations_url, snapshot.name):
            store.remove(self.activations_url, snapshot.name)

    def repair(self, *, full: bool = False) -> list[Damage]:
        """The damage of all stores, after deleting the damaged objects, whose blocks are then computed again.

        Partial files that killed writers left are deleted as well. Compares sizes and metadata; with `full`, every
        byte.
        """
        damages = []
        for url in (self.probe_url, self.activations_url, self.dissection_url):
            sweep(url)
            damages += repair(url, full=full, show=self.show)
        return damages

    def _dissected(self, extraction: Extraction) -> bool:
        """Whether every layer of the snapshot is dissected, with the same inputs and method."""
        return all(
            is_dissected(
                self.dissection_url,
                f"{extraction.snapshot.name}/{layer.name}",
                self.method.inputs(extraction.layer_fingerprint(layer.name), self._probe_sha256),
            )
            for layer in extraction.layers
        )

    @cached_property
    def _probe_sha256(self) -> str:
        found = store.marker(self.probe_url, "done")
        return str(found["fingerprint"]) if found else ""
