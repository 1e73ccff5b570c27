"""A name says one thing, and where a forward pass goes is taken as it is when the hook fires."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dissect_xr.activations.layouts.layout import Layout
from dissect_xr.activations.tapping.name import Tap, parse_tap
from dissect_xr.activations.tapping.silent import why_silent
from dissect_xr.activations.taps import Tapped, forward, map_layers
from dissect_xr.errors import DissectError

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KEYS = st.from_regex(r"[A-Za-z0-9_]+", fullmatch=True)


@given(
    st.builds(
        Tap,
        st.from_regex(r"[a-z0-9_]+(\.[a-z0-9_]+){0,3}", fullmatch=True),
        st.none() | st.integers(1, 99),
        st.sampled_from(["output", "input"]),
        st.lists(KEYS, max_size=3).map(tuple),
        st.none() | st.integers(0, 9),
    )
)
def test_a_tap_is_read_as_it_is_spelled(tap: Tap):
    assert parse_tap(str(tap)) == tap
    assert parse_tap(f"  {str(tap).replace(' <', '<')} ") == tap


@pytest.mark.parametrize("text", ["", "#2", "a#0", "a < b", "a<<"])
def test_what_is_no_tap_is_refused(text: str):
    with pytest.raises(DissectError, match="layer '"):
        parse_tap(text)


class Inner(nn.Module):
    """Returns a tuple and a dict, and takes its second argument by name."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, factor: float, *, other: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        first = self.relu(x - 0.5)
        second = self.relu(other - 0.75)
        result = first * factor
        first.zero_()  # in place, after `relu` returned it
        return result, {"states": [second, second + 1]}


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.sum = Inner(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result, more = self.inner(x, 2.0, other=x)
        return self.sum(result + more["states"][1])


def taken(model: nn.Module, *names: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    forward(model, EXAMPLE.clone(), names, lambda layer, maps: found.update({layer: maps.clone()}))
    return found


def test_every_kind_of_tap_gives_what_the_code_says():
    first, second = (EXAMPLE - 0.5).relu(), (EXAMPLE - 0.75).relu()
    expected = {
        "inner <": EXAMPLE,
        "inner <[0]": EXAMPLE,
        "inner <[other]": EXAMPLE,
        "inner.relu#1 <": EXAMPLE - 0.5,
        "inner.relu#1": first,
        "inner.relu#2": second,
        "inner[0]": first * 2,
        "inner[1][states][0]": second,
        "inner[1][states][1]": second + 1,
        "sum": first * 2 + (second + 1),
    }
    found = taken(Outer(), *expected)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_all_taps_of_a_pass_are_listed_in_order():
    found = map_layers(Outer(), EXAMPLE).taps
    assert list(found) == [
        "inner.relu#1 <", "inner.relu#1", "inner.relu#2 <", "inner.relu#2", "inner <", "inner <[other]", "inner[0]",
        "inner[1][states][0]", "inner[1][states][1]", "sum <", "sum",
    ]  # fmt: skip
    assert {seen.shape for seen in found.values()} == {(2, 3, 8, 8)}


def test_calls_are_counted_anew_in_every_pass():
    model = Outer()
    for _ in range(2):
        assert torch.equal(taken(model, "inner.relu#2")["inner.relu#2"], (EXAMPLE - 0.75).relu())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inner[2]", r"layer inner\[2\]: \[2\] is no element of a tuple of 2: it has \[0\], \[1\]"),
        ("inner[1][state]", r"\[state\] is no element of a dict of 1 at \[1\]: it has \[states\]"),
        ("inner <[another]", r"it has \[0\], \[1\], \[other\]"),
        ("inner.relu", r"runs more than once.*'inner.relu#1'"),
        ("inner.relu#3", "layer inner.relu#3 did not run"),
        ("outer[0]", "no module 'outer'"),
        ("inner <[1]", r"layer inner <\[1\] returns a float, expected one tensor"),
    ],
)
def test_a_tap_that_gives_nothing_says_what_there_is(name: str, message: str):
    with pytest.raises(DissectError, match=message):
        taken(Outer(), name)


def test_submodules_of_an_encoder_layer_run_where_hooks_listen_or_say_why_not():
    """In eval mode nn.TransformerEncoderLayer may take a path that calls none of its modules."""
    layer = nn.TransformerEncoderLayer(3, 1, 4, batch_first=True).eval()
    rows = torch.rand(2, 5, 3)
    tokens = [Tapped(name, Layout("tokens", grid=(1, 5))) for name in ("linear1", "norm1", "self_attn.out_proj")]
    for tapped in tokens[:2]:
        heard: list[Tensor] = []
        said = ""
        try:
            forward(layer, rows, [tapped], lambda name, maps, heard=heard: heard.append(maps))
        except DissectError as error:
            said = str(error)
        assert heard or "did not run in the forward pass" in said
    with pytest.raises(DissectError, match=r"self_attn.out_proj did not run.*Name what it returns instead: 'self_attn"):
        forward(layer, rows, tokens[2:], lambda name, maps: None)
    outer = nn.Sequential(layer)
    assert "set_fastpath_enabled(False)" in why_silent(outer, "0.linear1")


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0]


def test_a_module_whose_weights_are_read_by_another_says_how_to_get_its_values():
    message = r"attention.out_proj did not run.*reads its weights and calls none of its modules.*'attention\[0\]'"
    with pytest.raises(DissectError, match=message):
        taken(Attending(), "attention.out_proj")
    tokens = Tapped("attention[0]", Layout("tokens", grid=(8, 8)))
    found: list[Tensor] = []
    result = forward(Attending(), EXAMPLE, [tokens], lambda layer, maps: found.append(maps.clone()))
    assert torch.equal(found[0].flatten(2).transpose(1, 2), result)
