"""A callback for PyTorch Lightning that takes snapshots.

Knows: the hooks of Lightning's trainer that matter here.
Does not know: what a snapshot is (`snapshot_writer`).
"""

from importlib import import_module
from typing import Any

from dissect_xr.errors import DissectError
from dissect_xr.training.snapshot_writer import SnapshotWriter


def lightning_callback(writer: SnapshotWriter) -> Any:
    """A Lightning `Callback` that calls the writer before the first step, after every step, and at the end.

    A step is one of the optimizer (`trainer.global_step`). Metrics are those that the module logs.

    Raises
    ------
    DissectError
        If Lightning is not installed.
    """

    class Snapshots(_base()):  # type: ignore[misc]  # a class that is known only where Lightning is installed
        """Takes snapshots."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """The untrained network, or where a training goes on."""
            writer(trainer.global_step, pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            """After a batch; batches whose gradients are only accumulated are no step."""
            self._take(trainer, pl_module, last=False)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            """The trained network."""
            self._take(trainer, pl_module, last=True)
            writer.close()

        def _take(self, trainer: Any, pl_module: Any, *, last: bool) -> None:
            metrics = {name.replace("/", "_"): value for name, value in trainer.callback_metrics.items()}
            writer(trainer.global_step, pl_module, last=last, **metrics)

    return Snapshots()


def _base() -> Any:
    """Lightning's class of callbacks, under either name of the package."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise DissectError("A callback for Lightning needs it: pip install lightning.")
