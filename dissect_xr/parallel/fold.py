"""Folds and steps: many tasks whose partial results are merged into one result by a tree of merges, step by step.

Knows: when which partial results are merged, that they stay on the worker that computed them, which step comes next.
Does not know: what is merged, or where tasks run (`pool`).

A fold of 20 tasks with `width` 8, an example. Partial results are merged as soon as 8 of them are there, in the order
in which their tasks finish:

1. The first 8 results to finish are merged into A by a task of its own.
2. A counts as a partial result again: A and the next 7 are merged into B.
3. The last 5 tasks finish. No more results will come, so the 6 that are left (B and 5 others) are merged into C.
4. `finish` runs on C, on a worker, and only its return value is sent here.

These are 3 merges of 8, 8 and 6 results. Whatever the order, there are 3: each full merge makes 8 results one, 7 fewer.
At most 7 results of the fold wait for a merge, and 8 are held by each merge that runs, where collecting all results
first would hold 20. Of 2,000 tasks as well, at most 7 results wait.

Results that wait may be lost with the workers that hold them, and the scheduler may then give them up: their tasks no
longer exist for it. A merge that needs one of them comes back as a `Failed` that is `lost`, and the whole fold is begun
again, up to three times.

Steps, an example. The thresholds of a layer are found by a first fold, and only then is it known what a second fold
counts. The layer is a generator: it yields the first fold, is sent its result, and yields the second. `run_steps` runs
many such generators at once, so workers compute for other layers while one layer is between two steps.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dissect_xr.errors import BlocksFailed, Failed
from dissect_xr.parallel.pool import Pool, Stream
from dissect_xr.parallel.retry import attempt, check, named

TREE = 8
"""Partial results merged by one task."""

AGAIN = 3
"""How often a fold is begun again because partial results of it were lost with the workers that held them."""


@dataclass(frozen=True)
class Fold:
    """Tasks whose results are merged into one, and what is done with it."""

    key: Any
    tasks: Sequence[Any]
    function: Callable[[Any], Any]
    """task -> partial result"""
    merge: Callable[..., Any] | None = None
    """several partial results -> one; associative and commutative. None: there is one task"""
    finish: Callable[[Any, Any], Any] | None = None
    """(key, merged result) -> the fold's result; runs on a worker. None: the merged result itself"""
    width: int = TREE
    """partial results merged by one task, at least 2"""


Steps = Generator[Sequence[Fold], Sequence[Any], None]
"""Work in steps: it yields folds, is sent their results in the same order, and may then yield more."""


def run_steps(pool: Pool, works: Iterable[Steps], *, on_task: Callable[[Any], None] | None = None) -> Iterator[Steps]:
    """Run all works, several at once; yields each as it ends.

    Partial results stay where they were computed and are merged by trees of the fold's `width`. At most the stream's
    window of tasks is in flight, whatever the number of works; a work is begun when those before it leave room.

    Parameters
    ----------
    on_task
        Called, in this process, with every task of a fold that is finished.

    Raises
    ------
    BlocksFailed
        When all other works have ended: a task failed three times, which ends its work.
    WriteError
        At once: where one result cannot be written, no other can.
    """
    stream = pool.stream()
    running = _Running(stream)
    waiting = iter(works)
    try:
        while True:
            while running.in_flight < stream.window:
                if running.leaves:
                    running.start()
                elif (steps := next(waiting, None)) is not None:
                    running.begin(_Work(steps))
                else:
                    break
            while running.ended:
                yield running.ended.popleft()
            if not running.works:
                break
            task = running.take(*stream.next())
            if task is not None and on_task is not None:
                on_task(task)
        if running.failures:
            raise BlocksFailed(running.failures)
    finally:
        stream.cancel()


@dataclass
class _Work:
    """A work and the step that it is in."""

    steps: Steps
    results: list[Any] = field(default_factory=list)
    left: int = 0
    """folds of the step that are not finished"""
    failed: bool = False


@dataclass
class _Open:
    """A fold under way."""

    fold: Fold
    work: _Work
    number: int
    """of the fold in its step"""
    left: int
    """tasks not finished"""
    merging: int = 0
    ready: list[Any] = field(default_factory=list)
    """handles of partial results"""
    told: int = 0
    """tasks whose end was told, by this fold or before it was begun again"""
    again: int = 0
    """how often it was begun again"""
    dropped: bool = False
    """whether it was begun again since, so that what is still under way no longer counts"""


class _Running:
    """All that is under way in one stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.works = self.in_flight = 0
        self.leaves = deque[tuple[_Open, Any]]()
        """tasks that wait for room in the window"""
        self.ended = deque[Steps]()
        self.failures: list[Failed] = []

    def begin(self, work: _Work) -> None:
        """Begin a work."""
        self.works += 1
        self._advance(work, None)

    def _advance(self, work: _Work, results: Sequence[Any] | None) -> None:
        """Go on with a work until it yields folds again, or ends."""
        while not work.left:
            try:
                folds = next(work.steps) if results is None else work.steps.send(results)
            except StopIteration:
                self.works -= 1
                self.ended.append(work.steps)
                return
            work.results, work.left = [None] * len(folds), len(folds)
            for number, fold in enumerate(folds):
                self._open(fold, work, number)
            results = []

    def start(self) -> None:
        """Start the task that has waited longest."""
        opened, task = self.leaves.popleft()
        self.stream.add((opened, task), attempt, opened.fold.function, task)
        self.in_flight += 1

    def take(self, tag: tuple[_Open, Any], handle: Any) -> Any | None:
        """Take what has finished: a task of a fold, which is returned, a merge (None), or `finish` (None)."""
        opened, what = tag
        is_task = what is not _MERGE and what is not _FINISH
        self.in_flight -= is_task
        if opened.dropped or self._begin_again(opened, handle):
            return None
        if what is _FINISH:
            self._end(opened, handle)
            return None
        opened.ready.append(handle)
        opened.left -= is_task
        opened.merging -= what is _MERGE
        is_news = is_task and len(opened.fold.tasks) - opened.left > opened.told
        opened.told += is_news
        self._merge(opened)
        return what if is_news else None

    def _begin_again(self, opened: _Open, handle: Any) -> bool:
        """Whether the fold had to be begun again, because partial results of it are lost."""
        lost = isinstance(handle, Failed) and handle.lost
        if not lost or opened.again == AGAIN or opened.work.failed:
            return False
        opened.dropped = True
        opened.ready.clear()
        self.leaves = deque(leaf for leaf in self.leaves if leaf[0] is not opened)
        self._open(opened.fold, opened.work, opened.number, opened.told, opened.again + 1)
        return True

    def _open(self, fold: Fold, work: _Work, number: int, told: int = 0, again: int = 0) -> None:
        """Begin a fold; its tasks wait for room in the window."""
        opened = _Open(fold, work, number, len(fold.tasks), told=told, again=again)
        self.leaves += [(opened, task) for task in fold.tasks]

    def _merge(self, opened: _Open) -> None:
        """Merge, or finish, where enough partial results are there."""
        fold, last = opened.fold, opened.left == 0 and opened.merging == 0
        if len(opened.ready) >= fold.width or (last and len(opened.ready) > 1):
            parts, opened.ready = opened.ready[: fold.width], opened.ready[fold.width :]
            opened.merging += 1
            self.stream.add((opened, _MERGE), attempt, fold.merge, *parts)
        elif last and fold.finish is None:
            self._end(opened, opened.ready.pop())
        elif last:
            self.stream.add((opened, _FINISH), attempt, fold.finish, fold.key, opened.ready.pop())

    def _end(self, opened: _Open, handle: Any) -> None:
        """A fold has its result; with the last one of a step its work goes on, or ends where one failed."""
        work, result = opened.work, named(self.stream.result(handle), str(opened.fold.key))
        if self._begin_again(opened, result):
            return
        work.failed |= not check(result, self.failures)
        work.results[opened.number] = result
        work.left -= 1
        if work.left:
            return
        if work.failed:
            work.steps.close()
            self.works -= 1
            return
        self._advance(work, work.results)


_MERGE, _FINISH = "merge", "finish"
