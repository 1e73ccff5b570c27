"""What a class uses, against planted weights and scikit-learn."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr
from planted import CLASSES, network, write_colors, write_run
from sklearn.svm import LinearSVC

from dissect_xr import store
from dissect_xr.errors import DissectError
from dissect_xr.experiments import classes as module
from dissect_xr.experiments.ablation import Ablation, ablation
from dissect_xr.experiments.class_labels import Labelled, category_classes, class_table
from dissect_xr.experiments.classes import Head, Machines, class_specific, fitted_classes, head_classes
from dissect_xr.experiments.linear import features
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool, Threads

HEAD = Head("head", "relu", "s")

Stored = tuple[RunStores, Path]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def labelled(stored: Stored) -> Labelled:
    """Of each split 4 red images, 3 green and 2 blue ones."""
    return class_table(stored[1], probe=stored[0].probe, outputs=CLASSES)


def of_head(url: Path, stored: Stored, labelled: Labelled, head: Head = HEAD, **options: Any) -> xr.Dataset:
    return head_classes(url, stored[0], labelled, network(**options), head, pool=Threads(1), show=False).load()


def test_a_planted_head_is_read(stored: Stored, labelled: Labelled, tmp_path: Path) -> None:
    ds = of_head(tmp_path / "c.zarr", stored, labelled)
    assert ds["weight"].values.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(ds["intercept"].values, np.array([0, 0, 0.1], np.float32))
    assert ds["split"].values.tolist() == ["val"]
    assert ds["recall"].values.tolist() == [[1, 1, 1]]
    assert (ds["prediction"] == ds["label"]).all()
    # Scores of a red image are 0.5, 0 and 0.1, of a blue one 0, 0 and 0.6.
    np.testing.assert_allclose(ds["margin"].values, [0.4] * 4 + [0.4] * 3 + [0.6] * 2, rtol=1e-6)
    assert ds["concept_name"].values.tolist() == ["red", "green", "blue", "red"]
    assert ds["iou"].values.tolist() == [1, 1, 1, 1]


def test_class_specific_units_have_weight_concept_and_iou(stored: Stored, labelled: Labelled, tmp_path: Path) -> None:
    top = class_specific(of_head(tmp_path / "c.zarr", stored, labelled), most=2)
    assert top["unit"].values.tolist() == [["relu/0", "relu/1"], ["relu/1", "relu/0"], ["relu/2", "relu/0"]]
    assert top["weight"].values.tolist() == [[1, 0], [1, 0], [1, 0]]
    assert top["concept_name"].isel(rank=0).values.tolist() == list(CLASSES)
    assert top["iou"].values.tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Head("seen", "relu", "s"), r"head seen: expected weights for 3 classes and the 4 units of relu, got \(4, 3\)"),
        (Head("relu", "relu", "s"), "expected a linear module or a convolution of 1 x 1 cells, got a ReLU"),
        (Head("neck", "relu", "s"), "the model has no module 'neck'"),
        (Head("head", "nowhere", "s"), "the activations of s/nowhere are not complete"),
        (Head("head", "relu", "t"), "has no activations of snapshot t.*activations.keep: dense or tail"),
    ],
)
def test_a_head_that_is_none_is_refused(
    head: Head, message: str, stored: Stored, labelled: Labelled, tmp_path: Path
) -> None:
    with pytest.raises(DissectError, match=message):
        of_head(tmp_path / "c.zarr", stored, labelled, head)


def test_a_head_of_something_else_than_the_means_is_refused(stored: Stored, labelled: Labelled, tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"expected scores that are linear in the means of relu.*differ .* by up to"):
        of_head(tmp_path / "c.zarr", stored, labelled, factory="Squared")


def fitted(url: Path, stored: Stored, labelled: Labelled, pool: Pool | None = None, **asked: Any) -> xr.Dataset:
    question = Machines("relu", "s", **asked)
    return fitted_classes(url, stored[0], labelled, question, pool=pool or Threads(2), show=False).load()


@pytest.mark.parametrize(("scaling", "c"), [("none", 0.001), ("none", 10.0), ("std", 0.1)])
def test_machines_are_those_of_scikit_learn(
    scaling: str, c: float, stored: Stored, labelled: Labelled, tmp_path: Path
) -> None:
    ds = fitted(tmp_path / "c.zarr", stored, labelled, scaling=scaling, c=c)
    x = np.repeat([[0.5, 0, 0, 0.5], [0, 0.5, 0, 0], [0, 0, 0.5, 0]], (4, 3, 2), axis=0)
    y = np.repeat([0, 1, 2], (4, 3, 2))
    scale = np.ones(4) if scaling == "none" else x.std(axis=0)
    np.testing.assert_allclose(ds["scale"].values, scale, rtol=1e-15)
    for one in range(3):
        machine = LinearSVC(C=c, dual=False, max_iter=10_000).fit(x / scale, y == one)
        np.testing.assert_allclose(ds["weight"].values[one], machine.coef_[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ds["intercept"].values[one], machine.intercept_[0], rtol=1e-9)
    assert ds["converged"].all()
    if c > 1:  # at the small C of the paper, so few images of such small features are not told apart
        assert ds["recall"].values.tolist() == [[1, 1, 1]] * 2
        top = class_specific(ds, most=2)
        assert top["concept_name"].values[:, 0].tolist() == list(CLASSES)
        assert top["unit"].values[0].tolist() == ["relu/0", "relu/3"], "equal weights in the order of units"


def test_the_same_for_every_cut_and_pool(stored: Stored, labelled: Labelled, tmp_path: Path, processes: Pool) -> None:
    one = fitted(tmp_path / "one.zarr", stored, labelled, c=1.0)
    with patch.object(module, "CLASSES_OF_TASK", 1), patch.object(features, "BLOCK", 64):
        two = fitted(tmp_path / "two.zarr", stored, labelled, processes, c=1.0)
    xr.testing.assert_identical(one, two)


def test_a_finished_result_is_opened_and_other_inputs_are_refused(
    stored: Stored, labelled: Labelled, tmp_path: Path
) -> None:
    first = fitted(tmp_path / "c.zarr", stored, labelled)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    xr.testing.assert_identical(fitted(tmp_path / "c.zarr", stored, labelled), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(DissectError, match=r"c was 0.001, is 0.01\. Give"):
        fitted(tmp_path / "c.zarr", stored, labelled, c=0.01)


def test_memory_is_known_before_anything_is_fitted(stored: Stored, labelled: Labelled, tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"classes of s/relu: a task needs"):
        fitted(tmp_path / "c.zarr", stored, labelled, Threads(1, memory=1000))
    assert store.marker(str(tmp_path / "c.zarr"), "created") is None


@pytest.mark.parametrize(
    ("arguments", "message"), [({"c": 0}, "a C above 0"), ({"measured_on": "train"}, r"on the same images \(train\)")]
)
def test_a_question_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DissectError, match=message):
        Machines("relu", "s", **arguments)


def test_a_class_that_was_never_fitted_is_refused(stored: Stored, tmp_path: Path) -> None:
    rows = [row for row in stored[1].read_text().splitlines() if not row.startswith("train-blue")]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    labelled = class_table(tmp_path / "labels.csv", probe=stored[0].probe)
    with pytest.raises(DissectError, match="class 'blue' has images, but none in the split 'train'"):
        fitted(tmp_path / "c.zarr", stored, labelled)


def test_images_of_no_probe_have_no_features(stored: Stored, tmp_path: Path) -> None:
    labelled = class_table(write_colors(tmp_path / "other"), folder=tmp_path / "other")
    with pytest.raises(DissectError, match="these labelled images are no probe's"):
        fitted(tmp_path / "c.zarr", stored, labelled)
    other, table = write_run(tmp_path / "more", each=(4, 3, 3))
    with pytest.raises(DissectError, match="is of other images than those that are labelled"):
        fitted(tmp_path / "c.zarr", stored, class_table(table, probe=other.probe))


def test_ablation_joins_what_the_units_detect(stored: Stored, labelled: Labelled, tmp_path: Path) -> None:
    asked = Ablation("relu", "s", sizes=(1,))
    ds = ablation(tmp_path / "a.zarr", stored[0], labelled, network(), asked, pool=Threads(1), show=False).load()
    assert ds["concept_name"].values.tolist() == ["red", "green", "blue", "red"]
    assert ds["iou"].values.tolist() == [1, 1, 1, 1]
    assert ds.attrs["joined_fraction"] == 0.5
    assert ds["importance"].sel({"split": "val", "class": "red"}).values.tolist() == [0.5, 0, 0, 0]
    with pytest.raises(DissectError, match=r"was recorded with the weights .*, the network has"):
        ablation(tmp_path / "b.zarr", stored[0], labelled, network(twice=True), asked, show=False)


def test_classes_of_a_category_of_a_probe(stored: Stored) -> None:
    with pytest.raises(DissectError, match="no image has a whole-image label"):
        category_classes(stored[0].probe, "object")
