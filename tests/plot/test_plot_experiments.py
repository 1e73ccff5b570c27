"""Figures of experiments: what is drawn is what was found."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from pictured import pictured
from questions import CLASSES, ablated, classified, explained, found_at

from dissect_xr.analysis.detectors import best_concept
from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import important_classes
from dissect_xr.experiments.classes import class_specific
from dissect_xr.experiments.localisation.pictures import FOUND, HEAT, OBJECT, frame, heated, located_pictures
from dissect_xr.plot.experiments.ablation import ablation_curves, importance_and_iou
from dissect_xr.plot.experiments.cam import located_images, shown_images
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


def test_rows_are_what_became_of_the_images() -> None:
    with pictured() as (_, stores):
        probe = open_probe(stores.probe)
        result = found_at(probe["image"].values[:12].tolist(), (probe.sizes["row"], probe.sizes["col"]))
        rows = shown_images(result, None, 2)
        assert [row.tolist() for row in rows] == [[0, 4], [2, 6], [1, 5]], "3, 7 and 11 show no object"
        names = result["image"].values.tolist()
        assert [row.tolist() for row in shown_images(result, [names[6], names[2]], 5)] == [[6, 2]]
        ax = located_images(result, stores.probe, most=2, size=48)
        assert [label.get_text() for label in ax.get_yticklabels()] == [
            "right class\nright place\n3 images",
            "wrong class\nright place\n3 images",
            "right class\nwrong place\n3 images",
        ]
        assert ax.texts[0].get_text() == "kitchen\nIoU 1.00"
        assert ax.texts[2].get_text().endswith(" → kitchen\nIoU 0.78"), "(16 - 1)^2 of 2 * 16^2 - (16 - 1)^2 pixels"
        with pytest.raises(DissectError, match="no image 'moon' in this experiment"):
            located_images(result, stores.probe, images=["moon"])
        with pytest.raises(DissectError, match="expected images that show an object of their class"):
            located_images(result, stores.probe, images=names[3:4])
        (picture,) = located_pictures(result.isel(image=[1]), stores.probe, size=96)
        for side, color in (("object_box", OBJECT), ("box", FOUND)):
            top, left = result[side].values[1, :2] * 2  # 48 label pixels
            assert tuple(picture[top, left]) == color


def test_a_box_is_a_frame_and_a_map_is_laid_over() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    frame(pixels, [0, 1, 4, 4], (4, 4), (1, 1, 1), width=1)
    drawn = np.zeros((8, 8), int)
    drawn[:, 2:] = 1
    drawn[1:7, 3:7] = 0
    assert pixels[..., 0].tolist() == drawn.tolist()
    frame(pixels, [-1] * 4, (4, 4), (9, 9, 9))
    assert pixels.max() == 1
    grey = np.full((2, 2, 3), 100, np.uint8)
    hot = heated(grey, np.array([[1.0, 0.0], [-1.0, 0.5]]))
    assert hot[0, 1].tolist() == hot[1, 0].tolist() == [100] * 3
    assert hot[0, 0].tolist() == [int((1 - HEAT) * 100 + HEAT * 255), 35, 35]
    assert heated(grey, np.zeros((2, 2))).tolist() == grey.tolist()
