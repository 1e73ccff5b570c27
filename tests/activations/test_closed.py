"""What hooks cannot enter is one clear error with the way out; scripted modules inside a model are passed by."""

import pytest
import torch
from torch import nn

from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import load_model
from dissect_xr.activations.taps import map_layers, select_layers
from dissect_xr.errors import DissectError

# torch warns that scripting is deprecated, and uses what is deprecated itself where it compiles and exports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

EXAMPLE = torch.ones(1, 3, 8, 8)


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))


def scripted() -> nn.Module:
    return torch.jit.script(plain().eval())


def traced() -> nn.Module:
    return torch.jit.trace(plain().eval(), EXAMPLE)


def frozen() -> nn.Module:
    return torch.jit.freeze(scripted())


def compiled() -> nn.Module:
    return torch.compile(plain())


def compiled_in_place() -> nn.Module:
    model = plain()
    model.compile()
    return model


def compiled_inside() -> nn.Module:
    return nn.Sequential(nn.ReLU(), torch.compile(plain()))


def compiled_forward() -> nn.Module:
    model = plain()
    model.forward = torch.compile(model.forward)
    return model


def compiled_forward_inside() -> nn.Module:
    return nn.Sequential(nn.ReLU(), compiled_forward())


def decorated(decorator) -> nn.Module:
    """`plain()`, of a class whose `forward` is decorated."""

    class Decorated(nn.Sequential):
        @decorator
        def forward(self, x):
            return super().forward(x)

    return Decorated(*plain())


def compiled_by_decorator() -> nn.Module:
    return decorated(torch.compile)


def compiled_by_decorator_inside() -> nn.Module:
    return nn.Sequential(decorated(torch.compile), nn.ReLU())


def compiled_part_of_forward() -> nn.Module:
    model = plain()
    model.forward_features = torch.compile(model[0].forward)
    return model


def not_compiled() -> nn.Module:
    return decorated(torch.compiler.disable)


def exported():
    return torch.export.export(plain().eval(), (EXAMPLE,))


def module_of_exported() -> nn.Module:
    return exported().module()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Sequential(nn.LazyBatchNorm2d(), nn.ReLU()))


def without_values() -> nn.Module:
    with torch.device("meta"):
        return plain()


def partly_without_values() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, device="meta"))


class Stubborn(nn.Module):
    def train(self, mode: bool = True) -> nn.Module:
        raise NotImplementedError("always in training")


def stubborn() -> nn.Module:
    return Stubborn()


CASES = {
    scripted: r"torch\.jit has scripted or traced, which hooks cannot enter: return the model before torch\.jit",
    traced: r"torch\.jit has scripted or traced, which hooks cannot enter: return the model before",
    frozen: r"torch\.jit has scripted or traced, which hooks cannot enter: return the model before",
    compiled: r":compiled is compiled, which hooks cannot enter: leave out torch\.compile",
    compiled_in_place: r":compiled_in_place is compiled, which hooks cannot enter: leave out torch\.compile",
    compiled_inside: r"module 1 of .*:compiled_inside is compiled, which hooks cannot enter: leave out torch\.compile",
    compiled_forward: r":compiled_forward is compiled, which hooks cannot enter: leave out torch\.compile",
    compiled_forward_inside: r"module 1 of .*:compiled_forward_inside is compiled, which hooks cannot enter: leave out",
    compiled_by_decorator: r":compiled_by_decorator is compiled, which hooks cannot enter: leave out torch\.compile",
    compiled_by_decorator_inside: r"module 0 of .*:compiled_by_decorator_inside is compiled, which hooks cannot enter",
    compiled_part_of_forward: r":compiled_part_of_forward is compiled, which hooks cannot enter: leave out torch",
    exported: r"returned a torch\.export program, which hooks cannot enter: return the model that was exported",
    module_of_exported: r"returned the module of a torch\.export program, which hooks cannot enter: return the model",
    lazy: r"has Lazy layers that have not seen an input: 0, 1\.0\. Call the model once before the factory returns it",
    without_values: r":without_values returned a model with 7 tensors on the device meta, which have no values: 0\.",
    partly_without_values: r"with 5 tensors on the device meta, .*: 1\.weight, 1\.bias, .* Build it on the CPU",
    stubborn: r":stubborn: the model cannot be put into eval mode: always in training",
}


@pytest.mark.parametrize(("factory", "message"), CASES.items(), ids=[case.__name__ for case in CASES])
def test_what_hooks_cannot_enter_is_refused_with_the_way_out(factory, message):
    with pytest.raises(DissectError, match=message):
        load_model(ModelSpec.of(f"{__name__}:{factory.__name__}"))


def lazy_after_a_pass() -> nn.Module:
    model = lazy()
    model(torch.zeros(1, 3, 8, 8))
    return model


def unflattened() -> nn.Module:
    return torch.export.unflatten(exported())


@pytest.mark.parametrize("factory", [plain, lazy_after_a_pass, unflattened, not_compiled])
def test_the_way_out_leads_out(factory):
    model = load_model(ModelSpec.of(f"{__name__}:{factory.__name__}"))
    assert list(map_layers(model, EXAMPLE).maps) == ["0", "1.0", "1.1", "1"]


def test_scripted_modules_inside_a_model_are_named_and_the_others_are_layers():
    model = nn.Sequential(scripted(), nn.Conv2d(4, 2, 1)).eval()
    found = map_layers(model, EXAMPLE)
    assert list(found.maps) == ["1"]
    assert set(found.others) == {"0", "0.0", "0.1", "0.1.0", "0.1.1"}
    assert select_layers(found, "all") == ["1"]
    with pytest.raises(DissectError, match=r"module '0\.1' is inside scripted or traced code"):
        select_layers(found, ["0.1"])
