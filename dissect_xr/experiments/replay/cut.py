"""A network cut in two at a layer: what runs up to it, and the rest, which takes its output.

Knows: torch.fx; that only the modules around the layer have to be followed, all others are called as they are.
Does not know: units, images, or whether the rest really gives what the network gives (`replays` compares them).

An example: a residual block `y = relu(x + conv2(relu(conv1(x))))`, cut at `conv1`. What runs up to the layer gives the
output of `conv1`, and `x`, which the rest needs as well; it skips past the layer:

    front   x = stem(image); a = conv1(x)            gives a, x
    rest    b = conv2(relu(a)); y = relu(x + b)      takes a, x

The modules around the layer are those that contain it: the block, the stage that it is in, the network. Their Python
code is followed by `torch.fx`, which needs that no decision in it depends on the values or the shape of a tensor.
`stem`, `conv2` and whatever else lies beside the layer is called as a whole, whatever its code does.

The network is not changed: both parts refer to its modules, with their weights and hooks, and own nothing but a list of
calls. While a network is being followed, torch.fx replaces the method by which all modules of the process are called:
no other thread must run a model meanwhile.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from dissect_xr.errors import DissectError


class CannotCutError(Exception):
    """The reason why a network cannot be cut at a layer."""


class NoPathError(CannotCutError):
    """No call leads from the layer to the output: it does not matter, or it is written into another tensor in place."""


@dataclass(frozen=True)
class Cut:
    """A network in two parts."""

    front: fx.GraphModule
    """image batch -> (output of the layer, whatever else the rest needs)"""
    rest: fx.GraphModule
    """what `front` gives -> the network's output; it may overwrite what it is given"""


class _Holder(nn.Module):
    """Calls the network as everybody does, so that other arguments of its forward() have their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Any:
        return self.network(image)


class _Tracer(fx.Tracer):
    def __init__(self, through: Collection[str]) -> None:
        super().__init__()
        self._through = through

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._through


def cut(model: nn.Module, layer: str) -> Cut:
    """The network in two parts, of which the first ends with the layer. Runs nothing.

    Parameters
    ----------
    model
        In eval mode.
    layer
        Name of a module.

    Raises
    ------
    CannotCutError
        If the code of a module around the layer cannot be followed without values.
    DissectError
        If the layer is not called exactly once.
    """
    name = f"network.{layer}"
    parts = name.split(".")
    holder, around = _Holder(model), {".".join(parts[:n]) for n in range(1, len(parts))}
    try:
        graph = _Tracer(around).trace(holder)
    except Exception as error:
        # forward() is anybody's code, and may raise any error when it is given no values.
        first_line = (str(error).splitlines() or [""])[0]
        raise CannotCutError(f"its code cannot be followed: {type(error).__name__}: {first_line}") from error
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if len(calls) != 1:
        raise DissectError(runs_more_than_once(layer, len(calls)))
    return _parted(holder, graph, calls[0])


def runs_more_than_once(layer: str, calls: int) -> str:
    """The message for a layer whose outputs could not be told apart, or that has none."""
    return (
        f"layer {layer}: expected a module that runs once in a forward pass, but it runs {calls} times. Name another "
        "layer."
    )


def _parted(holder: nn.Module, graph: fx.Graph, layer_node: fx.Node) -> Cut:
    """The graph in two, at one of its nodes."""
    after = _depend_on(graph, layer_node)
    (output,) = (node for node in graph.nodes if node.op == "output")
    if output not in after:
        raise NoPathError("no call leads from the layer to the network's output")
    needed = {given for node in after - {layer_node} for given in node.all_input_nodes} - after
    skipping = [node for node in graph.nodes if node in needed and node.op != "get_attr"]
    front, rest = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node is layer_node or node not in after:
            copies[node] = front.node_copy(node, copies.__getitem__)
    front.output(tuple(copies[node] for node in (layer_node, *skipping)))
    copies = {node: rest.placeholder(f"given_{n}") for n, node in enumerate((layer_node, *skipping))}
    for node in graph.nodes:
        if (node in after and node is not layer_node) or (node in needed and node.op == "get_attr"):
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return Cut(fx.GraphModule(holder, front, "Front"), fx.GraphModule(holder, rest, "Rest"))


def _depend_on(graph: fx.Graph, first: fx.Node) -> set[fx.Node]:
    """The node and all that depend on it."""
    after = {first}
    for node in graph.nodes:
        if any(given in after for given in node.all_input_nodes):
            after.add(node)
    return after
