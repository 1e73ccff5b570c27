"""Starts a run: locks its output directory, stores its recipe there, and deletes damaged objects.

Knows: the order in which this has to happen.
Does not know: the stages, or how anything is shown.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from dissect_xr.cli.recipe import load_recipe, read_raw
from dissect_xr.cli.run import Run
from dissect_xr.cli.safety import Safety
from dissect_xr.errors import DissectError
from dissect_xr.parallel.pool import open_pool
from dissect_xr.store import objects
from dissect_xr.store.lock import KEY, left_behind, locked
from dissect_xr.store.verify import EXPERIMENTS, PREDICTED, Damage


@contextmanager
def open_run(
    recipe: Path, out: str, overrides: Sequence[str], pool: dict[str, Any], *, show: bool, safety: Safety | None
) -> Iterator[tuple[Run, list[Damage]]]:
    """A run, and the damage found in its stores. With `safety` None the run must not write, and nothing is locked.

    Raises
    ------
    DissectError
        If the recipe is wrong, `out` holds other files, or another run is writing there.
    """
    loaded = load_recipe(recipe, out=out, overrides=overrides)
    with ExitStack() as stack:
        if safety is not None:
            prepare(out)
            command = "dissect-xr " + " ".join(sys.argv[1:])
            stack.enter_context(locked(out, command, break_lock=safety.break_lock))
            keep_recipe(out, read_raw(recipe, overrides))
        each = loaded.activations.placement.gpus_per_worker
        gpus = {"gpus_per_worker": each} if pool.get("gpus") and each > 1 else {}
        run = Run(loaded, out, stack.enter_context(open_pool(**pool | gpus)), show=show)
        yield run, [] if safety is None else run.repair(full=safety.verify)


SNAPSHOTS = "snapshots"
"""Folder of the output directory in which a training may have left snapshots before anything is run there."""


def prepare(out: str) -> None:
    """Create the output directory.

    Raises
    ------
    DissectError
        If `out` is a file, holds other files than a run, or cannot be created.
    """
    if not objects.is_local(out):
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise DissectError(f"{out}: expected a folder to write to, found a file. Choose another --out.")
    names = (
        {path.name for path in folder.iterdir() if not path.name.endswith(objects.PARTIAL)} if folder.is_dir() else ()
    )
    if names and "recipe.yaml" not in names and not set(names) <= {KEY, SNAPSHOTS}:
        raise DissectError(f"{out}: is not empty and holds no run of this program. Choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DissectError(f"{out}: cannot write there: {error}. Choose another --out.") from error


def keep_recipe(out: str, raw: dict[str, Any]) -> None:
    """Write the recipe to the output directory, and delete partial files that killed runs left there.

    A claim on the lock is deleted only if its process is gone: otherwise it may belong to a run that is starting.
    """
    objects.write(out, "recipe.yaml", yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())
    if objects.is_local(out):
        below = [
            *Path(out, "markers").rglob(f"*{objects.PARTIAL}"),
            *Path(out, EXPERIMENTS).rglob(f"*{objects.PARTIAL}"),
            *Path(out, PREDICTED).rglob(f"*{objects.PARTIAL}"),
        ]
        for path in [*Path(out).glob(f"*{objects.PARTIAL}"), *below]:
            is_claim = path.parent == Path(out) and path.name.startswith(KEY)
            if not is_claim or left_behind(objects.read(out, path.name) or b""):
                path.unlink(missing_ok=True)
