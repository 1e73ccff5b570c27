"""Runs lists of coarse tasks on threads, local processes or a Dask scheduler.

Knows: how many tasks are in flight at once, and how their results and errors come back.
Does not know: Dask (`dask_pool`), how partial results are merged (`fold`), or what a task computes.

A task is a frozen dataclass, and a task function is a top-level function of one task. It may run twice, and it writes
its results to a store itself if they have to outlive the run.
"""

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.parallel.dask_pool import DaskPool, connect, local
from dissect_xr.parallel.guard import contained
from dissect_xr.parallel.resources import MEMORY, Host, cores
from dissect_xr.parallel.retry import attempt, check


class Stream(Protocol):
    """Tasks in flight: an interface that every pool implements."""

    @property
    def window(self) -> int:
        """How many leaf tasks should be in flight at once; it may change while tasks run."""

    def add(self, tag: Any, function: Callable[..., Any], *args: Any) -> None:
        """Start `function(*args)`; a handle of a finished task among `args` is replaced by its result."""

    def next(self) -> tuple[Any, Any]:
        """Wait for a task to finish; its tag and the handle of its result. Raises the error that the task raised."""

    def result(self, handle: Any) -> Any:
        """The result that a handle stands for, sent to this process."""

    def cancel(self) -> None:
        """Cancel all tasks that have not started."""


class Pool(Protocol):
    """Where tasks run: threads of this process, or the workers of a Dask scheduler."""

    workers: int
    """How many tasks can run at once, as known when the pool was opened; at least 1."""

    memory: int
    """Bytes a task may use."""

    hosts: Sequence[Host] | None
    """Workers with a memory limit of their own; None if all tasks share the memory of this machine."""

    def stream(self, *, gpu: int = 0) -> Stream:
        """A new stream. With `gpu` its tasks run only on workers with the resource {"GPU": gpu}, if there are any with
        GPUs now or when the pool was opened, or some are expected. True is 1."""


def run_tasks(
    pool: Pool, function: Callable[[Any], Any], tasks: Iterable[Any], *, gpu: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Run `function(task)` for every task; yields (task, result) as they finish. The first error ends the run."""
    for task, result in _run(pool.stream(gpu=gpu), (contained, function), tasks):
        if isinstance(result, Failed):
            raise DissectError(result.message)
        yield task, result


def run_blocks(
    pool: Pool, function: Callable[[Any], Any], tasks: Iterable[Any], *, gpu: int = 0
) -> Iterator[tuple[Any, Any]]:
    """Run `function(task)` for every task, up to three times; yields (task, result) of each task that succeeds.

    Raises
    ------
    BlocksFailed
        After all other tasks have finished. It names a failed task by its attribute `what`, if the task has one.
    WriteError
        At once, if a block could not be written: no other could be written either.
    """
    failures: list[Failed] = []
    for task, result in _run(pool.stream(gpu=gpu), (attempt, function), tasks):
        if check(result, failures):
            yield task, result
    if failures:
        raise BlocksFailed(failures)


def _run(stream: Stream, call: tuple[Any, ...], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    in_flight = 0

    def ended() -> tuple[Any, Any]:
        while True:
            done, handle = stream.next()
            result = stream.result(handle)
            if not isinstance(result, Failed) or not result.lost:
                return done, result
            stream.add(done, *call, done)  # it was done, but its result is gone

    try:
        for task in tasks:
            stream.add(task, *call, task)
            in_flight += 1
            while in_flight >= stream.window:
                in_flight -= 1
                yield ended()
        for _ in range(in_flight):
            yield ended()
    finally:
        stream.cancel()


class Threads:
    """Runs tasks on threads of this process, but tasks of a model one at a time: torch itself uses all cores."""

    def __init__(self, workers: int | None = None, *, memory: int = MEMORY) -> None:
        self.workers = workers or cores()
        self.memory = memory
        self.hosts: Sequence[Host] | None = None

    def stream(self, *, gpu: int = 0) -> Stream:
        """See `Pool`."""
        return _ThreadStream(1 if gpu else self.workers)


class _ThreadStream:
    def __init__(self, threads: int) -> None:
        self.window = 2 * threads
        self._executor = ThreadPoolExecutor(threads)
        self._finished: queue.SimpleQueue[tuple[Any, Future[Any]]] = queue.SimpleQueue()

    def add(self, tag: Any, function: Callable[..., Any], *args: Any) -> None:
        values = [arg.result() if isinstance(arg, Future) else arg for arg in args]
        future = self._executor.submit(function, *values)
        future.add_done_callback(lambda done: self._finished.put((tag, done)))

    def next(self) -> tuple[Any, Any]:
        tag, future = self._finished.get()
        future.result()
        return tag, future

    def result(self, handle: Any) -> Any:
        return handle.result()

    def cancel(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def open_pool(
    *,
    workers: int | None = None,
    gpus: int = 0,
    gpus_per_worker: int = 1,
    scheduler: str | None = None,
    client: Any = None,
    expect: int | None = None,
    expect_gpus: int = 0,
    memory: int = MEMORY,
) -> Iterator[Pool]:
    """A pool: the workers of a Dask scheduler, local processes, or threads of this process.

    Parameters
    ----------
    workers
        Number of CPU worker processes, with one thread each. None without `gpus` means threads of this process.
    gpus
        Number of worker processes with one GPU each: their CUDA_VISIBLE_DEVICES names it, and they have the Dask
        resource {"GPU": 1}.
    gpus_per_worker
        GPUs of each of these processes, for models that are split over several: their resource is then {"GPU": 2}.
    scheduler
        Address of a Dask scheduler, such as tcp://host:8786. It may have no workers yet: tasks wait for 60 s.
    client
        A connected `distributed.Client`, for what an address does not say, such as TLS. It stays open.
    expect
        Threads that the workers of `scheduler` or `client` will have, for a cluster that adapts: layers are cut for so
        many. None takes the threads that are there now, or 1.
    expect_gpus
        Workers that will offer {"GPU": 1}: tasks of a model then wait for one. With 0 they do so only if there is one
        already.
    memory
        Bytes a task may use. Blocks are made small enough for it.

    Raises
    ------
    DissectError
        If arguments exclude each other, no scheduler answers, `client` is closed, or a script asks for worker
        processes outside of ``if __name__ == "__main__":``.
    """
    given = {"scheduler": scheduler is not None, "client": client is not None, "workers or gpus": bool(workers or gpus)}
    if len(names := [name for name, is_given in given.items() if is_given]) > 1:
        raise DissectError(f"open_pool: expected at most one of {', '.join(given)}, got {' and '.join(names)}.")
    if (expect or expect_gpus) and scheduler is None and client is None:
        raise DissectError("open_pool: expect and expect_gpus describe a cluster. Give its scheduler or client, too.")
    if client is not None:
        yield DaskPool(client, memory=memory, expect=expect, expect_gpus=expect_gpus)
    elif scheduler is not None:
        from distributed import Client

        with connect(Client, scheduler) as connected:
            yield DaskPool(connected, memory=memory, expect=expect, expect_gpus=expect_gpus)
    elif workers is None and not gpus:
        yield Threads(memory=memory)
    else:
        if gpus % gpus_per_worker:
            raise DissectError(f"open_pool: {gpus} GPUs cannot be shared by workers of {gpus_per_worker} GPUs each.")
        with local(workers or 0, gpus, gpus_per_worker) as started:
            yield DaskPool(started, memory=memory, here=True)
