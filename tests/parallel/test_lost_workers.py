"""Tasks that kill their worker, and workers that are gone for good: one message, the rest done."""

import os
from dataclasses import dataclass
from pathlib import Path

import dask
import distributed
import pytest
import theatre
from folds import fold_tasks

from dissect_xr.errors import BlocksFailed, DissectError
from dissect_xr.parallel import dask_pool
from dissect_xr.parallel.fold import Fold
from dissect_xr.parallel.pool import open_pool, run_blocks, run_tasks


@dataclass(frozen=True)
class Deadly:
    """A task that kills its worker where its number is 2."""

    folder: Path
    number: int

    @property
    def what(self) -> str:
        return f"activations of first, images number {self.number}"


def run_deadly(task: Deadly) -> int:
    with (task.folder / str(task.number)).open("a") as file:
        file.write("x")
    if task.number == 2:
        os._exit(1)
    return task.number


@pytest.fixture
def killed_twice():
    """A pool of a worker that is started again when it dies; two deaths are enough to give a task up."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), open_pool(workers=1) as pool:
        yield pool


def test_a_block_that_kills_its_worker_is_named_and_the_others_are_done(killed_twice, tmp_path):
    done = []
    with pytest.raises(BlocksFailed) as caught:
        done.extend(
            result for _, result in run_blocks(killed_twice, run_deadly, [Deadly(tmp_path, n) for n in range(9)])
        )
    (failure,) = caught.value.failures
    assert failure.what == "activations of first, images number 2"
    task = "activations of first, images number 2"
    assert failure.message.startswith(f"{task}: 2 workers died while they ran only this task.")
    assert "--memory" in failure.message
    assert sorted(done) == [0, 1, 3, 4, 5, 6, 7, 8]
    # Twice beside others, which Dask blames as well, and twice alone.
    assert (tmp_path / "2").read_text() == "xxxx"


def joined(*parts: int) -> int:
    return sum(parts)


def finish(key: str, total: int) -> tuple[str, int]:
    return key, total


def test_a_fold_whose_task_kills_its_worker_fails_and_the_others_do_not(killed_twice, tmp_path):
    folds = [
        Fold(name, [Deadly(tmp_path, n) for n in numbers], run_deadly, joined, finish)
        for name, numbers in (("good", (0, 1, 3)), ("bad", (2,)))
    ]
    found = {}
    with pytest.raises(BlocksFailed, match="2 workers died while they ran only this task"):
        found.update(fold_tasks(killed_twice, folds))
    assert found == {"good": ("good", 4)}


class Given:
    """A client on whose scheduler every task was given up, since workers died that ran the task `blamed`."""

    asynchronous, status = False, "running"

    def __init__(self, blamed: str) -> None:
        self.error = distributed.scheduler.KilledWorker(blamed, None, 3)

    def nthreads(self):
        return {"tcp://1": 1}

    def scheduler_info(self, n_workers):
        return {"workers": {"tcp://1": {"nthreads": 1, "resources": {}, "memory_limit": 0}}}

    def submit(self, function, *args, **options):
        return GivenUp(self.error)

    def cancel(self, futures, force):
        raise AssertionError("nothing is in flight")


class GivenUp:
    """A future whose task was given up."""

    key, status = "mine", "error"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def add_done_callback(self, function):
        function(self)

    def exception(self):
        return self.error

    def result(self):
        raise self.error


def test_what_needs_a_result_that_was_given_up_is_lost_and_no_suspect():
    """Results of finished tasks are computed again beside what kills their workers, and may be given up then."""
    stream = dask_pool.DaskPool(Given("another")).stream()
    stream.add("a merge", joined, 1, 2)
    tag, found = stream.next()
    assert (tag, found.lost, found.what) == ("a merge", True, "a merge")
    assert stream.result(GivenUp(distributed.scheduler.KilledWorker("mine", None, 3))).lost
    stream.cancel()


def test_a_task_that_is_given_up_itself_is_run_alone_before_it_fails():
    stream = dask_pool.DaskPool(Given("mine")).stream()
    stream.add("a task", joined, 1, 2)
    tag, found = stream.next()
    assert (tag, found.lost) == ("a task", False)
    assert found.message.startswith("a task: 4 workers died while they ran only this task")
    stream.cancel()


@pytest.fixture
def play(tmp_path, monkeypatch):
    """A scheduler and two workers in processes of their own, and a wait of 2 s for dask_pool."""
    monkeypatch.setattr(dask_pool, "PATIENCE", 2.0)
    monkeypatch.setattr(dask_pool, "POLL", 0.2)
    found = theatre.Theatre(tmp_path, theatre.environment())
    try:
        found.start_cluster()
        yield found
    finally:
        found.close()


@pytest.fixture
def pool(play):
    """A pool of its dask_pool."""
    with distributed.Client(scheduler_file=str(play.address), set_as_default=False, timeout="60s") as client:
        client.wait_for_workers(len(theatre.WORKERS), timeout=60)
        address = client.scheduler.address
    with open_pool(scheduler=address) as found:
        yield found


@pytest.mark.parametrize(("lost", "gpu", "said"), [(("gpu",), True, "GPU worker"), (theatre.WORKERS, False, "worker")])
def test_without_workers_a_run_ends_after_a_wait(play, pool, lost, gpu, said):
    assert dict(run_tasks(pool, abs, range(4), gpu=gpu)) == {n: n for n in range(4)}
    for name in lost:
        play.kill(name)
    with pytest.raises(DissectError, match=rf"^there has been no {said} for 2 s\. Finished blocks are kept: start one"):
        list(run_tasks(pool, abs, range(4), gpu=gpu))


def test_a_worker_that_comes_in_time_is_enough(play, pool, monkeypatch):
    for name in theatre.WORKERS:
        play.kill(name)
    monkeypatch.setattr(dask_pool, "PATIENCE", 60.0)
    results = run_tasks(pool, abs, range(4))
    play.start_cluster()
    assert sorted(result for _, result in results) == [0, 1, 2, 3]
