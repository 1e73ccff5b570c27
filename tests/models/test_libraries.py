"""Models of libraries are those that the library builds, with the weights that are asked for and no others."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from vision import library

from dissect_xr.activations.checkpoints.weights import tensors_sha256
from dissect_xr.activations.models import names
from dissect_xr.activations.models.names import library_model
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, request_sha256
from dissect_xr.activations.sources import load, load_model
from dissect_xr.errors import DissectError

torchvision, timm, transformers = library("torchvision"), library("timm"), library("transformers")

VIT = "timm:vit_tiny_patch16_224"
SMALL = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2, "num_classes": 3}


def same(one: nn.Module, other: nn.Module) -> bool:
    return tensors_sha256(one.state_dict()) == tensors_sha256(other.state_dict())


def seeded(make: Any, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found: nn.Module = make()
        return found.eval()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2 with registers, saved in half precision."""
    folder = tmp_path_factory.mktemp("dinov2")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, num_register_tokens=4
    )
    seeded(lambda: transformers.Dinov2WithRegistersModel(config), seed=5).half().save_pretrained(folder)
    return folder


def test_names_of_libraries_are_theirs_and_all_other_references_functions():
    assert str(library_model("timm:vit_base_patch14_dinov2.lvd142m")).count("lvd142m") == 1
    assert library_model("transformers:./a/folder") == names.LibraryModel("transformers", "./a/folder")
    for reference in ("timm:create_model", "timm.models:create_model", "torchvision.models:resnet18", "a.py:b", "x:y"):
        assert library_model(reference) is None
    made = load_model(ModelSpec.of("timm:create_model", {"model_name": "vit_tiny_patch16_224", **SMALL}))
    assert same(made, load_model(ModelSpec.of(VIT, SMALL)))


def test_a_model_is_what_its_library_builds_with_these_arguments():
    found = load_model(ModelSpec.of("torchvision:resnet18", {"num_classes": 7}, seed=3))
    assert same(found, seeded(lambda: torchvision.models.resnet18(num_classes=7), 3))
    assert not same(found, load_model(ModelSpec.of("torchvision:resnet18", {"num_classes": 7}, seed=4)))
    assert not any(module.training for module in found.modules())
    found = load_model(ModelSpec.of(VIT, SMALL))
    assert same(found, seeded(lambda: timm.create_model("vit_tiny_patch16_224", **SMALL)))


def test_no_backbone_is_fetched_for_a_model_without_weights(monkeypatch: pytest.MonkeyPatch):
    def fetch(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"something is downloaded: {args}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    load_model(ModelSpec.of("torchvision:lraspp_mobilenet_v3_large", {"num_classes": 2}))


def test_pretrained_weights_come_from_the_library_and_are_told_apart_by_their_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    fetched = []
    weights = seeded(lambda: torchvision.models.squeezenet1_1(), 9).state_dict()

    def fetch(url: str, *args: object, **kwargs: object) -> Any:
        fetched.append(url)
        return weights

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    for asked in ("pretrained", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1"):
        loaded = load(ModelSpec.of("torchvision:squeezenet1_1", weights=asked))
        assert loaded.sha256 == tensors_sha256(weights)
    assert fetched == [torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url] * 3
    torch.save(weights, tmp_path / "mine.pt")
    assert same(load_model(ModelSpec.of("torchvision:squeezenet1_1", weights=tmp_path / "mine.pt")), loaded.model)
    assert len(fetched) == 3
    with pytest.raises(DissectError, match=r"there are no weights IMAGENET1K_V9, only IMAGENET1K_V1"):
        load(ModelSpec.of("torchvision:squeezenet1_1", weights="IMAGENET1K_V9"))


def test_a_local_folder_gives_its_architecture_and_on_demand_its_weights_in_float32(dinov2: Path, tmp_path: Path):
    random = load_model(ModelSpec.of(f"transformers:{dinov2}"))
    saved = load_model(ModelSpec.of(f"transformers:{dinov2}", weights="pretrained"))
    stored = transformers.Dinov2WithRegistersModel.from_pretrained(dinov2, dtype="float32")
    assert same(saved, stored)
    assert not same(random, stored)
    assert {tensor.dtype for tensor in saved.parameters()} == {torch.float32}
    torch.save(saved.state_dict(), tmp_path / "mine.pt")
    assert same(load_model(ModelSpec.of(f"transformers:{dinov2}", weights=tmp_path / "mine.pt")), saved)
    shallow = load_model(ModelSpec.of(f"transformers:{dinov2}", {"num_hidden_layers": 1}))
    assert len(shallow.encoder.layer) == 1


def test_the_image_tower_is_taken_of_a_model_of_images_and_texts(tmp_path: Path):
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        vision_config=tower | {"image_size": 32, "patch_size": 8}, text_config=text, projection_dim=8
    )
    whole = seeded(lambda: transformers.CLIPModel(config))
    whole.save_pretrained(tmp_path)
    found = load_model(ModelSpec.of(f"transformers:{tmp_path}", weights="pretrained"))
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = whole.vision_model(pixel_values=image).last_hidden_state
        assert torch.equal(found(image).last_hidden_state, expected)
    with pytest.raises(DissectError, match="CLIPModel takes input_ids, expected a model of images"):
        load_model(ModelSpec.of(f"transformers:{tmp_path}", {"class": "CLIPModel"}))


def test_weights_that_would_stay_random_are_refused(dinov2: Path):
    for kwargs, lost in (({"class": "Dinov2WithRegistersForImageClassification"}, 2), ({"num_hidden_layers": 3}, 18)):
        with pytest.raises(DissectError, match=f"its weights lack {lost} tensors of .*, which would stay random"):
            load_model(ModelSpec.of(f"transformers:{dinov2}", kwargs, "pretrained"))


@dataclass(frozen=True)
class Wrong:
    reference: str
    kwargs: dict[str, Any]
    weights: str | None
    said: str


@pytest.mark.parametrize(
    "case",
    [
        Wrong("torchvision:resnt50", {}, None, r"torchvision .* has no model of this name; near are resnet50"),
        Wrong("timm:vit_tinny_patch16_224", {}, None, "has no model of this name; near are vit_tiny_patch16_224"),
        Wrong("timm:vit_tiny_patch16_224", {"pretrained": True}, None, "the argument 'pretrained' is not taken"),
        Wrong("timm:vit_tiny_patch16_18_384", {}, None, "has no model of this name"),
        Wrong("transformers:./nowhere", {}, None, "there is no such folder. Correct the path"),
        Wrong("transformers:DINO", {"trust_remote_code": True}, None, "the argument 'trust_remote_code' is not taken"),
    ],
    ids=lambda case: case.reference,
)
def test_what_a_library_does_not_have_is_said_with_what_is_near(case: Wrong):
    with pytest.raises(DissectError, match=case.said):
        load_model(ModelSpec.of(case.reference, case.kwargs, case.weights))


def test_a_folder_without_a_model_and_a_field_that_it_lacks_are_named(dinov2: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(DissectError, match=r"expected a folder with a config\.json.*it holds notes\.txt"):
        load_model(ModelSpec.of(f"transformers:{tmp_path}"))
    with pytest.raises(DissectError, match="its configuration has no depth"):
        load_model(ModelSpec.of(f"transformers:{dinov2}", {"depth": 3}))
    with pytest.raises(DissectError, match="has no class 'Dino'"):
        load_model(ModelSpec.of(f"transformers:{dinov2}", {"class": "Dino"}))


def test_a_model_that_is_nowhere_says_what_to_give(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DissectError, match=r"Give a local folder that model\.save_pretrained\(folder\) has written"):
        load_model(ModelSpec.of("transformers:nobody/has-this"))


def test_pretrained_of_a_function_is_refused():
    with pytest.raises(DissectError, match="asks a library for its weights, but networks:tiny names a function"):
        ModelSpec.of("networks:tiny", weights="pretrained")


def test_a_missing_library_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    import importlib.metadata

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(DissectError, match=r"timm, which is not installed.*pip install 'dissect-xr\[models\]'"):
        ModelSpec.of(VIT).library.version  # noqa: B018


def test_what_was_asked_for_is_told_apart_without_building_it(dinov2: Path, monkeypatch: pytest.MonkeyPatch):
    recording = Recording(Preprocess(32))

    def fingerprint(*given: Any) -> str:
        return request_sha256(ModelSpec.of(*given), recording, "images")

    folder = f"transformers:{dinov2}"
    cases = [(VIT,), (VIT, SMALL), (VIT, None, "pretrained"), (VIT, None, None, 1)]
    cases += [(folder,), (folder, {}, "pretrained")]
    found = [fingerprint(*case) for case in cases]
    assert len(set(found)) == len(cases)
    assert found == [fingerprint(*case) for case in cases]
    spec = ModelSpec.of(VIT, weights="pretrained")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.library.inputs("pretrained") == {
        "name": "timm", "version": timm.__version__, "model": "vit_tiny_patch16_224", "weights": "pretrained"
    }  # fmt: skip
    monkeypatch.setattr(names.LibraryModel, "version", "0.0.1")
    assert fingerprint(VIT) != found[0]


def test_other_weights_in_the_same_folder_are_another_model(dinov2: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in dinov2.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    asked = ModelSpec.of(f"transformers:{copy}", weights="pretrained")
    original = ModelSpec.of(f"transformers:{dinov2}", weights="pretrained")
    assert asked.library.inputs("pretrained") == original.library.inputs("pretrained")
    transformers.Dinov2WithRegistersModel.from_pretrained(copy).float().save_pretrained(copy)
    assert asked.library.inputs("pretrained") != original.library.inputs("pretrained")
    assert load(asked).sha256 == load(original).sha256  # the same numbers, in other bytes
