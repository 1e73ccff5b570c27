"""Runs lists of coarse tasks on threads, local processes or a Dask scheduler.

Knows: windows of tasks in flight, trees of partial sums, how a task's memory adds up.
Does not know: Dask (`workers`), or what a task computes. A task is a frozen dataclass, a task function a top-level
function of it that may run twice; what has to survive it writes itself.
"""

import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from dissect_xr.attempts import attempt, check, kept_failures
from dissect_xr.errors import BlocksFailed, DissectError, Failed
from dissect_xr.workers import MEMORY, DaskPool, connect, local

__all__ = [
    "MEMORY", "TREE", "DaskPool", "Fold", "Pool", "Projection", "Stream", "Threads", "fold_tasks", "kept_failures",
    "open_pool", "run_blocks", "run_tasks",
]  # fmt: skip

TREE = 8
"""Partial sums merged by one task."""


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
    """Bytes a task may plan with."""

    def stream(self, *, gpu: bool = False) -> Stream:
        """A new stream; `gpu=True` runs its tasks only on workers that offer {"GPU": 1}, where there are such."""


@dataclass(frozen=True)
class Fold:
    """Tasks whose results are merged into one, and what is done with it."""

    key: Any
    tasks: Sequence[Any]
    function: Callable[[Any], Any]
    """task -> partial result"""
    merge: Callable[..., Any]
    """several partial results -> one; associative and commutative"""
    finish: Callable[[Any, Any], Any]
    """(key, merged result) -> what `fold_tasks` yields; runs on a worker"""
    width: int = TREE
    """partial results merged by one task, at least 2"""


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


@dataclass
class _Open:
    """A fold under way."""

    fold: Fold
    left: int
    """leaf tasks not finished"""
    merging: int = 0
    ready: list[Any] = field(default_factory=list)
    """handles of partial results"""

    def advance(self, stream: Stream) -> None:
        """Merge, or finish, when enough partial results are there."""
        last = self.left == 0 and self.merging == 0
        if len(self.ready) >= self.fold.width or (last and len(self.ready) > 1):
            parts, self.ready = self.ready[: self.fold.width], self.ready[self.fold.width :]
            self.merging += 1
            stream.add((self, "merge"), attempt, self.fold.merge, *parts)
        elif last and self.ready:
            stream.add((self, "finish"), attempt, self.fold.finish, self.fold.key, self.ready.pop())


def fold_tasks(
    pool: Pool, folds: Iterable[Fold], *, on_task: Callable[[Any], None] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Run every fold; yields (key, result of `finish`) as they finish.

    Partial results stay where they were computed and are merged by trees of their `width`; only what `finish` returns
    comes here. At most the stream's window of leaf tasks is in flight, whatever the number of folds.

    Raises
    ------
    BlocksFailed
        When all other folds are finished: a task of a fold failed three times.
    WriteError
        At once: where one result cannot be written, no other can.
    """
    stream = pool.stream()
    failures: list[Failed] = []
    leaves = ((fold, task) for fold in folds for task in fold.tasks)
    opened: dict[int, _Open] = {}
    in_flight = 0
    try:
        while True:
            while in_flight < stream.window and (leaf := next(leaves, None)) is not None:
                fold, task = leaf
                state = opened.setdefault(id(fold), _Open(fold, len(fold.tasks)))
                stream.add((state, task), attempt, fold.function, task)
                in_flight += 1
            if not opened:
                break
            (state, what), handle = stream.next()
            if what == "finish":
                del opened[id(state.fold)]
                if check(result := stream.result(handle), failures):
                    yield state.fold.key, result
                continue
            if what == "merge":
                state.merging -= 1
            else:
                state.left -= 1
                in_flight -= 1
                if on_task is not None:
                    on_task(what)
            state.ready.append(handle)
            state.advance(stream)
        if failures:
            raise BlocksFailed(failures)
    finally:
        stream.cancel()


class Threads:
    """Runs tasks on threads of this process; GPU tasks one at a time, since torch uses all cores by itself."""

    def __init__(self, workers: int | None = None, *, memory: int = MEMORY) -> None:
        self.workers = workers or os.cpu_count() or 1
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
        Bytes a task may plan with; tasks are cut to fit.
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


@dataclass(frozen=True)
class Projection:
    """The memory a task needs at most, as a sum of named parts in bytes."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size for _, size in self.parts)

    def check(self, limit: int | None, stage: str) -> None:
        """Raise when the task cannot fit in `limit` bytes."""
        if limit is not None and self.total > limit:
            parts = ", ".join(f"{what} {size / 2**20:,.0f} MiB" for what, size in self.parts)
            raise DissectError(
                f"{stage}: a task needs {self.total / 2**20:,.0f} MiB ({parts}) and may plan with "
                f"{limit / 2**20:,.0f} MiB. Give it more (--memory), or make what is largest smaller: fewer fractions "
                "or concepts, a smaller label_size."
            )
