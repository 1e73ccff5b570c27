"""Runs lists of coarse tasks on threads, local processes or a Dask scheduler.

Knows: windows of tasks in flight, trees of partial sums, how a task's memory adds up.
Does not know: Dask (`workers`), or what a task computes. A task is a frozen dataclass, a task function a top-level
function of it that may run twice; what has to survive it writes itself.
"""

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.parallel.dask_pool import DaskPool, connect, local
from dissect_xr.parallel.resources import MEMORY, cores
from dissect_xr.parallel.retry import attempt, check


class Stream(Protocol):
    """Tasks in flight."""

    window: int
    """How many leaf tasks should be in flight at once."""

    def add(self, tag: Any, function: Callable[..., Any], *args: Any) -> None:
        """Start `function(*args)`; handles of finished tasks among `args` stand for their results."""

    def next(self) -> tuple[Any, Any]:
        """Wait for a task to finish; its tag and the handle of its result. Raises what the task raised."""

    def result(self, handle: Any) -> Any:
        """The result behind a handle, brought here."""

    def cancel(self) -> None:
        """Drop what has not started."""


class Pool(Protocol):
    """Where tasks run."""

    workers: int
    """How many tasks can run at once."""

    memory: int
    """Bytes a task may use."""

    def stream(self, *, gpu: bool = False) -> Stream:
        """A new stream; `gpu=True` runs its tasks only on workers that offer {"GPU": 1}, where there are such."""


def run_tasks(
    pool: Pool, function: Callable[[Any], Any], tasks: Iterable[Any], *, gpu: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Run `function(task)` for every task; yields (task, result) as they finish. The first error stops all."""
    for task, result in _run(pool.stream(gpu=gpu), (function,), tasks):
        if isinstance(result, Failed):
            raise DissectError(result.message)
        yield task, result


def run_blocks(
    pool: Pool, function: Callable[[Any], Any], tasks: Iterable[Any], *, gpu: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Run `function(task)` for every task, up to three times; yields (task, result) of those that succeed.

    Raises
    ------
    BlocksFailed
        When all others are finished. `what` of a task says what it is, where it has one.
    WriteError
        At once: where one block cannot be written, no other can.
    """
    failures: list[Failed] = []
    for task, result in _run(pool.stream(gpu=gpu), (attempt, function), tasks):
        if check(result, failures):
            yield task, result
    if failures:
        raise BlocksFailed(failures)


def _run(stream: Stream, call: tuple[Any, ...], tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    in_flight = 0
    try:
        for task in tasks:
            stream.add(task, *call, task)
            in_flight += 1
            if in_flight >= stream.window:
                done, handle = stream.next()
                in_flight -= 1
                yield done, stream.result(handle)
        for _ in range(in_flight):
            done, handle = stream.next()
            yield done, stream.result(handle)
    finally:
        stream.cancel()


class Threads:
    """Runs tasks on threads of this process; GPU tasks one at a time, since torch uses all cores by itself."""

    def __init__(self, workers: int | None = None, *, memory: int = MEMORY) -> None:
        self.workers = workers or cores()
        self.memory = memory

    def stream(self, *, gpu: bool = False) -> Stream:
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
    *, workers: int | None = None, gpus: int = 0, scheduler: str | None = None, memory: int = MEMORY
) -> Iterator[Pool]:
    """A pool: a Dask scheduler's workers, local processes (`workers`, and one per GPU), or this process's threads.

    Parameters
    ----------
    workers
        CPU worker processes, one thread each. None and no `gpus`: threads of this process.
    gpus
        Processes that each see one GPU through their own CUDA_VISIBLE_DEVICES and offer {"GPU": 1}.
    scheduler
        Address such as tcp://host:8786; excludes the other two.
    memory
        Bytes a task may use; tasks are cut to fit.
    """
    if scheduler is not None:
        from distributed import Client

        with connect(Client, scheduler) as client:
            yield DaskPool(client, memory=memory)
    elif workers is None and not gpus:
        yield Threads(memory=memory)
    else:
        with local(workers or 0, gpus) as client:
            yield DaskPool(client, memory=memory)
