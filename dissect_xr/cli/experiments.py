"""Does the experiments of a recipe, after the counts, and says where their results and figures are.

Knows: which experiment a part of a recipe asks for, which stores it takes, which one it writes.
Does not know: how an experiment is computed or drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich.markup import escape

from dissect_xr import store
from dissect_xr.cli.fields.experiments import (
    AblationPart,
    CamPart,
    ClassesPart,
    Experiment,
    ExplanationPart,
    GradCamPart,
    LabelsPart,
)
from dissect_xr.cli.run import Run
from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import Ablation, ablation
from dissect_xr.experiments.cam import Cam, cam
from dissect_xr.experiments.class_labels import Labelled, category_classes, class_table, outputs_of
from dissect_xr.experiments.classes import Head, Machines, fitted_classes, head_classes
from dissect_xr.experiments.explanation import Explanation, explanation
from dissect_xr.experiments.localisation.grad_cam import GradCam, grad_cam
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.results import experiment_url
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool
from dissect_xr.store import objects


@dataclass(frozen=True)
class Finished:
    """An experiment whose result is there."""

    name: str
    kind: str
    url: str
    fresh: bool
    """whether it was finished by this run"""


def check_experiments(run: Run) -> None:
    """Raise if the recipe's experiments cannot be done, as far as that is told before anything runs.

    Raises
    ------
    DissectError
        Naming the experiment, and what it lacks.
    """
    parts = run.recipe.experiments
    names = [part.called for part in parts]
    snapshots = [snapshot.name for snapshot, _ in run.snapshots]
    for n, part in enumerate(parts):
        where = f"experiments.{n} ({part.called})"
        if part.called in names[:n]:
            raise DissectError(f"{where}: another experiment has this name. Give each a `name` of its own.")
        if part.kind not in ("ablation", "grad_cam") and run.recipe.activations.keep == "none":
            raise DissectError(
                f"{where}: needs the stored activations, which activations.keep: none removes. Use keep: dense or tail."
            )
        if part.kind == "cam" and run.recipe.activations.keep == "tail":
            raise DissectError(f"{where}: adds up whole maps, of which keep: tail stores a part. Use keep: dense.")
        concepts = part.concepts if isinstance(part, CamPart | GradCamPart) else None
        if isinstance(concepts, str) and not Path(concepts).is_file():
            raise DissectError(f"{where}: expected concepts at {concepts}, found no file. Correct the path.")
        if isinstance(part, ExplanationPart | CamPart):
            if part.classes not in [one.called for one in parts[:n] if one.kind == "classes"]:
                raise DissectError(
                    f"{where}: expected an experiment of the kind classes, called '{part.classes}', before it in the "
                    "list. Add one, or correct `classes`."
                )
            _question(run, part)
            continue
        if part.snapshot is not None and part.snapshot not in snapshots:
            raise DissectError(f"{where}: no snapshot '{part.snapshot}' in the recipe; there are {snapshots}.")
        needs_order = not isinstance(part, ClassesPart) or part.head is not None
        if needs_order and part.labels.outputs is None:
            raise DissectError(
                f"{where}: which class is which score of the network is not known. Give labels.outputs: the names of "
                "the classes in the order of the network's scores."
            )
        for given in (part.labels.table, part.labels.folder):
            if given is not None and not Path(given).exists():
                raise DissectError(f"{where}: expected labels at {given}, found nothing. Correct the path.")
        outputs_of(part.labels.outputs)
        _question(run, part)


def run_experiments(run: Run, only: Sequence[str] = ()) -> list[Finished]:
    """Do the recipe's experiments that are not finished, in its order, or those of these names; all that are there.

    Raises
    ------
    DissectError
        If there is no experiment of such a name, or one cannot be done.
    """
    parts = run.recipe.experiments
    if unknown := [name for name in only if name not in [part.called for part in parts]]:
        known = ", ".join(part.called for part in parts) or "none"
        raise DissectError(f"--only {unknown[0]}: the recipe has no such experiment; there are {known}.")
    found = []
    for part in parts:
        if only and part.called not in only:
            continue
        url = experiment_url(run.out, part.called)
        was_there = store.marker(url, "done") is not None
        _check_dissected(run, part)
        _do(run, part, url)
        found.append(Finished(part.called, part.kind, url, not was_there))
    return found


def _check_dissected(run: Run, part: Experiment) -> None:
    """Raise unless the snapshot is dissected: a result without what its units detect could not be completed later."""
    if isinstance(part, ExplanationPart | CamPart):
        return  # its experiment of classes was checked
    snapshot = _snapshot(run, part)
    if store.marker(run.dissection_url, f"{snapshot}/done") is None:
        raise DissectError(
            f"experiment {part.called}: snapshot {snapshot} is not dissected. Give the `run` command: it does the "
            "experiments after the counts."
        )


def _question(run: Run, part: Experiment) -> Ablation | Machines | Head | Explanation | Cam | GradCam:
    """What the part asks; raises where that makes no sense."""
    match part:
        case AblationPart():
            curves = None if part.curves == "all" else () if part.curves == "none" else tuple(part.curves)
            return Ablation(
                part.layer, _snapshot(run, part), part.ranked_on, part.measured_on, part.level, tuple(part.sizes),
                curves, part.greedy, part.fraction,
            )  # fmt: skip
        case ClassesPart(head=None):
            return Machines(
                part.layer, _snapshot(run, part), part.fitted_on, part.measured_on, part.c, part.scaling, part.fraction
            )
        case ClassesPart():
            return Head(str(part.head), part.layer, _snapshot(run, part), part.measured_on, part.fraction)
        case ExplanationPart():
            images = None if part.images is None else tuple(part.images)
            return Explanation(part.right, part.wrong, images, part.units, part.fraction)
        case CamPart():
            return Cam(part.concepts, part.share)
        case GradCamPart():
            return GradCam(part.layer, _snapshot(run, part), part.measured_on, part.concepts, part.share)


def _do(run: Run, part: Experiment, url: str) -> None:
    """Do one experiment."""
    stores, how = RunStores(run.probe_url, run.activations_url, run.dissection_url), _How(pool=run.pool, show=run.show)
    asked = _question(run, part)
    if isinstance(part, ExplanationPart):
        assert isinstance(asked, Explanation)
        explanation(url, stores, experiment_url(run.out, part.classes), asked, **how)
        return
    if isinstance(part, CamPart):
        assert isinstance(asked, Cam)
        cam(url, stores, experiment_url(run.out, part.classes), asked, **how)
        return
    labelled = _labels(run, part.labels)
    match asked:
        case Ablation():
            ablation(url, stores, labelled, _network(run, part), asked, **how)
        case Machines():
            fitted_classes(url, stores, labelled, asked, **how)
        case Head():
            head_classes(url, stores, labelled, _network(run, part), asked, **how)
        case GradCam():
            grad_cam(url, stores, labelled, _network(run, part), asked, **how)


class _How(TypedDict):
    pool: Pool
    show: bool


def _labels(run: Run, part: LabelsPart) -> Labelled:
    if part.category is not None:
        return category_classes(run.probe_url, part.category, outputs=part.outputs)
    probe = run.probe_url if part.folder is None else None
    return class_table(str(part.table), probe=probe, folder=part.folder, outputs=part.outputs)


def _snapshot(run: Run, part: AblationPart | ClassesPart | GradCamPart) -> str:
    return part.snapshot or run.snapshots[-1][0].name


def _network(run: Run, part: AblationPart | ClassesPart | GradCamPart) -> Network:
    specs = {snapshot.name: spec for snapshot, spec in run.snapshots}
    return Network(specs[_snapshot(run, part)], run.recording)


def shown(out: str, found: Sequence[Finished]) -> Iterator[str]:
    """A line for the result of each experiment and one for its figure, which is drawn where it is not there."""
    for one in found:
        if objects.is_local(out):
            path = Path(out, "figures", f"experiment-{one.name}.png")
            if one.fresh or not path.is_file():
                from dissect_xr.plot.experiments.figures import save_figure

                save_figure(one.url, one.kind, RunStores.of(out), path)
            yield f"figure: {escape(str(path))}"
        yield f"experiment {escape(one.name)}: {escape(one.url)}"
