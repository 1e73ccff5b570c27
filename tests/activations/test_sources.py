"""Models are built the same everywhere, and a weights file is data, never code."""

import hashlib
import os
import pickle
import random
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkout import TESTS
from torch import nn

from dissect_xr.activations import sources
from dissect_xr.activations.checkpoints.weights import read_weights
from dissect_xr.activations.references import file_sha256, resolve
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import cached_model, load_model, weights_sha256
from dissect_xr.errors import DissectError

NETWORKS = str(TESTS / "networks.py")


def tiny(weights: Path | None = None, *, units: int = 4, seed: int | None = None) -> ModelSpec:
    return ModelSpec.of(f"{NETWORKS}:tiny", {"units": units}, weights, seed)


def states(model: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pt"
    torch.save(load_model(tiny(seed=7)).state_dict(), path)
    return path


def test_a_spec_is_hashable_and_survives_pickle():
    spec = ModelSpec.of("package:function", {"width": 8, "layers": (1, 2)}, "weights.pt")
    assert spec == pickle.loads(pickle.dumps(spec))
    assert len({spec, ModelSpec.of("package:function", {"layers": [1, 2], "width": 8}, Path("weights.pt"))}) == 1
    with pytest.raises(DissectError, match="plain numbers, strings and lists"):
        ModelSpec.of("package:function", {"norm": nn.BatchNorm2d})


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = states(load_model(tiny()))
    torch.manual_seed(2)
    assert states(load_model(tiny(seed=0))) == first
    assert states(load_model(tiny(seed=1))) != first


def drawing() -> nn.Module:
    """Factory that draws from every global generator."""
    model = nn.Conv2d(3, 3, 1)
    nn.init.constant_(model.bias, random.random() + np.random.random())  # noqa: NPY002
    return model


def test_global_generators_go_on_as_if_nothing_was_built():
    def draws() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), np.random.random()  # noqa: NPY002

    def seed() -> None:
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002

    seed()
    expected = draws()
    seed()
    first = load_model(ModelSpec.of(f"{__name__}:drawing"))
    assert draws() == expected
    assert states(load_model(ModelSpec.of(f"{__name__}:drawing"))) == states(first)


def test_models_come_in_eval_mode(saved: Path):
    for spec in (tiny(), tiny(saved)):
        assert not any(module.training for module in load_model(spec).modules())


@pytest.mark.parametrize("kind", ["plain", "state_dict", "model", "parallel", "safetensors", "old"])
def test_weights_are_those_of_the_file(kind: str, tmp_path: Path):
    state = load_model(tiny(seed=7)).state_dict()
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    match kind:
        case "safetensors":
            safetensors.torch.save_file(dict(state), path)
        case "parallel":
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
        case "old":  # before torch 0.4.1
            torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
        case "plain":
            torch.save(state, path)
        case _:
            torch.save({"epoch": 3, kind: state, "optimizer": {"lr": 0.1}}, path)
    spec = tiny(path)
    model = load_model(spec)
    assert states(model) == states(load_model(tiny(seed=7)))
    assert weights_sha256(spec, model) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_random_weights_have_a_fingerprint():
    def fingerprint(seed: int) -> str:
        spec = tiny(seed=seed)
        return weights_sha256(spec, load_model(spec))

    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


class Malicious:
    """Pickle that writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_weights_file_is_not_executed(form: str, tmp_path: Path):
    path, marker = tmp_path / "weights.pt", tmp_path / "executed"
    content = {"state_dict": load_model(tiny()).state_dict(), "args": Malicious(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"args": Malicious(marker)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DissectError, match="nothing in it was executed") as failure:
        load_model(tiny(path))
    assert not marker.exists()
    assert "weights_only" not in str(failure.value)
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists(), "the attack must work where nothing guards against it"


def test_code_is_not_executed_even_if_the_environment_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    test_code_in_a_weights_file_is_not_executed("zip", tmp_path)


def test_names_that_do_not_fit_are_counted_and_shown(saved: Path, tmp_path: Path):
    state = torch.load(saved, weights_only=True)
    state["0.kernel"] = state.pop("0.weight")
    torch.save(state, tmp_path / "renamed.pt")
    with pytest.raises(DissectError, match=r"do not fit Sequential: 1 missing: 0\.weight; 1 unexpected: 0\.kernel"):
        load_model(tiny(tmp_path / "renamed.pt"))


def test_shapes_that_do_not_fit_are_shown(saved: Path):
    with pytest.raises(
        DissectError, match=r"7 of another shape: 0\.weight \(4, 3, 3, 3\) \(the model has \(8, .*3 more"
    ):
        load_model(tiny(saved, units=8))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_file_is_named(suffix: str, saved: Path, tmp_path: Path):
    path = tmp_path / f"damaged{suffix}"
    for content in (saved.read_bytes()[:2000], b"", b"no weights at all", bytes(64)):
        path.write_bytes(content)
        with pytest.raises(DissectError, match=path.name):
            load_model(tiny(path))


def test_what_holds_no_weights_is_refused(tmp_path: Path):
    with pytest.raises(DissectError, match="there is no such file"):
        read_weights(tmp_path / "absent.pt")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DissectError, match=r"is an HDF5 file, as Keras writes it\. Convert it to PyTorch"):
        read_weights(tmp_path / "weights.h5")
    for content, held in (({"epoch": 3, "loss": 0.5}, "holds epoch, loss"), ([1.0], "holds a list"), ({}, "nothing")):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(DissectError, match=held):
            read_weights(tmp_path / "other.pt")


def test_factories_that_fail_are_named():
    with pytest.raises(DissectError, match=r"tiny\(width=3\) failed: TypeError"):
        load_model(ModelSpec.of(f"{NETWORKS}:tiny", {"width": 3}))
    with pytest.raises(DissectError, match=r"returned a Counter, expected a torch\.nn\.Module"):
        load_model(ModelSpec.of("collections:Counter"))


def test_references_of_both_forms(tmp_path: Path):
    assert resolve("collections:Counter")("aab")["a"] == 2
    path = tmp_path / "model.py"
    path.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Size:\n    n: 'int'\ndef build(): return Size(1)\n"
    )
    assert resolve(f"{path}:build")().n == 1
    assert resolve(f"{path}:build") is resolve(f"{path}:build")
    path.write_text("def build(): return 2\n")
    assert resolve(f"{path}:build")() == 2, "an edited file is loaded anew"
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("model", "expected 'package.module:function'"),
        (":build", "expected 'package.module:function'"),
        ("collections:counter", "has no 'counter': there is .*Counter"),
        ("collections.nothing:f", r"no module 'collections\.nothing': collections has abc"),
        ("not_installed_at_all:f", "no module 'not_installed_at_all': install it"),
        ("../models:f", "cannot be imported"),
        ("math:pi", "math:pi is a float, expected a function"),
        ("{dir}/absent.py:f", r"absent\.py cannot be read .* holds broken\.py"),
        ("{dir}/broken.py:f", r"broken\.py cannot be imported: ModuleNotFoundError: .*not_there"),
    ],
)
def test_references_to_nothing_say_what_there_is(reference: str, message: str, tmp_path: Path):
    (tmp_path / "broken.py").write_text("import not_there\n")
    with pytest.raises(DissectError, match=message):
        resolve(reference.format(dir=tmp_path))
    assert not any(name.startswith("_dissect_xr_broken") for name in sys.modules)


def test_a_process_builds_a_model_once(monkeypatch: pytest.MonkeyPatch):
    built: list[ModelSpec] = []

    def counted(spec: ModelSpec) -> sources.Loaded:
        built.append(spec)
        return load(spec)

    load = sources.load
    monkeypatch.setattr(sources, "load", counted)
    found: list[nn.Module] = []
    threads = [threading.Thread(target=lambda: found.append(cached_model(tiny(seed=99), "cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert all(model is found[0] for model in found)


def test_an_absent_device_is_an_error():
    with pytest.raises(DissectError, match="'quantum'"):
        cached_model(tiny(), "quantum")
    with pytest.raises(DissectError, match="device 'meta': computes no values"):
        cached_model(tiny(), "meta")


def test_a_file_is_digested_again_only_where_it_has_changed(tmp_path, monkeypatch):
    weights, read, real = tmp_path / "weights.pt", [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or real(file, name))
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        os.utime(weights, ns=(0, len(read)))
        assert {file_sha256(weights) for _ in range(3)} == {hashlib.sha256(content).hexdigest()}
    assert len(read) == 2
