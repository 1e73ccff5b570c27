"""Folds: many tasks whose partial results are merged into one result by a tree of merges.

Knows: when which partial results are merged, and that they stay on the worker that computed them.
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
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dissect_xr.errors import BlocksFailed, Failed
from dissect_xr.parallel.pool import Pool, Stream
from dissect_xr.parallel.retry import attempt, check

TREE = 8
"""How many partial results one task merges."""


@dataclass(frozen=True)
class Fold:
    """Tasks whose results are merged into one, and a function of the merged result."""

    key: Any
    tasks: Sequence[Any]
    function: Callable[[Any], Any]
    """task -> partial result"""
    merge: Callable[..., Any]
    """several partial results -> one; associative and commutative"""
    finish: Callable[[Any, Any], Any]
    """(key, merged result) -> the value that `fold_tasks` yields; runs on a worker"""
    width: int = TREE
    """partial results merged by one task, at least 2"""


@dataclass
class _State:
    """A fold of which some tasks have started."""

    fold: Fold
    left: int
    """tasks of the fold that have not finished"""
    merging: int = 0
    """merges that are running"""
    ready: list[Any] = field(default_factory=list)
    """handles of partial results that wait for a merge"""

    def advance(self, stream: Stream) -> None:
        """Start a merge if enough partial results wait for one, or `finish` if a single one is left."""
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
    """Run every fold; yields (key, result of `finish`) of each fold as it finishes.

    Partial results stay on the worker that computed them; only the results of `finish` are sent here. At most
    `stream.window` tasks are in flight beside the merges, whatever the number of folds.

    Parameters
    ----------
    on_task
        Called with each task of a fold when it has finished.

    Raises
    ------
    BlocksFailed
        After all other folds have finished, if a task of a fold failed (see `retry`).
    WriteError
        At once, if a result could not be written: no other could be written either.
    """
    stream = pool.stream()
    failures: list[Failed] = []
    leaves = ((fold, task) for fold in folds for task in fold.tasks)
    started: dict[int, _State] = {}
    in_flight = 0
    try:
        while True:
            while in_flight < stream.window and (leaf := next(leaves, None)) is not None:
                fold, task = leaf
                state = started.setdefault(id(fold), _State(fold, len(fold.tasks)))
                stream.add((state, task), attempt, fold.function, task)
                in_flight += 1
            if not started:
                break
            (state, task), handle = stream.next()
            if task == "finish":
                del started[id(state.fold)]
                if check(result := stream.result(handle), failures):
                    yield state.fold.key, result
                continue
            if task == "merge":
                state.merging -= 1
            else:
                state.left -= 1
                in_flight -= 1
                if on_task is not None:
                    on_task(task)
            state.ready.append(handle)
            state.advance(stream)
        if failures:
            raise BlocksFailed(failures)
    finally:
        stream.cancel()
