"""Ablation against closed forms: planted units whose effect is known by hand, and whole networks run one by one."""

from pathlib import Path

import numpy as np
import planted
import pytest
import torch
import xarray as xr
from planted import CLASSES, network, write_colors

from dissect_xr.activations.sources import load_model
from dissect_xr.errors import DissectError
from dissect_xr.experiments.ablation import Ablation, ablation, important_classes
from dissect_xr.experiments.class_labels import Labelled, class_table
from dissect_xr.experiments.replay.predictions import batch_of
from dissect_xr.experiments.unit_concepts import RunStores
from dissect_xr.parallel.pool import Pool, Threads

ASKED = Ablation("seen", "s", sizes=(1, 2, 3))


@pytest.fixture
def colors(tmp_path: Path) -> Labelled:
    """Of each split 4 red images, 3 green and 2 blue ones."""
    return class_table(write_colors(tmp_path / "colors"), folder=tmp_path / "colors", outputs=CLASSES)


def ablated(
    folder: Path, labelled: Labelled, asked: Ablation = ASKED, pool: Pool | None = None, **options: object
) -> xr.Dataset:
    net, run = network(**options), RunStores.of(folder)
    return ablation(folder / "ablation.zarr", run, labelled, net, asked, pool=pool or Threads(1), show=False)


def test_planted_units_cost_what_they_must(colors: Labelled, tmp_path: Path) -> None:
    ds = ablated(tmp_path, colors).load()
    assert ds["class"].values.tolist() == list(CLASSES)
    assert ds["class_images"].values.tolist() == [[4, 3, 2]] * 2
    for name in ("accuracy", "balanced_accuracy", "precision", "recall"):
        assert ds[name].values.tolist() == [[1, 1, 1]] * 2, "every image is recognised"
    # Without unit 0, the 4 red images are called blue: red has recall 0; of the 7 others 4 are called blue.
    assert ds["true_positives_without"].sel(split="val").values.tolist() == [[0, 3, 2], [4, 0, 2], [4, 3, 2], [4, 3, 2]]
    assert ds["predicted_without"].sel(split="val").values.tolist() == [[0, 3, 6], [4, 0, 5], [4, 3, 2], [4, 3, 2]]
    val = ds.sel(split="val")
    assert val["importance"].values.tolist() == [
        [0.5, 0, 1 - (1 + 3 / 7) / 2],  # blue keeps its recall, and loses 4 of its 7 true negatives
        [0, 0.5, 1 - (1 + 4 / 7) / 2],
        [0, 0, 0],  # blue is what is left where nothing is seen: its own unit does not matter
        [0, 0, 0],  # the head gives this unit no weight
    ]
    assert val["precision_without"].values[0].tolist()[1:] == [1, 2 / 6]
    assert np.isnan(val["precision_without"].values[0, 0]), "nothing is called red any more"
    assert val["accuracy_without"].values[0].tolist() == [5 / 9, 1, 5 / 9]


def test_curves_follow_the_order_of_the_other_split(colors: Labelled, tmp_path: Path) -> None:
    ds = ablated(tmp_path, colors).load()
    order = ds["unit_order"].sel(order="ranked")
    assert order.values.tolist() == [[0, 1, 2], [1, 0, 2], [0, 1, 2]]
    curve = ds["curve"].sel(order="ranked")
    assert curve.sel(ablated="top", size=1).values.tolist() == [0.5, 0.5, (1 + 3 / 7) / 2]
    assert curve.sel(ablated="top", size=2).values.tolist() == [0.5, 0.5, 0.5], "everything is called blue"
    # Only unit 0 is left: red is recognised, everything else is called blue.
    assert curve.sel(ablated="all_but_top", size=1).values.tolist() == [1, 1, (1 + 4 / 7) / 2]
    assert curve.sel(ablated="all_but_top", size=2).values.tolist() == [1, 1, 1]
    assert ds["curve"].sel(order="greedy").isnull().all(), "nobody asked for it"
    assert important_classes(ds, most=1).values.tolist() == [2, 1, 0, 0]
    assert important_classes(ds, most=4).values.tolist() == [2, 2, 0, 0]


def test_greedily_two_units_that_stand_in_for_each_other_are_found(colors: Labelled, tmp_path: Path) -> None:
    asked = Ablation("seen", "s", sizes=(1, 2), greedy=2, curves=("red",))
    ds = ablated(tmp_path, colors, asked, twice=True).load()
    assert ds["importance"].sel({"class": "red"}).values.tolist() == [[0, 0, 0, 0]] * 2, "alone, none matters"
    orders = ds["unit_order"].sel({"class": "red"})
    assert orders.sel(order="ranked").values.tolist() == [0, 1]
    assert orders.sel(order="greedy").values.tolist() == [0, 3]
    top = ds["curve"].sel({"class": "red", "ablated": "top"})
    assert top.sel(order="ranked").values.tolist() == [1, 1]
    assert top.sel(order="greedy").values.tolist() == [1, 0.5]
    assert ds["unit_order"].sel(order="greedy").values.tolist() == [[0, 3], [-1, -1], [-1, -1]]
    assert ds["curve"].sel({"class": ["green", "blue"]}).isnull().all()


def test_a_map_set_to_its_mean_says_the_same_of_every_image(colors: Labelled, tmp_path: Path) -> None:
    ds = ablated(tmp_path, colors, Ablation("seen", "s", level="mean", sizes=(1,))).load()
    # 4, 3 and 2 of 9 images have the brightness 0.5 in red, green and blue.
    assert ds["level"].values.tolist() == [np.float32(n / 18) for n in (4, 3, 2, 4)]
    # Every image now has 4/18 of red, above the 0.1 of blue: green 0.5 still wins, blue 0.6 as well, red nowhere else.
    assert ds["true_positives_without"].sel(split="val").values[0].tolist() == [4, 3, 2]
    assert ds["predicted_without"].sel(split="val").values[1].tolist() == [4, 3, 2]


@pytest.mark.parametrize(
    ("factory", "layer", "size"),
    [
        ("tiny", "0", 8),
        ("tiny", "2", 8),
        ("small_resnet", "layer1.0.conv2", 32),
        ("small_resnet", "layer2", 32),
        ("small_resnet", "layer2.0.downsample.0", 32),
    ],
)
def test_predictions_are_those_of_the_whole_network_with_the_unit_set_to_zero(
    factory: str, layer: str, size: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "noise"
    folder.mkdir()
    rows = ["image,class,split"]
    for n in range(14):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        planted.Image.fromarray(pixels).save(folder / f"{n}.png")
        rows.append(f"{n}.png,{n % 5},{'train' if n % 2 else 'val'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    labelled = class_table(folder / "labels.csv", folder=folder, outputs=5)
    net = network(factory, size=size, batch=3)
    asked = Ablation(layer, "s", sizes=(1, 2))
    ds = ablation(tmp_path / "a.zarr", RunStores.of(tmp_path), labelled, net, asked, show=False).load()
    assert ds.attrs["replayed"] == "what follows the layer"
    model, images = load_model(net.spec), labelled.of("val")
    wanted = np.zeros((ds.sizes["unit"], 5), np.int64)
    for unit in range(ds.sizes["unit"]):

        def zero(module: object, args: object, output: torch.Tensor, unit: int = unit) -> torch.Tensor:
            copy = output.clone()
            copy[:, unit] = 0
            return copy

        handle = model.get_submodule(layer).register_forward_hook(zero)
        for first in range(0, len(images.images), 3):
            with torch.inference_mode():
                scores = model(batch_of(net, images.root, images.images[first : first + 3]))
            np.add.at(wanted[unit], scores.argmax(1).numpy(), 1)
        handle.remove()
    assert ds["predicted_without"].sel(split="val").values.tolist() == wanted.tolist()


def test_the_same_for_every_pool(colors: Labelled, tmp_path: Path, processes: Pool) -> None:
    asked = Ablation("seen", "s", sizes=(1, 2), greedy=2)
    one = ablated(tmp_path / "threads", colors, asked, Threads(3)).load()
    two = ablated(tmp_path / "processes", colors, asked, processes).load()
    xr.testing.assert_identical(one, two)


def test_code_that_cannot_be_followed_is_said_in_the_result(colors: Labelled, tmp_path: Path) -> None:
    ds = ablated(tmp_path, colors, factory="Watching").load()
    assert ds.attrs["replayed"] == "the whole network"
    assert "TraceError" in ds.attrs["replayed_reason"]
    plain = ablated(tmp_path / "plain", colors).load()
    xr.testing.assert_equal(ds, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "nowhere"}, "the model has no module 'nowhere'"),
        ({"ranked_on": "test"}, r"split 'test': no labelled image is in it; there are {'train': 9, 'val': 9}"),
        ({"curves": ("pink",)}, "curves: 'pink' is no class; there are red, green, blue"),
        ({"fraction": 0.5, "layer": "head"}, None),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, object], message: str | None, colors: Labelled, tmp_path: Path
) -> None:
    asked = Ablation(**({"layer": "seen", "snapshot": "s"} | change))
    if message is None:  # a layer without maps is no dissected one: a fraction says nothing
        assert ablated(tmp_path, colors, asked)["iou"].isnull().all()
        return
    with pytest.raises(DissectError, match=message):
        ablated(tmp_path, colors, asked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranked_on": "val"}, r"ranked and measured on the same images \(val\)"),
        ({"sizes": (0, 3)}, "at least 1, got 0"),
        ({"greedy": -2}, "at least 1, got -2"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DissectError, match=message):
        Ablation("seen", "s", **arguments)


def test_a_network_of_other_outputs_is_refused(colors: Labelled, tmp_path: Path) -> None:
    labelled = class_table(tmp_path / "colors/labels.csv", folder=tmp_path / "colors", outputs=[*CLASSES, "black"])
    with pytest.raises(DissectError, match=r"expected scores \(4, 4\).*got a tensor \(4, 3\)"):
        ablated(tmp_path, labelled)
    labelled = class_table(tmp_path / "colors/labels.csv", folder=tmp_path / "colors")
    with pytest.raises(DissectError, match="which class is which score of the network is not known"):
        ablated(tmp_path, labelled)


def test_scores_that_are_not_finite_name_the_image(colors: Labelled, tmp_path: Path) -> None:
    with pytest.raises(DissectError, match=r"image train-blue-0.png: expected finite scores, got \[.*nan"):
        ablated(tmp_path, colors, factory="Broken")


def test_a_class_without_images_has_no_numbers(tmp_path: Path) -> None:
    table = write_colors(tmp_path / "colors", each=(3, 2, 0))
    ds = ablated(tmp_path, class_table(table, folder=tmp_path / "colors", outputs=CLASSES)).load()
    blue = ds.sel({"class": "blue"})
    for name in ("recall", "balanced_accuracy", "importance", "curve"):
        assert blue[name].isnull().all(), name
    assert blue["unit_order"].values.tolist() == [[-1, -1, -1]] * 2
    assert ds["curve"].sel({"class": "red", "order": "ranked", "ablated": "top"}).values.tolist() == [0.5] * 3
    labelled = class_table(table, folder=tmp_path / "colors", outputs=CLASSES)
    with pytest.raises(DissectError, match="curves: class 'blue' needs images in both splits"):
        ablated(tmp_path / "other", labelled, Ablation("seen", "s", curves=("blue",)))
