"""A model of which one block at a time has its weights, and many batches that run through it block by block.

Knows: how the weights of a block come and go, and that all batches pass a block before the next one gets its weights.
Does not know: where weights come from (a mapping from names), what is recorded.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from dissect_xr.activations.placement.lockstep import lockstep, wait_at


class Trunk:
    """The blocks of a model, whose weights are on the device only while the block runs.

    A forward pass alone gets the weights of each block when it comes to it. Passes that `run` runs together share them.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[str], weights: Mapping[str, Tensor], place: Callable[..., None]
    ) -> None:
        """`place(model, name, device, value)` sets a tensor; the device is `meta`, or None for the one that runs."""
        self.reads: Counter[str] = Counter()
        """how often the weights of each block were put on the device"""
        self._model, self._weights, self._place = model, weights, place
        self._alone: dict[str, ExitStack] = {}
        """blocks that a forward pass alone is in"""
        self._tensors = {
            block: [f"{block}.{name}" for name, _ in model.get_submodule(block).named_parameters()] for block in blocks
        }
        for block in blocks:
            self._drop(block)
            module = model.get_submodule(block)
            module.register_forward_pre_hook(self._enter(block))
            module.register_forward_hook(self._leave(block), always_call=True)

    def run(self, passes: Sequence[Callable[[], None]]) -> None:
        """Run forward passes, of which each block gets its weights once."""
        lockstep(passes, self._held)

    @contextmanager
    def _held(self, block: str) -> Iterator[None]:
        """The weights of a block are on the device inside the `with` block."""
        for name in self._tensors[block]:
            self._place(self._model, name, None, self._weights[name])
        self.reads[block] += 1
        try:
            yield
        finally:
            self._drop(block)

    def _drop(self, block: str) -> None:
        for name in self._tensors[block]:
            self._place(self._model, name, "meta", None)

    def _enter(self, block: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: object) -> None:
            if not wait_at(block):
                self._alone[block] = alone = ExitStack()
                alone.enter_context(self._held(block))

        return hook

    def _leave(self, block: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            if (alone := self._alone.pop(block, None)) is not None:
                alone.close()

        return hook
