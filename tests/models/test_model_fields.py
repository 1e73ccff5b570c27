"""The fields of a recipe's model: what may be left out, what is refused, and where weights lie."""

from pathlib import Path
from typing import Any

import pytest
import runs
from pydantic import ValidationError

from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.request import Preprocess
from dissect_xr.cli.fields.model import ModelPart, PlacementPart
from dissect_xr.cli.recipe import load_recipe
from dissect_xr.errors import DissectError

SNAPSHOTS = [{"name": "a"}]


def load(folder: Path, *overrides: str) -> Any:
    recipe = runs.write_recipe(folder)
    return load_recipe(recipe, out=str(folder / "run"), overrides=("data=.", *overrides))


def test_only_a_library_says_the_size_of_its_input():
    assert ModelPart.model_validate({"factory": "timm:resnet18", "snapshots": SNAPSHOTS}).input_size is None
    with pytest.raises(ValidationError, match=r"input_size\s+Field required"):
        ModelPart.model_validate({"factory": "a.py:make", "snapshots": SNAPSHOTS})
    with pytest.raises(ValidationError, match=r"input_size\s+Field required"):
        ModelPart.model_validate({"factory": "timm:create_model", "snapshots": SNAPSHOTS})


def test_images_at_their_own_proportions_are_refused_with_what_to_do(tmp_path: Path):
    for field in ("model.input_size", "model.preprocess.size"):
        with pytest.raises(
            DissectError, match=r"at their own proportions.*input_size: 224; with preprocess\.resize: 256"
        ):
            load(tmp_path, f"{field}={{short: 224}}")
    with pytest.raises(DissectError, match="at their own proportions"):
        Preprocess({"short": 224})  # type: ignore[arg-type]


def test_a_recipe_without_new_fields_asks_for_the_preprocessing_that_it_always_asked_for(tmp_path: Path):
    found = load(tmp_path, "model.preprocess={mean: [1, 2, 3], resize: 30}").model.preprocessing()
    assert found == Preprocess(24, (1.0, 2.0, 3.0), resize=30)
    assert found.parameters == {
        "size": [24, 24],
        "mean": (1.0, 2.0, 3.0),
        "std": (1.0, 1.0, 1.0),
        "scale": 255.0,
        "channels": "RGB",
        "callable": None,
        "resize": 30,
    }


def test_filters_centres_and_both_sides_are_asked_for_and_stored(tmp_path: Path):
    asked = "model.preprocess={resize: [30, 26], interpolation: bicubic, centre: floor}"
    parameters = load(tmp_path, asked).model.preprocessing().parameters
    assert [parameters[name] for name in ("resize", "interpolation", "centre")] == [[30, 26], "bicubic", "floor"]
    with pytest.raises(DissectError, match=r"interpolation.*'bilinear', 'bicubic', 'nearest' or 'lanczos'"):
        load(tmp_path, "model.preprocess.interpolation=cubic")
    with pytest.raises(DissectError, match=r"expected \(height, width\) before the crop"):
        Preprocess(24, resize=(30, 20))
    with pytest.raises(DissectError, match="interpolation 'cubic': expected one of bilinear"):
        Preprocess(24, interpolation="cubic")  # type: ignore[arg-type]


def test_a_mode_alone_is_a_placement_and_none_is_none(tmp_path: Path):
    assert load(tmp_path).activations.placement.placement() is None
    assert load(tmp_path, "activations.placement=offload").activations.placement.placement() == Placement("offload")
    text = "activations.placement={mode: split, gpus_per_worker: 2, max_memory: {0: 2GiB, 1: 5}, no_split: [Block]}"
    assert load(tmp_path, text).activations.placement.placement() == Placement(
        "split", None, 2, (("0", 2 * 2**30), ("1", 5)), None, ("Block",)
    )
    with pytest.raises(DissectError, match=r"activations\.placement\.mode"):
        load(tmp_path, "activations.placement=parallel")
    assert PlacementPart(dtype="bfloat16").placement() == Placement(dtype="bfloat16")
