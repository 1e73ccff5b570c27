"""Builds a model whose weights do not all lie on one device.

Knows: which weights lie where for each placement, and the hooks of accelerate that bring the others when a module runs.
Does not know: files of weights (`checkpoints`), passes block by block (`sequential`).

Only `model(x)` is supported: other methods of a model bypass the hook at its root. Buffers are small and always on the
device.
"""

import os
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dissect_xr.activations.checkpoints import files
from dissect_xr.activations.checkpoints.lazy import is_lazy, lazy_weights
from dissect_xr.activations.placement.asked import Placement
from dissect_xr.activations.placement.blocks import WHOLE, assigned, blocks_of, sizes_of
from dissect_xr.activations.placement.empty import accelerate, empty_buffers, empty_model
from dissect_xr.activations.placement.guard import guard
from dissect_xr.activations.placement.sequential import Trunk
from dissect_xr.activations.request import ModelSpec
from dissect_xr.activations.sources import Loaded, load
from dissect_xr.errors import DissectError

_ROOM = 0.9
"""The share of a GPU's free memory that the weights of `split` may take, without a limit given."""

_HALF = 0.5
"""The same for `offload`, whose device also holds the weights that come and go, and the batch."""


@dataclass(frozen=True)
class _Source:
    """A model, and where its weights come from; it may have none itself."""

    model: nn.Module
    weights: Mapping[str, Tensor]
    sha256: str
    said: tuple[str, ...]
    in_memory: bool


def placed(spec: ModelSpec, placement: Placement, device: str) -> Loaded:
    """The model of a spec, placed as asked, running on a device; of safetensors, never all weights are in memory.

    Raises
    ------
    DissectError
        If accelerate is not installed, GPUs are missing or too small, or the weights do not fit the model.
    """
    what = f"placement {placement.mode}"
    library = accelerate(what)
    budgets = _gpus(placement) if placement.mode == "split" else {}
    source = _source(spec, placement, what)
    cast_inputs(source.model, placement.dtype)
    guard(source.model, placement.mode)
    blocks = blocks_of(source.model, placement.no_split)
    if placement.mode == "sequential":
        place = _placing(library, torch.device(device))
        _load_rest(source, blocks, place)
        trunk = Trunk(source.model, blocks, source.weights, place)
        return Loaded(source.model, source.sha256, source.said, trunk, placed=True)
    sizes = sizes_of(source.model, blocks)
    if placement.mode == "split":
        _split(source, sizes, _balanced(budgets, sizes, placement), library)
    else:
        _offload(source, sizes, placement, device, library)
    return Loaded(source.model, source.sha256, source.said, placed=True)


def cast_inputs(model: nn.Module, dtype: str | None) -> None:
    """Let a model cast images to the dtype of its weights; None leaves both as they are."""
    if dtype is None:
        return
    wanted = getattr(torch, dtype)

    def cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.to(wanted) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)

    model.to(wanted).register_forward_pre_hook(cast)


def _source(spec: ModelSpec, placement: Placement, what: str) -> _Source:
    reason: tuple[str, ...] = ()
    if spec.weights is not None and is_lazy(spec.weights):
        model, lost = _without_weights(spec, what)
        if model is not None:
            weights, said = lazy_weights(model, spec.weights, key=spec.key)
            return _Source(model, weights, files.weights_sha256(spec.weights), said, in_memory=False)
        reason = (f"all weights were read into memory once, since {lost}",)
    loaded = load(spec)
    state = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    if placement.offload_dir is None:
        return _Source(loaded.model, state, loaded.sha256, (*loaded.said, *reason), in_memory=True)
    file = _written(state, Path(placement.offload_dir).expanduser() / f"{loaded.sha256}.safetensors")
    weights, _ = lazy_weights(loaded.model, file)
    return _Source(loaded.model, weights, loaded.sha256, (*loaded.said, *reason), in_memory=False)


def _without_weights(spec: ModelSpec, what: str) -> tuple[nn.Module | None, str]:
    """The model without weights, or None and the reason why it cannot be built so."""
    try:
        model = empty_model(spec, what)
    except DissectError as error:
        return None, f"the model cannot be built without them: {error}"
    saved = set(model.state_dict())
    lost = [name for name in empty_buffers(model) if name not in saved]
    return (None, f"the buffer {lost[0]} is computed from them") if lost else (model, "")


def _written(state: Mapping[str, Tensor], file: Path) -> Path:
    """The file, which is named by the digest of what it holds, so it is written once."""
    if file.exists():
        return file
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Copies, since tensors that share memory cannot be saved.
        safetensors.torch.save_file({name: tensor.clone() for name, tensor in state.items()}, partial)
        partial.replace(file)
    except OSError as error:
        raise DissectError(f"offload_dir {file.parent}: cannot be written ({error}). Give another folder.") from error
    return file


def _placing(library: Any, device: torch.device) -> Callable[..., None]:
    def place(model: nn.Module, name: str, to: str | None, value: Tensor | None) -> None:
        # Weights outlive a pass, so they are no tensors of its inference mode.
        with torch.inference_mode(mode=False):
            library.utils.set_module_tensor_to_device(model, name, device if to is None else to, value=value)

    return place


def _load_rest(source: _Source, blocks: Any, place: Callable[..., None]) -> None:
    """Put on the device what belongs to no block, and all buffers."""
    above = tuple(f"{block}." for block in blocks)
    for name, _ in list(source.model.named_parameters()):
        if not name.startswith(above):
            place(source.model, name, None, source.weights[name])
    for name, buffer in list(source.model.named_buffers()):
        place(source.model, name, None, source.weights.get(name, buffer))


def _offload(source: _Source, sizes: Mapping[str, int], placement: Placement, device: str, library: Any) -> None:
    limits = dict(placement.max_memory)
    main = torch.device(device)
    if main.type == "cpu":
        budgets = {"cpu": limits.get("cpu", 0)}
    else:
        index = str(main.index or 0)
        budgets = {index: limits.get(index, int(_HALF * torch.cuda.mem_get_info(main)[0])), "cpu": limits.get("cpu", 0)}
    resident = next(iter(budgets))
    where = assigned(sizes, budgets)
    kept = {name: source.weights[name] for name in _names(source, [b for b, at in where.items() if at == "cpu"])}
    weights = ChainMap(kept, source.weights) if main.type != "cpu" and not source.in_memory else source.weights  # type: ignore[arg-type]
    place = _placing(library, main)
    _load_rest(source, sizes, place)
    for block, at in where.items():
        if at == resident:
            for name in _names(source, [block]):
                place(source.model, name, None, source.weights[name])
            continue
        library.hooks.attach_align_device_hook(
            source.model.get_submodule(block),
            execution_device=main,
            offload=True,
            weights_map=weights,
            module_name=block,
            preload_module_classes=[*WHOLE, *placement.no_split],
        )
    _root(source.model, main, library)


def _split(source: _Source, sizes: Mapping[str, int], budgets: Mapping[str, int], library: Any) -> None:
    where = assigned(sizes, budgets)
    first = _device(next(iter(budgets)))
    left = [block for block, at in where.items() if at is None]
    if left:
        needed = sum(sizes.values())
        raise DissectError(
            f"placement split: the weights take {needed / 2**30:.2f} GiB, and {len(left)} blocks from {left[0]} on do "
            f"not fit the GPUs: {', '.join(f'{at}: {size / 2**30:.2f} GiB' for at, size in budgets.items())}. Use more "
            "gpus_per_worker, a smaller dtype, a larger max_memory, or placement offload."
        )
    _load_rest(source, sizes, _placing(library, first))
    for block, at in where.items():
        device = _device(str(at))
        place = _placing(library, device)
        names = _names(source, [block])
        for name in names:
            place(source.model, name, None, source.weights[name])
        module = source.model.get_submodule(block)
        library.hooks.add_hook_to_module(
            module, library.hooks.AlignDevicesHook(execution_device=device, place_submodules=True)
        )
    _root(source.model, first, library)


def _root(model: nn.Module, device: torch.device, library: Any) -> None:
    """Inputs come to the device, and what the model returns goes back to where they were."""
    hook = library.hooks.AlignDevicesHook(execution_device=device, io_same_device=True)
    library.hooks.add_hook_to_module(model, hook, append=True)


def _names(source: _Source, blocks: list[str]) -> list[str]:
    """Parameters of blocks."""
    return [f"{b}.{name}" for b in blocks for name, _ in source.model.get_submodule(b).named_parameters()]


def _gpus(placement: Placement) -> dict[str, int]:
    """Number of each of this worker's GPUs -> bytes that its weights may take."""
    count, wanted = torch.cuda.device_count(), placement.gpus_per_worker
    if count < wanted:
        raise DissectError(
            f"placement split: expected {wanted} GPUs in this worker (gpus_per_worker), found {count}. Start workers "
            "that see so many, or use placement offload or sequential."
        )
    limits = dict(placement.max_memory)
    return {str(n): limits.get(str(n), int(_ROOM * torch.cuda.mem_get_info(n)[0])) for n in range(wanted)}


def _balanced(budgets: Mapping[str, int], sizes: Mapping[str, int], placement: Placement) -> dict[str, int]:
    """Budgets that fill all GPUs about alike, but where a limit was given."""
    share = sum(sizes.values()) // len(budgets) + max(sizes.values(), default=0)
    given = dict(placement.max_memory)
    return {at: size if at in given else min(size, share) for at, size in budgets.items()}


def _device(number: str) -> torch.device:
    return torch.device(f"cuda:{number}")
