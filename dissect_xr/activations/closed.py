"""Models and modules that hooks cannot enter: compiled, scripted, traced or exported code, and Lazy layers.

Knows: how each is recognised, and the way out of each: the plain module, or one pass for Lazy layers.
Does not know: hooks (`taps`), or how a model is built (`sources`).
"""

from collections.abc import Iterator

from torch import fx, jit, nn
from torch.nn.parameter import is_lazy

from dissect_xr.activations.references import shortlist
from dissect_xr.errors import DissectError

INSIDE = "is inside scripted or traced code, which hooks cannot enter"
"""Why a module is not a layer."""


def check_open(model: object, source: str) -> nn.Module:
    """The model, if hooks can enter it.

    Raises
    ------
    DissectError
        If it is no `nn.Module`, or its code is compiled, scripted, traced or exported, or it has Lazy layers that have
        not seen an input; the message says what the factory should return instead.
    """
    if type(model).__name__ == "ExportedProgram":
        raise DissectError(
            f"{source} returned a torch.export program, {_NO_ENTRY}: return the model that was exported."
        )
    if not isinstance(model, nn.Module):
        raise DissectError(f"{source} returned a {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, jit.ScriptModule):
        raise DissectError(
            f"{source} returned a {type(model).__name__}, which torch.jit has scripted or traced, {_NO_ENTRY}: return "
            "the model before torch.jit.script or torch.jit.trace. Of a file of TorchScript, "
            "torch.jit.load(path).state_dict() has the weights."
        )
    if isinstance(model, fx.GraphModule) and _is_exported(model):
        raise DissectError(
            f"{source} returned the module of a torch.export program, {_NO_ENTRY}: return the model that was exported, "
            "or torch.export.unflatten(program)."
        )
    if compiled := [name for name, module in model.named_modules() if _is_compiled(module)]:
        where = f"module {shortlist(compiled, 4)} of {source}" if compiled[0] else source
        raise DissectError(f"{where} is compiled, {_NO_ENTRY}: leave out torch.compile, which a dissection needs not.")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if lazy := sorted({name.rpartition(".")[0] for name, tensor in tensors if is_lazy(tensor)}):
        raise DissectError(
            f"{source} has Lazy layers that have not seen an input: {shortlist(lazy, 4)}. Call the model once before "
            "the factory returns it, such as model(torch.zeros(1, 3, 224, 224)), or use layers that are not Lazy."
        )
    return model


def check_values(model: nn.Module, source: str) -> None:
    """Raise if a model has parameters or buffers without values.

    Raises
    ------
    DissectError
        Naming some of them.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    if empty := [name for name, tensor in tensors if tensor.is_meta]:
        raise DissectError(
            f"{source} returned a model with {len(empty)} tensors on the device meta, which have no values: "
            f"{shortlist(empty, 4)}. Build it on the CPU (device='cpu'); for a model larger than memory give "
            "activations.placement, which leaves weights out while it builds one."
        )


def closed_modules(model: nn.Module) -> set[str]:
    """Names of the modules that are scripted or traced code, or inside it."""
    roots = [name for name, module in model.named_modules() if isinstance(module, jit.ScriptModule)]
    return {name for name, _ in model.named_modules() if any(f"{name}.".startswith(f"{root}.") for root in roots)}


_NO_ENTRY = "which hooks cannot enter"


def _is_exported(model: fx.GraphModule) -> bool:
    """Whether the graph calls operators and none of the modules that the weights belong to."""
    return any(type(node.target).__name__ == "OpOverload" for node in model.graph.nodes)


def _is_compiled(module: nn.Module) -> bool:
    compiled_in_place = getattr(module, "_compiled_call_impl", None) is not None
    return compiled_in_place or type(module).__name__ == "OptimizedModule" or any(map(_compiles, _forwards(module)))


def _forwards(module: nn.Module) -> Iterator[object]:
    """`forward` and the methods called `forward_...`, those that were set on the module as well."""
    for name in {name for held in (vars(module), *map(vars, type(module).__mro__)) for name in held}:
        if name.startswith("forward"):
            yield vars(module).get(name, getattr(type(module), name, None))


def _compiles(function: object) -> bool:
    """Whether torch.compile made a function; torch.compiler.disable marks its functions in the same way, and more."""
    made = getattr(function, "_torchdynamo_orig_callable", None) is not None
    return made and not getattr(function, "_torchdynamo_disable", False)
