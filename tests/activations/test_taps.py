"""Layers are what a forward pass shows, and listening leaves no trace."""

import threading
import weakref

import networks
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.taps import Layers, forward, map_layers, select_layers, taps
from dissect_xr.errors import DissectError

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def nothing(layer: str, output: Tensor) -> None: ...


class Everything(nn.Module):
    """A module of every kind: a map, a tuple, a vector, tokens, integers, one used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Conv2d(4, 4, 1)
        self.early = nn.Conv2d(3, 4, 3, padding=1)
        self.pair = nn.MaxPool2d(2, return_indices=True)
        self.twice = nn.ReLU()
        self.fc = nn.Linear(4, 5)
        self.never = nn.Conv2d(3, 3, 1)
        self.indices = nn.Identity()
        self.transposed = nn.Identity()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        x, indices = self.pair(self.twice(self.early(x)))
        self.indices(indices)
        x = self.late(self.twice(x))
        self.transposed(x.transpose(0, 1))
        return self.fc(x.mean((2, 3)))


def test_layers_are_found_in_order_of_execution():
    found = map_layers(Everything(), EXAMPLE)
    assert list(found.maps.items()) == [("early", (4, 8, 8)), ("late", (4, 4, 4))]
    assert found.others == {
        "pair": "returns a tuple of 2",
        "twice": "is called 2 times in one forward pass",
        "fc": "returns a 2x5 float32 tensor",
        "never": "is not called in a forward pass",
        "indices": "returns a 2x4x4x4 int64 tensor",
        "transposed": "returns a 4x2x4x4 float32 tensor",
    }


def test_containers_are_layers_too():
    found = map_layers(networks.small_resnet(), torch.rand(1, 3, 64, 64))
    assert found.maps["layer1"] == found.maps["layer1.1"] == (8, 16, 16)
    assert found.maps["layer3"] == (32, 4, 4)
    assert "layer1.0.relu" in found.others


def everything_about(model: nn.Module) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [tuple(module._forward_hooks) for module in model.modules()],
        [set(vars(module)) for module in model.modules()],
        [(name, id(tensor), tensor.tolist(), tensor.is_inference()) for name, tensor in model.named_buffers()],
        [(name, id(tensor), tensor.tolist(), tensor.requires_grad) for name, tensor in model.named_parameters()],
    ]


@pytest.mark.parametrize("model", [Everything(), networks.tiny()], ids=["everything", "batch norm"])
def test_mapping_leaves_the_model_as_it_was(model: nn.Module):
    model.train()
    list(model.children())[1].eval()
    next(model.parameters()).requires_grad_(False)
    next(model.children()).register_forward_hook(lambda module, args, output: None)
    before = everything_about(model)
    map_layers(model, EXAMPLE)
    assert everything_about(model) == before
    with pytest.raises(DissectError, match="the model fails on an input of 2x1x8x8: RuntimeError"):
        map_layers(model, EXAMPLE[:, :1])
    assert everything_about(model) == before


FOUND = Layers(
    {"layer1": (24, 112, 112), "layer1.0": (24, 112, 112), "layer2": (48, 56, 56)},
    {"fc": "returns a 2x5 float32 tensor", "layer1.relu": "is called 2 times in one forward pass"},
)


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        ("all", ["layer1", "layer1.0", "layer2"]),
        (["layer2", "layer1"], ["layer1", "layer2"]),
        (["layer?"], ["layer1", "layer2"]),
        (["layer1*"], ["layer1", "layer1.0"]),
        (["layer2", "*"], ["layer1", "layer1.0", "layer2"]),
        ("layer2", ["layer2"]),
    ],
)
def test_patterns_select_layers_once_in_order(patterns: list[str] | str, selected: list[str]):
    assert select_layers(FOUND, patterns) == selected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["conv*"], r"'conv\*' matches no module. The layers are layer1 \(24x112x112\), layer1.0"),
        (["layer1", "fc"], r"module 'fc' returns a 2x5 float32 tensor: expected one \(batch, unit, y, x\) tensor"),
        (["layer1.relu"], "'layer1.relu' is called 2 times in one forward pass: expected one"),
        (["f*"], r"'f\*' matches no layer; fc returns a 2x5"),
        ([""], "'' matches no module"),
        ([], "no layer is named; the model has layer1"),
    ],
)
def test_patterns_that_select_nothing_say_what_there_is(patterns: list[str], message: str):
    with pytest.raises(DissectError, match=message):
        select_layers(FOUND, patterns)


def test_many_layers_are_shortened():
    found = Layers({f"layer{i}": (1, 2, 3) for i in range(100)}, {})
    with pytest.raises(DissectError, match=r"layer11 \(1x2x3\) and 88 more"):
        select_layers(found, ["conv"])


def test_the_sink_gets_what_each_layer_computed():
    model = networks.tiny().eval()
    heard: dict[str, Tensor] = {}
    result = forward(model, EXAMPLE, ["1", "0", "3"], lambda layer, output: heard.update({layer: output.clone()}))
    with torch.inference_mode():
        convolved = model[0](EXAMPLE)
        expected = {"0": convolved, "1": model[1](convolved), "3": model[:4](EXAMPLE)}
        assert list(heard) == ["0", "1", "3"]
        assert all(torch.equal(heard[layer], expected[layer]) for layer in expected)
        assert torch.equal(result, model(EXAMPLE))


def test_the_sink_hears_a_layer_before_the_next_overwrites_it():
    model = networks.conv(3, 4, 3).eval()
    smallest: dict[str, float] = {}
    forward(model, EXAMPLE, ["1", "2"], lambda layer, output: smallest.update({layer: float(output.min())}))
    assert smallest["1"] < 0 == smallest["2"]


def test_outputs_are_released_as_later_layers_fire():
    model = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(8)])
    outputs: list[weakref.ref[Tensor]] = []

    def sink(layer: str, output: Tensor) -> None:
        # The layer before is alive as this one's input; nothing older may be.
        assert [reference() for reference in outputs[:-1]] == [None] * len(outputs[:-1])
        outputs.append(weakref.ref(output))

    forward(model, EXAMPLE, list(map(str, range(8))), sink)
    assert len(outputs) == 8
    assert all(reference() is None for reference in outputs)


def test_gradients_are_off_and_batch_norm_is_fixed():
    model = networks.tiny().train()
    before = everything_about(model)
    kinds = []
    forward(model, EXAMPLE, ["1"], lambda layer, output: kinds.append(output.is_inference()))
    assert kinds == [True]
    assert everything_about(model) == before


def test_hooks_go_also_after_an_error():
    model = networks.tiny().train()
    before = everything_about(model)

    def broken(layer: str, output: Tensor) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        forward(model, EXAMPLE, ["0", "1"], broken)
    assert everything_about(model) == before


def test_other_threads_pass_unheard():
    model = networks.tiny().eval()
    heard: list[int] = []
    with taps(model, ["0"], lambda layer, output: heard.append(len(output))):
        other = threading.Thread(target=lambda: model(torch.zeros(5, 3, 8, 8)))
        other.start()
        other.join()
        model(EXAMPLE)
    assert heard == [2]


def test_taps_may_hear_several_passes():
    model = networks.tiny()
    heard: list[str] = []
    with taps(model, ["0", "3"], lambda layer, output: heard.append(layer)), torch.inference_mode():
        model(EXAMPLE)
        model(EXAMPLE)
    assert heard == ["0", "3", "0", "3"]


@pytest.mark.parametrize(
    ("model", "layers", "message"),
    [
        (networks.tiny(), ["7"], "no module '7': it has 0, 1, 2, 3, 4, 5"),
        (networks.tiny(), [""], "no module"),
        (networks.tiny(), ["5"], "layer 5 returns a 2x5 float32 tensor, expected one tensor"),
        (networks.Shared(), ["conv"], "layer conv runs more than once"),
        (networks.Shared(), ["unused"], "layer unused did not run"),
    ],
)
def test_layers_that_cannot_be_recorded_are_refused(model: nn.Module, layers: list[str], message: str):
    with pytest.raises(DissectError, match=message):
        forward(model, EXAMPLE, layers, nothing)
    assert not any(module._forward_hooks for module in model.modules())
