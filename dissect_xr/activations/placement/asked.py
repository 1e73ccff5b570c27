"""What is asked about where a model's weights lie.

Knows: the fields, their defaults, and which of them go together.
Does not know: torch; how weights get there (`place`, `sequential`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from dissect_xr.errors import DissectError

Mode = Literal["single", "split", "offload", "sequential"]

WEIGHT_DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes that weights may be cast to."""

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}


@dataclass(frozen=True)
class Placement:
    """Where the weights lie. Activations are the same, bit for bit, in every mode on devices of one kind."""

    mode: Mode = "single"
    """`single`: all on one device. `split`: some modules on each of a worker's GPUs. `offload`: what does not fit comes
    from host memory or disk while a module runs. `sequential`: one block of the model after another runs over all
    images of an image block, so that each weight is read once per image block."""
    dtype: str | None = None
    """one of `WEIGHT_DTYPES`, that weights and images are cast to; None leaves them as they are"""
    gpus_per_worker: int = 1
    """GPUs of a worker, for `split`"""
    max_memory: tuple[tuple[str, int], ...] = ()
    """(device, bytes) that weights may take: the number of a GPU, or `cpu`"""
    offload_dir: str | None = None
    """folder for weights that lie in no safetensors file; None keeps those in host memory"""
    no_split: tuple[str, ...] = ()
    """names of classes whose modules stay whole: on one device, and loaded at once"""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise DissectError(f"placement '{self.mode}': expected one of {', '.join(get_args(Mode))}.")
        if self.dtype is not None and self.dtype not in WEIGHT_DTYPES:
            raise DissectError(f"placement: dtype '{self.dtype}': expected one of {', '.join(WEIGHT_DTYPES)}.")
        if self.gpus_per_worker < 1 or (self.gpus_per_worker > 1 and self.mode != "split"):
            raise DissectError(
                f"placement {self.mode}: gpus_per_worker {self.gpus_per_worker}: expected 1, or a larger number with "
                "placement split."
            )
        if self.max_memory and self.mode not in ("split", "offload"):
            raise DissectError(f"placement {self.mode}: max_memory is asked by split and offload alone. Leave it out.")
        if self.offload_dir is not None and self.mode not in ("offload", "sequential"):
            raise DissectError(f"placement {self.mode}: offload_dir is for offload and sequential. Leave it out.")

    @classmethod
    def of(
        cls,
        mode: Mode = "single",
        *,
        dtype: str | None = None,
        gpus_per_worker: int = 1,
        max_memory: Mapping[str | int, str | int] | None = None,
        offload_dir: str | None = None,
        no_split: Iterable[str] = (),
    ) -> Self:
        """Placement from ordinary arguments; bytes may be texts such as ``20GiB``.

        >>> Placement.of("offload", max_memory={0: "20GiB", "cpu": 10**9}).max_memory
        (('0', 21474836480), ('cpu', 1000000000))
        """
        memory = tuple((str(device), _bytes(str(device), size)) for device, size in (max_memory or {}).items())
        wrong = [device for device, _ in memory if device != "cpu" and not device.isdigit()]
        if wrong:
            raise DissectError(f"max_memory: {wrong[0]!r}: expected the number of a GPU, or cpu.")
        return cls(mode, dtype, gpus_per_worker, memory, offload_dir, tuple(no_split))

    def check_draws(self) -> None:
        """Raise if a model that draws random numbers would not draw the same ones every time.

        Raises
        ------
        DissectError
            Naming the placements that seed what is drawn.
        """
        if self.mode in ("split", "sequential"):
            raise DissectError(
                f"placement {self.mode}: random numbers would be drawn on several GPUs, or in another order than batch "
                "by batch. Use placement single or offload, or leave out allow_nondeterministic."
            )

    @property
    def keeps_whole(self) -> bool:
        """Whether all weights lie on one device, as they do without any placement."""
        return self.mode == "single"


def _bytes(device: str, size: str | int) -> int:
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    if match is None or match[2].upper() not in _UNITS:
        raise DissectError(f"max_memory of {device}: expected bytes or a text such as 20GiB, got {size!r}.")
    return int(float(match[1]) * _UNITS[match[2].upper()])
