"""Writes snapshots of a network while it is trained, and a recipe that names them.

Knows: weights, metrics, the recipe's snapshots, when a snapshot is due.
Does not know: training, or how a recipe is run (`background`).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dissect_xr import store
from dissect_xr.cli.recipe import load_recipe, read_raw
from dissect_xr.cli.start import SNAPSHOTS
from dissect_xr.errors import DissectError
from dissect_xr.store import objects
from dissect_xr.training.background import Background
from dissect_xr.training.schedule import Schedule, is_due

if TYPE_CHECKING:
    from torch import nn

RECIPE = f"{SNAPSHOTS}/recipe.yaml"


class SnapshotWriter:
    """A callback for training loops: weights and metrics at some steps, and their dissection in the background.

    Called at every step, it writes a snapshot at those of the schedule: ``snapshots/step_000010.safetensors`` in the
    output directory, and ``snapshots/recipe.yaml``, which is the given recipe with all snapshots so far. So
    ``dissect-xr run OUT/snapshots/recipe.yaml --out OUT`` dissects them, now or later.

    Parameters
    ----------
    out
        The output directory, local.
    recipe
        A recipe whose snapshots do not matter: it may have none. Paths in it that begin with ``${here}`` stay those of
        its folder.
    schedule
        ``"log"`` for steps 0, 1, 3, 10, 30, 100, ...; a number for every so many; steps; or a function of the step.
    dissect
        Whether each snapshot is dissected at once, in a process of its own that gives way to the training. The figure
        ``emergence-...png`` in ``OUT/figures`` then grows while the training runs.
    images
        How many images are dissected at most; None for all of the recipe's.
    overrides
        Options ``KEY=VALUE`` for the recipe, as of ``--set``.
    arguments
        More arguments of ``dissect-xr run``, such as ``["--scheduler", "tcp://head:8786"]``.

    Raises
    ------
    DissectError
        If the recipe is malformed, or the output directory is not local.

    Examples
    --------
    >>> def train(model, batches):  # a loop of one's own
    ...     with SnapshotWriter("run", "recipe.yaml") as snapshot:
    ...         snapshot(0, model)
    ...         for step, batch in enumerate(batches, 1):
    ...             loss = ...
    ...             snapshot(step, model, loss=loss)
    """

    def __init__(
        self,
        out: str | Path,
        recipe: str | Path,
        schedule: Schedule = "log",
        *,
        dissect: bool = False,
        images: int | None = None,
        overrides: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self.out = store.as_url(out)
        if not objects.is_local(self.out):
            raise DissectError(f"{self.out}: weights are written as files. Name a local output directory.")
        self._due = is_due(schedule)
        self._raw = _raw(Path(recipe), overrides, images)
        self._snapshots = {one["step"]: one for one in self._there()}
        _check(self._raw, self.out)
        given = [str(Path(self.out, RECIPE)), "--out", self.out, "--quiet", *arguments]
        self._background = Background(given) if dissect else None

    def __call__(self, step: int, model: "nn.Module", *, last: bool = False, **metrics: Any) -> bool:
        """Write a snapshot if it is due; whether it was.

        Parameters
        ----------
        step
            Of the training, from 0 for the untrained network.
        model
            Whose weights are written, without what `DataParallel` and `torch.compile` put around their names.
        last
            Whether it is the last step, which has a snapshot in any case.
        metrics
            Numbers such as ``accuracy`` and ``loss``, also as tensors of one value; a NaN is kept as not known.

        Raises
        ------
        DissectError
            If this step is there already with other weights.
        """
        if not last and not self._due(step):
            return False
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
        key, content = f"{SNAPSHOTS}/step_{step:06d}.safetensors", save(tensors)
        if step in self._snapshots:
            if objects.read(self.out, key) != content:
                raise DissectError(
                    f"{self.out}: holds step {step} of another training. Use another output directory, or delete this "
                    "one."
                )
            return False
        objects.write(self.out, key, content)
        self._snapshots[step] = {
            "name": f"step_{step:06d}", "step": step, "weights": str(Path(self.out, key).absolute()),
            "metrics": {name: _number(value) for name, value in metrics.items()},
        }  # fmt: skip
        self._write_recipe()
        if self._background is not None:
            self._background.ask()
        return True

    def close(self) -> None:
        """Wait until all snapshots are dissected, if they are.

        Raises
        ------
        DissectError
            If the dissection failed; the snapshots are kept.
        """
        if self._background is not None and self._snapshots:
            self._background.close()

    def __enter__(self) -> "SnapshotWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
        elif self._background is not None:
            self._background.stop()

    def _there(self) -> list[dict[str, Any]]:
        """Snapshots of an earlier part of the training, whose weights are still there."""
        content = objects.read(self.out, RECIPE)
        if content is None:
            return []
        found: list[dict[str, Any]] = yaml.safe_load(content)["model"]["snapshots"]
        return [one for one in found if Path(one["weights"]).is_file()]

    def _write_recipe(self) -> None:
        raw = copy.deepcopy(self._raw)
        raw["model"]["snapshots"] = [self._snapshots[step] for step in sorted(self._snapshots)]
        objects.write(self.out, RECIPE, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())


def _raw(recipe: Path, overrides: Sequence[str], images: int | None) -> dict[str, Any]:
    """The fields of the recipe, with its own folder for ``${here}`` and fewer images if asked."""
    raw = read_raw(recipe, overrides)
    raw = {name: _with_folder(value, str(recipe.resolve().parent)) for name, value in raw.items()}
    if not isinstance(raw.get("model"), dict) or not isinstance(raw.get("probe"), dict):
        raise DissectError(f"{recipe}: expected a recipe with `model` and `probe`.")
    raw["model"].pop("metrics", None)  # they come with the calls
    if images is not None:
        chosen = raw["probe"].get("images") or {}
        raw["probe"]["images"] = {**chosen, "limit": min(images, chosen.get("limit") or images)}
    return raw


def _with_folder(value: Any, folder: str) -> Any:
    if isinstance(value, str):
        return value.replace("${here}", folder)
    if isinstance(value, Mapping):
        return {name: _with_folder(one, folder) for name, one in value.items()}
    return [_with_folder(one, folder) for one in value] if isinstance(value, list) else value


def _check(raw: Mapping[str, Any], out: str) -> None:
    """Raise if the recipe is malformed, before anything is trained."""
    some = {"name": "step_000000", "step": 0}
    tried = {**raw, "model": {**raw["model"], "snapshots": [some]}}
    key = f"{SNAPSHOTS}/recipe.tried.yaml"
    objects.write(out, key, yaml.safe_dump(tried, sort_keys=False, allow_unicode=True).encode())
    try:
        load_recipe(Path(out, key), out=out)
    finally:
        objects.delete(out, key)


def _number(value: Any) -> float | None:
    """A metric as a number of Python; None where it is NaN or infinite."""
    try:
        number = float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:
        raise DissectError(f"metric: expected a number, got a {type(value).__name__}.") from error
    return number if math.isfinite(number) else None
