"""Cells of traced layers lie where the gradient says they look."""

import copy
from fractions import Fraction

import networks
import pytest
import torch
from torch import Tensor, nn

from dissect_xr.activations.receptive_field.geometry import AxisGeometry, Geometry
from dissect_xr.activations.receptive_field.tracing import trace_geometry
from dissect_xr.errors import DissectError


def traced(model: nn.Module, layer: str, size: tuple[int, int] = (64, 64), **options: int) -> Geometry:
    geometry = trace_geometry(model, [layer], size, **options)[layer]
    assert isinstance(geometry, Geometry), geometry
    return geometry


def figures(axis: AxisGeometry) -> tuple[float, float, float]:
    return float(axis.jump), float(axis.start), float(axis.field)


def test_alexnet_conv5_as_published():
    geometry = traced(networks.alexnet_features(), "conv5", (227, 227))
    assert geometry.y == geometry.x == AxisGeometry(Fraction(16), Fraction(35, 2), Fraction(163))
    rows = [float((geometry.y.start + i * geometry.y.jump) * 113 / 227 - Fraction(1, 2)) for i in range(13)]
    for i, row in enumerate(rows):
        assert row == pytest.approx((17.5 + 16 * i) * 113 / 227 - 0.5, abs=1e-9)
    assert [round(row, 2) for row in (rows[0], rows[1], rows[-1])] == [8.21, 16.18, 103.79]


def test_resnet50_has_the_published_receptive_field():
    geometry = traced(networks.resnet50_shaped(2), "layer4", (224, 224))
    assert figures(geometry.y) == (32, 0.5, 427)


ASYMMETRIC = nn.Sequential(
    nn.Conv2d(3, 4, (7, 3), (2, 1), (0, 1)),
    nn.ZeroPad2d((2, 0, 1, 3)),
    nn.Conv2d(4, 4, (1, 6), (1, 3)),
    nn.Conv2d(4, 4, (4, 2), padding="same"),
    nn.MaxPool2d((3, 2), (2, 2), (1, 0), ceil_mode=True),
    nn.Conv2d(4, 4, (3, 5), padding="valid", dilation=(2, 1)),
)
DILATED = nn.Sequential(
    networks.conv(3, 4, 3, 2),
    networks.conv(4, 4, 3, dilation=2, padding=2, groups=2),
    networks.conv(4, 4, 3, dilation=4, padding=4, padding_mode="reflect"),
    nn.MaxPool2d(3, 2, 1),
    nn.Conv2d(4, 4, 3, dilation=3, padding="same"),
)
PLAIN = nn.Sequential(
    nn.Conv2d(3, 4, 5, 2),
    nn.GroupNorm(2, 4, affine=False),
    nn.LeakyReLU(),
    nn.Dropout(),
    nn.AvgPool2d(2),
    nn.Conv2d(4, 4, 4, 2, 1),
    nn.PReLU(),
    nn.Identity(),
)
UPSAMPLED = nn.Sequential(
    networks.conv(3, 4, 3, 2),
    networks.conv(4, 4, 3, 2),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    networks.conv(4, 4, 3),
)
CORNERS = nn.Sequential(
    networks.conv(3, 4, 3, 2), nn.Upsample(size=(97, 97), mode="bilinear", align_corners=True), networks.conv(4, 4, 3)
)


class Cropped(nn.Module):
    """Two shifted halves, as in NASNet's reduction."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = networks.conv(3, 4, 3), networks.conv(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.stem(x)[..., 3:, 1::2])


class Shuffled(nn.Module):
    """Split in halves, one convolved, joined and shuffled, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.halved = networks.conv(3, 4, 3, 2), networks.conv(2, 2, 3)
        self.out = networks.conv(4, 4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        x = torch.cat((a, self.halved(b)), dim=1)
        batch, units, height, width = x.size()
        x = x.view(batch, 2, units // 2, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)
        return self.out(x)


def gated(gate: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(networks.conv(3, 4, 3, 2), gate(4), networks.conv(4, 4, 5, 2), gate(4), networks.conv(4, 4, 3))


NETWORKS = {
    "plain": (PLAIN, "7", (81, 77)),
    "asymmetric": (ASYMMETRIC, "5", (120, 110)),
    "dilated": (DILATED, "4", (160, 160)),
    "camvid": (networks.CamVidNet(), "layer5", (224, 224)),
    "camvid pool3": (networks.CamVidNet(), "pool3", (224, 224)),
    "resnet": (networks.small_resnet(), "layer3", (160, 150)),
    "resnet shortcut": (networks.small_resnet(), "layer2.0.downsample", (160, 150)),
    "inception": (networks.Inception(), "mixed2", (90, 90)),
    "dense": (networks.Dense(), "block2", (96, 96)),
    "gate": (gated(networks.Gate), "4", (80, 80)),
    "gate of convolutions": (gated(networks.ConvGate), "3", (80, 80)),
    "shuffled": (Shuffled(), "out", (60, 60)),
    "cropped": (Cropped(), "out", (40, 41)),
    "upsampled": (UPSAMPLED, "3", (80, 80)),
    "corners": (CORNERS, "2", (80, 80)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", NETWORKS)
def test_geometry_is_where_the_gradient_looks(name: str):
    model, layer, size = NETWORKS[name]
    geometry = traced(model, layer, size)
    gradient, cell = gradient_of_the_middle_cell(model, layer, size)
    for axis, profile, i in ((geometry.y, gradient.sum(1), cell[0]), (geometry.x, gradient.sum(0), cell[1])):
        seen = profile.nonzero().flatten().tolist()
        # An interior cell sees no border; otherwise the centroid would be that of a cut field.
        assert seen[0] > 0
        assert seen[-1] < len(profile) - 1
        centroid = ((torch.arange(len(profile)) + 0.5) * profile).sum() / profile.sum()
        assert float(axis.start + i * axis.jump) == pytest.approx(float(centroid), abs=0.5)
        if name not in ("upsampled", "corners"):
            assert axis.field == seen[-1] - seen[0] + 1
        else:  # a cell may lie on a sample and need one neighbour less
            assert 0 <= axis.field - (seen[-1] - seen[0] + 1) <= 2 * 4


def gradient_of_the_middle_cell(model: nn.Module, layer: str, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """|d cell / d input| (y, x) with constant positive weights, and the cell."""
    model = with_constant_weights(model)
    outputs = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, output: outputs.append(output))
    image = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    model(image)
    height, width = outputs[0].shape[-2:]
    cell = height // 2, width // 2
    outputs[0][0, :, *cell].sum().backward()
    return image.grad.abs().sum((0, 1)), cell


def with_constant_weights(model: nn.Module) -> nn.Module:
    """Copy whose gradient is positive wherever it looks: means for weights and maxima, batch norm the identity."""
    model = copy.deepcopy(model).double().eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, mean)
            if isinstance(child, nn.GroupNorm):  # its statistics see the whole image
                setattr(module, name, nn.Identity())
    for name, parameter in model.named_parameters():
        # The gate saturated: its factor is 1 and its gradient 0.
        value = 100.0 if name.endswith("excite.bias") else 1 / parameter[0].numel() if parameter.ndim > 1 else 1.0
        nn.init.constant_(parameter, value)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None and module.bias[0] != 100:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
    return model


def test_functions_and_methods_are_followed_like_modules():
    modules = nn.Sequential(networks.CamVidNet().layer1, nn.MaxPool2d(3, 2, 1), networks.conv(6, 8, 3))
    modules.append(nn.MaxPool2d(3, 2, 1))
    written = trace_geometry(networks.Functional(), ["body", "tail"], (64, 64))
    assert written == {"body": traced(modules, "1"), "tail": traced(modules, "3")}


@pytest.mark.parametrize(
    "module",
    [
        nn.Hardswish(),
        nn.Softmax(1),
        nn.LocalResponseNorm(3),
        nn.InstanceNorm2d(4),
        nn.Dropout2d(),
        nn.SiLU(inplace=True),
        nn.ChannelShuffle(2),
        nn.AdaptiveAvgPool2d(32),
        nn.Upsample(size=(32, 32)),
        nn.LayerNorm((4, 32, 32)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_computes_cell_by_cell_moves_nothing(module: nn.Module):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), module)
    found = trace_geometry(model, ["0", "1"], (64, 64))
    assert found["1"] == found["0"]
    assert isinstance(found["1"], Geometry)


@pytest.mark.parametrize(
    "module",
    [
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(2),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 4, 4, 2, 1),
        nn.ConvTranspose2d(4, 4, 3, 2, 1, 1),
    ],
    ids=["nearest", "shuffle", "transposed 2", "transposed 4", "transposed 3"],
)
def test_doubling_halves_the_jump_and_keeps_the_middle(module: nn.Module):
    size = (64, 64)
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), module)
    geometry = traced(model, "1", size)
    assert geometry.y.jump == 2
    # Neighbouring cells share a source, so single cells swing around the line; a pair's mean lies on it.
    gradient, cell = gradient_of_the_middle_cell(model, "1", size)
    centroid = float(((torch.arange(64) + 0.5) * gradient.sum(1)).sum() / gradient.sum())
    assert float(geometry.y.start + cell[0] * geometry.y.jump) == pytest.approx(centroid, abs=1.01)


def test_a_pooled_map_is_one_cell_in_the_middle():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    assert figures(traced(model, "1", (20, 20)).y) == (20, 10, 22)


class UnitsLast(nn.Module):
    """A block of a ConvNeXt: what works cell by cell has its units last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 7, padding=3)
        self.norm, self.wide, self.thin = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.scale, self.out = nn.Parameter(torch.ones(4)), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        rows = self.norm(self.deep(x).permute(0, 2, 3, 1))
        rows = self.scale * self.thin(self.wide(rows).relu())
        return self.out(x + rows.transpose(1, 3).transpose(2, 3))


def test_maps_with_their_units_last_are_followed_until_they_are_turned_back():
    found = trace_geometry(UnitsLast(), ["stem", "deep", "norm", "norm <", "out"], (64, 64))
    assert found["out"] == found["deep"]
    assert figures(found["out"].y) == (4, 2, 28)
    assert found["norm"] == found["norm <"] == "permute in the model moves y and x to other dims"


class Transposed(UnitsLast):
    """Rows and columns are exchanged, and what is done to them is not done to units."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.across = way, nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        turned = self.stem(x).permute(0, 1, 3, 2)
        ways = {
            "as it is": lambda: turned,
            "linear along rows": lambda: self.across(turned).permute(0, 1, 3, 2),
            "added": lambda: (turned + self.deep(turned.permute(0, 1, 3, 2))).permute(0, 1, 3, 2),
            "added to another turn": lambda: (turned.permute(0, 2, 3, 1) + turned.permute(0, 3, 2, 1)).movedim(3, 1),
            "pooled": lambda: nn.functional.avg_pool2d(turned, 2),
        }
        return self.out(ways[self.way]())


@pytest.mark.parametrize("way", ["as it is", "linear along rows", "added", "added to another turn", "pooled"])
def test_turned_maps_lose_their_places_with_anything_but_what_works_cell_by_cell(way: str):
    found = trace_geometry(Transposed(way), ["stem", "out"], (64, 64))
    assert isinstance(found["stem"], Geometry)
    assert isinstance(found["out"], str)


def test_a_turn_back_restores_rows_and_columns():
    """Of 4 and 2 pixels each: a turn that exchanged them would be seen."""
    model = nn.Sequential(nn.Conv2d(3, 4, (4, 2), (4, 2)), Turns(), nn.Identity())
    found = trace_geometry(model, ["0", "2"], (64, 64))
    assert found["2"] == found["0"]
    assert (found["2"].y.jump, found["2"].x.jump) == (4, 2)


class Turns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(3, 0, 2, 1).permute(1, 3, 2, 0)


def test_layers_after_an_operation_without_a_rule_have_the_reason():
    found = trace_geometry(networks.Branching(), ["stem", "plain", "odd", "join"], (32, 32))
    assert isinstance(found["stem"], Geometry)
    assert isinstance(found["plain"], Geometry)
    assert found["odd"] == found["join"] == "roll in the model has no receptive-field rule"


def test_control_flow_on_values_is_a_reason():
    found = trace_geometry(networks.ByValue(), ["first", "second"], (32, 32))
    assert isinstance(found["first"], Geometry)
    assert "cannot be followed without data" in found["second"]


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("only on Tuesdays\nand so on")


class Odd(nn.Module):
    """One way per name that leaves the geometry behind."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(3, 4, 3, padding=1)
        self.after = nn.Identity()
        self.weight = nn.Parameter(torch.ones(1, 4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        ways = {
            "flattened": lambda: x.flatten(1).view(x.shape),
            "turned": lambda: x.permute(0, 1, 3, 2),
            "matmul": lambda: x @ x.new_ones(16, 16),
            "pooled": lambda: x * x.mean((1, 2, 3), keepdim=True)[..., 0, 0].view(-1, 1, 1, 1),
            "vector": lambda: x.mean((2, 3)).view(-1, 4, 1, 1).expand(-1, 4, 16, 16),
            "parameter": lambda: self.weight.expand(len(x), 4, 16, 16) * 2,
            "list": lambda: x[:, :, [3, 1]],
            "softmax": lambda: x.softmax(-1),
            "cat": lambda: torch.cat([x, x], 2),
            "written": lambda: self.written(x),
            "unseen": lambda: torch.vmap(lambda image: image.flip(1))(x),
            "jumps": lambda: x[:, :, :8] + x[:, :, ::2],
        }
        return self.after(ways[self.way]())

    @staticmethod
    def written(x: Tensor) -> Tensor:
        x[:, :, 1] = 0
        return x


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("flattened", "flatten in the model turns (2, 4, 16, 16) into (2, 1024)"),
        ("turned", "permute in the model moves y and x"),
        ("matmul", "matmul in the model has no"),
        ("pooled", "takes single rows or columns"),
        ("vector", "no position"),
        ("parameter", "no position"),
        ("list", "list or tensor"),
        ("softmax", "softmax in the model works along y or x"),
        ("cat", "cat in the model works along y or x"),
        ("written", "setitem in the model has no"),
        ("unseen", "it comes out of compiled or custom code"),
        ("jumps", "add in the model joins maps whose cells lie 1 and 2 pixels apart"),
    ],
)
def test_what_leaves_the_grid_is_a_reason(way: str, reason: str):
    found = trace_geometry(Odd(way), ["conv", "after"], (16, 16))
    assert isinstance(found["conv"], Geometry)
    assert reason in found["after"]


def test_failures_of_the_model_are_reasons():
    assert trace_geometry(Raises(), ["conv"], (8, 8)) == {
        "conv": "the forward pass cannot be followed without data: RuntimeError: only on Tuesdays"
    }
    assert "RuntimeError: Invalid channel" in trace_geometry(nn.Sequential(nn.Conv2d(1, 1, 3)), ["0"], (8, 8))["0"]
    assert isinstance(trace_geometry(nn.Sequential(nn.Conv2d(1, 1, 3)), ["0"], (8, 8), channels=1)["0"], Geometry)


def test_a_module_called_twice_or_never_or_without_a_map_is_a_reason():
    found = trace_geometry(networks.Shared(), ["conv", "unused"], (8, 8))
    assert found == {
        "conv": "it is called more than once in a forward pass",
        "unused": "it is not called in a forward pass",
    }
    assert "not one (batch, unit, y, x)" in trace_geometry(networks.tiny(), ["5"], (8, 8))["5"]


def test_unknown_module_is_refused():
    with pytest.raises(DissectError, match="no module 'layer9': it has 0, 1, 2"):
        trace_geometry(networks.tiny(), ["layer9"], (8, 8))


def test_the_model_is_not_touched():
    model = nn.Sequential(networks.conv(3, 4, 3), networks.Gate(4)).train()
    model[1].eval()
    calls = []
    model[0].register_forward_hook(lambda *given: calls.append(given))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    random_state = torch.get_rng_state()
    assert isinstance(trace_geometry(model, ["1"], (16, 16))["1"], Geometry)
    assert calls == []
    assert [module.training for module in model] == [True, False]
    assert len(model[0]._forward_hooks) == 1
    assert attributes == {name: set(vars(module)) for name, module in model.named_modules()}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def test_attrs_keep_fractions_exactly():
    geometry = traced(CORNERS, "2", (80, 80))
    attrs = geometry.to_attrs()
    assert attrs["y"]["jump"] == "13/16"
    assert Geometry.from_attrs(attrs) == geometry


@pytest.mark.parametrize("attrs", [{}, {"y": {"jump": "1"}, "x": {}}, {"y": "35/2", "x": "35/2"}])
def test_damaged_attrs_are_refused(attrs: dict):
    with pytest.raises(DissectError, match="jump, start and receptive_field"):
        Geometry.from_attrs(attrs)
