"""A model cut into blocks, whose weights come and go together, and which block lies where.

Knows: sizes of weights; which modules are called as a whole; budgets of devices.
Does not know: how weights get to a device (`place`, `sequential`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

WHOLE = ("MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer")
"""Classes of torch that use the weights of modules inside them without calling these."""

SHARE = 4
"""A module is a block if its weights are at most one part in so many of all."""


def blocks_of(model: nn.Module, no_split: Collection[str] = ()) -> list[str]:
    """Names of the modules whose weights come and go together, in the order in which the model has them.

    From the model downwards, a module is a block as soon as it has at most a quarter of all weights, is of a class that
    stays whole, or has no modules with weights inside. Lists of modules are never called, so they are none. What lies
    above all blocks, such as a class token, belongs to none.

    Examples
    --------
    >>> layers = [nn.Linear(8, 8, bias=False) for _ in range(6)]
    >>> blocks_of(nn.ModuleDict({"trunk": nn.Sequential(*layers), "head": nn.Linear(8, 2)}))
    ['trunk.0', 'trunk.1', 'trunk.2', 'trunk.3', 'trunk.4', 'trunk.5', 'head']
    """
    limit = nbytes(model.parameters()) / SHARE
    whole = {*WHOLE, *no_split}
    found: list[str] = []
    seen: set[nn.Module] = set()

    def descend(name: str, module: nn.Module) -> None:
        if module in seen:  # under another name
            return
        seen.add(module)
        size = nbytes(module.parameters())
        inside = [(child, part) for child, part in module.named_children() if nbytes(part.parameters())]
        stays = type(module).__name__ in whole or size <= limit or not inside
        if size and name and stays and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            found.append(name)
            return
        for child, part in inside:
            descend(f"{name}.{child}" if name else child, part)

    descend("", model)
    return found


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def sizes_of(model: nn.Module, blocks: Sequence[str]) -> dict[str, int]:
    """Bytes of the weights of each block."""
    return {name: nbytes(model.get_submodule(name).parameters()) for name in blocks}


def assigned(sizes: Mapping[str, int], budgets: Mapping[str, int]) -> dict[str, str | None]:
    """Block -> the device that it lies on: the first that has room for it, in order, and never one before; or None.

    >>> assigned({"a": 3, "b": 3, "c": 1, "d": 9}, {"0": 5, "1": 4})
    {'a': '0', 'b': '1', 'c': '1', 'd': None}
    """
    devices = list(budgets)
    left, at = dict(budgets), 0
    found: dict[str, str | None] = {}
    for name, size in sizes.items():
        while at < len(devices) and left[devices[at]] < size:
            at += 1
        found[name] = devices[at] if at < len(devices) else None
        if at < len(devices):
            left[devices[at]] -= size
    return found
