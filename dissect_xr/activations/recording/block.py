"""Records the activations of all layers for one image block: decode, run the model, write shards and tails.

Knows: one task, in which the next images are decoded and finished shards are written while the model runs.
Does not know: which tasks there are (`extract`), thresholds or labels.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from dissect_xr import store
from dissect_xr.activations.recording.batches import run_batches
from dissect_xr.activations.recording.host import HostMaps
from dissect_xr.activations.recording.task import ExtractTask
from dissect_xr.activations.recording.threads import torch_threads
from dissect_xr.activations.sources import Loaded, cached, device_of, seeded
from dissect_xr.activations.store import tail_shape
from dissect_xr.errors import DissectError

WRITERS = 2
"""Threads that compress and write shards: two, since zarr does part of a write on one core. Each holds a shard."""


def extract_block(task: ExtractTask) -> None:
    """Write the activations of one image block for all layers, and its marker; does nothing if the marker exists.

    A worker that died later may have finished the block already. Memory: the block's maps of all layers as stored (of
    layers of which the tail is kept, a batch's maps and the block's tails), two batches of images, and what the model
    itself needs. A GPU holds the maps of one layer at a time; if a batch does not fit into its memory, the batch is
    halved.
    """
    if store.marker(task.url, task.key, fingerprint=task.fingerprint) is not None:
        return
    device = device_of(task.spec, task.device)
    with torch_threads(task.threads), store.marked(task.url, task.key, fingerprint=task.fingerprint) as (writer, note):
        loaded = loaded_for(task, device)
        tails = any(layer.has_tail for layer in task.layers)
        bound = store.read(task.url, f"{task.tails}/bound")[:] if tails else None
        random = seeded(task.seed, device) if task.seeded else nullcontext()
        with random, ThreadPoolExecutor(WRITERS) as background, ThreadPoolExecutor(torch.get_num_threads()) as threads:
            host = HostMaps(task, bound, threads, pinned=device.startswith("cuda"))
            written: list[Future[None]] = []
            for begin, part in run_batches(loaded, task, device, host):
                host.check(begin, part)
                written += [background.submit(writer.write, *job) for job in host.whole_shards()]
            if tails:
                block = tail_shape(task.layers).writes(writer, task.tails, task.start, *host.tails())
                written += [background.submit(write) for write in block]
            if task.again is None:
                for name, values in (("peak", host.peaks), ("mean", host.means)):
                    job = f"{task.snapshot}/{name}", (task.start, 0), values.numpy()
                    written.append(background.submit(writer.write, *job))
            for future in written:
                future.result()
        note["batch"] = host.batch
        if faint := host.faint:
            note["faint"] = faint
        if coarse := host.coarse:
            note["coarse"] = coarse


def loaded_for(task: ExtractTask, device: str) -> Loaded:
    """The task's model.

    Raises
    ------
    DissectError
        Where its weights are others than when the extraction was prepared.
    """
    loaded = cached(task.spec, device)
    if loaded.sha256 != task.weights:
        raise DissectError(
            f"{task.spec.weights or task.spec.factory}: the weights changed while {task.snapshot} was extracted. "
            "Keep each snapshot's weights in a file of its own, and run again under another name."
        )
    return loaded
