"""Why a prediction, against contributions and masks that are known by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from planted import CLASSES, network, write_run

from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import Ablation, ablation
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.classes import Head, head_classes, open_classes
from dissect_xr.experiments.explanation import Explanation, explanation
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool, Threads

Stored = tuple[RunStores, Path]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Of each split 4 red images, 3 green and 2 blue ones."""
    return write_run(tmp_path_factory.mktemp("run"))


def explained(tmp_path: Path, stored: Stored, pool: Pool | None = None, **asked: Any) -> xr.Dataset:
    question, classes = Explanation(**asked), tmp_path / "c.zarr"
    url = tmp_path / f"e{len(list(tmp_path.iterdir()))}.zarr"
    return explanation(url, stored[0], classes, question, pool=pool or Threads(1), show=False).load()


@pytest.fixture(autouse=True)
def mistaken(stored: Stored, tmp_path: Path) -> None:
    """The planted head in `c.zarr`, measured on labels that call one green image blue and one blue image red."""
    text = stored[1].read_text()
    for name, label in (("green-1", "blue"), ("blue-0", "red")):
        text = text.replace(f"val-{name}.png,{name[:-2]},", f"val-{name}.png,{label},")
    (tmp_path / "labels.csv").write_text(text)
    labelled = class_table(tmp_path / "labels.csv", probe=stored[0].probe, outputs=CLASSES)
    head_classes(tmp_path / "c.zarr", stored[0], labelled, network(), Head("head", "relu", "s"), show=False)


def test_contributions_add_up_to_the_score(stored: Stored, tmp_path: Path) -> None:
    ds = explained(tmp_path, stored, right=3, wrong=2, units=2)
    # Right ones: of the largest margin first (blue), one of each class in turn. Wrong ones: as labelled above.
    assert ds["label"].values.tolist() == ["blue", "red", "green", "red", "blue"]
    assert ds["prediction"].values.tolist() == ["blue", "red", "green", "blue", "green"]
    assert ds["image"].values.tolist()[3:] == ["val-blue-0.png", "val-green-1.png"]
    np.testing.assert_allclose(ds["score"].values, [0.6, 0.5, 0.5, 0.6, 0.5], rtol=1e-6)
    np.testing.assert_allclose(ds["margin"].values, [0.6, 0.4, 0.4, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(ds["intercept"].values, [0.1, 0, 0, 0.1, 0], rtol=1e-6)
    assert ds["unit"].isel(rank=0).values.tolist() == ["relu/2", "relu/0", "relu/1", "relu/2", "relu/1"]
    assert ds["contribution"].values.tolist() == [[0.5, 0]] * 5
    assert ds["others"].values.tolist() == [0] * 5


def test_units_are_drawn_where_they_are_active(stored: Stored, tmp_path: Path, processes: Pool) -> None:
    asked = {"images": ("val-red-0.png", "val-blue-0.png"), "units": 4}
    ds = explained(tmp_path, stored, **asked)
    assert dict(ds["mask"].sizes) == {"image": 2, "rank": 4, "row": 8, "col": 8}
    share = {
        image: dict(zip(ds["unit"].values[n].tolist(), ds["mask"].values[n].mean((1, 2)).tolist(), strict=True))
        for n, image in enumerate(("red", "blue"))
    }
    assert share["red"] == {"relu/0": 1, "relu/1": 0, "relu/2": 0, "relu/3": 1}
    assert share["blue"] == {"relu/0": 0, "relu/1": 0, "relu/2": 1, "relu/3": 0}
    assert ds["concept_name"].values[:, 0].tolist() == ["red", "blue"]
    xr.testing.assert_identical(explained(tmp_path, stored, processes, **asked), ds)


def test_a_layer_may_have_any_name(tmp_path: Path) -> None:
    run, table = write_run(tmp_path / "run", layers=("a/relu",), factory="Slashed")
    labelled, net = class_table(table, probe=run.probe, outputs=CLASSES), network("Slashed")
    ds = ablation(tmp_path / "a.zarr", run, labelled, net, Ablation("a/relu", "s", sizes=(1,)), show=False)
    assert ds["unit"].values.tolist() == [f"a/relu/{n}" for n in range(4)]
    assert ds["concept_name"].values.tolist() == ["red", "green", "blue", "red"]
    head_classes(tmp_path / "h.zarr", run, labelled, net, Head("head", "a/relu", "s"), show=False)
    why = explanation(tmp_path / "w.zarr", run, tmp_path / "h.zarr", Explanation(right=1, wrong=0, units=1), show=False)
    assert why["unit"].values.tolist() == [["a/relu/2"]]
    assert why["mask"].values.all()


def test_a_finished_explanation_is_opened_and_other_inputs_are_refused(stored: Stored, tmp_path: Path) -> None:
    url, arguments = tmp_path / "e.zarr", (stored[0], tmp_path / "c.zarr")
    first = explanation(url, *arguments, Explanation(units=2), show=False).load()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    xr.testing.assert_identical(explanation(url, *arguments, Explanation(units=2), show=False).load(), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(DissectError, match="units was 2, is 3"):
        explanation(url, *arguments, Explanation(units=3), show=False)


def test_what_cannot_be_explained_is_refused(stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"image 'train-red-0.png' was not classified"):
        explained(tmp_path, stored, images=("train-red-0.png",))
    with pytest.raises(DissectError, match=r"fraction 0.25 was not dissected; there are 0.5"):
        explained(tmp_path, stored, fraction=0.25)
    with pytest.raises(DissectError, match="at least one image and one unit, got right=0, wrong=0"):
        Explanation(right=0, wrong=0)
    other, _ = write_run(tmp_path / "other", twice=True)
    with pytest.raises(DissectError, match="its weights are of other activations of s/relu"):
        explanation(tmp_path / "x.zarr", other, tmp_path / "c.zarr", show=False)
    with pytest.raises(DissectError, match="expected a finished experiment, found none"):
        open_classes(tmp_path / "nothing.zarr")
