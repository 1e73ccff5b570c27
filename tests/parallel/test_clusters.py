"""Clusters whose workers come and go: clients of others, schedulers without workers, windows that follow."""

import gc
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import distributed
import pytest
from folds import fold_tasks

from dissect_xr.errors import DissectError
from dissect_xr.parallel import dask_pool
from dissect_xr.parallel.fold import Fold
from dissect_xr.parallel.pool import open_pool, run_tasks

HANGS = 120.0
"""Seconds after which a cluster that should have other workers by now is given up."""


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(dask_pool, "POLL", 0.1)


@contextmanager
def cluster_of(workers, **options):
    """A cluster of worker processes with one thread each, and a client of it."""
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            silence_logs=40, **options,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield cluster, client


def wait_for(client, workers):
    """Wait until so many workers are there; `wait_for_workers` accepts more."""
    deadline = time.monotonic() + HANGS
    while len(client.nthreads()) != workers:
        assert time.monotonic() < deadline, f"expected {workers} workers, there are {client.nthreads()}"
        time.sleep(0.02)
    time.sleep(2 * dask_pool.POLL)


@dataclass(frozen=True)
class Leaf:
    """A task of fold `fold`."""

    fold: int
    value: int


def as_list(leaf: Leaf) -> list[int]:
    time.sleep(0.05)
    return [leaf.value]


def joined(*parts: list[int]) -> list[int]:
    return [value for part in parts for value in part]


@pytest.mark.slow
def test_folds_lose_nothing_while_workers_come_and_go():
    sizes = {}

    def folds(cluster, client):
        deadline, numbers = time.monotonic() + HANGS, count()

        def some(until):
            while not until(len(client.nthreads())):
                assert time.monotonic() < deadline, f"there are {len(client.nthreads())} workers"
                number = next(numbers)
                sizes[number] = 20 + number % 7
                yield Fold(number, [Leaf(number, n) for n in range(sizes[number])], as_list, joined)

        assert client.nthreads() == {}
        # So short a target wants a worker for every task in flight: 2 tasks, then 4 on 2 workers, then 8 on 4.
        cluster.adapt(minimum=0, maximum=4, interval="100ms", target_duration="10ms")
        yield from some(lambda workers: workers == 4)
        cluster.adapt(minimum=1, maximum=1, interval="100ms")
        yield from some(lambda workers: workers == 1)
        yield Fold("last", [Leaf(-1, n) for n in range(30)], as_list, joined)

    seen = Counter()
    with cluster_of(0) as (cluster, client), open_pool(client=client, expect=4) as pool:
        assert (pool.workers, pool.gpus) == (4, 0)
        results = list(fold_tasks(pool, folds(cluster, client), on_task=lambda leaf: seen.update([leaf])))
    assert len(results) == len(sizes) + 1
    assert {key: sorted(values) for key, values in results} == {
        key: list(range(size)) for key, size in (sizes | {"last": 30}).items()
    }
    assert set(seen.values()) == {1}


@pytest.mark.slow
def test_a_window_follows_the_workers():
    with cluster_of(1) as (cluster, client), open_pool(client=client) as pool:
        stream = pool.stream()
        assert stream.window == 2
        for workers, window in ((3, 6), (1, 2), (0, 2)):
            cluster.scale(workers)
            wait_for(client, workers)
            assert stream.window == window
        assert pool.workers == 1


@pytest.mark.slow
def test_gpu_tasks_wait_for_a_gpu_that_is_expected():
    with (
        cluster_of(0, resources={"GPU": 1}) as (cluster, client),
        open_pool(client=client, expect_gpus=1) as told,
        open_pool(client=client) as not_told,
    ):
        assert (told.gpus, told.workers, not_told.gpus) == (1, 1, 0)
        streams = told.stream(gpu=True), not_told.stream(gpu=True)
        assert [stream._resources for stream in streams] == [{"GPU": 1}, None]
        for stream in streams:
            stream.add("task", abs, -1)
        cluster.scale(2)
        for stream in streams:
            tag, handle = stream.next()
            assert (tag, stream.result(handle)) == ("task", 1)
        wait_for(client, 2)
        assert streams[0].window == 4
        assert not_told.stream(gpu=True)._resources == {"GPU": 1}


def test_a_client_of_others_stays_open_and_keeps_nothing():
    with cluster_of(1) as (_, client):
        with open_pool(client=client) as pool:
            assert dict(run_tasks(pool, abs, range(20))) == {n: n for n in range(20)}
            next(run_tasks(pool, abs, range(20)))  # left half way
            (host,) = pool.hosts
            assert (host.tasks, host.gpu) == (1, False)
            assert host.memory == client.scheduler_info()["workers"][host.name.removeprefix("worker ")]["memory_limit"]
        assert client.status == "running"
        gc.collect()
        deadline = time.monotonic() + 10
        while keys(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert keys(client) == []
    with pytest.raises(DissectError, match="expected a connected client"), open_pool(client=client):
        pass


def keys(client):
    return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))


def test_where_no_worker_comes_a_run_ends_after_a_wait(monkeypatch):
    monkeypatch.setattr(dask_pool, "PATIENCE", 1.0)
    with cluster_of(0) as (_, client):
        for options, said in (({}, "worker"), ({"expect_gpus": 1}, "GPU worker")):
            with (
                open_pool(client=client, **options) as pool,
                pytest.raises(DissectError, match=rf"^there has been no {said} for 1 s\. Finished blocks are kept"),
            ):
                list(run_tasks(pool, abs, range(4), gpu=True))
        assert keys(client) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client": 1, "scheduler": "tcp://a:1"}, "got scheduler and client"),
        ({"client": 1, "workers": 2}, "got client and workers or gpus"),
        ({"client": 1, "gpus": 2}, "got client and workers or gpus"),
        ({"scheduler": "tcp://a:1", "workers": 2}, "got scheduler and workers or gpus"),
        ({"workers": 2, "expect": 3}, "expect and expect_gpus describe a cluster"),
        ({"expect_gpus": 3}, "expect and expect_gpus describe a cluster"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(arguments, message):
    with pytest.raises(DissectError, match=message), open_pool(**arguments):
        pass
