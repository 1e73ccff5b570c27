"""How the names in a state dict become those of a model: wrappers and prefixes that training adds are taken off.

Knows: the names that wrappers of modules add anywhere in a name, and prefixes that all names share.
Does not know: tensors, or where the names come from.

The names of a VGG that was trained in PyTorch Lightning, compiled, with its convolutions on several GPUs, an example::

    model._orig_mod.features.module.0.weight
    model._orig_mod.classifier.0.weight

Wrappers first: ``_orig_mod`` of torch.compile and ``module`` of DataParallel are taken off wherever they stand. Then
the prefix that all names share, ``model``. What is left, ``features.0.weight`` and ``classifier.0.weight``, are the
model's names. Nothing is taken off where the names fit without that, or where two names would become one.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Names of the module inside a wrapper: DataParallel and DistributedDataParallel, torch.compile,
FullyShardedDataParallel, activation checkpoints, Lightning Fabric."""

_OPTIONAL = "num_batches_tracked"
"""Files written before torch 0.4.1 lack this, which a forward pass in eval mode ignores."""


@dataclass(frozen=True)
class Match:
    """The names of a state dict, as far as they are those of a model."""

    names: Mapping[str, str]
    """name in the file -> name in the model"""
    missing: tuple[str, ...]
    """names of the model that the file lacks"""
    unexpected: tuple[str, ...]
    """names that only the file has, without what was taken off"""
    removed: tuple[str, ...]
    """what was taken off, each with its dot"""

    @property
    def faults(self) -> int:
        """Number of names that are not in both; 0 where they fit."""
        return len(self.missing) + len(self.unexpected)


def match(own: Collection[str], given: Collection[str]) -> Match:
    """The names of a file that fit a model's, or else those that come nearest.

    Examples
    --------
    >>> match(["0.weight", "2.weight"], ["net.module.0.weight", "net.module.2.weight"]).removed
    ('net.', 'module.')
    """
    best: Match | None = None
    for attempt in _attempts(own, given):
        if not attempt.faults:
            return attempt
        if best is None or attempt.faults < best.faults:
            best = attempt
    assert best is not None  # the first attempt takes nothing off
    return best


def fitting_prefixes(own: Collection[str], given: Collection[str]) -> list[str]:
    """The prefixes whose names alone fit a model, such as ``model`` beside ``criterion``; none below another.

    Examples
    --------
    >>> fitting_prefixes(["0.weight"], ["model.0.weight", "criterion.weight"])
    ['model']
    """
    below: dict[str, list[str]] = {}
    for name in given:
        parts = name.split(".")
        for n in range(1, min(len(parts), 4)):
            below.setdefault(".".join(parts[:n]), []).append(".".join(parts[n:]))
    needed = sum(not name.endswith(_OPTIONAL) for name in own)
    found = [prefix for prefix, names in below.items() if needed <= len(names) < len(given)]
    found = [prefix for prefix in found if not match(own, below[prefix]).faults]
    return [prefix for prefix in found if not any(prefix.startswith(f"{other}.") for other in found)]


def _attempts(own: Collection[str], given: Collection[str]) -> Iterator[Match]:
    same = {name: name for name in given}
    yield from _without_prefixes({name: name for name in own}, same, ())
    inner_own, inner = {_unwrapped(name): name for name in own}, {name: _unwrapped(name) for name in given}
    if len(inner_own) == len(own) and len(set(inner.values())) == len(inner):
        removed = [wrapper for wrapper in WRAPPERS if any(wrapper in name.split(".") for name in given)]
        yield from _without_prefixes(inner_own, inner, tuple(f"{wrapper}." for wrapper in removed))


def _without_prefixes(own: Mapping[str, str], given: dict[str, str], removed: tuple[str, ...]) -> Iterator[Match]:
    """A match for every prefix that all names share, from none to the longest."""
    prefixes: tuple[str, ...] = ()
    while True:
        yield _compared(own, given, (*prefixes, *removed))
        shared = {name.partition(".")[0] for name in given.values()}
        if len(shared) != 1 or not all("." in name for name in given.values()):
            return
        prefixes += (f"{shared.pop()}.",)
        given = {name: left.partition(".")[2] for name, left in given.items()}


def _compared(own: Mapping[str, str], given: Mapping[str, str], removed: tuple[str, ...]) -> Match:
    there = set(given.values())
    return Match(
        {name: own[left] for name, left in given.items() if left in own},
        tuple(name for left, name in own.items() if left not in there and not left.endswith(_OPTIONAL)),
        tuple(left for left in given.values() if left not in own),
        removed,
    )


def _unwrapped(name: str) -> str:
    """A name without the wrappers in it; the last part is that of a tensor."""
    *modules, tensor = name.split(".")
    return ".".join([*(part for part in modules if part not in WRAPPERS), tensor])
