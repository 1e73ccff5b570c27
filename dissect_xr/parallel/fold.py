"""Many tasks whose results are merged into one by a tree of merges, on any pool.

Knows: which partial results are merged when, and that they stay on the worker that made them.
Does not know: what is merged, or where tasks run (`pool`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dissect_xr.errors import BlocksFailed, Failed
from dissect_xr.parallel.pool import Pool, Stream
from dissect_xr.parallel.retry import attempt, check

TREE = 8
"""Partial sums merged by one task."""


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
