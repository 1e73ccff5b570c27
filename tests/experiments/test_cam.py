"""Class activation maps, against maps, boxes and outcomes that are worked out by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from located import DRAWN, write_drawn
from planted import CLASSES

from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.experiments import cam as module
from dissect_xr.experiments.cam import Cam, cam, open_cam
from dissect_xr.experiments.class_labels import class_table
from dissect_xr.experiments.classes import Machines, fitted_classes
from dissect_xr.experiments.localisation import maps
from dissect_xr.experiments.localisation.class_concepts import concepts_of_classes
from dissect_xr.experiments.localisation.scores import OUTCOMES, cam_failures, outcomes
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool, Threads
from dissect_xr.store.repair import repair
from dissect_xr.store.verify import verify

Stored = tuple[RunStores, Path]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return write_drawn(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def found(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return cam(tmp_path_factory.mktemp("cam") / "cam.zarr", *stored, pool=Threads(1), show=False).load()


def of(ds: xr.Dataset, name: str) -> xr.Dataset:
    return ds.sel(image=f"{name}.png")


def test_a_map_is_the_unit_of_its_class_upsampled(found: xr.Dataset) -> None:
    # Red rests on unit 0 with weight 1, whose map is 0.5 on 4 x 4 cells of 8 x 8. Pixels lie a quarter of a cell beside
    # the middles of cells: at the edge of the square 3/4 of 0.5, then 1/4 of it.
    profile = np.array([0.5] * 7 + [0.375, 0.125] + [0.0] * 7, np.float32)
    red = of(found, "red-corner")
    assert red["map"].dtype == np.float32
    assert red["map"].values.tolist() == np.outer(profile / 0.5, profile).tolist()
    assert of(found, "red-elsewhere")["map"].values.tolist() == red["map"].values.tolist()


def test_a_score_is_the_mean_of_the_map_and_the_intercept(found: xr.Dataset) -> None:
    wanted = {"red-corner": 16 / 64 * 0.5, "blue-corner": 16 / 64 * 0.5 + 0.1, "green-small": 4 / 64 * 0.5}
    for name, score in wanted.items():
        assert float(of(found, name)["score"]) == pytest.approx(score, rel=1e-6)


def test_fitted_weights_are_of_scaled_features(stored: Stored, tmp_path: Path) -> None:
    splits = {name: "train" if name.endswith("corner") else "val" for name in DRAWN}
    rows = [f"{name}.png,{kind},{splits[name]}" for name, (kind, _, _) in DRAWN.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["image,class,split", *rows]))
    labelled = class_table(tmp_path / "labels.csv", probe=stored[0].probe)
    asked = Machines("relu", "s", c=10.0, scaling="std")
    weights = fitted_classes(tmp_path / "m.zarr", stored[0], labelled, asked, show=False).load()
    ds = cam(tmp_path / "c.zarr", stored[0], tmp_path / "m.zarr", show=False).load()
    assert ds["image"].values.tolist() == ["green-small.png", "red-elsewhere.png", "red-unlabelled.png"]
    assert (weights["scale"] < 0.1).all(), "means of 0 and 1/8 for each color: none is left as it is"
    seen = {"green-small": [0, 1 / 32, 0, 0], "red-elsewhere": [1 / 8, 0, 0, 1 / 8]}
    for name, means in seen.items():
        mine = weights.sel({"class": DRAWN[name][0]})
        score = float((mine["weight"] / mine["scale"] * np.array(means)).sum() + mine["intercept"])
        # 128 of 256 is 0.5, as float16 holds it: these means are exact, and sums differ by their order alone.
        assert float(of(ds, name)["score"]) == pytest.approx(score, rel=1e-12)


def test_boxes_are_those_of_the_drawing(found: xr.Dataset) -> None:
    # Above 20 % of the maximum: 0.125 / 0.5 is 25 %, so a box reaches one pixel beyond the drawing where there is one.
    # At the corner of the box 0.25 * 0.25 is not, but its sides are.
    assert of(found, "red-corner")["box"].values.tolist() == [0, 0, 9, 9]
    assert of(found, "green-corner")["box"].values.tolist() == [7, 7, 16, 16]
    assert of(found, "green-small")["box"].values.tolist() == [0, 0, 5, 5]
    assert of(found, "green-small")["object_box"].values.tolist() == [0, 0, 5, 5]
    assert of(found, "red-unlabelled")["object_box"].values.tolist() == [-1] * 4
    assert {name: float(of(found, name)["box_iou"]) for name in DRAWN if name != "red-unlabelled"} == {
        "red-corner": 64 / 81,
        "green-corner": 64 / 81,
        "blue-corner": 64 / 81,
        "green-small": 1.0,
        "red-elsewhere": 1 / (81 + 64 - 1),
    }
    assert np.isnan(float(of(found, "red-unlabelled")["box_iou"]))
    assert found["object_pixels"].sel(image=["red-corner.png", "green-small.png"]).values.tolist() == [64, 25]


def test_another_share_gives_another_box(stored: Stored, tmp_path: Path) -> None:
    ds = cam(tmp_path / "c.zarr", *stored, Cam(share=0.3), show=False).load()
    assert of(ds, "red-corner")["box"].values.tolist() == [0, 0, 8, 8]
    assert of(ds, "red-corner")["box_iou"] == 1


def test_outcomes_are_counted_class_by_class(found: xr.Dataset) -> None:
    predicted = {name: CLASSES[int(of(found, name)["prediction"])] for name in DRAWN}
    assert predicted == {name: kind for name, (kind, _, _) in DRAWN.items()} | {"green-small": "blue"}
    # Red: two images show an object, one is found. Green: both are found, one is called blue. Blue: all is right.
    assert found["class"].values.tolist() == [*CLASSES]
    assert found["object_images"].values.tolist() == [2, 2, 1]
    assert found["localisation_accuracy"].values.tolist() == [0.5, 0.5, 1]
    assert found["known_localisation"].values.tolist() == [0.5, 1, 1]
    assert found["pointing"].values.tolist() == [0.5, 1, 1]
    at = dict(zip(found["image"].values.tolist(), outcomes(found).values.tolist(), strict=True))
    assert at["green-small.png"] == OUTCOMES[1]
    assert at["red-elsewhere.png"] == OUTCOMES[2]
    assert at["red-unlabelled.png"] == ""
    assert list(at.values()).count(OUTCOMES[0]) == 3
    failed = cam_failures(found)
    assert failed["image"].values.tolist() == ["green-small.png", "red-elsewhere.png"]
    assert failed["outcome"].values.tolist() == [*OUTCOMES[1:3]]


def test_the_same_for_every_block_and_pool(
    stored: Stored, found: xr.Dataset, tmp_path: Path, processes: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "BLOCK", 2 * 4 * 16 * 16)
    assert maps.images_of_task((16, 16)) == 2
    for n, pool in enumerate((Threads(2), processes)):
        xr.testing.assert_identical(cam(tmp_path / f"{n}.zarr", *stored, pool=pool, show=False).load(), found)


def test_the_same_for_every_chunk_of_activations(found: xr.Dataset, tmp_path: Path) -> None:
    ds = cam(tmp_path / "c.zarr", *write_drawn(tmp_path / "run", chunk=1), show=False).load()
    for name in ("map", "score", "box", "pointed", "prediction"):
        xr.testing.assert_equal(ds[name], found[name])


def test_what_is_finished_is_kept(
    stored: Stored, found: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "BLOCK", 2 * 4 * 16 * 16)
    done: Counter[int] = Counter()
    stop = 4

    def counted(task: maps.MapTask) -> None:
        if task.first == stop:
            raise DissectError("stopped")
        maps.map_block(task)
        done[task.first] += 1

    monkeypatch.setattr(module, "map_block", counted)
    url = tmp_path / "c.zarr"
    with pytest.raises(BlocksFailed):
        cam(url, *stored, pool=Threads(1), show=False)
    assert done == {0: 1, 2: 1}
    with pytest.raises(DissectError, match="expected a finished experiment, found none"):
        open_cam(url)
    stop = -1
    xr.testing.assert_identical(cam(url, *stored, pool=Threads(1), show=False).load(), found)
    assert done == {0: 1, 2: 1, 4: 1}
    xr.testing.assert_identical(cam(url, *stored, pool=Threads(1), show=False).load(), found)
    assert done.total() == 3
    with pytest.raises(DissectError, match=r"share was 0.2, is 0.3"):
        cam(url, *stored, Cam(share=0.3), show=False)


def test_opening_is_lazy(stored: Stored, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    cam(tmp_path / "c.zarr", *stored, show=False)
    request.getfixturevalue("lazy")
    ds = open_cam(tmp_path / "c.zarr")
    assert ds["map"].chunks is not None
    assert ds["known_localisation"].dims == ("class",)


def test_concepts_are_named_where_names_differ(stored: Stored, tmp_path: Path) -> None:
    probe, names = stored[0].probe, ("red", "verde", "moon")
    (tmp_path / "c.csv").write_text("class,concept\nverde,green\n")
    for concepts in ({"verde": "green"}, {"verde": 2}, str(tmp_path / "c.csv")):
        assert concepts_of_classes(probe, names, concepts, needed=names[:2]) == [(1, "red"), (2, "green"), (0, "")]
    refused: list[tuple[Any, str]] = [
        (None, r"class 'verde' and 1 other classes have no concept of their name"),
        ({"verd": "green"}, "concepts: no class 'verd' among the 3 classes"),
        ({"verde": "gren", "moon": 1}, r"concepts, class 'verde': no concept 'gren'.*green"),
    ]
    for concepts, message in refused:
        with pytest.raises(DissectError, match=message):
            concepts_of_classes(probe, names, concepts, needed=names)
    for text, message in (("verde,green\nverde,red", r"c.csv.*'verde' stands in two rows"), ("verde,", "empty cell")):
        (tmp_path / "c.csv").write_text(f"class,concept\n{text}\n")
        with pytest.raises(DissectError, match=message):
            concepts_of_classes(probe, names, str(tmp_path / "c.csv"), needed=names)


def test_images_without_any_object_are_refused(stored: Stored, tmp_path: Path) -> None:
    asked = Cam({"red": "green", "green": "blue", "blue": "red"})
    with pytest.raises(DissectError, match="none of the 6 images has a pixel of the concept of its class"):
        cam(tmp_path / "c.zarr", *stored, asked, show=False)
    with pytest.raises(DissectError, match=r"share of the map's maximum in \[0, 1\), got 1"):
        Cam(share=1)


def test_a_damaged_map_is_named_and_made_again(stored: Stored, found: xr.Dataset, tmp_path: Path) -> None:
    url = tmp_path / "c.zarr"
    cam(url, *stored, show=False)
    assert verify(str(url), show=False)[0] == []
    damaged = url / "maps" / "map" / "c.0.0.0"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    assert [damage.where for damage in repair(str(url), full=True, show=False)] == [str(damaged)]
    with pytest.raises(DissectError, match="expected a finished experiment, found none"):
        open_cam(url)
    xr.testing.assert_identical(cam(url, *stored, show=False).load(), found)


def test_a_layer_without_places_is_refused(tmp_path: Path) -> None:
    run, classes = write_drawn(tmp_path / "run", size=1)
    with pytest.raises(DissectError, match=r"cam of s/relu: its maps have one cell each.*before the pooling"):
        cam(tmp_path / "c.zarr", run, classes, show=False)


def test_another_concept_is_another_input(stored: Stored, tmp_path: Path) -> None:
    cam(tmp_path / "c.zarr", *stored, show=False)
    with pytest.raises(DissectError, match=r"concepts.red was 1, is 2"):
        cam(tmp_path / "c.zarr", *stored, Cam({"red": "green"}), show=False)
