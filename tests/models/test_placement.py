"""Wherever weights lie, activations are those of a plain forward pass, bit for bit."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from stores import read_npy
from torch import Tensor, nn
from vision import library

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.placement import place
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.placement.blocks import blocks_of
from dissect_xr.activations.recording import batches
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo, request_sha256
from dissect_xr.activations.sources import cached, load_model
from dissect_xr.activations.store import open_activations
from dissect_xr.errors import DissectError
from dissect_xr.experiments.replay.network import Network
from dissect_xr.experiments.replay.predictions import LookTask, batch_of, look, running
from dissect_xr.experiments.replay.replays import Whole
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import Concept, LabelSet, Row
from dissect_xr.probe.root import image_folder

torchvision, timm, accelerate = library("torchvision"), library("timm"), library("accelerate")

VIT = ("timm:vit_tiny_patch16_224", {"img_size": 32, "depth": 4, "embed_dim": 48, "num_heads": 2, "num_classes": 3})
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("torchvision:resnet18", {"num_classes": 5}),
    "vit": VIT,
    "torchvision vit": (
        # The weights of MultiheadAttention.out_proj are used without calling it.
        f"{Path(__file__)}:encoder",
        {},
    ),
    # Its windows' indices and masks are buffers that are not saved.
    "swin": (
        "timm:swin_tiny_patch4_window7_224",
        {"img_size": 56, "embed_dim": 16, "depths": [2, 2], "num_heads": [1, 2]},
    ),
}


def encoder() -> nn.Module:
    found: nn.Module = torchvision.models.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=3)
    return found


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, Path]:
    """A network, and a file of safetensors with its weights."""
    spec = ModelSpec.of(*NETS[request.param], seed=1)
    file = tmp_path_factory.mktemp("net") / "weights.safetensors"
    safetensors.torch.save_file(load_model(spec).state_dict(), file)
    return spec, file


def image(spec: ModelSpec) -> Tensor:
    side = 56 if "swin" in spec.factory else 32
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def plain(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """What every module that is called returns, by hooks of this test alone."""
    kept: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: (
                kept.update({name: output.clone()}) if isinstance(output, Tensor) else None
            )
        )
        for name, module in model.named_modules()
    ]
    with torch.inference_mode():
        kept[""] = model(batch)
    for handle in handles:
        handle.remove()
    return kept


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def on_meta(model: nn.Module) -> int:
    return sum(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("source", ["file", "seed", "folder"])
@pytest.mark.parametrize("mode", ["offload", "sequential"])
def test_outputs_of_all_modules_are_those_of_a_plain_pass(
    net: tuple[ModelSpec, Path], mode: Any, source: str, tmp_path: Path
):
    spec, file = net
    folder = str(tmp_path / "offloaded") if source == "folder" else None
    given = {"weights": file} if source == "file" else {"seed": 1}
    kwargs, placement = json.loads(spec.kwargs), Placement.of(mode, offload_dir=folder)
    placed = ModelSpec.of(spec.factory, kwargs, **given, placement=placement)
    loaded = cached(placed, "cpu")
    assert loaded.placed
    away = on_meta(loaded.model)
    assert away > 0.5 * len(list(loaded.model.parameters()))
    batch = image(spec)
    for _ in range(2):
        assert same(plain(loaded.model, batch), plain(load_model(spec), batch))
        assert on_meta(loaded.model) == away
    assert loaded.sha256 == cached(ModelSpec.of(spec.factory, kwargs, **given), "cpu").sha256


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("probe")
    rows = []
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(Row(f"{number}.png", "all", (), (), None, "here"))
    concepts = (Concept(1, "c", "object"),)
    labels = LabelSet(str(folder), str(folder), tuple(rows), concepts, ("object",), (), read_npy, (4, 4))
    write_probe(labels, str(folder / "probe.zarr"), show=False)
    return str(folder / "probe.zarr")


RECORDING = Recording(Preprocess(32), ("conv1", "layer*.0.conv1", "layer4"), batch=3, device="cpu", threads=1)


@pytest.fixture(scope="module")
def plainly(probe: str, resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The activations of a ResNet-18 whose weights all lie in memory."""
    return recorded(probe, resnet, str(tmp_path_factory.mktemp("plain") / "a.zarr"), None)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("resnet") / "weights.safetensors"
    safetensors.torch.save_file(load_model(ModelSpec.of(*NETS["resnet18"], seed=4)).state_dict(), file)
    return file


def resnet_spec(file: Path, placement: Placement | None) -> ModelSpec:
    return ModelSpec.of(*NETS["resnet18"], file, placement=placement)


def recorded(probe: str, file: Path, url: str, placement: Placement | None) -> dict[str, Any]:
    extraction = prepare_extraction(url, probe, SnapshotInfo("s"), resnet_spec(file, placement), RECORDING)
    extract(extraction, show=False)
    tree = open_activations(url)["s"]
    found = {name: node["activation"].values for name, node in tree.children.items() if "activation" in node}
    for layer in extraction.layers:
        found[layer.name] = tree[layer.name]["activation"].values
    return found | {"fingerprint": extraction.fingerprint, "geometry": extraction.described.geometry}


@pytest.mark.parametrize("mode", ["offload", "sequential"])
def test_stores_are_the_same_wherever_weights_lie(
    mode: Any, probe: str, resnet: Path, plainly: dict[str, Any], tmp_path: Path
):
    found = recorded(probe, resnet, str(tmp_path / "a.zarr"), Placement.of(mode))
    assert found.keys() == plainly.keys()
    assert len(found) == 8
    for name, value in plainly.items():
        assert np.array_equal(found[name], value) if isinstance(value, np.ndarray) else found[name] == value, name


def test_each_weight_is_read_once_for_all_batches_of_an_image_block(
    probe: str, resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = resnet_spec(resnet, Placement.of("sequential"))
    extraction = prepare_extraction(str(tmp_path / "a.zarr"), probe, SnapshotInfo("s"), spec, RECORDING)
    assert [len(task.images) for task in extraction.tasks()] == [10]  # in 4 batches
    trunk = cached(spec, "cpu").trunk
    assert trunk is not None
    blocks = blocks_of(load_model(spec))
    assert set(trunk.reads) == set(blocks)
    trunk.reads.clear()
    extract(extraction, show=False)
    assert dict(trunk.reads) == dict.fromkeys(blocks, 1)


def test_a_batch_that_does_not_fit_is_halved_for_all(
    probe: str, resnet: Path, plainly: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    original = batches.forward

    def tight(model: nn.Module, batch: Tensor, *others: Any) -> Any:
        seen.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("too many images")
        return original(model, batch, *others)

    spec = resnet_spec(resnet, Placement.of("sequential"))
    extraction = prepare_extraction(str(tmp_path / "a.zarr"), probe, SnapshotInfo("s"), spec, RECORDING)
    monkeypatch.setattr(batches, "forward", tight)
    extract(extraction, show=False)
    assert seen == [3, 2, 1, 2, 1, 2, 1, 1]
    found = open_activations(str(tmp_path / "a.zarr"))["s/layer4"]["activation"].values
    np.testing.assert_allclose(found, plainly["layer4"], rtol=2e-3, atol=1e-4)


def test_an_error_in_a_pass_ends_all_of_them_and_leaves_no_weights_behind(resnet: Path):
    loaded = cached(resnet_spec(resnet, Placement.of("sequential")), "cpu")
    away = on_meta(loaded.model)
    assert loaded.trunk is not None
    done: list[str] = []

    def good() -> None:
        with torch.inference_mode():
            loaded.model(torch.rand(1, 3, 32, 32))
        done.append("good")

    def bad() -> None:
        with torch.inference_mode():
            loaded.model(torch.rand(1, 4, 32, 32))

    with pytest.raises(RuntimeError, match="expected input"):
        loaded.trunk.run([good, bad, good])
    assert done == []
    assert on_meta(loaded.model) == away
    loaded.trunk.run([good, good])
    assert done == ["good", "good"]


def test_weights_that_fit_stay(resnet: Path):
    free, half = (
        cached(resnet_spec(resnet, Placement.of("offload", max_memory={"cpu": size})), "cpu").model
        for size in ("1GB", "20MB")
    )
    batch = torch.rand(1, 3, 32, 32)
    assert on_meta(free) == 0
    assert 0 < on_meta(half) < len(list(half.parameters()))
    expected = plain(load_model(resnet_spec(resnet, None)), batch)
    assert same(plain(free, batch), expected)
    assert same(plain(half, batch), expected)


def test_split_puts_blocks_on_one_gpu_after_another(resnet: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DissectError, match=r"expected 2 GPUs in this worker \(gpus_per_worker\), found 0"):
        cached(resnet_spec(resnet, Placement.of("split", gpus_per_worker=2)), "cpu")
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n: (10**9, 10**9))
    monkeypatch.setattr(place, "_device", lambda number: asked.append(number) or torch.device("cpu"))
    model = cached(resnet_spec(resnet, Placement.of("split", gpus_per_worker=2)), "cpu").model
    assert asked == sorted(asked)
    assert set(asked) == {"0", "1"}
    batch = torch.rand(1, 3, 32, 32)
    assert same(plain(model, batch), plain(load_model(resnet_spec(resnet, None)), batch))
    small = Placement.of("split", gpus_per_worker=2, max_memory={0: "20MB", 1: "9MB"})
    with pytest.raises(DissectError, match=r"take 0\.04 GiB, and \d+ blocks from layer4\.\S+ on do not fit"):
        cached(resnet_spec(resnet, small), "cpu")


@pytest.mark.parametrize("mode", ["single", "offload", "sequential"])
def test_weights_and_images_are_cast_alike_in_every_mode(mode: Any, resnet: Path):
    placement = Placement.of(mode, dtype="bfloat16")
    batch = torch.rand(2, 3, 32, 32)
    expected = plain(load_model(resnet_spec(resnet, None)).to(torch.bfloat16), batch.to(torch.bfloat16))
    found = plain(cached(resnet_spec(resnet, placement), "cpu").model, batch)
    assert same(found, expected)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}


def test_the_dtype_of_weights_is_another_extraction_and_the_mode_is_none(resnet: Path):
    def fingerprint(placement: Placement | None) -> str:
        return request_sha256(resnet_spec(resnet, placement), RECORDING, "images")

    plain_one = fingerprint(None)
    assert fingerprint(Placement.of("sequential")) == fingerprint(Placement.of("offload")) == plain_one
    assert fingerprint(Placement.of("single", dtype="bfloat16")) != plain_one


def test_a_file_that_changes_while_it_is_read_is_refused(resnet: Path, tmp_path: Path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(resnet.read_bytes())
    model = cached(resnet_spec(file, Placement.of("offload")), "cpu").model
    safetensors.torch.save_file(load_model(ModelSpec.of(*NETS["resnet18"], seed=5)).state_dict(), file)
    with pytest.raises(DissectError, match="the file changed, or went away, while it was read"):
        model(torch.rand(1, 3, 32, 32))
    file.unlink()
    with pytest.raises(DissectError, match="the file changed, or went away, while it was read"):
        model(torch.rand(1, 3, 32, 32))


def test_names_in_a_file_are_fitted_as_for_other_models(resnet: Path, tmp_path: Path):
    state = safetensors.torch.load_file(resnet)
    wrapped, short = tmp_path / "wrapped.safetensors", tmp_path / "short.safetensors"
    safetensors.torch.save_file({f"module.{name}": tensor for name, tensor in state.items()}, wrapped)
    loaded = cached(resnet_spec(wrapped, Placement.of("offload")), "cpu")
    assert loaded.said == ("taken off the names: module.",)
    batch = torch.rand(1, 3, 32, 32)
    assert same(plain(loaded.model, batch), plain(load_model(resnet_spec(resnet, None)), batch))
    safetensors.torch.save_file({name: tensor for name, tensor in state.items() if "layer3" not in name}, short)
    with pytest.raises(DissectError, match=r"do not fit ResNet: \d+ missing: layer3"):
        cached(resnet_spec(short, Placement.of("sequential")), "cpu")


def test_shards_are_read_one_by_one(resnet: Path, tmp_path: Path):
    state = safetensors.torch.load_file(resnet)
    parts = {"a.safetensors": list(state)[::2], "b.safetensors": list(state)[1::2]}
    for file, held in parts.items():
        safetensors.torch.save_file({name: state[name] for name in held}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in parts.items() for name in held}}))
    batch = torch.rand(1, 3, 32, 32)
    found = cached(resnet_spec(index, Placement.of("sequential")), "cpu").model
    assert same(plain(found, batch), plain(load_model(resnet_spec(resnet, None)), batch))


def from_weights() -> nn.Module:
    """A network with a buffer that is computed from its weights and not saved."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    model[0].register_buffer("norm", model[0].weight.detach().norm(), persistent=False)
    return model


def test_a_model_that_cannot_be_built_without_weights_is_read_into_memory_and_that_is_said(tmp_path: Path):
    reference, file = f"{Path(__file__)}:from_weights", tmp_path / "weights.safetensors"
    safetensors.torch.save_file(load_model(ModelSpec.of(reference)).state_dict(), file)
    loaded = cached(ModelSpec.of(reference, weights=file, placement=Placement.of("offload")), "cpu")
    assert loaded.said == ("all weights were read into memory once, since the buffer 0.norm is computed from them",)


@pytest.mark.parametrize(
    ("mode", "given", "said"),
    [
        ("sharded", {}, "expected one of single, split, offload, sequential"),
        ("single", {"gpus_per_worker": 2}, "expected 1, or a larger number with placement split"),
        ("sequential", {"max_memory": {0: "1GB"}}, "max_memory is asked by split and offload alone"),
        ("offload", {"max_memory": {"disk": "1GB"}}, "'disk': expected the number of a GPU, or cpu"),
        ("offload", {"max_memory": {0: "much"}}, "expected bytes or a text such as 20GiB, got 'much'"),
        ("split", {"offload_dir": "x"}, "offload_dir is for offload and sequential"),
        ("offload", {"dtype": "int8"}, "expected one of float32, bfloat16, float16"),
    ],
)
def test_what_does_not_go_together_is_refused(mode: Any, given: dict[str, Any], said: str):
    with pytest.raises(DissectError, match=re.escape(said)):
        Placement.of(mode, **given)


LARGE = """
import torch
from torch import nn

class Shift(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))

    def forward(self, x):
        return x + self.weight.diagonal()[:, None, None]

class Wide(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.first = nn.Conv2d(3, width, 1)
        self.trunk = nn.Sequential(*[Shift(width) for _ in range(depth)])

    def forward(self, x):
        return self.trunk(self.first(x).relu())
"""

WIDTH, DEPTH, PART = 4096, 32, 64 * 2**20
"""32 modules of 4,096 x 4,096 weights, 2 GiB in float32, of which little is computed, so that the test is quick."""

MEASURED = """
import re, sys
from pathlib import Path
from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo, request_sha256

mode, factory, weights, probe, url = sys.argv[1:]
spec = ModelSpec.of(factory, {"width": 4096, "depth": 32}, weights, placement=Placement.of(mode))
batch = 5 if mode == "sequential" else 10  # which reads all weights once for both batches, or once for the only one
look = Recording(Preprocess(2), ("trunk.3?",), batch=batch, device="cpu", allow_nondeterministic=mode == "offload")
extract(prepare_extraction(url, probe, SnapshotInfo("s"), spec, look), show=False)
# Not ru_maxrss, which begins with the memory of the process that started this one.
print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="NOT RUN: no /proc tells a process's peak memory")
def test_a_model_of_2_gib_runs_in_1200_mb(probe: str, tmp_path: Path):
    (tmp_path / "wide.py").write_text(LARGE)
    generator = torch.Generator().manual_seed(0)
    index: dict[str, str] = {}
    first = {"first.weight": torch.rand(WIDTH, 3, 1, 1, generator=generator), "first.bias": torch.zeros(WIDTH)}
    safetensors.torch.save_file(first, tmp_path / "first.safetensors")
    index |= dict.fromkeys(first, "first.safetensors")
    last = torch.randn(WIDTH, WIDTH, generator=generator)
    for n in range(DEPTH):
        last = last.roll(n + 1, 0)
        safetensors.torch.save_file({f"trunk.{n}.weight": last}, tmp_path / f"{n}.safetensors")
        index[f"trunk.{n}.weight"] = f"{n}.safetensors"
    weights = tmp_path / "model.safetensors.index.json"
    weights.write_text(json.dumps({"weight_map": index}))
    for mode in ("sequential", "offload"):
        url = str(tmp_path / f"{mode}.zarr")
        command = [sys.executable, "-c", MEASURED, mode, f"{tmp_path / 'wide.py'}:Wide", str(weights), probe, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 1200 * 10**6 < DEPTH * PART
        before, after = (open_activations(url)[f"s/trunk.{n}"]["activation"].values for n in (DEPTH - 2, DEPTH - 1))
        by_hand = before.astype(np.float32) + last.diagonal().numpy()[:, None, None]
        np.testing.assert_allclose(after, by_hand, rtol=0, atol=0.04)  # float16 of numbers up to 32
        assert np.abs(after).max() > 10


class Borrowing(nn.Module):
    """Uses the weights of a module inside it without calling that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.conv.weight)


def borrower() -> nn.Module:
    return nn.Sequential(Borrowing(), nn.Conv2d(8, 4, 3))


@pytest.mark.parametrize("mode", ["offload", "sequential"])
def test_weights_that_are_used_elsewhere_are_asked_to_be_kept_together(mode: Any, probe: str, tmp_path: Path):
    def prepared(no_split: tuple[str, ...]) -> Any:
        spec = ModelSpec.of(f"{Path(__file__)}:borrower", placement=Placement.of(mode, no_split=no_split))
        look = Recording(Preprocess(8), ("1",), device="cpu")
        return prepare_extraction(str(tmp_path / "a.zarr"), probe, SnapshotInfo("s"), spec, look)

    with pytest.raises(DissectError, match=r"needs weights that are not there.*Name the class of that one in no_split"):
        prepared(())
    assert prepared(("Borrowing",)).described.maps == {"1": (4, 4, 4)}


@pytest.mark.parametrize("mode", ["split", "sequential"])
def test_random_numbers_are_refused_where_their_order_would_change(mode: Any, probe: str, resnet: Path, tmp_path: Path):
    look = replace(RECORDING, allow_nondeterministic=True)
    with pytest.raises(DissectError, match="Use placement single or offload, or leave out allow_nondeterministic"):
        prepare_extraction(
            str(tmp_path / "a.zarr"), probe, SnapshotInfo("s"), resnet_spec(resnet, Placement.of(mode)), look
        )


def test_an_experiment_runs_a_placed_network_whole_and_gets_the_same_scores(resnet: Path, probe: str):
    images = tuple(f"{number}.png" for number in range(4))
    folder = image_folder(probe)
    looked = {}
    for mode in (None, "offload", "sequential"):
        spec = resnet_spec(resnet, None if mode is None else Placement.of(mode))
        network = Network(spec, RECORDING)
        found = look(LookTask(network, "layer4", folder.of(images), images, 5))
        ablated = np.arange(512) % 3 == 0
        with running(network) as model:
            batch = batch_of(network, folder.of(images), images)
            (scores,) = Whole(model, "layer4").scores(batch, [ablated], torch.zeros(512))
        looked[mode] = (found, scores)
    plain_one, *others = looked.values()
    assert plain_one[0].whole is None
    for found, scores in others:
        assert found.whole is not None
        assert found.whole.startswith("its weights come and go")
        assert (found.units, found.weights) == (plain_one[0].units, plain_one[0].weights)
        assert torch.equal(scores, plain_one[1])
