"""What can take long shows its progress unless it is silenced: every function with the parameter `show`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_case
from runs import NETWORK

import dissect_xr
from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo
from dissect_xr.activations.write import write_activations
from dissect_xr.dissection.dissect import dissect
from dissect_xr.dissection.method import Method
from dissect_xr.exemplars.masks import Stores
from dissect_xr.exemplars.top_images import exemplars, iou_images
from dissect_xr.io.export import write_table
from dissect_xr.plot.compare import before_after
from dissect_xr.plot.units import gallery
from dissect_xr.probe.digits.write import write_digits
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import LabelSet
from dissect_xr.probe.readers.masks import read_masks
from dissect_xr.probe.skip import without_bad_images
from dissect_xr.probe.sources.rare import without_rare_concepts
from dissect_xr.report.write import write_report
from dissect_xr.store.repair import repair
from dissect_xr.store.verify import expected, read_all, verify

BESIDE = {"dissect_xr.parallel.progress.track", "dissect_xr.cli.start.open_run", "dissect_xr.cli.run.Run"}
"""Have the parameter, and hand it on: the bar itself, and what the command line's `--quiet` goes to."""

INNER = {
    f"dissect_xr.{name}"
    for name in (
        "activations.recording.kept.choose_bounds", "cli.commands.check.export_probe", "cli.label_sets.Stage",
        "experiments.linear.counts.ClassWork", "experiments.replay.passes.Passes", "experiments.results.compute_pass",
        "probe.check.survey.survey_probe", "probe.root.follow_images", "survey.page.write_page",
        "survey.write.write_planned",
    )
}  # fmt: skip
"""Parts of functions that people call, which hand the parameter to them."""

ELSEWHERE = {
    f"dissect_xr.{name}"
    for name in (
        "activations.recording.kept.extract_again", "bases.derive.derive",
        "experiments.ablation.ablation", "experiments.cam.cam",
        "experiments.classes.fitted_classes", "experiments.classes.head_classes", "experiments.explanation.explanation",
        "experiments.localisation.grad_cam.grad_cam",
        "io.broden.write_broden", "plot.experiments.classes.class_units", "probe.check.findings.check_probe",
        "segmenters.agreement.with_agreement", "segmenters.predict.predict",
        "probe.readers.unpacked.arrays.probe_from_arrays", "report.check_page.write_check", "survey.write.write_survey",
    )
}  # fmt: skip
"""Need more than a run of this file to be called; tests of their own call them."""

LONG = {"run", "probe", "extract", "dissect", "report", "export", "verify", "survey", "check", "experiment"}
"""Commands that can take long."""


def label_set(run: Path) -> LabelSet:
    return read_masks(images=run / "images", masks=run / "masks", concepts=run / "concepts.yaml")


def stores(run: Path) -> Stores:
    return Stores(str(run / "activations.zarr"), str(run / "probe.zarr"))


def extracted(run: Path, to: Path, **options: Any) -> None:
    (to / "network.py").write_text(NETWORK)
    model = ModelSpec.of(f"{to}/network.py:Small", seed=0)
    look = Recording(Preprocess((24, 24)), layers=("first",))
    planned = prepare_extraction(str(to / "a.zarr"), str(run / "probe.zarr"), SnapshotInfo("s", step=0), model, look)
    extract(planned, **options)


def dissected(run: Path, to: Path, **options: Any) -> None:
    urls = (str(run / "activations.zarr"), str(run / "probe.zarr"), str(to / "d.zarr"))
    dissect(*urls, method=Method(report_case.FRACTIONS, "half_pixel"), **options)


def last(run: Path) -> Any:
    return report_case.results(run).isel(snapshot=-1)


CALLS: dict[Callable[..., Any], Callable[..., Any]] = {
    write_digits: lambda run, to, **show: write_digits(to / "digits", images=2, size=64, **show),
    write_probe: lambda run, to, **show: write_probe(label_set(run), str(to / "p.zarr"), **show),
    without_rare_concepts: lambda run, to, **show: without_rare_concepts(label_set(run), 1, **show),
    without_bad_images: lambda run, to, **show: without_bad_images(label_set(run), str(to / "p.zarr"), **show),
    extract: extracted,
    write_activations: lambda run, to, **show: write_activations(
        str(to / "a.zarr"), {"conv": np.ones((2, 3, 4, 4), np.float16)}, images=["a", "b"], **show
    ),
    dissect: dissected,
    exemplars: lambda run, to, **show: list(exemplars(last(run), stores(run), ["conv1/0"], **show)),
    iou_images: lambda run, to, **show: iou_images(last(run), stores(run), "conv1/0", 1, **show),
    gallery: lambda run, to, **show: gallery(last(run), stores(run), ["conv1/0"], **show),
    before_after: lambda run, to, **show: before_after(
        report_case.results(run), stores(run), ("early", "late"), units=["conv1/0"], **show
    ),
    write_table: lambda run, to, **show: write_table(last(run).expand_dims("snapshot"), to / "t.csv", "csv", **show),
    write_report: lambda run, to, **show: write_report(str(run), to / "report", exemplars=1, **show),
    verify: lambda run, to, **show: verify(str(run), **show),
    read_all: lambda run, to, **show: list(read_all(expected(str(run / "probe.zarr")), **show)),
    repair: lambda run, to, **show: repair(str(run / "probe.zarr"), full=True, **show),
}
"""Each of them, and a call that takes moments."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_case.write_run(tmp_path_factory.mktemp("run"))


def test_all_that_has_the_parameter_is_called_here_and_shows_by_default() -> None:
    found = {}
    for module in pkgutil.walk_packages(dissect_xr.__path__, "dissect_xr."):
        if module.name == "dissect_xr.__main__":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or not callable(value) or getattr(value, "__module__", "") != module.name:
                continue
            known = inspect.isfunction(value) or is_dataclass(value)
            parameters = inspect.signature(value).parameters if known else {}
            if "show" in parameters:
                found[f"{module.name}.{name}"] = parameters["show"]
    assert {f"{call.__module__}.{call.__name__}" for call in CALLS} == set(found) - BESIDE - INNER - ELSEWHERE
    assert set(found) >= INNER | ELSEWHERE
    outer = {name: parameter for name, parameter in found.items() if name not in INNER}
    assert all(outer[name].default is True for name in outer if name != "dissect_xr.cli.start.open_run")
    assert all(
        parameter.kind is parameter.KEYWORD_ONLY for name, parameter in outer.items() if not name.endswith("Run")
    )


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_it_shows_unless_silenced(
    function: Callable[..., Any], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for name, options in {"default": {}, "shown": {"show": True}, "silenced": {"show": False}}.items():
        (tmp_path / name).mkdir()
        capsys.readouterr()
        CALLS[function](run, tmp_path / name, **options)
        said[name] = capsys.readouterr()
    assert {out for out, _ in said.values()} == {""}
    assert "blocks" in said["default"].err
    assert "blocks" in said["shown"].err
    assert said["silenced"].err == ""


def test_commands_that_take_long_can_be_silenced() -> None:
    from typer.main import get_command

    from dissect_xr.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert {name for name, one in commands.items() if any("--quiet" in part.opts for part in one.params)} == LONG
