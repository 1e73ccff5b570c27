"""A copy of a model's modules in which every tensor is another one, such as one without values.

Knows: where modules keep tensors; that a copy is in eval mode and has no hooks.
Does not know: what the copy is for.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def twin(model: nn.Module, other: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """A copy of the modules in eval mode without hooks, whose tensors are what `other` makes of the model's; the list.

    A tensor that several modules share is one tensor in the copy, too.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]
        memo |= {id(tensor): other(tensor) for tensor in held if isinstance(tensor, Tensor) and id(tensor) not in memo}
        memo |= {id(hooks): OrderedDict() for hooks in (module._forward_hooks, module._forward_pre_hooks)}
    tensors = [tensor for tensor in memo.values() if isinstance(tensor, Tensor)]
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        module.training = False
    return copied, tensors
