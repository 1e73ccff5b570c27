"""Folds and steps by themselves, without the stages that the package runs them for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from dissect_xr.parallel.fold import Fold, Steps, run_steps
from dissect_xr.parallel.pool import Pool

Result = TypeVar("Result")


def fold_tasks(
    pool: Pool, folds: Iterable[Fold], *, on_task: Callable[[Any], None] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Run every fold as a work of one step; yields (key, result) as they finish, and raises as `run_steps` does."""
    finished: deque[tuple[Any, Any]] = deque()

    def one(fold: Fold) -> Steps:
        (result,) = yield [fold]
        finished.append((fold.key, result))

    for _ in run_steps(pool, (one(fold) for fold in folds), on_task=on_task):
        while finished:
            yield finished.popleft()


def run_here(steps: Generator[Sequence[Fold], Sequence[Any], Result]) -> Result:
    """What work in steps returns, run in this thread one task after the other."""
    try:
        folds = next(steps)
        while True:
            folds = steps.send([_folded(fold) for fold in folds])
    except StopIteration as end:
        return end.value


def _folded(fold: Fold) -> Any:
    parts = [fold.function(task) for task in fold.tasks]
    merged = fold.merge(*parts) if len(parts) > 1 and fold.merge is not None else parts[0]
    return merged if fold.finish is None else fold.finish(fold.key, merged)
