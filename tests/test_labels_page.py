"""Every recipe of docs/labels.md is run on a copy of its set, and gives the areas that were worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import broden_plus_case
import coco_sets
import painted
import published_sets as sets
import pytest
import yaml
from checkout import ROOT
from pages import blocks
from runs import RECIPE, call, write_recipe

from dissect_xr.cli.fields.scenes import SceneProbe
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.probe.ingest import open_probe

pytestmark = pytest.mark.usefixtures("no_figures")

PAGE = ROOT / "docs" / "labels.md"
PIXELS = 112 * 112


def huggingface(data: Path) -> None:
    pytest.importorskip("pyarrow")
    from huggingface_case import ROWS, saved_splits

    saved_splits(data / "scenes_on_disk", {"train": ROWS[:1], "validation": ROWS[1:]})
    (data / "concepts.yaml").write_text("1: road\n2: sky\n3: car\n")


WRITTEN: dict[str, Callable[[Path], object]] = {
    "ade20k": lambda data: sets.ade20k(data / "ADEChallengeData2016"),
    "ade20k_full": lambda data: sets.ade20k_full(data / "ADE20K_2021_17_01"),
    "voc": lambda data: sets.voc(data / "VOCdevkit/VOC2012"),
    "pascal_part": lambda data: sets.pascal_part(data / "pascal"),
    "pascal_context": lambda data: sets.pascal_context(data / "pascal"),
    "cityscapes": lambda data: sets.cityscapes(data / "cityscapes"),
    "vistas": lambda data: sets.vistas(data / "vistas"),
    "colored": lambda data: sets.camvid(data / "CamVid"),
    "dtd": lambda data: sets.dtd(data / "dtd"),
    "tags": lambda data: sets.tags(data / "tagged"),
    "image_folders": lambda data: sets.image_folders(data / "pets"),
    "broden_plus": lambda data: broden_plus_case.broden_plus(data / "unifiedparsing"),
    "huggingface": huggingface,
    "coco": lambda data: coco_sets.instances(data / "coco"),
    "coco_panoptic": lambda data: coco_sets.panoptic(data / "coco"),
    "coco_stuff": lambda data: coco_sets.stuff(data / "coco"),
    "coco_stuff_maps": lambda data: coco_sets.stuff_maps(data / "stuff"),
    "lvis": lambda data: coco_sets.lvis(data / "lvis"),
    "paco": lambda data: coco_sets.paco(data / "paco"),
    "part_imagenet": lambda data: coco_sets.part_imagenet(data / "partimagenet"),
}
"""Kind -> what writes its set where the page has it."""

AREAS = {
    "ade20k": {"road, route": 11, "sky": 12, "car, auto, automobile, machine, motorcar": 4, "street": 16},
    "ade20k_full": {"road, route": 5, "sky": 12, "car, auto": 4, "window": 1, "wheel": 2, "rim": 1},
    "voc": {"car": 3, "person": 4},
    "pascal_part": {
        "person": 8, "bus": 6, "chair": 2, "person: head": 4, "person: eye": 2, "person: leg": 2, "bus: wheel": 2,
        "bus: front side": 1,
    },
    "pascal_context": {"sky": 12, "table": 4, "cloth": 6},
    "cityscapes": sets.AREAS,
    "vistas": {"Road": 11, "Sky": 12, "Car": 4},
    "colored": {"Road": 11, "Sky": 12, "Car": 4},
    "dtd": {"banded": 3 * PIXELS, "striped": 2 * PIXELS, "woven": PIXELS},
    "tags": {"dog": 2 * PIXELS, "indoor": PIXELS, "outdoor": PIXELS},
    "image_folders": {"cat": 2 * PIXELS, "dog": PIXELS},
    "broden_plus": {
        "wall": 11, "sky": 12, "car": 4, "person": 8, "wheel": 2, "leg": 1, "head": 3, "eye": 1, "street": 16,
        "brick": 3, "wood": 3,
    },
    "huggingface": sets.AREAS | {"street": 16},
    "coco": {"cat": 6 + 12, "dog": 9},
    "coco_panoptic": {"person": 11, "grass-merged": 12},
    "coco_stuff": {"sky-other": 6},
    "coco_stuff_maps": {"person": 10, "sky-other": 10},
    "lvis": {"aerosol_can": 4, "handbag": 4},
    "paco": {"mug": 12, "mug:handle": 2},
    "part_imagenet": {"Quadruped Head": 6, "Quadruped Body": 12, "Quadruped": 17},
}  # fmt: skip

RECIPES = {yaml.safe_load(block)["probe"]["kind"]: block for block in blocks(PAGE, "yaml")}


def test_the_page_has_a_recipe_for_every_kind_that_is_written_here() -> None:
    kinds = {kind for one in SceneProbe.__subclasses__() for kind in one.model_fields["kind"].annotation.__args__}
    assert kinds == set(WRITTEN) == set(AREAS)
    assert kinds <= set(RECIPES)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_recipe_of_the_page_gives_the_areas_of_its_set(tmp_path: Path, kind: str) -> None:
    WRITTEN[kind](tmp_path / "data")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES[kind]}\n{model}")
    out = tmp_path / "out"
    assert call("probe", str(recipe), "--out", str(out), "--set", f"data={tmp_path / 'data'}", "--quiet") == 0
    assert sets.areas(open_probe(out / "probe.zarr").load()) == AREAS[kind]


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_every_kind_may_be_asked_for_is_done(tmp_path: Path, kind: str) -> None:
    """One image, another grid, colours, links: what does not depend on the format."""
    WRITTEN[kind](tmp_path / "data")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES[kind]}\n{model}")
    wanted = ("images={limit: 1}", "label_size=3", "colors=true", "follow_links=true", "orientation=stored")
    options = [part for one in wanted for part in ("--set", f"probe.{one}")]
    out = tmp_path / "out"
    data = ("--set", f"data={tmp_path / 'data'}")
    assert call("probe", str(recipe), "--out", str(out), *data, *options, "--quiet") == 0
    probe = open_probe(out / "probe.zarr").load()
    assert dict(probe.sizes)["image"] == 1
    assert (probe.sizes["row"], probe.sizes["col"]) == (3, 3)
    assert probe["plane_category"].values[-1] == "color"
    seen = 9 - int(probe["ignored"].sum() if "ignored" in probe else 0)
    assert sum(probe["concept_area"].values[probe["concept_category"].values == "color"]) == seen
    parameters = probe.attrs["parameters"]
    assert (parameters["follow_links"], parameters["orientation"]) == (True, "stored")
    loaded = load_recipe(recipe, out=str(out), overrides=[data[1]])
    assert json.loads(loaded.probe.model_dump_json())["kind"] == kind


def test_two_sets_are_one_probe(tmp_path: Path) -> None:
    """On a grid of 4 x 4, COCO's columns 0, 2, 3 and 5 are those that count."""
    for kind in ("coco", "voc"):
        WRITTEN[kind](tmp_path / "data")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES['merged']}\n{model}")
    data = ("--set", f"data={tmp_path / 'data'}", "--set", "probe.label_size=4")
    assert call("probe", str(recipe), "--out", str(tmp_path / "out"), *data, "--quiet") == 0
    probe = open_probe(tmp_path / "out/probe.zarr").load()
    assert sets.areas(probe) == {"cat": 2 * 2 + 2 * 4, "dog": 3 * 2, "car": 3, "person": 4}
    assert probe.sizes["concept"] == 4  # those of VOC that no image has are left out
    domains = dict(zip(probe["concept_name"].values, probe["concept_domain"].values, strict=True))
    assert domains == {"cat": "object", "dog": "object", "car": "object (voc)", "person": "object (voc)"}


def test_a_network_draws_labels(tmp_path: Path) -> None:
    """The network of the page is that of `painted`."""
    data = painted.write(tmp_path / "data")
    (data / "network.py").write_text(f"{painted.NETWORK}\n\nmake = Colours\n")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES['segmented']}\n{model}")
    arguments = ("--set", f"data={data}", "--set", "probe.of.void=[255]", "--quiet")
    assert call("probe", str(recipe), "--out", str(tmp_path / "out"), *arguments) == 0
    probe = open_probe(tmp_path / "out/probe.zarr").load()
    assert sets.areas(probe) == {"red": 6, "green": 14}
    pairs = zip(probe["label_intersection"].values.tolist(), probe["label_union"].values.tolist(), strict=True)
    assert dict(zip(probe["concept_name"].values.tolist(), pairs, strict=True)) == painted.AGREEMENT


def test_a_run_dissects_a_set_of_another_format(tmp_path: Path) -> None:
    sets.voc(tmp_path / "data/VOCdevkit/VOC2012")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES['voc']}\n{model}")
    arguments = ("--out", str(tmp_path / "out"), "--set", f"data={tmp_path / 'data'}", "--quiet")
    assert call("run", str(recipe), *arguments) == 0
    from dissect_xr.analysis.results import open_dissection

    ds = open_dissection(tmp_path / "out/dissection.zarr")
    assert ds["domain_area"].values.tolist() == [18]
    assert ds.sizes["concept"] == 20


def test_an_image_that_is_damaged_is_left_out_if_asked_for(tmp_path: Path) -> None:
    root = sets.voc(tmp_path / "data/VOCdevkit/VOC2012")
    (root / "JPEGImages/2007_000032.jpg").write_bytes(b"no image")
    model = RECIPE[RECIPE.index("model:") :]
    recipe = write_recipe(tmp_path / "recipe", f"{RECIPES['voc']}\nskip_bad_images: true\n{model}")
    arguments = ("--out", str(tmp_path / "out"), "--set", f"data={tmp_path / 'data'}", "--quiet")
    assert call("probe", str(recipe), *arguments) == 0
    assert open_probe(tmp_path / "out/probe.zarr")["image"].values.tolist() == ["2007_000033.jpg"]
