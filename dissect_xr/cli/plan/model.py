"""The part of a dry run that is about the model: its size, where its weights fit, and the shape of every tap.

Knows: what an outline says, the memory of this machine and its GPUs.
Does not know: how a model is built without weights (`placement.outline`), the stages of a run (`dry_run`).
"""

import sys
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from dissect_xr.activations.placement.outline import Outline
from dissect_xr.activations.request import ModelSpec, Preprocess, Recording
from dissect_xr.errors import DissectError
from dissect_xr.parallel.resources import memory_limit


def model_lines(spec: ModelSpec, recording: Recording, found: Outline) -> Iterator[str]:
    """The model, its preprocessing, and what is in memory at once for each placement."""
    library = "" if spec.library is None else f" ({spec.library.library} {spec.library.version})"
    size = f"{found.parameters:,} parameters, {_mib(found.nbytes)} of weights in {' and '.join(found.dtypes)}"
    yield escape(f"model {spec.factory}{library}: {size}")
    weights = spec.named or spec.weights or f"random, seed {spec.seed or 0}"
    yield escape(f"weights: {weights}; none were read for what follows")
    yield escape(f"input: {_preprocessing(recording.preprocess)}")
    mode = "single" if spec.placement is None else spec.placement.mode
    for name, needed in _needs(spec, found).items():
        chosen = " (chosen)" if name == mode else " over 2 GPUs" if name == "split" else ""
        yield escape(f"placement {name}{chosen}: {_mib(needed)} of weights at once; {_room(needed)}")


def tap_table(found: Outline, dtype: str) -> Table:
    """Every tap, its shape, and what it takes of an image."""
    table = Table("tap", "units x rows x columns", "bytes an image", box=None, title_justify="left")
    size = 2 if dtype == "float16" else 4
    for name, (units, rows, cols) in found.maps.items():
        table.add_row(escape(name), f"{units} x {rows} x {cols}", f"{units * rows * cols * size:,}")
    return table


def check_room(spec: ModelSpec, found: Outline) -> None:
    """Raise if all weights have to lie in this machine's memory, and it has less.

    Raises
    ------
    DissectError
        Naming the placements that would do.
    """
    limit = memory_limit()
    if (spec.placement is None or spec.placement.keeps_whole) and found.nbytes > limit:
        raise DissectError(
            f"model {spec.factory}: its weights take {_mib(found.nbytes)}, this machine has {_mib(limit)} of memory. "
            f"With activations.placement: sequential, {_mib(found.one_block)} of them are in memory at once; offload "
            "and a smaller dtype are other ways (docs/models.md)."
        )


def _needs(spec: ModelSpec, found: Outline) -> dict[str, int]:
    """Placement -> the most bytes of weights that are on a device at once."""
    gpus = 2 if spec.placement is None or spec.placement.mode != "split" else spec.placement.gpus_per_worker
    split = min(found.nbytes, found.nbytes // gpus + found.one_block)
    return {"single": found.nbytes, "split": split, "offload": found.one_block, "sequential": found.one_block}


def _room(needed: int) -> str:
    """Whether so many bytes fit this machine, and its GPUs where there are some."""
    places = {"this machine": memory_limit(), **_gpus()}
    return ", ".join(
        f"{'fits' if needed <= there else 'does not fit'} {name} ({_mib(there)})" for name, there in places.items()
    )


def _gpus() -> dict[str, int]:
    torch: Any = sys.modules["torch"]
    return {f"GPU {n}": torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count())}


def _preprocessing(preprocess: Preprocess) -> str:
    given = {name: value for name, value in preprocess.parameters.items() if value is not None}
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
