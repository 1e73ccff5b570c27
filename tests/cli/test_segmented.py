"""A recipe whose labels a segmenter draws: from images to the IoU that is shown beside a unit's."""

import json

import painted
import pytest
from runs import RECIPE, call, write_recipe

from dissect_xr.analysis.results import open_dissection
from dissect_xr.probe.ingest import open_probe

pytestmark = pytest.mark.usefixtures("no_figures")

PROBE = """
probe:
  kind: segmented
  of:
    kind: masks
    image_folder: ${data}/images
    mask_folder: ${data}/masks
    concepts: ${data}/concepts.yaml
    void: [255]
  segmenter:
    factory: ${data}/colours.py:Colours
    input_size: [4, 6]
    classes: ${data}/classes.yaml
    nothing: [0]
"""


def run(tmp_path, *options, probe=PROBE, command="run"):
    if not (tmp_path / "data").exists():
        painted.write(tmp_path / "data")
    recipe = write_recipe(tmp_path / "recipe", f"{probe}\n{RECIPE[RECIPE.index('model:') :]}")
    given = ("--out", str(tmp_path / "out"), "--set", f"data={tmp_path / 'data'}", *options)
    return call(command, str(recipe), *given, "--quiet")


def test_a_run_from_images_to_agreement(tmp_path, capsys):
    assert run(tmp_path) == 0
    assert "labels of 2 of 2 concepts are predicted, IoU with people's labels 0.571 to 0.692" in capsys.readouterr().out
    ds = open_dissection(tmp_path / "out/dissection.zarr")
    assert ds["label_source"].values.tolist() == ["predicted", "predicted"]
    assert ds["label_iou"].values.tolist() == [both / either for both, either in painted.AGREEMENT.values()]
    best = ds.dissect.best().isel(snapshot=0, fraction=1).compute()
    named = best["concept_name"].values != ""
    assert named.any()
    wanted = [painted.AGREEMENT[name] for name in best["concept_name"].values[named]]
    assert best["label_iou"].values[named].tolist() == [both / either for both, either in wanted]
    assert call("info", str(tmp_path / "out/probe.zarr")) == 0
    assert "predicted, 0.571" in capsys.readouterr().out
    assert call("report", str(tmp_path / "recipe/recipe.yaml"), "--out", str(tmp_path / "out"), "--quiet",
                "--set", f"data={tmp_path / 'data'}") == 0  # fmt: skip
    assert any('"label_iou":[0.57143,0.69231]' in path.read_text().replace(" ", "")
               for path in (tmp_path / "out/report").rglob("*.js"))  # fmt: skip


def test_a_second_run_draws_nothing(tmp_path, monkeypatch):
    assert run(tmp_path) == 0

    def fail(task):
        raise AssertionError("drawn again")

    monkeypatch.setattr("dissect_xr.segmenters.predict.predict_block", fail)
    monkeypatch.setattr("dissect_xr.segmenters.agreement.count_agreement", fail)
    assert run(tmp_path) == 0


def test_a_damaged_label_map_is_drawn_again(tmp_path):
    assert run(tmp_path, command="probe") == 0
    areas = open_probe(tmp_path / "out/probe.zarr")["concept_area"].values.tolist()
    path = next((tmp_path / "out/predicted").rglob("b.png.png"))
    path.write_bytes(b"damaged")
    assert run(tmp_path, "--verify") == 0
    assert path.read_bytes() != b"damaged"
    assert open_probe(tmp_path / "out/probe.zarr")["concept_area"].values.tolist() == areas


def test_images_that_nobody_labelled(tmp_path):
    alone = PROBE[: PROBE.index("  of:")] + "  image_folder: ${data}/images\n" + PROBE[PROBE.index("  segmenter:") :]
    assert run(tmp_path, "--set", "probe.label_size=[4, 6]", probe=alone) == 0
    ds = open_dissection(tmp_path / "out/dissection.zarr")
    assert ds["label_iou"].isnull().all()
    assert ds["concept_area"].values.tolist() == [6, 14]


def test_several_segmenters_are_several_planes(tmp_path):
    def indented(text):
        return "".join(f"    {line}\n" for line in text.strip().splitlines()[1:])

    second = indented(PROBE).replace("nothing: [0]", "nothing: [0]\n        confidence: 0.5")
    probe = f"probe:\n  kind: merged\n  probes:\n    one:\n{indented(PROBE)}    other:\n{second}"
    assert run(tmp_path, probe=probe, command="probe") == 0
    found = open_probe(tmp_path / "out/probe.zarr").load()
    assert found.sizes["plane"] == 2
    assert found["concept_area"].values.tolist() == [6, 14]  # both say the same
    assert len(list((tmp_path / "out/predicted").glob("*.zarr"))) == 2


def test_a_dry_run_draws_nothing_and_names_the_stage(tmp_path, capsys):
    assert run(tmp_path, "--dry-run") == 0
    assert not (tmp_path / "out/predicted").exists()
    assert "labels segmenter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("probe.image_folder=images", "give either image_folder, or with `of` a probe whose images are labelled"),
        ("probe.segmenter.preprocess={resize: 8}", "it must see whole images"),
        ("probe.segmenter.confidence=2", "confidence"),
        ("probe.segmenter.classes={1: red}", "2 are neither in `classes` nor in `nothing`"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, change, message):
    assert run(tmp_path, "--set", change) in (2, 3)
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_recipe_is_kept_with_its_segmenter(tmp_path):
    assert run(tmp_path, command="probe") == 0
    parameters = open_probe(tmp_path / "out/probe.zarr").attrs["parameters"]
    assert parameters["segmenter"]["nothing"] == [0]
    assert len(parameters["segmenter"]["sha256"]) == 64
    assert json.loads(parameters["segmenter"]["kwargs"]) == {}
