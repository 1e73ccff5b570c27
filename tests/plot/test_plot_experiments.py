"""Figures of experiments: what is drawn is what was found."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from pictured import pictured
from questions import CLASSES, ablated, classified, explained

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import important_classes
from dissect_xr.experiments.classes import class_specific
from dissect_xr.plot.experiments.ablation import ablation_curves, importance_and_iou
from dissect_xr.plot.experiments.classes import best_recognised, class_units
from dissect_xr.plot.experiments.explanation import explained_images
from dissect_xr.probe.ingest import open_probe


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.get_lines()}


def test_curves_are_means_over_the_classes() -> None:
    ds = ablated()
    drawn = lines(ablation_curves(ds))
    top = ds["curve"].sel(order="ranked", ablated="top").mean("class")
    np.testing.assert_allclose(drawn["the most important units"], np.stack([ds["size"], top], axis=1))
    assert len(drawn["chosen greedily"]) == 4, "sizes that were not measured are not drawn"
    assert "all but those chosen greedily" not in drawn
    assert drawn["nothing ablated"][0, 1] == pytest.approx(0.94)
    one = lines(ablation_curves(ds, classes=["beach"]))
    np.testing.assert_allclose(
        one["the most important units"][:, 1], ds["curve"].sel({"class": "beach", "order": "ranked", "ablated": "top"})
    )


def test_classes_without_curves_are_refused() -> None:
    ds = ablated()
    ds["curve"] = ds["curve"].where(ds["class"] != "beach")
    with pytest.raises(DissectError, match="none of these classes has curves"):
        ablation_curves(ds, classes=["beach"])


def test_points_are_the_units() -> None:
    ds = ablated()
    ds["importance"] = ds["curve"]  # must not be read: the order follows from the counts
    ax = importance_and_iou(ds)
    points = np.concatenate([np.asarray(part.get_offsets()) for part in ax.collections])
    wanted = np.stack([important_classes(ds).values, ds["iou"].values], axis=1)
    assert sorted(map(tuple, points.tolist())) == sorted(map(tuple, wanted.tolist()))
    ds["iou"] = ds["iou"] * np.nan
    with pytest.raises(DissectError, match="layer conv5 is not dissected"):
        importance_and_iou(ds)


def test_rows_are_the_units_of_the_largest_weights() -> None:
    with pictured() as (ds, stores):
        base = ds.isel(snapshot=0)
        result = classified(base["unit"].values.tolist(), best_concept(base).compute())
        assert best_recognised(result, 2) == [CLASSES[0], CLASSES[2]]
        ax = class_units(result, base, stores, classes=["ski resort"], most=2, k=2, size=48, show=False)
        top = class_specific(result, most=2).sel({"class": "ski resort"})
        titles = [label.get_text() for label in ax.get_yticklabels()]
        for title, unit, name in zip(titles, top["unit"].values, top["concept_name"].values, strict=True):
            assert title.startswith(f"{unit}, weight ")
            assert str(name) in title
        assert [text.get_text() for text in ax.texts] == ["ski resort\nrecall 0.40"]
        with pytest.raises(DissectError, match="no class 'moon'"):
            class_units(result, base, stores, classes=["moon"], show=False)


def test_each_explained_image_stands_before_its_units() -> None:
    with pictured() as (_, stores):
        probe = open_probe(stores.probe)
        result = explained(probe["image"].values[:2].tolist(), (probe.sizes["row"], probe.sizes["col"]))
        ax = explained_images(result, stores.probe, size=48)
        titles = [label.get_text() for label in ax.get_yticklabels()]
        assert titles[0].startswith("kitchen\nscore ")
        assert "predicted: forest path" in titles[1]
        assert len(ax.texts) == 6
        assert all(text.get_text().count("\n") == 1 for text in ax.texts)
