"""A module of this process is dissected as it is, told apart by all that decides its outputs, and never changed."""

import copy
import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import tiny
from PIL import Image
from stores import read_npy
from torch import Tensor, nn
from torch.nn import functional

from dissect_xr.activations.extract import extract, prepare_extraction
from dissect_xr.activations.models.live import LiveModule
from dissect_xr.activations.recording.block import extract_block
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording, SnapshotInfo, request_sha256
from dissect_xr.activations.sources import device_of
from dissect_xr.activations.store import open_activations
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import Pool
from dissect_xr.probe.ingest import write_probe
from dissect_xr.probe.label_set import Concept, LabelSet, Row

RECORDING = Recording(Preprocess(8), ("0",), batch=2, device="cpu", threads=1)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("probe")
    rows = []
    for image in range(5):
        pixels = np.random.default_rng(image).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")
        rows.append(Row(f"{image}.png", "all", (), (), None, "here"))
    concepts = (Concept(1, "c", "object"),)
    labels = LabelSet(str(folder), str(folder), tuple(rows), concepts, ("object",), (), read_npy, (4, 4))
    write_probe(labels, str(folder / "probe.zarr"), show=False)
    return str(folder / "probe.zarr")


def record(model: nn.Module, probe: str, url: str, snapshot: str = "s", pool: Pool | None = None) -> Any:
    spec = ModelSpec.of(model)
    extraction = prepare_extraction(url, probe, SnapshotInfo(snapshot), spec, RECORDING, pool=pool)
    extract(extraction, pool=pool, show=False)
    return extraction


def maps(url: str, snapshot: str) -> Any:
    return open_activations(url)[f"{snapshot}/0"]["activation"].values


def by_torch(model: nn.Module, probe: str) -> Tensor:
    images = [np.asarray(Image.open(Path(probe).parent / f"{image}.png")) for image in range(5)]
    batch = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 255  # else other last bits
    with torch.inference_mode():
        return torch.cat([model(part) for part in batch.split(2)])


def test_activations_are_those_of_the_module_which_stays_as_it_was(probe: str, tmp_path: Path):
    model = tiny().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    extraction = record(model, probe, str(tmp_path / "a.zarr"))
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    found = maps(str(tmp_path / "a.zarr"), "s")
    assert np.array_equal(found, by_torch(model[0], probe).half().numpy())
    assert extraction.inputs["factory"] == "live Sequential"
    assert extraction.inputs["weights_sha256"] == LiveModule(model).weights_sha256


def test_weights_that_were_trained_since_are_another_snapshot(probe: str, tmp_path: Path):
    model, url = tiny(), str(tmp_path / "a.zarr")
    record(model, probe, url, "before")
    model[0].weight.data.add_(1)  # which raises no version counter
    record(model, probe, url, "after")
    first, second = (maps(url, name) for name in ("before", "after"))
    assert np.array_equal(second, by_torch(model[0], probe).half().numpy())
    assert not np.array_equal(first, second)
    with pytest.raises(DissectError, match=r"holds snapshot before made from something else: .*weights"):
        record(model, probe, url, "before")


def test_weights_that_change_meanwhile_are_refused(probe: str, tmp_path: Path):
    model, url = tiny(), str(tmp_path / "a.zarr")
    extraction = prepare_extraction(url, probe, SnapshotInfo("s"), ModelSpec.of(model), RECORDING)
    assert extraction.fingerprint
    tasks = extraction.tasks()
    model[0].bias.data.zero_()
    with pytest.raises(DissectError, match="the weights changed while s was extracted"):
        extract_block(tasks[0])


class Gated(nn.Module):
    """Settings of many kinds, none of which are weights."""

    def __init__(self, slope: Any = 0.1, act: Any = functional.relu) -> None:
        super().__init__()
        self.slope, self.act = slope, act
        self.conv = nn.Conv2d(3, 2, 1, stride=1, bias=False)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x)) * self.scale * self.slope


def digest(model: nn.Module) -> str:
    return request_sha256(ModelSpec.of(model), RECORDING, "images")


def strided(model: Gated) -> None:
    model.conv.stride = (2, 2)


def padded(model: Gated) -> None:
    model.conv.padding_mode = "reflect"


def buffered(model: Gated) -> None:
    model.scale.mul_(2)


def hooked(model: Gated) -> None:
    model.conv.register_forward_hook(lambda module, args, output: output * 2)


def set_to(**settings: Any) -> Any:
    def change(model: Gated) -> None:
        for name, value in settings.items():
            setattr(model, name, value)

    return change


CHANGES = {
    "stride": strided,
    "padding": padded,
    "a buffer that is not saved": buffered,
    "a hook": hooked,
    "a number": set_to(slope=0.2),
    "a list": set_to(slope=[0.1, 0.2]),
    "a tensor": set_to(slope=torch.tensor(0.1)),
    "a function": set_to(act=functional.gelu),
    "a partial": set_to(act=functools.partial(functional.leaky_relu, negative_slope=0.1)),
    "a lambda": set_to(act=lambda x: x * 3),
    "weights": lambda model: model.conv.weight.data.mul_(2),
    "a module": lambda model: model.add_module("more", nn.ReLU()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_decides_outputs_is_in_the_fingerprint(change: Any):
    torch.manual_seed(0)
    model = Gated()
    same, other = copy.deepcopy(model), copy.deepcopy(model)
    assert digest(same) == digest(model)
    change(other)
    assert digest(other) != digest(model)


def test_training_mode_and_use_are_not_in_the_fingerprint():
    model = Gated()
    before = digest(model)
    model.train()(torch.rand(1, 3, 4, 4))
    assert digest(model.eval()) == before


def test_classes_made_at_a_prompt_are_told_apart_by_their_code():
    def made(factor: int) -> nn.Module:
        names: dict[str, Any] = {"nn": nn, "__name__": "prompt"}
        text = f"class Net(nn.Module):\n    def forward(self, x):\n        return x * {factor}\n"
        exec(text, names)
        found: nn.Module = names["Net"]()
        return found

    assert digest(made(2)) == digest(made(2)) != digest(made(3))


def test_other_processes_are_refused_with_what_to_do(probe: str, tmp_path: Path, processes: Pool):
    with pytest.raises(DissectError, match=r"live Sequential: it is a live module.*Use threads.*'file\.py:make'"):
        record(tiny(), probe, str(tmp_path / "a.zarr"), pool=processes)
    with pytest.raises(DissectError, match="which exists in this process alone"):
        pickle.dumps(ModelSpec.of(tiny()))


def test_what_a_module_has_itself_is_not_given_again():
    for given in ({"weights": "a.pt"}, {"seed": 1}, {"kwargs": {}}):
        with pytest.raises(DissectError, match=r"this one is made already. Leave them out"):
            ModelSpec.of(tiny(), **given)
    with pytest.raises(DissectError, match=r"lies on cpu, asked for is cuda.*module\.to\('cuda'\)"):
        device_of(ModelSpec.of(tiny()), "cuda")
    with pytest.raises(DissectError, match="its tensors lie on meta, expected one device with values"):
        LiveModule(nn.Linear(2, 2, device="meta")).device  # noqa: B018
    with pytest.raises(DissectError, match="is compiled"):
        ModelSpec.of(torch.compile(tiny(), backend="eager"))


def test_a_spec_of_a_module_is_that_module():
    model = tiny()
    assert ModelSpec.of(model) == ModelSpec.of(model) != ModelSpec.of(copy.deepcopy(model))
    assert len({ModelSpec.of(model), ModelSpec.of(model)}) == 1
